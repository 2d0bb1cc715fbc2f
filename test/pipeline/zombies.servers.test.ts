// A worker is frozen with SIGSTOP for longer than its session time-out, in the middle of an insert; another takes its
// partitions over; then it is thawed, with its inserts overdue. Real processes, real servers, each store.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Program, configFile } from '../cli/program.js';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { type EngineFamily, familiesAt, plain } from '../support/engines.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import type { Told } from '../support/worker.js';

const stack = () => sharedStack();

interface Place {
  readonly name: string;
  /** The configuration of a worker that reaches ClickHouse at `url`. */
  config(url: string, state: object): object;
}

async function place(family: EngineFamily): Promise<Place> {
  const name = `zombie_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl } = stack();
  await createTopic(brokers, name, { partitions: 2 });
  // One that tells when a table was altered, unlike the development server's `default`: a token is relied on, so the zombie
  // sends what it waited with at once.
  await command(clickhouseUrl, `CREATE DATABASE ${name} ENGINE = Atomic`);
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name}.${name} (id UInt64, _topic String, _partition UInt32, _offset UInt64)
     ENGINE = ${family.engine('ORDER BY id')}`,
  );
  const config = (url: string, state: object) => ({
    kafka: { brokers, groupId: name, fromBeginning: true, sessionTimeoutMs: 2000, heartbeatIntervalMs: 300 },
    clickhouse: { url, database: name },
    state,
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { count: 40, maxWaitMs: 30 },
  });
  return { name, config };
}

const records = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => ({ partition: (from + i) % 2, value: JSON.stringify({ id: from + i }) }));

async function exactness({ name }: Place): Promise<{ rows: number; distinct: number }> {
  const [row] = await query<{ rows: number; distinct: number }>(
    stack().clickhouseUrl,
    `SELECT count() AS rows, uniqExact(_partition, _offset) AS distinct FROM ${name}.${name}`,
  );
  return row!;
}

const workerFile = fileURLToPath(new URL('../support/worker.ts', import.meta.url));

function worker(config: object): Program {
  return new Program(['--import', 'tsx', workerFile, configFile(config)]);
}

const told = ({ stdout }: Program): Told[] =>
  stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Told);

const stores: Readonly<Record<string, (at: Place) => object>> = {
  keeper: () => ({ store: 'keeper', connect: stack().keeperConnect }),
  'keeper-map': ({ name }) => ({ store: 'keeper-map', table: `state_${name}`, path: `/${name}` }),
  kafka: () => ({ store: 'kafka' }),
};

/** The stores differ in how they refuse a former owner, the tables in where they keep tokens. */
const worlds = [
  ...Object.keys(stores).map((store) => ({ store, family: plain })),
  ...(await familiesAt(stack().clickhouseUrl))
    .filter((family) => family !== plain)
    .map((family) => ({ store: 'keeper', family })),
];

/** Plays it once, and gives how often the zombie tried to write. It may hear of its loss before it tries anything. */
async function wakeZombie({ store, family }: (typeof worlds)[number]): Promise<number> {
  const at = await place(family);
  const { brokers, clickhouseUrl } = stack();
  const proxy = await TcpProxy.start({ to: new URL(clickhouseUrl).host });
  onTestFinished(() => proxy.stop());
  const state = stores[store]!(at);
  await produce(brokers, at.name, records(0, 1000));
  const zombie = worker(at.config(`http://${proxy.address}`, state));
  await zombie.until(async () => (await exactness(at)).distinct === 1000, 'the first records were there');

  // Cut off from ClickHouse in the middle of its inserts, it waits to make them again: that is when it is frozen.
  const before = told(zombie).length;
  const inserts = (stage: Told['stage']) =>
    told(zombie)
      .slice(before)
      .filter((each) => each.what === 'insert' && each.stage === stage).length;
  await produce(brokers, at.name, records(1000, 8000));
  let isCut = false;
  for (let round = 0; round < 20 && !isCut; round++) {
    const [begun, failed] = [inserts('begins'), inserts('failed')];
    await zombie.until(() => inserts('begins') > begun, 'an insert of the second part was sent');
    proxy.down();
    for (let look = 0; look < 40 && !isCut; look++) {
      await sleep(50);
      isCut = inserts('failed') > failed;
    }
    // Did the cut hit no insert, and the state's writes are behind it too, then the next one.
    if (!isCut) proxy.heal();
  }
  expect(isCut, 'an insert was cut off').toBe(true);
  zombie.signal('SIGSTOP');
  await sleep(300); // What it said before it was stopped has come by then.
  const frozenAt = told(zombie).length;
  proxy.heal();

  const successor = worker(at.config(clickhouseUrl, state));
  await successor.until(
    async () => (await exactness(at)).distinct === 9000,
    'the successor had done the zombie’s work',
  );
  await produce(brokers, at.name, records(9000, 500));
  await successor.until(async () => (await exactness(at)).distinct === 9500, 'the successor had gone on');

  zombie.signal('SIGCONT');
  await zombie.until(
    () =>
      told(zombie)
        .slice(frozenAt)
        .some(({ what }) => what === 'lost'),
    'the zombie learnt that it lost its partitions',
  );
  await produce(brokers, at.name, records(9500, 500));
  await successor.until(async () => (await exactness(at)).distinct === 10_000, 'both had gone on');
  for (const each of [zombie, successor]) {
    each.signal('SIGTERM');
    expect((await each.ended).code).toBe(0);
  }
  const { rows, distinct } = await exactness(at);
  // Up to the moment at which it learnt of its loss it went on as if nothing had happened.
  const lostAt = told(zombie).findIndex(({ what }, index) => index >= frozenAt && what === 'lost');
  const tried = told(zombie)
    .slice(frozenAt, lostAt)
    .filter(({ what, stage }) => stage === 'begins' && ['write', 'insert', 'commit'].includes(what));
  console.log(
    JSON.stringify({
      store,
      table: family.name,
      produced: 10_000,
      missing: 10_000 - distinct,
      doubled: rows - distinct,
      zombieTried: tried.map(({ what, detail }) => `${what} ${detail}`),
    }),
  );
  expect({ rows, distinct }).toEqual({ rows: 10_000, distinct: 10_000 });
  return tried.length;
}

/** A zombie may hear of its loss before it tries anything: then it is made again. */
const MOST_STAGINGS = 8;

describe('a worker that is frozen in the middle of an insert, and wakes up as a zombie, does no harm', () => {
  test.each(worlds)('with the store $store and a $family.name table', async (world) => {
    let tried = 0;
    for (let staging = 0; staging < MOST_STAGINGS && tried === 0; staging++) tried = await wakeZombie(world);
    expect(tried, 'the zombie tried to write').toBeGreaterThan(0);
  });
});
