/**
 * Room: what ClickHouse tells about the server and its tables, read once when a sink opens or a check runs.
 */
import { hasCode, IngestError } from '../errors.js';
import { noProvenance, type Provenance } from './encode.js';
import type { ClickHouseHttp } from './http.js';
import { conditionalSettings, MIN_UPTIME_S, type ServerIdentity } from './settings.js';

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
  readonly createQuery: string;
  readonly columns: readonly Column[];
  /** Materialized views that read from it. */
  readonly views: readonly TableName[];
  readonly provenance: Provenance;
  /** Columns with a provenance name but a type or kind that cannot be filled, and why. */
  readonly unusable: readonly string[];
}

export interface Server extends ServerIdentity {
  readonly timezone: string;
  /** Names out of `conditionalSettings` that this server has. */
  readonly knownSettings: ReadonlySet<string>;
}

export async function readServerIdentity(http: ClickHouseHttp): Promise<ServerIdentity & { readonly timezone: string }> {
  interface Row {
    version: string;
    timezone: string;
    now: string | number;
    uptime: string | number;
  }
  const [row] = await http.select<Row>(
    'SELECT version() AS version, timezone() AS timezone, toString(toUnixTimestamp64Milli(now64(3))) AS now, uptime() AS uptime',
  );
  if (row === undefined) throw new IngestError('KCR_PREFLIGHT', `${http.address} gave no row for its version`);
  const uptimeS = Number(row.uptime);
  const startedMs = uptimeS < MIN_UPTIME_S ? undefined : Number(row.now) - uptimeS * 1000;
  return { version: row.version, timezone: row.timezone, startedMs };
}

export async function readServer(http: ClickHouseHttp): Promise<Server> {
  const identity = await readServerIdentity(http);
  const names = conditionalSettings.map((name) => `'${name}'`).join(', ');
  const rows = await http.select<{ name: string }>(`SELECT name FROM system.settings WHERE name IN (${names})`);
  return { ...identity, knownSettings: new Set(rows.map(({ name }) => name)) };
}

interface TableRow {
  engine: string;
  engine_full: string;
  sorting_key: string;
  partition_key: string;
  create_table_query: string;
  dependencies_database: string[];
  dependencies_table: string[];
}

/** Undefined when there is no such table, or the user may not see it. */
export async function findTable(http: ClickHouseHttp, { database, table }: TableName): Promise<Table | undefined> {
  const [row] = await http.select<TableRow>(
    `SELECT engine, engine_full, sorting_key, partition_key, create_table_query, dependencies_database, dependencies_table
     FROM system.tables WHERE database = {database:String} AND name = {table:String}`,
    { database, table },
  );
  if (row === undefined) return undefined;
  const columns = (
    await http.select<Omit<Column, 'inPartitionKey'> & { inPartitionKey: number }>(
      `SELECT name, type, default_kind AS defaultKind, default_expression AS defaultExpression, is_in_partition_key AS inPartitionKey
       FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position`,
      { database, table },
    )
  ).map((column): Column => ({ ...column, inPartitionKey: Boolean(column.inPartitionKey) }));
  return {
    database,
    table,
    engine: row.engine,
    family: familyOf(row.engine),
    collapses: /^(Replicated|Shared)?(Replacing|Summing|Aggregating|Collapsing|VersionedCollapsing|Graphite|Coalescing)MergeTree$/.test(row.engine),
    sortingKey: row.sorting_key,
    partitionKey: row.partition_key,
    engineFull: row.engine_full,
    createQuery: row.create_table_query,
    columns,
    views: row.dependencies_table.map((view, index) => ({ database: row.dependencies_database[index] ?? database, table: view })),
    ...provenanceOf(columns),
  };
}

/** Where a materialized view writes; undefined when that cannot be found out. */
export async function findTarget(http: ClickHouseHttp, view: TableName): Promise<TableName | undefined> {
  interface Row {
    uuid: string;
    create_table_query: string;
    target_database?: string;
    target_table?: string;
  }
  const where = 'FROM system.tables WHERE database = {database:String} AND name = {table:String}';
  const values = { database: view.database, table: view.table };
  const columns = 'uuid, create_table_query';
  // The target's columns are not on every server.
  const [row] = await http
    .select<Row>(`SELECT ${columns}, target_database, target_table ${where}`, values)
    .catch(() => http.select<Row>(`SELECT ${columns} ${where}`, values));
  if (row === undefined) return undefined;
  if (row.target_table) return { database: row.target_database ?? view.database, table: row.target_table };
  return statedTarget(row.create_table_query) ?? { database: view.database, table: `.inner_id.${row.uuid}` };
}

/** `CREATE MATERIALIZED VIEW db.view TO db.table (…) AS …` */
export function statedTarget(createQuery: string): TableName | undefined {
  const name = '(`(?:[^`\\\\]|\\\\.)+`|[\\w]+)';
  const found = new RegExp(`^CREATE MATERIALIZED VIEW ${name}\\.${name} TO ${name}\\.${name}`).exec(createQuery);
  const unquoted = (text: string): string => (text.startsWith('`') ? text.slice(1, -1).replace(/\\(.)/g, '$1') : text);
  return found === null ? undefined : { database: unquoted(found[3] ?? ''), table: unquoted(found[4] ?? '') };
}

/** As `findTable`; a missing one is a `KCR_TABLE_MISSING` that says whether the database is missing too. */
export async function requireTable(http: ClickHouseHttp, name: TableName): Promise<Table> {
  const found = await findTable(http, name);
  if (found !== undefined) return found;
  const { database, table } = name;
  const near = await http.select<{ table: string }>(
    `SELECT name AS table FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree'
     ORDER BY editDistance(name, {table:String}) LIMIT 3`,
    { database, table },
  ).catch(() => []);
  const databases = await http.select<{ name: string }>('SELECT name FROM system.databases WHERE name = {database:String}', { database });
  const seen = near.map((row) => row.table).join(', ');
  throw databases.length === 0
    ? new IngestError('KCR_TABLE_MISSING', `there is no database ${database}, or the user may not see it`, {
        table: `${database}.${table}`,
        hint: `CREATE DATABASE ${database}, or GRANT SELECT, INSERT on it`,
      })
    : new IngestError('KCR_TABLE_MISSING', `there is no table ${database}.${table}, or the user may not see it`, {
        table: `${database}.${table}`,
        hint: seen === '' ? 'create it, or GRANT SELECT, INSERT on it' : `create it, grant it, or take one of those there are: ${seen}`,
      });
}

/** Of the table's own SETTINGS. */
export function tableSetting({ engineFull }: Pick<Table, 'engineFull'>, name: string): number | undefined {
  const settings = engineFull.slice(engineFull.lastIndexOf(' SETTINGS ') + 1);
  const found = new RegExp(`(?:^SETTINGS |, )${name} = '?(\\d+)`).exec(settings)?.[1];
  return found === undefined ? undefined : Number(found);
}

/** For how long the table keeps tokens; undefined: they do not grow old, or the user may not see it. */
export async function readWindowSeconds(http: ClickHouseHttp, table: Table): Promise<number | undefined> {
  const name = 'replicated_deduplication_window_seconds';
  if (table.family !== 'replicated') return undefined;
  const own = tableSetting(table, name);
  if (own !== undefined) return own;
  const [row] = await http
    .select<{ value: string }>('SELECT value FROM system.replicated_merge_tree_settings WHERE name = {name:String}', { name })
    .catch((error: unknown) => {
      if (hasCode(error, 'KCR_PREFLIGHT', 'KCR_TABLE_MISSING')) return [];
      throw error;
    });
  return row === undefined ? undefined : Number(row.value);
}

function familyOf(engine: string): Family {
  if (!engine.endsWith('MergeTree')) return 'none';
  return engine.startsWith('Replicated') || engine.startsWith('Shared') ? 'replicated' : 'plain';
}

/** `Nullable(…)` and `LowCardinality(…)` make no difference to what is sent. */
function bareType(type: string): string {
  const inner = /^(?:Nullable|LowCardinality)\((.*)\)$/.exec(type)?.[1];
  return inner === undefined ? type : bareType(inner);
}

const text = /^(String|FixedString\(\d+\)|Enum(8|16)?\(.*\))$/;

export function provenanceOf(columns: readonly Column[]): Pick<Table, 'provenance' | 'unusable'> {
  const unusable: string[] = [];
  const column = <Form>(name: string, formOf: (type: string, bare: string) => Form | undefined, wanted: string): Form | undefined => {
    const found = columns.find((one) => one.name === name);
    if (found === undefined) return undefined;
    if (found.defaultKind === 'MATERIALIZED' || found.defaultKind === 'ALIAS') {
      unusable.push(`${name} is ${found.defaultKind}, so nothing can be inserted into it`);
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
  const key = column('_key', (type, bare) => (bare !== 'String' ? undefined : type.includes('Nullable(') ? 'null' : 'empty'), 'String or Nullable(String)');
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

function timestampForm(bare: string): Provenance['timestamp'] {
  if (/^DateTime(64)?(\(.*\))?$/.test(bare)) return 'time';
  return /^U?Int64$/.test(bare) ? 'milliseconds' : undefined;
}

function headersForm(type: string, bare: string): { form: NonNullable<Provenance['headers']>; whenNull: 'null' | 'empty' } | undefined {
  const whenNull = /Nullable\(String\)\)+$/.test(type) ? 'null' : 'empty';
  if (bare === 'String') return { form: 'text', whenNull: 'null' };
  const name = '(?:LowCardinality\\(String\\)|String)';
  const value = '(?:LowCardinality\\((?:Nullable\\(String\\)|String)\\)|Nullable\\(String\\)|String)';
  if (new RegExp(`^Map\\(${name}, ${value}\\)$`).test(type)) return { form: 'object', whenNull };
  // Of a tuple with named elements ClickHouse expects an object.
  if (new RegExp(`^Array\\(Tuple\\(${name}, ${value}\\)\\)$`).test(type)) return { form: 'pairs', whenNull };
  return undefined;
}

/** Can a range be read back: are its rows told apart by the offset, and do they stay as they were inserted? */
export function readBackFault(table: Table, shared: boolean): string | undefined {
  const { provenance } = table;
  const missing = [
    ...(provenance.partition ? [] : ['_partition']),
    ...(provenance.offset ? [] : ['_offset']),
    ...(shared && !provenance.topic ? ['_topic'] : []),
  ];
  if (missing.length > 0) return `the table has no column ${missing.join(' and no column ')} that could be filled`;
  if (table.collapses && !/(^|[\s,(])_offset([\s,)]|$)/.test(table.sortingKey)) {
    return `${table.engine} merges rows of equal sorting key, and _offset is not in it`;
  }
  return undefined;
}

/** The statement that makes a table's ranges readable; undefined when it has the columns. */
export function provenanceStatement({ database, table, columns }: Pick<Table, 'database' | 'table' | 'columns'>): string | undefined {
  const wanted: readonly (readonly [string, string])[] = [
    ['_topic', 'LowCardinality(String)'],
    ['_partition', 'Int32'],
    ['_offset', 'Int64'],
  ];
  const absent = wanted.filter(([name]) => !columns.some((column) => column.name === name));
  if (absent.length === 0) return undefined;
  return `ALTER TABLE ${plainTable(database, table)} ${absent.map(([name, type]) => `ADD COLUMN ${name} ${type}`).join(', ')}`;
}

/** For statements people copy: quoted only where it must be. */
export function plainTable(database: string, table: string): string {
  return `${plainName(database)}.${plainName(table)}`;
}

export function plainName(name: string): string {
  return /^[A-Za-z_]\w*$/.test(name) ? name : `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
}
