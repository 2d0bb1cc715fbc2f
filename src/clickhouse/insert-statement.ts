/**
 * Imports: this room, types only. The statement that rows are sent with. Pure.
 */
import { provenanceNames } from '../kernel/index.js';
import { quoteIdentifier, quotedTable } from './http.js';
import type { Table } from './table.js';

/**
 * Without a list of columns ClickHouse passes over fields for EPHEMERAL ones, and the defaults that are made from these
 * are made of nothing. `*` stands for all columns that are stored, also for those that are added later.
 */
export function insertStatement({ database, table, columns }: Pick<Table, 'database' | 'table' | 'columns'>): string {
  const names: readonly string[] = provenanceNames;
  // One with the name of a provenance column is left alone: it is not stored, so it tells nothing, and no value may fill it.
  const ephemeral = columns.filter(({ name, defaultKind }) => defaultKind === 'EPHEMERAL' && !names.includes(name)).map(({ name }) => quoteIdentifier(name));
  const list = ephemeral.length === 0 ? '' : ` (*, ${ephemeral.join(', ')})`;
  return `INSERT INTO ${quotedTable(database, table)}${list} FORMAT JSONEachRow`;
}
