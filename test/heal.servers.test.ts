// Answers that pass, and what somebody mends from outside: no partition stands for good.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { eventLine, outcomeLine } from '../src/cli/log/lines.js';
import { Tally } from '../src/cli/tally.js';
import type { IngestConfig } from '../src/config.js';
import type { Outcome } from '../src/events.js';
import { ingest } from '../src/ingest.js';
import { command, createTopic, produce, query } from './stack/clients.js';
import { sharedStack } from './stack/shared.js';

interface Given {
  readonly status: number;
  /** ClickHouse's. */
  readonly code?: number;
}

/** Before ClickHouse; answers inserts in its place as long as `given` says so. */
async function answeringProxy(to: string): Promise<{ readonly url: string; given: () => Given | undefined; stop(): Promise<void> }> {
  const target = new URL(to);
  const proxy = { url: '', given: (): Given | undefined => undefined, stop: async () => Promise.resolve() };
  const server = createServer((incoming, outgoing) => {
    const isInsert = new URL(incoming.url ?? '/', 'http://proxy').searchParams.get('query')?.startsWith('INSERT') === true;
    const given = isInsert ? proxy.given() : undefined;
    if (given !== undefined) {
      incoming.resume();
      const { status, code } = given;
      outgoing.writeHead(status, code === undefined ? {} : { 'x-clickhouse-exception-code': String(code) });
      return void outgoing.end(code === undefined ? '<html>a proxy</html>' : `Code: ${code}. DB::Exception: for a moment. (A_NAME) (version 26.7.2.1)`);
    }
    const passed = request({ host: target.hostname, port: target.port, method: incoming.method, path: incoming.url, headers: incoming.headers }, (answer: IncomingMessage) => {
      outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(outgoing);
    });
    passed.on('error', () => outgoing.destroy());
    incoming.pipe(passed);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  proxy.stop = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
  return proxy;
}

const PARTITIONS = 4;

/** A running ingestion of one topic, and its log by kinds of lines. */
async function start(url: string, more: Partial<IngestConfig> = {}) {
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  const topic = `heal_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, topic, { partitions: PARTITIONS });
  await command(clickhouseUrl, `CREATE TABLE ${topic} (n UInt32, _topic LowCardinality(String), _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000`);
  const outcomes: Outcome[] = [];
  const tally = new Tally();
  const lines = new Map<string, number>();
  const stopping = new AbortController();
  const note = (line: { readonly level: string; readonly message: string }) => {
    if (line.level !== 'debug') lines.set(line.message, (lines.get(line.message) ?? 0) + 1);
  };
  const over = new Promise<void>((resolve, reject) => {
    ingest(
      {
        kafka: { brokers, groupId: topic, fromBeginning: true }, clickhouse: { url }, state: { store: 'keeper', connect: keeperConnect }, delivery: 'exactly-once',
        routes: [{ topic, table: topic }], batch: { count: 500, maxWaitMs: 100 }, heal: { minDelayMs: 500, maxDelayMs: 2000 }, retry: { maxDelayMs: 1000 }, ...more,
      },
      { signal: stopping.signal, report: (event) => (tally.event(event, stopping.signal.aborted), note(eventLine(event))) },
    ).subscribe({ next: (outcome) => (outcomes.push(outcome), tally.outcome(outcome), note(outcomeLine(outcome))), error: reject, complete: resolve });
  });
  let produced = 0;
  return {
    topic, outcomes, tally, lines,
    async produce(count: number): Promise<void> {
      await produce(brokers, topic, Array.from({ length: count }, () => ({ value: JSON.stringify({ n: produced }), partition: produced++ % PARTITIONS })));
    },
    async allAreThere(withinMs: number): Promise<void> {
      const untilMs = Date.now() + withinMs;
      for (;;) {
        const [found] = await query<{ rows: number; records: number }>(clickhouseUrl, `SELECT count() AS rows, uniqExact(n) AS records FROM ${topic}`).catch(() => []);
        if (found?.rows === produced && found.records === produced) return;
        if (Date.now() > untilMs) expect({ ...found, lines: Object.fromEntries(lines) }).toEqual({ rows: produced, records: produced });
        await sleep(200);
      }
    },
    async stop(): Promise<void> {
      stopping.abort();
      await over;
    },
  };
}

const statuses = [201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 418, 422, 425, 429, 431, 451, 499, 500, 501, 502, 503, 504];
// Not 319, after which a table is not believed for five and a half minutes.
const codes = [36, 60, 81, 164, 194, 201, 202, 241, 242, 243, 252, 286, 497, 516, 745, 999, 49, 123456];

test(`E5: ${statuses.length + codes.length} answers, each once and then for a while, stop no partition`, async () => {
  const proxy = await answeringProxy(sharedStack().clickhouseUrl);
  const running = await start(proxy.url);
  try {
    for (const given of [...statuses.map((status) => ({ status })), ...codes.map((code) => ({ status: 500, code }))]) {
      let isFirst = true;
      proxy.given = () => {
        if (!isFirst) return undefined;
        isFirst = false;
        return given;
      };
      await running.produce(40);
      await running.allAreThere(60_000);
      const untilMs = Date.now() + Number(process.env['KCR_ANSWERS_MS'] ?? 1000);
      proxy.given = () => (Date.now() < untilMs ? given : undefined);
      await running.produce(40);
      await running.allAreThere(60_000);
    }
    await running.stop();
    expect(running.tally.exitCode, 'nothing is left that has not healed').toBe(0);
  } finally {
    proxy.given = () => undefined;
    await proxy.stop();
  }
}, 550_000);

test('E6: a table that is renamed away for two seconds is waited for, and the process goes on', async () => {
  const { clickhouseUrl } = sharedStack();
  const running = await start(clickhouseUrl);
  await running.produce(400);
  await running.allAreThere(30_000);
  await command(clickhouseUrl, `RENAME TABLE ${running.topic} TO ${running.topic}_away`);
  await running.produce(400);
  await sleep(2000);
  await command(clickhouseUrl, `RENAME TABLE ${running.topic}_away TO ${running.topic}`);
  await running.produce(400);
  await running.allAreThere(60_000);
  await running.stop();
  expect(running.tally.exitCode).toBe(0);
}, 120_000);

test('E5: a table that does not fit halts its partitions, and they go on by themselves once it does', async () => {
  const { clickhouseUrl } = sharedStack();
  const proxy = await answeringProxy(clickhouseUrl);
  const running = await start(proxy.url, { retry: { maxDelayMs: 200 } });
  try {
    proxy.given = () => ({ status: 403, code: 497 });
    await running.produce(400);
    while (!running.outcomes.some(({ kind }) => kind === 'halted')) await sleep(50);
    expect(running.tally.isAllHalted(), 'the process must not end').toBe(false);
    expect(running.tally.exitCode).toBe(5);
    proxy.given = () => undefined;
    await running.allAreThere(60_000);
    await running.stop();
    expect(running.tally.totals.healed).toBeGreaterThan(0);
    expect(running.tally.exitCode).toBe(0);
  } finally {
    await proxy.stop();
  }
}, 120_000);
