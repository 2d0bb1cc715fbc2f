/**
 * The way into ClickHouse's tables: what is shared by all batches. What one batch needs is in `prepared-batch.ts`.
 * Imports: clickhouse/client, clickhouse/insert, clickhouse/schema, errors, events, ports.
 */
import { IngestError } from '../errors.js';
import { ignoreEvents, type OnEvent } from '../events.js';
import type { PreparingSink, PreparedInsert, InsertBatch } from '../ports.js';
import { checkRecords, checkTable } from './insert/check-batch.js';
import { PreparedBatch } from './insert/prepared-batch.js';
import type { Encoding } from './client/sending.js';
import type { AsyncInsert, SinkContext, TargetTable } from './insert/sink-context.js';
import { ClickHouseHttp, type ClickHouseWire } from './client/http.js';
import { asyncInsertFault } from './insert/async-insert.js';
import {
  checkOptions,
  type ClickHouseSinkOptions,
  COALESCE_BYTES,
  coalesceMsOf,
  databaseOf,
  MAX_ASYNC_IN_FLIGHT,
  MAX_IN_FLIGHT,
} from './options.js';
import { fingerprintOf, type InsertSettings, insertSettings, type ServerIdentity } from './insert/settings.js';
import { InsertSlots } from './insert/slots.js';
import { readServer, readServerIdentity, requireTable } from './schema/tables.js';
import { budgetWithin, DEDUP_BUDGET_MS } from './insert/token-doubt.js';
import { refreshAll, WatchedTable } from './schema/watched-table.js';

/** Of the bodies of inserts that wait for others: hundreds are in flight, most of them a few kilobytes. */
const SMALL_PIECE_BYTES = 16 * 1024;

export type { ClickHouseSinkOptions } from './options.js';

/** How often tables are looked at while nothing is in doubt. */
const LOOK_EVERY_MS = 10_000;

/** Runs something again and again, until what it gives is called. */
export type Every = (everyMs: number, run: () => void) => () => void;

/** Does not keep the process alive. */
const inBackground: Every = (everyMs, run) => {
  const timer = setInterval(run, everyMs).unref();
  return () => clearInterval(timer);
};

/**
 * Opens the way into ClickHouse: looks at the server and at every route's table. A table is looked at again every ten
 * seconds, and before anything is sent into it a second time; what was altered is reported as `tableChanged`, and
 * ranges that are recorded from then on are of the table as it is.
 *
 * `now` tells how old a recorded range is; it must be the clock that recorded it, as the stages' scheduler does.
 * `every` runs the looks in the background.
 *
 * Errors: `KCR_CONFIG`, `KCR_CLICKHOUSE_UNREACHABLE`, `KCR_TABLE_MISSING`, `KCR_PREFLIGHT`.
 */
export async function openClickHouseSink(
  options: ClickHouseSinkOptions,
  now: () => number = Date.now,
  every: Every = inBackground,
): Promise<PreparingSink> {
  checkOptions(options);
  return openSinkOver(new ClickHouseHttp(options), options, now, every);
}

/**
 * The same over a wire that is there already; it is closed with the sink, and when the sink cannot be opened. `options`
 * were checked.
 */
export async function openSinkOver(
  http: ClickHouseWire,
  options: ClickHouseSinkOptions,
  now: () => number,
  every: Every,
): Promise<PreparingSink> {
  try {
    const server = await readServer(http);
    const settings = insertSettings(options.clickhouseSettings ?? {}, server.knownSettings, coalesceMsOf(options));
    const fault = settings.asyncInsert === undefined ? undefined : asyncInsertFault(server.version);
    if (fault !== undefined) throw new IngestError('KCR_PREFLIGHT', fault.detail, { hint: fault.todo });
    const tables = new Map<string, TargetTable>();
    const around = { onEvent: options.onEvent ?? ignoreEvents, now, isAsyncInsert: settings.asyncInsert !== undefined };
    const watched = new Map<string, WatchedTable>();
    for (const route of options.routes) {
      const table = await requireTable(http, { database: databaseOf(options, route), table: route.table });
      const name = `${table.database}.${table.table}`;
      // Topics that share a table share what is known of it.
      const target = watched.get(name) ?? (await WatchedTable.open(http, table, around));
      watched.set(name, target);
      tables.set(route.topic, {
        target,
        get dedupBudgetMs() {
          return budgetWithin(options.dedupBudgetMs ?? DEDUP_BUDGET_MS, target.windowSeconds);
        },
      });
    }
    return new ClickHouseSink(http, options, settings, tables, server, now, every);
  } catch (error) {
    http.close();
    throw error;
  }
}

class ClickHouseSink implements PreparingSink, SinkContext {
  readonly http: ClickHouseWire;
  readonly settings: InsertSettings;
  readonly slots: InsertSlots;
  readonly asyncInsert: AsyncInsert | undefined;
  readonly encoding: Encoding | undefined;
  readonly unknownUntilMs = new Map<string, number>();
  readonly #tables: ReadonlyMap<string, TargetTable>;
  #server: ServerIdentity;
  readonly onEvent: OnEvent;
  readonly #stopLooking: () => void;
  #refreshing = false;
  /** The server could not be asked, or has been up for too short a time. */
  #stale: boolean;

  constructor(
    http: ClickHouseWire,
    {
      maxInFlight,
      coalesceBytes = COALESCE_BYTES,
      compression = 'none',
      onEvent = ignoreEvents,
    }: ClickHouseSinkOptions,
    settings: InsertSettings,
    tables: ReadonlyMap<string, TargetTable>,
    server: ServerIdentity,
    readonly now: () => number,
    every: Every,
  ) {
    this.onEvent = onEvent;
    this.http = http;
    this.settings = settings;
    const { asyncInsert } = settings;
    const direct = maxInFlight ?? MAX_IN_FLIGHT;
    this.slots = new InsertSlots(asyncInsert === undefined ? direct : Math.min(direct, MAX_IN_FLIGHT));
    this.asyncInsert =
      asyncInsert === undefined
        ? undefined
        : {
            settings: asyncInsert,
            slots: new InsertSlots(maxInFlight ?? MAX_ASYNC_IN_FLIGHT, SMALL_PIECE_BYTES),
            maxBytes: coalesceBytes,
          };
    this.encoding = compression === 'none' ? undefined : compression;
    this.#tables = tables;
    this.#server = server;
    this.#stale = server.startedMs === undefined;
    const targets = new Set([...tables.values()].map(({ target }) => target));
    let isLooking = false;
    this.#stopLooking = every(LOOK_EVERY_MS, () => {
      if (isLooking) return;
      isLooking = true;
      const looked = (): void => void (isLooking = false);
      refreshAll(targets).then(looked, looked);
    });
  }

  get server(): ServerIdentity {
    return this.#server;
  }

  prepare(batch: InsertBatch): PreparedInsert {
    const { topic } = batch.assignment;
    const destination = this.#destination(topic);
    checkTable(batch, destination.target.table);
    checkRecords(batch, destination.target.table, {
      budgetMs: destination.dedupBudgetMs,
      settings: this.settings.fingerprint,
    });
    return new PreparedBatch(this, destination, batch);
  }

  describe(topic: string): ReturnType<PreparingSink['describe']> {
    const { target } = this.#destination(topic);
    return {
      tables: [`${target.table.database}.${target.table.table}`],
      written: target.record,
      settings: fingerprintOf(
        this.#server,
        this.settings.fingerprint,
        this.asyncInsert === undefined ? 'direct' : 'coalesced',
      ),
    };
  }

  close(): Promise<void> {
    this.#stopLooking();
    this.http.close();
    return Promise.resolve();
  }

  /**
   * A restart breaks every connection, so a new one is the occasion to look. What is told of the server may lag behind,
   * which is safe: it then looks restarted.
   */
  answered(kept: boolean): void {
    if ((kept && !this.#stale) || this.#refreshing) return;
    this.#refreshing = true;
    const refreshed = (): void => {
      this.#refreshing = false;
    };
    this.identify().then(refreshed, refreshed);
  }

  /** Asks the server who it is now. */
  async identify(): Promise<ServerIdentity> {
    this.#stale = false;
    try {
      this.#server = await readServerIdentity(this.http);
      if (this.#server.startedMs === undefined) this.#stale = true;
      return this.#server;
    } catch (error) {
      this.#stale = true;
      throw error;
    }
  }

  #destination(topic: string): TargetTable {
    const destination = this.#tables.get(topic);
    if (destination === undefined) {
      throw new IngestError('KCR_CONFIG', 'there is no route for this topic', { topic, hint: 'add it to `routes`' });
    }
    return destination;
  }
}
