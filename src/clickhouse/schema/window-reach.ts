/**
 * How far back the dedup window of a table reaches. It forgets by count, whoever wrote: so what came into the table is
 * counted, by its parts. Imports: clickhouse/client.
 */
import type { ClickHouseWire } from '../client/http.js';
import { ifAllowed } from '../client/if-allowed.js';
import type { Table } from './table.js';

/** Times are of this machine's clock, milliseconds since the epoch. */
export interface WindowReach {
  /**
   * A token that is no older is in the window: at most half of it was taken since. Undefined: no more than that ever
   * came, or the user may not see it.
   */
  readonly heldSinceMs?: number;
  /** What came since this time surely takes more than half of the window. Undefined: nothing proves it. */
  readonly movedOnMs?: number;
}

interface Row {
  readonly now: string | number;
  /** The latest second since which more than half of the window may have been taken; 0: none. */
  readonly full: string | number;
  /** The latest one since which it surely was; 0: none. */
  readonly moved: string | number;
}

/**
 * Numbers of blocks grow with each one inserted: over the whole table of a plain one, in each ClickHouse partition of a
 * replicated one. A merged part is as young as its merge, so what is told of the past errs towards more.
 *
 * Inserts that waited for others have a place each in the window, and one block together: at most as many as it has
 * rows.
 */
const blocksOf = 'max_block_number - min_block_number + 1';
const entriesOf = `greatest(toInt64(rows), toInt64(${blocksOf}))`;
const parts = 'FROM system.parts WHERE database = {database:String} AND table = {table:String}';
const newer = 'WINDOW newer AS (ORDER BY t DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)';

const plainReach = `
  SELECT toUnixTimestamp64Milli(now64(3)) AS now, maxIf(t, upto > {half:Int64}) AS full, maxIf(t, isPassed) AS moved
  FROM (SELECT t, sum(entries) OVER newer AS upto, isPassed
    FROM (SELECT toUnixTimestamp(modification_time) AS t, sumIf(${entriesOf}, active) AS entries, max(level = 0 AND max_block_number <= last - {half:Int64}) AS isPassed
      FROM (SELECT modification_time, active, level, rows, min_block_number, max_block_number, max(max_block_number) OVER () AS last ${parts}) GROUP BY t)
    ${newer})`;
const replicatedReach = (entries: string): string => `
  SELECT toUnixTimestamp64Milli(now64(3)) AS now, maxIf(t, upto > {half:Int64}) AS full, maxIf(t, fresh > {half:Int64}) AS moved
  FROM (SELECT t, sum(entries) OVER newer AS upto, sum(inserted) OVER newer AS fresh
    FROM (SELECT toUnixTimestamp(modification_time) AS t, sumIf(${entries}, active) AS entries, countIf(level = 0) AS inserted ${parts} GROUP BY t)
    ${newer})`;

export interface WindowAsked {
  /** Entries it has; undefined: not to be seen. */
  readonly window: number | undefined;
  /** Do inserts wait for others? */
  readonly isAsyncInsert: boolean;
}

/**
 * A plain table is read back after a repetition in any case, so there rows are counted in both modes, and the mode may
 * be changed at any time. In a replicated one a look is a cost of its own: `direct` counts blocks.
 */
export async function readWindowReach(
  http: ClickHouseWire,
  { database, table, family }: Table,
  { window, isAsyncInsert }: WindowAsked,
  now: () => number,
): Promise<WindowReach> {
  if (window === undefined || window === 0 || family === 'none') return {};
  const half = Math.floor(window / 2);
  const askedMs = now();
  const query = family === 'plain' ? plainReach : replicatedReach(isAsyncInsert ? entriesOf : blocksOf);
  const [row] = await ifAllowed(http.select<Row>(query, { database, table, half }));
  return row === undefined ? {} : reachOf(row, askedMs);
}

/** Pure. Times of the server are whole seconds, and its clock is another one. */
export function reachOf(row: Row, askedMs: number): WindowReach {
  const [now, full, moved] = [row.now, row.full, row.moved].map(Number) as [number, number, number];
  const here = (seconds: number): number => askedMs - (now - seconds * 1000);
  return { ...(full === 0 ? {} : { heldSinceMs: here(full + 1) }), ...(moved === 0 ? {} : { movedOnMs: here(moved) }) };
}
