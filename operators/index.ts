/**
 * Public entry `kafka-clickhouse-rx/operators`: the six stages, in the order of the data.
 * Imports: model, operators/between, operators/internal, ports, stages.
 */
export { consume } from './consume.js';
export { groupByPartition, type Covered, type GroupByPartitionConfig, type HealConfig } from './group-by-partition.js';
export { batchLimits, bufferCountOrTime, type BufferConfig } from './buffer-count-or-time.js';
export { reconcileWithState, type ReconcileConfig } from './reconcile-with-state.js';
export { insertDeduped, type InsertConfig } from './insert-deduped.js';
export { commit, type CommitConfig } from './commit.js';

/** What flows between them. */
export type {
  BufferedBatch,
  Committable,
  CommittedBatch,
  Done,
  InsertableBatch,
  Inserted,
  RecordedBatch,
} from '../src/stages.js';
export type { Partition } from '../src/ports.js';
export { partitionOf } from './internal/partition.js';

/** One's own code between them. */
export { ExactNumber, parseExact, stringifyExact } from '../src/model/exact-json.js';
export { transformRows, type Row, type Transform, type TransformConfig } from './between/transform-rows.js';
export { transformBatches } from './between/transform-batches.js';
export { transformThrough } from './between/transform-through.js';
