// The program with its log going nowhere, and with hundreds of partitions in the same trouble.
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, constants, mkdtempSync, openSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { unreliableGateway } from '../support/unreliable-gateway.js';
import { configFile, Program, runConfig } from './program.js';

/** Of 300 partitions, each several times; KCR_REFUSED=3000 makes it as many as one likes. */
const REFUSED = Number(process.env.KCR_REFUSED ?? 1_000);

async function place(partitions: number) {
  const name = `log_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  await createTopic(brokers, name, { partitions });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name} (id UInt64, _topic String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000`,
  );
  await produce(
    brokers,
    name,
    Array.from({ length: partitions * 2 }, (_, id) => ({ value: JSON.stringify({ id }), partition: id % partitions })),
  );
  const clickhouse = await unreliableGateway(clickhouseUrl);
  const config = {
    kafka: { brokers, groupId: name, fromBeginning: true },
    clickhouse: { url: clickhouse.url },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { maxWaitMs: 20 },
    retry: { maxDelayMs: 1000 },
  };
  const rows = async () => (await query<{ n: number }>(clickhouseUrl, `SELECT count() AS n FROM ${name}`))[0]!.n;
  return { config, clickhouse, rows };
}

test('G1: 100 partitions, ClickHouse away, a log that nobody reads: it goes on, takes up its work again and drains', async () => {
  const { config, clickhouse, rows } = await place(100);
  const path = join(mkdtempSync(join(tmpdir(), 'kafka-clickhouse-fifo-')), 'log');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  onTestFinished(() => closeSync(reader));
  clickhouse.isAway = true;
  const main = new URL('../../dist/src/cli/main.js', import.meta.url).pathname;
  const line = `"${process.execPath}" "${main}" run "${configFile(config)}" --log-level debug 2> "${path}"`;
  const running = new Program([
    '-e',
    `import('node:child_process').then(({ spawn }) => {
    const child = spawn('/bin/sh', ['-c', 'exec ' + process.argv[1]], { stdio: 'ignore' });
    process.on('SIGTERM', () => child.kill('SIGTERM'));
    child.on('exit', (code) => process.exit(code ?? 99));
  })`,
    line,
  ]);
  // Each is told in a line of its own; a pipe holds 65,536 bytes.
  await running.until(() => clickhouse.refused >= 1_000, 'a thousand inserts were refused');
  clickhouse.isAway = false;
  await running.until(async () => (await rows()) === 200, 'every row was there');
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(0);
});

test('G3: 300 partitions, ClickHouse away: a few lines of each kind, and those that count say of how many partitions', async () => {
  const { config, clickhouse, rows } = await place(300);
  clickhouse.isAway = true;
  const running = runConfig(config);
  await running.until(
    () => clickhouse.refused >= REFUSED && running.stderr.includes('retry (as before, counted)'),
    `${REFUSED} inserts were refused`,
    240_000,
  );
  clickhouse.isAway = false;
  await running.until(async () => (await rows()) === 600, 'every row was there');
  running.signal('SIGTERM');
  const { code, stderr } = await running.ended;
  const kinds = new Map<string, number>();
  for (const line of stderr.trimEnd().split('\n')) {
    const { msg } = JSON.parse(line) as { msg: string };
    const kind = msg.replace(' (as before, counted)', '');
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  console.log(Object.fromEntries(kinds));
  expect(Math.max(...kinds.values())).toBeLessThan(30);
  expect(stderr).toMatch(/"partitions":300,"names":"log_\w+\/0-299".*retry \(as before, counted\)/);
  expect(code).toBe(0);
});
