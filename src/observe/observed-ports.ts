/**
 * Ports whose calls are measured. What they do, and when, stays as it is. Imports: errors, overlay, ports, rxjs.
 */
import { defer, finalize, from, tap, type Observable, type ObservableInput } from 'rxjs';
import { asIngestError, type IngestError } from '../errors.js';
import { overlay } from '../overlay.js';
import type { BatchSink, InsertBatch, PreparedInsert, PreparingSink, RecordSource, StateStore } from '../ports.js';
import type { Call, Meter } from './meter.js';

export interface ObservablePorts {
  readonly source: RecordSource;
  readonly sink: BatchSink | Pick<PreparingSink, 'prepare'>;
  readonly store?: StateStore | undefined;
}

interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** The same ports, whose calls the meter sees. */
export function observedPorts<P extends ObservablePorts>(ports: P, meter: Meter): P {
  const { source, sink, store } = ports;
  return {
    ...ports,
    source: observedSource(source, meter),
    sink: 'prepare' in sink ? observedPreparing(sink, meter) : observedSink(sink, meter),
    ...(store === undefined ? {} : { store: observedStore(store, meter) }),
  };
}

function observedSource(source: RecordSource, meter: Meter): RecordSource {
  const committing =
    (commit: RecordSource['commit']): RecordSource['commit'] =>
    (assignment, nextOffset) =>
      measured(
        meter,
        'commit',
        assignment,
        () => commit(assignment, nextOffset),
        () => {
          const facts = meter.find(assignment.topic, assignment.partition);
          if (facts !== undefined) facts.committed = nextOffset;
        },
      );
  return overlay(source, {
    commit: committing((assignment, next) => source.commit(assignment, next)),
    ...(source.commitOnce === undefined
      ? {}
      : { commitOnce: committing((assignment, next) => source.commitOnce!(assignment, next)) }),
    ...(source.drain === undefined
      ? {}
      : {
          drain: () => {
            meter.drain();
            source.drain!();
          },
        }),
  });
}

function observedPreparing(sink: Pick<PreparingSink, 'prepare'>, meter: Meter): Pick<PreparingSink, 'prepare'> {
  return overlay(sink, { prepare: (batch) => observedInsert(sink.prepare(opened(batch, meter)), batch, meter) });
}

function observedInsert(prepared: PreparedInsert, { assignment }: InsertBatch, meter: Meter): PreparedInsert {
  return overlay(prepared, {
    insert: () => measured(meter, 'insert', assignment, () => prepared.insert()),
    insertMissing: (missing) => measured(meter, 'fill', assignment, () => prepared.insertMissing(missing)),
    fill: (missing) => measured(meter, 'fill', assignment, () => prepared.fill(missing)),
    readBack: (doubt) => measured(meter, 'readBack', assignment, () => prepared.readBack(doubt)),
  });
}

function observedSink(sink: BatchSink, meter: Meter): BatchSink {
  return overlay(sink, {
    insert: (batch) => measured(meter, 'insert', batch.assignment, () => sink.insert(opened(batch, meter))),
  });
}

/** Notes that the batch is on its way. */
function opened(batch: InsertBatch, meter: Meter): InsertBatch {
  meter.batch(batch);
  const { assignment, lastOffset, records, intent, replay } = batch;
  const facts = meter.find(assignment.topic, assignment.partition);
  if (facts === undefined || facts.assignment.assignmentId !== assignment.assignmentId) return batch;
  const isInDoubt = replay || facts.open.get(lastOffset)?.isInDoubt === true;
  const lastTimestampMs = records.at(-1)?.timestampMs;
  facts.open.set(lastOffset, { sinceMs: intent?.atMs ?? meter.nowMs, lastTimestampMs, isInDoubt });
  return batch;
}

function observedStore(store: StateStore, meter: Meter): StateStore {
  return overlay(store, {
    claim: (key, owner) => measured(meter, 'claim', key, () => store.claim(key, owner)),
    write: (claim, state) => measured(meter, 'write', claim.key, () => store.write(claim, state)),
  });
}

function measured<T>(
  meter: Meter,
  call: Call,
  { topic, partition }: Place,
  make: () => ObservableInput<T>,
  onDone: () => void = () => undefined,
): Observable<T> {
  return defer(() => {
    const end = meter.call(call, topic, partition);
    let failure: IngestError | undefined;
    return from(make()).pipe(
      tap({
        complete: onDone,
        error: (thrown: unknown) => (failure = asIngestError(thrown, 'KCR_INTERNAL', call)),
      }),
      finalize(() => end(failure)),
    );
  });
}
