// Servers that fall silent or refuse in the middle of a run: SIGTERM is obeyed within the drain's limit, at every moment
// and whichever server it is, and who goes on afterwards has every row once. Ordinarily at three moments; at all thirty, in
// minutes, with KCR_LONG=1.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { startProxiedBroker, type ProxiedBroker } from '../support/proxied-broker.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { runConfig } from './program.js';

const drainTimeoutMs = 1_000;
/** The shortest that brokers take by default: of a member that could not say goodbye. */
const sessionTimeoutMs = 6_000;
/** The drain's limit, 5 s for closing, and what a busy machine needs; far below the servers' own limits (120 s). */
const SOON_MS = 15_000;
const partitions = 2;
const records = 400;

let broker: ProxiedBroker;
beforeAll(async () => {
  broker = await startProxiedBroker('silent');
});
afterAll(() => broker?.stop());

async function proxied(to: string): Promise<TcpProxy> {
  const proxy = await TcpProxy.start({ to });
  onTestFinished(() => proxy.stop());
  return proxy;
}

/** Small batches, so that at each moment some are read, recorded, inserted and committed. */
async function place() {
  const name = `silent_run_${randomUUID().slice(0, 8)}`;
  const { clickhouseUrl, keeperConnect } = sharedStack();
  await createTopic(broker.direct, name, { partitions });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name} (id UInt64, _topic String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`,
  );
  await produce(
    broker.direct,
    name,
    Array.from({ length: records }, (_, id) => ({ value: JSON.stringify({ id }), partition: id % partitions })),
  );
  const [clickhouse, keeper] = await Promise.all([proxied(new URL(clickhouseUrl).host), proxied(keeperConnect)]);
  onTestFinished(() => broker.proxy.heal());
  const config = {
    kafka: { brokers: [broker.proxy.address], groupId: name, fromBeginning: true, drainTimeoutMs, sessionTimeoutMs },
    clickhouse: { url: `http://${clickhouse.address}` },
    state: { store: 'keeper', connect: keeper.address },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { count: 10, maxWaitMs: 20 },
  };
  const rows = async () =>
    (
      await query<{ rows: number; different: number }>(
        clickhouseUrl,
        `SELECT count() AS rows, uniqExact(id) AS different FROM ${name}`,
      )
    )[0];
  return { config, rows, kafka: broker.proxy, clickhouse, keeper };
}

const faults = ['falls silent', 'refuses'] as const;
const moments = [0, 2, 5, 9, 14];
const all = (['kafka', 'clickhouse', 'keeper'] as const).flatMap((server) =>
  faults.flatMap((fault) => moments.map((batches) => [server, fault, batches] as const)),
);
const few = [
  ['kafka', 'falls silent', 2],
  ['clickhouse', 'refuses', 5],
  ['keeper', 'falls silent', 9],
] as const;
const isLong = process.env['KCR_LONG'] !== undefined;
const cases = isLong ? all : few;

describe(`G5: SIGTERM is obeyed at ${cases.length} moments of a run, and no row is lost or doubled by it`, () => {
  test.each(cases)('%s %s after %i batches', async (server, fault, batches) => {
    const at = await place();
    const running = runConfig(at.config, {}, ['--log-level', 'debug']);
    const delivered = () => running.stderr.split('"delivered"').length - 1;
    await running.until(() => running.stderr.includes('"assigned"') && delivered() >= batches, 'the moment had come');
    if (fault === 'refuses') at[server].refuse();
    else at[server].pause();
    const fromMs = performance.now();
    running.signal('SIGTERM');
    const { code, signal } = await running.ended;
    const tookMs = performance.now() - fromMs;
    expect(tookMs).toBeLessThan(SOON_MS);
    // 7: what could not be settled in time is in doubt; 5: the server's refusal was final.
    expect([signal, [0, 5, 7].includes(code ?? -1)]).toEqual([null, true]);
    if (isLong) console.log(`${server} ${fault} after ${batches}: ${(tookMs / 1000).toFixed(1)} s, exit code ${code}`);
    at[server].heal();
    const next = runConfig(at.config);
    for (let found = await at.rows(); (found?.different ?? 0) < records; found = await at.rows()) await sleep(100);
    next.signal('SIGTERM');
    expect([(await next.ended).code, await at.rows()]).toEqual([0, { rows: records, different: records }]);
  });
});
