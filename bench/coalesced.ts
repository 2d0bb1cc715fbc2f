/**
 * `npm run bench:coalesced`: many partitions with little traffic, 200 at 10 records a second each, into one table: parts
 * made, inserts, and the time from produced to visible, in the insert modes `direct` and `coalesced` and, as the ordinary
 * alternative, `direct` with batches that wait for longer. The last line of the output is one JSON object.
 * `--seconds N` (60), `--partitions N` (200).
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { Partitioners } from 'kafkajs';
import { ingest } from '../src/pipeline/ingest.js';
import type { IngestConfig } from '../src/config/config.js';
import { coalescingFaultHere } from '../test/stack/clickhouse.js';
import { command, createTopic, kafkaClient, query } from '../test/stack/clients.js';
import { startStack, type Stack } from '../test/stack/stack.js';
import { event } from './workloads.js';

const recordsPerSecond = 10;
const warmUpSeconds = 8;
const lookEveryMs = 50;

interface Way {
  readonly insertMode: 'direct' | 'coalesced';
  readonly maxWaitMs: number;
}

const ways: readonly Way[] = [
  { insertMode: 'direct', maxWaitMs: 1000 },
  { insertMode: 'coalesced', maxWaitMs: 1000 },
  { insertMode: 'direct', maxWaitMs: 10_000 },
];

interface Used {
  readonly inserts: number;
  readonly cpuSeconds: number;
}

/** The process that is measured: counts from a line on its standard input to the next one. */
async function ingestUntilTold(config: IngestConfig): Promise<void> {
  const draining = new AbortController();
  let begun = { inserts: 0, cpu: process.cpuUsage() };
  let inserts = 0;
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      if (line === 'begin') begun = { inserts, cpu: process.cpuUsage() };
      const { user, system } = process.cpuUsage(begun.cpu);
      if (line === 'end')
        console.log(
          JSON.stringify({ inserts: inserts - begun.inserts, cpuSeconds: (user + system) / 1e6 } satisfies Used),
        );
    })
    .on('close', () => draining.abort());
  await new Promise<void>((resolve, reject) => {
    ingest(config, { signal: draining.signal }).subscribe({
      next: (outcome) => {
        if (outcome.kind === 'halted') return reject(outcome.error);
        if (outcome.rows > 0) inserts++;
      },
      error: reject,
      complete: resolve,
    });
  });
}

interface Measured extends Way {
  readonly partsPerSecond: number;
  readonly insertsPerSecond: number;
  readonly mergesPerSecond: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
  readonly cpuSeconds: number;
  readonly serverCpuSeconds: number;
  readonly rows: number;
  /** Of them, what was not visible some time after the end: their latency is at least what was waited. */
  readonly unseen: number;
}

async function measure(stack: Stack, way: Way, partitions: number, seconds: number): Promise<Measured> {
  const { brokers, clickhouseUrl: url, keeperConnect } = stack;
  const table = `few_${way.insertMode}_${way.maxWaitMs}`;
  await createTopic(brokers, table, { partitions });
  await command(
    url,
    `CREATE TABLE ${table} (id UInt64, at UInt64, kind LowCardinality(String), url String, _topic LowCardinality(String), _partition UInt32, _offset UInt64)
     ENGINE = MergeTree ORDER BY (_partition, _offset) SETTINGS non_replicated_deduplication_window = 200000`,
  );
  const config: IngestConfig = {
    kafka: { brokers, groupId: table, fromBeginning: true },
    clickhouse: { url, insertMode: way.insertMode },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic: table, table }],
    batch: { maxWaitMs: way.maxWaitMs },
  };
  const child = spawn(process.execPath, ['--import', 'tsx', fileURLToPath(import.meta.url), JSON.stringify(config)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  process.once('exit', () => child.kill('SIGKILL'));
  const told = once(createInterface({ input: child.stdout }), 'line') as Promise<[string]>;
  const ended = once(child, 'close');
  const rows = new Rows(url, table, partitions);
  const producing = produce(brokers, table, partitions, warmUpSeconds + seconds + way.maxWaitMs / 1000, rows);
  await sleep(warmUpSeconds * 1000 + way.maxWaitMs);
  const [before, cpuBefore] = [await counts(url, table), serverCpuSeconds(stack)];
  child.stdin.write('begin\n');
  const sinceMs = performance.now();
  await sleep(seconds * 1000);
  child.stdin.write('end\n');
  const tookSeconds = (performance.now() - sinceMs) / 1000;
  const [after, cpuAfter] = [await counts(url, table), serverCpuSeconds(stack)];
  const used = JSON.parse((await told)[0]) as Used;
  await producing;
  const { latencies, unseen } = await rows.latencies(sinceMs, way.maxWaitMs + 20_000);
  // One that is far behind would take its time.
  if (unseen > 0) child.kill('SIGKILL');
  child.stdin.end();
  await ended;
  const at = (q: number): number => Math.round(latencies[Math.floor(latencies.length * q)] ?? NaN);
  const rate = (count: number): number => Math.round((count / tookSeconds) * 10) / 10;
  return {
    ...way,
    partsPerSecond: rate(after.parts - before.parts),
    insertsPerSecond: rate(used.inserts),
    mergesPerSecond: rate(after.merges - before.merges),
    p50Ms: at(0.5),
    p95Ms: at(0.95),
    p99Ms: at(0.99),
    cpuSeconds: Math.round(used.cpuSeconds * 10) / 10,
    serverCpuSeconds: Math.round((cpuAfter - cpuBefore) * 10) / 10,
    rows: latencies.length,
    unseen,
  };
}

/** When each record was produced and when it was seen: the offsets of a partition become visible in their order. */
class Rows {
  readonly #producedMs: number[][];
  readonly #visibleMs: number[][];
  readonly #looking: Promise<void>;
  #isOver = false;

  constructor(
    private readonly url: string,
    private readonly table: string,
    partitions: number,
  ) {
    this.#producedMs = Array.from({ length: partitions }, () => []);
    this.#visibleMs = Array.from({ length: partitions }, () => []);
    this.#looking = this.#look();
  }

  produced(partition: number, atMs: number): void {
    this.#producedMs[partition]!.push(atMs);
  }

  /** Of what was produced since then, in milliseconds, ascending; waits for so long until all of it is visible. */
  async latencies(
    sinceMs: number,
    limitMs: number,
  ): Promise<{ readonly latencies: readonly number[]; readonly unseen: number }> {
    const isThere = () =>
      this.#producedMs.every((list, partition) => this.#visibleMs[partition]!.length >= list.length);
    for (const endMs = performance.now() + limitMs; !isThere() && performance.now() < endMs;) await sleep(100);
    this.#isOver = true;
    await this.#looking;
    const nowMs = performance.now();
    const all = this.#producedMs.flatMap((list, partition) =>
      list.map((atMs, offset) => ({ atMs, seenMs: this.#visibleMs[partition]![offset] })),
    );
    const counted = all.filter(({ atMs }) => atMs >= sinceMs);
    const latencies = counted.map(({ atMs, seenMs = nowMs }) => seenMs - atMs).sort((a, b) => a - b);
    return { latencies, unseen: counted.filter(({ seenMs }) => seenMs === undefined).length };
  }

  async #look(): Promise<void> {
    while (!this.#isOver) {
      // A look that fails on a loaded machine is made again.
      const ends = await query<{ partition: number; last: number }>(
        this.url,
        `SELECT _partition AS partition, max(_offset) AS last FROM ${this.table} GROUP BY partition`,
      ).catch(() => []);
      const nowMs = performance.now();
      for (const { partition, last } of ends)
        while (this.#visibleMs[partition]!.length <= last) this.#visibleMs[partition]!.push(nowMs);
      await sleep(lookEveryMs);
    }
  }
}

/** Each partition at its own moment, so that their batches are not cut all at once. */
async function produce(
  brokers: readonly string[],
  topic: string,
  partitions: number,
  seconds: number,
  rows: Rows,
): Promise<void> {
  const producer = kafkaClient(brokers).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  const everyMs = 1000 / recordsPerSecond;
  const sent = Array.from({ length: partitions }, () => 0);
  const startMs = performance.now();
  let id = 0;
  for (let nowMs = startMs; nowMs < startMs + seconds * 1000; nowMs = performance.now()) {
    const messages: { value: string; partition: number }[] = [];
    for (let partition = 0; partition < partitions; partition++) {
      const beginMs = (partition * 1000) / partitions;
      const due = Math.floor((nowMs - startMs - beginMs) / everyMs);
      for (; sent[partition]! < due; sent[partition]!++) {
        messages.push({ value: event(id++, 'event244'), partition });
        rows.produced(partition, nowMs);
      }
    }
    if (messages.length > 0) await producer.send({ topic, messages, acks: -1 });
    await sleep(5);
  }
  await producer.disconnect();
}

async function counts(url: string, table: string): Promise<{ readonly parts: number; readonly merges: number }> {
  await command(url, 'SYSTEM FLUSH LOGS part_log');
  const [row] = await query<{ parts: number; merges: number }>(
    url,
    `SELECT countIf(event_type = 'NewPart') AS parts, countIf(event_type = 'MergeParts') AS merges FROM system.part_log WHERE table = '${table}' AND error = 0`,
  );
  return row ?? { parts: 0, merges: 0 };
}

function serverCpuSeconds({ clickhouse }: Stack): number {
  const fields = readFileSync(`/proc/${clickhouse?.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function main(partitions: number, seconds: number): Promise<void> {
  const fault = coalescingFaultHere();
  if (fault !== undefined) throw new Error(`inserts cannot wait for others here: ${fault}`);
  const stack = await startStack({ useEnvironment: false, clickhouse: { asyncInserts: true } });
  try {
    const measured: Measured[] = [];
    for (const way of ways) {
      measured.push(await measure(stack, way, partitions, seconds));
      console.log(JSON.stringify(measured.at(-1)));
    }
    console.log(
      JSON.stringify({
        partitions,
        recordsPerSecond,
        seconds,
        loadAverage: Math.round(loadavg()[1]! * 10) / 10,
        cpus: cpus().length,
        measured,
      }),
    );
  } finally {
    await stack.stop();
  }
}

const config = process.argv[2]?.startsWith('{') === true ? (JSON.parse(process.argv[2]) as IngestConfig) : undefined;
if (config !== undefined) await ingestUntilTold(config);
else {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean' },
      partitions: { type: 'string', default: '200' },
      seconds: { type: 'string', default: '60' },
    },
  });
  await main(Number(values.partitions), Number(values.seconds));
}
process.exit();
