/**
 * Settings of a profile by which ClickHouse answers with less than all rows, or gives up at a limit: what
 * inserts and looks are pinned to alike. Pure. Imports: nothing.
 */
type Settings = Readonly<Record<string, string>>;

/**
 * With another value an answer of 200 may be about some of the rows only. Any version of the server may lack one of
 * them.
 */
export const wholeAnswers: Settings = {
  // "break" ends a query where a limit is reached, and answers with what it has until then; "any" skips further keys.
  read_overflow_mode: 'throw',
  read_overflow_mode_leaf: 'throw',
  group_by_overflow_mode: 'throw',
  sort_overflow_mode: 'throw',
  result_overflow_mode: 'throw',
  distinct_overflow_mode: 'throw',
  set_overflow_mode: 'throw',
  join_overflow_mode: 'throw',
  transfer_overflow_mode: 'throw',
  timeout_overflow_mode_leaf: 'throw',
  // They take rows out of whatever is read.
  limit: '0',
  offset: '0',
  additional_table_filters: '{}',
  additional_result_filter: '',
};

/** Limits at which a query fails, each time it is made again. Lifted where the user may change them. */
export const liftedLimits: Settings = {
  min_execution_speed: '0',
  min_execution_speed_bytes: '0',
  max_rows_to_read: '0',
  max_bytes_to_read: '0',
  max_rows_to_read_leaf: '0',
  max_bytes_to_read_leaf: '0',
  max_rows_to_group_by: '0',
  max_rows_to_sort: '0',
  max_bytes_to_sort: '0',
  max_result_rows: '0',
  max_result_bytes: '0',
  max_rows_in_distinct: '0',
  max_bytes_in_distinct: '0',
  max_rows_in_set: '0',
  max_bytes_in_set: '0',
};
