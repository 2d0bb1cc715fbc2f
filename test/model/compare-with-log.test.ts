import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareWithLog, isBehind, type LogNow } from '../../src/model/compare-with-log.js';
import { lastKnownOffset, resumeOffset, type PartitionState } from '../../src/model/state.js';
import { dedupToken } from '../../src/model/token.js';
import { intent, stateOf } from '../support/fakes.js';

const log = (fields: Partial<LogNow> = {}): LogNow => ({ topicId: 'A', start: 0, end: 100, ...fields });
const known = (settled: number, ...pending: [number, number][]): PartitionState => ({
  ...stateOf(settled, ...pending),
  topicId: 'A',
  incarnation: 3,
});
const nameless = (settled: number, ...pending: [number, number][]): PartitionState => ({
  ...known(settled, ...pending),
  topicId: undefined,
});

const restarted = (settled: number, topicId: string | undefined): unknown => ({
  settled,
  pending: [],
  incarnation: 4,
  topicId,
  isOffsetReused: true,
});

describe('a stored state still speaks of the log', () => {
  const table: readonly (readonly [string, PartitionState, LogNow, ReturnType<typeof compareWithLog>])[] = [
    ['the same topic', known(41), log(), { kind: 'same', state: known(41) }],
    ['everything that the log holds is settled', known(99), log(), { kind: 'same', state: known(99) }],
    [
      'everything that the log holds is in doubt',
      known(41, [42, 99]),
      log(),
      { kind: 'same', state: known(41, [42, 99]) },
    ],
    ['retention took what is behind us', known(41), log({ start: 40 }), { kind: 'same', state: known(41) }],
    ['retention overtook us: a gap, not a reset', known(41), log({ start: 60 }), { kind: 'same', state: known(41) }],
    ['the log is empty and nothing was ever settled', known(-1), log({ end: 0 }), { kind: 'same', state: known(-1) }],
    ['no id was known: it is learnt', nameless(41), log(), { kind: 'same', state: known(41) }],
    [
      'no id was known and a range is in doubt: its token must not change',
      nameless(41, [42, 50]),
      log(),
      { kind: 'same', state: nameless(41, [42, 50]) },
    ],
    ['the brokers give no id any more', known(41), log({ topicId: undefined }), { kind: 'same', state: known(41) }],
  ];
  test.each(table)('%s', (_, state, now, expected) => expect(compareWithLog(state, now)).toEqual(expected));
});

describe('a topic that was recreated is told apart', () => {
  test('though it has grown past the old offset', () =>
    expect(compareWithLog(known(41), log({ topicId: 'B' }))).toEqual({
      kind: 'recreated',
      was: 'A',
      restarted: restarted(-1, 'B'),
    }));

  test('with a range in doubt, of which nothing is left to be read', () =>
    expect(compareWithLog(known(41, [42, 50]), log({ topicId: 'B', end: 3 }))).toEqual({
      kind: 'recreated',
      was: 'A',
      restarted: restarted(-1, 'B'),
    }));

  test('and begins where its log begins', () =>
    expect(compareWithLog(known(41), log({ topicId: 'B', start: 7 }))).toMatchObject({ restarted: restarted(6, 'B') }));
});

describe('a log that ends before what is known of it was truncated', () => {
  test('it goes on where the log ends', () =>
    expect(compareWithLog(known(41), log({ end: 41 }))).toEqual({
      kind: 'truncated',
      known: 41,
      restarted: restarted(40, 'A'),
    }));

  test('down to nothing', () =>
    expect(compareWithLog(known(41), log({ end: 0 }))).toEqual({
      kind: 'truncated',
      known: 41,
      restarted: restarted(-1, 'A'),
    }));

  test('where the brokers give no ids', () =>
    expect(compareWithLog(nameless(41), log({ topicId: undefined, end: 9 }))).toEqual({
      kind: 'truncated',
      known: 41,
      restarted: restarted(8, undefined),
    }));

  test('a range in doubt that reaches into what is gone is for a person to decide', () =>
    expect(compareWithLog(known(41, [42, 50]), log({ end: 50 }))).toEqual({
      kind: 'truncated',
      known: 50,
      restarted: undefined,
    }));
});

test('I10: no token of a restarted partition was ever used before', () => {
  const states = fc.record({
    settled: fc.nat({ max: 50 }),
    incarnation: fc.nat({ max: 5 }),
    topicId: fc.constantFrom('A', 'B', undefined),
  });
  const logs = fc.record({
    topicId: fc.constantFrom('A', 'B', undefined),
    start: fc.nat({ max: 10 }),
    end: fc.nat({ max: 60 }),
  });
  const token = (state: PartitionState): string =>
    dedupToken({ cluster: 'c', group: 'g', topic: 't', partition: 0, ...state, intent: intent(7, 9) });
  fc.assert(
    fc.property(states, logs, (fields, now) => {
      const state: PartitionState = { ...fields, pending: [] };
      const found = compareWithLog(state, now);
      if (found.kind === 'same') expect(resumeOffset(found.state)).toBe(resumeOffset(state));
      else {
        expect(token(found.restarted!)).not.toBe(token(state));
        expect(lastKnownOffset(found.restarted!)!).toBeLessThanOrEqual(Math.max(now.start, now.end) - 1);
      }
    }),
    { numRuns: 1000 },
  );
});

test('J9: a committed offset beyond where the state goes on tells of a state that was set back; at it, or of a log that began again, it does not', () => {
  expect(isBehind(known(9), 11)).toBe(true);
  expect(isBehind(known(9), 10)).toBe(false);
  expect(isBehind(known(9), undefined)).toBe(false);
  expect(isBehind({ ...known(9), isOffsetReused: true }, 11)).toBe(false);
  // In doubt are 10 to 14: it goes on at 10, and nothing beyond was settled.
  expect(isBehind(known(9, [10, 14]), 11)).toBe(true);
});

test('the topic id is learnt once, where nothing is in doubt and the broker tells one', () => {
  const idAfter = (state: PartitionState, topicId?: string) => {
    const check = compareWithLog(state, log({ topicId }));
    return check.kind === 'same' ? check.state.topicId : check.kind;
  };
  expect(idAfter(nameless(9), 'B')).toBe('B');
  expect(idAfter(nameless(9), undefined)).toBeUndefined();
  expect(idAfter(nameless(9, [10, 14]), 'B')).toBeUndefined();
  expect(idAfter(known(9), undefined)).toBe('A');
});

test('a log that was truncated is gone on with under the id that is known, whoever tells it', () => {
  const restartedId = (state: PartitionState, topicId?: string) => {
    const check = compareWithLog(state, log({ topicId, end: 5 }));
    return check.kind === 'truncated' ? check.restarted?.topicId : check.kind;
  };
  expect([restartedId(known(9), 'A'), restartedId(known(9)), restartedId(nameless(9), 'B')]).toEqual(['A', 'A', 'B']);
});
