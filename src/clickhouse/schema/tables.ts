/**
 * What ClickHouse tells about the server and its tables, read once when a sink opens or a check runs.
 * Imports: clickhouse/client, clickhouse/insert, errors.
 */
import { IngestError } from '../../errors.js';
import type { ClickHouseWire } from '../client/http.js';
import { ifAllowed } from '../client/if-allowed.js';
import { provenanceOf } from './provenance-columns.js';
import { conditionalSettings, limitSettings, MIN_UPTIME_S, type ServerIdentity } from '../insert/settings.js';
import { type Column, type Family, type Table, type TableName } from './table.js';

export interface Server extends ServerIdentity {
  readonly timezone: string;
  /** Names out of `conditionalSettings` that this server has, without limits that the user may not change. */
  readonly knownSettings: ReadonlySet<string>;
}

export async function readServerIdentity(
  http: ClickHouseWire,
): Promise<ServerIdentity & { readonly timezone: string }> {
  interface Row {
    version: string;
    timezone: string;
    now: string | number;
    uptime: string | number;
  }
  const [row] = await http.select<Row>(
    'SELECT version() AS version, timezone() AS timezone, toString(toUnixTimestamp64Milli(now64(3))) AS now, ' +
      'uptime() AS uptime',
  );
  if (row === undefined) throw new IngestError('KCR_PREFLIGHT', `${http.address} gave no row for its version`);
  const uptimeS = Number(row.uptime);
  const startedMs = uptimeS < MIN_UPTIME_S ? undefined : Number(row.now) - uptimeS * 1000;
  return { version: row.version, timezone: row.timezone, startedMs };
}

export async function readServer(http: ClickHouseWire): Promise<Server> {
  const identity = await readServerIdentity(http);
  const listed = (names: readonly string[]): string => names.map((name) => `'${name}'`).join(', ');
  const rows = await http.select<{ name: string }>(
    `SELECT name FROM system.settings WHERE name IN (${listed(conditionalSettings)}) AND NOT (readonly AND name ` +
      `IN (${listed(limitSettings)}))`,
  );
  return { ...identity, knownSettings: new Set(rows.map(({ name }) => name)) };
}

interface TableRow {
  uuid?: string;
  paths?: string[];
  altered?: string | number;
  engine: string;
  engine_full: string;
  sorting_key: string;
  partition_key: string;
  create_table_query: string;
  dependencies_database: string[];
  dependencies_table: string[];
}

/** Undefined when there is no such table, or the user may not see it. */
export async function findTable(http: ClickHouseWire, { database, table }: TableName): Promise<Table | undefined> {
  const [row] = await http.select<TableRow>(
    `SELECT toString(uuid) AS uuid, data_paths AS paths, toUnixTimestamp(metadata_modification_time) AS altered,
       engine, engine_full, sorting_key, partition_key, create_table_query, dependencies_database, dependencies_table
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
  const uuid = uuidOf(row);
  const mutation = await readLastMutation(http, { database, table });
  return {
    database,
    table,
    ...(uuid === undefined ? {} : { uuid }),
    ...(Number(row.altered ?? 0) > 0 ? { alteredS: Number(row.altered) } : {}),
    ...(mutation === undefined ? {} : { mutation }),
    engine: row.engine,
    family: familyOf(row.engine),
    collapses:
      /^(Replicated|Shared)?(Replacing|Summing|Aggregating|Collapsing|VersionedCollapsing|Graphite|Coalescing)MergeTree$/.test(
        row.engine,
      ),
    sortingKey: row.sorting_key,
    partitionKey: row.partition_key,
    engineFull: row.engine_full,
    createQuery: row.create_table_query,
    columns,
    views: row.dependencies_table.map((view, index) => ({
      database: row.dependencies_database[index] ?? database,
      table: view,
    })),
    ...provenanceOf(columns),
  };
}

const uuidPattern = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

/** Some databases hide the UUID, and the path of its data names it all the same. */
function uuidOf({ uuid = '', paths = [] }: TableRow): string | undefined {
  const isNil = /^[0-]*$/.test(uuid);
  return isNil ? uuidPattern.exec(paths[0] ?? '')?.[0] : uuid;
}

/**
 * Of those that may have changed what the provenance columns hold (DROP, CLEAR, RENAME COLUMN, UPDATE), not of
 * deletions.
 */
async function readLastMutation(http: ClickHouseWire, { database, table }: TableName): Promise<number | undefined> {
  const [row] = await ifAllowed(
    http.select<{ last: string | number }>(
      `SELECT max(toUInt64OrZero(extract(mutation_id, '[0-9]+'))) AS last FROM system.mutations
       WHERE database = {database:String} AND table = {table:String} 
         AND match(command, '(COLUMN|UPDATE) .*_(topic|partition|offset)') AND NOT match(command, 'UPDATE _row_exists = 0')`,
      { database, table },
    ),
  );
  return row === undefined ? undefined : Number(row.last);
}

/** Where a materialized view writes; undefined when that cannot be found out. */
export async function findTarget(http: ClickHouseWire, view: TableName): Promise<TableName | undefined> {
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
export async function requireTable(http: ClickHouseWire, name: TableName): Promise<Table> {
  const found = await findTable(http, name);
  if (found !== undefined) return found;
  const { database, table } = name;
  const near = await http
    .select<{ table: string }>(
      `SELECT name AS table FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree'
     ORDER BY editDistance(name, {table:String}) LIMIT 3`,
      { database, table },
    )
    .catch(() => []);
  const databases = await http.select<{ name: string }>(
    'SELECT name FROM system.databases WHERE name = {database:String}',
    { database },
  );
  const seen = near.map((row) => row.table).join(', ');
  throw databases.length === 0
    ? new IngestError('KCR_TABLE_MISSING', `there is no database ${database}, or the user may not see it`, {
        table: `${database}.${table}`,
        hint: `CREATE DATABASE ${database}, or GRANT SELECT, INSERT on it`,
      })
    : new IngestError('KCR_TABLE_MISSING', `there is no table ${database}.${table}, or the user may not see it`, {
        table: `${database}.${table}`,
        hint:
          seen === ''
            ? 'create it, or GRANT SELECT, INSERT on it'
            : `create it, grant it, or take one of those there are: ${seen}`,
      });
}

/** Of the table's own SETTINGS. */
export function tableSetting({ engineFull }: Pick<Table, 'engineFull'>, name: string): number | undefined {
  const settings = engineFull.slice(engineFull.lastIndexOf(' SETTINGS ') + 1);
  const found = new RegExp(`(?:^SETTINGS |, )${name} = '?(\\d+)`).exec(settings)?.[1];
  return found === undefined ? undefined : Number(found);
}

/** The dedup window of tables that do not say; undefined: the user may not see it. */
export async function readDefaultWindow(http: ClickHouseWire, family: Family): Promise<number | undefined> {
  if (family === 'none') return undefined;
  const [settings, name] =
    family === 'plain'
      ? ['merge_tree_settings', 'non_replicated_deduplication_window']
      : ['replicated_merge_tree_settings', 'replicated_deduplication_window'];
  const [row] = await ifAllowed(
    http.select<{ value: string }>(`SELECT value FROM system.${settings} WHERE name = {name:String}`, { name }),
  );
  return row === undefined ? undefined : Number(row.value);
}

/** For how long the table keeps tokens; undefined: they do not grow old, or the user may not see it. */
export async function readWindowSeconds(http: ClickHouseWire, table: Table): Promise<number | undefined> {
  const name = 'replicated_deduplication_window_seconds';
  if (table.family !== 'replicated') return undefined;
  const own = tableSetting(table, name);
  if (own !== undefined) return own;
  const [row] = await ifAllowed(
    http.select<{ value: string }>(
      'SELECT value FROM system.replicated_merge_tree_settings WHERE name = {name:String}',
      { name },
    ),
  );
  return row === undefined ? undefined : Number(row.value);
}

function familyOf(engine: string): Family {
  if (!engine.endsWith('MergeTree')) return 'none';
  return engine.startsWith('Replicated') || engine.startsWith('Shared') ? 'replicated' : 'plain';
}
