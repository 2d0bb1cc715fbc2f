/**
 * Room: a helper of insertDeduped: one frozen batch on its way into the table, asked for where a token alone does not
 * tell. Ports and the model may enter.
 */
import {
  catchError,
  concatMap,
  defer,
  from,
  last,
  map,
  of,
  tap,
  throwError,
  type Observable,
  type ObservableInput,
  type SchedulerLike,
} from 'rxjs';
import { IngestError } from '../../src/errors.js';
import type { OnEvent } from '../../src/events.js';
import { countOffsets, placeOf } from '../../src/model/batch.js';
import type { IntentNotes } from '../../src/model/state.js';
import type { PreparedInsert, InsertBatch, InsertResult, ReadBack } from '../../src/ports.js';
import { retryRetryable, type RetryConfig, type RetryNotice } from '../../src/retry.js';

export interface Effects {
  readonly retry: RetryConfig;
  readonly whenInDoubt: 'retry' | 'abandon';
  readonly onEvent: OnEvent;
  readonly scheduler: SchedulerLike;
}

/** What is known of one token's attempts; shared by everything that is done under it. */
export interface Doubt {
  /** An attempt under this token, of this process or of one before it, may have landed. */
  isInDoubt: boolean;
  /** Of one of them nobody knows whether it is still on its way: its answer was lost, or an earlier owner had it. */
  isUnanswered: boolean;
}

export type Inserted =
  | { readonly kind: 'inserted'; readonly result: InsertResult }
  /** Nothing was sent that may have landed: the token became doubtful, and a fenced write can clear that. `wasTried`: not at once. */
  | { readonly kind: 'unsent'; readonly wasTried: boolean };

type Attempted =
  | { readonly kind: 'sent' | 'sent in part'; readonly result: InsertResult }
  | { readonly kind: 'found'; readonly found: ReadBack }
  | { readonly kind: 'unsent'; readonly wasTried: boolean };

/** Stores what must outlive this process before it is acted on. */
export type NoteDown = (fields: IntentNotes) => Observable<unknown>;

/** Of what is final, as far as one answer tells: a gateway that is being changed gives such answers for a moment. */
const FEW_ATTEMPTS = 5;
/** Attempts after which a range that is still refused is told of again: with the longest wait every five minutes. */
const STUCK_EVERY = 30;

/** Nothing landed, and rights, settings and tables change. A record does not. */
function mayPass({ code, fields }: IngestError): boolean {
  return (
    (code === 'KCR_INSERT_FATAL' ||
      code === 'KCR_SCHEMA' ||
      code === 'KCR_TABLE_MISSING' ||
      code === 'KCR_PREFLIGHT') &&
    fields.divisible !== 'surely'
  );
}

/** Offsets that a message names; of more it says how many. */
const namedOffsets = 20;

const nothing: InsertResult = { rows: 0, bytes: 0 };

type PortCall = 'insert' | 'readBack' | 'fill';

/**
 * Inserts, then reads back where the outcome was ambiguous. Before each attempt the token is asked about: a process
 * that was frozen must not wake up and send what the server has forgotten it already has.
 *
 * Attempts under the batch's token T may hang somewhere and land at any time, so nothing goes out under another token
 * while one of them could still add rows (I16). Rows that a look shows to be missing go out in this order:
 *
 * 1. Under T, and without the rows that are there. The server names a block by token and ClickHouse partition, and writes
 *    it as a whole or not at all: what is missing of one ClickHouse partition is the block that every attempt under T has
 *    for it. Whichever lands first is kept, the other is dropped. The rows that are there stay out: the server may have
 *    forgotten T for their ClickHouse partitions. Targets of materialized views know T as the table does, and a table
 *    that feeds views is not mended in part at all. A replicated table keeps T in Keeper, for all of its replicas.
 * 2. Then a look. An attempt under T was answered, so the server knows T in each of these ClickHouse partitions.
 * 3. What is still missing has lost its rows and kept its token: only then a fill, under a token of its own. Attempts under
 *    T that land from now on are dropped, since T is known where they could add something.
 *
 * That there is a fill is stored before it is sent. Whoever comes next goes on with the fill alone: the fill may hang
 * as well, and by then the server may have forgotten T, under which the same rows would land beside it. A fill whose
 * answer is lost is made again under the same token, of what a look still misses: its blocks are whole, too.
 *
 * What this rests on: no attempt is on its way for longer than the table remembers its token.
 */
export class VerifiedInsert {
  readonly #preparedInsert: PreparedInsert;
  readonly #batch: InsertBatch;
  readonly #effects: Effects;
  readonly #doubt: Doubt;
  readonly #noteDown: NoteDown | undefined;
  #isPatient = true;

  /** `noteDown` of undefined: nothing is recorded of the batch, so nothing can be added. */
  constructor(preparedInsert: PreparedInsert, batch: InsertBatch, effects: Effects, doubt: Doubt, noteDown?: NoteDown) {
    this.#preparedInsert = preparedInsert;
    this.#batch = batch;
    this.#effects = effects;
    this.#doubt = doubt;
    this.#noteDown = noteDown;
  }

  /**
   * `mayBeUnsent`: the caller knows how to clear a doubt about a token that was never sent. `isPatient`: what may be a
   * record's fault is tried again like any passing error, not handed to the caller after a few times.
   */
  insert(mayBeUnsent: boolean, isPatient = false): Observable<Inserted> {
    this.#isPatient = isPatient;
    let wasTried = false;
    const attempted$ = this.#attempt((calling): Observable<Attempted> => {
      const send = (kind: 'sent' | 'sent in part', port: () => ObservableInput<InsertResult>): Observable<Attempted> =>
        defer(() => {
          calling('insert');
          wasTried = true;
          return from(port());
        }).pipe(
          last(),
          map((result): Attempted => ({ kind, result })),
        );
      const whole = () => send('sent', () => this.#preparedInsert.insert());
      const isUnseen = this.#batch.intent?.isUnseen === true;
      const why = isUnseen ? 'a fill of it was answered and not seen' : this.#tokenDoubt();
      if (why === undefined) return whole();
      if (!isUnseen && mayBeUnsent && !this.#doubt.isInDoubt) return of({ kind: 'unsent', wasTried });
      calling('readBack');
      return this.#readBack(why).pipe(
        concatMap((found): Observable<Attempted> => {
          const { missing, doubled } = found;
          const isBegun = isUnseen || this.#batch.intent?.isFilling === true;
          if (found.isUnproven === true && isBegun) return throwError(() => this.#unproven(why));
          if (missing.length === 0 || doubled.length > 0 || isBegun) return of({ kind: 'found', found });
          return this.#asOwner(
            missing.length === countOffsets(this.#batch.records)
              ? whole()
              : send('sent in part', () => this.#preparedInsert.insertMissing(missing)),
          );
        }),
      );
    });
    return attempted$.pipe(
      concatMap((attempted): Observable<Inserted> => {
        if (attempted.kind === 'unsent') return of(attempted);
        if (attempted.kind === 'found') return this.#complete(attempted.found, undefined);
        const { kind, result } = attempted;
        const mustLook = kind === 'sent in part' || (this.#doubt.isInDoubt && this.#preparedInsert.readBackWhenInDoubt);
        return mustLook ? this.#verify(result) : of({ kind: 'inserted', result });
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

  /** After an attempt under the batch's token was answered, or where a fill was begun before. `result`: of that attempt. */
  #complete({ missing, doubled }: ReadBack, result: InsertResult | undefined): Observable<Inserted> {
    if (doubled.length > 0)
      return throwError(() =>
        this.#unverifiable(`Read back after a doubtful insert, the table has ${nameOffsets(doubled)} twice`),
      );
    if (missing.length === 0) return of({ kind: 'inserted', result: result ?? nothing });
    if (this.#batch.intent?.isUnseen === true) return throwError(() => this.#invisible(missing));
    return this.#fill(missing).pipe(
      concatMap((filled) =>
        this.#look().pipe(
          concatMap((found): Observable<Inserted> => {
            if (found.missing.length > 0) return this.#noteUnseen(found.missing);
            if (found.doubled.length > 0)
              return throwError(() =>
                this.#unverifiable(`Read back after a fill, the table has ${nameOffsets(found.doubled)} twice`),
              );
            return of({ kind: 'inserted', result: result ?? filled });
          }),
        ),
      ),
    );
  }

  #fill(missing: readonly number[]): Observable<InsertResult> {
    if (this.#noteDown === undefined || this.#batch.intent?.isFilling === true) return this.#fillNow(missing);
    return this.#noteDown({ isFilling: true }).pipe(
      last(),
      concatMap(() => this.#fillNow(missing)),
    );
  }

  /** A fill that has to be made again after a while is looked for first, as an insert is. */
  #fillNow(missing: readonly number[]): Observable<InsertResult> {
    let isFirst = true;
    return this.#attempt((calling) => {
      const filling = (offsets: readonly number[]) =>
        defer(() => {
          calling('fill');
          return from(this.#preparedInsert.fill(offsets));
        }).pipe(last());
      const why = isFirst ? undefined : this.#tokenDoubt();
      isFirst = false;
      if (why === undefined) return filling(missing);
      calling('readBack');
      return this.#readBack(why).pipe(
        concatMap((found) => {
          if (found.isUnproven === true) return throwError(() => this.#unproven(why));
          return found.missing.length === 0 ? of(nothing) : this.#asOwner(filling(found.missing));
        }),
      );
    });
  }

  /**
   * Whoever comes so late may have been frozen, and another owner have decided of the range meanwhile, for instance to leave
   * a record out. Only who may still write the state goes on; of what is not recorded nobody else decides.
   */
  #asOwner<T>(call$: Observable<T>): Observable<T> {
    return this.#noteDown === undefined
      ? call$
      : this.#noteDown({}).pipe(
          last(),
          concatMap(() => call$),
        );
  }

  #tokenDoubt(): string | undefined {
    return this.#preparedInsert.tokenDoubt(this.#effects.scheduler.now());
  }

  #readBack(why?: string): Observable<ReadBack> {
    const { assignment, afterOffset, lastOffset } = this.#batch;
    return defer(() => from(this.#preparedInsert.readBack(why))).pipe(
      last(),
      tap(({ missing }) =>
        this.#effects.onEvent({
          kind: 'verified',
          assignment,
          first: afterOffset + 1,
          last: lastOffset,
          missing: missing.length,
        }),
      ),
    );
  }

  /** Makes the calls of `port` again until they succeed; `calling` says which one is under way. */
  #attempt<T>(port: (calling: (call: PortCall) => void) => ObservableInput<T>): Observable<T> {
    const { retry, scheduler, onEvent, whenInDoubt } = this.#effects;
    let call: PortCall = 'insert';
    let fewLeft = FEW_ATTEMPTS;
    return defer(() => from(port((next) => void (call = next)))).pipe(
      catchError((error: unknown) => this.#noteUnknown(error)),
      retryRetryable<T>(
        retry,
        scheduler,
        (notice) => {
          onEvent({ kind: 'retry', call, assignment: this.#batch.assignment, ...notice });
          if (this.#isPatient && notice.error.fields.divisible === 'perhaps') this.#tellStuck(notice);
        },
        (error) => {
          const isInDoubt = error.code === 'KCR_INSERT_IN_DOUBT';
          // Also of what was refused: blocks of other ClickHouse partitions may be there.
          if (isInDoubt || error.fields.mayHaveLanded === true) this.#doubt.isInDoubt = true;
          if (isInDoubt && error.fields.divisible === undefined) this.#doubt.isUnanswered = true;
          if (isInDoubt && whenInDoubt === 'abandon') return false;
          if (error.retryable && (this.#isPatient || error.fields.divisible === undefined)) return true;
          if (!error.retryable && !mayPass(error)) return false;
          fewLeft -= 1;
          return fewLeft > 0;
        },
      ),
    );
  }

  #tellStuck({ attempt, error }: RetryNotice): void {
    if (attempt % STUCK_EVERY !== FEW_ATTEMPTS) return;
    const { assignment, records } = this.#batch;
    this.#effects.onEvent({
      kind: 'stuck',
      assignment,
      first: records.at(0)!.offset,
      last: records.at(-1)!.offset,
      attempts: attempt,
      error,
    });
  }

  /** Who dies now leaves the range to one who was not told, and would believe what the table shows. */
  #noteUnknown(error: unknown): Observable<never> {
    const failed$ = throwError(() => error);
    if (!(error instanceof IngestError) || error.fields.unknownForMs === undefined || this.#noteDown === undefined)
      return failed$;
    return this.#noteDown({ unknownUntilMs: this.#effects.scheduler.now() + error.fields.unknownForMs }).pipe(
      last(),
      concatMap(() => failed$),
    );
  }

  /** Stored before it is told: the next owner would fill again, and the one after it. */
  #noteUnseen(missing: readonly number[]): Observable<never> {
    const failed$ = throwError(() => this.#invisible(missing));
    return this.#noteDown === undefined
      ? failed$
      : this.#noteDown({ isUnseen: true }).pipe(
          last(),
          concatMap(() => failed$),
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

  /** Neither the fill nor the range's own token may be used again without a look: of each some blocks may be there. */
  #unproven(why: string): IngestError {
    return this.#unverifiable(`A fill was begun, and what of it is in the table cannot be seen (${why})`);
  }

  #unverifiable(what: string): IngestError {
    return new IngestError('KCR_READ_BACK', what, {
      ...placeOf(this.#batch),
      table: this.#batch.intent?.tables[0],
      hint: 'compare the table with the topic by _partition and _offset, repair it, then start again: the range is still recorded as in doubt',
    });
  }
}

function nameOffsets(offsets: readonly number[]): string {
  const named = offsets.slice(0, namedOffsets).join(', ');
  const more = offsets.length - namedOffsets;
  return `${offsets.length === 1 ? 'offset' : 'offsets'} ${named}${more > 0 ? ` and ${more} more, up to ${offsets.at(-1)}` : ''}`;
}
