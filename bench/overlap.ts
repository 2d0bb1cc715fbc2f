/**
 * `npm run bench:overlap`: what it brings that a batch is fetched, encoded and its intent stored while the last one is
 * being inserted (`maxPending`), and that inserts of different partitions run side by side (`maxInFlight`). With one
 * partition and with eight; with ClickHouse on the same machine, where the processor is what is waited for, and behind a
 * proxy that answers as late as a network would, where latency is. Variants in turn, medians and ratios. The last line of
 * the output is one JSON object.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { command, createTopic } from '../test/stack/clients.js';
import { startStack, type Stack } from '../test/stack/stack.js';
import { createTable, produceEvents } from '../test/support/event-producer.js';
import { exactness } from '../test/support/exactness.js';
import { Ingester, until } from '../test/support/ingester.js';
import { TcpProxy } from '../test/support/tcp-proxy.js';
import { machine, median, watchProcessors, whole, type Busy } from './machine.js';

interface Options {
  readonly json?: boolean;
  readonly rows: number;
  readonly rounds: number;
  readonly latency: number;
  readonly batch: number;
  readonly only: string;
  readonly tries: number;
  readonly calm: number;
}

const options = new Command('bench:overlap')
  .option('--json', 'nothing but the JSON object')
  .option('--rows <n>', 'records of each run', whole, 800_000)
  .option('--rounds <n>', 'how often each variant has its turn', whole, 3)
  .option('--latency <ms>', 'from a request to its answer, more than the server takes', whole, 30)
  .option('--batch <n>', 'records of a batch', whole, 10_000)
  .option('--only <text>', 'just the variants whose names have this in them', '')
  .option('--tries <n>', 'so often a run is made again that something else on the machine disturbed', whole, 3)
  .option(
    '--calm <s>',
    'so long is waited before a run, at most, until nothing else keeps the processors busy',
    whole,
    10,
  )
  .parse()
  .opts<Options>();

/** Of the processors, kept busy by something else: beyond it a run says little. */
const mostDisturbed = 0.15;

const say = (line: string): void => {
  if (options.json !== true) console.log(line);
};

interface Variant {
  readonly partitions: number;
  readonly maxPending: number;
  /** The default when absent. */
  readonly maxInFlight?: number;
}

const variants: readonly Variant[] = [
  ...[1, 2, 3].map((maxPending): Variant => ({ partitions: 1, maxPending })),
  ...[1, 2, 3].map((maxPending): Variant => ({ partitions: 8, maxPending })),
  { partitions: 8, maxPending: 2, maxInFlight: 1 },
];

const nameOf = ({ partitions, maxPending, maxInFlight }: Variant): string =>
  `${partitions} partition${partitions === 1 ? '' : 's'}, maxPending ${maxPending}${maxInFlight === undefined ? '' : `, maxInFlight ${maxInFlight}`}`;

interface Sample {
  readonly variant: string;
  readonly latencyMs: number;
  readonly rowsPerSecond: number;
  readonly cpuSecondsPerMillionRows: number | undefined;
  readonly busy: Busy | undefined;
}

async function run(
  stack: Stack,
  topic: string,
  clickhouseUrl: string,
  variant: Variant,
  latencyMs: number,
): Promise<Sample> {
  const { partitions: _, maxPending, maxInFlight } = variant;
  const id = `overlap_${randomUUID().slice(0, 8)}`;
  await createTable(stack.clickhouseUrl, id);
  const ingester = new Ingester({
    kafka: { brokers: stack.brokers, groupId: id, fromBeginning: true },
    clickhouse: { url: clickhouseUrl, ...(maxInFlight === undefined ? {} : { maxInFlight }) },
    state: { store: 'keeper', connect: stack.keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic, table: id }],
    batch: { count: options.batch },
    maxPending,
  });
  await until('it had partitions', [ingester], () => ingester.count('assigned') > 0);
  const cpuBefore = ingester.cpuSeconds();
  const busy = watchProcessors([
    process.pid,
    ingester.pid,
    stack.kafka?.pid,
    stack.zookeeper?.pid,
    stack.clickhouse?.pid,
  ]);
  await until('all was delivered', [ingester], () => ingester.rows >= options.rows, 180_000);
  const [cpuAfter, busyShares] = [ingester.cpuSeconds(), busy()];
  const beganMs = ingester.lines.find(({ msg }) => msg === 'assigned')!.atMs;
  const endedMs = ingester.lines.findLast(({ msg }) => msg === 'delivered')!.atMs;
  await ingester.drain();
  const { missing, doubled } = await exactness(stack.brokers, stack.clickhouseUrl, topic, { table: id });
  if (missing + doubled > 0) throw new Error(`${nameOf(variant)}: ${missing} missing, ${doubled} doubled`);
  await command(stack.clickhouseUrl, `DROP TABLE ${id} SYNC`);
  return {
    variant: nameOf(variant),
    latencyMs,
    rowsPerSecond: Math.round(options.rows / ((endedMs - beganMs) / 1000)),
    cpuSecondsPerMillionRows:
      cpuBefore === undefined || cpuAfter === undefined ? undefined : ((cpuAfter - cpuBefore) / options.rows) * 1e6,
    busy: busyShares,
  };
}

async function calm(): Promise<void> {
  for (let waited = 0; waited < options.calm; waited++) {
    const busy = watchProcessors([]);
    await sleep(1000);
    if ((busy()?.others ?? 0) < 2 * mostDisturbed) return;
  }
}

/** The least disturbed of some tries. */
async function undisturbed(attempt: () => Promise<Sample>): Promise<Sample> {
  const others = ({ busy }: Sample): number => busy?.others ?? 0;
  await calm();
  let best = await attempt();
  for (let tries = 1; tries < options.tries && others(best) > mostDisturbed; tries++) {
    await calm();
    const next = await attempt();
    if (others(next) < others(best)) best = next;
  }
  return best;
}

interface Line {
  readonly variant: string;
  readonly latencyMs: number;
  readonly rowsPerSecond: number;
  readonly rounds: readonly number[];
  readonly cpuSecondsPerMillionRows: number;
  /** Of the processors, by whomever, and by what has nothing to do with the benchmark. */
  readonly busyShare: number;
  readonly othersShare: number;
}

function medians(samples: readonly Sample[]): Line[] {
  const keys = [...new Set(samples.map(({ variant, latencyMs }) => JSON.stringify([variant, latencyMs])))];
  const hundredths = (values: readonly (number | undefined)[]): number =>
    Math.round(median(values.filter((value) => value !== undefined)) * 100) / 100;
  return keys.map((key) => {
    const [variant, latencyMs] = JSON.parse(key) as [string, number];
    const same = samples.filter((sample) => sample.variant === variant && sample.latencyMs === latencyMs);
    const rounds = same.map(({ rowsPerSecond }) => rowsPerSecond);
    return {
      variant,
      latencyMs,
      rowsPerSecond: median(rounds),
      rounds,
      cpuSecondsPerMillionRows: hundredths(same.map((sample) => sample.cpuSecondsPerMillionRows)),
      busyShare: hundredths(same.map(({ busy }) => busy?.all)),
      othersShare: hundredths(same.map(({ busy }) => busy?.others)),
    };
  });
}

/**
 * What each variant brings beside the one that it is to be compared with: medians of the ratios of each round, whose runs
 * were under much the same load.
 */
function ratios(lines: readonly Line[]): Record<string, number> {
  const rounds = (variant: Variant, latencyMs: number): readonly number[] =>
    lines.find((line) => line.variant === nameOf(variant) && line.latencyMs === latencyMs)?.rounds ?? [];
  const found: Record<string, number> = {};
  for (const latencyMs of [0, options.latency]) {
    const where = latencyMs === 0 ? 'same machine' : `${latencyMs} ms away`;
    const compare = (what: string, variant: Variant, beside: Variant): void => {
      const below = rounds(beside, latencyMs);
      if (below.length > 0)
        found[`${where}: ${what}`] =
          Math.round(median(rounds(variant, latencyMs).map((rate, round) => rate / below[round]!)) * 100) / 100;
    };
    for (const partitions of [1, 8]) {
      for (const maxPending of [2, 3])
        compare(
          `${partitions} partition${partitions === 1 ? '' : 's'}, maxPending ${maxPending} ÷ 1`,
          { partitions, maxPending },
          { partitions, maxPending: 1 },
        );
    }
    compare(
      '8 partitions, maxInFlight default ÷ 1',
      { partitions: 8, maxPending: 2 },
      { partitions: 8, maxPending: 2, maxInFlight: 1 },
    );
  }
  return found;
}

async function measureAll(stack: Stack, proxy: TcpProxy): Promise<Sample[]> {
  const topics = new Map<number, string>();
  for (const partitions of new Set(variants.map((variant) => variant.partitions))) {
    const topic = `overlap_${partitions}`;
    await createTopic(stack.brokers, topic, { partitions });
    await produceEvents({ brokers: stack.brokers, topic, partitions, records: options.rows });
    topics.set(partitions, topic);
  }
  const samples: Sample[] = [];
  for (let round = 1; round <= options.rounds; round++) {
    for (const latencyMs of [0, options.latency]) {
      const url = latencyMs === 0 ? stack.clickhouseUrl : `http://${proxy.address}`;
      for (const variant of variants.filter((each) => nameOf(each).includes(options.only))) {
        const sample = await undisturbed(() => run(stack, topics.get(variant.partitions)!, url, variant, latencyMs));
        samples.push(sample);
        say(
          `${round}/${options.rounds} ${sample.variant}, ${latencyMs} ms: ${sample.rowsPerSecond} rows/s, busy ${sample.busy?.all.toFixed(2) ?? '–'}, with something else ${sample.busy?.others.toFixed(2) ?? '–'}`,
        );
      }
    }
  }
  return samples;
}

// The servers end with this process.
const interrupt = () => process.exit(130);
process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
const stack = await startStack();
const proxy = await TcpProxy.start({ to: new URL(stack.clickhouseUrl).host });
// Half of it on the way there, half of it on the way back.
proxy.delay(options.latency / 2);
try {
  const lines = medians(await measureAll(stack, proxy));
  console.log(
    JSON.stringify({
      machine: await machine(stack),
      rows: options.rows,
      batchRows: options.batch,
      latencyMs: options.latency,
      ratios: ratios(lines),
      lines,
    }),
  );
} finally {
  await proxy.stop();
  await stack.stop();
}
