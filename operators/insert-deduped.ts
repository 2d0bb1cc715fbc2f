/**
 * Stage 5 of 6: insertDeduped. Batches go into the table, each exactly once. Only ports and the model may enter.
 */
import {
  Observable, asyncScheduler, catchError, concatMap, defer, from, last, map, of, throwError,
  type ObservableInput, type OperatorFunction, type SchedulerLike,
} from 'rxjs';
import { IngestError, hasCode } from '../src/errors.js';
import { noReport, type Delivered, type Report } from '../src/events.js';
import type { Batch } from '../src/model/record.js';
import type { BatchSink, FrozenInsert, InsertBatch, InsertResult } from '../src/ports.js';
import { retryRetryable, type RetryConfig } from '../src/retry.js';
import { mapInOrder } from './internal/map-in-order.js';

export interface InsertConfig {
  /** Batches of one partition that may be under way at once; results come out in order. @default 2 */
  readonly concurrency?: number;
  readonly retry?: RetryConfig;
  /**
   * After an attempt that may have landed: `retry` it, which doubles rows where no token protects them, or `abandon`
   * the batch, which at-most-once asks for; abandoned rows are counted in the event `abandoned`. @default 'retry'
   */
  readonly whenInDoubt?: 'retry' | 'abandon';
  readonly report?: Report;
}

/**
 * Inserts each batch and emits it as delivered, in order, once the server's answer was read to its end. A failed
 * attempt is made again with the same bytes and the same token. After an ambiguous one (the connection broke, the
 * server was restarted), and for every replay, a table whose server can forget the rows but not the token is read back
 * and filled with exactly what is missing.
 *
 * In plain words: asks again until the server says yes, with a name on the parcel so that it is taken in only once.
 *
 * ```
 * source:    -b---c------|
 * insert b:   --d  --k           d = in doubt; after a wait the same bytes again; k = answered
 * insert c:       --k            is under way meanwhile, and waits for its turn
 *            insertDeduped(sink, { retry: { minDelayMs: 3, jitter: 0 } })
 *            --------(BC)|
 * ```
 *
 * A batch without records passes at once, in its turn. So does an error of the source, when what is under way before
 * it is delivered; only `KCR_FENCED` drops that at once.
 *
 * @throws Into the stream: `KCR_POISON` with the record's offset, `KCR_SCHEMA`, `KCR_INSERT_FATAL`, `KCR_READ_BACK`.
 * Nothing of the failed batch was settled.
 */
export function insertDeduped(
  sink: Pick<BatchSink, 'freeze'>,
  config: InsertConfig = {},
  scheduler: SchedulerLike = asyncScheduler,
): OperatorFunction<Batch | InsertBatch, Delivered> {
  const { concurrency = 2, retry = {}, whenInDoubt = 'retry', report = noReport } = config;
  if (!Number.isInteger(concurrency) || concurrency < 1) {
    throw new IngestError('KCR_CONFIG', `Expected \`concurrency\` to be a positive integer, got ${concurrency}`);
  }
  const effects = { retry, whenInDoubt, report };
  // A former owner stops at once; behind any other error what is under way is finished.
  const isUrgent = (error: unknown) => hasCode(error, 'KCR_FENCED');
  return mapInOrder((batch) => deliver(sink, asInsertBatch(batch), effects, scheduler), concurrency, isUrgent);
}

/** A batch that no intent was recorded for: the other two arrangements. */
export function asInsertBatch(batch: Batch | InsertBatch): InsertBatch {
  return 'replay' in batch ? batch : { ...batch, intent: undefined, token: undefined, replay: false };
}

type Effects = Required<Omit<InsertConfig, 'concurrency'>>;

function deliver(sink: Pick<BatchSink, 'freeze'>, batch: InsertBatch, effects: Effects, scheduler: SchedulerLike): Observable<Delivered> {
  const { assignment, afterOffset, lastOffset, replay } = batch;
  const delivered = ({ rows, bytes }: InsertResult): Delivered => ({
    kind: 'delivered', assignment, afterOffset, lastOffset, rows, bytes, replay,
  });
  if (batch.records.length === 0) return of(delivered({ rows: 0, bytes: 0 }));
  return new Observable<Delivered>((subscriber) => {
    const frozen = sink.freeze(batch);
    const inserting = insertAndVerify(frozen, batch, effects, scheduler)
      .pipe(
        catchError((thrown: unknown) => {
          if (effects.whenInDoubt !== 'abandon' || !hasCode(thrown, 'KCR_INSERT_IN_DOUBT')) return throwError(() => thrown);
          effects.report({ kind: 'abandoned', assignment, first: afterOffset + 1, last: lastOffset, rows: batch.records.length, error: thrown });
          return of<InsertResult>({ rows: 0, bytes: 0 });
        }),
        map(delivered),
      )
      .subscribe(subscriber);
    return () => {
      inserting.unsubscribe();
      frozen.release();
    };
  });
}

function insertAndVerify(frozen: FrozenInsert, batch: InsertBatch, effects: Effects, scheduler: SchedulerLike): Observable<InsertResult> {
  let isInDoubt = batch.replay;
  const attempt = <T>(call: PortCall, port: () => ObservableInput<T>): Observable<T> =>
    defer(() => from(port())).pipe(
      last(),
      retryRetryable<T>(
        effects.retry,
        scheduler,
        (notice) => {
          if (hasCode(notice.error, 'KCR_INSERT_IN_DOUBT')) isInDoubt = true;
          effects.report({ kind: 'retry', call, assignment: batch.assignment, ...notice });
        },
        (error) => error.retryable && !(effects.whenInDoubt === 'abandon' && error.code === 'KCR_INSERT_IN_DOUBT'),
      ),
    );
  const verify = (result: InsertResult, round: number): Observable<InsertResult> =>
    attempt('readBack', () => frozen.readBack()).pipe(
      concatMap(({ missing, doubled }) => {
        const { afterOffset, lastOffset, assignment } = batch;
        effects.report({ kind: 'verified', assignment, first: afterOffset + 1, last: lastOffset, missing: missing.length });
        if (doubled.length > 0) return throwError(() => unverifiable(batch, `has ${doubled.length} offsets twice, first ${doubled[0]}`));
        if (missing.length === 0) return of(result);
        if (round > maxFillRounds) return throwError(() => unverifiable(batch, `lacks ${missing.length} offsets, first ${missing[0]}`));
        return attempt('fill', () => frozen.fill(missing, round)).pipe(concatMap(() => verify(result, round + 1)));
      }),
    );
  return attempt('insert', () => frozen.insert()).pipe(
    concatMap((result) => (isInDoubt && frozen.readBackWhenInDoubt ? verify(result, 1) : of(result))),
  );
}

/** Fills of one batch before it is given up. Each one lost to a kill of the server within about 100 microseconds. */
const maxFillRounds = 5;

type PortCall = 'insert' | 'readBack' | 'fill';

function unverifiable(batch: InsertBatch, what: string): IngestError {
  const { assignment, afterOffset, lastOffset } = batch;
  return new IngestError('KCR_READ_BACK', `Read back after a doubtful insert, the table still ${what}`, {
    topic: assignment.topic,
    partition: assignment.partition,
    first: afterOffset + 1,
    last: lastOffset,
    hint: 'compare the table with the topic by _partition and _offset, repair it, then start again: the range is still recorded as in doubt',
  });
}
