// Every example runs: what the README shows is what works.
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Program, program } from '../cli/program.js';
import { command, createTopic, produce, query, topicEnd, withAdmin } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';

const example = (name: string) => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
const flights = Array.from({ length: 200 }, (_, i) => ({
  key: String(i),
  value: JSON.stringify({
    date: '2001-01-01 00:00:00.000',
    delay: i % 3 === 0 ? -1 : i,
    distance: 1000,
    origin: i % 4 === 0 ? '' : 'SFO',
    destination: 'LAX',
  }),
}));

const environment = () => {
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  return { KAFKA_BROKERS: brokers.join(','), CLICKHOUSE_URL: clickhouseUrl, KEEPER_CONNECT: keeperConnect };
};

const script = (name: string) => new Program(['--import', 'tsx', example(name)], environment());

async function table(): Promise<{ rows: number; distance: number }> {
  const [row] = await query<{ rows: number; distance: number }>(
    sharedStack().clickhouseUrl,
    'SELECT count() AS rows, max(distance) AS distance FROM flights',
  );
  return row!;
}

/** By the topic and table that the examples name: where servers are somebody's, theirs may be called so too. */
async function refuseOthers(): Promise<void> {
  const { brokers, clickhouseUrl } = sharedStack();
  const topics = await withAdmin(brokers, (admin) => admin.listTopics());
  const tables = await query(
    clickhouseUrl,
    "SELECT name FROM system.tables WHERE database = 'default' AND name = 'flights'",
  );
  if (topics.includes('flights') || tables.length > 0)
    throw new Error(
      'These servers have a topic or a table flights that this test has not made: it is left alone. Unset KAFKA_BROKERS and CLICKHOUSE_URL.',
    );
}

/** What the tests have made, and nothing else, is theirs to empty and to drop. */
let isMade = false;

async function emptyTable(): Promise<void> {
  const { clickhouseUrl } = sharedStack();
  if (isMade) return void (await command(clickhouseUrl, 'TRUNCATE TABLE flights'));
  await command(
    clickhouseUrl,
    `CREATE TABLE flights (date DateTime64(3), delay Int16, distance Int16, origin String, destination String,
     _topic LowCardinality(String), _partition UInt32, _offset UInt64)
     ENGINE = MergeTree ORDER BY (origin, date) SETTINGS non_replicated_deduplication_window = 10000`,
  );
  isMade = true;
}

describe('examples', () => {
  beforeAll(async () => {
    await refuseOthers();
    await createTopic(sharedStack().brokers, 'flights', { partitions: 2 });
    await produce(sharedStack().brokers, 'flights', flights);
  });

  afterAll(async () => {
    if (!isMade) return;
    await command(sharedStack().clickhouseUrl, 'DROP TABLE flights SYNC');
    await withAdmin(sharedStack().brokers, (admin) => admin.deleteTopics({ topics: ['flights'] }));
  });

  test.each([
    ['one-line.ts', { rows: 200, distance: 1000 }],
    ['by-hand.ts', { rows: 150, distance: 1000 }],
    ['node-transform.ts', { rows: 200, distance: 1609 }],
  ])('%s fills the table and drains', async (name, expected) => {
    await emptyTable();
    const running = script(name);
    await running.until(async () => (await table()).rows >= expected.rows, 'the rows were there');
    running.signal('SIGTERM');
    const { code, stderr } = await running.ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(await table()).toEqual(expected);
  });

  test('transform.config.mjs is a configuration with a function in it', async () => {
    await emptyTable();
    const running = program(['run', example('transform.config.mjs')], environment());
    await running.until(async () => (await table()).rows >= 133, 'the rows were there');
    running.signal('SIGTERM');
    expect((await running.ended).code).toBe(0);
    expect(await table()).toEqual({ rows: 133, distance: 1000 });
  });

  test('G10: the demo, with few rows, on servers that hold a topic and a table of its names: three kills, nothing missing, nothing doubled, nothing of others touched', async () => {
    const { clickhouseUrl, brokers } = sharedStack();
    const before = { table: await table(), ends: await topicEnd(brokers, 'flights') };
    const demo = new Program(['--import', 'tsx', example('demo/main.ts'), '--rows', '60000', '--json'], environment());
    const { code, stdout, stderr } = await demo.ended;
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
    const last = JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, number>;
    expect(last).toMatchObject({ produced: 60_000, rows: 60_000, missing: 0, duplicated: 0, kills: 3 });
    expect(last['rowsPerSecond']).toBeGreaterThan(0);
    expect({ table: await table(), ends: await topicEnd(brokers, 'flights') }).toEqual(before);
    expect(await query(clickhouseUrl, "SELECT name FROM system.tables WHERE name LIKE 'kcr_demo_%'")).toEqual([]);
  });
});
