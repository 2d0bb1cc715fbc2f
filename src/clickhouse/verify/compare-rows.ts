/**
 * The rows that a batch should have against those that a table has, offset by offset. Pure; the simulated sink
 * compares by it, too. Imports: model, ports.
 */
import { cursorOver } from '../../model/packed-records.js';
import type { Records } from '../../model/record.js';
import type { ReadBack } from '../../ports.js';

/** A record of which some rows are there and some are not. */
export interface PartialRecord {
  readonly offset: number;
  readonly rows: number;
  readonly expected: number;
}

export interface Comparison extends ReadBack {
  /** The first one there is. */
  readonly partial: PartialRecord | undefined;
}

/** `found`: rows by offset. A transform may have made several rows of one record. */
export function compareRows(records: Records, found: ReadonlyMap<number, number>): Comparison {
  const missing: number[] = [];
  const doubled: number[] = [];
  let partial: Comparison['partial'];
  const cursor = cursorOver(records);
  for (let isMore = cursor.next(); isMore;) {
    const { offset } = cursor;
    let expected = 0;
    for (; isMore && cursor.offset === offset; isMore = cursor.next()) expected++;
    const rows = found.get(offset) ?? 0;
    if (rows > 0 && rows < expected) partial ??= { offset, rows, expected };
    if (rows === 0) missing.push(offset);
    if (rows > expected) doubled.push(offset);
  }
  return { missing, doubled, partial };
}

export function allOffsets(records: Records): readonly number[] {
  return compareRows(records, new Map()).missing;
}
