/**
 * `npm run bench:stores`: what each state store costs: its writes for each batch, and its share of a batch's time. Real
 * servers, one partition with a backlog, 1,000 rows a batch, `maxPending` 1 and 2.
 */
import { randomUUID } from 'node:crypto';
import { defer, from, tap } from 'rxjs';
import { checkConfig } from '../src/config/config.js';
import { openPorts, pipelineOf, type OpenPorts } from '../src/pipeline/ingest.js';
import { aroundPorts, type PortCall } from '../test/support/around-ports.js';
import { command, createTopic, produce } from '../test/stack/clients.js';
import { startStack, type Stack } from '../test/stack/stack.js';

const batches = 300;
const rowsPerBatch = 1000;

interface Measured {
  readonly store: string;
  readonly maxPending: number;
  readonly batches: number;
  readonly stateWrites: number;
  readonly writesPerBatch: number;
  readonly writeMsP50: number;
  readonly writeMsP99: number;
  readonly insertMsP50: number;
  /** Of the time a batch takes from its intent to its insert's answer: the state write's part. */
  readonly storeShareOfBatch: number;
}

const quantile = (sorted: readonly number[], q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
const rounded = (value: number): number => Math.round(value * 100) / 100;
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Notes how long each call took, in milliseconds. */
function timed(ports: OpenPorts, tookMs: Readonly<Partial<Record<PortCall['what'], number[]>>>): OpenPorts {
  return aroundPorts(ports, ({ what }, call) =>
    defer(() => {
      const startMs = performance.now();
      return from(call()).pipe(tap({ complete: () => tookMs[what]?.push(performance.now() - startMs) }));
    }),
  );
}

async function measure(stack: Stack, store: string, state: object, maxPending: number): Promise<Measured> {
  const name = `stores_${randomUUID().slice(0, 8)}`;
  await createTopic(stack.brokers, name);
  await command(
    stack.clickhouseUrl,
    `CREATE TABLE ${name} (id UInt64, text String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000`,
  );
  const text = 'x'.repeat(160);
  for (let first = 0; first < batches * rowsPerBatch; first += 4000) {
    await produce(
      stack.brokers,
      name,
      Array.from({ length: 4000 }, (_, i) => JSON.stringify({ id: first + i, text })),
    );
  }
  const config = checkConfig({
    kafka: { brokers: stack.brokers, groupId: name, fromBeginning: true },
    clickhouse: { url: stack.clickhouseUrl },
    state: store === 'keeper-map' ? { ...state, table: `state_${name}`, path: `/${name}` } : state,
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { count: rowsPerBatch, maxWaitMs: 1000 },
    maxPending,
  });
  const [writesMs, insertsMs]: [number[], number[]] = [[], []];
  const ports = timed(await openPorts(config), { write: writesMs, insert: insertsMs });
  const delivered = await ingestAll(ports, config);
  const [writes, inserts] = [[...writesMs].sort((a, b) => a - b), [...insertsMs].sort((a, b) => a - b)];
  return {
    store,
    maxPending,
    batches: delivered,
    stateWrites: writes.length,
    writesPerBatch: rounded(writes.length / delivered),
    writeMsP50: rounded(quantile(writes, 0.5)),
    writeMsP99: rounded(quantile(writes, 0.99)),
    insertMsP50: rounded(quantile(inserts, 0.5)),
    storeShareOfBatch: rounded(sum(writes) / (sum(writes) + sum(inserts))),
  };
}

function ingestAll(ports: OpenPorts, config: ReturnType<typeof checkConfig>): Promise<number> {
  let [delivered, rows] = [0, 0];
  return new Promise((resolve, reject) => {
    pipelineOf(ports, config).subscribe({
      next: (outcome) => {
        if (outcome.kind === 'halted') return reject(outcome.error);
        delivered += 1;
        rows += outcome.rows;
        if (rows >= batches * rowsPerBatch) ports.source.drain();
      },
      error: reject,
      complete: () => void ports.close().then(() => resolve(delivered)),
    });
  });
}

const stack = await startStack();
try {
  const states: Readonly<Record<string, object>> = {
    keeper: { store: 'keeper', connect: stack.keeperConnect },
    'keeper-map': { store: 'keeper-map' },
    kafka: { store: 'kafka' },
    memory: { store: 'memory', allowVolatile: true },
  };
  const chosen = process.argv.slice(2).filter((each) => each in states);
  for (const store of chosen.length === 0 ? Object.keys(states) : chosen) {
    for (const maxPending of [1, 2])
      console.log(JSON.stringify(await measure(stack, store, states[store]!, maxPending)));
  }
} finally {
  await stack.stop();
}
