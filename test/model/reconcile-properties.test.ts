// What holds of `reconcile` whatever the state a process died in, and however the stream is cut on the way to it.
import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { beginProgress, reconcile, type Decision } from '../../src/model/reconcile.js';
import type { Batch } from '../../src/model/record.js';
import { emptyState, resumeOffset, type Intent, type PartitionState } from '../../src/model/state.js';
import { dedupToken } from '../../src/model/token.js';
import { chunk, intent } from '../support/fakes.js';

vi.setConfig({ testTimeout: 60_000 });

/** A stream of one tenure: contiguous batches, at most once started again by a seek to where the state resumes. */
interface Tenure {
  readonly state: PartitionState;
  readonly batches: readonly Batch[];
  /** The last offset of the log, and what it holds no record of. */
  readonly end: number;
  readonly holes: readonly number[];
}

function cutUp(afterOffset: number, end: number, cuts: readonly number[], holes: readonly number[]): Batch[] {
  const ends = [...new Set([...cuts.filter((cut) => cut > afterOffset && cut < end), end])].sort((a, b) => a - b);
  return ends.map((last, i) => chunk(ends[i - 1] ?? afterOffset, last, { holes }));
}

const offset = fc.nat({ max: 50 });
const offsets = fc.uniqueArray(offset, { maxLength: 20 });

/** Any state a process may leave behind. */
const states: fc.Arbitrary<PartitionState> = fc
  .record({
    settled: fc.option(fc.nat({ max: 25 }), { nil: undefined }),
    first: fc.nat({ max: 25 }),
    sizes: fc.array(fc.integer({ min: 1, max: 8 }), { maxLength: 3 }),
    poison: offsets,
  })
  .map(({ settled, first, sizes, poison }) => {
    const pending: Intent[] = [];
    for (const size of sizes) {
      const begin = (pending.at(-1)?.last ?? settled ?? first - 1) + 1;
      const last = begin + size - 1;
      const excluded = poison.filter((each) => each >= begin && each <= last).sort((a, b) => a - b);
      pending.push(intent(begin, last, { excluded }));
    }
    return { ...emptyState, settled, pending };
  });

const tenures: fc.Arbitrary<Tenure> = fc
  .record({
    state: states,
    start: fc.nat({ max: 20 }),
    stale: fc.option(offset),
    more: fc.nat({ max: 15 }),
    cuts: offsets,
    staleCuts: offsets,
    holes: offsets,
  })
  .map(({ state, start, stale, more, cuts, staleCuts, holes }) => {
    const resume = resumeOffset(state) ?? start;
    const end = resume + more;
    // The group's committed offset is never beyond what is settled, so what is read before the seek begins at or before it.
    const from = Math.min(start, resume);
    const before =
      stale === null || resumeOffset(state) === undefined
        ? []
        : cutUp(from - 1, Math.max(from, Math.min(stale, end)), staleCuts, holes);
    return { state, end, holes, batches: [...before, ...cutUp(resume - 1, end, cuts, holes)] };
  });

function decisionsOn(state: PartitionState, batches: readonly Batch[]): Decision[] {
  let progress = beginProgress(state, resumeOffset(state) !== undefined);
  return batches.flatMap((batch) => {
    const reconciled = reconcile(progress, batch);
    progress = reconciled.progress;
    return reconciled.decisions;
  });
}

type Emitted = Extract<Decision, { kind: 'replay' | 'insert' }>;
const isEmitted = (decision: Decision): decision is Emitted => decision.kind === 'replay' || decision.kind === 'insert';
const rangeOf = ({ batch }: Emitted): [number, number] => [batch.afterOffset + 1, batch.lastOffset];
const offsetsOf = ({ batch }: Emitted): number[] => batch.records.map((record) => record.offset);

/** Where a tenure's first range begins. */
const beginOf = ({ state, batches }: Tenure): number => resumeOffset(state) ?? batches[0]!.afterOffset + 1;

function forAll(check: (tenure: Tenure, emitted: readonly Emitted[], all: readonly Decision[]) => void): void {
  fc.assert(
    fc.property(tenures, (tenure) => {
      const all = decisionsOn(tenure.state, tenure.batches);
      check(tenure, all.filter(isEmitted), all);
    }),
    { numRuns: 500 },
  );
}

describe('whatever the cuts, and whatever state a process died in', () => {
  test('no offset beyond what is settled is lost or doubled', () => {
    forAll((tenure, emitted) => {
      const got = emitted.flatMap(rangeOf);
      const covered = emitted.flatMap(({ batch }) =>
        Array.from({ length: batch.lastOffset - batch.afterOffset }, (_, i) => batch.afterOffset + 1 + i),
      );
      expect(covered).toEqual(Array.from({ length: covered.length }, (_, i) => beginOf(tenure) + i));
      const held = tenure.state.pending.find(({ first, last }) => first > (got.at(-1) ?? -1) && last > tenure.end);
      expect(got.at(-1) ?? beginOf(tenure) - 1).toBe(held === undefined ? tenure.end : held.first - 1);
    });
  });

  test('no record is lost or doubled, but for poison that a recorded range leaves out', () => {
    forAll((tenure, emitted) => {
      const excluded = new Set(tenure.state.pending.flatMap((each) => each.excluded));
      const last = emitted.at(-1)?.batch.lastOffset ?? -1;
      const expected: number[] = [];
      for (let each = beginOf(tenure); each <= last; each++)
        if (!tenure.holes.includes(each) && !excluded.has(each)) expected.push(each);
      expect(emitted.flatMap(offsetsOf)).toEqual(expected);
    });
  });

  test('I2: a replay is exactly a recorded range, in their order, with its records and no other', () => {
    forAll(({ state, holes }, emitted) => {
      const replays = emitted.filter((each) => each.kind === 'replay');
      expect(replays.map(({ intent: recorded }) => recorded)).toEqual(state.pending.slice(0, replays.length));
      for (const replay of replays) {
        const { first, last, excluded } = replay.intent;
        expect(rangeOf(replay)).toEqual([first, last]);
        const left = Array.from({ length: last - first + 1 }, (_, i) => first + i).filter(
          (each) => !holes.includes(each) && !excluded.includes(each),
        );
        expect(offsetsOf(replay)).toEqual(left);
      }
    });
  });

  test('I7: each range begins where the one before ended', () => {
    forAll((_, emitted) => {
      for (const [i, { batch }] of emitted.entries())
        if (i > 0) expect(batch.afterOffset).toBe(emitted[i - 1]!.batch.lastOffset);
    });
  });

  test('I3: nothing new passes before every range in doubt', () => {
    forAll(({ state }, emitted) => {
      const firstNew = emitted.findIndex(({ kind }) => kind === 'insert');
      if (firstNew !== -1) expect(firstNew).toBe(state.pending.length);
    });
  });

  test('nothing is skipped, so nothing committed, that is neither settled nor passed before', () => {
    forAll(({ state }, _, all) => {
      let decided = (resumeOffset(state) ?? 0) - 1;
      for (const decision of all) {
        if (decision.kind === 'skip') expect(decision.batch.lastOffset).toBeLessThanOrEqual(decided);
        if (isEmitted(decision)) decided = decision.batch.lastOffset;
      }
    });
  });

  test('no gap is told of where there is none', () => {
    forAll((_tenure, _emitted, all) => expect(all.filter(({ kind }) => kind === 'gap')).toEqual([]));
  });
});

test('the cuts of the stream decide on nothing but the cuts of what is new', () => {
  forAll((tenure, emitted) => {
    const whole = decisionsOn(tenure.state, cutUp(beginOf(tenure) - 1, tenure.end, [], tenure.holes)).filter(isEmitted);
    const summary = (list: readonly Emitted[]) => ({
      replays: list.filter(({ kind }) => kind === 'replay').map((each) => [...rangeOf(each), offsetsOf(each)]),
      newOffsets: list.filter(({ kind }) => kind === 'insert').flatMap(offsetsOf),
      end: list.at(-1)?.batch.lastOffset,
    });
    expect(summary(emitted)).toEqual(summary(whole));
  });
});

test('a gap is told once, before what lies behind it, and ranges stay contiguous over it', () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 10 }),
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 9 }),
      fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 2 }),
      (settled, before, missing, sizes) => {
        const pending: Intent[] = [];
        for (const size of sizes) {
          const first = (pending.at(-1)?.last ?? settled) + 1;
          pending.push(intent(first, first + size - 1));
        }
        const found = settled + before + missing + 1;
        const all = decisionsOn({ ...emptyState, settled, pending }, [
          chunk(settled, settled + before),
          chunk(found - 1, found + 20),
        ]);
        expect(all.filter(({ kind }) => kind === 'gap')).toEqual([{ kind: 'gap', expected: found - missing, found }]);
        const emitted = all.filter(isEmitted);
        for (const [i, { batch }] of emitted.entries())
          expect(batch.afterOffset).toBe(i === 0 ? settled : emitted[i - 1]!.batch.lastOffset);
        expect(emitted.at(-1)?.batch.lastOffset).toBe(found + 20);
      },
    ),
  );
});

test('two lives, cut differently, insert the same ranges under the same tokens', () => {
  const life = fc.record({
    cuts: offsets,
    dies: fc.record({ recorded: fc.nat({ max: 6 }), settled: fc.nat({ max: 6 }) }),
  });
  const tokenOf = (range: Intent) =>
    dedupToken({ cluster: 'c', group: 'g', topic: 't', incarnation: 0, partition: 0, intent: range });
  fc.assert(
    fc.property(life, offsets, ({ cuts, dies }, otherCuts) => {
      // The first life records some of its ranges and settles some of those; any that was recorded may be in the table.
      const first = decisionsOn(emptyState, cutUp(-1, 40, cuts, [])).filter(isEmitted);
      const intents = first.slice(0, dies.recorded).map((each) => intent(...rangeOf(each)));
      const settledCount = Math.min(dies.settled, intents.length);
      const state: PartitionState = {
        ...emptyState,
        settled: intents[settledCount - 1]?.last,
        pending: intents.slice(settledCount),
      };
      const second = decisionsOn(state, cutUp((resumeOffset(state) ?? 0) - 1, 40, otherCuts, [])).filter(isEmitted);

      const rowsByToken = new Map(intents.map((recorded, i) => [tokenOf(recorded), offsetsOf(first[i]!)]));
      for (const each of second) {
        const token = tokenOf(each.kind === 'replay' ? each.intent : intent(...rangeOf(each)));
        if (each.kind === 'replay') expect(rowsByToken.get(token)).toEqual(offsetsOf(each));
        rowsByToken.set(token, offsetsOf(each));
      }
      const table = [...rowsByToken.values()].flat().sort((a, b) => a - b);
      expect(table).toEqual(Array.from({ length: 41 }, (_, i) => i));
    }),
    { numRuns: 500 },
  );
});
