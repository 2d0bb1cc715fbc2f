// The fast simulation and the exhaustive search have a sink of their own. Here it is asked the same as the sink that ships,
// over the same table: whether a range may be sent again, and what a look into the table says of it.
import { VirtualAction, from, type Observable } from 'rxjs';
import { expect, test } from 'vitest';
import { openSinkOver } from '../../src/clickhouse/sink.js';
import { IngestError } from '../../src/errors.js';
import type { Intent } from '../../src/model/state.js';
import { dedupToken } from '../../src/model/token.js';
import type { PreparingSink, InsertBatch } from '../../src/ports.js';
import { SimulatedClickHouse, SimulatedWire, Tokens } from '../../src/testing/clickhouse/index.js';
import { SimulatedWorld, type Alteration, type Ignored } from '../../src/testing/index.js';
import { Dice } from './scenario.js';
import { SteppedClock } from './shipped.js';

const alterations: readonly Alteration[] = [
  'add provenance',
  'drop provenance',
  'drop and add provenance',
  'add column',
  'remove window',
  'restore window',
  'toggle window',
  'exchange',
  'recreate',
];
const minuteMs = 60_000;

interface Script {
  readonly family: 'plain' | 'replicated';
  readonly provenance: boolean;
  readonly replay: boolean;
  /** Offsets that have a row, and those that have two. */
  readonly there: readonly number[];
  readonly altered: readonly Alteration[];
  readonly isRestarted: boolean;
  readonly laterMs: number;
  /** Older rows of the partition are in the table. */
  readonly hasOlder: boolean;
}

function scriptOf(seed: number): Script {
  const dice = new Dice(seed);
  return {
    family: dice.of('plain', 'replicated'),
    provenance: dice.chance(0.8),
    replay: dice.chance(0.6),
    there: dice.list(dice.of(0, 0, 1, 3, 4), () => dice.int(6, 8)),
    altered: dice.list(dice.of(0, 0, 1, 2), () => dice.of(...alterations)),
    isRestarted: dice.chance(0.3),
    laterMs: dice.of(10, 5 * minuteMs, 11 * minuteMs, 120 * minuteMs),
    hasOlder: dice.chance(0.7),
  };
}

/** What a sink says of the range, in words that both have. */
interface Said {
  readonly isDoubted: boolean;
  readonly isReadBack: boolean;
  readonly before: unknown;
  readonly after: unknown;
}

async function ask(sink: PreparingSink, batch: InsertBatch, clock: SteppedClock): Promise<Said> {
  const frozen = sink.prepare(batch);
  const outcome = async (look: () => Observable<unknown>): Promise<unknown> => {
    const got: unknown[] = [];
    look().subscribe({
      next: (value) => got.push(value),
      error: (error: unknown) => got.push(error instanceof IngestError ? error.code : error),
    });
    await clock.run(2_000, () => got.length > 0);
    return got[0];
  };
  const doubt = frozen.tokenDoubt(clock.now());
  const before = doubt === undefined ? undefined : await outcome(() => from(frozen.readBack(doubt)));
  const after = await outcome(() => from(frozen.readBack()));
  return { isDoubted: doubt !== undefined, isReadBack: frozen.readBackWhenInDoubt, before, after };
}

async function compare(seed: number, ignores?: Ignored): Promise<{ readonly fast: Said; readonly shipped: Said }> {
  const { family, provenance, replay, there, altered, isRestarted, laterMs, hasOlder } = scriptOf(seed);
  const clock = new SteppedClock(VirtualAction, 1_000 * minuteMs);
  const world = new SimulatedWorld({ partitions: [10], scheduler: clock, table: { family, provenance } });
  const { process, self } = world.process(ignores === undefined ? {} : { ignores });
  const server = new SimulatedClickHouse(clock, world.table, new Tokens(world.table, world.watch));
  const wire = new SimulatedWire(self, server, { timeoutMs: 1_000, partitionOf: () => 0 });
  let opened: PreparingSink | undefined;
  void openSinkOver(
    wire,
    { url: wire.address, routes: [{ topic: 'simulated', table: 't' }] },
    () => clock.now(),
    () => () => undefined,
  ).then((sink) => (opened = sink));
  await clock.run(1_000, () => opened !== undefined);
  const rows = world.log.records(0).map((record) => ({
    topic: 'simulated',
    partition: 0,
    offset: record.offset,
    timestampMs: record.timestampMs,
    value: null,
    ...(provenance ? {} : { isBlank: true as const }),
  }));
  const batchOf = (sink: PreparingSink): InsertBatch => {
    const intent: Intent = {
      first: 6,
      last: 8,
      rows: 3,
      atMs: clock.now(),
      excluded: [],
      tokenForm: 2,
      ...sink.describe('simulated'),
    };
    const token = dedupToken({ cluster: 'c', group: 'g', topic: 'simulated', incarnation: 0, partition: 0, intent });
    const assignment: InsertBatch['assignment'] = {
      topic: 'simulated',
      partition: 0,
      topicId: world.log.topicId,
      assignmentId: 1,
      generation: 1,
      startOffset: 0,
    };
    const records = world.log.records(0).slice(6, 9);
    return { assignment, afterOffset: 5, lastOffset: 8, records, bytes: 0, intent, token, replay };
  };
  const batches = [process.sink, opened!].map((sink) => ({ sink, batch: batchOf(sink) }));
  world.table.rows.push(...(hasOlder ? rows.slice(0, 6) : []), ...there.map((offset) => rows[offset]!));
  for (const alteration of altered) world.table.alter(alteration);
  if (isRestarted) {
    world.table.startedMs += minuteMs;
    server.kill();
  }
  let isLater = false;
  clock.schedule(() => (isLater = true), laterMs + 30);
  await clock.run(1_000, () => isLater);
  const [fast, shipped] = [
    await ask(batches[0]!.sink, batches[0]!.batch, clock),
    await ask(batches[1]!.sink, batches[1]!.batch, clock),
  ];
  return { fast, shipped };
}

test('of 150 ranges in doubt the fast sink and the one that ships say the same', async () => {
  for (let seed = 1; seed <= 150; seed++) {
    const { fast, shipped } = await compare(seed);
    expect(fast, `seed ${seed}: ${JSON.stringify(scriptOf(seed))}`).toEqual(shipped);
  }
}, 120_000);

for (const ignores of ['columns', 'table'] as const) {
  test(`a fast sink that does not mind the ${ignores} is found to say something else`, async () => {
    const differs = async (seed: number) => {
      const { fast, shipped } = await compare(seed, ignores);
      return JSON.stringify(fast) !== JSON.stringify(shipped);
    };
    let seed = 1;
    while (seed < 300 && !(await differs(seed))) seed += 1;
    expect(seed).toBeLessThan(300);
  }, 120_000);
}
