/** Public entry `kafka-clickhouse-rx/operators`: the six stages, in the order of the data. */
export { consume } from './consume.js';
export { groupByPartition, type Covered, type GroupByPartitionConfig, type PartitionStream } from './group-by-partition.js';
export { batchLimits, bufferCountOrTime, type BufferConfig } from './buffer-count-or-time.js';
export { reconcileWithState, type ReconcileConfig, type ReconcilePorts } from './reconcile-with-state.js';
export { insertDeduped, type InsertConfig } from './insert-deduped.js';
export { commit, type CommitConfig, type Committable } from './commit.js';

/** One's own code between them. */
export { transformRows, type Row, type Transform, type TransformConfig } from './transform-rows.js';
export { transformThrough } from './transform-through.js';
