// The holes through which today's connectors lose or double rows, one test each. The letters are those of
// docs/guarantees.md. The very operators that ship, over a simulated world; the table is compared with the topic.
import { NEVER, concat, ignoreElements, merge, mergeMap, takeUntil, tap, timer, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { exactlyOnce, type ExactlyOnceConfig } from '../../src/pipeline/exactly-once.js';
import { insertSettings } from '../../src/clickhouse/insert/settings.js';
import type { IngestEvent, Outcome } from '../../src/events.js';
import {
  SimulatedWorld,
  checkExactlyOnce,
  type Fault,
  type Life,
  type Process,
  type WorldConfig,
} from '../../src/testing/index.js';
import { marbles } from '../support/marbles.js';

interface Told {
  readonly outcomes: Outcome[];
  readonly events: IngestEvent[];
}

interface Lives {
  readonly world: SimulatedWorld;
  readonly told: Told;
  /** One process after the other, each for some seconds unless it dies; `between` is what happens after one. */
  readonly run: (
    ...lives: readonly (Life & { readonly pipeline?: Partial<ExactlyOnceConfig>; readonly between?: () => void })[]
  ) => void;
}

/** Batches of ten records, or of what came within 5 ms. */
function lives(config: WorldConfig = {}): Lives {
  const world = new SimulatedWorld({ partitions: [20], ...config });
  const told: Told = { outcomes: [], events: [] };
  const pipeline =
    (more: Partial<ExactlyOnceConfig> = {}) =>
    ({ name, source, store, sink }: Process): Observable<Outcome> =>
      exactlyOnce(source, sink, store, {
        group: 'g',
        owner: name,
        batch: { count: 10, maxWaitMs: 5 },
        retry: { minDelayMs: 2, random: () => 0 },
        maxPending: 1,
        onEvent: (event) => told.events.push(event),
        ...more,
      });
  return {
    world,
    told,
    run: (...all) => {
      const each = all.map(({ pipeline: more, between, ...life }) =>
        world
          .live(pipeline(more), { chunkSize: 20, ...life })
          .pipe(
            takeUntil(timer(4_500)),
            tap({ next: (outcome) => told.outcomes.push(outcome), complete: between ?? (() => undefined) }),
          ),
      );
      concat(...each).subscribe();
    },
  };
}

const exact = { missing: [], doubled: [], refused: [], views: {} };
const halts = ({ outcomes }: Told): string[] =>
  outcomes.flatMap((outcome) => (outcome.kind === 'halted' ? [outcome.error.code] : []));
const insertsOf = (lines: readonly string[]): string[] => lines.filter((line) => line.includes('insert'));

const dieBeforeInsert2: Fault = { port: 'insert', nth: 2, fate: 'die before' };
const dieAfterInsert2: Fault = { port: 'insert', nth: 2, fate: 'die after' };
const commitFails: Fault = { port: 'commit', nth: 1, fate: { failWith: 'KCR_KAFKA' } };

describe('holes of a BEFORE/AFTER state machine', () => {
  test(
    'a: settled but not committed, the next inserted but not settled, then a poll that ends exactly there: no duplicates',
    marbles((m) => {
      const { world, run } = lives();
      run({ faults: [commitFails, dieAfterInsert2] }, {});
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
    }),
  );

  test(
    'b: a range in doubt that never landed is not forgotten when the next records begin behind it',
    marbles((m) => {
      const { world, run } = lives({ partitions: [30] });
      run({ faults: [dieBeforeInsert2], between: () => world.group.committed.set(0, 20) }, {});
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
    }),
  );

  test(
    'b: nor when Kafka does not hold it any more: it halts, and says which offsets are gone',
    marbles((m) => {
      const { world, told, run } = lives({ partitions: [30] });
      run({ faults: [dieBeforeInsert2], between: () => world.log.retainFrom(0, 20) }, {});
      m.flush();
      expect(halts(told)).toEqual(['KCR_OFFSET_RANGE']);
      expect(checkExactlyOnce(world).missing).toHaveLength(10);
    }),
  );

  test(
    'c: polls that are shorter than the range in doubt are held until its end has come; it does not stick',
    marbles((m) => {
      const { world, told, run } = lives();
      run({ faults: [dieAfterInsert2] }, { chunkSize: 4 });
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
      expect(halts(told)).toEqual([]);
    }),
  );

  test(
    'd: the head of a range in doubt was compacted away: what is left goes into the table, not to a dead-letter queue',
    marbles((m) => {
      const { world, told, run } = lives();
      run({ faults: [dieBeforeInsert2], between: () => world.log.compact(0, 10) }, {});
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
      expect(told.outcomes.at(-1)).toMatchObject({
        kind: 'delivered',
        replay: true,
        afterOffset: 9,
        lastOffset: 19,
        rows: 9,
      });
    }),
  );

  for (const [letter, what, produced] of [
    ['e', 'whose new rows are all within the old range', 5],
    ['f', 'whose new rows overlap the old range', 25],
    ['g', 'whose new rows have the very ranges of the old ones, whose tokens are still known', 20],
  ] as const) {
    const recreate = (world: SimulatedWorld) => () => {
      world.log.recreate();
      world.group.committed.clear();
      world.produce(0, ...Array.from({ length: produced }, (_, n) => ({ again: n })));
    };

    test(
      `${letter}: a topic recreated ${what} halts instead of dropping them`,
      marbles((m) => {
        const { world, told, run } = lives();
        run({ between: recreate(world) }, {});
        m.flush();
        expect(halts(told)).toEqual(['KCR_TOPIC_RESET']);
      }),
    );

    test(
      `${letter}: a topic recreated ${what} is read from its beginning under the policy restart, and none is eaten`,
      marbles((m) => {
        const { world, told, run } = lives();
        run({ between: recreate(world) }, { pipeline: { onReset: 'restart' } });
        m.flush();
        expect(checkExactlyOnce(world)).toEqual(exact);
        expect(told.events.filter(({ kind }) => kind === 'restarted')).toHaveLength(1);
        expect(world.table.rows).toHaveLength(20 + produced);
      }),
    );
  }

  test(
    'h: two owners of one partition cannot overwrite each other’s state: the frozen one is refused when it wakes up',
    marbles((m) => {
      const { world, told, run } = lives();
      run({ faults: [{ port: 'insert', nth: 1, fate: { freezeMs: 200 } }] });
      timer(60)
        .pipe(
          mergeMap(() =>
            merge(
              NEVER.pipe(takeUntil(timer(400))),
              world.live(({ name, source, store, sink }) =>
                exactlyOnce(source, sink, store, { group: 'g', owner: name, batch: { count: 10, maxWaitMs: 5 } }).pipe(
                  takeUntil(timer(400)),
                ),
              ),
            ),
          ),
        )
        .pipe(ignoreElements())
        .subscribe();
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
      expect(world.violations).toEqual([]);
      expect(told.events.some(({ kind }) => kind === 'fenced' || kind === 'lost')).toBe(true);
    }),
  );

  test(
    'h: two groups, or two clusters, with a topic of one name have a state each',
    marbles((m) => {
      const { world, run } = lives();
      run({}, { pipeline: { group: 'another' } });
      m.flush();
      expect([...world.nodes.keys()].map((key) => (JSON.parse(key) as string[])[1])).toEqual(['g', 'another']);
    }),
  );

  test('i: every insert is pinned: one block, tokens count in views too, nothing asynchronous, no row skipped', () => {
    const { deduplicated } = insertSettings({}, new Set(['deduplicate_insert']));
    expect(deduplicated).toMatchObject({
      async_insert: '0',
      insert_deduplicate: '1',
      deduplicate_insert: 'enable',
      deduplicate_blocks_in_dependent_materialized_views: '1',
      materialized_views_ignore_errors: '0',
      max_insert_block_size: '10000000',
      min_insert_block_size_rows: '10000000',
      input_format_allow_errors_num: '0',
    });
    expect(() => insertSettings({ async_insert: 1 }, new Set())).toThrow('pinned to 0');
  });

  test(
    'j: a retry sends the same frozen batch; nothing is put behind it again',
    marbles((m) => {
      const lines: string[] = [];
      const { world, run } = lives({ tell: (line) => lines.push(line) });
      run({ faults: [1, 2, 3].map((nth): Fault => ({ port: 'insert', nth, fate: 'lose reply' })) });
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
      expect(new Set(insertsOf(lines).map((line) => /(\d+-\d+)/.exec(line)?.[1]))).toEqual(new Set(['0-9', '10-19']));
    }),
  );
});

describe('generic breakers', () => {
  test(
    'the dedup window has forgotten the token of a range in doubt: the table is asked, nothing is inserted blindly',
    marbles((m) => {
      const { world, told, run } = lives({ table: { dedupWindowMs: 20 } });
      run({ faults: [dieAfterInsert2] }, {});
      m.flush();
      expect(told.events.filter(({ kind }) => kind === 'verified')).toMatchObject([
        { first: 10, last: 19, missing: 0 },
      ]);
      expect(checkExactlyOnce(world)).toEqual(exact);
    }),
  );

  test(
    'compaction and the ends of transactions leave holes: offsets are never counted',
    marbles((m) => {
      const { world, run } = lives({ partitions: [0] });
      for (let n = 0; n < 6; n++) {
        world.log.produce(0, { n }, { n: -n });
        world.log.leaveHole(0, 1 + (n % 3));
      }
      run(
        { chunkSize: 3, faults: [dieAfterInsert2], pipeline: { batch: { count: 3, maxWaitMs: 5 } } },
        { chunkSize: 5, pipeline: { batch: { count: 4, maxWaitMs: 5 } } },
      );
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
    }),
  );

  test(
    'the token comes of what was recorded: with the first record compacted away a range that landed is not doubled',
    marbles((m) => {
      const { world, run } = lives();
      run({ faults: [dieAfterInsert2], between: () => [10, 19].forEach((offset) => world.log.compact(0, offset)) }, {});
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
      expect(world.table.rows).toHaveLength(20);
    }),
  );

  test(
    'an insert of a former owner that lands late is the new owner’s own replay',
    marbles((m) => {
      const { world, run } = lives();
      run({ faults: [{ port: 'insert', nth: 2, fate: 'die, lands late' }] }, {});
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
    }),
  );

  test(
    'materialized views: a replay completes them and doubles nothing',
    marbles((m) => {
      const { world, run } = lives({ table: { views: ['v'] } });
      run({ faults: [dieAfterInsert2] }, {});
      m.flush();
      expect(checkExactlyOnce(world).views).toEqual({ v: { missing: [], doubled: [] } });
    }),
  );

  test(
    'ClickHouse killed between a token and its part: the rows are found missing and filled',
    marbles((m) => {
      const { world, run } = lives();
      run({ faults: [{ port: 'insert', nth: 2, fate: 'kill server' }] });
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
    }),
  );

  test(
    'batches cut by time: another cut after a restart doubles nothing',
    marbles((m) => {
      const { world, run } = lives();
      const slow = { chunkSize: 3, pipeline: { batch: { count: 1000, maxWaitMs: 4 } } };
      run(
        { ...slow, faults: [{ port: 'insert', nth: 3, fate: 'die after' }] },
        { chunkSize: 7, pipeline: { batch: { count: 1000, maxWaitMs: 9 } } },
      );
      m.flush();
      expect(checkExactlyOnce(world)).toEqual(exact);
    }),
  );

  test(
    'one poison record halts its partition only, and is named',
    marbles((m) => {
      const { world, told, run } = lives({
        partitions: [20, 20],
        table: { isPoison: ({ partition, offset }) => partition === 0 && offset === 13 },
      });
      run({});
      m.flush();
      expect(told.outcomes.filter(({ kind }) => kind === 'halted')).toMatchObject([
        { error: { code: 'KCR_POISON', fields: { partition: 0, offset: 13 } } },
      ]);
      expect(checkExactlyOnce(world).missing.filter((offset) => offset.startsWith('1:'))).toEqual([]);
    }),
  );

  test(
    'I12: one poison record under the policy exclude: the other nineteen are there once, also after a crash in between',
    marbles((m) => {
      const { world, told, run } = lives({ table: { isPoison: ({ offset }) => offset === 13 } });
      run(
        { pipeline: { onPoison: 'exclude' }, faults: [{ port: 'insert', nth: 3, fate: 'die before' }] },
        { pipeline: { onPoison: 'exclude' } },
      );
      m.flush();
      expect(checkExactlyOnce(world)).toEqual({ ...exact, refused: ['0:13'] });
      expect(told.events.filter(({ kind }) => kind === 'excluded').length).toBeGreaterThan(0);
    }),
  );

  test(
    'while ClickHouse is slow batches grow, and what is inserted is the same',
    marbles((m) => {
      const insertsWhile = (delayMs: number): number => {
        const { world, told, run } = lives({ partitions: [0] });
        for (let ms = 0; ms < 400; ms += 10) timer(ms).subscribe(() => world.produce(0, { ms }));
        run({ faults: [1, 2, 3, 4].map((nth) => ({ port: 'insert', nth, fate: { delayMs } })) });
        m.flush();
        expect(checkExactlyOnce(world)).toEqual(exact);
        return told.outcomes.length;
      };
      expect(insertsWhile(1)).toBe(40);
      expect(insertsWhile(100)).toBeLessThan(10);
    }),
  );

  for (const nth of [1, 2, 3, 4]) {
    for (const fate of ['die before', 'die after'] as const) {
      test(
        `a record that is left out is told, though its owner should ${fate} its write ${nth}`,
        marbles((m) => {
          const { world, told, run } = lives({ partitions: [4], table: { isPoison: ({ offset }) => offset === 2 } });
          run(
            { pipeline: { onPoison: 'exclude' }, faults: [{ port: 'write', nth, fate }] },
            { pipeline: { onPoison: 'exclude' } },
          );
          m.flush();
          expect(checkExactlyOnce(world)).toEqual({ ...exact, refused: ['0:2'] });
          const offsets = told.events.flatMap((event) =>
            event.kind === 'excluded' ? [event.error.fields.offset, event.record?.offset] : [],
          );
          expect(new Set(offsets)).toEqual(new Set([2]));
        }),
      );
    }
  }

  test(
    'a topic that was truncated halts instead of skipping what is written next',
    marbles((m) => {
      const { world, told, run } = lives();
      const truncate = () => {
        world.log.truncate(0, 15);
        world.group.committed.set(0, 15);
      };
      run({ between: truncate }, {});
      m.flush();
      expect(halts(told)).toEqual(['KCR_TOPIC_RESET']);
    }),
  );
});
