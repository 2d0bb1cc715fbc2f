/**
 * Room: a helper of insertDeduped: one batch with all that may happen to it on its way into the table: its range is
 * recorded anew, records are left out of it, it is inserted in parts. Ports and the model may enter.
 */
import {
  catchError,
  concatMap,
  defer,
  every,
  from,
  last,
  map,
  of,
  tap,
  throwError,
  timer,
  using,
  type Observable,
} from 'rxjs';
import { IngestError, asIngestError, hasCode } from '../../src/errors.js';
import type { PartitionLedger } from '../../src/ledger.js';
import { bytesOf, countOffsets, indexAfter } from '../../src/model/batch.js';
import type { Intent } from '../../src/model/state.js';
import type { PreparedInsert, InsertBatch, InsertResult } from '../../src/ports.js';
import { insertInParts, type Part, type Searched } from './insert-in-parts.js';
import { insertToFit } from './insert-to-fit.js';
import type { Preparing } from './preparing.js';
import { VerifiedInsert, type Doubt, type Effects, type Inserted, type NoteDown } from './insert-verified.js';

export interface Stage extends Effects {
  readonly sink: Preparing;
  readonly onPoison: 'halt' | 'exclude';
  /** That recorded the batch; undefined: nothing is recorded of it. */
  readonly ledger: PartitionLedger | undefined;
}

/** How far one batch has come; its records become fewer, and with them its intent and token others. */
interface BatchAttempt {
  readonly batch: InsertBatch;
  readonly doubt: Doubt;
  /** Records that may still be left out. */
  readonly exclusions: { left: number };
  /** How often its intent was recorded anew, one time after another, before anything of it was tried. */
  readonly renewals: number;
  /** Tried again and again, whatever is answered: to look for a record at fault was in vain. */
  readonly isPatient: boolean;
}

/** A doubt that so many renewals have not cleared does not go with them: the table is asked. One may be followed by a freeze. */
const MOST_RENEWALS = 2;

type Tried = Inserted | { readonly kind: 'refused'; readonly error: IngestError };

const nothing: InsertResult = { rows: 0, bytes: 0 };

const noDoubt = (): Doubt => ({ isInDoubt: false, isUnanswered: false });

/** Emits the batch, or the parts it had to be inserted in, ascending. */
export function insertAll(batch: InsertBatch, stage: Stage): Observable<Part> {
  return insertRest(
    {
      batch,
      doubt: { isInDoubt: batch.replay, isUnanswered: batch.replay },
      exclusions: { left: exclusionsOf(batch) },
      renewals: 0,
      isPatient: false,
    },
    stage,
  );
}

function insertRest(batchAttempt: BatchAttempt, stage: Stage): Observable<Part> {
  return attempt(batchAttempt, stage).pipe(
    concatMap((tried): Observable<Part> => {
      switch (tried.kind) {
        case 'inserted':
          return of({ batch: batchAttempt.batch, result: tried.result });
        case 'unsent':
          return renew(batchAttempt, tried.wasTried, stage);
        case 'refused':
          if (tried.error.fields.oversized !== undefined) return cutToFit(tried.error, batchAttempt, stage);
          return tried.error.fields.divisible === undefined
            ? exclude(tried.error, batchAttempt, stage)
            : inParts(tried.error, batchAttempt, stage);
      }
    }),
  );
}

/** Emits `refused` where something can be done about it: a record left out, or looked for, or the batch cut. */
function attempt({ batch, doubt, renewals, isPatient }: BatchAttempt, stage: Stage): Observable<Tried> {
  const { ledger, onPoison } = stage;
  if (batch.records.length === 0) return of({ kind: 'inserted', result: nothing });
  const canRecord = batch.intent === undefined || ledger !== undefined;
  return whilePrepared(batch, stage, (preparedInsert): Observable<Tried> => {
    const mayBeUnsent = ledger !== undefined && batch.intent !== undefined && renewals < MOST_RENEWALS;
    return new VerifiedInsert(preparedInsert, batch, stage, doubt, noteDownOf(batch, stage)).insert(
      mayBeUnsent,
      isPatient,
    );
  }).pipe(
    catchError((thrown: unknown) => {
      const isExcluded =
        onPoison === 'exclude' && hasCode(thrown, 'KCR_POISON') && thrown.fields.divisible === undefined;
      const isSearched =
        !isPatient && canRecord && thrown instanceof IngestError && thrown.fields.divisible !== undefined;
      const isCut = canRecord && thrown instanceof IngestError && thrown.fields.oversized !== undefined;
      const isAbandoned = stage.whenInDoubt === 'abandon' && hasCode(thrown, 'KCR_INSERT_IN_DOUBT');
      return (isExcluded || isSearched || isCut) && !isAbandoned
        ? of<Tried>({ kind: 'refused', error: thrown })
        : throwError(() => thrown);
    }),
  );
}

/** Freezes, and gives the bytes back once what is done with them has ended, or nobody waits for it any more. */
function whilePrepared<T>(
  batch: InsertBatch,
  { sink }: Stage,
  use: (preparedInsert: PreparedInsert) => Observable<T>,
): Observable<T> {
  return defer(() => {
    const preparedInsert = sink.prepare(batch);
    let isReleased = false;
    const release = (): void => {
      if (!isReleased) preparedInsert.release();
      isReleased = true;
    };
    return using(
      () => ({ unsubscribe: release }),
      () => use(preparedInsert).pipe(last(), tap(release)),
    );
  });
}

/**
 * Of a range that was recorded long ago but never sent only another owner can have sent something. That there is none
 * the state store tells, by taking a write; where there is one this is KCR_FENCED. No table needs to be asked.
 */
function renew(batchAttempt: BatchAttempt, wasTried: boolean, stage: Stage): Observable<Part> {
  return renewed(batchAttempt, wasTried, stage).pipe(concatMap((next) => insertRest(next, stage)));
}

function renewed(batchAttempt: BatchAttempt, wasTried: boolean, stage: Stage): Observable<BatchAttempt> {
  return record(batchAttempt.batch, [], stage).pipe(
    map((batch) => ({ ...batchAttempt, batch, renewals: wasTried ? 1 : batchAttempt.renewals + 1 })),
  );
}

/** Records the range anew, without `offsets` and from now on; emits the batch under what is stored then. */
function record(
  batch: InsertBatch,
  offsets: readonly number[],
  { sink, ledger, scheduler }: Stage,
): Observable<InsertBatch> {
  const { intent, assignment } = batch;
  if (intent === undefined || ledger === undefined) return of(batch);
  return defer(() => {
    const renewed: Intent = { ...intent, ...sink.describe?.(assignment.topic), atMs: scheduler.now() };
    return ledger.exclude(renewed, offsets).pipe(
      last(),
      map((stored) => ({ ...batch, intent: stored, token: ledger.token(stored) })),
    );
  });
}

function noteDownOf({ intent }: InsertBatch, { ledger }: Stage): NoteDown | undefined {
  return intent === undefined || ledger === undefined ? undefined : (fields) => ledger.note(intent, fields);
}

/** Most records of one batch that are left out, and those of a batch of any size. */
const maxExcluded = 100;
const fewExcluded = 10;

function exclusionsOf({ records, intent }: InsertBatch): number {
  const before = intent?.excluded.length ?? 0;
  return Math.min(maxExcluded, Math.max(fewExcluded, Math.floor((records.length + before) / 2))) - before;
}

/** The batch without the record at fault is another batch (I12): recorded as such first, then inserted under its own token. */
function exclude(error: IngestError, batchAttempt: BatchAttempt, stage: Stage): Observable<Part> {
  const { batch, doubt, exclusions } = batchAttempt;
  const { offset } = error.fields;
  const poison = batch.records.find((one) => one.offset === offset);
  if (offset === undefined || poison === undefined)
    return throwError(() => kept(error, 'the error does not name the record'));
  if (batch.intent !== undefined && stage.ledger === undefined)
    return throwError(() => kept(error, 'the batch came without the ledger that recorded its range'));
  if (exclusions.left <= 0) {
    const why = `too many others of its batch were left out already (at most ${maxExcluded}, and half of a batch of more than ${2 * fewExcluded}): the table or the topic is wrong, not a record`;
    return throwError(() => kept(error, why));
  }
  const rest = without(batch, offset);
  const isAbsent$ = batch.intent !== undefined && doubt.isInDoubt ? isAbsent(rest, error, stage) : of(true);
  return isAbsent$.pipe(
    concatMap((absent) => {
      if (!absent)
        return throwError(() =>
          kept(error, 'an earlier attempt may have landed, and rows of its range are in the table'),
        );
      return record(rest, [offset], stage);
    }),
    concatMap((next) => {
      stage.onEvent({ kind: 'excluded', assignment: batch.assignment, record: poison, error, replay: false });
      exclusions.left -= 1;
      // Nothing was ever sent under the new token.
      return insertRest({ ...batchAttempt, batch: { ...next, replay: false }, doubt: noDoubt(), renewals: 0 }, stage);
    }),
  );
}

/** Is no row of the batch in the table? An error that names `error` where that cannot be told. */
function isAbsent(batch: InsertBatch, error: IngestError, stage: Stage): Observable<boolean> {
  return looksAbsent(batch, stage).pipe(
    catchError((thrown: unknown) =>
      throwError(() =>
        kept(
          error,
          `an earlier attempt may have landed, and that cannot be verified: ${asIngestError(thrown, 'KCR_INTERNAL', 'the range could not be read back').detail}`,
        ),
      ),
    ),
  );
}

/**
 * Frozen under the old token only to look: nothing is sent. What cannot even be frozen cannot have been sent either; what
 * is too large to be is looked for in parts.
 */
function looksAbsent(batch: InsertBatch, stage: Stage): Observable<boolean> {
  if (batch.records.length === 0) return of(true);
  return whilePrepared(batch, stage, (preparedInsert) =>
    new VerifiedInsert(preparedInsert, batch, stage, { isInDoubt: true, isUnanswered: true }).isAbsent(),
  ).pipe(
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

function without(batch: InsertBatch, offset: number): InsertBatch {
  const records = batch.records.filter((one) => one.offset !== offset);
  return { ...batch, records, bytes: bytesOf(records) };
}

/** Poison that is not left out, although the policy says so. */
function kept(error: IngestError, why: string): IngestError {
  return new IngestError('KCR_POISON', `${error.reason}; the record is not left out, since ${why}`, {
    ...error.fields,
    hint:
      error.fields.hint ??
      'mend the table, or drop such records with a transform; the range is still recorded as in doubt',
    cause: error,
  });
}

/** Looks for what is refused by inserting the batch in parts; which record is at fault is decided here. */
function inParts(error: IngestError, batchAttempt: BatchAttempt, stage: Stage): Observable<Part> {
  const { batch } = batchAttempt;
  // A range that is recorded again as it was before has the token that it had, and with it what is known of its attempts.
  const doubts = new Map<string, Doubt>([[rangeOf(batch), batchAttempt.doubt]]);
  const courseOf = (part: InsertBatch, doubt = doubts.get(rangeOf(part)) ?? noDoubt()): BatchAttempt => {
    doubts.set(rangeOf(part), doubt);
    return { ...batchAttempt, batch: doubt.isInDoubt ? { ...part, replay: true } : part, doubt, renewals: 0 };
  };
  const searched: Searched = {
    attempt: (part) => tried(courseOf(part), stage),
    repeat: (part) =>
      tried(
        { ...courseOf(part), batch: { ...part, replay: true }, doubt: { isInDoubt: true, isUnanswered: false } },
        stage,
      ),
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
      stage.onPoison === 'exclude' ? exclude(blamed, courseOf(part, noDoubt()), stage) : throwError(() => blamed),
  };
  const { assignment, afterOffset, lastOffset } = batch;
  if (countOffsets(batch.records) > 1)
    stage.onEvent({ kind: 'divided', assignment, first: afterOffset + 1, last: lastOffset, error });
  return insertInParts(batch, { error, ...batchAttempt.doubt }, searched);
}

/** With what is known of its attempts by then. */
function tried(batchAttempt: BatchAttempt, stage: Stage): ReturnType<Searched['attempt']> {
  return sent(batchAttempt, stage).pipe(
    map((outcome) => (outcome.kind === 'inserted' ? outcome : { ...batchAttempt.doubt, ...outcome })),
  );
}

/** Recorded again until it was sent: what was not is no refusal. */
function sent(batchAttempt: BatchAttempt, stage: Stage): Observable<Exclude<Tried, { kind: 'unsent' }>> {
  return attempt(batchAttempt, stage).pipe(
    concatMap((tried) =>
      tried.kind === 'unsent'
        ? renewed(batchAttempt, tried.wasTried, stage).pipe(concatMap((next) => sent(next, stage)))
        : of(tried),
    ),
  );
}

export function rangeOf({ afterOffset, lastOffset }: InsertBatch): string {
  return `${afterOffset + 1}-${lastOffset}`;
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
    insertRest: (part) => insertRest({ ...batchAttempt, batch: part, doubt: noDoubt(), renewals: 0 }, stage),
  });
}

/** The batch cut behind each of `cuts`, still under its own intent. */
function partsOf(batch: InsertBatch, cuts: readonly number[]): readonly InsertBatch[] {
  return [...cuts, batch.lastOffset].map((lastOffset, at): InsertBatch => {
    const afterOffset = at === 0 ? batch.afterOffset : cuts[at - 1]!;
    const records = batch.records.slice(indexAfter(batch.records, afterOffset), indexAfter(batch.records, lastOffset));
    return { ...batch, afterOffset, lastOffset, records, bytes: bytesOf(records) };
  });
}

/** Cuts the batch behind each of `cuts`, and has the parts recorded before any of them is inserted. */
function recut(
  batch: InsertBatch,
  cuts: readonly number[],
  { sink, ledger, scheduler }: Stage,
): Observable<readonly InsertBatch[]> {
  const { assignment, intent } = batch;
  const parts = partsOf(batch, cuts).map((part): InsertBatch => ({ ...part, replay: false }));
  if (intent === undefined || ledger === undefined) return of(parts);
  return defer(() => {
    const target = sink.describe?.(assignment.topic);
    const intents = parts.map((part): Intent => partOf(part, { ...intent, ...target, atMs: scheduler.now() }));
    return ledger.recut(intents).pipe(
      last(),
      map((stored) => parts.map((part, at) => ({ ...part, intent: stored[at], token: ledger.token(stored[at]!) }))),
    );
  });
}

/** Whatever was known of attempts under the whole's token is not known of the part's. */
function partOf(
  { afterOffset, lastOffset }: InsertBatch,
  {
    first,
    rows,
    atMs,
    settings,
    tables,
    written,
    floor = first,
    excluded,
    transformVersion,
    isUnseen,
    unknownUntilMs,
  }: Intent,
): Intent {
  const ownFirst = afterOffset + 1;
  return {
    first: ownFirst,
    last: lastOffset,
    atMs,
    settings,
    tables,
    tokenForm: 2,
    rows: Math.min(rows, lastOffset - afterOffset),
    excluded: excluded.filter((offset) => offset >= ownFirst && offset <= lastOffset),
    ...(written === undefined ? {} : { written }),
    ...(transformVersion === undefined ? {} : { transformVersion }),
    ...(isUnseen === true ? { isUnseen } : {}),
    ...(unknownUntilMs === undefined ? {} : { unknownUntilMs }),
    ...(floor === ownFirst ? {} : { floor }),
  };
}
