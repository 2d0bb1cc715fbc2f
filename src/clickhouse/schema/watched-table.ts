/**
 * One table that batches go into, looked at again and again: what it is now, and what has changed since.
 * Imports: clickhouse/client, clickhouse/insert, clickhouse/verify, errors, events, model.
 */
import { hasCode, IngestError } from '../../errors.js';
import type { IngestEvent, OnEvent } from '../../events.js';
import type { TableRecord } from '../../model/state.js';
import type { Provenance } from '../insert/encode.js';
import type { TableNow } from '../verify/evidence.js';
import type { ClickHouseWire } from '../client/http.js';
import { hash } from '../insert/settings.js';
import { changesOf } from './table-changes.js';
import { readBackFault } from './provenance-columns.js';
import type { Table } from './table.js';
import { findTable, readDefaultWindow, readWindowSeconds, tableSetting } from './tables.js';
import { readWindowReach, type WindowReach } from './window-reach.js';

interface Around {
  readonly onEvent: OnEvent;
  readonly now: () => number;
  /** Do inserts into it wait for others? @default false */
  readonly isAsyncInsert?: boolean;
}

export class WatchedTable {
  readonly #http: ClickHouseWire;
  readonly #onEvent: OnEvent;
  readonly #clock: () => number;
  readonly #defaultWindow: number | undefined;
  readonly #defaultSeconds: number | undefined;
  readonly #isAsyncInsert: boolean;
  #table: Table;
  #now: TableNow;
  #taken: Table;
  #isGone = false;
  #askedMs: number;
  #refreshing: Promise<void> | undefined;
  /** Begins when the one that is under way has ended. */
  #next: Promise<void> | undefined;

  /**
   * `defaultWindow`, `defaultSeconds`: what the server has for tables that do not say; undefined: the user may not see
   * it.
   */
  constructor(
    http: ClickHouseWire,
    table: Table,
    defaultWindow: number | undefined,
    { onEvent, now, isAsyncInsert = false }: Around,
    defaultSeconds?: number,
  ) {
    this.#http = http;
    this.#onEvent = onEvent;
    this.#clock = now;
    this.#isAsyncInsert = isAsyncInsert;
    this.#defaultWindow = defaultWindow;
    this.#defaultSeconds = defaultSeconds;
    this.#table = table;
    this.#askedMs = now();
    this.#taken = table;
    this.#now = this.#judged(table, undefined);
  }

  static async open(http: ClickHouseWire, table: Table, around: Around): Promise<WatchedTable> {
    const opened = new WatchedTable(
      http,
      table,
      await readDefaultWindow(http, table.family),
      around,
      await readWindowSeconds(http, table),
    );
    opened.#now = { ...opened.#now, ...(await opened.#reach(table)) };
    return opened;
  }

  /** As it was seen last. */
  get table(): Table {
    return this.#table;
  }

  get now(): TableNow {
    return this.#now;
  }

  /** When it was asked what it is, milliseconds since the epoch. */
  get askedMs(): number {
    return this.#askedMs;
  }

  /** As it was when it took rows last; before that, as it was first seen. */
  get taken(): Table {
    return this.#taken;
  }

  /** Its columns were altered since it took rows last. */
  get isOtherThanTaken(): boolean {
    return shapeOf(this.#taken) !== this.#now.shape;
  }

  /** Nobody is known to have altered it, or another one stands in its place, since it was seen like this. */
  isStill(table: Table): boolean {
    // Replicas have times of their own, and the next look may be at another one.
    const isSameTime = table.family === 'replicated' || table.alteredS === this.#table.alteredS;
    return isSameTime && idOf(table) === this.#now.id && shapeOf(table) === this.#now.shape;
  }

  /** It took rows while it was seen like this. */
  took(table: Table): void {
    this.#taken = table;
  }

  /** Why no range can be read back from it, whatever was recorded; undefined: one can. */
  get readBackFault(): string | undefined {
    return readBackFault(this.#table);
  }

  /** For how long it keeps tokens; undefined: they do not grow old, or the user may not see it. */
  get windowSeconds(): number | undefined {
    if (this.#table.family !== 'replicated') return undefined;
    return tableSetting(this.#table, 'replicated_deduplication_window_seconds') ?? this.#defaultSeconds;
  }

  /** What a range records of it. */
  get record(): TableRecord {
    const { id, columns, shape, alteredS, mutation } = this.#now;
    return {
      ...(id === undefined ? {} : { id }),
      columns,
      shape,
      ...(alteredS === undefined ? {} : { alteredS }),
      ...(mutation === undefined ? {} : { mutation }),
    };
  }

  /**
   * Looks again, and tells what has changed. One that is under way may have read the table before what the caller knows
   * of happened: those that ask meanwhile share the next one.
   */
  refresh(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    if (this.#refreshing === undefined) return this.#begin();
    this.#next = this.#refreshing
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.#begin();
      });
    return this.#next;
  }

  #begin(): Promise<void> {
    this.#refreshing = this.#look().finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  async #look(): Promise<void> {
    const askedMs = this.#clock();
    const found = await findTable(this.#http, this.#table);
    if (found === undefined) {
      if (!this.#isGone)
        this.#tell({
          change: 'gone',
          level: 'error',
          message: 'the table is gone, or the user may not see it any more',
          hint:
            'nothing is inserted until it is back; a range in doubt goes only into the very table it was ' +
            'recorded for',
        });
      this.#isGone = true;
      throw new IngestError(
        'KCR_INSERT_RETRIABLE',
        `not sent: there is no table ${this.#name} any more, or the user may not see it`,
        { table: this.#name, hint: 'bring the table back (ATTACH, UNDROP, RENAME), or GRANT SELECT on it' },
      );
    }
    const reach = await this.#reach(found);
    const before = { table: this.#table, now: this.#now, isGone: this.#isGone };
    this.#isGone = false;
    this.#askedMs = askedMs;
    this.#table = found;
    // Up to the first look that finds it back, the window may have been 0.
    this.#now = { ...this.#judged(found, this.#now.keepsTokens ? this.#now.forgotMs : this.#clock()), ...reach };
    for (const change of changesOf(before, { table: found, now: this.#now })) this.#tell(change);
  }

  #judged(table: Table, forgotMs: number | undefined): TableNow {
    const keepsTokens = this.#windowOf(table) !== 0;
    const id = idOf(table);
    const { alteredS, mutation, family } = table;
    return {
      ...(id === undefined ? {} : { id }),
      columns: columnsCode(table),
      shape: shapeOf(table),
      ...(alteredS === undefined ? {} : { alteredS }),
      ...(mutation === undefined ? {} : { mutation }),
      family,
      keepsTokens,
      forgotMs: keepsTokens ? forgotMs : this.#clock(),
    };
  }

  #windowOf(table: Table): number | undefined {
    return (
      tableSetting(
        table,
        table.family === 'plain' ? 'non_replicated_deduplication_window' : 'replicated_deduplication_window',
      ) ?? this.#defaultWindow
    );
  }

  #reach(table: Table): Promise<WindowReach> {
    return readWindowReach(
      this.#http,
      table,
      { window: this.#windowOf(table), isAsyncInsert: this.#isAsyncInsert },
      this.#clock,
    );
  }

  get #name(): string {
    return `${this.#table.database}.${this.#table.table}`;
  }

  #tell(change: Omit<Extract<IngestEvent, { kind: 'tableChanged' }>, 'kind' | 'table'>): void {
    this.#onEvent({ kind: 'tableChanged', table: this.#name, ...change });
  }
}

/** Looks at every table; what cannot be asked now is asked the next time. */
export async function refreshAll(tables: Iterable<WatchedTable>): Promise<void> {
  for (const table of tables) {
    await table.refresh().catch((error: unknown) => {
      if (!(error instanceof IngestError) || hasCode(error, 'KCR_INTERNAL')) throw error;
    });
  }
}

/** Of a replicated table the place in Keeper that its replicas share; each of them may have a UUID of its own. */
function idOf({ family, engineFull, uuid }: Table): string | undefined {
  const path = family === 'replicated' ? /^\w+\('((?:[^'\\]|\\.)*)'/.exec(engineFull)?.[1] : undefined;
  return path === undefined || path.includes('{uuid}') ? uuid : path;
}

const letters = [
  ['t', 'topic'],
  ['p', 'partition'],
  ['o', 'offset'],
  ['s', 'timestamp'],
  ['k', 'key'],
  ['h', 'headers'],
] as const;

/** The columns that are filled, as `TableRecord.columns` has them. */
function columnsCode({ provenance, columns }: Pick<Table, 'provenance' | 'columns'>): string {
  const filled = letters.filter(([, field]) => provenance[field] !== undefined && provenance[field] !== false);
  if (filled.length === 0) return '';
  const types = columns
    .filter(({ name }) => ['_topic', '_partition', '_offset'].includes(name))
    .map(({ name, type, defaultKind }) => [name, type, defaultKind]);
  return `${filled.map(([letter]) => letter).join('')}-${hash(JSON.stringify(types.sort()), 6)}`;
}

function shapeOf({ columns }: Pick<Table, 'columns'>): string {
  return hash(
    JSON.stringify(
      columns.map(({ name, type, defaultKind, defaultExpression }) => [name, type, defaultKind, defaultExpression]),
    ),
    8,
  );
}

/** Only the columns that a range says its rows have; undefined: it does not say. */
export function recordedColumns(provenance: Provenance, columns: string | undefined): Provenance {
  if (columns === undefined) return provenance;
  const [written = ''] = columns.split('-');
  const has = (letter: string): boolean => written.includes(letter);
  return {
    topic: provenance.topic && has('t'),
    partition: provenance.partition && has('p'),
    offset: provenance.offset && has('o'),
    timestamp: has('s') ? provenance.timestamp : undefined,
    key: has('k') ? provenance.key : undefined,
    headers: has('h') ? provenance.headers : undefined,
    headerNull: provenance.headerNull,
  };
}
