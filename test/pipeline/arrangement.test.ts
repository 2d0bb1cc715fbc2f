// The three delivery semantics, composed by hand from the six operators as the README shows them, and judged over every
// call at which a process can die.
import fc from 'fast-check';
import { VirtualAction, VirtualTimeScheduler, from, retry as rxRetry, timer, type Observable } from 'rxjs';
import { describe, expect, test, vi } from 'vitest';
import {
  bufferCountOrTime,
  commit,
  consume,
  groupByPartition,
  insertDeduped,
  reconcileWithState,
} from '../../operators/index.js';
import { Ledger } from '../../src/ledger.js';
import { SimulatedWorld, checkExactlyOnce, type Fault, type Process, type Verdict } from '../../src/testing/index.js';

vi.setConfig({ testTimeout: 60_000 });

/** How a process works that is about to live. Other sizes in another life: other cuts. */
interface Life {
  readonly chunkSize: number;
  readonly batchCount: number;
  readonly faults?: readonly Fault[];
}

type Start = (process: Process, life: Life) => Observable<unknown>;

/** Lives one after the other, over the same log, store and table. */
class Trial {
  /** Names of the port calls made so far, in all lives. */
  readonly calls: string[] = [];
  readonly #clock = new VirtualTimeScheduler(VirtualAction, 0);
  readonly #world: SimulatedWorld;

  constructor(partitions: readonly number[]) {
    this.#world = new SimulatedWorld({ partitions, scheduler: this.#clock, tell: (line) => this.#hear(line) });
  }

  /** Until it dies by its fault or has nothing left to do; or calls for ever, which is given up after a while. */
  live(life: Life, start: Start): this {
    const { chunkSize, faults = [] } = life;
    const living = this.#world.live((process) => start(process, life), { chunkSize, faults }).subscribe();
    this.#clock.maxFrames = this.#clock.now() + 20_000;
    this.#clock.flush();
    living.unsubscribe();
    return this;
  }

  get violations(): readonly unknown[] {
    return this.#world.violations;
  }

  verdict(): Pick<Verdict, 'missing' | 'doubled'> {
    const { missing, doubled } = checkExactlyOnce(this.#world);
    return { missing, doubled };
  }

  #hear(line: string): void {
    const call = /^\d+ [a-z]\d* (cluster|log|commit|claim|write|insert|readBack|fill) /.exec(line)?.[1];
    if (call !== undefined) this.calls.push(call);
  }
}

const retry = { minDelayMs: 5, random: () => 0 };
const limits = ({ batchCount }: Life) => ({ count: batchCount, maxWaitMs: 10 });

const atMostOnce: Start = ({ source, sink, scheduler }, life) =>
  consume(source).pipe(
    groupByPartition(source, (partition) =>
      partition.chunks.pipe(
        bufferCountOrTime({ ...limits(life), scheduler }),
        commit(partition, { retry, scheduler }),
        insertDeduped(sink, { retry, scheduler }),
      ),
    ),
  );

const atLeastOnce: Start = ({ source, sink, scheduler }, life) =>
  consume(source).pipe(
    groupByPartition(source, (partition) =>
      partition.chunks.pipe(
        bufferCountOrTime({ ...limits(life), scheduler }),
        insertDeduped(sink, { retry, scheduler }),
        commit(partition),
      ),
    ),
  );

const exactlyOnce =
  (maxPending = 2): Start =>
  ({ source, store, sink, scheduler, name }, life) => {
    const ledger = new Ledger(store, source, { group: 'g', owner: name, maxPending, retry, scheduler });
    return consume(source).pipe(
      groupByPartition(source, (partition) =>
        partition.chunks.pipe(
          bufferCountOrTime({ ...limits(life), scheduler }),
          reconcileWithState(partition, ledger, sink, { scheduler }),
          insertDeduped(sink, { concurrency: maxPending, retry, scheduler }),
          commit(partition, ledger),
        ),
      ),
    );
  };

const logs = [23, 9];
const firstLife: Life = { chunkSize: 5, batchCount: 4 };
const secondLife: Life = { chunkSize: 7, batchCount: 6 };

const fates = ['die before', 'die after', 'die, lands late', 'lose reply'] as const;

/** Every way a first life can go wrong. */
function everyFault(start: Start): Fault[] {
  const calls = new Trial(logs).live(firstLife, start).calls.length;
  return fates.flatMap((fate) => Array.from({ length: calls }, (_, i) => ({ nth: i + 1, fate })));
}

interface Judged {
  readonly fault: string;
  readonly missing: readonly string[];
  readonly doubled: readonly string[];
  readonly violations: readonly unknown[];
}

/** Two lives over the same log, store and table, the first of which meets the fault. */
function judge(start: Start, fault: Fault): Judged {
  const world = new Trial(logs).live({ ...firstLife, faults: [fault] }, start);
  const name = `${JSON.stringify(fault.fate).replaceAll('"', '')} ${world.calls[fault.nth - 1]} (call ${fault.nth})`;
  world.live(secondLife, start);
  return { fault: name, ...world.verdict(), violations: world.violations };
}

/** Called within a test: what runs while tests are collected, mutation testing takes for part of every one. */
const judgeAll = (start: Start): Judged[] => everyFault(start).map((fault) => judge(start, fault));

describe('a life without a fault', () => {
  for (const [name, start] of [
    ['at-most-once', atMostOnce],
    ['at-least-once', atLeastOnce],
    ['exactly-once', exactlyOnce()],
  ] as const) {
    test(`${name}: every record is in the table, once`, () => {
      expect(new Trial(logs).live(firstLife, start).verdict()).toEqual({ missing: [], doubled: [] });
    });

    test(`${name}: a second life finds nothing left to insert`, () => {
      const world = new Trial(logs).live(firstLife, start);
      const calls = world.calls.length;
      expect(world.live(secondLife, start).verdict()).toEqual({ missing: [], doubled: [] });
      expect(world.calls.slice(calls)).not.toContain('insert');
    });
  }

  test('exactly-once: costs about one write to the store a batch', () => {
    const { calls } = new Trial([200]).live({ chunkSize: 50, batchCount: 5 }, exactlyOnce());
    const count = (name: string) => calls.filter((call) => call === name).length;
    expect(count('insert')).toBe(40);
    expect(count('write')).toBeLessThanOrEqual(42);
  });
});

describe('exactly-once: whatever call a process dies at', () => {
  test.each([1, 2, 3])(
    'nothing is missing, nothing doubled, and every invariant holds at the ports, with %i in doubt at most',
    (maxPending) => {
      const judged = judgeAll(exactlyOnce(maxPending));
      expect(judged.length).toBeGreaterThan(50);
      expect(judged.filter(({ missing, doubled }) => missing.length > 0 || doubled.length > 0)).toEqual([]);
      expect(judged.filter(({ violations }) => violations.length > 0)).toEqual([]);
    },
  );

  test('nor if the next two die as well', () => {
    const start = exactlyOnce();
    const fault = fc.record({ nth: fc.integer({ min: 1, max: 40 }), fate: fc.constantFrom(...fates) });
    const life = fc.record({
      chunkSize: fc.integer({ min: 1, max: 12 }),
      batchCount: fc.integer({ min: 1, max: 9 }),
      faults: fc.tuple(fault),
    });
    fc.assert(
      fc.property(fc.array(life, { minLength: 2, maxLength: 4 }), (lives) => {
        const world = new Trial([17, 6]);
        for (const each of lives) world.live(each, start);
        expect(world.live(secondLife, start).verdict()).toEqual({ missing: [], doubled: [] });
        expect(world.violations).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });
});

describe('at-least-once: whatever call a process dies at', () => {
  test('nothing is missing', () => {
    const judged = judgeAll(atLeastOnce);
    expect(judged.length).toBeGreaterThan(50);
    expect(judged.filter(({ missing }) => missing.length > 0)).toEqual([]);
  });

  test('rows are doubled for some: this is what exactly-once is for, and the test above can fail', () => {
    const doubling = judgeAll(atLeastOnce)
      .filter(({ doubled }) => doubled.length > 0)
      .map(({ fault }) => fault.replace(/ \(.*/, ''));
    expect(doubling).toContain('die after insert');
    expect(doubling).toContain('die before commit');
    expect(doubling).toContain('lose reply insert');
  });
});

describe('at-most-once: whatever call a process dies at', () => {
  test('nothing is doubled', () => {
    const judged = judgeAll(atMostOnce);
    expect(judged.length).toBeGreaterThan(50);
    expect(judged.filter(({ doubled }) => doubled.length > 0)).toEqual([]);
  });

  /** A commit that hangs somewhere while others are made; then the process dies, and another goes on. */
  const afterLateCommits = (start: Start) =>
    [5, 10, 20, 40, 80, 160].flatMap((landsAfterMs) => {
      const faults: Fault[] = [
        { port: 'commit', nth: 1, fate: { landsAfterMs } },
        { port: 'commit', nth: 5, fate: 'die before' },
      ];
      return new Trial([23])
        .live({ ...firstLife, faults }, start)
        .live(secondLife, start)
        .verdict().doubled;
    });
  /** As sources without `commitOnce` do: what is not known to have taken effect is made again. */
  const again: Start = (process, life) => {
    const source = { ...process.source };
    delete source.commitOnce;
    source.commit = (...args) =>
      from(process.source.commit(...args)).pipe(rxRetry({ delay: () => timer(5, process.scheduler) }));
    return atMostOnce({ ...process, source }, life);
  };

  test('nor by a commit that lands late: made in one attempt, it is refused once its outcome is unknown', () => {
    expect(afterLateCommits(atMostOnce)).toEqual([]);
  });

  test('a commit that is made again does double: the test above can fail', () => {
    expect(afterLateCommits(again)).not.toEqual([]);
  });

  test('rows are lost for some: this is what the others are for, and the test above can fail', () => {
    const losing = judgeAll(atMostOnce)
      .filter(({ missing }) => missing.length > 0)
      .map(({ fault }) => fault.replace(/ \(.*/, ''));
    expect(losing).toContain('die before insert');
    expect(losing).toContain('die after commit');
  });
});
