/**
 * Room: how far back the dedup window of a table reaches. It forgets by count, whoever wrote: so what came into the table is
 * counted, by its parts.
 */
import type { ClickHouseWire } from './http.js';
import { ifAllowed } from './if-allowed.js';
import type { Table } from './table.js';

/** Times are of this machine's clock, milliseconds since the epoch. */
export interface WindowReach {
  /**
   * A token that is no older is in the window: at most half of it was taken since. Undefined: no more than that ever came, or
   * the user may not see it.
   */
  readonly heldSinceMs?: number;
  /** What came since this time surely takes more than half of the window. Undefined: nothing proves it. */
  readonly movedOnMs?: number;
}

interface Row {
  readonly now: string | number;
  readonly blocks: string | number;
  readonly held: string | number;
  readonly moved: string | number;
}

/**
 * Numbers of blocks grow with each one inserted: over the whole table of a plain one, in each ClickHouse partition of a
 * replicated one. A merged part is as young as its merge, so what is told of the past errs towards more. An insert that
 * waited for others has its own place in the window and none in this count.
 */
const plainReach = `
  SELECT toUnixTimestamp64Milli(now64(3)) AS now, last AS blocks,
    minIf(toUnixTimestamp(modification_time), active AND max_block_number >= last - {half:Int64}) AS held,
    maxIf(toUnixTimestamp(modification_time), level = 0 AND max_block_number <= last - {half:Int64}) AS moved
  FROM (SELECT modification_time, active, level, max_block_number, max(max_block_number) OVER () AS last FROM system.parts WHERE database = {database:String} AND table = {table:String})
  GROUP BY last`;
const replicatedReach = `
  SELECT toUnixTimestamp64Milli(now64(3)) AS now, max(upto) AS blocks, minIf(t, upto <= {half:Int64}) AS held, maxIf(t, fresh > {half:Int64}) AS moved
  FROM (SELECT t, sum(blocks) OVER newer AS upto, sum(inserted) OVER newer AS fresh
    FROM (SELECT toUnixTimestamp(modification_time) AS t, sumIf(max_block_number - min_block_number + 1, active) AS blocks, countIf(level = 0) AS inserted
      FROM system.parts WHERE database = {database:String} AND table = {table:String} GROUP BY t)
    WINDOW newer AS (ORDER BY t DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))`;

/** `window`: entries it has; undefined: not to be seen. */
export async function readWindowReach(http: ClickHouseWire, { database, table, family }: Table, window: number | undefined, now: () => number): Promise<WindowReach> {
  if (window === undefined || window === 0 || family === 'none') return {};
  const half = Math.floor(window / 2);
  const askedMs = now();
  const [row] = await ifAllowed(http.select<Row>(family === 'plain' ? plainReach : replicatedReach, { database, table, half }));
  return row === undefined ? {} : reachOf(row, half, askedMs);
}

/** Pure. Times of the server are whole seconds, and its clock is another one. */
export function reachOf(row: Row, half: number, askedMs: number): WindowReach {
  const [now, blocks, held, moved] = [row.now, row.blocks, row.held, row.moved].map(Number) as [number, number, number, number];
  if (blocks <= half) return {};
  const here = (seconds: number): number => askedMs - (now - seconds * 1000);
  return { heldSinceMs: held === 0 ? askedMs : here(held + 1), ...(moved === 0 ? {} : { movedOnMs: here(moved) }) };
}
