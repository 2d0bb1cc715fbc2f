/**
 * What ClickHouse says when a statement of the store fails: what passes, and what a person must change. Pure. Imports:
 * errors. Imports: errors.
 */
import { IngestError } from '../errors.js';

const hintNotEnabled =
  'add <clickhouse><keeper_map_path_prefix>/kafka_clickhouse_rx</keeper_map_path_prefix></clickhouse> to the ' +
  "server's configuration " +
  '(a file in config.d) and restart it; it also needs a <zookeeper> section there that names its ZooKeeper or ' +
  'ClickHouse Keeper.';
/** Codes that pass: the statement may have taken effect, may still, or never will. The names are ClickHouse's. */
export const passing = new Set([
  159, // TIMEOUT_EXCEEDED
  202, // TOO_MANY_SIMULTANEOUS_QUERIES
  203, // NO_FREE_CONNECTION
  209, // SOCKET_TIMEOUT
  210, // NETWORK_ERROR
  225, // NO_ZOOKEEPER
  236, // ABORTED
  241, // MEMORY_LIMIT_EXCEEDED
  242, // TABLE_IS_READ_ONLY
  319, // UNKNOWN_STATUS_OF_INSERT
  394, // QUERY_WAS_CANCELLED
  425, // SYSTEM_ERROR
  439, // CANNOT_SCHEDULE_TASK
  473, // DEADLOCK_AVOIDED
  733, // TABLE_IS_BEING_RESTARTED
  735, // QUERY_WAS_CANCELLED_BY_CLIENT
  745, // SERVER_OVERLOADED
  999, // KEEPER_EXCEPTION: conflicts too, which are told from the rest by the row alone
  1000, // POCO_EXCEPTION
  1001, // STD_EXCEPTION
  1002, // UNKNOWN_EXCEPTION
]);
const unknownTable = 60;

/** Whose statement it was. */
export interface Refused {
  readonly username: string;
  readonly database: string;
  /** Quoted, with its database. */
  readonly table: string;
}

/** What to do about a refusal; undefined: what the server says must do. */
export function hintFor({ username, database, table }: Refused, code: number, reason: string): string | undefined {
  const user = quoted(username, '`');
  if (code === 139 || reason.includes('keeper_map_path_prefix')) return hintNotEnabled;
  if (reason.includes('TABLE ENGINE')) return `GRANT TABLE ENGINE ON KeeperMap TO ${user}`;
  if (code === 497) return `GRANT CREATE TABLE, SELECT, INSERT, ALTER UPDATE, ALTER DELETE ON ${table} TO ${user}`;
  if (code === 81) return `CREATE DATABASE ${quoted(database, '`')}, or set \`database\` to one that is there.`;
  if (code === 192 || code === 193 || code === 194 || code === 516) return 'check `username` and `password`.';
  if (code === 164 || code === 452)
    return (
      "the user's profile must let settings be set with a request: readonly = 0 or 2, and no constraint on " +
      'the one that is named.'
    );
  if (code === 16 || code === 36 || code === 47) {
    return (
      'choose another `table` or `path`: what is there is not a KeeperMap table with the columns key String ' +
      'and value String.'
    );
  }
  return undefined;
}

/** Nothing where the table is not there. */
export function unlessNoTable(thrown: unknown): undefined {
  if (thrown instanceof IngestError && thrown.fields.serverCode === unknownTable) return undefined;
  throw thrown;
}

/** In the statement, not beside it as a parameter: parameters go into the url, which proxies keep short. */
export function quoted(text: string, quote: "'" | '`' = "'"): string {
  return quote + text.replaceAll('\\', '\\\\').replaceAll(quote, `\\${quote}`) + quote;
}

export function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  return (thrown.message || (thrown as NodeJS.ErrnoException).code || thrown.name).trim().slice(0, 1000);
}
