/**
 * What the batches of one sink share. Types only. Imports: clickhouse/client, clickhouse/schema, events.
 */
import type { OnEvent } from '../../events.js';
import type { Encoding } from '../client/sending.js';
import type { ClickHouseWire } from '../client/http.js';
import type { InsertSettings, ServerIdentity, Settings } from './settings.js';
import type { InsertSlots } from './slots.js';
import type { WatchedTable } from '../schema/watched-table.js';

/** What batches share: the connection and what is known of its other end. */
export interface SinkContext {
  readonly http: ClickHouseWire;
  readonly settings: InsertSettings;
  readonly slots: InsertSlots;
  /** How inserts are sent that wait for others; undefined in the mode `direct`. */
  readonly asyncInsert: AsyncInsert | undefined;
  /** Of the bodies of inserts; undefined: as they are. */
  readonly encoding: Encoding | undefined;
  readonly server: ServerIdentity;
  /** By token: until when the server itself does not know what becomes of an attempt. */
  readonly unknownUntilMs: Map<string, number>;
  readonly onEvent: OnEvent;
  now(): number;
  /** An insert went through, over a connection that was there before or over a new one. */
  answered(kept: boolean): void;
  /** Asks the server who it is now. */
  identify(): Promise<ServerIdentity>;
}

export interface AsyncInsert {
  readonly settings: Settings;
  readonly slots: InsertSlots;
  /** What may have more bytes goes by itself: it makes a part worth having. */
  readonly maxBytes: number;
}

export interface TargetTable {
  readonly target: WatchedTable;
  /** How long after a range was recorded its token is relied on. */
  readonly dedupBudgetMs: number;
}
