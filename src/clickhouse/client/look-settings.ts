/**
 * The settings under which ClickHouse is asked something that decides: looks, what a table is,
 * states, `verify`. A profile that has others must not change what is seen. Pure but for what it is given to ask with.
 *
 * Looked through: all 1,721 names in `system.settings` of 26.7.2, each tried on the queries of this library by
 * a test that sets each of them beside these, on a real server, and finds none that changes an answer. Not seen by it:
 * settings of servers of another version. What a row policy hides is no setting; see `clickhouse/row-policies.ts`.
 * Imports: nothing.
 */
import { liftedLimits, wholeAnswers } from './whole-answers.js';

type Settings = Readonly<Record<string, string>>;

/** With another value a query may be answered 200 and be wrong, or be about something else. */
export const truthfulLooks: Settings = {
  ...wholeAnswers,
  timeout_overflow_mode: 'throw',
  partial_result_on_first_cancel: '0',
  // Rows are merged in the answer, or deleted ones are given.
  final: '0',
  apply_deleted_mask: '1',
  // Of the server that is asked, as it is now: not from a cache, not shared with replicas that may know less.
  use_query_cache: '0',
  allow_experimental_parallel_reading_from_replicas: '0',
  automatic_parallel_replicas_mode: '0',
  parallel_replicas_count: '0',
  parallel_replica_offset: '0',
  // With 1 a replicated table hides parts that no quorum has, though they stay.
  select_sequential_consistency: '0',
  ignore_cold_parts_seconds: '0',
  prefer_warmed_unmerged_parts_seconds: '0',
  // They let the planner believe what a CONSTRAINT … ASSUME says, true or not.
  optimize_using_constraints: '0',
  optimize_substitute_columns: '0',
  // An answer that fails midway would still be whole JSON.
  http_write_exception_in_output_format: '0',
  discard_query_data: '0',
  // They change what an expression or an empty answer is.
  aggregate_functions_null_for_empty: '0',
  empty_result_for_aggregation_by_empty_set: '0',
  prefer_column_name_to_alias: '0',
  inject_random_order_for_select_without_order_by: '0',
  // Where a view writes is read from its statement on servers that have no column for it.
  show_create_query_identifier_quoting_rule: 'when_necessary',
  show_create_query_identifier_quoting_style: 'Backticks',
  show_table_uuid_in_table_create_query_if_not_nil: '0',
};

/**
 * A limit that is reached fails a look, for ever: nothing wrong is concluded, but the partition stands still. They are
 * left as they are where the user may not change them. Not `max_execution_time`: looks that nobody waits for would go
 * on.
 */
export const unlimitedLooks: Settings = {
  ...liftedLimits,
  force_index_by_date: '0',
  force_primary_key: '0',
  force_optimize_projection: '0',
  force_data_skipping_indices: '',
  // Says again what is said above, and has another default.
  max_parallel_replicas: '1',
};

/** One that every server has, and every user sees. */
const ALWAYS_KNOWN = 'max_rows_to_read';

interface KnownSetting {
  readonly name: string;
  /** 1: the user may not change it. */
  readonly readonly: number | boolean;
}

/** UNKNOWN_SETTING, READONLY, SETTING_CONSTRAINT_VIOLATION. */
const settingRefused: ReadonlySet<unknown> = new Set([115, 164, 452]);

export interface Asking {
  /** The statement's rows, under no settings of ours. */
  readonly ask: (sql: string) => Promise<readonly KnownSetting[]>;
  /** ClickHouse's code of what a query threw. */
  readonly codeOf: (thrown: unknown) => unknown;
}

/**
 * Runs queries under these settings: first under all of them; where the server refuses one, under those that it has and
 * that the user may change. What makes an answer true is sent all the same: then the server's refusal stands.
 */
export class PinnedLooks {
  #pins: Settings = { ...unlimitedLooks, ...truthfulLooks };

  async run<T>({ ask, codeOf }: Asking, query: (pins: Settings) => Promise<T>): Promise<T> {
    try {
      return await query(this.#pins);
    } catch (thrown) {
      if (!settingRefused.has(codeOf(thrown))) throw thrown;
      const found = allowedPins(await ask(knownSettingsQuery));
      if (found === undefined) throw thrown;
      this.#pins = found;
      return query(this.#pins);
    }
  }
}

const names = [...Object.keys(unlimitedLooks), ...Object.keys(truthfulLooks)].map((name) => `'${name}'`).join(', ');
const knownSettingsQuery = `SELECT name, readonly FROM system.settings WHERE name IN (${names})`;

/** Undefined: what was read cannot be all there is. */
export function allowedPins(known: readonly KnownSetting[]): Settings | undefined {
  const found = new Map(known.map(({ name, readonly }) => [name, Boolean(readonly)]));
  if (!found.has(ALWAYS_KNOWN)) return undefined;
  const isSent = ([name]: readonly [string, string]): boolean =>
    found.has(name) && (name in truthfulLooks || found.get(name) === false);
  return Object.fromEntries([...Object.entries(unlimitedLooks), ...Object.entries(truthfulLooks)].filter(isSent));
}
