/**
 * Do the stored rows hold what the records say? The server reads the records again as an insert would,
 * and compares hashes of the columns; what comes back is offsets and the names of columns, no values.
 * Imports: clickhouse/client, clickhouse/insert, clickhouse/schema, model.
 */
import type { KafkaRecord } from '../../model/record.js';
import { filledColumns } from '../schema/provenance-columns.js';
import { type ClickHouseHttp, quoteIdentifier, quotedTable } from '../client/http.js';
import { quoteText, type RefusedRow, RowTrial, rowsOf } from '../insert/row-trial.js';
import type { Settings } from '../insert/settings.js';
import type { Column, Table } from '../schema/table.js';
import { volatileColumns } from '../schema/volatile.js';

export interface ContentDifference {
  readonly offset: number;
  /** Names of the columns whose values are others than the record's. */
  readonly columns: readonly string[];
}

export interface ContentsFound {
  /** How many offsets differ. */
  readonly count: number;
  /** The first of them. */
  readonly first: readonly ContentDifference[];
  /** Records that ClickHouse cannot read with the table's present columns: they were not compared. */
  readonly unread: { readonly count: number; readonly first: readonly Unread[] };
}

export interface Unread {
  readonly offset: number;
  readonly reason: string;
}

export interface NotCompared {
  readonly column: string;
  readonly why: string;
}

export interface ContentScan {
  readonly notCompared: readonly NotCompared[];
  /**
   * `records`: ascending, of one partition, each one JSON object; of several of one offset each is a row. Offsets
   * without a row in the table are left out.
   */
  differing(partition: number, records: readonly KafkaRecord[], show: number): Promise<ContentsFound>;
}

/** Each costs a question more; beyond so many of one part of the log the comparison is given up. */
const MOST_UNREAD = 100;

export async function openContentScan(
  http: ClickHouseHttp,
  table: Table,
  topic: string,
  settings: Settings,
): Promise<ContentScan> {
  const trial = await RowTrial.open(http, settings);
  const { compared, notCompared } = comparable(table);
  const sql = query(table, compared);
  const ask = (
    partition: number,
    records: readonly KafkaRecord[],
    show: number,
  ): Promise<readonly Row[] | RefusedRow> => {
    const params = {
      param_partition: String(partition),
      param_topic: topic,
      param_first: String(records[0]?.offset),
      param_last: String(records.at(-1)?.offset),
      param_show: String(show),
    };
    return trial.select<Row>(sql, table, rowsOf(records, table.provenance, topic, partition), params);
  };
  return {
    notCompared,
    differing: async (partition, records, show) => {
      const unread: Unread[] = [];
      let readable = records;
      while (readable.length > 0 && unread.length < MOST_UNREAD) {
        const found = await ask(partition, readable, show);
        if (!('index' in found)) return differencesOf(found, unread, show);
        unread.push({ offset: readable[found.index]?.offset ?? -1, reason: found.reason });
        readable = readable.filter((_, index) => index !== found.index);
      }
      return { count: 0, first: [], unread: { count: unread.length + readable.length, first: unread.slice(0, show) } };
    },
  };
}

function differencesOf(found: readonly Row[], unread: readonly Unread[], show: number): ContentsFound {
  const first = found.slice(0, show).map(({ offset, columns }) => ({ offset: Number(offset), columns }));
  return { count: Number(found[0]?.total ?? 0), first, unread: { count: unread.length, first: unread.slice(0, show) } };
}

interface Row {
  readonly offset: string | number;
  readonly columns: readonly string[];
  readonly total: string | number;
}

/** Values that the server makes up differ by nature, or need not be stored at all. */
function comparable(table: Table): {
  readonly compared: readonly Column[];
  readonly notCompared: readonly NotCompared[];
} {
  const { columns } = table;
  const made = new Map(
    volatileColumns(columns, filledColumns(table)).map(({ column, because }) => [column.name, because]),
  );
  const whyNot = ({ name, type, defaultKind }: Column): string | undefined => {
    if (['MATERIALIZED', 'ALIAS', 'EPHEMERAL'].includes(defaultKind)) return `it is ${defaultKind}`;
    if (made.has(name)) return `its default is ${made.get(name)}, which gives another value each time`;
    if (type.startsWith('AggregateFunction')) return 'it holds the state of an aggregate function';
    return undefined;
  };
  const judged = columns.map((column) => ({ column, why: whyNot(column) }));
  return {
    compared: judged.filter(({ why }) => why === undefined).map(({ column }) => column),
    notCompared: judged.flatMap(({ column, why }) => (why === undefined ? [] : [{ column: column.name, why }])),
  };
}

/** Names that no column has, and an expression cannot mistake for one. */
const [OFFSET, HASHES] = ['kcr offset', 'kcr hashes'].map(quoteIdentifier) as [string, string];

function query({ database, table, provenance }: Table, compared: readonly Column[]): string {
  // As sets: a row that is there twice is told elsewhere.
  const hashes = `[${compared.map((column) => `arraySort(groupUniqArray(${hashOf(column)}))`).join(', ')}]`;
  const grouped = (from: string): string =>
    `SELECT toInt64(_offset) AS ${OFFSET}, ${hashes} AS ${HASHES} FROM ${from} GROUP BY ${OFFSET}`;
  const ofTopic = provenance.topic ? ' AND _topic = {topic:String}' : '';
  const stored =
    `${quotedTable(database, table)} WHERE _partition = {partition:Int32}${ofTopic} AND _offset ` +
    'BETWEEN {first:Int64} AND ' +
    '{last:Int64}';
  const names = compared.map(({ name }) => quoteText(name)).join(', ');
  return `SELECT r.${OFFSET} AS offset, arrayFilter((name, a, b) -> a != b, [${names}], r.${HASHES}, t.${HASHES}) AS columns, count() OVER () AS total
    FROM (${grouped('{rows}')}) AS r INNER JOIN (${grouped(stored)}) AS t ON r.${OFFSET} = t.${OFFSET}
    WHERE r.${HASHES} != t.${HASHES} ORDER BY offset LIMIT {show:UInt32} + 1`;
}

/** What holds paths or types that are found while reading may be laid out otherwise in a part. */
function hashOf({ name, type }: Column): string {
  const value = quoteIdentifier(name);
  return `sipHash64(tuple(${/\b(JSON|Object|Dynamic|Variant)\b/.test(type) ? `toString(${value})` : value}))`;
}
