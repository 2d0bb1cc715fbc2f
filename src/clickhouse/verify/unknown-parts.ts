/**
 * Parts of which a replicated table itself does not know whether it keeps them.
 *
 * After code 319 a part is written and Keeper may or may not have it: for up to five minutes its rows are there, beside
 * those of the attempt that was repeated. Who was answered so knows; who gave up waiting, or came later, does not.
 * Imports: clickhouse/client, clickhouse/schema.
 */
import type { ClickHouseWire } from '../client/http.js';
import { ifAllowed } from '../client/if-allowed.js';
import type { Table } from '../schema/table.js';

/** How many there are; 0 of a plain table, and where the user may not see it. */
export async function readUnknownParts(
  http: ClickHouseWire,
  { database, table, family }: Table,
  signal?: AbortSignal,
): Promise<number> {
  if (family !== 'replicated') return 0;
  const sql =
    'SELECT sum(parts_to_check) AS parts FROM system.replicas WHERE database = {database:String} AND table = ' +
    '{table:String}';
  const [row] = await ifAllowed(http.select<{ parts: string | number }>(sql, { database, table }, signal));
  return Number(row?.parts ?? 0);
}
