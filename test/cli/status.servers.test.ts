// What a running program tells of itself over HTTP, against what is in Kafka and in the table.
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import type { IngestStatus } from '../../src/observe/status.js';
import { command, createTopic, produce } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import type { Program } from './program.js';
import { configFile, program, runConfig } from './program.js';

const stack = () => sharedStack();
const events = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => ({ key: `k${from + i}`, value: JSON.stringify({ id: from + i }) }));

async function place() {
  const name = `status_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl, keeperConnect } = stack();
  await createTopic(brokers, name, { partitions: 2 });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name} (id UInt64, _topic String, _partition UInt32, _offset UInt64)
     ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`,
  );
  return {
    name,
    config: {
      kafka: { brokers, groupId: name, fromBeginning: true },
      clickhouse: { url: clickhouseUrl },
      state: { store: 'keeper', connect: keeperConnect },
      delivery: 'exactly-once',
      routes: [{ topic: name, table: name }],
      batch: { maxWaitMs: 100 },
      http: { listen: '127.0.0.1:0' },
    },
  };
}

async function served(running: Program): Promise<string> {
  const url = (): string | undefined => /"url":"(http:[^"]+)"/.exec(running.stderr)?.[1];
  await running.until(() => url() !== undefined, 'it served its status');
  return url()!;
}

const statusAt = async (url: string) => (await (await fetch(`${url}/api/status`)).json()) as IngestStatus;

test("the lag that is told is the log's, it goes as the rows come, and a halt says what to do", async () => {
  const { name, config } = await place();
  await produce(stack().brokers, name, events(0, 500));
  const running = runConfig(config);
  const url = await served(running);
  await running.until(async () => {
    const { totals, partitions, lagRecords } = await statusAt(url);
    return totals.rows === 500 && lagRecords === 0 && partitions.length === 2;
  }, 'all was settled, and the status said so');
  const { partitions, limit, budget } = await statusAt(url);
  expect(partitions.reduce((sum, { logEnd }) => sum + logEnd!, 0)).toBe(500);
  expect(partitions.reduce((sum, { settled }) => sum + settled! + 1, 0)).toBe(500);
  expect({ limit, usedBytes: budget?.usedBytes }).toEqual({ limit: 'none', usedBytes: 0 });
  const metrics = await (await fetch(`${url}/metrics`)).text();
  expect(metrics).toContain(`kcr_rows_total{topic="${name}"} 500`);
  expect(metrics).toMatch(/kcr_call_seconds_count\{call="insert",topic="[^"]+",outcome="done"\} [1-9]/);
  expect((await fetch(`${url}/readyz`)).status).toBe(200);

  await produce(stack().brokers, name, [{ key: 'k0', value: 'not JSON' }]);
  await running.until(async () => (await statusAt(url)).partitions.some(({ halted }) => halted), 'the halt was told');
  const top = await program(['top', url, '--once']).ended;
  expect(top).toMatchObject({ code: 0 });
  expect(top.stdout).toMatch(/1 of 2 partitions halted/);
  expect(top.stdout).toMatch(new RegExp(`${name}/\\d.*halted KCR_POISON`));
  expect(top.stdout).not.toContain('not JSON');
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(4);
});

test('with "openTelemetry" the providers that an SDK has set are given metrics and a span a batch', async () => {
  const { name, config } = await place();
  await produce(stack().brokers, name, events(0, 10));
  const sdk = `import { createRequire } from 'node:module';
    const require = createRequire(${JSON.stringify(import.meta.url)});
    const { trace } = require('@opentelemetry/api');
    const { BasicTracerProvider, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-base');
    const exporter = {
      export: (spans, done) => {
        for (const { name, attributes } of spans) console.log(name, attributes['kcr.rows']);
        done({ code: 0 });
      },
      shutdown: () => Promise.resolve(),
    };
    trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));`;
  const env = { NODE_OPTIONS: `--import ${configFile(sdk, 'sdk.mjs')}` };
  const running = runConfig({ ...config, openTelemetry: true }, env);
  const rows = () =>
    [...running.stdout.matchAll(new RegExp(`insert ${name} (\\d+)`, 'g'))].map(([, each]) => Number(each));
  await running.until(() => rows().reduce((sum, each) => sum + each, 0) === 10, 'its spans told of all rows');
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(0);
});
