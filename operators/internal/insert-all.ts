/**
 * A helper of insertDeduped: one batch with all that may happen to it on its way into the table: its range is recorded
 * again, records are left out of it, it is inserted in parts. What is done when, `doubt.ts` and `refused.ts` decide.
 * Imports: errors, model, ports, rxjs.
 */
import { catchError, concatMap, map, of, tap, throwError, timer, type Observable } from 'rxjs';
import { IngestError } from '../../src/errors.js';
import { countOffsets } from '../../src/model/batch.js';
import type { InsertBatch } from '../../src/ports.js';
import { noDoubt, rangeOf, whilePrepared, type BatchAttempt, type Part, type Stage } from './batch-attempt.js';
import type { Doubt, Outcome } from './doubt-steps.js';
import { insertInParts, type Searched } from './insert-in-parts.js';
import { insertToFit } from './insert-to-fit.js';
import { insertVerified, type Ending, type NoteDown } from './insert-verified.js';
import { isAbsent, leaveOut, looksAbsent } from './leave-out.js';
import { record, recut } from './record-again.js';
import { exclusionsOf, remedyFor, type Remedy } from './refused.js';

/**
 * A doubt that so many renewals have not cleared does not go with them: the table is asked. One may be followed by a
 * freeze.
 */
const MOST_RENEWALS = 2;

type Tried =
  | Extract<Outcome, { kind: 'inserted' | 'unsent' }>
  /** Something can be done about it. */
  | {
      readonly kind: 'refused';
      readonly error: IngestError;
      readonly remedy: Exclude<Remedy, 'none'>;
      readonly doubt: Doubt;
    };

/** Emits the batch, or the parts it had to be inserted in, ascending. */
export function insertAll(batch: InsertBatch, stage: Stage): Observable<Part> {
  const { records, intent, replay } = batch;
  return insertRest(
    {
      batch,
      doubt: { isInDoubt: replay, isUnanswered: replay },
      exclusions: { left: exclusionsOf(records.length, intent?.excluded.length ?? 0) },
      renewals: 0,
      isPatient: false,
    },
    stage,
  );
}

function insertRest(batchAttempt: BatchAttempt, stage: Stage): Observable<Part> {
  return attempt(batchAttempt, stage).pipe(
    concatMap((tried): Observable<Part> => {
      if (tried.kind === 'inserted') return of({ batch: batchAttempt.batch, result: tried.result });
      if (tried.kind === 'unsent')
        return renewed(batchAttempt, tried.wasTried, stage).pipe(concatMap((next) => insertRest(next, stage)));
      const { error, doubt, remedy } = tried;
      const refused = { ...batchAttempt, doubt };
      switch (remedy) {
        case 'cut':
          return cutToFit(error, refused, stage);
        case 'leave out':
          return leaveOut(error, refused, stage).pipe(concatMap((next) => insertRest(next, stage)));
        case 'search':
          return inParts(error, refused, stage);
      }
    }),
  );
}

function attempt({ batch, doubt, renewals, isPatient }: BatchAttempt, stage: Stage): Observable<Tried> {
  const { ledger, onPoison } = stage;
  if (batch.records.length === 0) return of({ kind: 'inserted', result: { rows: 0, bytes: 0 } });
  const canRenew = ledger !== undefined && batch.intent !== undefined && renewals < MOST_RENEWALS;
  const noteDown = noteDownOf(batch, stage);
  return whilePrepared(batch, stage, (preparedInsert) =>
    insertVerified(preparedInsert, batch, stage, { goal: 'insert', doubt, noteDown, canRenew, isPatient }),
  ).pipe(
    // What cannot be prepared was not sent.
    catchError((thrown: unknown) =>
      thrown instanceof IngestError
        ? of<Ending>({ outcome: { kind: 'failed', error: thrown }, doubt })
        : throwError(() => thrown),
    ),
    map(({ outcome, doubt: after }): Tried => {
      if (outcome.kind === 'inserted' || outcome.kind === 'unsent') return outcome;
      if (outcome.kind === 'looked') throw new Error('Expected an attempt, got a look');
      const { error } = outcome;
      const canRecord = batch.intent === undefined || ledger !== undefined;
      const abandons = stage.whenInDoubt === 'abandon';
      const remedy = remedyFor(error, { onPoison, canRecord, isPatient, abandons });
      if (remedy === 'none') throw error;
      return { kind: 'refused', error, remedy, doubt: after };
    }),
  );
}

function noteDownOf({ intent }: InsertBatch, { ledger }: Stage): NoteDown | undefined {
  return intent === undefined || ledger === undefined ? undefined : (fields) => ledger.note(intent, fields);
}

/**
 * Of a range that was recorded long ago but never sent only another owner can have sent something. That there is none
 * the state store tells, by taking a write; where there is one this is KCR_FENCED. No table needs to be asked.
 */
function renewed(batchAttempt: BatchAttempt, wasTried: boolean, stage: Stage): Observable<BatchAttempt> {
  return record(batchAttempt.batch, [], stage).pipe(
    map((batch) => ({ ...batchAttempt, batch, renewals: wasTried ? 1 : batchAttempt.renewals + 1 })),
  );
}

/** Looks for what is refused by inserting the batch in parts; which record is at fault is decided here. */
function inParts(error: IngestError, batchAttempt: BatchAttempt, stage: Stage): Observable<Part> {
  const { batch } = batchAttempt;
  // A range that is recorded again as it was before has the token that it had, and with it what is known of its
  // attempts.
  const doubts = new Map<string, Doubt>([[rangeOf(batch), batchAttempt.doubt]]);
  const courseOf = (part: InsertBatch, doubt = doubts.get(rangeOf(part)) ?? noDoubt): BatchAttempt => {
    doubts.set(rangeOf(part), doubt);
    return { ...batchAttempt, batch: doubt.isInDoubt ? { ...part, replay: true } : part, doubt, renewals: 0 };
  };
  const searched: Searched = {
    attempt: (part) =>
      tried(courseOf(part), stage).pipe(
        tap((outcome) => {
          if (outcome.kind === 'refused') doubts.set(rangeOf(part), outcome.doubt);
        }),
      ),
    repeat: (part) => tried(courseOf(part, { ...noDoubt, isInDoubt: true }), stage),
    isAbsent: (part) => {
      if (part.intent === undefined) return of(true);
      // Of an error that is nobody's no record is to be made poison.
      return isAbsent(part, error, stage).pipe(
        catchError((thrown: unknown) => (error.fields.divisible === 'perhaps' ? of(false) : throwError(() => thrown))),
      );
    },
    recut: (whole, cuts) => recut(whole, cuts, stage),
    insertRest: (part, isPatient = false) => insertRest({ ...courseOf(part), isPatient }, stage),
    blame: (part, blamed) =>
      stage.onPoison === 'exclude'
        ? leaveOut(blamed, courseOf(part, noDoubt), stage).pipe(concatMap((next) => insertRest(next, stage)))
        : throwError(() => blamed),
  };
  const { assignment, afterOffset, lastOffset } = batch;
  if (countOffsets(batch.records) > 1)
    stage.onEvent({ kind: 'divided', assignment, first: afterOffset + 1, last: lastOffset, error });
  return insertInParts(batch, { error, doubt: batchAttempt.doubt }, searched);
}

/** Recorded again until it was sent: what was not is no refusal. */
function tried(batchAttempt: BatchAttempt, stage: Stage): Observable<Exclude<Tried, { kind: 'unsent' }>> {
  return attempt(batchAttempt, stage).pipe(
    concatMap((outcome) =>
      outcome.kind === 'unsent'
        ? renewed(batchAttempt, outcome.wasTried, stage).pipe(concatMap((next) => tried(next, stage)))
        : of(outcome),
    ),
  );
}

/** What is more than one block is inserted as several. */
function cutToFit(error: IngestError, batchAttempt: BatchAttempt, stage: Stage): Observable<Part> {
  const { batch } = batchAttempt;
  const { oversized } = error.fields;
  if (oversized === undefined) return throwError(() => error);
  const { assignment, afterOffset, lastOffset } = batch;
  stage.onEvent({ kind: 'divided', assignment, first: afterOffset + 1, last: lastOffset, error });
  return insertToFit(error, oversized, {
    isAbsent: () => looksAbsent(batch, stage),
    waitFor: (delayMs, why) => {
      stage.onEvent({ kind: 'retry', call: 'readBack', assignment, attempt: 1, delayMs, error: why });
      return timer(delayMs, stage.scheduler);
    },
    recut: (cuts) => recut(batch, cuts, stage),
    insertRest: (part) => insertRest({ ...batchAttempt, batch: part, doubt: noDoubt, renewals: 0 }, stage),
  });
}
