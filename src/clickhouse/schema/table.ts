/**
 * What is known of one table of ClickHouse, and how its name is written. Imports: clickhouse/insert.
 */
import type { Provenance } from '../insert/encode.js';

export interface TableName {
  readonly database: string;
  readonly table: string;
}

/** Where tokens are kept: on the server's own disk, in Keeper, or nowhere. */
export type Family = 'plain' | 'replicated' | 'none';

export interface Column {
  readonly name: string;
  readonly type: string;
  /** '', DEFAULT, MATERIALIZED, ALIAS or EPHEMERAL. */
  readonly defaultKind: string;
  /** What a row gets that has no value for it; '' for none. */
  readonly defaultExpression: string;
  readonly inPartitionKey: boolean;
}

export interface Table extends TableName {
  readonly engine: string;
  readonly family: Family;
  /** Rows of equal sorting key are merged into one, as ReplacingMergeTree does. */
  readonly collapses: boolean;
  readonly sortingKey: string;
  readonly partitionKey: string;
  readonly engineFull: string;
  /** Undefined: its database gives none. */
  readonly uuid?: string;
  /** When its definition was changed last, seconds since the epoch; undefined: its database does not say. */
  readonly alteredS?: number;
  /** Number of the last mutation that named a provenance column, 0 for none; undefined: the user may not see them. */
  readonly mutation?: number;
  readonly createQuery: string;
  readonly columns: readonly Column[];
  /** Materialized views that read from it. */
  readonly views: readonly TableName[];
  readonly provenance: Provenance;
  /** Columns with a provenance name but a type or kind that cannot be filled, and why. */
  readonly unusable: readonly string[];
}

/** For statements people copy: quoted only where it must be. */
export function plainTable(database: string, table: string): string {
  return `${plainName(database)}.${plainName(table)}`;
}

export function plainName(name: string): string {
  return /^[A-Za-z_]\w*$/.test(name) ? name : `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
}
