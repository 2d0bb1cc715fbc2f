/**
 * A helper of insertDeduped: a batch goes on without the record at fault (I12). Imports: errors, ports, rxjs.
 */
import { catchError, concatMap, every, from, map, of, throwError, type Observable } from 'rxjs';
import { IngestError, asIngestError } from '../../src/errors.js';
import type { InsertBatch } from '../../src/ports.js';
import { noDoubt, whilePrepared, type BatchAttempt, type Stage } from './batch-attempt.js';
import { insertVerified } from './insert-verified.js';
import { partsOf, record, without } from './record-again.js';
import { kept, whyKept } from './refused.js';

/**
 * The batch without the record is another batch: recorded as such first. Emits what is to be inserted, under its own
 * token.
 */
export function leaveOut(error: IngestError, batchAttempt: BatchAttempt, stage: Stage): Observable<BatchAttempt> {
  const { batch, doubt, exclusions } = batchAttempt;
  const { offset } = error.fields;
  const poison = batch.records.find((one) => one.offset === offset);
  const canRecord = batch.intent === undefined || stage.ledger !== undefined;
  const why = whyKept({ isNamed: poison !== undefined, canRecord, left: exclusions.left });
  if (why !== undefined || poison === undefined) return throwError(() => kept(error, why ?? ''));
  const rest = without(batch, poison.offset);
  const isAbsent$ = batch.intent !== undefined && doubt.isInDoubt ? isAbsent(rest, error, stage) : of(true);
  return isAbsent$.pipe(
    concatMap((absent) =>
      absent
        ? record(rest, [poison.offset], stage)
        : throwError(() => kept(error, 'an earlier attempt may have landed, and rows of its range are in the table')),
    ),
    map((next): BatchAttempt => {
      stage.onEvent({ kind: 'excluded', assignment: batch.assignment, record: poison, error, replay: false });
      exclusions.left -= 1;
      // Nothing was ever sent under the new token.
      return { ...batchAttempt, batch: { ...next, replay: false }, doubt: noDoubt, renewals: 0 };
    }),
  );
}

/** Is no row of the batch in the table? An error that names `error` where that cannot be told. */
export function isAbsent(batch: InsertBatch, error: IngestError, stage: Stage): Observable<boolean> {
  return looksAbsent(batch, stage).pipe(
    catchError((thrown: unknown) => {
      const { detail } = asIngestError(thrown, 'KCR_INTERNAL', 'the range could not be read back');
      return throwError(() =>
        kept(error, `an earlier attempt may have landed, and that cannot be verified: ${detail}`),
      );
    }),
  );
}

/**
 * Prepared under the old token only to look: nothing is sent. What cannot even be prepared cannot have been sent
 * either; what is too large to be is looked for in parts.
 */
export function looksAbsent(batch: InsertBatch, stage: Stage): Observable<boolean> {
  if (batch.records.length === 0) return of(true);
  const doubt = { isInDoubt: true, isUnanswered: true };
  return whilePrepared(batch, stage, (prepared) =>
    insertVerified(prepared, batch, stage, { goal: 'absence', doubt }),
  ).pipe(
    map(({ outcome }) => {
      if (outcome.kind === 'looked') return outcome.isAbsent;
      throw outcome.kind === 'failed' ? outcome.error : new Error(`Expected a look, got ${outcome.kind}`);
    }),
    catchError((thrown: unknown) => {
      if (!(thrown instanceof IngestError)) return throwError(() => thrown);
      const { offset, oversized } = thrown.fields;
      if (oversized !== undefined) {
        return from(partsOf(batch, oversized.cuts)).pipe(
          concatMap((part) => looksAbsent(part, stage)),
          every((absent) => absent),
        );
      }
      const further = thrown.code === 'KCR_POISON' && offset !== undefined ? without(batch, offset) : batch;
      return further.records.length < batch.records.length ? looksAbsent(further, stage) : throwError(() => thrown);
    }),
  );
}
