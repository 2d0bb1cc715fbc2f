/**
 * Room: a helper of insertDeduped: one frozen batch on its way into the table, asked for where a token alone does not
 * tell. Ports and the model may enter.
 */
import { concatMap, defer, from, last, map, of, tap, throwError, type Observable, type ObservableInput, type SchedulerLike } from 'rxjs';
import { IngestError } from '../../src/errors.js';
import type { Report } from '../../src/events.js';
import { countOffsets } from '../../src/model/batch.js';
import type { FrozenInsert, InsertBatch, InsertResult, ReadBack } from '../../src/ports.js';
import { retryRetryable, type RetryConfig } from '../../src/retry.js';

export interface Effects {
  readonly retry: RetryConfig;
  readonly whenInDoubt: 'retry' | 'abandon';
  readonly report: Report;
  readonly scheduler: SchedulerLike;
}

/** What is known of one token's attempts; shared by everything that is done under it. */
export interface Doubt {
  /** An attempt under this token, of this process or of one before it, may have landed. */
  isInDoubt: boolean;
}

export type Inserted =
  | { readonly kind: 'inserted'; readonly result: InsertResult }
  /** Nothing was sent: the token became doubtful before its first attempt, and a fenced write can clear that. */
  | { readonly kind: 'unsent' };

type Attempted = { readonly kind: 'sent'; readonly result: InsertResult } | { readonly kind: 'found'; readonly found: ReadBack } | { readonly kind: 'unsent' };

/** Of what is final, as far as one answer tells: a gateway that is being changed gives such answers for a moment. */
const FEW_ATTEMPTS = 5;

/** Nothing landed, and rights, settings and tables change. A record does not. */
function mayPass({ code, fields }: IngestError): boolean {
  return (code === 'KCR_INSERT_FATAL' || code === 'KCR_SCHEMA' || code === 'KCR_TABLE_MISSING' || code === 'KCR_PREFLIGHT') && fields.divisible !== 'surely';
}

/** Offsets that a message names; of more it says how many. */
const namedOffsets = 20;

const nothing: InsertResult = { rows: 0, bytes: 0 };

type PortCall = 'insert' | 'readBack' | 'fill';

/**
 * Inserts, then reads back where the outcome was ambiguous. Before each attempt the token is asked about: a process
 * that was frozen must not wake up and send what the server has forgotten it already has.
 */
export class VerifiedInsert {
  readonly #frozen: FrozenInsert;
  readonly #batch: InsertBatch;
  readonly #effects: Effects;
  readonly #doubt: Doubt;
  #isPatient = true;

  constructor(frozen: FrozenInsert, batch: InsertBatch, effects: Effects, doubt: Doubt) {
    this.#frozen = frozen;
    this.#batch = batch;
    this.#effects = effects;
    this.#doubt = doubt;
  }

  /**
   * `mayBeUnsent`: the caller knows how to clear a doubt about a token that was never sent. `isPatient`: what may be a
   * record's fault is tried again like any passing error, not handed to the caller after a few times.
   */
  insert(mayBeUnsent: boolean, isPatient = false): Observable<Inserted> {
    this.#isPatient = isPatient;
    const attempted$ = this.#attempt((calling): Observable<Attempted> => {
      const sent$ = defer(() => {
        calling('insert');
        return from(this.#frozen.insert());
      }).pipe(last(), map((result): Attempted => ({ kind: 'sent', result })));
      const why = this.#tokenDoubt();
      if (why === undefined) return sent$;
      if (mayBeUnsent && !this.#doubt.isInDoubt) return of({ kind: 'unsent' });
      calling('readBack');
      return this.#readBack(why).pipe(
        concatMap((found): Observable<Attempted> => (found.missing.length === countOffsets(this.#batch.records) ? sent$ : of({ kind: 'found', found }))),
      );
    });
    return attempted$.pipe(
      concatMap((attempted): Observable<Inserted> => {
        if (attempted.kind === 'unsent') return of(attempted);
        if (attempted.kind === 'found') return this.#complete(attempted.found, undefined);
        const { result } = attempted;
        return this.#doubt.isInDoubt && this.#frozen.readBackWhenInDoubt ? this.#verify(result) : of({ kind: 'inserted', result });
      }),
    );
  }

  /** Is not one row of the batch in the table? An error where that cannot be told: "none is missing" would be another answer. */
  isAbsent(): Observable<boolean> {
    return this.#attempt((calling) => {
      calling('readBack');
      return this.#readBack('a record of it is refused now');
    }).pipe(map(({ missing }) => missing.length === countOffsets(this.#batch.records)));
  }

  #verify(result: InsertResult): Observable<Inserted> {
    return this.#look().pipe(concatMap((found) => this.#complete(found, result)));
  }

  /** After an attempt was answered. */
  #look(): Observable<ReadBack> {
    return this.#attempt((calling) => {
      calling('readBack');
      return this.#readBack();
    });
  }

  /** `result`: of the insert; undefined where nothing was sent yet. */
  #complete({ missing, doubled }: ReadBack, result: InsertResult | undefined): Observable<Inserted> {
    if (doubled.length > 0) return throwError(() => this.#unverifiable(`Read back after a doubtful insert, the table has ${nameOffsets(doubled)} twice`));
    if (missing.length === 0) return of({ kind: 'inserted', result: result ?? nothing });
    return this.#fill(missing).pipe(
      concatMap((filled) =>
        this.#look().pipe(
          map((found): Inserted => {
            if (found.missing.length > 0) throw this.#invisible(found.missing);
            if (found.doubled.length > 0) throw this.#unverifiable(`Read back after a fill, the table has ${nameOffsets(found.doubled)} twice`);
            return { kind: 'inserted', result: result ?? filled };
          }),
        ),
      ),
    );
  }

  /** A fill that has to be made again after a while is looked for first, as an insert is. */
  #fill(missing: readonly number[]): Observable<InsertResult> {
    let isFirst = true;
    return this.#attempt((calling) => {
      const filling = (offsets: readonly number[]) =>
        defer(() => {
          calling('fill');
          return from(this.#frozen.fill(offsets));
        }).pipe(last());
      const why = isFirst ? undefined : this.#tokenDoubt();
      isFirst = false;
      if (why === undefined) return filling(missing);
      calling('readBack');
      return this.#readBack(why).pipe(concatMap((found) => (found.missing.length === 0 ? of(nothing) : filling(found.missing))));
    });
  }

  #tokenDoubt(): string | undefined {
    return this.#frozen.tokenDoubt(this.#effects.scheduler.now());
  }

  #readBack(why?: string): Observable<ReadBack> {
    const { assignment, afterOffset, lastOffset } = this.#batch;
    return defer(() => from(this.#frozen.readBack(why))).pipe(
      last(),
      tap(({ missing }) => this.#effects.report({ kind: 'verified', assignment, first: afterOffset + 1, last: lastOffset, missing: missing.length })),
    );
  }

  /** Makes the calls of `port` again until they succeed; `calling` says which one is under way. */
  #attempt<T>(port: (calling: (call: PortCall) => void) => ObservableInput<T>): Observable<T> {
    const { retry, scheduler, report, whenInDoubt } = this.#effects;
    let call: PortCall = 'insert';
    let fewLeft = FEW_ATTEMPTS;
    return defer(() => from(port((next) => void (call = next)))).pipe(
      retryRetryable<T>(
        retry,
        scheduler,
        (notice) => {
          report({ kind: 'retry', call, assignment: this.#batch.assignment, ...notice });
        },
        (error) => {
          const isInDoubt = error.code === 'KCR_INSERT_IN_DOUBT';
          if (isInDoubt) this.#doubt.isInDoubt = true;
          if (isInDoubt && whenInDoubt === 'abandon') return false;
          if (error.retryable && (this.#isPatient || error.fields.divisible === undefined)) return true;
          if (!error.retryable && !mayPass(error)) return false;
          fewLeft -= 1;
          return fewLeft > 0;
        },
      ),
    );
  }

  /**
   * A fill that was answered and is not seen: whatever hides it may have hidden the rows before it. Filling again would
   * add a copy each time.
   */
  #invisible(missing: readonly number[]): IngestError {
    return this.#unverifiable(
      `A fill of ${nameOffsets(missing)} was answered, and the next look does not see them: nothing more is sent, and of each one copy too many may be in the table`,
    );
  }

  #unverifiable(what: string): IngestError {
    const { assignment, afterOffset, lastOffset, intent } = this.#batch;
    return new IngestError('KCR_READ_BACK', what, {
      topic: assignment.topic,
      partition: assignment.partition,
      first: afterOffset + 1,
      last: lastOffset,
      table: intent?.tables[0],
      hint: 'compare the table with the topic by _partition and _offset, repair it, then start again: the range is still recorded as in doubt',
    });
  }
}

function nameOffsets(offsets: readonly number[]): string {
  const named = offsets.slice(0, namedOffsets).join(', ');
  const more = offsets.length - namedOffsets;
  return `${offsets.length === 1 ? 'offset' : 'offsets'} ${named}${more > 0 ? ` and ${more} more, up to ${offsets.at(-1)}` : ''}`;
}
