/**
 * The way into ClickHouse's tables for who composes the pipeline by hand: what `ingest` checks of them
 * before a record is taken is checked here, too. Imports: ports, preflight.
 */
import { expectNoRefusal, type Finding } from '../preflight/finding.js';
import type { PreparingSink } from '../ports.js';
import type { ClickHouseSinkOptions } from './options.js';
import { checkClickHouse, type Needs } from './preflight.js';
import { openClickHouseSink } from './sink.js';

/** What the checks hold the tables against. */
export interface SinkNeeds extends Partial<Needs> {
  /** Called with what was found to be doubtful but not refused. */
  readonly onFinding?: (finding: Finding) => void;
}

/**
 * Opens the way into ClickHouse once server, settings, tables, rights and the views behind them are fit for it.
 * `needs.delivery` is 'exactly-once' and `needs.maxPending` 2 unless they are given.
 *
 * Errors: whatever a check refuses, as one error; `KCR_CONFIG`, `KCR_CLICKHOUSE_UNREACHABLE`, `KCR_TABLE_MISSING`.
 */
export async function openCheckedSink(
  options: ClickHouseSinkOptions,
  { onFinding, ...needs }: SinkNeeds = {},
): Promise<PreparingSink> {
  expectNoRefusal(await checkClickHouse(options, { delivery: 'exactly-once', maxPending: 2, ...needs }), onFinding);
  return openClickHouseSink(options);
}
