/**
 * `npm run bench:workers`: several processes in one group. How 1, 2 and 4 of them share a backlog; then, under a steady
 * load, workers come (1 → 4), leave with SIGTERM (4 → 2) and are killed (2 → 1), and each change is timed until every
 * partition's rows arrive again; and once more over a backlog. Then the table is compared with the topic. The last line of
 * the output is one JSON object.
 */
import { randomUUID } from 'node:crypto';
import { Command } from 'commander';
import { createTopic } from '../test/stack/clients.js';
import { startStack, type Stack } from '../test/stack/stack.js';
import { createTable, produceEvents } from '../test/support/event-producer.js';
import { exactness, untilComplete, type Exactness } from '../test/support/exactness.js';
import { Ingester, until } from '../test/support/ingester.js';
import { machine, median, whole } from './machine.js';
import {
  changeUnderBacklog,
  changeWorkers,
  stages,
  type Change,
  type Changes,
  type ChangesConfig,
  type Stage,
} from './rebalances.js';

interface Options {
  readonly json?: boolean;
  readonly rows: number;
  readonly rate: number;
  readonly repeats: number;
  readonly heartbeat?: number;
  readonly phases: readonly string[];
}

/** Workers share a backlog; they come and go under a steady load; they come and go over a backlog. */
const phases = ['share', 'steady', 'backlog'] as const;

const options = new Command('bench:workers')
  .option('--json', 'nothing but the JSON object')
  .option('--rows <n>', 'records of the backlog', whole, 1_500_000)
  .option('--rate <n>', 'records a second while workers come and go', whole, 8000)
  .option('--repeats <n>', 'how often the changes are gone through', whole, 2)
  .option('--heartbeat <ms>', 'kafka.heartbeatIntervalMs of the workers; the default otherwise', whole)
  .option<readonly string[]>(
    '--phases <names>',
    `these only, separated by commas: ${phases.join(', ')}`,
    (text) => text.split(','),
    phases,
  )
  .parse()
  .opts<Options>();

const partitions = 8;
const workerCounts = [1, 2, 4] as const;

const say = (line: string): void => {
  if (options.json !== true) console.log(line);
};

interface Shared {
  readonly workers: number;
  readonly rowsPerSecond: number;
  /** Of the rows, of each worker. */
  readonly shares: readonly number[];
  readonly cpuSecondsPerMillionRows: number | undefined;
  readonly exactness: Exactness;
}

/** A topic and a table of one name, and the configuration of workers from one into the other. */
async function place({
  brokers,
  clickhouseUrl,
  keeperConnect,
}: Stack): Promise<{ readonly name: string; readonly config: object }> {
  const name = `workers_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, name, { partitions });
  await createTable(clickhouseUrl, name);
  const heartbeat = options.heartbeat === undefined ? {} : { heartbeatIntervalMs: options.heartbeat };
  const config = {
    kafka: { brokers, groupId: name, fromBeginning: true, ...heartbeat },
    clickhouse: { url: clickhouseUrl },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
  };
  return { name, config };
}

/** So many workers, started at once, over a backlog. */
async function shareBacklog(stack: Stack, count: number): Promise<Shared> {
  const { name, config } = await place(stack);
  const acknowledged = await produceEvents({ brokers: stack.brokers, topic: name, partitions, records: options.rows });
  const workers = Array.from({ length: count }, (_, i) => new Ingester(config, `worker ${i + 1}`));
  const isAssigned = (worker: Ingester): boolean => worker.count('assigned') > 0;
  await until('every worker had partitions', workers, () => workers.every(isAssigned));
  const cpuBefore = workers.map((worker) => worker.cpuSeconds() ?? NaN);
  await until(
    'the backlog was done',
    workers,
    () => workers.reduce((sum, { rows }) => sum + rows, 0) >= options.rows,
    300_000,
  );
  const cpuSeconds = workers.reduce((sum, worker, i) => sum + (worker.cpuSeconds() ?? NaN) - cpuBefore[i]!, 0);
  const times = (msg: string): number[] =>
    workers.flatMap(({ lines }) => lines.filter((line) => line.msg === msg).map(({ atMs }) => atMs));
  const seconds = (Math.max(...times('delivered')) - Math.min(...times('assigned'))) / 1000;
  await Promise.all(workers.map((worker) => worker.drain()));
  const shared: Shared = {
    workers: count,
    rowsPerSecond: Math.round(options.rows / seconds),
    shares: workers.map(({ rows }) => Math.round((rows / options.rows) * 1000) / 1000),
    cpuSecondsPerMillionRows: Number.isNaN(cpuSeconds)
      ? undefined
      : Math.round((cpuSeconds / options.rows) * 1e8) / 100,
    exactness: await exactness(stack.brokers, stack.clickhouseUrl, name, { acknowledged }),
  };
  say(`${count} workers: ${JSON.stringify(shared)}`);
  return shared;
}

interface ChangeMedians {
  readonly change: string;
  readonly times: number;
  /** From the change to the first rows of the last partition. */
  readonly totalMs: number;
  /** Its parts, in their order. */
  readonly partsMs: Partial<Record<Stage, number>>;
  readonly longestPauseMs: number;
  readonly medianPauseMs: number;
  readonly generations: number;
}

function medians(changes: readonly Change[]): ChangeMedians[] {
  return [...new Set(changes.map(({ change }) => change))].map((name) => {
    const same = changes.filter(({ change }) => change === name);
    const of = (value: (change: Change) => number | undefined): number =>
      Math.round(median(same.map(value).filter((each) => each !== undefined)));
    return {
      change: name,
      times: same.length,
      totalMs: of(({ totalMs }) => totalMs),
      partsMs: Object.fromEntries(
        stages
          .filter((stage) => same.some(({ partsMs }) => partsMs[stage] !== undefined))
          .map((stage) => [stage, of(({ partsMs }) => partsMs[stage])]),
      ),
      longestPauseMs: of(({ pausesMs }) => Math.max(...pausesMs)),
      medianPauseMs: of(({ pausesMs }) => median(pausesMs)),
      generations: of(({ generations }) => generations),
    };
  });
}

interface Judged {
  readonly changes: readonly ChangeMedians[];
  readonly exactness: Exactness;
}

async function judged(stack: Stack, go: (given: ChangesConfig) => Promise<Changes>): Promise<Judged> {
  const { name, config } = await place(stack);
  const { changes, acknowledged } = await go({ brokers: stack.brokers, topic: name, partitions, config, say });
  await untilComplete(stack.brokers, stack.clickhouseUrl, name, 60_000);
  return {
    changes: medians(changes),
    exactness: await exactness(stack.brokers, stack.clickhouseUrl, name, { acknowledged }),
  };
}

const has = (phase: (typeof phases)[number]): boolean => options.phases.includes(phase);
// The servers end with this process.
const interrupt = () => process.exit(130);
process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
// The delay is Kafka's default: workers that are started together join one generation of an empty group.
const initialRebalanceDelayMs = 3000;
const stack = await startStack({
  kafka: { properties: { 'group.initial.rebalance.delay.ms': String(initialRebalanceDelayMs) } },
});
try {
  const backlog: Shared[] = [];
  if (has('share')) for (const count of workerCounts) backlog.push(await shareBacklog(stack, count));
  const none: Judged = { changes: [], exactness: { produced: 0, missing: 0, doubled: 0, differences: [] } };
  const steady = has('steady') ? await judged(stack, (given) => changeWorkers(given, options)) : none;
  const underBacklog = has('backlog')
    ? await judged(stack, (given) => changeUnderBacklog(given, { records: 3 * options.rows, rate: options.rate }))
    : none;
  const runs = [...backlog.map((shared) => shared.exactness), steady.exactness, underBacklog.exactness];
  const sum = (of: (each: Exactness) => number): number => runs.reduce((total, each) => total + of(each), 0);
  const oracle = {
    produced: sum(({ produced }) => produced),
    missing: sum(({ missing }) => missing),
    doubled: sum(({ doubled }) => doubled),
    differences: runs.flatMap(({ differences }) => differences),
  };
  console.log(
    JSON.stringify({
      machine: await machine(stack),
      partitions,
      initialRebalanceDelayMs,
      rows: options.rows,
      rate: options.rate,
      heartbeatIntervalMs: options.heartbeat ?? 'default',
      backlog,
      changes: steady.changes,
      changesUnderBacklog: underBacklog.changes,
      oracle,
    }),
  );
  if (oracle.differences.length > 0) process.exitCode = 1;
} finally {
  await stack.stop();
}
