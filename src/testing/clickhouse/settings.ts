/**
 * What settings make of an insert or of a look, on a server whose profile says one thing and whose requests may pin
 * another. Pure. What was measured of the real ones is in `docs/guarantees.md`. Imports: nothing.
 */

export type Settings = Readonly<Record<string, string>>;

/** As version 26.7 has them, where something here depends on them. */
const defaults: Settings = {
  async_insert: '1',
  wait_for_async_insert: '1',
  async_insert_busy_timeout_max_ms: '200',
  deduplicate_insert: 'enable',
  insert_deduplicate: '1',
  deduplicate_blocks_in_dependent_materialized_views: '1',
  max_insert_block_size: '1048449',
  min_insert_block_size_rows: '1048449',
  input_format_allow_errors_num: '0',
  materialized_views_ignore_errors: '0',
  max_execution_time: '0',
  timeout_overflow_mode: 'throw',
  max_rows_to_group_by: '0',
  group_by_overflow_mode: 'throw',
  max_rows_to_read: '0',
  read_overflow_mode: 'throw',
};

/** Of a request, by name: the server's own, the profile's, the request's. */
export class Effective {
  constructor(
    private readonly profile: Settings,
    private readonly request: Settings,
  ) {}

  text(name: string): string {
    return this.request[name] ?? this.profile[name] ?? defaults[name] ?? '';
  }

  number(name: string): number {
    return Number(this.text(name));
  }

  /** Rows of a block: what is read is cut first, and put together again up to the least. */
  get blockRows(): number {
    return Math.max(1, this.number('max_insert_block_size'), this.number('min_insert_block_size_rows'));
  }

  get keepsTokens(): boolean {
    const choice = this.text('deduplicate_insert');
    return choice === 'backward_compatible_choice' ? this.text('insert_deduplicate') === '1' : choice !== 'disable';
  }

  /** `break`: gives up in time, and answers as if it had come to its end. */
  get breaksOff(): boolean {
    return this.number('max_execution_time') > 0 && this.text('timeout_overflow_mode') === 'break';
  }

  /** Of a GROUP BY: keys beyond so many are left out. */
  get mostKeys(): number {
    const most = this.number('max_rows_to_group_by');
    return most > 0 && this.text('group_by_overflow_mode') === 'any' ? most : Infinity;
  }

  /** Rows that are read, the others are left out. */
  get mostRead(): number {
    const most = this.number('max_rows_to_read');
    return most > 0 && this.text('read_overflow_mode') === 'break' ? most : Infinity;
  }
}
