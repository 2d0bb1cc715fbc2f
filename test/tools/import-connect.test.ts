import { describe, expect, test } from 'vitest';
import { connectRow, connectToken, type ConnectRow } from '../../src/clickhouse/connect-state.js';
import type { PartitionState } from '../../src/model/state.js';
import { applyImport, planImport, type ImportFacts } from '../../src/tools/import-connect.js';
import type { StateAccess } from '../../src/stores/stores.js';
import type { PartitionStatus } from '../../src/tools/status.js';

const at = (state?: PartitionState, ends: Partial<PartitionStatus> = {}): PartitionStatus => ({
  key: { cluster: 'c', group: 'g', topic: 'a-b', partition: 3 },
  topic: 'a-b',
  partition: 3,
  logStart: 0,
  logEnd: 40,
  stableEnd: 40,
  committed: undefined,
  stored: state === undefined ? undefined : { state, owner: 'vm:1' },
  ...ends,
});
const facts: ImportFacts = {
  tables: ['d.t'],
  settings: 's',
  nowMs: 5_000,
  committed: undefined,
  group: 'connect-x',
  landed: 'unknown',
  overwrite: false,
};
const row = (phase: ConnectRow['phase'], first = 10, last = 19): ConnectRow => ({
  topic: 'a-b',
  partition: 3,
  first,
  last,
  phase,
});
const settled = (offset: number): PartitionState => ({
  settled: offset,
  pending: [],
  incarnation: 0,
  topicId: undefined,
});
const inDoubt: PartitionState = {
  ...settled(9),
  pending: [
    { first: 10, last: 19, rows: 10, atMs: 5_000, settings: 's', tables: ['d.t'], excluded: [], token: 'a-b-3-10-19' },
  ],
};

describe("the connector's state becomes", () => {
  test.each<[string, ConnectRow | undefined, Partial<ImportFacts>, Partial<PartitionStatus>, PartitionState]>([
    ['settled, after processing', row('AFTER_PROCESSING'), {}, {}, settled(19)],
    ['in doubt under its token, before processing', row('BEFORE_PROCESSING'), {}, {}, inDoubt],
    [
      'the same where the table says that nothing of it landed',
      row('BEFORE_PROCESSING'),
      { landed: 'none' },
      {},
      inDoubt,
    ],
    ['the same where a part of it landed', row('BEFORE_PROCESSING'), { landed: 'part' }, {}, inDoubt],
    [
      'settled where the table says that all of it landed',
      row('BEFORE_PROCESSING'),
      { landed: 'all' },
      {},
      settled(19),
    ],
    [
      'nothing settled before its very first range',
      row('BEFORE_PROCESSING', 0, 9),
      {},
      {},
      { ...settled(-1), pending: [{ ...inDoubt.pending[0]!, first: 0, last: 9, token: 'a-b-3-0-9' }] },
    ],
    ['what its group has committed, for NONE', row('NONE', 0, 0), { committed: 7 }, {}, settled(6)],
    ['what its group has committed, without a row', undefined, { committed: 0 }, {}, settled(-1)],
    ["the log's end, without a row, when the log holds nothing", undefined, {}, { logStart: 40 }, settled(39)],
  ])('%s', (_name, connect, more, ends, after) => {
    expect(planImport(at(undefined, ends), connect, { ...facts, ...more })).toMatchObject({
      after,
      refusal: undefined,
    });
  });

  test.each<[string, ConnectRow | undefined, Partial<ImportFacts>, RegExp]>([
    ['nothing, when nothing is known of where it was', row('NONE', 0, 0), {}, /committed nothing.*--group connect-x/],
    ['nothing, when its group was not named', undefined, { group: undefined }, /--connect-group/],
    [
      'nothing, when it has been where the log is not',
      row('AFTER_PROCESSING', 30, 40),
      {},
      /offset 40, the log ends at 40/,
    ],
    [
      'nothing, when a read-back would mislead',
      row('BEFORE_PROCESSING'),
      { landed: 'misleading' },
      /taken for missing; start the connector until its state is AFTER_PROCESSING/,
    ],
  ])('%s', (_name, connect, more, why) => {
    const plan = planImport(at(), connect, { ...facts, ...more });
    expect(plan).toMatchObject({ after: undefined, refusal: expect.stringMatching(why) as string });
  });

  test('nothing where there is a state of ours; with --overwrite the next incarnation of it', () => {
    for (const ours of [
      { ...settled(3), incarnation: 2 },
      { ...inDoubt, settled: undefined, incarnation: 2 },
    ]) {
      expect(planImport(at(ours), row('AFTER_PROCESSING'), facts)).toMatchObject({
        after: undefined,
        refusal: expect.stringMatching(/--overwrite/) as string,
      });
      expect(planImport(at(ours), row('AFTER_PROCESSING'), { ...facts, overwrite: true }).after).toEqual({
        ...settled(19),
        incarnation: 3,
      });
    }
    // Claimed, but nothing was ever settled or begun.
    expect(planImport(at({ ...settled(0), settled: undefined }), row('AFTER_PROCESSING'), facts).after).toEqual(
      settled(19),
    );
  });

  test('what retention took is told', () => {
    expect(planImport(at(undefined, { logStart: 30 }), row('AFTER_PROCESSING'), facts).words.join()).toMatch(
      /20-29 are gone/,
    );
    expect(planImport(at(undefined, { logStart: 15 }), row('BEFORE_PROCESSING'), facts).words.join()).toMatch(
      /log begins at 15/,
    );
  });
});

test('a state that has come about since the look is not written over, unless that was asked for', async () => {
  const written: PartitionState[] = [];
  const access = {
    replace: async (_at, _owner, next) => void written.push(next({ ...settled(25), incarnation: 4 })),
  } as Pick<StateAccess, 'replace'> as StateAccess;
  const plans = [planImport(at(), row('AFTER_PROCESSING'), facts)];
  await expect(applyImport(access, plans, false)).rejects.toThrow(/has got a state of ours meanwhile.*--overwrite/);
  expect(written).toEqual([]);
  await applyImport(access, plans, true);
  expect(written).toEqual([{ ...settled(19), incarnation: 5 }]);
});

describe('a row of its table', () => {
  test('is read; a topic may have dashes, and numbers come as texts', () => {
    expect(connectRow({ key: 'a-b-3', minOffset: '10', maxOffset: '19', state: 'BEFORE_PROCESSING' }, 't')).toEqual(
      row('BEFORE_PROCESSING'),
    );
    expect(connectToken(row('BEFORE_PROCESSING'))).toBe('a-b-3-10-19');
  });

  test.each([
    [{ key: 'orders', minOffset: 0, maxOffset: 1, state: 'NONE' }, /key is not/],
    [{ key: 'orders-x', minOffset: 0, maxOffset: 1, state: 'NONE' }, /key is not/],
    [{ key: 'orders-0', minOffset: 0, maxOffset: 1, state: 'DONE' }, /its state is "DONE"/],
    [{ key: 'orders-0', minOffset: 5, maxOffset: 4, state: 'AFTER_PROCESSING' }, /its range is 5-4/],
    [{ key: 'orders-0', minOffset: '1', maxOffset: '9223372036854775807', state: 'AFTER_PROCESSING' }, /its range/],
  ])('%j is refused', (raw, why) => {
    expect(() => connectRow(raw, 'd.state')).toThrow(why);
  });
});
