// The three delivery semantics are three arrangements of the same stages.
import type { BatchSink, Delivered, Ledger, RecordSource } from 'kafka-clickhouse-rx';
import {
  bufferCountOrTime, commit, groupByPartition, insertDeduped, reconcileWithState, type PartitionStream,
} from 'kafka-clickhouse-rx/operators';
import type { Observable } from 'rxjs';

type Project = (partition: PartitionStream) => Observable<Delivered>;

/** A record is committed before it is inserted: never twice, but lost when the process dies in between. */
export const atMostOnce = (source: RecordSource, sink: BatchSink): Project => ({ chunks }) =>
  chunks.pipe(bufferCountOrTime(), commit(source, undefined, { mustCommit: true }), insertDeduped(sink, { whenInDoubt: 'abandon' }));

/** A record is committed after it was inserted: never lost, but twice when the process dies in between. */
export const atLeastOnce = (source: RecordSource, sink: BatchSink): Project => ({ chunks }) =>
  chunks.pipe(bufferCountOrTime(), insertDeduped(sink), commit(source));

/** The range is written down before it is inserted and settled after: never lost, never twice. */
export const exactlyOnce = (source: RecordSource, sink: BatchSink, ledger: Ledger): Project => ({ assignment, chunks }) =>
  chunks.pipe(bufferCountOrTime(), reconcileWithState({ ledger, source, sink }, assignment), insertDeduped(sink), commit(source, ledger));

/** Each is used in the same way. */
export const pipeline = (source: RecordSource, project: Project) => groupByPartition(source, project);
