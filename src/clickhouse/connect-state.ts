/**
 * The KeeperMap table in which clickhouse-kafka-connect keeps its state, read and understood. Nothing is changed
 * in it.
 *
 * The connector makes it as ("key" String, minOffset BIGINT, maxOffset BIGINT, state String) ENGINE = KeeperMap(…); the
 * option `zkDatabase` is the table's name. The key is `<topic>-<partition>`, both offsets are included.
 * Imports: clickhouse/client, errors.
 */
import { IngestError } from '../errors.js';
import { ClickHouseHttp, quotedTable, type ClickHouseConnection } from './client/http.js';

/** What the connector was about to do, or has done, with the range. */
export type ConnectPhase = 'NONE' | 'BEFORE_PROCESSING' | 'AFTER_PROCESSING';

export interface ConnectRow {
  readonly topic: string;
  readonly partition: number;
  readonly first: number;
  readonly last: number;
  readonly phase: ConnectPhase;
}

const columns = ['key', 'minOffset', 'maxOffset', 'state'] as const;
type Raw = Record<(typeof columns)[number], string | number>;

/**
 * @throws `KCR_TABLE_MISSING`, `KCR_CONFIG` for a table of another shape, `KCR_STATE_INVALID` for a row that makes no
 * sense.
 */
export async function readConnectState(
  connection: ClickHouseConnection,
  name: { readonly database: string; readonly table: string },
): Promise<readonly ConnectRow[]> {
  const http = new ClickHouseHttp(connection);
  const table = `${name.database}.${name.table}`;
  try {
    const found = await http.select<{ name: string }>(
      'SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String}',
      { database: name.database, table: name.table },
    );
    if (found.length === 0) {
      throw new IngestError('KCR_TABLE_MISSING', `there is no table ${table}, or the user may not see it`, {
        table,
        hint:
          'its name is the option zkDatabase of the connector (connect_state unless it was set), its database ' +
          'the connector’s database',
      });
    }
    const missing = columns.filter((column) => !found.some((each) => each.name === column));
    if (missing.length > 0) {
      const hint = 'give the table that the option zkDatabase of clickhouse-kafka-connect names';
      throw new IngestError(
        'KCR_CONFIG',
        `${table} is not a state of clickhouse-kafka-connect: it has no column ${missing.join(', ')}`,
        { table, hint },
      );
    }
    const rows = await http.select<Raw>(`SELECT ${columns.join(', ')} FROM ${quotedTable(name.database, name.table)}`);
    return rows.map((row) => connectRow(row, table));
  } finally {
    http.close();
  }
}

/** Pure. A topic may have dashes: the partition stands behind the last one. */
export function connectRow({ key, minOffset, maxOffset, state }: Raw, table: string): ConnectRow {
  const [, topic, partition] = /^(.+)-(\d{1,9})$/s.exec(String(key)) ?? [];
  const [first, last] = [Number(minOffset), Number(maxOffset)];
  const refuse = (why: string): never => {
    throw new IngestError('KCR_STATE_INVALID', `The row ${JSON.stringify(key)} of ${table} makes no sense: ${why}`, {
      table,
      hint: 'look at the row; once it is right, or deleted, import again',
    });
  };
  if (topic === undefined || partition === undefined) return refuse('its key is not <topic>-<partition>');
  if (state !== 'NONE' && state !== 'BEFORE_PROCESSING' && state !== 'AFTER_PROCESSING')
    return refuse(`its state is ${JSON.stringify(state)}`);
  if (state !== 'NONE' && !(Number.isSafeInteger(first) && Number.isSafeInteger(last) && first >= 0 && first <= last)) {
    return refuse(`its range is ${minOffset}-${maxOffset}`);
  }
  return { topic, partition: Number(partition), first, last, phase: state };
}

/** The dedup token under which the connector inserts the range. */
export function connectToken({ topic, partition, first, last }: ConnectRow): string {
  return `${topic}-${partition}-${first}-${last}`;
}
