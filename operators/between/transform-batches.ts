/**
 * Not one of the six: transformBatches. One's own operator between the stages, a batch at a time.
 * Imports: errors, model, rxjs.
 */
import {
  catchError,
  concatMap,
  defer,
  endWith,
  map,
  of,
  throwError,
  type MonoTypeOperatorFunction,
  type Observable,
} from 'rxjs';
import { IngestError, asIngestError } from '../../src/errors.js';
import { placeOf } from '../../src/model/batch.js';
import type { Batch } from '../../src/model/record.js';

/**
 * Puts an RxJS operator of one's own between the stages: it is given one batch and gives one back, with the same range
 * and other records. It is applied to each batch again, since a replay must give the same rows: nothing may be carried
 * from one batch to the next.
 *
 * In plain words: whatever RxJS can do to a batch, with somebody who counts them.
 *
 * ```
 * source:  -a-----b----|     two batches
 *          transformBatches(concatMap(batch => from(enrich(batch.records)).pipe(map(records => ({ ...batch, records
 * })))))
 *          ---A-----B--|     the same ranges, other records
 * ```
 *
 * A plain operator in the pipe works as well. Then a batch that it drops is seen when the next one comes, not at once,
 * and what it throws is told with the range that was under way, not with the batch's.
 *
 * @throws Into the stream: `KCR_TRANSFORM` with topic, partition and range when the operator throws, gives no batch or
 * more than one, or changes the range.
 */
export function transformBatches<B extends Batch>(
  operator: (batches: Observable<B>) => Observable<NoInfer<B>>,
): MonoTypeOperatorFunction<B> {
  return concatMap((batch) =>
    defer(() => operator(of(batch))).pipe(
      catchError((thrown: unknown): Observable<never> =>
        throwError(() => asIngestError(thrown, 'KCR_TRANSFORM', 'Your operator threw', placeOf(batch))),
      ),
      endWith(undefined),
      map((made, index) => checked(made, index, batch)),
      concatMap((made) => (made === undefined ? [] : [made])),
    ),
  );
}

/** `made` of undefined: there is nothing more. */
function checked<B extends Batch>(made: B | undefined, index: number, batch: B): B | undefined {
  if (made === undefined) {
    if (index === 1) return undefined;
    throw failed(
      'Your operator let a batch go',
      batch,
      'a batch without rows must pass too, so that its range is settled: pass { ...batch, records: [] }',
    );
  }
  if (index > 0)
    throw failed('Your operator made several batches of one', batch, 'give one batch with all the records');
  const { assignment, afterOffset, lastOffset } = batch;
  if (made.assignment === assignment && made.afterOffset === afterOffset && made.lastOffset === lastOffset) return made;
  throw failed(
    'Your operator gave another range than it was given',
    batch,
    'keep the range and change the records only: { ...batch, records }',
  );
}

function failed(what: string, batch: Batch, hint: string): IngestError {
  return new IngestError('KCR_TRANSFORM', what, { ...placeOf(batch), hint });
}
