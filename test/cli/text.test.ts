import { describe, expect, test } from 'vitest';
import { stateJson, stateText } from '../../src/cli/state-show.js';
import { durationText, table, wrap } from '../../src/cli/text.js';
import { verifyText } from '../../src/cli/verify.js';
import { outcomeOf, type PartitionVerdict } from '../../src/tools/verify.js';
import { noDifference } from '../../src/tools/offset-runs.js';
import type { HaltNote } from '../../src/model/state.js';
import type { PartitionStatus } from '../../src/tools/status.js';

test('columns are aligned, a cell may take several lines, and no line ends in blanks', () => {
  const columns = [{ title: 'name' }, { title: 'n', align: 'right' }, { title: 'what' }] as const;
  expect(
    table(columns, [
      ['a', '100', 'one\ntwo'],
      ['longer', '5', ''],
    ]).split('\n'),
  ).toEqual(['name      n  what', 'a       100  one', '             two', 'longer    5']);
});

test.each([
  [0, '0 s'],
  [12_400, '12 s'],
  [60_000, '1 min'],
  [3_599_000, '59 min'],
  [7_500_000, '2 h 5 min'],
  [7_200_000, '2 h'],
  [260_000_000, '3 d'],
  [-5, '0 s'],
])('%i ms is %s', (ms, text) => expect(durationText(ms)).toBe(text));

test('a sentence is broken between words', () => {
  expect(wrap('aa bb cc dddddd', { width: 7, indent: ' ' })).toBe(' aa bb\n cc\n dddddd');
});

const intent = (first: number, last: number, more = {}) => ({
  first,
  last,
  rows: 1,
  atMs: 0,
  settings: 's',
  tables: ['d.t'],
  excluded: [],
  ...more,
});
const place = (partition: number, more: Partial<PartitionStatus>): PartitionStatus => ({
  key: { cluster: 'c', group: 'g', topic: 'orders', partition },
  topic: 'orders',
  partition,
  logStart: 0,
  logEnd: 100,
  stableEnd: 100,
  committed: undefined,
  stored: undefined,
  ...more,
});
const look = {
  cluster: 'c',
  group: 'g',
  members: ['m'],
  transactions: [],
  partitions: [
    place(0, {
      committed: 41,
      stored: {
        owner: 'vm:1',
        state: {
          settled: 40,
          pending: [intent(41, 50), intent(51, 60, { token: 'x' })],
          incarnation: 2,
          topicId: 'id',
        },
      },
    }),
    place(1, { committed: 90 }),
    place(2, {}),
    place(3, {
      logStart: 70,
      stored: { owner: 'vm:2', state: { settled: -1, pending: [], incarnation: 0, topicId: undefined } },
    }),
  ],
};

describe('state show', () => {
  test('one line for each partition, one more for each further range in doubt, and the totals', () => {
    expect(stateText(look, 65_000).split('\n')).toEqual([
      'topic   partition  settled  in doubt                 committed  log end  lag  incarnation  owner',
      'orders          0       40  41-50 (1 min)                   41      100   59            2  vm:1',
      '                            51-60 (1 min, imported)',
      'orders          1        –  no state                        90      100   10            –  –',
      'orders          2        –  no state                         –      100  100            –  –',
      'orders          3     none  –                                –      100   30            0  vm:2',
      '',
      '4 partitions (2 without a state), 2 ranges in doubt (20 offsets, the oldest 1 min), lag 199; group g has 1 member',
    ]);
  });

  test('who halted is told with why, since when, and whether to act: else a partition stands until somebody reads the log', () => {
    const stateOf = (halted: HaltNote) => ({
      owner: 'vm:1',
      state: { settled: 40, pending: [], incarnation: 0, topicId: 'id', halted },
    });
    const partitions = [
      place(0, { stored: stateOf({ code: 'KCR_POISON', atMs: 5_000, heals: false }) }),
      place(1, { stored: stateOf({ code: 'KCR_INSERT_FATAL', atMs: 5_000, heals: true }) }),
      place(2, { stored: stateOf({ code: 'KCR_OF_LATER', atMs: 5_000, heals: false }) }),
      place(3, { stored: { owner: 'vm:1', state: { settled: 40, pending: [], incarnation: 0, topicId: 'id' } } }),
    ];
    const text = stateText({ ...look, partitions }, 65_000).replace(/\s+/gu, ' ');
    expect(text).toContain(
      'orders/0: HALTED since 1970-01-01T00:00:05.000Z (1 min), KCR_POISON (a record cannot be inserted). It waits for a person',
    );
    expect(text).toContain(
      'orders/1: HALTED since 1970-01-01T00:00:05.000Z (1 min), KCR_INSERT_FATAL (ClickHouse refuses the insert and will go on refusing it). It heals by itself',
    );
    expect(text).toContain(
      'orders/2: HALTED since 1970-01-01T00:00:05.000Z (1 min), KCR_OF_LATER. It waits for a person',
    );
    expect(text).toContain('nothing in doubt, 3 halted, lag');
    expect(text).not.toContain('orders/3:');
    expect(stateJson({ ...look, partitions }, 'keeper', 65_000)).toMatchObject({
      partitions: [
        { halted: { code: 'KCR_POISON', atMs: 5_000, heals: false, ageMs: 60_000 } },
        { halted: { heals: true } },
        {},
        { halted: null },
      ],
      totals: { halted: 3 },
    });
  });

  test('for machines what is not there is null', () => {
    expect(stateJson(look, 'keeper', 65_000)).toMatchObject({
      group: 'g',
      store: 'keeper',
      members: 1,
      partitions: [
        {
          partition: 0,
          hasState: true,
          settled: 40,
          inDoubt: [{ first: 41, last: 50, ageMs: 65_000 }, { token: 'x' }],
          incarnation: 2,
          topicId: 'id',
          owner: 'vm:1',
          committed: 41,
          lag: 59,
        },
        {
          partition: 1,
          hasState: false,
          settled: null,
          inDoubt: [],
          incarnation: null,
          owner: null,
          committed: 90,
          lag: 10,
        },
        { committed: null },
        { settled: -1 },
      ],
      totals: { partitions: 4, withoutState: 2, inDoubt: 2, lag: 199 },
    });
  });
});

test('verify names the first offsets of each kind, and how many more there are', () => {
  const clean = {
    topic: 'orders',
    partition: 0,
    table: 'd.t',
    range: { first: 0, last: 9 },
    records: 10,
    gone: 0,
    unreadable: 0,
    damages: [],
    beyond: undefined,
    isEmpty: false,
    stored: undefined,
    before: undefined,
    unsettled: undefined,
    unrecorded: undefined,
    contents: undefined,
    ...noDifference,
  };
  const other = {
    ...clean,
    partition: 1,
    missing: { count: 3, first: [4, 5] },
    doubled: { count: 1, first: [7] },
    beyond: 12,
    gone: 2,
  };
  expect(verifyText({ partitions: [clean], notCompared: {}, notes: [] })).toBe(
    [
      'topic   partition  offsets  records  missing  doubled  not in topic',
      'orders          0  0-9           10        0        0             0',
      '',
      '10 records of 1 partition compared: every one is in the table exactly once.',
    ].join('\n'),
  );
  const text = verifyText({
    partitions: [clean, other, { ...clean, partition: 2, range: undefined, why: 'nothing is settled' }],
    notCompared: {},
    notes: ['n'],
  });
  for (const part of [
    'orders/1: MISSING in d.t: 4, 5, … (1 more)',
    'orders/1: DOUBLED in d.t: 7\n',
    'rows up to offset 12',
    'retention took 2 offsets',
    'nothing is settled',
    'Note: n.',
    'the table differs',
  ]) {
    expect(text).toContain(part);
  }
});

test('F1: verify never calls a comparison of nothing a success', () => {
  const none = {
    topic: 'orders',
    partition: 0,
    table: 'd.t',
    range: undefined,
    why: 'nothing is settled',
    records: 0,
    gone: 0,
    unreadable: 0,
    damages: [],
    beyond: undefined,
    isEmpty: false,
    stored: undefined,
    before: undefined,
    unsettled: undefined,
    unrecorded: undefined,
    contents: undefined,
    ...noDifference,
  };
  const some = { ...none, partition: 1, range: { first: 0, last: 9 }, records: 10 };
  const outcome = (...partitions: PartitionVerdict[]) => outcomeOf({ partitions, notCompared: {}, notes: [] });
  expect(outcome(none)).toBe('incomplete');
  expect(outcome({ ...none, isEmpty: true })).toBe('incomplete');
  expect(outcome({ ...some, records: 0 })).toBe('incomplete');
  expect(outcome(some, none)).toBe('incomplete');
  expect(outcome(some, { ...none, isEmpty: true })).toBe('clean');
  const rows = { rows: 600, first: 0, last: 99 };
  expect(outcome({ ...none, unrecorded: rows })).toBe('differs');
  expect(outcome({ ...some, unsettled: rows })).toBe('clean');
  expect(
    outcome({
      ...some,
      contents: { records: 10, differing: { count: 1, first: [] }, unread: { count: 0, first: [] } },
    }),
  ).toBe('differs');
  expect(
    outcome({
      ...some,
      contents: { records: 10, differing: { count: 0, first: [] }, unread: { count: 1, first: [] } },
    }),
  ).toBe('differs');
  const text = verifyText({ partitions: [{ ...none, unrecorded: rows }], notCompared: {}, notes: [] });
  expect(text).toMatch(/600 rows of offsets 0-99, which are neither\s+settled nor in doubt/);
  expect(verifyText({ partitions: [none], notCompared: {}, notes: [] })).toContain(
    'Nothing was compared, so nothing can be said of the table. Of 1 partition with records nothing was compared.',
  );
});
