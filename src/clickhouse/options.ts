/**
 * Room: what a user says about ClickHouse, and whether it can be used. No connection may enter.
 */
import { IngestError } from '../errors.js';
import type { OnEvent } from '../events.js';
import { type Encoding, encodingFault } from './client/sending.js';
import { type ClickHouseConnection, REQUEST_TIMEOUT_MS } from './client/http.js';
import { type InsertMode, insertSettings } from './insert/settings.js';

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
   * Inserts in flight at a time, over all partitions. Each has half a megabyte of its own that bodies are made in, those
   * that wait for others 32 KiB.
   * @default 4; 400 with `insertMode` 'coalesced', of which no more than 4 do not wait for others
   */
  readonly maxInFlight?: number;
  /**
   * `coalesced` is for many partitions with little traffic: inserts with a token wait at the server for others, and make
   * parts with them (ClickHouse's `async_insert`, answered when it is written). Needs ClickHouse 26.7.2.
   * @default 'direct'
   */
  readonly insertMode?: InsertMode;
  /** How long an insert waits for others, milliseconds. @default 200 */
  readonly coalesceMs?: number;
  /** A batch of more bytes than this waits for no others. @default 262144 */
  readonly coalesceBytes?: number;
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
  /** Told when a table is altered while it is in use: the event `tableChanged`. @default nobody */
  readonly onEvent?: OnEvent;
  /**
   * Of the rows on their way. Worth its processor time only where the network is the bottleneck; `zstd` needs Node 22.15.
   * @default 'none'
   */
  readonly compression?: 'none' | Encoding;
}

export const MAX_IN_FLIGHT = 4;
/** What waits costs a connection and a small buffer each, and ClickHouse's usual limit is 1,000 queries at a time. */
export const MAX_ASYNC_IN_FLIGHT = 400;
export const COALESCE_MS = 200;
export const COALESCE_BYTES = 262_144;
const MOST_COALESCE_MS = 10_000;
/** Far below what the server writes at once, beyond which it lets nothing wait. */
const MOST_COALESCE_BYTES = 4_194_304;

/** How long an insert waits for others; undefined: not at all. */
export function coalesceMsOf({
  insertMode,
  coalesceMs = COALESCE_MS,
}: Pick<ClickHouseSinkOptions, 'insertMode' | 'coalesceMs'>): number | undefined {
  return insertMode === 'coalesced' ? coalesceMs : undefined;
}

export function databaseOf(options: Pick<ClickHouseSinkOptions, 'database'>, route: Route): string {
  return route.database ?? options.database ?? 'default';
}

/** Throws `KCR_CONFIG` that says what was expected and what was given. */
export function checkOptions(options: ClickHouseSinkOptions): void {
  const {
    routes,
    maxInFlight,
    requestTimeoutMs,
    connectTimeoutMs,
    dedupBudgetMs,
    compression,
    answerCompression,
    clickhouseSettings = {},
  } = options;
  const refuse = (expected: string, got: unknown): never => {
    throw new IngestError('KCR_CONFIG', `Expected ${expected}, got ${JSON.stringify(got) ?? String(got)}`);
  };
  const positive = (name: string, value: number | undefined): void => {
    if (value !== undefined && !(Number.isInteger(value) && value > 0))
      refuse(`\`${name}\` to be a positive integer`, value);
  };
  positive('maxInFlight', maxInFlight);
  positive('requestTimeoutMs', requestTimeoutMs);
  positive('connectTimeoutMs', connectTimeoutMs);
  positive('dedupBudgetMs', dedupBudgetMs);
  checkEncoding('compression', compression, refuse);
  checkEncoding('answerCompression', answerCompression, refuse);
  checkMode(options, refuse);
  insertSettings(clickhouseSettings, new Set(), coalesceMsOf(options));
  if (routes.length === 0) refuse('`routes` to name at least one topic and its table', routes);
  const topics = new Set<string>();
  for (const { topic, table } of routes) {
    if (topic === '' || table === '') refuse('every route to have a topic and a table', { topic, table });
    if (topics.has(topic)) refuse('`routes` to name every topic once', topic);
    topics.add(topic);
  }
}

function checkEncoding(
  name: string,
  value: 'none' | Encoding = 'none',
  refuse: (expected: string, got: unknown) => never,
): void {
  if (!['none', 'gzip', 'zstd'].includes(value)) refuse(`\`${name}\` to be 'none', 'gzip' or 'zstd'`, value);
  const fault = encodingFault(value);
  if (fault !== undefined) throw new IngestError('KCR_CONFIG', `\`${name}\`: ${fault}`);
}

function checkMode(
  {
    insertMode,
    coalesceMs = COALESCE_MS,
    coalesceBytes = COALESCE_BYTES,
    requestTimeoutMs = REQUEST_TIMEOUT_MS,
  }: ClickHouseSinkOptions,
  refuse: (expected: string, got: unknown) => never,
): void {
  if (insertMode !== undefined && insertMode !== 'direct' && insertMode !== 'coalesced')
    refuse("`insertMode` to be 'direct' or 'coalesced'", insertMode);
  const isBetween = (value: number, most: number): boolean => Number.isInteger(value) && value > 0 && value <= most;
  if (!isBetween(coalesceMs, MOST_COALESCE_MS))
    refuse(`\`coalesceMs\` to be an integer from 1 to ${MOST_COALESCE_MS}`, coalesceMs);
  if (!isBetween(coalesceBytes, MOST_COALESCE_BYTES))
    refuse(`\`coalesceBytes\` to be an integer from 1 to ${MOST_COALESCE_BYTES}`, coalesceBytes);
  if (insertMode === 'coalesced' && coalesceMs * 2 > requestTimeoutMs)
    refuse('`coalesceMs` to be at most half of `requestTimeoutMs`', coalesceMs);
}
