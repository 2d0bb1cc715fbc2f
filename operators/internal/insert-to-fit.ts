/**
 * A helper of insertDeduped: a batch that is more than one block, since a transform made several rows of a record.
 *
 *
 * Its range is recorded, so no setting makes it smaller any more: it is recorded again in parts that fit. Where none of
 * it was ever sent, that is all. Of a replay an earlier process may have sent it, if it fitted then: under another
 * transform. Then it is cut only when no row of it is in the table, also not after the time for which an attempt may be
 * on its way. Imports: errors, ports, rxjs.
 */
import { concat, concatMap, defer, of, throwError, type Observable } from 'rxjs';
import { IngestError, type Oversized } from '../../src/errors.js';
import type { InsertBatch } from '../../src/ports.js';

/** What can be done with it. */
export interface Cutting<T> {
  /** Is no row of it in the table? An error where that cannot be told. */
  readonly isAbsent: () => Observable<boolean>;
  /** Emits once after so long; `why` is told. */
  readonly waitFor: (ms: number, why: IngestError) => Observable<unknown>;
  /** Records the batch in parts, cut behind these offsets. */
  readonly recut: (cuts: readonly number[]) => Observable<readonly InsertBatch[]>;
  /** Inserts a part; the last one may have to be cut again. */
  readonly insertRest: (part: InsertBatch) => Observable<T>;
}

export function insertToFit<T>(
  error: IngestError,
  { cuts, mayLandForMs }: Oversized,
  cutting: Cutting<T>,
): Observable<T> {
  const cut$ = defer(() => cutting.recut(cuts)).pipe(
    concatMap((parts) => concat(...parts.map((part) => defer(() => cutting.insertRest(part))))),
  );
  if (mayLandForMs === undefined) return cut$;
  const expectAbsent$ = defer(cutting.isAbsent).pipe(
    concatMap((absent) => (absent ? of(absent) : throwError(() => isThere(error)))),
  );
  const why = new IngestError(
    'KCR_INSERT_IN_DOUBT',
    `${error.reason}; an earlier process may have sent it with fewer rows: if none of it is in the table after ` +
      'the wait, it is recorded again in parts',
    error.fields,
  );
  return expectAbsent$.pipe(
    concatMap(() => cutting.waitFor(mayLandForMs, why)),
    concatMap(() => expectAbsent$),
    concatMap(() => cut$),
  );
}

function isThere(error: IngestError): IngestError {
  const { topic, partition, first, last } = error.fields;
  return new IngestError(
    'KCR_READ_BACK',
    `${error.reason}; it is not sent in parts, since rows of its range are in the table: an earlier process has ` +
      'sent it under another transform',
    {
      topic,
      partition,
      first,
      last,
      cause: error,
      hint:
        'go back to the transform with which it was sent, let everything in doubt be resolved ' +
        '("kafka-clickhouse-rx drain"), then change it, and its `transformVersion` with it; or ' +
        'look the range up by hand, then set what is settled with "kafka-clickhouse-rx state reset"',
    },
  );
}
