/**
 * Room: the three delivery semantics, as three arrangements of the same stages. Ports and operators may enter, no
 * client library.
 */
import { asyncScheduler, map, type MonoTypeOperatorFunction, type Observable, type SchedulerLike } from 'rxjs';
import { bufferCountOrTime, bufferDefaults, type BufferConfig } from '../operators/buffer-count-or-time.js';
import { commit } from '../operators/commit.js';
import { consume } from '../operators/consume.js';
import { groupByPartition, type GroupByPartitionConfig, type HealConfig, type PartitionStream } from '../operators/group-by-partition.js';
import { asInsertBatch, insertDeduped } from '../operators/insert-deduped.js';
import { countAbandoned } from '../operators/internal/count-abandoned.js';
import { reconcileWithState } from '../operators/reconcile-with-state.js';
import { IngestError } from './errors.js';
import { noReport, type Delivered, type Outcome, type Report } from './events.js';
import { Ledger } from './ledger.js';
import type { InsertBatch, RecordSource, BatchSink, StateStore } from './ports.js';
import type { RetryConfig } from './retry.js';

export type Delivery = 'at-most-once' | 'at-least-once' | 'exactly-once';

/** Where records come from, where rows go, and where is written down what is in doubt. */
export interface Ports {
  readonly source: RecordSource;
  readonly sink: BatchSink;
  /** Needed for exactly-once only. */
  readonly store?: StateStore | undefined;
}

export interface ArrangeConfig {
  readonly delivery: Delivery;
  /** The consumer group; part of the state's key. */
  readonly group: string;
  /** Who claims partitions: unique to this process. */
  readonly owner: string;
  readonly batch?: BufferConfig;
  /** Stands between the intent and the insert; `transformRows(…)` or one's own operator that keeps ranges as they are. */
  readonly transform?: (topic: string) => MonoTypeOperatorFunction<InsertBatch> | undefined;
  /** Names the transform of a topic, and changes with its rows: see `reconcileWithState`. @default none */
  readonly transformVersion?: (topic: string) => string | undefined;
  /** Batches of one partition in doubt, and under way, at once. @default 2 */
  readonly maxPending?: number;
  /** @default 'halt' */
  readonly onGap?: 'halt' | 'continue';
  /** A topic that was created anew or truncated. @default 'halt' */
  readonly onReset?: 'halt' | 'restart';
  /** A record that ClickHouse refuses: halt its partition, or go on without it, which is told and counted. @default 'halt' */
  readonly onPoison?: 'halt' | 'exclude';
  /** Partitions that halt for what can be mended from outside are begun anew after a while; `false`: they stay halted. @default {} */
  readonly heal?: HealConfig | false;
  /** A record without a value. @default as `onPoison` says: 'skip' for 'exclude' */
  readonly onTombstone?: 'halt' | 'skip' | undefined;
  /** Exactly-once: resolve what is in doubt and take nothing new. @default false */
  readonly onlyInDoubt?: boolean;
  readonly retry?: RetryConfig;
  readonly report?: Report;
}

/**
 * The whole pipeline over given ports:
 *
 * ```
 * at-most-once    consume → group → buffer → commit → insert
 * at-least-once   consume → group → buffer → insert → commit
 * exactly-once    consume → group → buffer → reconcile → insert → commit
 * ```
 *
 * Emits one outcome for each batch. Subscribing joins the group, unsubscribing leaves it at once.
 */
export function arrange(ports: Ports, config: ArrangeConfig, scheduler: SchedulerLike = asyncScheduler): Observable<Outcome> {
  const { source } = ports;
  const effects = config.report === undefined ? {} : { report: config.report };
  const { project, ...noting } = arrangement(ports, config, effects, scheduler);
  return consume(source).pipe(groupByPartition(source, project, { ...effects, ...noting, heal: config.heal ?? {} }));
}

interface Arrangement extends Pick<GroupByPartitionConfig, 'onHalt'> {
  readonly project: (partition: PartitionStream) => Observable<Delivered>;
}

function arrangement(
  { source, sink, store }: Ports,
  { delivery, group, owner, batch = {}, transform, transformVersion, maxPending = 2, onGap = 'halt', onReset = 'halt', onPoison = 'halt', onTombstone, onlyInDoubt = false, retry = {} }: ArrangeConfig,
  effects: { readonly report?: Report },
  scheduler: SchedulerLike,
): Arrangement {
  const inserting = { concurrency: maxPending, onPoison, onTombstone, retry, ...effects };
  const custom = (topic: string) => transform?.(topic) ?? ((same: Observable<InsertBatch>) => same);
  const plain = map(asInsertBatch);

  switch (delivery) {
    case 'at-most-once':
      return { project: ({ assignment, chunks }) =>
        chunks.pipe(
          bufferCountOrTime(batch, scheduler),
          commit(source, undefined, { mustCommit: true, retry, ...effects }, scheduler),
          countAbandoned(
            (report) => (batches) => batches.pipe(plain, custom(assignment.topic), insertDeduped(sink, { ...inserting, whenInDoubt: 'abandon', report }, scheduler)),
            effects.report ?? noReport,
          ),
        ) };
    case 'at-least-once':
      return { project: ({ assignment, chunks }) =>
        chunks.pipe(
          bufferCountOrTime(batch, scheduler),
          plain,
          custom(assignment.topic),
          insertDeduped(sink, inserting, scheduler),
          commit(source, undefined, effects),
        ) };
    case 'exactly-once': {
      if (store === undefined) throw new IngestError('KCR_CONFIG', 'exactly-once needs a state store, got none');
      const joinUpTo = { count: batch.count ?? bufferDefaults.count, bytes: batch.bytes ?? bufferDefaults.bytes };
      const ledger = new Ledger(store, source, { group, owner, maxPending, onReset, retry, scheduler, ...effects });
      return { project: ({ assignment, chunks }) =>
        chunks.pipe(
          bufferCountOrTime(batch, scheduler),
          reconcileWithState({ ledger, source, sink }, assignment, { onGap, onlyInDoubt, joinUpTo, transformVersion: transformVersion?.(assignment.topic), ...effects }, scheduler),
          custom(assignment.topic),
          insertDeduped(sink, { ...inserting, ledger }, scheduler),
          commit(source, ledger, effects),
        ), onHalt: ({ assignment, error }, heals) => ledger.halt(assignment, error.code, heals) };
    }
  }
}
