/**
 * Room: a helper of insertDeduped: who is at fault when the server refuses a batch and names no record. Ports and the
 * model may enter.
 *
 * There is no way to ask ClickHouse about some of the records without inserting them: what an expression of the table
 * throws is thrown behind the parser, and a few of them (ORDER BY, indexes) only when a part is written. So halves are
 * inserted for good, each recorded as a range of its own first. Nothing of the whole is in the table then and no attempt
 * at it is under way: otherwise rows of it would be there under two tokens.
 */
import { concat, concatMap, defer, of, throwError, type Observable } from 'rxjs';
import { IngestError } from '../../src/errors.js';
import { countOffsets } from '../../src/model/batch.js';
import type { InsertBatch, InsertResult } from '../../src/ports.js';
import type { Part } from './insert-all.js';

interface Refusal {
  readonly error: IngestError;
  /** Some of it may have landed, or may land later. */
  readonly isInDoubt: boolean;
}

type Tried = { readonly kind: 'inserted'; readonly result: InsertResult } | ({ readonly kind: 'refused' } & Refusal);

/** What can be done with parts. */
export interface Searched {
  /** Inserts what is recorded, as it stands. */
  readonly attempt: (part: InsertBatch) => Observable<Tried>;
  /** Is no row of it in the table? An error where that cannot be told. */
  readonly isAbsent: (part: InsertBatch) => Observable<boolean>;
  /** Records the batch in parts, cut behind these offsets. */
  readonly recut: (batch: InsertBatch, cuts: readonly number[]) => Observable<readonly InsertBatch[]>;
  /** Inserts, and looks again for whatever is refused; `isPatient`: is not looked for, but tried until it is taken. */
  readonly insertRest: (part: InsertBatch, how?: { readonly isPatient: boolean; readonly isInDoubt: boolean }) => Observable<Part>;
  /** Leaves out its only record, or halts for it, as the policy says. */
  readonly blame: (part: InsertBatch, error: IngestError) => Observable<Part>;
}

/** `refusal`: what was said of the whole. */
export function insertInParts(batch: InsertBatch, refusal: Refusal, searched: Searched): Observable<Part> {
  return cleared(batch, refusal, searched, () => new Search(searched).among(batch, countOffsets(batch.records), refusal));
}

/** Goes on only when nothing of it is in the table, and nothing can come. */
function cleared(batch: InsertBatch, { error, isInDoubt }: Refusal, searched: Searched, then: () => Observable<Part>): Observable<Part> {
  if (!isInDoubt && error.fields.mayHaveLanded !== true) return then();
  const isRecordToBlame = error.fields.divisible === 'surely';
  return searched.isAbsent(batch).pipe(
    concatMap((absent) => {
      if (absent) return then();
      if (!isRecordToBlame) return searched.insertRest(batch, { isPatient: true, isInDoubt: true });
      return throwError(() => new IngestError(error.code, `${error.detail}; the record at fault is not looked for, since rows of its range are in the table`, { ...error.fields, cause: error }));
    }),
  );
}

class Search {
  readonly #searched: Searched;
  /** A part was taken since the whole was refused: what is refused all the same is refused for itself. */
  #isOtherTaken = false;

  constructor(searched: Searched) {
    this.#searched = searched;
  }

  /** One or more of the first `bad` offsets of the batch are at fault. */
  among(batch: InsertBatch, bad: number, refusal: Refusal): Observable<Part> {
    const { attempt, recut } = this.#searched;
    if (bad <= 1) return this.#single(batch, refusal.error);
    const size = Math.floor(bad / 2);
    return recut(batch, [offsetOf(batch, size - 1)]).pipe(
      concatMap(([head, tail]) =>
        attempt(head!).pipe(
          concatMap((tried): Observable<Part> => {
            if (tried.kind === 'inserted') {
              this.#isOtherTaken = true;
              // Of what was too large as a whole the rest may fit.
              const next = (): Observable<Part> => (isTooLarge(refusal.error) ? this.#searched.insertRest(tail!) : this.among(tail!, bad - size, refusal));
              return concat(of({ batch: head!, result: tried.result }), defer(next));
            }
            // The server names it now.
            if (tried.error.fields.offset !== undefined) return concat(cleared(head!, tried, this.#searched, () => this.#searched.blame(head!, tried.error)), defer(() => this.#searched.insertRest(tail!)));
            return cleared(head!, tried, this.#searched, () => this.among(batch, size, tried));
          }),
        ),
      ),
    );
  }

  /** The first record of the batch is refused, alone or for all that is known. */
  #single(batch: InsertBatch, error: IngestError): Observable<Part> {
    const { recut, insertRest } = this.#searched;
    const [cut, isLast] = [offsetOf(batch, 0), countOffsets(batch.records) === 1];
    return (isLast ? of([batch]) : recut(batch, [cut])).pipe(
      concatMap(([one, tail]) => {
        if (error.fields.divisible === 'surely') return concat(this.#blameOf(one!, error), tail === undefined ? [] : defer(() => insertRest(tail)));
        return this.#suspect(one!, tail, error);
      }),
    );
  }

  /**
   * A refusal of which nobody knows whether it is for a record: only one that is refused again after others were taken
   * is at fault. When none is taken, it is the table or the moment.
   */
  #suspect(one: InsertBatch, tail: InsertBatch | undefined, error: IngestError): Observable<Part> {
    const { attempt, insertRest } = this.#searched;
    const again = (): Observable<Part> =>
      attempt(one).pipe(
        concatMap((tried): Observable<Part> => {
          if (tried.kind === 'inserted') return of({ batch: one, result: tried.result });
          const isSame = tried.error.fields.serverCode === error.fields.serverCode;
          return cleared(one, tried, this.#searched, () => (isSame ? this.#blameOf(one, tried.error) : insertRest(one)));
        }),
      );
    if (this.#isOtherTaken) return concat(again(), tail === undefined ? [] : defer(() => insertRest(tail)));
    const inVain = (): Observable<Part> => (error.retryable ? concat(insertRest(one, { isPatient: true, isInDoubt: false }), tail === undefined ? [] : defer(() => insertRest(tail))) : throwError(() => error));
    if (tail === undefined) return inVain();
    return attempt(tail).pipe(
      concatMap((tried): Observable<Part> => (tried.kind === 'inserted' ? concat(again(), of({ batch: tail, result: tried.result })) : cleared(tail, tried, this.#searched, inVain))),
    );
  }

  #blameOf(one: InsertBatch, error: IngestError): Observable<Part> {
    // A single record that is too large as a batch: nothing smaller can be tried.
    if (isTooLarge(error)) return throwError(() => error);
    const offset = offsetOf(one, 0);
    const { topic, partition, table, serverCode } = error.fields;
    const reason = error.detail.replace(/ \((?:topic|table|server code) [^()]*\)$/, '');
    return this.#searched.blame(one, new IngestError('KCR_POISON', `${reason}; found by inserting the others`, { topic, partition, offset, table, serverCode, cause: error }));
  }
}

function isTooLarge({ code, fields }: IngestError): boolean {
  return fields.divisible === 'surely' && code !== 'KCR_POISON';
}

/** Of the n-th different offset, from 0. */
function offsetOf({ records }: InsertBatch, n: number): number {
  let seen = -1;
  let last = -1;
  for (const { offset } of records) {
    if (offset !== last) seen += 1;
    last = offset;
    if (seen === n) return offset;
  }
  throw new RangeError(`Expected more than ${n} offsets, got ${seen + 1}`);
}
