/**
 * Which provenance columns a table has, in which form, and whether ranges can be told apart by them. Pure.
 * Imports: clickhouse/insert.
 */
import { noProvenance, type Provenance } from '../insert/encode.js';
import { type Column, plainTable, type Table } from './table.js';

/** `Nullable(…)` and `LowCardinality(…)` make no difference to what is sent. */
function bareType(type: string): string {
  const inner = /^(?:Nullable|LowCardinality)\((.*)\)$/.exec(type)?.[1];
  return inner === undefined ? type : bareType(inner);
}

const text = /^(String|FixedString\(\d+\)|Enum(8|16)?\(.*\))$/;

export function provenanceOf(columns: readonly Column[]): Pick<Table, 'provenance' | 'unusable'> {
  const unusable: string[] = [];
  const column = <Form>(
    name: string,
    formOf: (type: string, bare: string) => Form | undefined,
    wanted: string,
  ): Form | undefined => {
    const found = columns.find((one) => one.name === name);
    if (found === undefined) return undefined;
    if (found.defaultKind === 'MATERIALIZED' || found.defaultKind === 'ALIAS') {
      unusable.push(`${name} is ${found.defaultKind}, so nothing can be inserted into it`);
      return undefined;
    }
    if (found.defaultKind === 'EPHEMERAL') {
      unusable.push(`${name} is EPHEMERAL, so what is inserted into it is not stored`);
      return undefined;
    }
    const form = formOf(found.type, bareType(found.type));
    if (form === undefined) unusable.push(`${name} is ${found.type}, expected ${wanted}`);
    return form;
  };
  const yes = (matches: boolean): true | undefined => (matches ? true : undefined);
  const topic = column('_topic', (_, bare) => yes(text.test(bare)), 'String');
  const partition = column('_partition', (_, bare) => yes(/^U?Int(32|64)$|^U?Int16$/.test(bare)), 'Int32');
  const offset = column('_offset', (_, bare) => yes(/^U?Int(64|128|256)$/.test(bare)), 'Int64');
  const timestamp = column('_timestamp', (_, bare) => timestampForm(bare), 'DateTime, DateTime64 or Int64');
  const key = column(
    '_key',
    (type, bare) => (bare !== 'String' ? undefined : type.includes('Nullable(') ? 'null' : 'empty'),
    'String or Nullable(String)',
  );
  const headers = column('_headers', headersForm, 'Map(String, String) or String');
  return {
    provenance: {
      ...noProvenance,
      topic: topic ?? false,
      partition: partition ?? false,
      offset: offset ?? false,
      timestamp,
      key,
      headers: headers?.form,
      headerNull: headers?.whenNull ?? 'empty',
    },
    unusable,
  };
}

/**
 * The names of the columns that every row brings: those that tell where it comes from, as far as the table can take
 * them.
 */
export function filledColumns({ provenance }: Pick<Table, 'provenance'>): ReadonlySet<string> {
  const { topic, partition, offset, timestamp, key, headers } = provenance;
  return new Set(
    Object.entries({ topic, partition, offset, timestamp, key, headers }).flatMap(([name, form]) =>
      form === undefined || form === false ? [] : [`_${name}`],
    ),
  );
}

function timestampForm(bare: string): Provenance['timestamp'] {
  if (/^DateTime(64)?(\(.*\))?$/.test(bare)) return 'time';
  return bare === 'Int64' ? 'milliseconds' : bare === 'UInt64' ? 'unsignedMilliseconds' : undefined;
}

function headersForm(
  type: string,
  bare: string,
): { form: NonNullable<Provenance['headers']>; whenNull: 'null' | 'empty' } | undefined {
  const whenNull = /Nullable\(String\)\)+$/.test(type) ? 'null' : 'empty';
  if (bare === 'String') return { form: 'text', whenNull: 'null' };
  const name = '(?:LowCardinality\\(String\\)|String)';
  const value = '(?:LowCardinality\\((?:Nullable\\(String\\)|String)\\)|Nullable\\(String\\)|String)';
  if (new RegExp(`^Map\\(${name}, ${value}\\)$`).test(type)) return { form: 'object', whenNull };
  // Of a tuple with named elements ClickHouse expects an object.
  if (new RegExp(`^Array\\(Tuple\\(${name}, ${value}\\)\\)$`).test(type)) return { form: 'pairs', whenNull };
  return undefined;
}

/**
 * Can a range be read back: are its rows told apart by topic and offset, and do they stay as they were inserted?
 * Without
 * `_topic` rows of another topic would pass for them, and nobody can tell that no other program inserts any.
 */
export function readBackFault(table: Table): string | undefined {
  const { provenance } = table;
  const missing = [
    ...(provenance.partition ? [] : ['_partition']),
    ...(provenance.offset ? [] : ['_offset']),
    ...(provenance.topic ? [] : ['_topic']),
  ];
  if (missing.length > 0) return `the table has no column ${missing.join(' and no column ')} that could be filled`;
  if (table.collapses && !/(^|[\s,(])_offset([\s,)]|$)/.test(table.sortingKey)) {
    return `${table.engine} merges rows of equal sorting key, and _offset is not in it`;
  }
  return undefined;
}

/** The statement that makes a table's ranges readable; undefined when it has the columns. */
export function provenanceStatement({
  database,
  table,
  columns,
}: Pick<Table, 'database' | 'table' | 'columns'>): string | undefined {
  const wanted: readonly (readonly [string, string])[] = [
    ['_topic', 'LowCardinality(String)'],
    ['_partition', 'Int32'],
    ['_offset', 'Int64'],
  ];
  const absent = wanted.filter(([name]) => !columns.some((column) => column.name === name));
  if (absent.length === 0) return undefined;
  return (
    `ALTER TABLE ${plainTable(database, table)} ` +
    `${absent.map(([name, type]) => `ADD COLUMN ${name} ${type}`).join(', ')}`
  );
}
