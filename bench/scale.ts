/**
 * `npm run bench:scale`: thousands of partitions in one process, on a real broker: does the event loop stand still, is a
 * heartbeat late, does the group rebalance though nothing changed, and how many requests do the commits take? The sink
 * answers at once and the state is kept in memory: what is measured is the group, not ClickHouse.
 *
 * One run of many single-partition topics, one of many partitions in few topics; with `--processes` one of so many
 * processes in a group instead.
 */
import { randomUUID } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { startStack } from '../test/stack/stack.js';
import { whole } from './machine.js';
import { measureMembers } from './scale-members.js';
import { run, type Counts } from './scale-pipeline.js';
import { API, judgeHeartbeats, Requests, watchTurns, type Heartbeats } from './scale-requests.js';
import { create, fillElsewhere } from './scale-topics.js';

/** What is not read by then is not waited for. */
const READ_LIMIT_MS = 60_000;

interface Scale {
  readonly name: string;
  readonly topics: number;
  readonly partitionsEach: number;
}

interface Measured extends Heartbeats {
  readonly name: string;
  readonly topics: number;
  readonly partitions: number;
  /** From the start of the program's part until the last partition was assigned. */
  readonly assignedMs: number;
  readonly longestPauseMs: number;
  /**
   * The most processor time of the event loop's thread between two looks, five milliseconds apart when nothing holds
   * them up: a pause without what others take.
   */
  readonly longestTurnCpuMs: number;
  readonly joins: number;
  readonly rebalances: number;
  readonly batches: number;
  readonly seconds: number;
  readonly commitsPerSecond: number;
  readonly commitRequests: number;
  readonly commitsPerRequest: number;
  readonly fetchRequests: number;
  readonly bytesPerFetchRequest: number;
  readonly largestFetchRequestBytes: number;
  /** Of the whole process, user and system, from the start to the end of the measurement. */
  readonly cpuMs: number;
}

async function measure(
  brokers: readonly string[],
  { name, topics, partitionsEach }: Scale,
  seconds: number,
): Promise<Measured> {
  const group = `scale-${randomUUID().slice(0, 8)}`;
  const names = Array.from({ length: topics }, (_, i) => `${group}-${i}`);
  const partitions = topics * partitionsEach;
  const filling = { brokers, names, partitions: partitionsEach };
  await create(brokers, names, partitionsEach);
  await fillElsewhere(filling);
  const requests = new Requests();
  const delay = monitorEventLoopDelay({ resolution: 5 });
  const startMs = performance.now();
  const cpuBefore = process.cpuUsage();
  delay.enable();
  const longestTurn = watchTurns();
  let assignedMs = 0;
  const { source, counts, ended } = run({ brokers, group, owner: 'scale', topics: names }, () => {
    if (counts.assigned === partitions) assignedMs = performance.now() - startMs;
  });
  await Promise.race([readAll(counts, partitions), ended]);
  // Records go on coming while it is measured.
  const producing = fillElsewhere(filling);
  await Promise.race([sleep(seconds * 1000), ended]);
  await producing;
  const measuredMs = performance.now() - startMs;
  delay.disable();
  const longestTurnCpuMs = longestTurn();
  const cpu = process.cpuUsage(cpuBefore);
  // Those of the drain are wanted by us, and not counted.
  const { rebalanced: rebalances, batches } = counts;
  const fetches = [...requests.sizesOf(API.fetch)];
  const joins = requests.of(API.joinGroup).length;
  const commitRequests = requests.of(API.offsetCommit).length;
  const heartbeats = judgeHeartbeats(requests.of(API.heartbeat));
  source.drain();
  await ended;
  requests.end();
  return {
    name,
    topics,
    partitions,
    assignedMs: Math.round(assignedMs),
    longestPauseMs: Math.round(delay.max / 1e6),
    longestTurnCpuMs,
    ...heartbeats,
    joins,
    rebalances,
    batches,
    seconds: Math.round(measuredMs / 1000),
    commitsPerSecond: Math.round((batches / measuredMs) * 1000),
    commitRequests,
    commitsPerRequest: Math.round(batches / Math.max(1, commitRequests)),
    fetchRequests: fetches.length,
    bytesPerFetchRequest: Math.round(fetches.reduce((sum, size) => sum + size, 0) / Math.max(1, fetches.length)),
    largestFetchRequestBytes: fetches.reduce((most, size) => Math.max(most, size), 0),
    cpuMs: Math.round((cpu.user + cpu.system) / 1000),
  };
}

async function readAll(counts: Counts, partitions: number): Promise<void> {
  const endMs = performance.now() + READ_LIMIT_MS;
  while (counts.batches < partitions && performance.now() < endMs) await sleep(100);
}

async function main(): Promise<void> {
  const options = new Command()
    .option('--partitions <n>', 'in one process', whole, 10_000)
    .option('--topics <n>', 'single-partition topics of the first run', whole, 2000)
    .option('--processes <n>', 'in one group, instead of the two runs', whole)
    .option('--seconds <n>', 'of each run, once everything is read', whole, 20)
    .option('--json', 'one line of JSON a run')
    .parse()
    .opts<{ partitions: number; topics: number; processes?: number; seconds: number; json?: true }>();

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
    const show = (measured: object): void =>
      options.json === true ? console.log(JSON.stringify(measured)) : console.table(measured);
    if (options.processes !== undefined) show(await measureMembers(stack.brokers, options.processes, options.seconds));
    else for (const each of runs) show(await measure(stack.brokers, each, options.seconds));
  } finally {
    await stack.stop();
  }
}

await main();
