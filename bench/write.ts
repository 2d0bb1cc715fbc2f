/**
 * Turns the last line that a benchmark printed into its section of bench/RESULTS.md:
 * `npm run bench:outage -- --json | npm run bench:write -- outage`.
 */
import { text } from 'node:stream/consumers';
import { writeSection } from './sections.js';

interface Row {
  readonly [column: string]: unknown;
}
type Printed = Readonly<Record<string, unknown>>;

const rows = (value: unknown): readonly Row[] => value as readonly Row[];
const record = (value: unknown): Readonly<Record<string, unknown>> => value as Record<string, unknown>;
const shown = (value: unknown): string => {
  if (value === undefined || value === null) return '–';
  if (typeof value === 'number')
    return value >= 10_000 ? Math.round(value).toLocaleString('en') : String(Math.round(value * 100) / 100);
  return typeof value === 'string'
    ? value
    : Array.isArray(value)
      ? value.map(shown).join(' / ')
      : JSON.stringify(value);
};

/** A column for each title: what a row has of it. */
function table(columns: Readonly<Record<string, (row: Row) => unknown>>, list: readonly Row[]): string {
  const titles = Object.keys(columns);
  const lines = list.map(
    (row) =>
      `| ${Object.values(columns)
        .map((of) => shown(of(row)))
        .join(' | ')} |`,
  );
  return [`| ${titles.join(' | ')} |`, `|${titles.map(() => ' --- |').join('')}`, ...lines].join('\n');
}

const pages = {
  overlap: ({
    rows: count,
    batchRows,
    latencyMs,
    ratios,
    lines,
  }: Printed): string => `${shown(count)} events of 244 bytes in batches of ${shown(batchRows)}, exactly once (keeper). Where ${shown(latencyMs)} ms lie between the worker and ClickHouse, waiting is what
costs; on the same machine it is the two shared cores. Ratios are medians of ratios within a round.

${table(
  { 'A ÷ B': ({ what }) => what, ratio: ({ ratio }) => ratio },
  Object.entries(record(ratios)).map(([what, ratio]) => ({ what, ratio })),
)}

${table({ variant: (row) => row['variant'], 'ms away': (row) => row['latencyMs'], 'rows/s': (row) => row['rowsPerSecond'], rounds: (row) => row['rounds'], 'CPU s per million rows': (row) => row['cpuSecondsPerMillionRows'], 'cores busy': (row) => row['busyShare'], 'with something else': (row) => row['othersShare'] }, rows(lines))}`,

  outage: ({
    rows: count,
    rowsAtKill,
    outageSeconds,
    rssMb,
    joins,
    assigned,
    takenAway,
    heartbeatsUnheard,
    retries,
    caughtUpSeconds,
    exactness,
    wrong,
  }: Printed): string => {
    const { peak, atKill, lateOutage, after } = record(rssMb);
    const { missing, doubled } = record(exactness);
    return `A backlog of ${shown(count)} events of 244 bytes in 8 partitions, exactly once; ClickHouse was killed for ${shown(outageSeconds)} s after ${shown(rowsAtKill)} rows.

| what | measured |
| --- | --- |
| resident memory of the worker: peak, MB | ${shown(peak)} |
| when ClickHouse was killed; in the second half of the outage; after it (least / most) | ${shown(atKill)}; ${shown(lateOutage)}; ${shown(after)} |
| joins of the group, partitions assigned, taken away | ${shown(joins)}, ${shown(assigned)}, ${shown(takenAway)} |
| heartbeats that were not heard | ${shown(heartbeatsUnheard)} |
| attempts that failed meanwhile | ${shown(retries)} |
| caught up by itself after, s | ${shown(caughtUpSeconds)} |
| missing, doubled | ${shown(missing)}, ${shown(doubled)} |
| not as it should be | ${rows(wrong).length === 0 ? 'nothing' : shown(wrong)} |`;
  },

  coalesced: ({
    partitions,
    recordsPerSecond,
    seconds,
    loadAverage,
    measured,
  }: Printed): string => `${shown(partitions)} partitions, ${shown(recordsPerSecond)} records a second each, ${shown(seconds)} s for each way; load average ${shown(loadAverage)} on two cores.

${table({ 'insert mode': (row) => row['insertMode'], maxWaitMs: (row) => row['maxWaitMs'], 'parts/s': (row) => row['partsPerSecond'], 'inserts/s': (row) => row['insertsPerSecond'], 'p50 / p95 / p99, ms': (row) => [row['p50Ms'], row['p95Ms'], row['p99Ms']], 'CPU s, ours / ClickHouse’s': (row) => [row['cpuSeconds'], row['serverCpuSeconds']], 'not visible at the end': (row) => row['unseen'] }, rows(measured))}`,

  workers: ({
    partitions,
    initialRebalanceDelayMs,
    rate,
    backlog,
    changes,
    changesUnderBacklog,
    oracle,
  }: Printed): string => {
    const { produced, missing, doubled } = record(oracle);
    const parts = {
      change: (row: Row) => row['change'],
      'until all partitions have rows again, ms': (row: Row) => row['totalMs'],
      'made of, ms': (row: Row) =>
        Object.entries(record(row['partsMs']))
          .map(([part, ms]) => `${part} ${shown(ms)}`)
          .join(', '),
    };
    return `${shown(partitions)} partitions; Kafka's group.initial.rebalance.delay.ms is ${shown(initialRebalanceDelayMs)}, its default. Workers, Kafka and ClickHouse share two cores.
Over all of it: produced ${shown(produced)}, missing ${shown(missing)}, doubled ${shown(doubled)}.

A backlog shared:

${table({ workers: (row) => row['workers'], 'rows/s': (row) => row['rowsPerSecond'], shares: (row) => row['shares'], 'CPU s per million rows': (row) => row['cpuSecondsPerMillionRows'] }, rows(backlog))}

Workers that come and go under ${shown(rate)} records a second:

${table(parts, rows(changes))}

The same over a backlog:

${table(parts, rows(changesUnderBacklog))}`;
  },
} as const;

const kind = process.argv[2] as keyof typeof pages;
if (!(kind in pages)) throw new Error(`expected one of ${Object.keys(pages).join(', ')}, got ${kind}`);
const last = (await text(process.stdin)).trim().split('\n').at(-1) ?? '';
const printed = JSON.parse(last) as Printed;
const machine = printed['machine'] === undefined ? '' : `Machine: ${shown(printed['machine'])}.\n\n`;
writeSection(`npm run bench:${kind}`, machine + pages[kind](printed));
