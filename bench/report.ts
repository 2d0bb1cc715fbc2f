/**
 * Samples become medians, ratios and a page. Pure.
 */
import type { Latency } from './latency.js';
import type { Sample } from './measure.js';

export interface Measured {
  readonly machine: string;
  readonly samples: readonly {
    readonly workload: string;
    readonly name: string;
    readonly round: number;
    readonly bytesPerRow: number;
    readonly sample: Sample;
  }[];
  readonly latencies: readonly {
    readonly name: string;
    readonly maxWaitMs: number | undefined;
    readonly latency: Latency;
  }[];
}

export interface Line {
  readonly workload: string;
  readonly name: string;
  readonly rounds: number;
  readonly rowsPerSecond: number;
  readonly megabytesPerSecond: number;
  readonly cpuSecondsPerMillionRows: number | undefined;
  readonly serverCpuSecondsPerMillionRows: number | undefined;
  readonly peakRssMb: number | undefined;
  readonly inserts: number;
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? NaN;
const known = (values: readonly (number | undefined)[]): number | undefined => {
  const numbers = values.filter((value) => value !== undefined);
  return numbers.length === 0 ? undefined : median(numbers);
};

/** One line for each workload and contender. */
export function medians({ samples }: Measured): Line[] {
  const groups = new Map<string, Measured['samples'][number][]>();
  for (const each of samples) {
    const key = `${each.workload} ${each.name}`;
    groups.set(key, [...(groups.get(key) ?? []), each]);
  }
  return [...groups.values()].map((group): Line => {
    const [{ workload, name, bytesPerRow }] = group as [Measured['samples'][number]];
    const rowsPerSecond = median(group.map(({ sample }) => sample.rowsPerSecond));
    return {
      workload,
      name,
      rounds: group.length,
      rowsPerSecond: Math.round(rowsPerSecond),
      megabytesPerSecond: Math.round((rowsPerSecond * bytesPerRow) / 1e6),
      cpuSecondsPerMillionRows: known(group.map(({ sample }) => sample.cpuSecondsPerMillionRows)),
      serverCpuSecondsPerMillionRows: known(group.map(({ sample }) => sample.serverCpuSecondsPerMillionRows)),
      peakRssMb: known(group.map(({ sample }) => sample.peakRssMb)),
      inserts: median(group.map(({ sample }) => sample.inserts)),
    };
  });
}

const ratios = [
  ['exactly-once ÷ ceiling', 'exactly-once/keeper', 'ceiling'],
  ['exactly-once ÷ at-least-once', 'exactly-once/keeper', 'at-least-once'],
  ['exactly-once ÷ Kafka table engine', 'exactly-once/keeper', 'kafka-engine'],
  ['exactly-once ÷ naive Node', 'exactly-once/keeper', 'naive'],
] as const;

export interface Quotient {
  readonly workload: string;
  readonly what: string;
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/** Contenders of one round follow one another: what else the machine did weighs on them alike. */
function quotientsOf({ samples }: Measured, workload: string): Quotient[] {
  const rate = (name: string, round: number) =>
    samples.find((each) => each.workload === workload && each.name === name && each.round === round)?.sample
      .rowsPerSecond;
  const rounds = [...new Set(samples.filter((each) => each.workload === workload).map(({ round }) => round))];
  return ratios.flatMap(([what, a, b]) => {
    const values = rounds.flatMap((round) => {
      const [x, y] = [rate(a, round), rate(b, round)];
      return x === undefined || y === undefined ? [] : [x / y];
    });
    return values.length === 0
      ? []
      : [{ workload, what, median: median(values), least: Math.min(...values), most: Math.max(...values) }];
  });
}

export function results(measured: Measured): { readonly markdown: string; readonly json: object } {
  const lines = medians(measured);
  const names = [...new Set(lines.map(({ workload }) => workload))];
  const fixed = (value: number | undefined): string => (value === undefined ? '–' : value.toFixed(2));
  const tables = names.map((workload) => {
    const rows = lines
      .filter((line) => line.workload === workload)
      .map(
        (line) =>
          `| ${line.name} | ${line.rowsPerSecond.toLocaleString('en')} | ${line.megabytesPerSecond} | ${fixed(line.cpuSecondsPerMillionRows)} | ${fixed(line.serverCpuSecondsPerMillionRows)} | ${line.peakRssMb ?? '–'} | ${line.inserts} |`,
      );
    const head = `### ${workload}\n\n| contender | rows/s | MB/s | CPU s per million rows, ours | ClickHouse's | peak RSS, MB | inserts |\n| --- | --- | --- | --- | --- | --- | --- |`;
    const quotients = quotientsOf(measured, workload).map(
      ({ what, median: middle, least, most }) =>
        `- ${what}: **${middle.toFixed(2)}** (${least.toFixed(2)} to ${most.toFixed(2)})`,
    );
    return `${head}\n${rows.join('\n')}\n\nRatios within a round, their median and range:\n\n${quotients.join('\n')}`;
  });
  const rounds = Math.max(...lines.map((line) => line.rounds));
  const latency =
    measured.latencies.length === 0
      ? ''
      : `\n### From produced to visible, 20,000 rows/s of 244 bytes\n\n| contender | p50, ms | p95, ms | p99, ms |\n| --- | --- | --- | --- |\n${measured.latencies
          .map(
            ({ name, maxWaitMs, latency: { p50Ms, p95Ms, p99Ms } }) =>
              `| ${name}${maxWaitMs === undefined ? '' : `, maxWaitMs ${maxWaitMs}`} | ${p50Ms} | ${p95Ms} | ${p99Ms} |`,
          )
          .join('\n')}\n`;
  const markdown = `Machine: ${measured.machine}. Medians of ${rounds} rounds, contenders in turn, one run of \`npm run bench -- --write\`. Rates are\nmeasured from outside, by looking at the table while it fills. ClickPipes, the Connect sink and other connectors are\nabsent: they do not run here, and are not estimated.\n\n${tables.join('\n\n')}\n${latency}`;
  const contenders = lines
    .filter(({ workload }) => workload === (names.includes('event244') ? 'event244' : names[0]))
    .map(({ name, rowsPerSecond, cpuSecondsPerMillionRows, peakRssMb }) => ({
      name,
      rowsPerSecond,
      cpuSecondsPerMillionRows,
      peakRssMb,
    }));
  return {
    markdown,
    json: {
      machine: measured.machine,
      contenders,
      ratios: names.flatMap((name) => quotientsOf(measured, name)),
      lines,
      latencies: measured.latencies,
    },
  };
}
