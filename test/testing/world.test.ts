// The simulated world as its users meet it: faults at port calls, time that stands still, the group, and the verdict.
import {
  EMPTY,
  Observable,
  VirtualAction,
  VirtualTimeScheduler,
  catchError,
  concat,
  concatMap,
  filter,
  from,
  map,
  of,
  tap,
} from 'rxjs';
import { describe, expect, test } from 'vitest';
import { atLeastOnce } from '../../src/pipeline/at-least-once.js';
import { atMostOnce } from '../../src/pipeline/at-most-once.js';
import { exactlyOnce, type ExactlyOnceConfig } from '../../src/pipeline/exactly-once.js';
import type { IngestError } from '../../src/errors.js';
import type { Assignment } from '../../src/model/record.js';
import {
  SimulatedWorld,
  checkExactlyOnce,
  type Fate,
  type Life,
  type Process,
  type WorldConfig,
} from '../../src/testing/index.js';

const sizes = { batch: { count: 3, maxWaitMs: 5 }, retry: { minDelayMs: 3, jitter: 0 } } as const;
const arranged =
  (more: Partial<ExactlyOnceConfig> = {}) =>
  ({ source, store, sink, name, scheduler }: Process): Observable<unknown> =>
    exactlyOnce(source, sink, store, { group: 'g', owner: name, ...sizes, onReset: 'restart', scheduler, ...more });

interface Told {
  readonly world: SimulatedWorld;
  readonly clock: VirtualTimeScheduler;
  readonly lines: string[];
}

/** A world on a clock of its own, and what it tells. */
function worldOf(config: WorldConfig = {}): Told {
  const clock = new VirtualTimeScheduler(VirtualAction, 10 * 3_600_000);
  const lines: string[] = [];
  const world = new SimulatedWorld({ scheduler: clock, tell: (line) => lines.push(line), ...config });
  return { world, clock, lines };
}

/** Lives of one process after the other, the last of which has no faults. */
function run(
  config: WorldConfig,
  pipeline: (process: Process) => Observable<unknown>,
  ...lives: readonly Life[]
): Told {
  const told = worldOf(config);
  concat(...lives.map((life) => told.world.live(pipeline, life)), told.world.live(pipeline)).subscribe();
  told.clock.flush();
  return told;
}

const clean = { missing: [], doubled: [], refused: [], views: {} };
const count = (lines: readonly string[], ...words: readonly string[]) =>
  lines.filter((line) => words.every((word) => line.includes(word))).length;

describe('a life', () => {
  test('without a fault: every record is in the table, once; the state says so, and Kafka', () => {
    const { world } = run({ partitions: [7, 4] }, arranged());
    expect(checkExactlyOnce(world)).toEqual(clean);
    expect(world.violations).toEqual([]);
    expect([...world.group.committed]).toEqual(
      expect.arrayContaining([
        [0, 7],
        [1, 4],
      ]),
    );
    expect([...world.nodes.values()].map(({ text }) => (JSON.parse(text) as { settled: number }).settled)).toEqual(
      expect.arrayContaining([6, 3]),
    );
  });

  test('completes when its process dies, and says nothing after it', () => {
    const { world, clock } = worldOf();
    const seen: string[] = [];
    world
      .live(
        (process) =>
          new Observable<string>((subscriber) => {
            process.scheduler.schedule(() => subscriber.next('first'), 5);
            process.scheduler.schedule(() => process.kill(), 6);
            process.scheduler.schedule(() => subscriber.next('second'), 7);
          }),
      )
      .subscribe({ next: (value) => seen.push(value), complete: () => seen.push('|') });
    clock.flush();
    expect(seen).toEqual(['first', '|']);
  });
});

describe('each fate of an insert', () => {
  const fates: readonly Fate[] = [
    'die before',
    'die after',
    'die, lands late',
    'lose reply',
    'kill server',
    { landsAfterMs: 50 },
    { delayMs: 30 },
    { freezeMs: 10 },
    { freezeMs: 500 },
    { failWith: 'KCR_INSERT_RETRIABLE' },
  ];
  for (const fate of fates) {
    test(`${JSON.stringify(fate)}: exactly-once holds`, () => {
      const { world, lines } = run({ partitions: [10] }, arranged(), { faults: [{ port: 'insert', nth: 2, fate }] });
      expect(checkExactlyOnce(world)).toEqual(clean);
      expect(world.violations).toEqual([]);
      expect(count(lines, 'a insert', typeof fate === 'string' ? fate : JSON.stringify(fate))).toBe(1);
    });
  }

  test('at-least-once doubles where the reply was lost: the verdict can fail', () => {
    const { world } = run(
      { partitions: [6] },
      ({ source, sink, scheduler }) => atLeastOnce(source, sink, { ...sizes, scheduler }),
      { faults: [{ port: 'insert', nth: 1, fate: 'lose reply' }] },
    );
    expect(checkExactlyOnce(world)).toMatchObject({ missing: [], doubled: ['0:0', '0:1', '0:2'] });
  });

  test('at-most-once loses where the process died before: the verdict can fail', () => {
    const { world } = run(
      { partitions: [6] },
      ({ source, sink, scheduler }) => atMostOnce(source, sink, { ...sizes, scheduler }),
      { faults: [{ port: 'insert', nth: 1, fate: 'die before' }] },
    );
    expect(checkExactlyOnce(world).missing.slice(0, 3)).toEqual(['0:0', '0:1', '0:2']);
  });

  test('of the n-th call of all: the very call', () => {
    const { lines } = run({ partitions: [3] }, arranged(), { faults: [{ nth: 4, fate: 'die before' }] });
    expect(count(lines, 'die before')).toBe(1);
    expect(lines[lines.findIndex((line) => line.includes('die before')) + 1]).toContain('a dies');
  });
});

describe('the group', () => {
  test('two members share the partitions; one dies, the other takes over', () => {
    const { world, clock } = worldOf({ partitions: [20, 20] });
    world.live(arranged(), { faults: [{ port: 'insert', nth: 2, fate: 'die after' }] }).subscribe();
    world.live(arranged()).subscribe();
    clock.flush();
    expect(world.group.generation).toBeGreaterThan(1);
    expect(checkExactlyOnce(world)).toEqual(clean);
  });

  test('a member that is frozen for hours is taken out, wakes up with a request overdue, is told that it lost, and joins again', () => {
    const { world, clock, lines } = worldOf({ partitions: [30] });
    world
      .live(arranged(), { chunkSize: 1, faults: [{ port: 'write', nth: 3, fate: { freezeMs: 3_600_000 } }] })
      .subscribe();
    clock.schedule(() => world.live(arranged()).subscribe(), 100);
    clock.flush();
    expect(count(lines, 'a is taken out of the group')).toBe(1);
    expect(count(lines, 'a is told: lost')).toBeGreaterThan(0);
    expect(count(lines, 'a joins the group')).toBe(2);
    expect(checkExactlyOnce(world)).toEqual(clean);
    expect(world.violations).toEqual([]);
  });

  test('a commit in one attempt whose outcome is not known: without groupByPartition too the partition is assigned again, and no older commit sets the group back', () => {
    const { world, clock } = worldOf({ partitions: [10] });
    const told: string[] = [];
    const commitOnce = ({ source }: Process, assignment: Assignment, nextOffset: number) =>
      from(source.commitOnce!(assignment, nextOffset)).pipe(
        map(() => 'committed'),
        catchError((error: unknown) => of((error as IngestError).code)),
        tap((outcome) => told.push(`${nextOffset} ${outcome}`)),
      );
    world
      .live(
        (process) =>
          from(process.source.events).pipe(
            filter(({ kind }) => kind !== 'fetched'),
            tap(({ kind, assignment }) => told.push(`${kind} from ${assignment.startOffset}`)),
            concatMap(({ kind, assignment }) => {
              if (kind !== 'assigned') return EMPTY;
              return assignment.assignmentId === 1
                ? concat(commitOnce(process, assignment, 5), commitOnce(process, assignment, 7))
                : commitOnce(process, assignment, 9);
            }),
          ),
        { faults: [{ port: 'commit', nth: 1, fate: { landsAfterMs: 200 } }] },
      )
      .subscribe();
    clock.flush();
    expect(told).toEqual([
      'assigned from 0',
      'lost from 0',
      '5 KCR_FENCED',
      '7 KCR_FENCED',
      'assigned from 0',
      '9 committed',
    ]);
    expect([...world.group.committed]).toEqual([[0, 9]]);
  });

  test('a partition that is paused waits, the others go on, and it goes on where it was', () => {
    const { world, clock } = worldOf({ partitions: [6, 6] });
    const found: number[][] = [];
    const inTable = () =>
      [0, 1].map((partition) => world.table.rows.filter((row) => row.partition === partition).length);
    world
      .live((process) => {
        const { source } = process;
        source.pause({ topic: world.log.topic, partition: 1 });
        clock.schedule(() => {
          found.push(inTable());
          source.resume({ topic: world.log.topic, partition: 1 });
        }, 500);
        clock.schedule(() => source.drain(), 1_000);
        return arranged()(process);
      })
      .subscribe();
    clock.flush();
    expect([...found, inTable()]).toEqual([
      [6, 0],
      [6, 6],
    ]);
  });

  test('a drain releases everything and completes', () => {
    const { world, clock, lines } = worldOf({ partitions: [4] });
    let isComplete = false;
    world
      .live((process) => {
        clock.schedule(() => process.source.drain(), 12);
        return arranged()(process);
      })
      .subscribe({ complete: () => (isComplete = true) });
    clock.flush();
    expect(isComplete).toBe(true);
    expect(count(lines, 'a releases 0')).toBe(1);
  });
});

describe('the log', () => {
  test('holes, compaction and retention: what is gone is not missed', () => {
    const { world, clock } = worldOf({ partitions: [6] });
    world.log.leaveHole(0, 2);
    world.produce(0, { n: 1 }, { n: 2 });
    world.log.compact(0, 1);
    world.log.retainFrom(0, 1);
    world.live(arranged({ onGap: 'continue' }), { onGap: 'continue' }).subscribe();
    clock.flush();
    expect(checkExactlyOnce(world)).toEqual(clean);
    expect(world.table.rows.map(({ offset }) => offset)).toEqual([2, 3, 4, 5, 8, 9]);
  });

  test('a topic that is recreated has another id, and its records are all new', () => {
    const { world, clock } = worldOf({ partitions: [6], table: { family: 'replicated' } });
    world.live(arranged(), { onReset: 'restart' }).subscribe();
    clock.schedule(() => {
      world.log.recreate();
      world.group.committed.clear();
      world.produce(0, { again: true });
      world.group.rebalance();
    }, 200);
    clock.flush();
    expect(checkExactlyOnce(world)).toEqual(clean);
    expect(world.table.rows).toHaveLength(7);
    expect(world.violations).toEqual([]);
  });

  test('one that was truncated ends earlier', () => {
    const { world } = worldOf({ partitions: [6] });
    world.log.truncate(0, 4);
    expect(world.log.ends(0)).toEqual({ start: 0, end: 4 });
    expect(() => world.log.ends(1)).toThrow('Expected a partition from 0 to 0, got 1');
  });
});

describe('servers that do not answer', () => {
  test('are waited for', () => {
    const { world, clock } = worldOf({ partitions: [9] });
    world.live(arranged()).subscribe();
    clock.schedule(() => world.storeDown(200), 10);
    clock.schedule(() => world.tableDown(300), 15);
    clock.flush();
    expect(checkExactlyOnce(world)).toEqual(clean);
  });
});

describe('the verdict', () => {
  test('counts the rows a transform makes, and the targets of views', () => {
    const { world } = run({ partitions: [2], table: { views: ['v'] }, rowsOf: () => 2 }, arranged());
    expect(checkExactlyOnce(world)).toEqual({
      missing: ['0:0', '0:1'],
      doubled: [],
      refused: [],
      views: { v: { missing: ['0:0', '0:1'], doubled: [] } },
    });
  });

  test('tells records that the table refuses apart from those that are missing', () => {
    const { world } = run(
      { partitions: [5], table: { isPoison: ({ offset }) => offset === 1 } },
      arranged({ onPoison: 'exclude' }),
    );
    expect(checkExactlyOnce(world)).toEqual({ ...clean, refused: ['0:1'] });
    expect(world.violations).toEqual([]);
  });
});
