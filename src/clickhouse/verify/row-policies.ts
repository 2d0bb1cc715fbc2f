/**
 * Does a row policy hide rows of a table from the user of this program? A look would find rows missing
 * that are there.
 *
 * EXPLAIN names the filter to the very user it applies to, without a grant; `system.row_policies` names the policies,
 * and few users may read it. Imports: clickhouse/client, clickhouse/schema, errors.
 */
import { hasCode } from '../../errors.js';
import { type ClickHouseWire, quotedTable } from '../client/http.js';
import { ifAllowed } from '../client/if-allowed.js';
import type { TableName } from '../schema/table.js';

/** What a look then proves: nothing. */
export const HIDDEN = 'a row policy hides rows of the table from the user';

export const SEES_ALL =
  'let the user see every row: CREATE ROW POLICY … USING 1 TO the user, ALTER ROW POLICY … TO ALL EXCEPT the ' +
  'user, or ask as another user';

/** As `EXPLAIN` draws it. In the query below nothing else can stand at the beginning of a line. */
const filterLine = /^[\s│]*Row[- ]level (?:security )?filter/im;

/**
 * True: a filter is put on what the user sees of the table. Asked each time: a policy is no part of the table, so
 * nothing tells when it comes or goes. False of a table without a part, of which nothing is hidden either, and where
 * the server does not explain queries to the user.
 */
export async function hidesRows(
  http: Pick<ClickHouseWire, 'select'>,
  { database, table }: TableName,
  signal?: AbortSignal,
): Promise<boolean> {
  const sql = `EXPLAIN PLAN actions = 1 SELECT _offset FROM ${quotedTable(database, table)} WHERE _offset >= 0`;
  const lines = await http.select<{ explain: string }>(sql, {}, signal).catch((error: unknown) => {
    if (hasCode(error, 'KCR_PREFLIGHT')) return [];
    throw error;
  });
  return filterLine.test(lines.map(({ explain }) => explain).join('\n'));
}

/**
 * Of those on the table the ones for the user, by name; none: there are none, or the user may not see them. A policy
 * for a role is not among them.
 */
export async function namePolicies(
  http: Pick<ClickHouseWire, 'select'>,
  { database, table }: TableName,
): Promise<readonly string[]> {
  const isForUser = `has(apply_to_list, currentUser()) OR (apply_to_all AND NOT has(apply_to_except, currentUser()))`;
  const sql = `SELECT short_name AS name FROM system.row_policies
       WHERE database IN ({database:String}, '') AND table IN ({table:String}, '') AND select_filter NOT IN ('', '1') AND (${isForUser}) ORDER BY name`;
  const rows = await ifAllowed(http.select<{ name: string }>(sql, { database, table }));
  return rows.map(({ name }) => name);
}
