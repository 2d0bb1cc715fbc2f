/**
 * Room: what a user says about ClickHouse, and whether it can be used. No connection may enter.
 */
import { IngestError } from '../errors.js';
import type { ClickHouseConnection } from './http.js';
import { insertSettings } from './settings.js';

/** Which table a topic's records go into. */
export interface Route {
  readonly topic: string;
  readonly table: string;
  /** @default the connection's database */
  readonly database?: string;
}

export interface ClickHouseSinkOptions extends ClickHouseConnection {
  /** One table for each topic; several topics may share a table. */
  readonly routes: readonly Route[];
  /**
   * Inserts in flight at a time, over all partitions. Each has half a megabyte of its own that bodies are made in.
   * @default 4
   */
  readonly maxInFlight?: number;
  /**
   * Settings for every insert, besides those it is pinned to: these cannot be changed (`KCR_CONFIG`).
   * `input_format_skip_unknown_fields` is 1 unless it is set here.
   */
  readonly clickhouseSettings?: Readonly<Record<string, string | number | boolean>>;
  /**
   * How long after a range was recorded its token is relied on, milliseconds. Beyond it the table is asked before the
   * range is sent again. Of a replicated table at most half of its `replicated_deduplication_window_seconds` counts.
   * @default 600000
   */
  readonly dedupBudgetMs?: number;
  /** Of the request's body. Worth its processor time only where the network is the bottleneck. @default 'none' */
  readonly compression?: 'none' | 'gzip';
}

export const MAX_IN_FLIGHT = 4;

export function databaseOf(options: Pick<ClickHouseSinkOptions, 'database'>, route: Route): string {
  return route.database ?? options.database ?? 'default';
}

/** Throws `KCR_CONFIG` that says what was expected and what was given. */
export function checkOptions({ routes, maxInFlight = MAX_IN_FLIGHT, requestTimeoutMs, connectTimeoutMs, dedupBudgetMs, compression, clickhouseSettings = {} }: ClickHouseSinkOptions): void {
  const refuse = (expected: string, got: unknown): never => {
    throw new IngestError('KCR_CONFIG', `Expected ${expected}, got ${JSON.stringify(got) ?? String(got)}`);
  };
  const positive = (name: string, value: number | undefined): void => {
    if (value !== undefined && !(Number.isInteger(value) && value > 0)) refuse(`\`${name}\` to be a positive integer`, value);
  };
  positive('maxInFlight', maxInFlight);
  positive('requestTimeoutMs', requestTimeoutMs);
  positive('connectTimeoutMs', connectTimeoutMs);
  positive('dedupBudgetMs', dedupBudgetMs);
  if (compression !== undefined && compression !== 'none' && compression !== 'gzip') refuse("`compression` to be 'none' or 'gzip'", compression);
  insertSettings(clickhouseSettings, new Set());
  if (routes.length === 0) refuse('`routes` to name at least one topic and its table', routes);
  const topics = new Set<string>();
  for (const { topic, table } of routes) {
    if (topic === '' || table === '') refuse('every route to have a topic and a table', { topic, table });
    if (topics.has(topic)) refuse('`routes` to name every topic once', topic);
    topics.add(topic);
  }
}
