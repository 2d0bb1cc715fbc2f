/**
 * What the checks of one start share. Imports: clickhouse, clickhouse/client, clickhouse/schema.
 */
import type { ClickHouseHttp } from '../client/http.js';
import type { ClickHouseSinkOptions } from '../options.js';
import type { Server } from '../schema/tables.js';

/** What a pipeline asks of its tables: the deduplication window must outlast what may be in doubt. */
export interface Needs {
  readonly delivery: 'at-most-once' | 'at-least-once' | 'exactly-once';
  /** Ranges of one Kafka partition that may be in doubt at once. */
  readonly maxPending: number;
  /**
   * Kafka partitions whose batches may go into one table: those of all topics, where several share it.
   * @default 1, of which nothing can be concluded for more
   */
  readonly kafkaPartitions?: number;
  /** ClickHouse partitions one batch spreads over at most: each takes an entry of the dedup window. @default 1 */
  readonly partitionsPerBatch?: number;
  /** After which a batch is cut, milliseconds: how often each Kafka partition inserts at least. @default 1000 */
  readonly batchMaxWaitMs?: number;
}

export interface Defaults {
  /** Undefined: not to be seen with the user's grants. */
  readonly window: number | undefined;
  readonly replicatedWindow: number | undefined;
  readonly replicatedSeconds: number | undefined;
}

export interface CheckContext {
  readonly http: ClickHouseHttp;
  readonly options: ClickHouseSinkOptions;
  readonly needs: Needs;
  readonly defaults: Defaults;
  readonly server: Server;
}
