/**
 * Stage 5 of 6: insertDeduped. Batches go into the table, each exactly once. Only ports and the model may enter.
 */
import { asyncScheduler, catchError, concatMap, defer, last, map, of, tap, throwError, using, type Observable, type OperatorFunction, type SchedulerLike } from 'rxjs';
import { IngestError, asIngestError, hasCode } from '../src/errors.js';
import { noReport, type Delivered, type Report } from '../src/events.js';
import type { Ledger } from '../src/ledger.js';
import { bytesOf } from '../src/model/batch.js';
import type { Batch } from '../src/model/record.js';
import type { Intent } from '../src/model/state.js';
import type { BatchSink, FrozenInsert, InsertBatch, InsertResult } from '../src/ports.js';
import type { RetryConfig } from '../src/retry.js';
import { VerifiedInsert, type Doubt, type Effects, type Inserted, type NoteDown } from './internal/insert-verified.js';
import { mapInOrder } from './internal/map-in-order.js';

/** `describe` says what an intent that is renewed records. */
type InsertSink = Pick<BatchSink, 'freeze'> & Partial<Pick<BatchSink, 'describe'>>;

export interface InsertConfig {
  /** Batches of one partition that may be under way at once; results come out in order. @default 2 */
  readonly concurrency?: number;
  readonly retry?: RetryConfig;
  /**
   * After an attempt that may have landed: `retry` it, which doubles rows where no token protects them, or `abandon`
   * the batch, which at-most-once asks for; abandoned rows are counted in the event `abandoned`. @default 'retry'
   */
  readonly whenInDoubt?: 'retry' | 'abandon';
  /**
   * A record that the table cannot take: `halt` the partition, or `exclude` the record from its batch, which is told in
   * the event `excluded`. At most a hundred of one batch, and not most of it: then the table is wrong, or the topic.
   * @default 'halt'
   */
  readonly onPoison?: 'halt' | 'exclude';
  /** That of reconcileWithState. What is left out of a recorded range is recorded with it before the rest is inserted. */
  readonly ledger?: Pick<Ledger, 'of'>;
  readonly report?: Report;
}

/**
 * Inserts each batch and emits it as delivered, in order, once the server's answer was read to its end. A failed
 * attempt is made again with the same bytes and the same token. After an ambiguous one (the connection broke, the
 * server was restarted), and for every replay, a table whose server can forget the rows but not the token is read back
 * and filled with exactly what is missing. A range whose token the server may have forgotten is looked for before it is
 * sent: what is there already is not sent again.
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
  sink: InsertSink,
  config: InsertConfig = {},
  scheduler: SchedulerLike = asyncScheduler,
): OperatorFunction<Batch | InsertBatch, Delivered> {
  const { concurrency = 2, retry = {}, whenInDoubt = 'retry', onPoison = 'halt', ledger, report = noReport } = config;
  if (!Number.isInteger(concurrency) || concurrency < 1) {
    throw new IngestError('KCR_CONFIG', `Expected \`concurrency\` to be a positive integer, got ${concurrency}`);
  }
  const stage: Stage = { sink, onPoison, ledger, retry, whenInDoubt, report, scheduler };
  // A former owner stops at once; behind any other error what is under way is finished.
  const isUrgent = (error: unknown) => hasCode(error, 'KCR_FENCED');
  return mapInOrder((batch) => deliver(asInsertBatch(batch), stage), concurrency, isUrgent);
}

/** A batch that no intent was recorded for: the other two arrangements. */
export function asInsertBatch(batch: Batch | InsertBatch): InsertBatch {
  return 'replay' in batch ? batch : { ...batch, intent: undefined, token: undefined, replay: false };
}

interface Stage extends Effects {
  readonly sink: InsertSink;
  readonly onPoison: 'halt' | 'exclude';
  readonly ledger: Pick<Ledger, 'of'> | undefined;
}

/** How far one batch has come; its records become fewer, and with them its intent and token others. */
interface Course {
  readonly batch: InsertBatch;
  readonly doubt: Doubt;
  /** Records that may still be left out. */
  readonly exclusionsLeft: number;
  /** Its intent was just recorded anew. */
  readonly isRenewed: boolean;
}

const nothing: InsertResult = { rows: 0, bytes: 0 };

function deliver(batch: InsertBatch, stage: Stage): Observable<Delivered> {
  const { assignment, afterOffset, lastOffset, replay } = batch;
  const course: Course = { batch, doubt: { isInDoubt: replay }, exclusionsLeft: exclusionsOf(batch), isRenewed: false };
  return insertRest(course, stage).pipe(
    catchError((thrown: unknown) => {
      if (stage.whenInDoubt !== 'abandon' || !hasCode(thrown, 'KCR_INSERT_IN_DOUBT')) return throwError(() => thrown);
      stage.report({ kind: 'abandoned', assignment, first: afterOffset + 1, last: lastOffset, rows: batch.records.length, error: thrown });
      return of(nothing);
    }),
    map(({ rows, bytes }): Delivered => ({ kind: 'delivered', assignment, afterOffset, lastOffset, rows, bytes, replay })),
  );
}

type Tried = Inserted | { readonly kind: 'poison'; readonly error: IngestError };

function insertRest(course: Course, stage: Stage): Observable<InsertResult> {
  const { batch, doubt } = course;
  const { ledger, scheduler, onPoison } = stage;
  if (batch.records.length === 0) return of(nothing);
  const tried$ = whileFrozen(batch, stage, (frozen): Observable<Tried> => {
    const canRenew = ledger !== undefined && batch.intent !== undefined;
    // A doubt that a renewal has not cleared is not renewed again.
    const mayBeUnsent = canRenew && !(course.isRenewed && frozen.tokenDoubt(scheduler.now()) !== undefined);
    return new VerifiedInsert(frozen, batch, stage, doubt, noteDownOf(batch, stage)).insert(mayBeUnsent);
  }).pipe(
    catchError((thrown: unknown) => {
      const isExcluded = onPoison === 'exclude' && hasCode(thrown, 'KCR_POISON');
      return isExcluded ? of<Tried>({ kind: 'poison', error: thrown }) : throwError(() => thrown);
    }),
  );
  return tried$.pipe(
    concatMap((tried) => {
      switch (tried.kind) {
        case 'inserted':
          return of(tried.result);
        case 'unsent':
          return renew(course, stage);
        case 'poison':
          return exclude(tried.error, course, stage);
      }
    }),
  );
}

/** Freezes, and gives the bytes back once what is done with them has ended, or nobody waits for it any more. */
function whileFrozen<T>(batch: InsertBatch, { sink }: Stage, use: (frozen: FrozenInsert) => Observable<T>): Observable<T> {
  return defer(() => {
    const frozen = sink.freeze(batch);
    let isReleased = false;
    const release = (): void => {
      if (!isReleased) frozen.release();
      isReleased = true;
    };
    return using(
      () => ({ unsubscribe: release }),
      () => use(frozen).pipe(last(), tap(release)),
    );
  });
}

/**
 * Of a range that was recorded long ago but never sent only another owner can have sent something. That there is none
 * the state store tells, by taking a write; where there is one this is KCR_FENCED. No table needs to be asked.
 */
function renew(course: Course, stage: Stage): Observable<InsertResult> {
  return record(course.batch, [], stage).pipe(concatMap((batch) => insertRest({ ...course, batch, isRenewed: true }, stage)));
}

/** Records the range anew, without `offsets` and from now on; emits the batch under what is stored then. */
function record(batch: InsertBatch, offsets: readonly number[], { sink, ledger, scheduler }: Stage): Observable<InsertBatch> {
  const { intent, assignment } = batch;
  if (intent === undefined || ledger === undefined) return of(batch);
  return defer(() => {
    const opened = ledger.of(assignment);
    const renewed: Intent = { ...intent, ...sink.describe?.(assignment.topic), atMs: scheduler.now() };
    return opened.exclude(renewed, offsets).pipe(last(), map((stored) => ({ ...batch, intent: stored, token: opened.token(stored) })));
  });
}

function noteDownOf({ intent, assignment }: InsertBatch, { ledger }: Stage): NoteDown | undefined {
  return intent === undefined || ledger === undefined ? undefined : (fields) => defer(() => ledger.of(assignment).note(intent, fields));
}

/** Most records of one batch that are left out, and those of a batch of any size. */
const maxExcluded = 100;
const fewExcluded = 10;

function exclusionsOf({ records, intent }: InsertBatch): number {
  const before = intent?.excluded.length ?? 0;
  return Math.min(maxExcluded, Math.max(fewExcluded, Math.floor((records.length + before) / 2))) - before;
}

/** The batch without the record at fault is another batch (I12): recorded as such first, then inserted under its own token. */
function exclude(error: IngestError, course: Course, stage: Stage): Observable<InsertResult> {
  const { batch, doubt, exclusionsLeft } = course;
  const { offset } = error.fields;
  const poison = batch.records.find((one) => one.offset === offset);
  if (offset === undefined || poison === undefined) return throwError(() => kept(error, 'the error does not name the record'));
  if (batch.intent !== undefined && stage.ledger === undefined) return throwError(() => kept(error, 'insertDeduped was not given the ledger that recorded the range'));
  if (exclusionsLeft <= 0) {
    const why = `too many others of its batch were left out already (at most ${maxExcluded}, and half of a batch of more than ${2 * fewExcluded}): the table or the topic is wrong, not a record`;
    return throwError(() => kept(error, why));
  }
  const rest = without(batch, offset);
  const isAbsent$ = batch.intent !== undefined && doubt.isInDoubt ? isAbsent(rest, error, stage) : of(true);
  return isAbsent$.pipe(
    concatMap((absent) => {
      if (!absent) return throwError(() => kept(error, 'an earlier attempt may have landed, and rows of its range are in the table'));
      return record(rest, [offset], stage);
    }),
    concatMap((next) => {
      stage.report({ kind: 'excluded', assignment: batch.assignment, record: poison, error, replay: false });
      // Nothing was ever sent under the new token.
      return insertRest({ batch: next, doubt: { isInDoubt: false }, exclusionsLeft: exclusionsLeft - 1, isRenewed: true }, stage);
    }),
  );
}

/**
 * Is no row of the batch in the table? Frozen under the old token only to look: nothing is sent. What cannot even be
 * frozen cannot have been sent either.
 */
function isAbsent(batch: InsertBatch, error: IngestError, stage: Stage): Observable<boolean> {
  if (batch.records.length === 0) return of(true);
  return whileFrozen(batch, stage, (frozen) => new VerifiedInsert(frozen, batch, stage, { isInDoubt: true }).isAbsent()).pipe(
    catchError((thrown: unknown) => {
      const failure = asIngestError(thrown, 'KCR_INTERNAL', 'the range could not be read back');
      const { offset } = failure.fields;
      const further = failure.code === 'KCR_POISON' && offset !== undefined ? without(batch, offset) : batch;
      if (further.records.length < batch.records.length) return isAbsent(further, error, stage);
      return throwError(() => kept(error, `an earlier attempt may have landed, and that cannot be verified: ${failure.detail}`));
    }),
  );
}

function without(batch: InsertBatch, offset: number): InsertBatch {
  const records = batch.records.filter((one) => one.offset !== offset);
  return { ...batch, records, bytes: bytesOf(records) };
}

/** Poison that is not left out, although the policy says so. */
function kept(error: IngestError, why: string): IngestError {
  const reason = error.detail.replace(/ \(topic [^()]*\)$/, '');
  return new IngestError('KCR_POISON', `${reason}; the record is not left out, since ${why}`, {
    ...error.fields,
    hint: error.fields.hint ?? 'mend the table, or drop such records with a transform; the range is still recorded as in doubt',
    cause: error,
  });
}
