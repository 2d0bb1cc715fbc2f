/**
 * One contender as a process of its own: `node --import tsx bench/contender.ts <name> <parameters as JSON>`. The library
 * is the built one. Prints what it used at its end; SIGTERM ends it.
 */
import { request, Agent } from 'node:http';
import { Kafka, logLevel } from 'kafkajs';
import { createClient } from '@clickhouse/client';
import type { IngestConfig, ingest, kafkaSource } from 'kafka-clickhouse-rx';

export interface Parameters {
  readonly brokers: readonly string[];
  readonly clickhouseUrl: string;
  readonly keeperConnect: string;
  readonly topic: string;
  readonly table: string;
  readonly group: string;
  readonly rows: number;
  readonly batchRows: number;
  readonly maxWaitMs: number;
  readonly maxPending: number;
  /** Ends by itself when so many rows are through; a steady run is ended by SIGTERM. */
  readonly endsByItself: boolean;
}

export interface Used {
  readonly rows: number;
  readonly inserts: number;
  readonly cpuSeconds: number;
  readonly peakRssMb: number;
  /** From when it could begin to its last record. */
  readonly seconds?: number;
}

interface Meter {
  /** Records may come from now on; what came before is the start of a process. Called again it does nothing. */
  begin(): void;
  count(rows: number, inserts?: number): void;
}

type Contender = (parameters: Parameters, meter: Meter, stopping: AbortSignal) => Promise<void>;

/** The built one. */
const library = () =>
  import(new URL('../dist/src/index.js', import.meta.url).href) as Promise<{
    ingest: typeof ingest;
    kafkaSource: typeof kafkaSource;
  }>;

function ours(delivery: IngestConfig['delivery'], state: (parameters: Parameters) => unknown): Contender {
  return async (parameters, meter, stopping) => {
    const built = await library();
    const { brokers, group, clickhouseUrl, topic, table, batchRows, maxWaitMs, maxPending } = parameters;
    const config = {
      kafka: { brokers: [...brokers], groupId: group, fromBeginning: true },
      clickhouse: { url: clickhouseUrl },
      delivery,
      routes: [{ topic, table }],
      batch: { count: batchRows, maxWaitMs },
      maxPending,
      ...(delivery === 'exactly-once' ? { state: state(parameters) } : {}),
    } as IngestConfig;
    const draining = new AbortController();
    stopping.addEventListener('abort', () => draining.abort());
    await new Promise<void>((resolve, reject) => {
      built
        .ingest(config, {
          signal: draining.signal,
          onEvent: ({ kind }) => (kind === 'assigned' ? meter.begin() : undefined),
        })
        .subscribe({
          next: (outcome) => {
            if (outcome.kind === 'halted') return reject(outcome.error);
            meter.count(outcome.rows, outcome.rows > 0 ? 1 : 0);
          },
          error: reject,
          complete: resolve,
        });
    });
  };
}

/** What a Node developer writes today: `eachBatch`, `JSON.parse`, `client.insert`, commit. */
const naive: Contender = async ({ brokers, group, topic, table, clickhouseUrl }, meter, stopping) => {
  const client = createClient({ url: clickhouseUrl });
  const consumer = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING }).consumer({ groupId: group });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async (payload) => {
      meter.begin();
      const { batch } = payload;
      const values = batch.messages.map(({ value, offset }): unknown => ({
        ...(JSON.parse(String(value)) as object),
        _topic: batch.topic,
        _partition: batch.partition,
        _offset: Number(offset),
      }));
      await client.insert({ table, values, format: 'JSONEachRow' });
      await consumer.commitOffsets([
        { topic: batch.topic, partition: batch.partition, offset: String(BigInt(batch.lastOffset()) + 1n) },
      ]);
      await payload.heartbeat();
      meter.count(values.length, 1);
    },
  });
  await new Promise((resolve) => stopping.addEventListener('abort', resolve));
  await consumer.disconnect();
  await client.close();
};

/** Records fetched and dropped, by our source. */
const consumerOnly: Contender = async ({ brokers, group, topic }, meter, stopping) => {
  const built = await library();
  const source = built.kafkaSource({ brokers: [...brokers], groupId: group, topics: [topic], fromBeginning: true });
  await new Promise<void>((resolve, reject) => {
    stopping.addEventListener('abort', () => source.drain());
    source.events.subscribe({
      next: (event) => {
        meter.begin();
        if (event.kind === 'revoked') event.release();
        if (event.kind !== 'fetched') return;
        source.done(event.assignment, event.chunk.lastOffset);
        meter.count(event.chunk.records.length);
      },
      error: reject,
      complete: resolve,
    });
  });
};

/** The same bytes, made before the clock starts, posted by a bare HTTP client, as many at a time as ours has in flight. */
const ceiling: Contender = async (parameters, meter, stopping) => {
  const { rows, batchRows, table, clickhouseUrl, topic } = parameters;
  const { values } = await import('./workloads.js');
  const lines = (await values(clickhouseUrl, topic, batchRows)).map((value, id) =>
    Buffer.from(`${value.slice(0, -1)},"_topic":"${topic}","_partition":0,"_offset":${id}}\n`),
  );
  const body = Buffer.concat(lines);
  const agent = new Agent({ keepAlive: true });
  const settings = `async_insert=0&max_insert_block_size=10000000&min_insert_block_size_rows=10000000&min_insert_block_size_bytes=2000000000&input_format_parallel_parsing=0`;
  let sent = 0;
  meter.begin();
  const post = (n: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const url = new URL(
        `/?query=${encodeURIComponent(`INSERT INTO ${table} FORMAT JSONEachRow`)}&insert_deduplication_token=ceiling-${n}&${settings}`,
        clickhouseUrl,
      );
      const outgoing = request(
        url,
        { method: 'POST', agent, headers: { 'content-length': body.length } },
        (incoming) => {
          incoming
            .resume()
            .on('end', () =>
              incoming.statusCode === 200 ? resolve() : reject(new Error(`status ${incoming.statusCode}`)),
            );
        },
      );
      outgoing.on('error', reject).end(body);
    });
  const lane = async (): Promise<void> => {
    while (sent * batchRows < rows && !stopping.aborted) {
      await post(sent++);
      meter.count(batchRows, 1);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  agent.destroy();
};

/** As `maxInFlight` has it by default. */
const lanes = 4;

const contenders: Readonly<Record<string, Contender>> = {
  ceiling,
  'exactly-once/keeper': ours('exactly-once', ({ keeperConnect }) => ({ store: 'keeper', connect: keeperConnect })),
  'exactly-once/keeper-map': ours('exactly-once', ({ group }) => ({
    store: 'keeper-map',
    table: `state_${group}`,
    path: `/${group}`,
  })),
  'exactly-once/kafka': ours('exactly-once', () => ({ store: 'kafka' })),
  'exactly-once/memory': ours('exactly-once', () => ({ store: 'memory', allowVolatile: true })),
  'at-least-once': ours('at-least-once', () => undefined),
  naive,
  'consumer-only': consumerOnly,
};

const [name = '', text = '{}'] = process.argv.slice(2);
const parameters = JSON.parse(text) as Parameters;
const contender = contenders[name];
if (contender === undefined) throw new Error(`no contender ${name}; there are ${Object.keys(contenders).join(', ')}`);
const stopping = new AbortController();
process.on('SIGTERM', () => stopping.abort());
let [rows, inserts, firstMs, lastMs] = [0, 0, 0, 0];
let cpu: NodeJS.CpuUsage | undefined;
const meter: Meter = {
  begin() {
    if (cpu !== undefined) return;
    [firstMs, cpu] = [performance.now(), process.cpuUsage()];
  },
  count(more, insertsMade = 0) {
    rows += more;
    inserts += insertsMade;
    lastMs = performance.now();
    if (parameters.endsByItself && rows >= parameters.rows) stopping.abort();
  },
};
await contender(parameters, meter, stopping.signal);
const { user, system } = process.cpuUsage(cpu);
const used: Used = {
  rows,
  inserts,
  cpuSeconds: (user + system) / 1e6,
  peakRssMb: Math.round(process.resourceUsage().maxRSS / 1024),
  seconds: (lastMs - firstMs) / 1000,
};
console.log(JSON.stringify(used));
process.exit(0);
