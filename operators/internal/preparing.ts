/**
 * A helper of the stages: a sink of one function, as one that prepares batches. Imports: errors, model, ports, rxjs.
 */
import { catchError, defer, from, throwError, type Observable } from 'rxjs';
import { IngestError, hasCode } from '../../src/errors.js';
import { placeOf } from '../../src/model/batch.js';
import type {
  BatchSink,
  PreparedInsert,
  InsertBatch,
  InsertResult,
  IntentTarget,
  PreparingSink,
  VerifiableSink,
} from '../../src/ports.js';

/** `describe` says what an intent that is renewed records. */
export type Preparing = Pick<PreparingSink, 'prepare'> & Partial<Pick<PreparingSink, 'describe'>>;

/** What `insertDeduped` takes. */
export type InsertSink = BatchSink | Preparing;

/** What `reconcileWithState` takes: it must be able to look, or exactly-once would end at the first lost answer. */
export type ReconcileSink = VerifiableSink | Pick<PreparingSink, 'describe'>;

export function preparing(sink: InsertSink): Preparing {
  if ('prepare' in sink) return sink;
  return { prepare: (batch) => unprepared(sink, batch), describe: (topic) => describe(sink, topic) };
}

export function describeOf(sink: ReconcileSink, topic: string): IntentTarget {
  return 'verification' in sink ? describe(sink, topic) : sink.describe(topic);
}

function describe({ verification }: BatchSink, topic: string): IntentTarget {
  return verification?.describe?.(topic) ?? { tables: [topic], settings: '' };
}

/** Nothing is made once: each attempt inserts the batch. */
function unprepared(sink: BatchSink, batch: InsertBatch): PreparedInsert {
  const { verification } = sink;
  if (batch.intent !== undefined && verification === undefined)
    throw failed('KCR_CONFIG', batch, 'the sink has no `verification`, and exactly-once cannot do without');
  let mayHaveLanded = batch.replay;
  return {
    insert: () =>
      defer(() => from(sink.insert(batch))).pipe(
        catchError((thrown: unknown): Observable<InsertResult> => {
          const error =
            thrown instanceof IngestError
              ? thrown
              : failed('KCR_INSERT_IN_DOUBT', batch, `the sink failed: ${String(thrown)}`, thrown);
          mayHaveLanded ||= hasCode(error, 'KCR_INSERT_IN_DOUBT');
          return throwError(() => error);
        }),
      ),
    tokenDoubt: () => (mayHaveLanded && verification !== undefined ? 'an earlier attempt may have landed' : undefined),
    readBackWhenInDoubt: false,
    readBack: () =>
      verification === undefined
        ? throwError(() => failed('KCR_READ_BACK', batch, 'the sink has no `verification`'))
        : verification.look(batch),
    insertMissing: () => throwError(() => inPart(batch)),
    fill: () => throwError(() => inPart(batch)),
    release: () => undefined,
  };
}

function inPart(batch: InsertBatch): IngestError {
  return failed('KCR_READ_BACK', batch, 'part of the range is there, and the sink inserts a batch as a whole');
}

function failed(
  code: 'KCR_CONFIG' | 'KCR_INSERT_IN_DOUBT' | 'KCR_READ_BACK',
  batch: InsertBatch,
  what: string,
  cause?: unknown,
): IngestError {
  return new IngestError(code, what, { ...placeOf(batch), cause });
}
