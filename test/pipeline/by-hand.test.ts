// H5: who takes the pipeline apart by hand as the README shows it loses none of what exactlyOnce does.
import { NEVER, VirtualAction, VirtualTimeScheduler, map, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import {
  bufferCountOrTime,
  commit,
  consume,
  groupByPartition,
  insertDeduped,
  reconcileWithState,
} from '../../operators/index.js';
import type { IngestEvent, Outcome } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import { exactlyOnce } from '../../src/pipeline/exactly-once.js';
import {
  SimulatedWorld,
  checkExactlyOnce,
  type Life,
  type Process,
  type WorldConfig,
} from '../../src/testing/index.js';
import { FakeSource, FakeStore, Journal } from '../support/fakes.js';

const batch = { count: 4, maxWaitMs: 2 };
const retry = { minDelayMs: 3, jitter: 0 };

interface Listened {
  readonly onEvent: (event: IngestEvent) => void;
}

const pipelines: Readonly<Record<string, (process: Process, listened: Listened) => Observable<Outcome>>> = {
  shipped: ({ source, sink, store, name, scheduler }, { onEvent }) =>
    exactlyOnce(source, sink, store, {
      group: 'g',
      owner: name,
      batch,
      retry,
      maxPending: 1,
      onPoison: 'exclude',
      onEvent,
      scheduler,
    }),
  'by hand': ({ source, sink, store, name, scheduler }, { onEvent }) => {
    const ledger = new Ledger(store, source, { group: 'g', owner: name, maxPending: 1, retry, scheduler });
    return consume(source).pipe(
      groupByPartition(source, (partition) =>
        partition.chunks.pipe(
          bufferCountOrTime({ ...batch, scheduler }),
          reconcileWithState(partition, ledger, sink, { scheduler }),
          insertDeduped(sink, { retry, onPoison: 'exclude', onEvent, scheduler }),
          commit(partition, ledger),
        ),
      ),
    );
  },
};

function run(
  pipeline: (process: Process, listened: Listened) => Observable<Outcome>,
  config: WorldConfig,
  life: Life = {},
  disturb: (world: SimulatedWorld) => void = () => undefined,
) {
  const clock = new VirtualTimeScheduler(VirtualAction, 4 * 3_600_000);
  const world = new SimulatedWorld({ scheduler: clock, ...config });
  const outcomes: Outcome[] = [];
  const events: string[] = [];
  disturb(world);
  const living = world
    .live((process) => pipeline(process, { onEvent: ({ kind }) => void events.push(kind) }), life)
    .subscribe((outcome) => void outcomes.push(outcome));
  clock.maxFrames = 3 * 3_600_000;
  clock.flush();
  living.unsubscribe();
  return {
    world,
    outcomes,
    events,
    states: [...world.nodes.values()].map(
      ({ text }) => JSON.parse(text) as { settled?: number; pending: unknown[]; halted?: { code: string } },
    ),
  };
}

const exact = { missing: [], doubled: [], refused: [], views: {} };

for (const [name, pipeline] of Object.entries(pipelines)) {
  describe(`H5: ${name}`, () => {
    test('goes on after an outage that is longer than a token is relied on, without a look: the range is recorded again', () => {
      const { world, outcomes, states } = run(pipeline, { partitions: [8], table: { budgetMs: 1000 } }, {}, (down) =>
        down.tableDown(10_000),
      );
      expect(outcomes.map((one) => (one.kind === 'delivered' ? one.rows : one.error.message))).toEqual([3, 3, 2]);
      expect(states).toMatchObject([{ settled: 7, pending: [] }]);
      expect(checkExactlyOnce(world)).toEqual(exact);
      expect(world.violations).toEqual([]);
    });

    test('joins what waits, within the limits it was cut by: larger inserts instead of more of them', () => {
      const faults = [{ port: 'insert', nth: 1, fate: { delayMs: 300 } }] as const;
      const { outcomes } = run(pipeline, { partitions: [12], fetchMs: 20 }, { chunkSize: 1, faults });
      // One record at a time comes within the 300 ms, and goes in fours.
      expect(outcomes.map((one) => (one.kind === 'delivered' ? one.rows : one.kind))).toEqual([1, 1, 4, 4, 2]);
    });

    test('stores that a partition has halted, for state show', () => {
      const halting = (process: Process, listened: Listened) =>
        pipeline(
          {
            ...process,
            sink: {
              ...process.sink,
              prepare: () => {
                throw new TypeError('broken');
              },
            },
          },
          listened,
        );
      const { outcomes, states } = run(halting, { partitions: [4] });
      expect(outcomes.map(({ kind }) => kind)).toEqual(['halted']);
      expect(states).toMatchObject([{ halted: { code: 'KCR_TRANSFORM' } }]);
    });

    test('leaves a poison record out of the recorded range before the rest is sent', () => {
      const { world, events, states } = run(pipeline, {
        partitions: [3],
        table: { isPoison: ({ offset }) => offset === 1 },
      });
      expect(events.filter((kind) => kind === 'excluded')).toHaveLength(1);
      expect(states).toMatchObject([{ settled: 2 }]);
      expect(world.violations).toEqual([]);
    });
  });
}

test('H5: a ledger tells its source that the state decides, before the group is joined', () => {
  const told: string[] = [];
  const source = Object.assign(
    new FakeSource(
      new Journal(),
      NEVER.pipe(
        map(() => {
          throw new Error('never');
        }),
      ),
    ),
    { stateDecides: () => void told.push('told') },
  );
  new Ledger(new FakeStore(new Journal()), source, { group: 'g', owner: 'me' });
  expect(told).toEqual(['told']);
});
