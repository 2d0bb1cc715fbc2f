// The three delivery semantics, composed by hand from the six operators as the README shows them, and judged over every
// call at which a process can die.
import fc from 'fast-check';
import type { Observable } from 'rxjs';
import { describe, expect, test, vi } from 'vitest';
import { bufferCountOrTime, commit, consume, groupByPartition, insertDeduped, reconcileWithState } from '../operators/index.js';
import { Ledger } from '../src/ledger.js';
import { World, fates, type Fault, type Life } from './support/world.js';

vi.setConfig({ testTimeout: 60_000 });

type Start = (world: World, life: Life) => Observable<unknown>;

const retry = { minDelayMs: 5, random: () => 0 };
const limits = ({ batchCount }: Life) => ({ count: batchCount, maxWaitMs: 10 });

const atMostOnce: Start = ({ source, sink, clock }, life) =>
  consume(source).pipe(
    groupByPartition(source, ({ chunks }) =>
      chunks.pipe(
        bufferCountOrTime(limits(life), clock),
        commit(source, undefined, { mustCommit: true }),
        insertDeduped(sink, { retry, whenInDoubt: 'abandon' }, clock),
      ),
    ),
  );

const atLeastOnce: Start = ({ source, sink, clock }, life) =>
  consume(source).pipe(
    groupByPartition(source, ({ chunks }) =>
      chunks.pipe(bufferCountOrTime(limits(life), clock), insertDeduped(sink, { retry }, clock), commit(source)),
    ),
  );

const exactlyOnce = (maxPending = 2): Start => ({ source, store, sink, clock }, life) => {
  const ledger = new Ledger(store, source, { group: 'g', owner: 'me', maxPending, retry, scheduler: clock });
  return consume(source).pipe(
    groupByPartition(source, ({ assignment, chunks }) =>
      chunks.pipe(
        bufferCountOrTime(limits(life), clock),
        reconcileWithState({ ledger, source, sink }, assignment, {}, clock),
        insertDeduped(sink, { concurrency: maxPending, retry }, clock),
        commit(source, ledger),
      ),
    ),
  );
};

const logs = [23, 9];
const firstLife: Life = { chunkSize: 5, batchCount: 4 };
const secondLife: Life = { chunkSize: 7, batchCount: 6 };

/** Every way a first life can go wrong. */
function everyFault(start: Start): Fault[] {
  const calls = new World(logs).live(firstLife, start).calls.length;
  return fates.flatMap((fate) => Array.from({ length: calls }, (_, i) => ({ call: i + 1, fate })));
}

interface Judged {
  readonly fault: string;
  readonly missing: readonly string[];
  readonly doubled: readonly string[];
  readonly violations: readonly string[];
}

/** Two lives over the same log, store and table, the first of which meets the fault. */
function judge(start: Start, fault: Fault): Judged {
  const world = new World(logs).live({ ...firstLife, fault }, start);
  const name = `${fault.fate} ${world.calls[fault.call - 1]} (call ${fault.call})`;
  world.live(secondLife, start);
  return { fault: name, ...world.verdict(), violations: world.violations };
}

const judgeAll = (start: Start): Judged[] => everyFault(start).map((fault) => judge(start, fault));

describe('a life without a fault', () => {
  for (const [name, start] of [['at-most-once', atMostOnce], ['at-least-once', atLeastOnce], ['exactly-once', exactlyOnce()]] as const) {
    test(`${name}: every record is in the table, once`, () => {
      expect(new World(logs).live(firstLife, start).verdict()).toEqual({ missing: [], doubled: [] });
    });

    test(`${name}: a second life finds nothing left to insert`, () => {
      const world = new World(logs).live(firstLife, start);
      const calls = world.calls.length;
      expect(world.live(secondLife, start).verdict()).toEqual({ missing: [], doubled: [] });
      expect(world.calls.slice(calls)).not.toContain('insert');
    });
  }

  test('exactly-once: costs about one write to the store a batch', () => {
    const { calls } = new World([200]).live({ chunkSize: 50, batchCount: 5 }, exactlyOnce());
    const count = (name: string) => calls.filter((call) => call === name).length;
    expect(count('insert')).toBe(40);
    expect(count('write')).toBeLessThanOrEqual(42);
  });
});

describe('exactly-once: whatever call a process dies at', () => {
  for (const maxPending of [1, 2, 3]) {
    const judged = judgeAll(exactlyOnce(maxPending));

    test(`nothing is missing and nothing doubled, with ${maxPending} in doubt at most (${judged.length} ways to die)`, () => {
      expect(judged.filter(({ missing, doubled }) => missing.length > 0 || doubled.length > 0)).toEqual([]);
    });

    test(`I1, I6: nothing is inserted unrecorded or committed unsettled, with ${maxPending} in doubt at most`, () => {
      expect(judged.filter(({ violations }) => violations.length > 0)).toEqual([]);
    });
  }

  test('nor if the next two die as well', () => {
    const start = exactlyOnce();
    const fault = fc.record({ call: fc.integer({ min: 1, max: 40 }), fate: fc.constantFrom(...fates) });
    const life = fc.record({ chunkSize: fc.integer({ min: 1, max: 12 }), batchCount: fc.integer({ min: 1, max: 9 }), fault });
    fc.assert(
      fc.property(fc.array(life, { minLength: 2, maxLength: 4 }), (lives) => {
        const world = new World([17, 6]);
        for (const each of lives) world.live(each, start);
        expect(world.live(secondLife, start).verdict()).toEqual({ missing: [], doubled: [] });
        expect(world.violations).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });
});

describe('at-least-once: whatever call a process dies at', () => {
  const judged = judgeAll(atLeastOnce);

  test(`nothing is missing (${judged.length} ways to die)`, () => {
    expect(judged.filter(({ missing }) => missing.length > 0)).toEqual([]);
  });

  test('rows are doubled for some: this is what exactly-once is for, and the test above can fail', () => {
    const doubling = judged.filter(({ doubled }) => doubled.length > 0).map(({ fault }) => fault.replace(/ \(.*/, ''));
    expect(doubling).toContain('after insert');
    expect(doubling).toContain('before commit');
    expect(doubling).toContain('reply insert');
  });
});

describe('at-most-once: whatever call a process dies at', () => {
  const judged = judgeAll(atMostOnce);

  test(`nothing is doubled (${judged.length} ways to die)`, () => {
    expect(judged.filter(({ doubled }) => doubled.length > 0)).toEqual([]);
  });

  test('rows are lost for some: this is what the others are for, and the test above can fail', () => {
    const losing = judged.filter(({ missing }) => missing.length > 0).map(({ fault }) => fault.replace(/ \(.*/, ''));
    expect(losing).toContain('before insert');
    expect(losing).toContain('after commit');
  });
});
