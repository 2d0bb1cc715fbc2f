/**
 * Rows of the simulated table, and the blocks that an insert of them is cut into. Pure. Imports: model.
 */
import type { KafkaRecord } from '../model/record.js';

/** A row, by what its provenance columns say. */
export interface Row {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** The record's timestamp, unique in a simulated world. */
  readonly timestampMs: number;
  readonly value: Buffer | null;
  /** Its provenance columns are empty: it was sent without them, or they were dropped since. */
  readonly isBlank?: true;
}

/** A block of an insert, and the part of its token that tells it from the others. */
export type Block = readonly [name: string, rows: readonly Row[]];

/** The row that a record becomes. */
export function rowOf(topic: string, partition: number, { offset, timestampMs, value }: KafkaRecord): Row {
  return { topic, partition, offset, timestampMs, value };
}

/** Rows of one insert that differ in what the table is partitioned by are blocks of their own. */
export function blocksOf(
  rows: readonly Row[],
  partitionBy: ((row: Row) => string) | undefined,
  blockRows = Infinity,
): readonly Block[] {
  if (partitionBy === undefined && rows.length <= blockRows) return [['all|0', rows]];
  const cut =
    blockRows === Infinity
      ? [rows]
      : Array.from({ length: Math.ceil(rows.length / blockRows) }, (_, i) =>
          rows.slice(i * blockRows, (i + 1) * blockRows),
        );
  return cut.flatMap((part, ordinal) => {
    const groups = new Map<string, Row[]>();
    for (const row of part) {
      const key = partitionBy?.(row) ?? 'all';
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [row]);
      else group.push(row);
    }
    return [...groups].map(([key, block]) => [`${key}|${ordinal}`, block] as const);
  });
}

/** Rows by offset. */
export function counted(
  rows: readonly Row[],
  topic: string,
  partition: number,
  first: number,
  last: number,
  isSeen: (row: Row) => boolean,
): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  for (const row of rows) {
    if (row.topic !== topic || row.partition !== partition || row.offset < first || row.offset > last || !isSeen(row))
      continue;
    found.set(row.offset, (found.get(row.offset) ?? 0) + 1);
  }
  return found;
}
