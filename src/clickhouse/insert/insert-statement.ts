/**
 * The statement that rows are sent with, and what of its settings the table decides. Pure.
 * Imports: clickhouse/client, clickhouse/schema, kernel.
 */
import { provenanceNames } from '../../kernel/index.js';
import { quoteIdentifier, quotedTable } from '../client/http.js';
import type { Settings } from './settings.js';
import type { Column, Table } from '../schema/table.js';

const known = new WeakMap<Table, Settings>();

/** Made once for what was seen of a table: it has up to thousands of columns, and many inserts a second. */
export function insertParams(table: Table): Settings {
  const found = known.get(table);
  if (found !== undefined) return found;
  const made = { query: insertStatement(table), ...(refusesNull(table.columns) ? { [NULL_AS_DEFAULT]: '0' } : {}) };
  known.set(table, made);
  return made;
}

/**
 * Without a list of columns ClickHouse passes over fields for EPHEMERAL ones, and the defaults that are made from these
 * are made of nothing. `*` stands for all columns that are stored, also for those that are added later.
 */
function insertStatement({ database, table, columns }: Pick<Table, 'database' | 'table' | 'columns'>): string {
  const names: readonly string[] = provenanceNames;
  // One with the name of a provenance column is left alone: it is not stored, so it tells nothing, and no value may
  // fill it.
  const ephemeral = columns
    .filter(({ name, defaultKind }) => defaultKind === 'EPHEMERAL' && !names.includes(name))
    .map(({ name }) => quoteIdentifier(name));
  const list = ephemeral.length === 0 ? '' : ` (*, ${ephemeral.join(', ')})`;
  return `INSERT INTO ${quotedTable(database, table)}${list} FORMAT JSONEachRow`;
}

const NULL_AS_DEFAULT = 'input_format_null_as_default';

/**
 * A `null` for an Enum that has no 0 is stored as 0, and from then on no SELECT of the column succeeds (code 691;
 * measured,
 * 26.7). Refused, the record is poison and named; so is then a `null` for any other column of the table that takes
 * none.
 */
function refusesNull(columns: readonly Column[]): boolean {
  return columns.some(({ type }) => {
    const bare = type.replace(/'(?:[^'\\]|\\.)*'/g, "''").replace(/Nullable\(Enum(?:8|16)\([^)]*\)\)/g, '');
    return [...bare.matchAll(/Enum(?:8|16)\(([^)]*)\)/g)].some(([, values = '']) => !/'' = 0\b/.test(values));
  });
}
