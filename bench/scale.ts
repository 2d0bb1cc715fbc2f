/**
 * `npm run bench:scale`: thousands of partitions in one process, on a real broker: does the event loop stand still, is a
 * heartbeat late, does the group rebalance though nothing changed, and how many requests do the commits take? The sink
 * answers at once and the state is kept in memory: what is measured is the group, not ClickHouse.
 *
 * One run of half the partitions as single-partition topics, one of all of them in few topics.
 */
import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { Partitioners } from 'kafkajs';
import { of } from 'rxjs';
import { exactlyOnce } from '../src/pipeline/exactly-once.js';
import { fairScheduler } from '../src/pipeline/fair-scheduler.js';
import { kafkaSource } from '../src/kafka/source.js';
import type { PreparingSink, InsertBatch } from '../src/ports.js';
import { memoryStore } from '../src/state/memory.js';
import { kafkaClient, withAdmin } from '../test/stack/clients.js';
import { startStack } from '../test/stack/stack.js';
import { whole } from './machine.js';

const HEARTBEAT_MS = 1000;
/** The event loop's own resolution, and what a busy machine of two cores does to a timer. */
const LATE_MS = 500;
/** Partitions in one request: a controller takes 10,000 records at once. */
const AT_ONCE = 2000;
const READY_LIMIT_MS = 120_000;
/** What is not read by then is not waited for. */
const READ_LIMIT_MS = 60_000;

interface Scale {
  readonly name: string;
  readonly topics: number;
  readonly partitionsEach: number;
}

interface Measured {
  readonly name: string;
  readonly topics: number;
  readonly partitions: number;
  /** From the start of the program's part until the last partition was assigned. */
  readonly assignedMs: number;
  readonly longestPauseMs: number;
  /** The most processor time between two looks, five milliseconds apart when nothing holds them up: a pause without what others take. */
  readonly longestTurnCpuMs: number;
  readonly heartbeats: number;
  readonly heartbeatsLate: number;
  readonly longestBetweenHeartbeatsMs: number;
  readonly joins: number;
  readonly rebalances: number;
  readonly batches: number;
  readonly seconds: number;
  readonly commitsPerSecond: number;
  readonly commitRequests: number;
  readonly commitsPerRequest: number;
}

const JOIN_GROUP = 11;
const HEARTBEAT = 12;
const OFFSET_COMMIT = 8;

/** Notes each request that leaves this process, by its API key, as kafkajs hands it to the socket. */
class Requests {
  readonly atMs = new Map<number, number[]>();

  constructor() {
    const note = (data: unknown) => {
      if (!Buffer.isBuffer(data) || data.length < 8) return;
      const key = data.readInt16BE(4);
      const list = this.atMs.get(key) ?? [];
      list.push(performance.now());
      this.atMs.set(key, list);
    };
    const write = Reflect.get(Socket.prototype, 'write') as (...args: unknown[]) => boolean;
    const noting = function (this: Socket, ...args: unknown[]): boolean {
      note(args[0]);
      return write.apply(this, args);
    };
    Object.defineProperty(Socket.prototype, 'write', { value: noting, writable: true, configurable: true });
  }

  of(key: number): readonly number[] {
    return this.atMs.get(key) ?? [];
  }

  end(): void {
    // It was a stream's own.
    Reflect.deleteProperty(Socket.prototype, 'write');
  }
}

const sink: PreparingSink = {
  prepare: (batch: InsertBatch) => ({
    insert: () => of({ rows: batch.records.length, bytes: batch.bytes }),
    tokenDoubt: () => undefined,
    readBackWhenInDoubt: false,
    readBack: () => of({ missing: [], doubled: [] }),
    insertMissing: () => of({ rows: 0, bytes: 0 }),
    fill: () => of({ rows: 0, bytes: 0 }),
    release: () => undefined,
  }),
  describe: () => ({ tables: ['nowhere'], settings: '' }),
  close: async () => undefined,
};

async function create(brokers: readonly string[], names: readonly string[], partitions: number): Promise<void> {
  await withAdmin(brokers, async (admin) => {
    const step = Math.ceil(AT_ONCE / partitions);
    for (let first = 0; first < names.length; first += step) {
      const topics = names
        .slice(first, first + step)
        .map((topic) => ({ topic, numPartitions: partitions, replicationFactor: 1 }));
      await admin.createTopics({ topics, waitForLeaders: false, timeout: 120_000 });
    }
    // A broker with little of the processor opens thousands of logs late.
    const last = names.at(-1) as string;
    for (const endMs = performance.now() + READY_LIMIT_MS; performance.now() < endMs; await sleep(500)) {
      const isLed = await admin.fetchTopicOffsets(last).then(
        (offsets) => offsets.length === partitions,
        () => false,
      );
      if (isLed) return;
    }
    throw new Error(`the topics are not ready after ${READY_LIMIT_MS / 1000} s`);
  });
}

/** One record into each partition, through a producer that knows nothing of the topics yet. */
async function fill(brokers: readonly string[], names: readonly string[], partitions: number): Promise<void> {
  const producer = kafkaClient(brokers, { requestTimeout: 120_000 }).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  try {
    const step = Math.ceil(AT_ONCE / partitions);
    for (let first = 0; first < names.length; first += step) {
      const topicMessages = names.slice(first, first + step).map((topic) => ({
        topic,
        messages: Array.from({ length: partitions }, (_, partition) => ({ partition, value: '{}' })),
      }));
      await producer.sendBatch({ topicMessages });
    }
  } finally {
    await producer.disconnect();
  }
}

async function measure(
  brokers: readonly string[],
  { name, topics, partitionsEach }: Scale,
  seconds: number,
): Promise<Measured> {
  const prefix = `scale-${randomUUID().slice(0, 8)}`;
  const names = Array.from({ length: topics }, (_, i) => `${prefix}-${i}`);
  const partitions = topics * partitionsEach;
  await create(brokers, names, partitionsEach);
  await fillElsewhere({ brokers, names, partitions: partitionsEach });
  const requests = new Requests();
  const delay = monitorEventLoopDelay({ resolution: 5 });
  const source = kafkaSource({
    brokers,
    groupId: prefix,
    topics: names,
    fromBeginning: true,
    heartbeatIntervalMs: HEARTBEAT_MS,
    log: tell,
  });
  let [assigned, batches, rebalances] = [0, 0, 0];
  let assignedMs = 0;
  const startMs = performance.now();
  delay.enable();
  const longestTurn = watchTurns();
  const config = {
    group: prefix,
    owner: 'scale',
    batch: { count: 1000, maxWaitMs: 1000 },
    onEvent: ({ kind }: { readonly kind: string }) => {
      if (kind === 'assigned' && ++assigned === partitions) assignedMs = performance.now() - startMs;
      if (kind === 'revoked' || kind === 'lost') rebalances += 1;
    },
  } as const;
  const running = new Promise<void>((resolve, reject) => {
    exactlyOnce(source, sink, memoryStore(), { ...config, scheduler: fairScheduler() }).subscribe({
      next: (outcome) => (outcome.kind === 'halted' ? reject(outcome.error) : (batches += 1)),
      error: reject,
      complete: resolve,
    });
  });
  const untilRead = (async () => {
    for (const endMs = performance.now() + READ_LIMIT_MS; batches < partitions && performance.now() < endMs;)
      await sleep(100);
    // Records go on coming while it is measured, from another process: a producer has pauses of its own.
    const producing = fillElsewhere({ brokers, names, partitions: partitionsEach });
    await sleep(seconds * 1000);
    await producing;
  })();
  await Promise.race([untilRead, running]);
  const measuredMs = performance.now() - startMs;
  delay.disable();
  const longestTurnCpuMs = longestTurn();
  // Those of the drain are wanted by us, and not counted.
  const disturbed = rebalances;
  const beats = requests.of(HEARTBEAT);
  const gaps = beats.slice(1).map((atMs, i) => atMs - beats[i]!);
  const joins = requests.of(JOIN_GROUP).length;
  const commitRequests = requests.of(OFFSET_COMMIT).length;
  const committed = batches;
  source.drain();
  await running;
  requests.end();
  return {
    name,
    topics,
    partitions,
    assignedMs: Math.round(assignedMs),
    longestPauseMs: Math.round(delay.max / 1e6),
    longestTurnCpuMs,
    heartbeats: beats.length,
    heartbeatsLate: gaps.filter((gap) => gap > HEARTBEAT_MS + LATE_MS).length,
    longestBetweenHeartbeatsMs: Math.round(Math.max(0, ...gaps)),
    joins,
    rebalances: disturbed,
    batches: committed,
    seconds: Math.round(measuredMs / 1000),
    commitsPerSecond: Math.round((committed / measuredMs) * 1000),
    commitRequests,
    commitsPerRequest: Math.round(committed / Math.max(1, commitRequests)),
  };
}

/** Garbage collection on other threads counts too. */
function watchTurns(): () => number {
  let longestUs = 0;
  let before = process.cpuUsage();
  const looking = setInterval(() => {
    const now = process.cpuUsage();
    longestUs = Math.max(longestUs, now.user + now.system - before.user - before.system);
    before = now;
  }, 5);
  return () => {
    clearInterval(looking);
    return Math.round(longestUs / 1000);
  };
}

interface Filling {
  readonly brokers: readonly string[];
  readonly names: readonly string[];
  readonly partitions: number;
}

async function fillElsewhere(filling: Filling): Promise<void> {
  const producer = fork(fileURLToPath(import.meta.url), {
    execArgv: ['--import', 'tsx'],
    env: { ...process.env, SCALE_FILL: 'yes' },
  });
  producer.send(filling);
  await once(producer, 'exit');
}

function tell(level: string, message: string, fields: Readonly<Record<string, unknown>>): void {
  if (level === 'warn' || level === 'error') console.error(level, message, JSON.stringify(fields).slice(0, 300));
}

async function main(): Promise<void> {
  const options = new Command()
    .option('--partitions <n>', 'in one process', whole, 10_000)
    .option('--topics <n>', 'single-partition topics of the first run', whole, 2000)
    .option('--seconds <n>', 'of each run, once everything is read', whole, 20)
    .option('--json', 'one line of JSON a run')
    .parse()
    .opts<{ partitions: number; topics: number; seconds: number; json?: true }>();

  const stack = await startStack({
    keeper: false,
    clickhouse: false,
    useEnvironment: false,
    kafka: { heapMb: 1536, properties: { 'broker.session.timeout.ms': '30000' } },
  });
  try {
    const runs: readonly Scale[] = [
      { name: 'many topics', topics: options.topics, partitionsEach: 1 },
      { name: 'many partitions', topics: 10, partitionsEach: Math.ceil(options.partitions / 10) },
    ];
    for (const run of runs) {
      const measured = await measure(stack.brokers, run, options.seconds);
      if (options.json === true) console.log(JSON.stringify(measured));
      else console.table(measured);
    }
  } finally {
    await stack.stop();
  }
}

if (process.env['SCALE_FILL'] === undefined) await main();
else {
  const [filling] = (await once(process, 'message')) as [Filling];
  await fill(filling.brokers, filling.names, filling.partitions);
  process.disconnect();
}
