/**
 * Room: the state of partitions in a ClickHouse table of the engine KeeperMap, for those whose ClickHouse has a Keeper
 * that nobody else can reach. One row per partition: `key` is the JSON list `[cluster, group, topic, partition]`,
 * `value` the state. Statements go out and answers are checked as everywhere: see
 * `clickhouse/client/ask.ts`; of `clickhouse/` only `client/` may enter.
 *
 * What KeeperMap gives, and what it does not
 *
 * A row is one node in Keeper. `INSERT` makes it, `ALTER … UPDATE value = new WHERE key = … AND value = old` reads it,
 * compares, and sets it. With `keeper_map_strict_mode` both are sound: the first is a `create`, the second a `set` on
 * the version that was read, so what came in between makes it fail ("Bad version"). Without, two that update at once
 * both succeed, which is why the mode goes with every statement and `checkKeeperMap` proves that it is obeyed. The
 * statement is done when it is answered; no mutation stays behind.
 *
 * No answer tells who won. 200 is also given where the condition matched nothing. "Bad version" and "Node exists" are
 * also given to the winner: ClickHouse repeats a request to Keeper whose reply it lost, and stumbles over its own first
 * one. Hence every write is followed by a read, whatever was answered, and the row decides.
 *
 * Why a lost reply cannot lose or double a write
 *
 * A statement whose reply was lost may take effect later: it runs on in ClickHouse, for half a minute when Keeper does
 * not answer. No read can tell "never" from "not yet", so nothing is concluded from a read that shows the old value:
 *
 * 1. Every write is conditional on the whole text that its claim stands on, or on there being none. No two writes share
 *    a text, for each has a name of its own, so a text that was replaced never comes back, and of a statement and its
 *    repetitions at most one takes effect, in whatever order and however late they arrive. That holds even across a row
 *    that was deleted and made anew: the row that a late first claim makes has the empty state, as if it were not there.
 * 2. A lost reply is answered by sending the same statement again and then reading. The row holds our text: it took
 *    effect, whichever of them it was, and none will again. It holds a third text, and its version (Keeper counts a
 *    node's writes) is not below the one our claim stands on: the old text is gone for good, hence we are fenced.
 * 3. The row holds the old text still, or an older one, or there is no row: the ClickHouse that was asked is behind.
 *    KeeperMap reads from the Keeper server that this ClickHouse has its session with, which may lag; and behind a load
 *    balancer the next ClickHouse may be another one. It is neither success nor fencing: 2 begins anew.
 * 4. When time is up the outcome stays open: KCR_STORE_UNREACHABLE. Calling again with the same claim and state sends
 *    the same statement: still 2. A row that is missing or too old by then was deleted: KCR_STORE.
 *
 * Claims are writes like any other: read, write the new owner on the text that was read, read back. That the first read
 * may be behind does no harm: what it gave is current if and only if the write on it takes effect. A claim that the read
 * does not show, because its reply was lost or somebody was quicker, is made once more, under a new name, over its own
 * effect if it had one. One that takes effect late, after its caller gave up, fences the owner of that time; it never
 * changes a state. `read` alone is as old as the server that answers; only a claim makes it certain.
 */
import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Asking, openAsking } from '../clickhouse/client/ask.js';
import { answerTo, pinned, rowsOf, serverError, type Settings } from '../clickhouse/client/asked.js';
import { connectionFault } from '../clickhouse/client/connection-fault.js';
import { type ClickHouseAddress, Endpoint } from '../clickhouse/client/connection.js';
import { IngestError, type ErrorFields } from '../errors.js';
import { PinnedLooks } from '../clickhouse/client/look-settings.js';
import { decodeState, encodeState, neverStored } from '../model/state-codec.js';
import type { PartitionState } from '../model/state.js';
import type { Claim, StateKey, StateStore, Stored } from '../ports.js';
import { asStored, fencedBy, nextText, untilUnsubscribed, type Mark } from './write-marks.js';

export interface KeeperMapStoreConfig extends ClickHouseAddress {
  /** Made by the first claim when absent. @default 'kafka_clickhouse_rx_state' */
  readonly table?: string;
  /** Where in Keeper a table that is made keeps its rows, beneath the server's own prefix. @default '/kafka_clickhouse_rx' */
  readonly path?: string;
  /** How long one request may take. When Keeper is away, ClickHouse takes 10 to 26 s to say so. @default 30000 */
  readonly requestTimeoutMs?: number;
  /** After this a call that got no answer errors with `KCR_STORE_UNREACHABLE`, milliseconds. @default `requestTimeoutMs` */
  readonly operationTimeoutMs?: number;
}

/** What `checkKeeperMap` found. */
export interface KeeperMapCheck {
  /** The server that answered. */
  readonly server: string;
  readonly version: string;
  /** The table in which states are kept. */
  readonly table: string;
}

interface TextMark extends Mark {
  /** The row's whole value: what the next write replaces. */
  readonly text: string;
}

interface Row {
  readonly text: string;
  /** How often Keeper's node was written since it was made. */
  readonly version: number;
}

export const keeperMapDefaults = {
  table: 'kafka_clickhouse_rx_state',
  path: '/kafka_clickhouse_rx',
  requestTimeoutMs: 30_000,
} as const;

const firstPauseMs = 25;
/** As many as @clickhouse/client has by default; the others wait. */
const MAX_CONNECTIONS = 10;
const maxPauseMs = 1000;
const hintUnreachable =
  'check that `url` is that of the HTTP interface (port 8123, or 8443 with TLS), that the server is up, and that it reaches its Keeper.';
const hintNotEnabled =
  "add <clickhouse><keeper_map_path_prefix>/kafka_clickhouse_rx</keeper_map_path_prefix></clickhouse> to the server's configuration " +
  '(a file in config.d) and restart it; it also needs a <zookeeper> section there that names its ZooKeeper or ClickHouse Keeper.';
const hintDeleted = 'to reset a partition stop its owner first; what was in doubt is not known any more.';

/** Codes that pass: the statement may have taken effect, may still, or never will. The names are ClickHouse's. */
const passing = new Set([
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

/** Connects when first used. */
export function keeperMapStore(config: KeeperMapStoreConfig): StateStore {
  const map = new KeeperMap(config);
  return {
    name: 'keeper-map',
    claim: (key, owner) => untilUnsubscribed((signal) => claim(map, key, owner, signal)),
    write: (held, state) => untilUnsubscribed((signal) => write(map, held, state, signal)),
    read: (key) => untilUnsubscribed((signal) => read(map, key, signal)),
    close: () => map.close(),
  };
}

/**
 * Can states be kept there? Makes the table when absent, then tries every kind of write on a row of its own and removes it.
 * Errors: `KCR_CONFIG`, `KCR_STORE_UNREACHABLE`, `KCR_STORE` with what has to be changed.
 */
export async function checkKeeperMap(config: KeeperMapStoreConfig): Promise<KeeperMapCheck> {
  const map = new KeeperMap(config);
  try {
    return await map.call('Checking', undefined, undefined, async (table) => {
      const version = await table.serverVersion();
      const probe = JSON.stringify(['probe', randomBytes(6).toString('hex')]);
      try {
        await prove(map, table, probe);
      } catch (thrown) {
        await table.remove(probe).catch(() => undefined);
        throw thrown;
      }
      await table.remove(probe);
      return { server: map.address, version, table: map.name };
    });
  } finally {
    await map.close();
  }
}

/** Each write as a store makes it, and each as it must fail. */
async function prove(map: KeeperMap, table: Statements, probe: string): Promise<void> {
  const holds = async (text: string, step: string, failure: IngestError | undefined): Promise<void> => {
    const row = await table.select(probe);
    if (row?.text === text) return;
    if (failure !== undefined) throw new NotYet(failure);
    throw new IngestError(
      'KCR_STORE',
      `${map.name} does not compare and set: ${step}, and the row holds ${JSON.stringify(row?.text)}`,
      {
        hint: 'see that the setting keeper_map_strict_mode=1, which goes with every request, gets to the server: a proxy may take it out.',
      },
    );
  };
  await holds('1', '1 was inserted', await table.insert(probe, '1'));
  const path = await table.pathInKeeper();
  if (path !== undefined && path !== map.path) {
    throw new IngestError('KCR_STORE', `${map.name} keeps its rows at ${path} in Keeper, not at ${map.path}`, {
      hint: `set \`path\` to ${path}, or choose another \`table\`; servers that share a Keeper must agree, else a partition gets two states.`,
    });
  }
  await table.insert(probe, '2');
  await holds('1', '2 was inserted where a row was', undefined);
  await holds('1', '0 was to be replaced by 3', await table.replace(probe, '0', '3'));
  await holds('4', '1 was to be replaced by 4', await table.replace(probe, '1', '4'));
}

function claim(map: KeeperMap, key: StateKey, owner: string, signal: AbortSignal): Promise<Claim> {
  const rowKey = rowKeyOf(key);

  return map.call('Claiming', key, signal, async (table) => {
    const before = await table.select(rowKey);
    const { state } = before === undefined ? neverStored : decodeState(before.text, key);
    const claimId = randomBytes(9).toString('base64url');
    const text = encodeState({ state, owner, write: `${claimId}-0` }, key);
    const failure =
      before === undefined ? await table.insert(rowKey, text) : await table.replace(rowKey, before.text, text);
    const row = await readBack(table, rowKey, failure);
    if (row?.text === text)
      return { key, owner, state, version: { version: row.version, claimId, writes: 0, text } satisfies TextMark };
    // Somebody was quicker, or it is not known yet: the later claim wins, so claim again over what is there then.
    throw new NotYet(failure ?? map.unreachable('Claiming', key, 'others wrote the state in between, again and again'));
  });
}

function write(
  map: KeeperMap,
  { key, owner, version }: Claim,
  state: PartitionState,
  signal: AbortSignal,
): Promise<Claim> {
  const rowKey = rowKeyOf(key);
  const mark = version as TextMark;
  const text = nextText(key, owner, mark, state);

  return map.call('Writing', key, signal, async (table) => {
    const failure = await table.replace(rowKey, mark.text, text);
    const row = await readBack(table, rowKey, failure);
    if (row?.text === text) {
      const next: TextMark = { ...mark, version: row.version, writes: mark.writes + 1, text };
      return { key, owner, state, version: next };
    }
    if (row === undefined || row.version < mark.version) throw new NotYet(failure ?? map.deleted(key, row));
    if (row.text === mark.text)
      throw new NotYet(failure ?? map.unreachable('Writing', key, 'the state stays as it was'));
    throw fencedBy(key, owner, mark, row.text);
  });
}

/** When that gets no answer either, what the write was told says more about the reason. */
async function readBack(table: Statements, rowKey: string, failure: IngestError | undefined): Promise<Row | undefined> {
  try {
    return await table.select(rowKey);
  } catch (thrown) {
    throw failure !== undefined && thrown instanceof NotYet ? new NotYet(failure) : thrown;
  }
}

/** As the server that is asked has it, which may be behind: only a claim makes it certain. */
function read(map: KeeperMap, key: StateKey, signal: AbortSignal): Promise<Stored> {
  return map.call('Reading', key, signal, async (table) => {
    const row = await table.select(rowKeyOf(key));
    return asStored(row === undefined ? neverStored : decodeState(row.text, key));
  });
}

/** What is tried again until time is up; then this is why the call fails. */
class NotYet extends Error {
  constructor(readonly verdict: IngestError) {
    super(verdict.message, { cause: verdict });
  }
}

/** The statements of one call. Writes give the failure after which nobody knows whether they took effect. */
interface Statements {
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
class KeeperMap {
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
    const create = `CREATE TABLE IF NOT EXISTS ${this.#table} (key String, value String) ENGINE = KeeperMap(${quoted(this.path)}) PRIMARY KEY key`;
    return {
      serverVersion: async () => (await select<{ version: string }>('SELECT version() AS version'))?.version ?? '',
      pathInKeeper: async () => {
        const found = await select<{ engine_full: string }>(
          `SELECT engine_full FROM system.tables WHERE database = ${quoted(this.#database)} AND name = ${quoted(this.#tableName)}`,
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
          `ALTER TABLE ${this.#table} UPDATE value = ${quoted(text)} WHERE key = ${quoted(rowKey)} AND value = ${quoted(old)}`,
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
      hint: this.#hint(code, reason),
      cause: thrown,
    });
  }

  #hint(code: number, reason: string): string | undefined {
    const user = quoted(this.#username, '`');
    if (code === 139 || reason.includes('keeper_map_path_prefix')) return hintNotEnabled;
    if (reason.includes('TABLE ENGINE')) return `GRANT TABLE ENGINE ON KeeperMap TO ${user}`;
    if (code === 497)
      return `GRANT CREATE TABLE, SELECT, INSERT, ALTER UPDATE, ALTER DELETE ON ${this.#table} TO ${user}`;
    if (code === 81) return `CREATE DATABASE ${quoted(this.#database, '`')}, or set \`database\` to one that is there.`;
    if (code === 192 || code === 193 || code === 194 || code === 516) return 'check `username` and `password`.';
    if (code === 164 || code === 452)
      return "the user's profile must let settings be set with a request: readonly = 0 or 2, and no constraint on the one that is named.";
    if (code === 16 || code === 36 || code === 47) {
      return 'choose another `table` or `path`: what is there is not a KeeperMap table with the columns key String and value String.';
    }
    return undefined;
  }
}

function unlessNoTable(thrown: unknown): undefined {
  if (thrown instanceof IngestError && thrown.fields.serverCode === unknownTable) return undefined;
  throw thrown;
}

/** Any names as one text; different names give different texts. JSON is valid Unicode whatever the names are. */
function rowKeyOf({ cluster, group, topic, partition }: StateKey): string {
  return JSON.stringify([cluster, group, topic, partition]);
}

/** In the statement, not beside it as a parameter: parameters go into the url, which proxies keep short. */
function quoted(text: string, quote: "'" | '`' = "'"): string {
  return quote + text.replaceAll('\\', '\\\\').replaceAll(quote, `\\${quote}`) + quote;
}

function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  return (thrown.message || (thrown as NodeJS.ErrnoException).code || thrown.name).trim().slice(0, 1000);
}

function placeOf(key: StateKey | undefined): ErrorFields {
  return { topic: key?.topic, partition: key?.partition };
}

function checkMs(option: string, ms: number): void {
  if (Number.isInteger(ms) && ms > 0 && ms <= 2 ** 31 - 1) return;
  throw new IngestError('KCR_CONFIG', `Expected \`${option}\` to be milliseconds from 1, got ${ms}`);
}
