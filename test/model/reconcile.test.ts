// The table of design §3: every state of a partition × every way a batch may lie to it.
import { describe, expect, test } from 'vitest';
import { beginProgress, reconcile, type Decision } from '../../src/model/reconcile.js';
import type { Batch } from '../../src/model/record.js';
import type { PartitionState } from '../../src/model/state.js';
import { chunk, intent, range, stateOf } from '../support/fakes.js';

/** `replay 10-14`, with the offsets of its records where the range has others: `replay 10-14 (11 12)`. */
function brief(decision: Decision): string {
  if (decision.kind === 'gap') return `gap ${decision.expected}-${decision.found - 1}`;
  const { kind, batch } = decision;
  const offsets = batch.records.map(({ offset }) => offset);
  const isWhole = offsets.length === batch.lastOffset - batch.afterOffset;
  return `${kind} ${range(batch)}${isWhole ? '' : ` (${offsets.join(' ')})`}`;
}

/** What each batch is decided to be. */
function decide(state: PartitionState, sought: boolean, batches: readonly Batch[]): string[][] {
  let progress = beginProgress(state, sought);
  return batches.map((batch) => {
    const reconciled = reconcile(progress, batch);
    progress = reconciled.progress;
    return reconciled.decisions.map(brief);
  });
}

interface Row {
  readonly name: string;
  readonly state: PartitionState;
  /** The source was sent to where the state resumes. @default true, unless the state is empty: what the stage does */
  readonly sought?: boolean;
  /** The batches, and what becomes of each. An empty list: held, or read before the seek. */
  readonly rows: readonly (readonly [batch: Batch, decisions: readonly string[]])[];
}

const nothing = stateOf(-1);
const settled9 = stateOf(9);
const doubt10to14 = stateOf(9, [10, 14]);
const twoInDoubt = stateOf(9, [10, 14], [15, 19]);
const firstInDoubt = stateOf(-1, [10, 14]);

function check(rows: readonly Row[]): void {
  for (const { name, state, sought = state !== nothing, rows: steps } of rows) {
    test(name, () => {
      const batches = steps.map(([batch]) => batch);
      expect(decide(state, sought, batches)).toEqual(steps.map(([, decisions]) => decisions));
    });
  }
}

describe('nothing is known of the partition', () => {
  check([
    { name: 'whatever comes first is new', state: nothing, rows: [[chunk(41, 49), ['insert 42-49']]] },
    {
      name: 'the beginning of the log is new',
      state: nothing,
      rows: [
        [chunk(-1, 4), ['insert 0-4']],
        [chunk(4, 9), ['insert 5-9']],
      ],
    },
    {
      name: 'a hole at the beginning belongs to the first range',
      state: nothing,
      rows: [[chunk(-1, 4, { holes: [0, 1] }), ['insert 0-4 (2 3 4)']]],
    },
  ]);
});

describe('a batch against what is settled', () => {
  check([
    { name: 'all of it settled: committed, not inserted again', state: settled9, rows: [[chunk(4, 9), ['skip 5-9']]] },
    {
      name: 'partly settled: only the rest is inserted',
      state: settled9,
      rows: [[chunk(7, 11), ['skip 8-9', 'insert 10-11']]],
    },
    { name: 'right behind what is settled: inserted', state: settled9, rows: [[chunk(9, 14), ['insert 10-14']]] },
    {
      name: 'nothing but a hole at the cut',
      state: settled9,
      rows: [[chunk(7, 11, { holes: [9, 10] }), ['skip 8-9 (8)', 'insert 10-11 (11)']]],
    },
    {
      name: 'an empty batch moves the range on, so that its offsets can be committed',
      state: settled9,
      rows: [[chunk(9, 11, { holes: [10, 11] }), ['insert 10-11 ()']]],
    },
    {
      name: 'delivered twice: the second time it is only committed',
      state: settled9,
      rows: [
        [chunk(9, 14), ['insert 10-14']],
        [chunk(9, 16), ['skip 10-14', 'insert 15-16']],
      ],
    },
  ]);
});

describe('a batch against a range in doubt', () => {
  check([
    { name: 'inside, not to its end: held, never failed', state: doubt10to14, rows: [[chunk(9, 12), []]] },
    { name: 'reaching its end: replayed as recorded', state: doubt10to14, rows: [[chunk(9, 14), ['replay 10-14']]] },
    {
      name: 'passing its end: replayed as recorded, the rest is new',
      state: doubt10to14,
      rows: [[chunk(9, 19), ['replay 10-14', 'insert 15-19']]],
    },
    {
      name: 'in pieces: the replay is whole',
      state: doubt10to14,
      rows: [
        [chunk(9, 10), []],
        [chunk(10, 13), []],
        [chunk(13, 16), ['replay 10-14', 'insert 15-16']],
      ],
    },
    {
      name: 'beginning before it: the settled part is skipped',
      state: doubt10to14,
      rows: [
        [chunk(6, 12), ['skip 7-9']],
        [chunk(12, 14), ['replay 10-14']],
      ],
    },
    {
      name: 'all in one: skip, replay, insert',
      state: doubt10to14,
      rows: [[chunk(7, 19), ['skip 8-9', 'replay 10-14', 'insert 15-19']]],
    },
    { name: 'nothing was ever settled', state: firstInDoubt, rows: [[chunk(9, 16), ['replay 10-14', 'insert 15-16']]] },
    {
      name: 'with its own first record compacted away: the recorded range, the records that are left',
      state: doubt10to14,
      rows: [[chunk(9, 14, { holes: [10, 12] }), ['replay 10-14 (11 13 14)']]],
    },
    {
      name: 'with its last record compacted away: it ends where the range ends, not at a record',
      state: doubt10to14,
      rows: [[chunk(9, 17, { holes: [14] }), ['replay 10-14 (10 11 12 13)', 'insert 15-17']]],
    },
    {
      name: 'with no record left: an empty replay settles it',
      state: doubt10to14,
      rows: [[chunk(9, 16, { holes: [10, 11, 12, 13, 14] }), ['replay 10-14 ()', 'insert 15-16']]],
    },
    {
      name: 'an empty batch inside: held like any other',
      state: doubt10to14,
      rows: [
        [chunk(9, 11, { holes: [10, 11] }), []],
        [chunk(11, 14), ['replay 10-14 (12 13 14)']],
      ],
    },
    {
      name: 'delivered again from its beginning while half of it is held: still one whole replay, and nothing of it is skipped',
      state: doubt10to14,
      rows: [
        [chunk(9, 12), []],
        [chunk(9, 16), ['replay 10-14', 'insert 15-16']],
      ],
    },
    {
      name: 'delivered again from before it while half of it is held: only what is settled is skipped',
      state: doubt10to14,
      rows: [
        [chunk(7, 12), ['skip 8-9']],
        [chunk(7, 11), ['skip 8-9']],
        [chunk(11, 14), ['replay 10-14']],
      ],
    },
    {
      name: 'delivered again after its replay: only committed',
      state: doubt10to14,
      rows: [
        [chunk(9, 14), ['replay 10-14']],
        [chunk(9, 14), ['skip 10-14']],
      ],
    },
  ]);
});

describe('a batch against two ranges in doubt', () => {
  check([
    {
      name: 'over both and beyond',
      state: twoInDoubt,
      rows: [[chunk(9, 24), ['replay 10-14', 'replay 15-19', 'insert 20-24']]],
    },
    {
      name: 'over the first, into the second: the second is held',
      state: twoInDoubt,
      rows: [
        [chunk(9, 17), ['replay 10-14']],
        [chunk(17, 19), ['replay 15-19']],
      ],
    },
    {
      name: 'cut just between them',
      state: twoInDoubt,
      rows: [
        [chunk(9, 14), ['replay 10-14']],
        [chunk(14, 19), ['replay 15-19']],
        [chunk(19, 20), ['insert 20']],
      ],
    },
    {
      name: 'ending in both by turns',
      state: twoInDoubt,
      rows: [
        [chunk(9, 11), []],
        [chunk(11, 16), ['replay 10-14']],
        [chunk(16, 22), ['replay 15-19', 'insert 20-22']],
      ],
    },
    {
      name: 'delivered again while half of the second is held: the first, which was replayed, may be committed',
      state: twoInDoubt,
      rows: [
        [chunk(9, 17), ['replay 10-14']],
        [chunk(9, 19), ['skip 10-14', 'replay 15-19']],
      ],
    },
  ]);
});

describe('poison records that the recorded range leaves out', () => {
  const without = (...excluded: number[]): PartitionState => ({ ...settled9, pending: [intent(10, 14, { excluded })] });
  check([
    {
      name: 'the replay leaves them out too',
      state: without(11, 13),
      rows: [[chunk(9, 14), ['replay 10-14 (10 12 14)']]],
    },
    {
      name: 'at its boundaries the range stays',
      state: without(10, 14),
      rows: [[chunk(9, 15), ['replay 10-14 (11 12 13)', 'insert 15']]],
    },
    {
      name: 'those that compaction took are no matter',
      state: without(11),
      rows: [[chunk(9, 14, { holes: [11] }), ['replay 10-14 (10 12 13 14)']]],
    },
  ]);

  test('the bytes of a replay are those of the records it has', () => {
    const { decisions } = reconcile(beginProgress(without(11), true), chunk(9, 14));
    const [replay] = decisions;
    expect(replay?.kind === 'replay' && replay.batch.bytes).toBe(chunk(9, 14, { holes: [11] }).bytes);
  });
});

describe('a batch that begins beyond what is expected', () => {
  check([
    {
      name: 'read before the seek: left for when it comes again',
      state: settled9,
      rows: [
        [chunk(19, 24), []],
        [chunk(9, 14), ['insert 10-14']],
      ],
    },
    {
      name: 'read before the seek, with a range in doubt',
      state: doubt10to14,
      rows: [
        [chunk(12, 19), []],
        [chunk(9, 19), ['replay 10-14', 'insert 15-19']],
      ],
    },
    {
      name: 'read before the seek, and settled: skipped, the seek is still under way',
      state: settled9,
      rows: [
        [chunk(4, 7), ['skip 5-7']],
        [chunk(19, 24), []],
        [chunk(9, 11), ['insert 10-11']],
      ],
    },
    {
      name: 'a gap, told before the rest; ranges stay contiguous',
      state: settled9,
      sought: false,
      rows: [[chunk(12, 14), ['gap 10-12', 'insert 10-14 (13 14)']]],
    },
    {
      name: 'a gap after the seek was answered',
      state: settled9,
      rows: [
        [chunk(9, 11), ['insert 10-11']],
        [chunk(14, 16), ['gap 12-14', 'insert 12-16 (15 16)']],
      ],
    },
    {
      name: 'a gap in a later tenure of a partition that nothing was known of',
      state: nothing,
      rows: [
        [chunk(-1, 4), ['insert 0-4']],
        [chunk(6, 9), ['gap 5-6', 'insert 5-9 (7 8 9)']],
      ],
    },
    {
      name: 'retention took the head of a range in doubt: told, and what is left replayed as recorded',
      state: doubt10to14,
      sought: false,
      rows: [[chunk(11, 16), ['gap 10-11', 'replay 10-14 (12 13 14)', 'insert 15-16']]],
    },
    {
      name: 'retention took all of a range in doubt: told, and the range settled',
      state: doubt10to14,
      sought: false,
      rows: [[chunk(19, 24), ['gap 10-19', 'replay 10-14 ()', 'insert 15-24 (20 21 22 23 24)']]],
    },
    {
      name: 'a gap while half of a range in doubt is held',
      state: doubt10to14,
      rows: [
        [chunk(9, 11), []],
        [chunk(12, 14), ['gap 12-12', 'replay 10-14 (10 11 13 14)']],
      ],
    },
    {
      name: 'a gap that ends inside the second range in doubt',
      state: twoInDoubt,
      sought: false,
      rows: [
        [chunk(16, 17), ['gap 10-16', 'replay 10-14 ()']],
        [chunk(17, 19), ['replay 15-19 (17 18 19)']],
      ],
    },
  ]);
});

test('a decision leaves the progress it was given as it was, so that a failed step can be made again', () => {
  const progress = beginProgress(twoInDoubt, true);
  reconcile(progress, chunk(9, 24));
  expect(progress).toEqual({ next: 10, replays: twoInDoubt.pending, held: [], sought: true });
});
