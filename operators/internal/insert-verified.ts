/**
 * A helper of insertDeduped: one prepared batch on its way into the table. Does what `doubt.ts` decides, and tells it
 * what came of it. Imports: errors, events, model, ports, retry, rxjs.
 */
import {
  EMPTY,
  catchError,
  defer,
  expand,
  from,
  last,
  map,
  of,
  tap,
  timer,
  type Observable,
  type SchedulerLike,
} from 'rxjs';
import { asIngestError } from '../../src/errors.js';
import type { OnEvent } from '../../src/events.js';
import { countOffsets, placeOf } from '../../src/model/batch.js';
import type { IntentNotes } from '../../src/model/state.js';
import type { InsertBatch, InsertResult, PreparedInsert } from '../../src/ports.js';
import { delayMsOf, type RetryConfig } from '../../src/retry.js';
import { begin, next } from './doubt.js';
import type { Doubt, Goal, Happened, InsertRange, Move, Outcome, Step } from './doubt-steps.js';

export interface Effects {
  readonly retry: RetryConfig;
  readonly whenInDoubt: 'retry' | 'abandon';
  readonly onEvent: OnEvent;
  readonly scheduler: SchedulerLike;
}

/** Stores what must outlive this process before it is acted on. */
export type NoteDown = (fields: IntentNotes) => Observable<unknown>;

export interface Ending {
  readonly outcome: Outcome;
  /** What is known of the attempts by then. */
  readonly doubt: Doubt;
}

export interface Verifying {
  readonly goal: Extract<Goal, 'insert' | 'absence'>;
  readonly doubt: Doubt;
  /** Undefined: nothing is recorded of the batch, so nothing can be added. */
  readonly noteDown?: NoteDown | undefined;
  readonly canRenew?: boolean;
  readonly isPatient?: boolean;
}

/** Emits once. Errors do not come as such: they are an outcome, with what is known of the attempts. */
export function insertVerified(
  preparedInsert: PreparedInsert,
  batch: InsertBatch,
  effects: Effects,
  { goal, doubt, noteDown, canRenew = false, isPatient = true }: Verifying,
): Observable<Ending> {
  const { intent } = batch;
  const range: InsertRange = {
    isRecorded: noteDown !== undefined,
    isFilling: intent?.isFilling === true,
    isUnseen: intent?.isUnseen === true,
    canRenew,
    isPatient,
    abandons: effects.whenInDoubt === 'abandon',
    maxAttempts: effects.retry.maxAttempts ?? Infinity,
    place: { ...placeOf(batch), table: intent?.tables[0] },
  };
  const runner = new StepRunner(preparedInsert, batch, effects, noteDown);
  return defer(() => of(begin(goal, range, { doubt }))).pipe(
    // Flat, however long a server is away.
    expand((move): Observable<Move> =>
      move.step.kind === 'end'
        ? EMPTY
        : runner.run(move.step).pipe(map((happened) => next(move.attempts, happened, range))),
    ),
    last(),
    map(({ attempts, step }): Ending => ({ outcome: outcomeOf(step), doubt: attempts.doubt })),
  );
}

function outcomeOf(step: Step): Outcome {
  if (step.kind === 'end') return step.outcome;
  throw new Error(`Expected an end, got ${step.kind}`);
}

/** The effects of one step each. */
class StepRunner {
  readonly #preparedInsert: PreparedInsert;
  readonly #batch: InsertBatch;
  readonly #effects: Effects;
  readonly #noteDown: NoteDown | undefined;

  constructor(preparedInsert: PreparedInsert, batch: InsertBatch, effects: Effects, noteDown: NoteDown | undefined) {
    this.#preparedInsert = preparedInsert;
    this.#batch = batch;
    this.#effects = effects;
    this.#noteDown = noteDown;
  }

  run(step: Exclude<Step, { kind: 'end' }>): Observable<Happened> {
    const { scheduler } = this.#effects;
    return defer(() => this.#call(step)).pipe(
      last(),
      catchError((thrown: unknown) => {
        const error = asIngestError(thrown, 'KCR_INTERNAL', 'a port threw what is not an IngestError');
        return of<Happened>({ kind: 'failed', error, nowMs: scheduler.now() });
      }),
    );
  }

  #call(step: Exclude<Step, { kind: 'end' }>): Observable<Happened> {
    const preparedInsert = this.#preparedInsert;
    switch (step.kind) {
      case 'ask':
        return of({ kind: 'asked', why: preparedInsert.tokenDoubt(this.#effects.scheduler.now()) });
      case 'look':
        return this.#look(step.why);
      case 'send all':
        return from(preparedInsert.insert()).pipe(this.#answered());
      case 'send missing':
        return from(preparedInsert.insertMissing(step.offsets)).pipe(this.#answered());
      case 'fill':
        return from(preparedInsert.fill(step.offsets)).pipe(this.#answered());
      case 'note':
        return (this.#noteDown?.(step.fields) ?? of(undefined)).pipe(
          last(),
          map((): Happened => ({ kind: 'noted' })),
        );
      case 'wait':
        return this.#wait(step);
    }
  }

  #answered() {
    return (result$: Observable<InsertResult>): Observable<Happened> =>
      result$.pipe(
        map((result) => ({ kind: 'answered', result, mayBeLost: this.#preparedInsert.readBackWhenInDoubt })),
      );
  }

  #look(why: string | undefined): Observable<Happened> {
    const { assignment, afterOffset, lastOffset, records } = this.#batch;
    return from(this.#preparedInsert.readBack(why)).pipe(
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
      map((found) => ({ kind: 'looked', found, isAbsent: found.missing.length === countOffsets(records) })),
    );
  }

  #wait({ call, attempt, error, isStuck }: Extract<Step, { kind: 'wait' }>): Observable<Happened> {
    const { retry, scheduler, onEvent } = this.#effects;
    const { assignment, records } = this.#batch;
    const delayMs = delayMsOf(retry, attempt);
    onEvent({ kind: 'retry', call, assignment, attempt, delayMs, error });
    if (isStuck) {
      const [first, last] = [records.at(0)!.offset, records.at(-1)!.offset];
      onEvent({ kind: 'stuck', assignment, first, last, attempts: attempt, error });
    }
    return timer(delayMs, scheduler).pipe(map((): Happened => ({ kind: 'waited' })));
  }
}
