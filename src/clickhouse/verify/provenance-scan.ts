/**
 * Which offsets a table has rows of, by its provenance columns, for people who compare it with the topic. Reads
 * only; the work is the server's, and what comes back is runs of offsets, not rows.
 * Imports: clickhouse, clickhouse/client, clickhouse/insert, clickhouse/schema, errors.
 */
import { IngestError } from '../../errors.js';
import { type ContentScan, openContentScan } from './content-scan.js';
import { ClickHouseHttp, quotedTable } from '../client/http.js';
import { checkOptions, databaseOf, type ClickHouseSinkOptions } from '../options.js';
import { provenanceStatement, readBackFault } from '../schema/provenance-columns.js';
import { HIDDEN, hidesRows, SEES_ALL } from './row-policies.js';
import { insertSettings } from '../insert/settings.js';
import type { Table } from '../schema/table.js';
import { readServer, requireTable } from '../schema/tables.js';

/** Consecutive offsets that have the same number of rows each. Both ends are included. */
export interface OffsetRun {
  readonly first: number;
  readonly last: number;
  readonly rows: number;
}

/** What a table has of one partition. */
export interface Extent {
  readonly rows: number;
  readonly first: number;
  readonly last: number;
}

export interface ProvenanceScan {
  /** `database.table` */
  readonly table: string;
  readonly engine: string;
  /** Its merges make one row of several: a count may be another one a minute later. */
  readonly collapses: boolean;
  /** Undefined: no row at all. */
  extent(partition: number): Promise<Extent | undefined>;
  /** The same of the offsets from `first` up to `last`. */
  within(partition: number, first: number, last: number): Promise<Extent | undefined>;
  /** Ascending; offsets without a row are in none. */
  runs(partition: number, first: number, last: number): Promise<readonly OffsetRun[]>;
  /** Opens the comparison of contents, which asks the server to read records again. */
  contents(): Promise<ContentScan>;
  close(): void;
}

/**
 * @throws `KCR_TABLE_UNSUITABLE` with the statement that mends it, for a table whose rows cannot be told apart by
 * offset, or of which a row policy hides rows from the user; `KCR_TABLE_MISSING`, `KCR_CLICKHOUSE_UNREACHABLE`,
 * `KCR_PREFLIGHT`.
 */
export async function openProvenanceScan(options: ClickHouseSinkOptions, topic: string): Promise<ProvenanceScan> {
  const route = options.routes.find((each) => each.topic === topic);
  if (route === undefined) throw new IngestError('KCR_CONFIG', 'there is no route for this topic', { topic });
  checkOptions(options);
  const http = new ClickHouseHttp(options);
  try {
    const table = await requireTable(http, { database: databaseOf(options, route), table: route.table });
    const fault = readBackFault(table);
    if (fault !== undefined) throw unsuitable(table, fault, topic);
    if (await hidesRows(http, table)) throw hidden(table, topic);
    return scanOf(http, table, topic, options);
  } catch (error) {
    http.close();
    throw error;
  }
}

function scanOf(
  http: ClickHouseHttp,
  table: Table,
  topic: string,
  { clickhouseSettings = {} }: ClickHouseSinkOptions,
): ProvenanceScan {
  const from =
    `FROM ${quotedTable(table.database, table.table)} WHERE _topic = {topic:String} AND _partition = ` +
    '{partition:Int32}';
  type Numbers<Name extends string> = Record<Name, string | number>;
  const within = async (partition: number, first: number, last: number): Promise<Extent | undefined> => {
    const sql =
      `SELECT count() AS rows, min(toInt64(_offset)) AS first, max(toInt64(_offset)) AS last ${from} ` +
      'AND toInt64(_offset) BETWEEN {first:Int64} AND ' +
      '{last:Int64}';
    const [found] = await http.select<Numbers<'rows' | 'first' | 'last'>>(sql, { partition, topic, first, last });
    if (found === undefined || Number(found.rows) === 0) return undefined;
    return { rows: Number(found.rows), first: Number(found.first), last: Number(found.last) };
  };
  return {
    table: `${table.database}.${table.table}`,
    engine: table.engine,
    collapses: table.collapses,
    extent: (partition) => within(partition, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
    within,
    contents: async () =>
      openContentScan(
        http,
        table,
        topic,
        insertSettings(clickhouseSettings, (await readServer(http)).knownSettings).plain,
      ),
    runs: async (partition, first, last) => {
      const counts =
        `SELECT toInt64(_offset) AS o, count() AS n ${from} AND _offset BETWEEN {first:Int64} AND ` +
        '{last:Int64} GROUP BY o';
      // Within a run the offset and its rank grow together, so their difference names the run.
      const ranked = `SELECT o, n, o - toInt64(row_number() OVER (PARTITION BY n ORDER BY o)) AS run FROM (${counts})`;
      const found = await http.select<Numbers<'a' | 'b' | 'n'>>(
        `SELECT min(o) AS a, max(o) AS b, n FROM (${ranked}) GROUP BY n, run ORDER BY a`,
        {
          partition,
          topic,
          first,
          last,
        },
      );
      return found.map(({ a, b, n }) => ({ first: Number(a), last: Number(b), rows: Number(n) }));
    },
    close: () => http.close(),
  };
}

function hidden({ database, table }: Table, topic: string): IngestError {
  return new IngestError(
    'KCR_TABLE_UNSUITABLE',
    `The table cannot be compared with the topic: ${HIDDEN}, so that they would look missing`,
    {
      topic,
      table: `${database}.${table}`,
      hint: SEES_ALL,
    },
  );
}

function unsuitable(table: Table, fault: string, topic: string): IngestError {
  const statement = provenanceStatement(table);
  const hint =
    statement === undefined
      ? 'put _offset into the sorting key of a new table; rows that were merged away cannot be told from rows ' +
        'that were never there'
      : `${statement}; rows that are in the table already will not have the values, so compare from the first ` +
        'offset that is ingested after it ' +
        '(--from-offset)';
  return new IngestError('KCR_TABLE_UNSUITABLE', `The table cannot be compared with the topic: ${fault}`, {
    topic,
    table: `${table.database}.${table.table}`,
    hint,
  });
}
