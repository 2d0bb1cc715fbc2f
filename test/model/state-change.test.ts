// What a change makes of a state, and which changes that wait become one write.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { changed, misfitOf, nextWrite, type StateChange } from '../../src/model/state-change.js';
import { lastKnownOffset, type PartitionState } from '../../src/model/state.js';
import { briefState, intent, stateOf } from '../support/fakes.js';

const record = (first: number, last: number): StateChange => ({ kind: 'record', intent: intent(first, last) });
const settle = (last: number): StateChange => ({ kind: 'settle', last });
const replace = (...ranges: readonly (readonly [number, number])[]): StateChange => ({
  kind: 'replace',
  parts: ranges.map(([first, last]) => intent(first, last)),
});
const note = (first: number, last: number): StateChange => ({ kind: 'note', first, last, notes: { isFilling: true } });
const halt: StateChange = { kind: 'halt', note: { code: 'KCR_POISON', atMs: 7, heals: false } };
const inDoubt = stateOf(9, [10, 14], [15, 19]);

describe('a change', () => {
  test.each<[string, PartitionState, StateChange, string | undefined]>([
    ['I7: follows the last range in doubt', inDoubt, record(20, 24), undefined],
    ['I7: leaves no gap', inDoubt, record(21, 24), 'an intent that begins at 21 after one that ends at 19'],
    ['I7: does not overlap', inDoubt, record(19, 24), 'an intent that begins at 19 after one that ends at 19'],
    ['I7: follows what is settled', stateOf(9), record(11, 14), 'an intent that begins at 11 after one that ends at 9'],
    ['begins anywhere in an empty state', stateOf(-1), record(1000, 1004), undefined],
    ['I5: settles the oldest', inDoubt, settle(14), undefined],
    ['I5: not the next one', inDoubt, settle(19), 'settling 19 while the oldest range in doubt ends at 14'],
    ['I5: not what was never recorded', stateOf(9), settle(14), 'settling 14 while nothing is in doubt'],
    ['replaces whole ranges', inDoubt, replace([10, 12], [13, 19]), undefined],
    [
      'I16: replaces no part of one',
      inDoubt,
      replace([10, 12]),
      'parts of 10-12 that are not those of whole ranges in doubt',
    ],
    [
      'I7: replaces a range by parts without a hole between them',
      inDoubt,
      replace([10, 11], [13, 14]),
      'parts of 10-14 that are not those of whole ranges in doubt',
    ],
    [
      'I7: not by one part that ends before it begins',
      inDoubt,
      replace([10, 9], [10, 14]),
      'parts of 10-14 that are not those of whole ranges in doubt',
    ],
    ['replaces a range by parts of one offset', stateOf(9, [10, 11]), replace([10, 10], [11, 11]), undefined],
    ['notes on a range in doubt', inDoubt, note(15, 19), undefined],
    ['not on a settled one', inDoubt, note(5, 9), 'a note on 5-9, which is not in doubt'],
    ['halts in any state', stateOf(-1), halt, undefined],
  ])('%s', (_, state, change, expected) => {
    expect(misfitOf(state, change)).toBe(expected);
  });

  test('leaves the state that it is made of as it is', () => {
    const before = structuredClone(inDoubt);
    for (const change of [record(20, 24), settle(14), replace([10, 12], [13, 19]), note(10, 14), halt]) {
      expect(changed(inDoubt, change)).not.toEqual(before);
      expect(inDoubt).toEqual(before);
    }
  });
});

test('a part that replaces a later range leaves the earlier ones in doubt: their rows would be missing', () => {
  const { pending } = changed(inDoubt, replace([15, 16], [17, 19]));
  expect(pending.map(({ first, last }) => [first, last])).toEqual([
    [10, 14],
    [15, 16],
    [17, 19],
  ]);
});

test('a note is of the range that it is on, and of no other', () => {
  expect(changed(inDoubt, note(15, 19)).pending.map(({ isFilling }) => isFilling)).toEqual([undefined, true]);
});

test('a halt before the first range forgets the topic id, so that another topic is no reset; after it, it is kept', () => {
  expect(changed({ ...stateOf(-1), topicId: 'A' }, halt)).toMatchObject({ topicId: undefined, halted: { atMs: 7 } });
  expect(changed({ ...stateOf(9), topicId: 'A' }, halt)).toMatchObject({ topicId: 'A', halted: { atMs: 7 } });
  expect(changed({ ...inDoubt, topicId: 'A' }, halt)).toMatchObject({ topicId: 'A', pending: inDoubt.pending });
});

describe('what is recorded', () => {
  const halted: PartitionState = { ...stateOf(9), halted: { code: 'KCR_POISON', atMs: 7, heals: false } };

  test('says where a group began, for verify to begin there, when it did not at 0; and only the first range does', () => {
    expect(changed(stateOf(-1), record(1000, 1004)).began).toBe(1000);
    expect(changed(stateOf(-1), record(0, 4)).began).toBeUndefined();
    expect(changed(stateOf(9), record(10, 14)).began).toBeUndefined();
    expect(changed({ ...inDoubt, began: 5 }, record(20, 24)).began).toBe(5);
  });

  test('I3: keeps the floor of what was in doubt with it: below it a look must not take the rows of others for its own', () => {
    expect(changed(inDoubt, record(20, 24)).pending.map(({ floor }) => floor)).toEqual([undefined, undefined, 10]);
    expect(changed(stateOf(9), record(10, 14)).pending[0]).not.toHaveProperty('floor');
  });

  test('goes on after a halt; a range that was in doubt when it halted does not end it', () => {
    expect(changed(halted, record(10, 14))).not.toHaveProperty('halted');
    expect(changed({ ...inDoubt, halted: halted.halted! }, record(20, 24)).halted).toEqual(halted.halted);
  });
});

describe('one write', () => {
  const joined = (state: PartitionState, changes: readonly StateChange[], maxPending = 2) => {
    const {
      state: next,
      joined: taken,
      misfits,
    } = nextWrite(
      state,
      changes.map((change) => ({ change })),
      maxPending,
    );
    return {
      next: briefState(next),
      kinds: taken.map(({ change }) => change.kind),
      misfits: misfits.map(({ why }) => why),
    };
  };

  test('takes all that waits, and records last: what is settled makes room', () => {
    expect(joined(inDoubt, [record(20, 24), note(15, 19), settle(14)])).toEqual({
      next: 'settled 14, in doubt 15-19 20-24',
      kinds: ['note', 'settle', 'record'],
      misfits: [],
    });
  });

  test('leaves ranges waiting for which there is no room, in their order', () => {
    expect(joined(inDoubt, [record(20, 24), record(25, 29), settle(14)]).next).toBe('settled 14, in doubt 15-19 20-24');
    expect(joined(inDoubt, [record(20, 24)])).toMatchObject({ kinds: [], misfits: [] });
  });

  test('of a halt takes nothing else', () => {
    expect(joined(inDoubt, [settle(14), halt, record(20, 24)])).toMatchObject({
      next: 'settled 9, in doubt 10-14 15-19',
      kinds: ['halt'],
    });
  });

  test('tells what does not fit any more, and takes the rest', () => {
    expect(joined(inDoubt, [record(25, 29), settle(14)], 3)).toEqual({
      next: 'settled 14, in doubt 15-19',
      kinds: ['settle'],
      misfits: ['an intent that begins at 25 after one that ends at 19'],
    });
  });
});

test('I7: whatever changes wait, ranges stay contiguous behind what is settled, and settled never goes back', () => {
  const offset = fc.nat({ max: 30 });
  const range = fc.tuple(offset, fc.nat({ max: 5 })).map(([first, more]) => [first, first + more] as const);
  const change = fc.oneof(
    range.map(([first, last]) => record(first, last)),
    offset.map(settle),
    fc.array(range, { maxLength: 3 }).map((ranges) => replace(...ranges)),
    range.map(([first, last]) => note(first, last)),
  );
  // Some that fit: of any numbers drawn at random few would.
  const apt = (state: PartitionState, pick: number): StateChange => {
    const [oldest] = state.pending;
    const next = (lastKnownOffset(state) ?? -1) + 1;
    if (oldest === undefined || pick % 3 === 0) return record(next, next + (pick % 4));
    if (pick % 3 === 1) return settle(oldest.last);
    return oldest.last > oldest.first
      ? replace([oldest.first, oldest.first], [oldest.first + 1, oldest.last])
      : note(oldest.first, oldest.last);
  };
  const steps = fc.array(fc.tuple(fc.array(change, { maxLength: 3 }), fc.array(fc.nat(), { maxLength: 4 })));
  let writes = 0;
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 4 }), (rounds, maxPending) => {
      let state = stateOf(-1);
      for (const [wild, picks] of rounds) {
        const waiting = [...picks.map((pick) => apt(state, pick)), ...wild].map((each) => ({ change: each }));
        const { state: next, joined } = nextWrite(state, waiting, maxPending);
        if (joined.length > 0) writes += 1;
        next.pending.forEach(({ first, last }, at) => {
          const before = at === 0 ? next.settled : next.pending[at - 1]!.last;
          expect(last).toBeGreaterThanOrEqual(first);
          if (before !== undefined) expect(first).toBe(before + 1);
        });
        expect(next.settled ?? -1).toBeGreaterThanOrEqual(state.settled ?? -1);
        expect(lastKnownOffset(next) ?? -1).toBeGreaterThanOrEqual(lastKnownOffset(state) ?? -1);
        state = next;
      }
    }),
    { numRuns: 300 },
  );
  expect(writes).toBeGreaterThan(300);
});
