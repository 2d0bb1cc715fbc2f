/**
 * Fields of some records against the columns of their table. Pure. Imports: clickhouse/insert, clickhouse/schema.
 */
import { isInsertable } from '../clickhouse/insert/row-trial.js';
import { filledColumns } from '../clickhouse/schema/provenance-columns.js';
import type { Column, Table } from '../clickhouse/schema/table.js';

export type Row = Readonly<Record<string, unknown>>;

export interface FieldReport {
  /** Columns of the table's own that a row may fill: none of provenance, none that the server always makes up. */
  readonly own: readonly Column[];
  /** Those of them that some record has a field for. */
  readonly filled: readonly Column[];
  /** Those that get the default of their type, since no record has a field for them and they state none. */
  readonly unfilled: readonly Column[];
  /** Fields that no column takes, and how many records have them. */
  readonly unknown: ReadonlyMap<string, number>;
  /** Columns that the server always makes up, of which records have a field all the same. */
  readonly generated: readonly Column[];
}

/**
 * `ignoresCase`: a field that no column is named like goes to one that is, but for its case (ClickHouse 26.5 and
 * later).
 */
export function reportFields(rows: readonly Row[], table: Table, ignoresCase: boolean): FieldReport {
  const insertable = table.columns.filter(isInsertable);
  const provenance = filledColumns(table);
  const own = insertable.filter(({ name }) => !provenance.has(name));
  const filled = new Set<Column>();
  const generated = new Set<Column>();
  const unknown = new Map<string, number>();
  for (const row of rows) {
    for (const name of Object.keys(row)) {
      const column = columnFor(name, insertable, ignoresCase);
      const made = column === undefined ? table.columns.find((each) => each.name === name) : undefined;
      if (column !== undefined) filled.add(column);
      else if (made !== undefined) generated.add(made);
      else unknown.set(name, (unknown.get(name) ?? 0) + 1);
    }
  }
  return {
    own,
    filled: own.filter((column) => filled.has(column) || isFedByProvenance(column, provenance)),
    unfilled: own.filter((column) => column.defaultKind === '' && !filled.has(column)),
    unknown,
    generated: [...generated],
  };
}

export function columnFor(field: string, columns: readonly Column[], ignoresCase: boolean): Column | undefined {
  const exact = columns.find(({ name }) => name === field);
  if (exact !== undefined || !ignoresCase) return exact;
  return columns.find(({ name }) => name.toLowerCase() === field.toLowerCase());
}

function isFedByProvenance({ defaultKind, defaultExpression }: Column, provenance: ReadonlySet<string>): boolean {
  return (
    defaultKind === 'DEFAULT' &&
    [...provenance].some((name) => new RegExp(`(^|\\W)${name}(\\W|$)`).test(defaultExpression))
  );
}

/** A column without a field that a field without a column may be meant for. */
export function likelyMeant(field: string, columns: readonly Column[]): Column | undefined {
  const bare = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9]/g, '');
  const wanted = bare(field);
  if (wanted.length < 2) return undefined;
  const near = columns.filter(
    ({ name }) =>
      bare(name) === wanted ||
      bare(name).startsWith(wanted) ||
      (wanted.startsWith(bare(name)) && bare(name).length > 1),
  );
  return near.sort((a, b) => Math.abs(a.name.length - field.length) - Math.abs(b.name.length - field.length))[0];
}

/** A column that nothing but its own definition speaks of, so that it can be renamed. */
export function isRenamable({ name }: Column, { createQuery, sortingKey, partitionKey, views }: Table): boolean {
  const word = new RegExp(`(^|\\W)${name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?=\\W|$)`, 'g');
  return (
    views.length === 0 && !word.test(`${sortingKey} ${partitionKey}`) && [...createQuery.matchAll(word)].length === 1
  );
}
