/**
 * The table in which `keeper-map.ts` keeps states: its statements, each of them made again until time is up. Imports:
 * errors, `clickhouse/client/`. Imports: Node, clickhouse/client, errors, ports.
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Asking, openAsking } from '../clickhouse/client/ask.js';
import { answerTo, pinned, rowsOf, serverError, type Settings } from '../clickhouse/client/asked.js';
import { connectionFault } from '../clickhouse/client/connection-fault.js';
import { type ClickHouseAddress, Endpoint } from '../clickhouse/client/connection.js';
import { IngestError, type ErrorFields } from '../errors.js';
import { hintFor, passing, quoted, reasonOf, unlessNoTable } from './keeper-map-refusals.js';
import { PinnedLooks } from '../clickhouse/client/look-settings.js';
import type { StateKey } from '../ports.js';

/** Which KeeperMap table keeps the states, and how ClickHouse is reached. */
export interface KeeperMapStoreConfig extends ClickHouseAddress {
  /** Made by the first claim when absent. @default 'kafka_clickhouse_rx_state' */
  readonly table?: string;
  /**
   * Where in Keeper a table that is made keeps its rows, beneath the server's own prefix. @default
   * '/kafka_clickhouse_rx'
   */
  readonly path?: string;
  /** How long one request may take. When Keeper is away, ClickHouse takes 10 to 26 s to say so. @default 30000 */
  readonly requestTimeoutMs?: number;
  /**
   * After this a call that got no answer errors with `KCR_STORE_UNREACHABLE`, milliseconds. @default `requestTimeoutMs`
   */
  readonly operationTimeoutMs?: number;
}

export const keeperMapDefaults = {
  table: 'kafka_clickhouse_rx_state',
  path: '/kafka_clickhouse_rx',
  requestTimeoutMs: 30_000,
} as const;

export interface Row {
  readonly text: string;
  /** How often Keeper's node was written since it was made. */
  readonly version: number;
}

const firstPauseMs = 25;
/** As many as @clickhouse/client has by default; the others wait. */
const MAX_CONNECTIONS = 10;
const maxPauseMs = 1000;
const hintUnreachable =
  'check that `url` is that of the HTTP interface (port 8123, or 8443 with TLS), that the server is up, and that ' +
  'it reaches its Keeper.';
const hintDeleted = 'to reset a partition stop its owner first; what was in doubt is not known any more.';

/** What is tried again until time is up; then this is why the call fails. */
export class NotYet extends Error {
  constructor(readonly verdict: IngestError) {
    super(verdict.message, { cause: verdict });
  }
}

/** The statements of one call. Writes give the failure after which nobody knows whether they took effect. */
export interface Statements {
  serverVersion(): Promise<string>;
  /** Where the table keeps its rows; undefined when this is not to be seen. */
  pathInKeeper(): Promise<string | undefined>;
  select(rowKey: string): Promise<Row | undefined>;
  /** Makes a row that is not there. */
  insert(rowKey: string, text: string): Promise<IngestError | undefined>;
  /** Replaces the whole text of a row. */
  replace(rowKey: string, old: string, text: string): Promise<IngestError | undefined>;
  remove(rowKey: string): Promise<void>;
}

/** The table, and the client through which all calls go. */
export class KeeperMap {
  /** For messages: without credentials. */
  readonly address: string;
  /** As people write it. */
  readonly name: string;
  readonly path: string;
  readonly #database: string;
  readonly #tableName: string;
  /** Quoted, with its database. */
  readonly #table: string;
  readonly #username: string;
  readonly #asking: Asking;
  readonly #requestTimeoutMs: number;
  readonly #operationTimeoutMs: number;
  readonly #closed = new AbortController();
  readonly #looks = new PinnedLooks();

  constructor(config: KeeperMapStoreConfig) {
    const {
      database = 'default',
      username = 'default',
      table = keeperMapDefaults.table,
      path = keeperMapDefaults.path,
    } = config;
    const { requestTimeoutMs = keeperMapDefaults.requestTimeoutMs, operationTimeoutMs = requestTimeoutMs } = config;
    const endpoint = new Endpoint(config);
    if (table === '') throw new IngestError('KCR_CONFIG', 'Expected `table` to be a name, got ""');
    if (!/^(\/[^/\p{Cc}]+)+$/u.test(path)) {
      throw new IngestError(
        'KCR_CONFIG',
        `Expected \`path\` to be a path in Keeper, such as "/kafka_clickhouse_rx", got ${JSON.stringify(path)}`,
      );
    }
    checkMs('requestTimeoutMs', requestTimeoutMs);
    checkMs('operationTimeoutMs', operationTimeoutMs);
    this.address = endpoint.address;
    this.name = `${database}.${table}`;
    this.path = path;
    this.#database = database;
    this.#tableName = table;
    this.#table = `${quoted(database, '`')}.${quoted(table, '`')}`;
    this.#username = username;
    this.#requestTimeoutMs = requestTimeoutMs;
    this.#operationTimeoutMs = operationTimeoutMs;
    this.#asking = openAsking(endpoint, { timeoutMs: requestTimeoutMs, maxSockets: MAX_CONNECTIONS });
    // Every request listens to it.
    setMaxListeners(0, this.#closed.signal);
  }

  /** Does `work`, and again while it is not done yet, until time is up. Nothing is sent after `unsubscribed`. */
  async call<T>(
    what: string,
    key: StateKey | undefined,
    unsubscribed: AbortSignal | undefined,
    work: (table: Statements) => Promise<T>,
  ): Promise<T> {
    const endMs = performance.now() + this.#operationTimeoutMs;
    const table = this.#statements((send) => this.#request(what, key, endMs, unsubscribed, send));
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, maxPauseMs)) {
      // Those that want the same row must not meet again and again.
      const waitMs = pauseMs * (0.5 + Math.random());
      try {
        return await work(table);
      } catch (thrown) {
        if (!(thrown instanceof NotYet)) throw thrown;
        if (performance.now() + waitMs > endMs) throw thrown.verdict;
      }
      await sleep(waitMs, undefined, { signal: this.#closed.signal }).catch(() => undefined);
    }
  }

  /** Gives connections back. Calls under way error with `KCR_STORE`, as does every call from now on. */
  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new IngestError('KCR_STORE', 'The state store is closed'));
    await this.#asking.close();
  }

  unreachable(what: string, key: StateKey | undefined, reason: string, fields: ErrorFields = {}): IngestError {
    const message = `${what} failed: ClickHouse at ${this.address}: ${reason}`;
    return new IngestError('KCR_STORE_UNREACHABLE', message, { ...placeOf(key), hint: hintUnreachable, ...fields });
  }

  deleted(key: StateKey, row: Row | undefined): IngestError {
    const found = row === undefined ? 'is not there any more' : 'has seen fewer writes than the claim';
    const message = `The row ${rowKeyOf(key)} of ${this.name} ${found}: it was deleted while it was claimed`;
    return new IngestError('KCR_STORE', message, { ...placeOf(key), hint: hintDeleted });
  }

  #statements(request: <T>(send: (signal: AbortSignal) => Promise<T>) => Promise<T>): Statements {
    const { ask } = this.#asking;
    const select = async <T>(query: string): Promise<T | undefined> => {
      const rows = <Row>(sql: string, settings: Settings) =>
        request((signal) => rowsOf<Row>(ask, 'state', { sql, values: {}, settings, signal }));
      const codeOf = (thrown: unknown) => (thrown instanceof IngestError ? thrown.fields.serverCode : undefined);
      const [row] = await pinned(
        this.#looks,
        <Row>(sql: string) => rows<Row>(sql, {}),
        (pins) => rows<T>(query, pins),
        codeOf,
      );
      return row;
    };
    const command = async (sql: string): Promise<void> => {
      const settings = { keeper_map_strict_mode: '1', async_insert: '0' };
      await request((signal) => answerTo(ask, 'state', { sql, values: {}, settings, format: undefined, signal }));
    };
    const uncertain = async (query: string): Promise<IngestError | undefined> => {
      try {
        await command(query);
        return undefined;
      } catch (thrown) {
        if (thrown instanceof NotYet) return thrown.verdict;
        throw thrown;
      }
    };
    const create =
      `CREATE TABLE IF NOT EXISTS ${this.#table} (key String, value String) ENGINE = ` +
      `KeeperMap(${quoted(this.path)}) PRIMARY KEY key`;
    return {
      serverVersion: async () => (await select<{ version: string }>('SELECT version() AS version'))?.version ?? '',
      pathInKeeper: async () => {
        const found = await select<{ engine_full: string }>(
          `SELECT engine_full FROM system.tables WHERE database = ${quoted(this.#database)} AND name = ` +
            `${quoted(this.#tableName)}`,
        );
        return /^KeeperMap\('((?:[^'\\]|\\.)*)'/s.exec(found?.engine_full ?? '')?.[1]?.replace(/\\(.)/gs, '$1');
      },
      select: async (rowKey) => {
        const query = `SELECT value, _version AS version FROM ${this.#table} WHERE key = ${quoted(rowKey)}`;
        const row = await select<{ value: string; version: number }>(query).catch(unlessNoTable);
        return row && { text: row.value, version: row.version };
      },
      insert: async (rowKey, text) => {
        const query = `INSERT INTO ${this.#table} (key, value) VALUES (${quoted(rowKey)}, ${quoted(text)})`;
        try {
          return await uncertain(query);
        } catch (thrown) {
          unlessNoTable(thrown);
        }
        return (await uncertain(create)) ?? uncertain(query);
      },
      replace: (rowKey, old, text) =>
        uncertain(
          `ALTER TABLE ${this.#table} UPDATE value = ${quoted(text)} WHERE key = ${quoted(rowKey)} AND value = ` +
            `${quoted(old)}`,
        ).catch(unlessNoTable),
      remove: (rowKey) => command(`ALTER TABLE ${this.#table} DELETE WHERE key = ${quoted(rowKey)}`),
    };
  }

  /** One request in what time there is. Throws `NotYet` when it may be that it has, or will, take effect. */
  async #request<T>(
    what: string,
    key: StateKey | undefined,
    endMs: number,
    unsubscribed: AbortSignal | undefined,
    send: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const closed = this.#closed.signal;
    closed.throwIfAborted();
    unsubscribed?.throwIfAborted();
    const timeoutMs = Math.min(this.#requestTimeoutMs, Math.ceil(endMs - performance.now()));
    if (timeoutMs <= 0)
      throw new NotYet(this.unreachable(what, key, `no answer within ${this.#operationTimeoutMs} ms`));
    const abort = new AbortController();
    const stop = (): void => abort.abort();
    const late = setTimeout(stop, timeoutMs);
    closed.addEventListener('abort', stop, { once: true });
    unsubscribed?.addEventListener('abort', stop, { once: true });
    try {
      return await send(abort.signal);
    } catch (thrown) {
      if (closed.aborted) throw closed.reason;
      throw this.#failure(
        what,
        key,
        abort.signal.aborted ? new Error(`no answer within ${timeoutMs} ms`, { cause: thrown }) : thrown,
      );
    } finally {
      clearTimeout(late);
      closed.removeEventListener('abort', stop);
      unsubscribed?.removeEventListener('abort', stop);
    }
  }

  #failure(what: string, key: StateKey | undefined, thrown: unknown): Error {
    const code = serverError(thrown)?.code;
    const reason = reasonOf(thrown);
    const fault = connectionFault(thrown);
    if (fault !== undefined)
      return new NotYet(this.unreachable(what, key, fault.what, { hint: fault.hint, cause: thrown }));
    if (code === undefined) return new NotYet(this.unreachable(what, key, reason, { cause: thrown }));
    if (passing.has(code)) return new NotYet(this.unreachable(what, key, reason, { serverCode: code, cause: thrown }));
    const message = `${what} failed: ClickHouse at ${this.address} refused: ${reason}`;
    return new IngestError('KCR_STORE', message, {
      ...placeOf(key),
      serverCode: code,
      hint: hintFor({ username: this.#username, database: this.#database, table: this.#table }, code, reason),
      cause: thrown,
    });
  }
}

/** Any names as one text; different names give different texts. JSON is valid Unicode whatever the names are. */
export function rowKeyOf({ cluster, group, topic, partition }: StateKey): string {
  return JSON.stringify([cluster, group, topic, partition]);
}

function placeOf(key: StateKey | undefined): ErrorFields {
  return { topic: key?.topic, partition: key?.partition };
}

function checkMs(option: string, ms: number): void {
  if (Number.isInteger(ms) && ms > 0 && ms <= 2 ** 31 - 1) return;
  throw new IngestError('KCR_CONFIG', `Expected \`${option}\` to be milliseconds from 1, got ${ms}`);
}
