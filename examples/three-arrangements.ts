// The three delivery semantics are three arrangements of the same stages: what stands where decides.
import type { BatchSink, Delivered, Ledger, RecordSource, VerifiableSink } from 'kafka-clickhouse-rx';
import {
  bufferCountOrTime,
  commit,
  groupByPartition,
  insertDeduped,
  reconcileWithState,
  type Partition,
} from 'kafka-clickhouse-rx/operators';
import type { Observable } from 'rxjs';

type Project = (partition: Partition) => Observable<Delivered>;

/** A record is committed before it is inserted: never twice, but lost when the process dies in between. */
export const atMostOnce =
  (sink: BatchSink): Project =>
  (partition) =>
    partition.chunks.pipe(bufferCountOrTime(), commit(partition), insertDeduped(sink));

/** A record is committed after it was inserted: never lost, but twice when the process dies in between. */
export const atLeastOnce =
  (sink: BatchSink): Project =>
  (partition) =>
    partition.chunks.pipe(bufferCountOrTime(), insertDeduped(sink), commit(partition));

/** The range is written down before it is inserted and settled after: never lost, never twice. */
export const exactlyOnce =
  (sink: VerifiableSink, ledger: Ledger): Project =>
  (partition) =>
    partition.chunks.pipe(
      bufferCountOrTime(),
      reconcileWithState(partition, ledger, sink),
      insertDeduped(sink),
      commit(partition, ledger),
    );

/** Each is used in the same way. */
export const pipeline = (source: RecordSource, project: Project) => groupByPartition(source, project);
