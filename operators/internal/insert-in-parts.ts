/**
 * A helper of insertDeduped: who is at fault when the server refuses a batch and names no record.
 *
 * There is no way to ask ClickHouse about some of the records without inserting them: what an expression of the table
 * throws is thrown behind the parser, and a few of them (ORDER BY, indexes) only when a part is written. So halves are
 * inserted for good, each recorded as a range of its own first. Nothing of the whole is in the table then and no
 * attempt at it is under way: otherwise rows of it would be there under two tokens.
 * Imports: errors, model, ports, rxjs.
 */
import { EMPTY, catchError, concat, concatMap, defer, of, tap, throwError, toArray, type Observable } from 'rxjs';
import { IngestError } from '../../src/errors.js';
import { countOffsets } from '../../src/model/batch.js';
import type { InsertBatch, InsertResult } from '../../src/ports.js';
import type { Part } from './batch-attempt.js';
import { mayDivide, mayDivideSeen, partlyThere, type Refusal } from './refused.js';

type Tried = { readonly kind: 'inserted'; readonly result: InsertResult } | ({ readonly kind: 'refused' } & Refusal);

/** What can be done with parts. */
export interface Searched {
  /** Inserts what is recorded, as it stands. */
  readonly attempt: (part: InsertBatch) => Observable<Tried>;
  /** Is no row of it in the table? An error where that cannot be told. */
  readonly isAbsent: (part: InsertBatch) => Observable<boolean>;
  /**
   * Inserts once more what is in the table already and still in doubt: nothing is added, and the answer tells of the
   * moment.
   */
  readonly repeat: (part: InsertBatch) => Observable<Tried>;
  /** Records the batch in parts, cut behind these offsets. */
  readonly recut: (batch: InsertBatch, cuts: readonly number[]) => Observable<readonly InsertBatch[]>;
  /** Inserts, and looks again for whatever is refused; `isPatient`: is not looked for, but tried until it is taken. */
  readonly insertRest: (part: InsertBatch, isPatient?: boolean) => Observable<Part>;
  /** Leaves out its only record, or halts for it, as the policy says. */
  readonly blame: (part: InsertBatch, error: IngestError) => Observable<Part>;
}

/** `refusal`: what was said of the whole. */
export function insertInParts(batch: InsertBatch, refusal: Refusal, searched: Searched): Observable<Part> {
  const isAlone = countOffsets(batch.records) === 1;
  return cleared(batch, refusal, searched, () =>
    new Search(searched, refusal).among(batch, countOffsets(batch.records), refusal, isAlone),
  );
}

/** Goes on with `then` where rows of the batch may go out under other tokens; else `patiently`, or it halts. */
function cleared(
  batch: InsertBatch,
  refusal: Refusal,
  searched: Searched,
  then: () => Observable<Part>,
  patiently = (): Observable<Part> => searched.insertRest(batch, true),
): Observable<Part> {
  switch (mayDivide(refusal, batch.intent !== undefined)) {
    case 'yes':
      return then();
    case 'patiently':
      return patiently();
    case 'look':
      return searched.isAbsent(batch).pipe(
        concatMap((absent) => {
          const seen = mayDivideSeen(refusal, absent);
          if (seen === 'halt') return throwError(() => partlyThere(refusal.error));
          return seen === 'yes' ? then() : patiently();
        }),
      );
  }
}

function insertAfter(rest: InsertBatch | undefined, { insertRest }: Searched): Observable<Part> {
  return rest === undefined ? EMPTY : defer(() => insertRest(rest));
}

class Search {
  readonly #searched: Searched;
  /** By which codes something was refused since the last part was taken. */
  readonly #refused = new Set<unknown>();
  /**
   * By which codes something was refused before a part was taken: what is refused by one of them again is refused for
   * itself.
   */
  readonly #witnessed = new Set<unknown>();

  constructor(searched: Searched, { error }: Refusal) {
    this.#searched = searched;
    this.#noteRefused(error);
  }

  /**
   * One or more of the first `bad` offsets of the batch are at fault. `isAlone`: the first one was refused by itself.
   */
  among(batch: InsertBatch, bad: number, refusal: Refusal, isAlone = false): Observable<Part> {
    const { insertRest, recut } = this.#searched;
    if (bad <= 1) return this.#single(batch, refusal, isAlone);
    const size = Math.floor(bad / 2);
    return recut(batch, [offsetOf(batch, size - 1)]).pipe(
      concatMap(([head, tail]) =>
        this.#attempt(head!).pipe(
          concatMap((tried): Observable<Part> => {
            if (tried.kind === 'inserted') {
              const taken: Part = { batch: head!, result: tried.result };
              if (refusal.error.fields.divisible === 'perhaps' && countOffsets(tail!.records) === 1)
                return held(taken, this.#alone(tail!, undefined, head));
              // Of what was too large as a whole the rest may fit.
              const next = (): Observable<Part> =>
                isTooLarge(refusal.error) ? insertRest(tail!) : this.among(tail!, bad - size, refusal);
              return concat(of(taken), defer(next));
            }
            // The server names it now.
            if (tried.error.fields.offset !== undefined)
              return concat(
                cleared(head!, tried, this.#searched, () => this.#searched.blame(head!, tried.error)),
                insertAfter(tail, this.#searched),
              );
            return cleared(
              head!,
              tried,
              this.#searched,
              () => this.among(batch, size, tried, size === 1),
              () => this.#patiently(head!, tail),
            );
          }),
        ),
      ),
    );
  }

  /** The first record of the batch is refused, alone or for all that is known. */
  #single(batch: InsertBatch, refusal: Refusal, isAlone: boolean): Observable<Part> {
    const isLast = countOffsets(batch.records) === 1;
    return (isLast ? of([batch]) : this.#searched.recut(batch, [offsetOf(batch, 0)])).pipe(
      concatMap(([one, tail]) => {
        // What was learnt of others is no proof: the table may have been mended since.
        if (!isAlone) return this.#alone(one!, tail);
        if (refusal.error.fields.divisible === 'surely')
          return concat(this.#blameOf(one!, refusal.error), insertAfter(tail, this.#searched));
        return this.#suspect(one!, tail, refusal.error);
      }),
    );
  }

  /** `witness`: a part that was taken and is still in doubt. */
  #alone(one: InsertBatch, tail: InsertBatch | undefined, witness?: InsertBatch): Observable<Part> {
    return this.#attempt(one).pipe(
      concatMap((tried): Observable<Part> => {
        if (tried.kind === 'inserted')
          return concat(of({ batch: one, result: tried.result }), insertAfter(tail, this.#searched));
        const { error } = tried;
        if (error.fields.divisible !== 'perhaps') {
          const blamed = () =>
            error.fields.offset === undefined ? this.#blameOf(one, error) : this.#searched.blame(one, error);
          return concat(cleared(one, tried, this.#searched, blamed), insertAfter(tail, this.#searched));
        }
        return cleared(
          one,
          tried,
          this.#searched,
          () => this.#suspect(one, tail, error, witness),
          () => this.#patiently(one, tail),
        );
      }),
    );
  }

  /**
   * A refusal of which nobody knows whether it is for a record: only one that is refused before and after others were
   * taken is at fault. When none is taken, it is the table or the moment.
   */
  #suspect(
    one: InsertBatch,
    tail: InsertBatch | undefined,
    error: IngestError,
    witness?: InsertBatch,
  ): Observable<Part> {
    const { insertRest } = this.#searched;
    const isWitnessed = this.#witnessed.has(error.fields.serverCode);
    const inVain = (): Observable<Part> => (error.retryable ? this.#patiently(one, tail) : throwError(() => error));
    if (tail === undefined) return isWitnessed ? this.#again(one, error, witness) : inVain();
    return this.#attempt(tail).pipe(
      concatMap((tried): Observable<Part> => {
        if (tried.kind === 'inserted')
          return concat(this.#again(one, error, tail), of({ batch: tail, result: tried.result }));
        const next = () =>
          isWitnessed ? concat(this.#again(one, error), insertAfter(tail, this.#searched)) : inVain();
        return cleared(tail, tried, this.#searched, next, () =>
          concat(
            insertRest(one, true),
            defer(() => insertRest(tail, true)),
          ),
        );
      }),
    );
  }

  /** A server may refuse everything for a while, twice: so the witness has to be taken once more in between. */
  #again(one: InsertBatch, error: IngestError, witness?: InsertBatch): Observable<Part> {
    return this.#attempt(one).pipe(
      concatMap((tried): Observable<Part> => {
        if (tried.kind === 'inserted') return of({ batch: one, result: tried.result });
        const isSame = tried.error.fields.serverCode === error.fields.serverCode;
        const next = (): Observable<Part> => {
          if (!isSame) return this.#searched.insertRest(one);
          // Without a recorded range it could be there twice.
          return witness?.intent === undefined
            ? this.#blameOf(one, tried.error)
            : this.#beside(one, tried.error, witness);
        };
        return cleared(one, tried, this.#searched, next);
      }),
    );
  }

  #beside(one: InsertBatch, error: IngestError, witness: InsertBatch): Observable<Part> {
    return this.#searched
      .repeat(witness)
      .pipe(
        concatMap((tried) =>
          tried.kind === 'inserted' ? this.#again(one, error) : this.#searched.insertRest(one, true),
        ),
      );
  }

  #patiently(part: InsertBatch, tail: InsertBatch | undefined): Observable<Part> {
    return concat(this.#searched.insertRest(part, true), insertAfter(tail, this.#searched));
  }

  #attempt(part: InsertBatch): Observable<Tried> {
    return this.#searched.attempt(part).pipe(
      tap((tried) => {
        if (tried.kind === 'refused') return this.#noteRefused(tried.error);
        for (const code of this.#refused) this.#witnessed.add(code);
        this.#refused.clear();
      }),
    );
  }

  #noteRefused({ fields }: IngestError): void {
    this.#refused.add(fields.serverCode);
  }

  #blameOf(one: InsertBatch, error: IngestError): Observable<Part> {
    // A single record that is too large as a batch: nothing smaller can be tried.
    if (isTooLarge(error)) return throwError(() => error);
    const offset = offsetOf(one, 0);
    const { topic, partition, table, serverCode } = error.fields;
    return this.#searched.blame(
      one,
      new IngestError('KCR_POISON', `${error.reason}; found by inserting the others`, {
        topic,
        partition,
        offset,
        table,
        serverCode,
        cause: error,
      }),
    );
  }
}

/** What was taken is delivered only when the rest is decided: until then it is in doubt, and can be repeated. */
function held(taken: Part, rest: Observable<Part>): Observable<Part> {
  return rest.pipe(
    toArray(),
    concatMap((parts) => of(taken, ...parts)),
    catchError((error: unknown) =>
      concat(
        of(taken),
        throwError(() => error),
      ),
    ),
  );
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
