// Answers that pass, and what somebody mends from outside: no partition stands for good.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { eventLine, outcomeLine } from '../../src/cli/log/lines.js';
import { Log } from '../../src/cli/log/log.js';
import { Tally } from '../../src/cli/tally.js';
import { checkConfig, type IngestConfig } from '../../src/config/config.js';
import type { Outcome } from '../../src/events.js';
import { ingest } from '../../src/pipeline/ingest.js';
import type { PartitionState } from '../../src/model/state.js';
import { openStateAccess } from '../../src/stores/stores.js';
import { look } from '../../src/tools/status.js';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';

interface Given {
  readonly status: number;
  /** ClickHouse's. */
  readonly code?: number;
}

/** Before ClickHouse; answers inserts in its place as long as `given` says so. */
async function answeringProxy(
  to: string,
): Promise<{ readonly url: string; given: () => Given | undefined; stop(): Promise<void> }> {
  const target = new URL(to);
  const proxy = { url: '', given: (): Given | undefined => undefined, stop: async () => Promise.resolve() };
  const server = createServer((incoming, outgoing) => {
    const isInsert =
      new URL(incoming.url ?? '/', 'http://proxy').searchParams.get('query')?.startsWith('INSERT') === true;
    const given = isInsert ? proxy.given() : undefined;
    if (given !== undefined) {
      incoming.resume();
      const { status, code } = given;
      outgoing.writeHead(status, code === undefined ? {} : { 'x-clickhouse-exception-code': String(code) });
      return void outgoing.end(
        code === undefined
          ? '<html>a proxy</html>'
          : `Code: ${code}. DB::Exception: for a moment. (A_NAME) (version 26.7.2.1)`,
      );
    }
    const passed = request(
      {
        host: target.hostname,
        port: target.port,
        method: incoming.method,
        path: incoming.url,
        headers: incoming.headers,
      },
      (answer: IncomingMessage) => {
        outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(outgoing);
      },
    );
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

/** The log that the program writes, and how many lines of each kind came out of it. */
function countedLog() {
  const kinds = new Map<string, number>();
  const log = new Log({
    level: 'info',
    output: (bytes) => {
      for (const text of Buffer.from(bytes).toString().trim().split('\n')) {
        const { msg, call, code } = JSON.parse(text) as {
          readonly msg: string;
          readonly call?: string;
          readonly code?: string;
        };
        // Behind the colon stands what the server said; a kind that repeats is told as counted.
        const kind = [msg.replace(' (as before, counted)', '').split(':')[0]!.replace(/\d+/gu, 'N'), call, code]
          .filter(Boolean)
          .join(' ');
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
      }
      return Promise.resolve(bytes.length);
    },
  });
  return { log, kinds };
}

/** A running ingestion of one topic, and its log. */
async function start(url: string, more: Partial<IngestConfig> = {}) {
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  const topic = `heal_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, topic, { partitions: PARTITIONS });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${topic} (n UInt32, v UInt32, _topic LowCardinality(String), _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 10000`,
  );
  const outcomes: Outcome[] = [];
  const tally = new Tally();
  const { log, kinds } = countedLog();
  const stopping = new AbortController();
  const config: IngestConfig = {
    kafka: { brokers, groupId: topic, fromBeginning: true },
    clickhouse: { url },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic, table: topic }],
    batch: { count: 500, maxWaitMs: 100 },
    heal: { minDelayMs: 500, maxDelayMs: 2000 },
    retry: { maxDelayMs: 1000 },
    ...more,
  };
  const over = new Promise<void>((resolve, reject) => {
    ingest(config, {
      signal: stopping.signal,
      onEvent: (event) => (tally.event(event, stopping.signal.aborted), log.line(eventLine(event))),
    }).subscribe({
      next: (outcome) => (outcomes.push(outcome), tally.outcome(outcome), log.line(outcomeLine(outcome))),
      error: reject,
      complete: resolve,
    });
  });
  let produced = 0;
  return {
    topic,
    outcomes,
    tally,
    kinds,
    produced: () => produced,
    async produce(count: number): Promise<void> {
      await produce(
        brokers,
        topic,
        Array.from({ length: count }, () => ({
          value: JSON.stringify({ n: produced, v: produced }),
          partition: produced++ % PARTITIONS,
        })),
      );
    },
    async allAreThere(withinMs: number): Promise<void> {
      const untilMs = Date.now() + withinMs;
      for (;;) {
        const [found] = await query<{ rows: number; records: number }>(
          clickhouseUrl,
          `SELECT count() AS rows, uniqExact(n) AS records FROM ${topic}`,
        ).catch(() => []);
        if (found?.rows === produced && found.records === produced) return;
        if (Date.now() > untilMs)
          expect({ ...found, lines: Object.fromEntries(kinds) }).toEqual({ rows: produced, records: produced });
        await sleep(50);
      }
    },
    /** Until the stored state of every partition is as wanted; the test's own time limit ends it. */
    async noted(isWanted: (state: PartitionState) => boolean): Promise<void> {
      const checked = checkConfig(config);
      const access = openStateAccess(checked);
      try {
        while (
          !(await look(checked, access)).partitions.every(
            ({ stored }) => stored !== undefined && isWanted(stored.state),
          )
        )
          await sleep(100);
      } finally {
        await access.close();
      }
    },
    async stop(): Promise<void> {
      stopping.abort();
      await over;
      await log.close(1000);
    },
  };
}

const statuses = [
  201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 418, 422, 425, 429, 431, 451,
  499, 500, 501, 502, 503, 504,
];
// Not 319, after which a table is not believed for five and a half minutes.
const codes = [36, 60, 81, 164, 194, 201, 202, 241, 242, 243, 252, 286, 497, 516, 745, 999, 49, 123456];

const ANSWERS = [
  ...statuses.map((status): Given => ({ status })),
  ...codes.map((code): Given => ({ status: 500, code })),
];
/** For how long each is given: by hand with `KCR_ANSWERS_MS=5000`. */
const ANSWER_MS = Number(process.env['KCR_ANSWERS_MS'] ?? 100);

test(
  `E5: ${ANSWERS.length} answers, each once and then for a while, stop no partition, and the log stays readable`,
  async () => {
    const proxy = await answeringProxy(sharedStack().clickhouseUrl);
    const running = await start(proxy.url);
    const given = new Map<Given, number>();
    const giving = (answer: Given, isGiven: () => boolean) => () => {
      if (!isGiven()) return undefined;
      given.set(answer, (given.get(answer) ?? 0) + 1);
      return answer;
    };
    try {
      for (const answer of ANSWERS) {
        proxy.given = giving(answer, () => !given.has(answer));
        while (!given.has(answer)) {
          await running.produce(40);
          await sleep(50);
        }
        const untilMs = Date.now() + ANSWER_MS;
        proxy.given = giving(answer, () => Date.now() < untilMs || given.get(answer)! < 2);
        do {
          await running.produce(40);
          await sleep(50);
        } while (Date.now() < untilMs || given.get(answer)! < 2);
        await running.allAreThere(60_000);
      }
      await running.stop();
      expect(running.tally.exitCode, 'nothing is left that has not healed').toBe(0);
      const lines = Object.fromEntries([...running.kinds].sort(([, a], [, b]) => b - a));
      if (process.env['KCR_ANSWERS_MS'] !== undefined)
        console.log({
          answers: ANSWERS.length,
          given: [...given.values()].reduce((sum, times) => sum + times),
          rows: running.produced(),
          totals: running.tally.totals,
          lines,
        });
      expect(Object.entries(lines).filter(([, count]) => count >= 30)).toEqual([]);
      expect(lines, 'what passed was told').toMatchObject({
        'retry insert KCR_INSERT_IN_DOUBT': expect.any(Number) as number,
      });
    } finally {
      proxy.given = () => undefined;
      await proxy.stop();
    }
  },
  120_000 + ANSWERS.length * (ANSWER_MS + 20_000),
);

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

test('E5: a right that is taken away halts its partitions, and they go on by themselves once it is given back', async () => {
  const { clickhouseUrl } = sharedStack();
  const proxy = await answeringProxy(clickhouseUrl);
  const running = await start(proxy.url, { retry: { maxDelayMs: 200 } });
  try {
    proxy.given = () => ({ status: 403, code: 497 });
    await running.produce(400);
    while (!running.outcomes.some(({ kind }) => kind === 'halted')) await sleep(50);
    expect(running.tally.isAllHalted(), 'the process must not end').toBe(false);
    expect(running.tally.exitCode, 'halted, and nobody need act').toBe(9);
    await running.noted(({ halted }) => halted?.code === 'KCR_INSERT_FATAL' && halted.heals);
    proxy.given = () => undefined;
    await running.allAreThere(60_000);
    await running.noted(({ halted, pending }) => halted === undefined && pending.length === 0);
    await running.stop();
    expect(running.tally.totals.healed).toBeGreaterThan(0);
    expect(running.tally.exitCode).toBe(0);
  } finally {
    await proxy.stop();
  }
}, 120_000);

test.each([
  ['MODIFY COLUMN v IPv4', 'MODIFY COLUMN v UInt32', 'halt'],
  ['DROP COLUMN v, ADD COLUMN v Array(UInt32)', 'DROP COLUMN v, ADD COLUMN v UInt32', 'exclude'],
] as const)(
  'E5: a column that is altered under the program so that it takes none of the values (%s), and back, halts no partition for good and leaves no record out',
  async (alteration, back, onPoison) => {
    const { clickhouseUrl } = sharedStack();
    const running = await start(clickhouseUrl, { onPoison, retry: { maxDelayMs: 200 } });
    await running.produce(40);
    await running.allAreThere(60_000);
    await command(clickhouseUrl, `ALTER TABLE ${running.topic} ${alteration}`);
    await running.produce(40);
    while (!running.outcomes.some((outcome) => outcome.kind === 'halted' && outcome.error.code === 'KCR_SCHEMA'))
      await sleep(50);
    expect(running.tally.isAllHalted(), 'the process must not end').toBe(false);
    await command(clickhouseUrl, `ALTER TABLE ${running.topic} ${back}`);
    await running.allAreThere(60_000);
    await running.stop();
    expect(running.outcomes.filter((outcome) => outcome.kind === 'halted' && outcome.healsInMs === undefined)).toEqual(
      [],
    );
    expect(running.tally.totals).toMatchObject({
      excluded: 0,
      healed: expect.toSatisfy((healed: number) => healed > 0) as number,
    });
    expect(running.tally.exitCode).toBe(0);
  },
  120_000,
);

test('E5: a record that the table would not have taken either before it was altered halts its partition as ever', async () => {
  const { brokers, clickhouseUrl } = sharedStack();
  const running = await start(clickhouseUrl);
  await running.produce(40);
  await running.allAreThere(60_000);
  await command(clickhouseUrl, `ALTER TABLE ${running.topic} ADD COLUMN more String`);
  await produce(brokers, running.topic, [{ value: '{"n":"not a number"}', partition: 0 }]);
  while (!running.outcomes.some(({ kind }) => kind === 'halted')) await sleep(50);
  await running.stop();
  expect(running.outcomes.filter(({ kind }) => kind === 'halted')).toMatchObject([
    { error: { code: 'KCR_POISON', fields: { partition: 0, offset: 10 } } },
  ]);
}, 120_000);
