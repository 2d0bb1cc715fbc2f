/**
 * What the three pipelines take beside their ports.
 * Imports: events, ledger, operators, operators/between, retry, rxjs, stages.
 */
import type { MonoTypeOperatorFunction, Observable, SchedulerLike } from 'rxjs';
import type { BufferConfig } from '../../operators/buffer-count-or-time.js';
import type { HealConfig } from '../../operators/group-by-partition.js';
import { transformBatches } from '../../operators/between/transform-batches.js';
import type { OnEvent } from '../events.js';
import { MAX_PENDING_DEFAULT } from '../ledger.js';
import type { RetryConfig } from '../retry.js';
import type { InsertableBatch } from '../stages.js';

/** What a crash may do: `at-most-once` loses, `at-least-once` doubles, `exactly-once` does neither. */
export type Delivery = 'at-most-once' | 'at-least-once' | 'exactly-once';

/** `B`: the batches that go into the insert. */
export interface PipelineConfig<B extends InsertableBatch> {
  /** Where batches are cut. @default {} */
  readonly batch?: Omit<BufferConfig, 'scheduler'>;
  /**
   * Stands before the insert: `transformRows(…)`, or one's own operator over whole batches, which is applied as by
   * `transformBatches`: it keeps ranges as they are, and drops no batch. @default none
   */
  readonly transform?: (topic: string) => MonoTypeOperatorFunction<B> | undefined;
  /** Batches of one partition under way at once; under exactly-once also in doubt. @default 2 */
  readonly maxPending?: number;
  /**
   * A record that ClickHouse refuses: halt its partition, or go on without it, which is told and counted. @default
   * 'halt'
   */
  readonly onPoison?: 'halt' | 'exclude';
  /** A record without a value. @default as `onPoison` says: 'skip' for 'exclude' */
  readonly onTombstone?: 'halt' | 'skip' | undefined;
  /**
   * Partitions that halt for what can be mended from outside are started again after a while; `false`: they stay
   * halted.
   * @default {}
   */
  readonly heal?: HealConfig | false;
  /** For calls of the ports that fail. @default {} */
  readonly retry?: RetryConfig;
  readonly onEvent?: OnEvent;
  /** Where all of it reads the time. @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

/** What several stages are given alike. */
export function sharedOf({
  retry,
  onEvent,
  scheduler,
}: Pick<PipelineConfig<InsertableBatch>, 'retry' | 'onEvent' | 'scheduler'>) {
  return {
    ...(retry === undefined ? {} : { retry }),
    ...(onEvent === undefined ? {} : { onEvent }),
    ...(scheduler === undefined ? {} : { scheduler }),
  };
}

export function insertConfigOf({
  maxPending = MAX_PENDING_DEFAULT,
  onPoison = 'halt',
  onTombstone,
  ...config
}: Omit<PipelineConfig<InsertableBatch>, 'transform'>) {
  return { concurrency: maxPending, onPoison, onTombstone, ...sharedOf(config) };
}

/** The transform of a topic, or nothing. */
export function transformOf<B extends InsertableBatch>(
  { transform }: PipelineConfig<B>,
  topic: string,
): MonoTypeOperatorFunction<B> {
  const operator = transform?.(topic);
  return operator === undefined ? (same: Observable<B>) => same : transformBatches(operator);
}
