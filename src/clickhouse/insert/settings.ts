/**
 * The settings every insert is pinned to, and their fingerprint. Pure.
 *
 * What is pinned, and why: a batch is one block (else the token's second block would be taken for another batch's),
 * its token counts (also in materialized views), nothing is skipped silently, and an answer of 200 means it is written.
 * Imports: Node, clickhouse/client, errors, kernel.
 */
import { createHash } from 'node:crypto';
import { IngestError } from '../../errors.js';
import { MAX_DEPTH } from '../../kernel/index.js';
import { liftedLimits, wholeAnswers } from '../client/whole-answers.js';

export type Settings = Readonly<Record<string, string>>;

/** An insert makes parts of its own, or waits at the server for others to make parts with. */
export type InsertMode = 'direct' | 'coalesced';

/** A batch must stay far below these, or it would be cut into several blocks. */
export const BLOCK_ROWS = 10_000_000;
export const BLOCK_BYTES = 2_000_000_000;

/** For every insert; a user cannot change them. */
const pinned: Settings = {
  async_insert: '0',
  max_insert_block_size: String(BLOCK_ROWS),
  min_insert_block_size_rows: String(BLOCK_ROWS),
  min_insert_block_size_bytes: String(BLOCK_BYTES),
  input_format_parallel_parsing: '0',
  input_format_allow_errors_num: '0',
  input_format_allow_errors_ratio: '0',
  date_time_input_format: 'best_effort',
  materialized_views_ignore_errors: '0',
};

/** Also pinned, where the server knows them: an unknown setting is an error. */
const pinnedIfKnown: Settings = {
  max_insert_block_size_bytes: '0',
  input_format_max_block_size_bytes: '0',
  input_format_max_block_wait_ms: '0',
  input_format_connection_handling: '0',
  use_strict_insert_block_limits: '0',
  min_insert_block_size_rows_for_materialized_views: '0',
  min_insert_block_size_bytes_for_materialized_views: '0',
};

/**
 * What keeps a value one row and its provenance ours, whatever a user's profile says. They cut no block, so they are
 * not in the fingerprint: ranges in doubt that were recorded before these were pinned are still replayed under their
 * tokens. A user may say the same.
 */
const pinnedReading: Settings = {
  // "break" gives up at max_execution_time and answers 200, with no row written (measured, 26.7).
  timeout_overflow_mode: 'throw',
};
const pinnedReadingIfKnown: Settings = {
  // The same at other limits, which a view's SELECT may reach: its target would get some of the rows. And what a view
  // reads.
  ...wholeAnswers,
  // A view whose target is gone is an error, not no rows.
  ignore_materialized_views_with_dropped_target_table: '0',
  // Else a repetition ends the attempt before it, which is in doubt, in place of being told that it still runs.
  replace_running_query: '0',
  // Else a field that stands twice is skipped when all columns have their values: the first one counts.
  input_format_json_ignore_unnecessary_fields: '0',
  // The check refuses what is deeper; a lower limit would refuse records without naming one (code 306).
  input_format_json_max_depth: String(MAX_DEPTH),
};

/**
 * Limits of a profile by which an insert, or the SELECT of a view behind it, would fail each time it is made again.
 * Sent where the server has them and the user may change them, unless the user says otherwise: an error says what it
 * is.
 */
const unlimited: Settings = {
  ...liftedLimits,
  max_execution_time: '0',
  max_execution_time_leaf: '0',
  max_estimated_execution_time: '0',
  max_rows_in_join: '0',
  max_bytes_in_join: '0',
  max_rows_to_transfer: '0',
  max_bytes_to_transfer: '0',
};

const withToken: Settings = {
  insert_deduplicate: '1',
  deduplicate_blocks_in_dependent_materialized_views: '1',
};
const withTokenIfKnown: Settings = { deduplicate_insert: 'enable' };

/** Without a token the server would compare content: an identical batch that is meant would vanish. */
const withoutToken: Settings = {
  insert_deduplicate: '0',
  deduplicate_blocks_in_dependent_materialized_views: '0',
};
const withoutTokenIfKnown: Settings = { deduplicate_insert: 'disable' };

/**
 * For an insert that waits for others. The server lets those wait together whose settings are all equal but for the
 * token (`AsynchronousInsertQueue.cpp`); the waits are pinned, so that a user's profile changes neither them nor what
 * an answer means: it comes when the rows are written. A query that stopped waiting would not be seen in
 * `system.processes` any more while its rows may still land, so it waits for longer than any client does.
 */
const waitingFor = (waitMs: number): Settings => ({
  async_insert: '1',
  wait_for_async_insert: '1',
  wait_for_async_insert_timeout: '86400',
  async_insert_deduplicate: '1',
  async_insert_use_adaptive_busy_timeout: '0',
  async_insert_busy_timeout_min_ms: String(waitMs),
  async_insert_busy_timeout_max_ms: String(waitMs),
  async_insert_max_data_size: String(FLUSH_BYTES),
  async_insert_max_query_number: '100000',
});

/** What waits together is written at once when it has come to so many bytes; a larger insert would not wait at all. */
export const FLUSH_BYTES = 10_485_760;

/** Sent unless the user says otherwise. */
const defaults: Settings = {
  input_format_skip_unknown_fields: '1',
};
/** A short wait for Keeper: the retry is ours, and the server should give up before we do. */
const defaultsIfKnown: Settings = { insert_keeper_max_retries: '3' };

/** Parameters of the request that are not settings, or that would change what an answer means. */
const reserved = new Set([
  'query',
  'query_id',
  'database',
  'user',
  'password',
  'quota_key',
  'session_id',
  'session_timeout',
  'session_check',
  'default_format',
  'decompress',
  'compress',
  'insert_deduplication_token',
  'send_progress_in_http_headers',
  'wait_for_async_insert',
  'async_insert_deduplicate',
  'async_insert_busy_timeout_ms',
  'readonly',
]);

/** Names whose presence on the server has to be looked up. */
export const conditionalSettings: readonly string[] = [
  ...Object.keys(pinnedIfKnown),
  ...Object.keys(pinnedReadingIfKnown),
  ...Object.keys(withTokenIfKnown),
  ...Object.keys(defaultsIfKnown),
  ...Object.keys(unlimited),
];

/** Those of them that are left as they are where the user may not change them. */
export const limitSettings: readonly string[] = Object.keys(unlimited);

export interface InsertSettings {
  /** For inserts with a token. */
  readonly deduplicated: Settings;
  /** For inserts without one. */
  readonly plain: Settings;
  /** For inserts with a token that wait at the server for others; undefined in the mode `direct`. */
  readonly asyncInsert: Settings | undefined;
  /**
   * Eight hex digits that stand for what a token's blocks depend on: the same in both modes, which share the key space
   * of their tokens (measured, 26.7: a range that was inserted in one mode is a duplicate in the other).
   */
  readonly fingerprint: string;
}

/**
 * `coalesceMs`: how long an insert waits for others; undefined: not at all. Throws `KCR_CONFIG` for a user's setting
 * that is pinned.
 */
export function insertSettings(
  extras: Readonly<Record<string, string | number | boolean>>,
  known: ReadonlySet<string>,
  coalesceMs?: number,
): InsertSettings {
  const waiting = coalesceMs === undefined ? undefined : waitingFor(coalesceMs);
  refusePinned(extras, waiting ?? {});
  const ifKnown = (settings: Settings): Settings =>
    Object.fromEntries(Object.entries(settings).filter(([name]) => known.has(name)));
  const asText = Object.fromEntries(Object.entries(extras).map(([name, value]) => [name, settingText(value)]));
  const common = { ...defaults, ...ifKnown(defaultsIfKnown), ...asText, ...pinned, ...ifKnown(pinnedIfKnown) };
  const reading = { ...pinnedReading, ...ifKnown(pinnedReadingIfKnown) };
  const cutting = { ...common, ...withToken, ...ifKnown(withTokenIfKnown) };
  const limits = ifKnown(unlimited);
  const deduplicated = { ...limits, ...cutting, ...reading };
  const plain = { ...limits, ...common, ...withoutToken, ...ifKnown(withoutTokenIfKnown), ...reading };
  const asyncInsert = waiting === undefined ? undefined : { ...deduplicated, ...waiting };
  return { deduplicated, plain, asyncInsert, fingerprint: hash(JSON.stringify(Object.entries(cutting).sort()), 8) };
}

function refusePinned(extras: Readonly<Record<string, string | number | boolean>>, waiting: Settings): void {
  const all = [waiting, pinned, pinnedIfKnown, withToken, withTokenIfKnown, pinnedReading, pinnedReadingIfKnown];
  for (const [name, said] of Object.entries(extras)) {
    const value = all.map((settings) => settings[name]).find((found) => found !== undefined);
    const isSaidAlike = value === settingText(said) && (name in pinnedReading || name in pinnedReadingIfKnown);
    if (value !== undefined && !isSaidAlike) {
      throw new IngestError(
        'KCR_CONFIG',
        `Expected \`clickhouseSettings\` not to set ${name}, which is pinned to ${value}`,
        {
          hint: `take ${name} out; exactly-once rests on it`,
        },
      );
    }
    if (reserved.has(name) || name.startsWith('param_')) {
      throw new IngestError(
        'KCR_CONFIG',
        `Expected \`clickhouseSettings\` not to set ${name}, which belongs to the request itself`,
      );
    }
  }
}

function settingText(value: string | number | boolean): string {
  return typeof value === 'boolean' ? (value ? '1' : '0') : String(value);
}

/** What an intent records of the server. */
export interface ServerIdentity {
  readonly version: string;
  /**
   * Milliseconds since the epoch; undefined while the server has been up for too short a time to tell two starts apart.
   */
  readonly startedMs: number | undefined;
}

/** Readable by people, parsed by `parseFingerprint`. The mode is told to people only: it makes no other token. */
export function fingerprintOf(server: ServerIdentity, settings: string, mode: InsertMode = 'direct'): string {
  const started = server.startedMs === undefined ? 'unknown' : new Date(server.startedMs).toISOString();
  return (
    `kcr1 clickhouse=${server.version} started=${started} ` +
    `settings=${settings}${mode === 'direct' ? '' : ` insert=${mode}`}`
  );
}

/** Undefined for a text of another version. */
export function parseFingerprint(text: string): (ServerIdentity & { readonly settings: string }) | undefined {
  const parts = /^kcr1 clickhouse=(\S+) started=(\S+) settings=(\S+)(?: insert=coalesced)?$/.exec(text);
  if (parts === null) return undefined;
  const [, version = '', started = '', settings = ''] = parts;
  const startedMs = Date.parse(started);
  return { version, startedMs: Number.isNaN(startedMs) ? undefined : startedMs, settings };
}

/** `uptime()` counts whole seconds, so that two looks at one start differ by up to one. */
const START_TOLERANCE_MS = 2_000;
/** Below this a server that was restarted could still look like the one before. */
export const MIN_UPTIME_S = 4;

/** Certainly the same run of the same server? When that cannot be told, no. */
export function sameRun(before: ServerIdentity | undefined, now: ServerIdentity): boolean {
  if (before?.startedMs === undefined || now.startedMs === undefined) return false;
  return before.version === now.version && Math.abs(before.startedMs - now.startedMs) <= START_TOLERANCE_MS;
}

/** The token as it is sent: one table's, since ClickHouse keeps tokens for each table and views pass them on. */
export function insertToken(batchToken: string, database: string, table: string): string {
  return `${batchToken}:${database}.${table}`;
}

/** The same for every attempt, so that the server refuses to run two at once (code 216). */
export function queryIdOf(token: string): string {
  return `kcr-${hash(token, 32)}`;
}

export function hash(text: string, digits: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, digits);
}
