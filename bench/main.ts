/**
 * `npm run bench`: every contender on the same servers, the same topic, in turn; medians and ratios. The last line of the
 * output is one JSON object. `--quick`: the flights alone, in at most four minutes. `--write`: bench/RESULTS.md and the
 * chart of the README.
 */
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { command, query, withAdmin } from '../test/stack/clients.js';
import { startStack, type Stack } from '../test/stack/stack.js';
import { createTable } from '../test/support/event-producer.js';
import type { Parameters } from './contender.js';
import { measureLatency, type Latency } from './latency.js';
import { measure, measureKafkaEngine, start, type Sample } from './measure.js';
import { medians, results, type Measured } from './report.js';
import { chart } from './chart.js';
import { writeSection } from './sections.js';
import { produceWorkload, workloads, type Workload } from './workloads.js';

interface Options {
  readonly quick?: boolean;
  readonly json?: boolean;
  readonly write?: boolean;
  readonly rounds?: number;
  readonly rows?: number;
  readonly contenders?: readonly string[];
  readonly workloads?: readonly Workload['name'][];
  readonly latency?: boolean;
}

function whole(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer');
  return value;
}
const list = (text: string): readonly string[] => text.split(',');

const options = new Command('bench')
  .option('--quick', 'the flights alone, in at most four minutes')
  .option('--json', 'nothing but the JSON object')
  .option('--write', 'write bench/RESULTS.md and bench/chart.svg')
  .option('--rounds <n>', 'how often each contender has its turn', whole)
  .option('--rows <n>', 'rows of each workload', whole)
  .option('--contenders <names>', 'these only, separated by commas', list)
  .option('--workloads <names>', 'these only: flights, event244, event1k', list)
  .option('--no-latency', 'leave out the time from produced to visible')
  .parse()
  .opts<Options>();

const ours = [
  'exactly-once/keeper',
  'exactly-once/keeper-map',
  'exactly-once/kafka',
  'exactly-once/memory',
  'at-least-once',
];
const everyone = ['ceiling', ...ours, 'kafka-engine', 'naive', 'consumer-only'];
const quickly = [
  'ceiling',
  'exactly-once/keeper',
  'exactly-once/keeper-map',
  'exactly-once/kafka',
  'at-least-once',
  'kafka-engine',
  'naive',
  'consumer-only',
];

const say = (line: string): void => {
  if (options.json !== true) console.log(line);
};

async function run(stack: Stack): Promise<Measured> {
  const names = options.contenders ?? (options.quick === true ? quickly : everyone);
  const chosen =
    options.workloads ??
    (options.quick === true ? ['flights' as const] : (['flights', 'event244', 'event1k'] as const));
  const rounds = options.rounds ?? (options.quick === true ? 1 : 3);
  const samples: Measured['samples'][number][] = [];
  for (const name of chosen) {
    const rows = options.rows ?? (options.quick === true ? 1_500_000 : name === 'event1k' ? 700_000 : 2_000_000);
    const workload: Workload = { ...workloads[name], rows, partitions: 4 };
    const topic = `${name}_${randomUUID().slice(0, 6)}`;
    say(`${name}: producing ${rows} records …`);
    const bytesPerRow = (await produceWorkload(stack, topic, workload)) / rows;
    for (let round = 1; round <= rounds; round++) {
      for (const contender of names) {
        const sample = await turn(stack, contender, topic, workload);
        samples.push({ workload: name, name: contender, round, bytesPerRow, sample });
        say(
          `${name} ${round}/${rounds} ${contender}: ${Math.round(sample.rowsPerSecond)} rows/s, ${sample.cpuSecondsPerMillionRows?.toFixed(2) ?? '–'} CPU s/M, ${sample.peakRssMb ?? '–'} MB`,
        );
      }
    }
    await withAdmin(stack.brokers, (admin) => admin.deleteTopics({ topics: [topic] }));
  }
  return { machine: machine(await version(stack)), samples, latencies: await latencies(stack) };
}

async function turn(stack: Stack, contender: string, topic: string, { columns, rows }: Workload): Promise<Sample> {
  const id = randomUUID().slice(0, 8);
  const table = `bench_${id}`;
  await createTable(stack.clickhouseUrl, table, columns);
  try {
    const parameters = parametersOf(stack, { topic, table, group: `g_${id}`, rows });
    if (contender === 'kafka-engine') return await measureKafkaEngine(stack, columns, parameters);
    return await measure(stack, contender, parameters);
  } finally {
    await command(stack.clickhouseUrl, `DROP TABLE ${table} SYNC`);
  }
}

function parametersOf(
  { brokers, clickhouseUrl, keeperConnect }: Stack,
  more: Pick<Parameters, 'topic' | 'table' | 'group' | 'rows'>,
): Parameters {
  return {
    brokers,
    clickhouseUrl,
    keeperConnect,
    batchRows: 100_000,
    maxWaitMs: 1000,
    maxPending: 2,
    endsByItself: true,
    ...more,
  };
}

/** Whatever fills a table; the ceiling and the consumer alone do not. */
const steady: readonly (readonly [name: string, maxWaitMs: number | undefined])[] = [
  ...ours.map((name) => [name, 1000] as const),
  ['exactly-once/keeper', 50],
  ['naive', undefined],
  ['kafka-engine', undefined],
];

async function latencies(stack: Stack): Promise<Measured['latencies']> {
  if (options.latency === false || options.quick === true) return [];
  const found: { name: string; maxWaitMs: number | undefined; latency: Latency }[] = [];
  for (const [name, maxWaitMs] of steady) {
    const id = randomUUID().slice(0, 8);
    const [topic, table] = [`latency_${id}`, `latency_${id}`];
    const { columns } = workloads.event244;
    await withAdmin(stack.brokers, (admin) =>
      admin.createTopics({ topics: [{ topic, numPartitions: 1 }], waitForLeaders: true }),
    );
    await createTable(stack.clickhouseUrl, table, columns);
    say(`produced to visible: ${name}${maxWaitMs === undefined ? '' : `, maxWaitMs ${maxWaitMs}`} …`);
    const parameters = {
      ...parametersOf(stack, { topic, table, group: `g_${id}`, rows: Number.MAX_SAFE_INTEGER }),
      maxWaitMs: maxWaitMs ?? 1000,
      endsByItself: false,
    };
    found.push({ name, maxWaitMs, latency: await whileIngesting(stack, name, columns, parameters) });
  }
  return found;
}

async function whileIngesting(stack: Stack, name: string, columns: string, parameters: Parameters): Promise<Latency> {
  const { topic, table } = parameters;
  if (name === 'kafka-engine') {
    const ingesting = measureKafkaEngine(stack, columns, { ...parameters, rows: 20_000 * 18 });
    ingesting.catch(() => undefined);
    const latency = await measureLatency(stack, topic, table, 15);
    await ingesting.catch(() => undefined);
    return latency;
  }
  const running = start(name, parameters);
  try {
    return await measureLatency(stack, topic, table, 15);
  } finally {
    running.stop();
    await running.used;
  }
}

async function version({ clickhouseUrl }: Stack): Promise<string> {
  const [row] = await query<{ v: string }>(clickhouseUrl, 'SELECT version() AS v');
  return row?.v ?? '';
}

function machine(clickhouse: string): string {
  const [cpu] = cpus();
  return `${cpus().length} × ${cpu?.model.trim() ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.versions.node}, ClickHouse ${clickhouse}; Kafka, ClickHouse and the contender share these cores`;
}

// The servers end with this process.
const interrupt = () => process.exit(130);
process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
const stack = await startStack();
try {
  const measured = await run(stack);
  const { markdown, json } = results(measured);
  say(`\n${markdown}`);
  if (options.write === true) {
    writeSection('npm run bench', markdown);
    writeFileSync(new URL('./chart.svg', import.meta.url), chart(medians(measured)));
  }
  console.log(JSON.stringify(json));
} finally {
  await stack.stop();
}
