/**
 * What a user says about ClickHouse, and whether it can be used.
 * Imports: clickhouse/client, clickhouse/insert, events, options.
 */
import type { OnEvent } from '../events.js';
import { limitFault, MAX_DURATION_MS, refuseFault, wordFault, type OptionFault } from '../options.js';
import { type Encoding, encodingFault } from './client/sending.js';
import { type ClickHouseConnection, REQUEST_TIMEOUT_MS } from './client/http.js';
import { type InsertMode, insertSettings } from './insert/settings.js';

/** Which table a topic's records go into. */
export interface Route {
  /** The Kafka topic. */
  readonly topic: string;
  /** The table that its rows go into. */
  readonly table: string;
  /** Where the table is. @default the connection's database */
  readonly database?: string;
}

/** The tables that topics go into, and how inserts are made. */
export interface ClickHouseSinkOptions extends ClickHouseConnection {
  /** One table for each topic; several topics may share a table. */
  readonly routes: readonly Route[];
  /**
   * Inserts in flight at a time, over all partitions. Each has half a megabyte of its own that bodies are made in,
   * those that wait for others 32 KiB.
   * @default 4; 400 with `insertMode` 'coalesced', of which no more than 4 do not wait for others
   */
  readonly maxInFlight?: number;
  /**
   * `coalesced` is for many partitions with little traffic: inserts with a token wait at the server for others, and
   * make parts with them (ClickHouse's `async_insert`, answered when it is written). Needs ClickHouse 26.7.2.
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
   * Of the rows on their way. Worth its processor time only where the network is the bottleneck; `zstd` needs Node
   * 22.15.
   * @default 'none'
   */
  readonly compression?: 'none' | Encoding;
}

export const MAX_IN_FLIGHT = 4;
/** What waits costs a connection and a small buffer each, and ClickHouse's usual limit is 1,000 queries at a time. */
export const MAX_ASYNC_IN_FLIGHT = 400;
export const COALESCE_MS = 200;
export const COALESCE_BYTES = 262_144;

export const sinkLimits = {
  maxInFlight: 1_000,
  requestTimeoutMs: MAX_DURATION_MS,
  connectTimeoutMs: MAX_DURATION_MS,
  dedupBudgetMs: MAX_DURATION_MS,
  coalesceMs: 10_000,
  // Far below what the server writes at once, beyond which it lets nothing wait.
  coalesceBytes: 4_194_304,
} as const;

export const encodings = ['none', 'gzip', 'zstd'] as const;
export const insertModes = ['direct', 'coalesced'] as const;

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

/** @throws `KCR_CONFIG` that says what was expected and what was given. */
export function checkOptions(options: ClickHouseSinkOptions): void {
  const words = { compression: encodings, answerCompression: encodings, insertMode: insertModes };
  refuseFault(wordFault(options, words) ?? limitFault(options, sinkLimits) ?? routesFault(options.routes));
  refuseFault(sinkFault(options));
  insertSettings(options.clickhouseSettings ?? {}, new Set(), coalesceMsOf(options));
}

/** What of the options does not fit together, or not to this Node; undefined: nothing. */
export function sinkFault(
  options: Pick<
    ClickHouseSinkOptions,
    'insertMode' | 'coalesceMs' | 'requestTimeoutMs' | 'compression' | 'answerCompression'
  >,
): OptionFault | undefined {
  const { insertMode, coalesceMs = COALESCE_MS, requestTimeoutMs = REQUEST_TIMEOUT_MS } = options;
  if (insertMode === 'coalesced' && coalesceMs * 2 > requestTimeoutMs)
    return { option: 'coalesceMs', what: 'at most half of `requestTimeoutMs`', got: coalesceMs };
  for (const option of ['compression', 'answerCompression'] as const) {
    const what = encodingFault(options[option] ?? 'none');
    if (what !== undefined) return { option, what };
  }
  return undefined;
}

/** Which route is none; undefined: all are. */
export function routesFault(routes: readonly Route[]): OptionFault | undefined {
  const fault = (what: string, got: unknown): OptionFault => ({ option: 'routes', what, got });
  if (routes.length === 0) return fault('routes that name at least one topic and its table', routes);
  const nameless = routes.find(({ topic, table }) => topic === '' || table === '');
  if (nameless !== undefined) return fault('routes with a topic and a table each', nameless);
  const topics = routes.map(({ topic }) => topic);
  const twice = topics.find((topic, at) => topics.indexOf(topic) !== at);
  if (twice === undefined) return undefined;
  const hint = 'let a materialized view feed the second table, or run a second group';
  return { option: 'routes', what: `topic ${twice} stands in two routes`, hint };
}
