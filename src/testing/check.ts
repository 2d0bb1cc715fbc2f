/**
 * The verdict: the table against the topic. Looks at nothing the pipeline says of itself. Imports: model.
 */
import type { KafkaRecord } from '../model/record.js';
import type { Row } from './table.js';
import type { SimulatedWorld } from './world.js';

/** Offsets as `partition:offset`, in the order of the log. */
export interface Comparison {
  readonly missing: readonly string[];
  readonly doubled: readonly string[];
}

export interface Verdict extends Comparison {
  /** Records that the table refuses and has no row of. */
  readonly refused: readonly string[];
  /** The targets of materialized views, by name. */
  readonly views: Readonly<Record<string, Comparison>>;
}

/**
 * Compares the table, and the targets of its views, with the log. A record that the log does not hold any more
 * (compaction, retention, a topic that was recreated) may have its rows, but not twice.
 */
export function checkExactlyOnce(world: SimulatedWorld): Verdict {
  const views: Record<string, Comparison> = {};
  for (const [name, rows] of world.table.views) {
    const { missing, doubled } = compare(world, rows);
    views[name] = { missing, doubled };
  }
  // The first attempt of a range may meet a table that was just exchanged: its rows are then in both, once in each.
  const doubled = [...new Set(world.table.tables.flatMap((rows) => doubledIn(world, rows)))];
  return { ...compare(world, world.table.everywhere), doubled, views };
}

function compare(world: SimulatedWorld, rows: readonly Row[]): Comparison & { readonly refused: readonly string[] } {
  const { log, table, rowsOf } = world;
  const found = new Map<number, number>();
  for (const { timestampMs } of rows) found.set(timestampMs, (found.get(timestampMs) ?? 0) + 1);
  const missing: string[] = [];
  const refused: string[] = [];
  for (let partition = 0; partition < log.partitions; partition++) {
    for (const record of log.records(partition)) {
      if ((found.get(record.timestampMs) ?? 0) >= rowsOf(record)) continue;
      const isRefused = table.config.isPoison?.({ topic: log.topic, partition, ...record }) === true;
      (isRefused ? refused : missing).push(`${partition}:${record.offset}`);
    }
  }
  return { missing, doubled: doubledIn(world, rows), refused };
}

/** Records that have more rows than they should, as `partition:offset`. */
function doubledIn({ log, rowsOf }: SimulatedWorld, rows: readonly Row[]): readonly string[] {
  const found = new Map<number, number>();
  for (const { timestampMs } of rows) found.set(timestampMs, (found.get(timestampMs) ?? 0) + 1);
  // Rows of other topics are another program's.
  const isTooMany = ({ topic, timestampMs }: Row) =>
    topic === log.topic && (found.get(timestampMs) ?? 0) > expected(log.produced(timestampMs), rowsOf);
  return [...new Set(rows.filter(isTooMany).map(({ partition, offset }) => `${partition}:${offset}`))];
}

function expected(record: KafkaRecord | undefined, rowsOf: (record: KafkaRecord) => number): number {
  return record === undefined ? 0 : rowsOf(record);
}
