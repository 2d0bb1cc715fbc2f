/**
 * The one queue through which a partition's state is written. A change is answered only with the state that the store
 * says it has written.
 *
 * What waits while a write is under way goes into the next one together (`nextWrite`). When the process dies, a write
 * under way may land or not, and nobody was told of it either way: the next owner reads what is there.
 * Imports: errors, events, model, ports, retry, rxjs.
 */
import { defer, from, last, Observable, Subscription, tap, type SchedulerLike } from 'rxjs';
import { asIngestError, hasCode, IngestError } from '../errors.js';
import type { OnEvent } from '../events.js';
import type { Assignment } from '../model/record.js';
import { nextWrite, type StateChange } from '../model/state-change.js';
import type { PartitionState } from '../model/state.js';
import type { Claim, StateStore } from '../ports.js';
import { retryRetryable, type RetryConfig } from '../retry.js';

export interface StateQueueConfig {
  /** Ranges of the partition that may be in doubt at once. */
  readonly maxPending: number;
  /** For writes. */
  readonly retry: RetryConfig;
  readonly onEvent: OnEvent;
  readonly scheduler: SchedulerLike;
}

/** Writes once, waiting for a store that does not answer. Emits the claim for the next write. */
export function writeState(
  store: StateStore,
  claim: Claim,
  state: PartitionState,
  { assignment, retry, onEvent, scheduler }: Omit<StateQueueConfig, 'maxPending'> & { readonly assignment: Assignment },
): Observable<Claim> {
  return defer(() => from(store.write(claim, state))).pipe(
    last(),
    retryRetryable(retry, scheduler, (notice) => onEvent({ kind: 'retry', call: 'write', assignment, ...notice })),
    tap({
      error: (error: unknown) => {
        if (hasCode(error, 'KCR_FENCED')) onEvent({ kind: 'fenced', assignment, error });
      },
    }),
  );
}

interface Waiting {
  readonly change: StateChange;
  readonly stored: (state: PartitionState) => void;
  readonly failed: (error: unknown) => void;
}

interface Write {
  readonly state: PartitionState;
  readonly joined: readonly Waiting[];
  readonly running: Subscription;
}

export class StateQueue {
  readonly #store: StateStore;
  readonly #assignment: Assignment;
  readonly #config: StateQueueConfig;
  #claim: Claim;
  /** In the order in which they came; those that go into the write under way stay until it is answered. */
  #waiting: readonly Waiting[] = [];
  #writing: Write | undefined;
  #hasHalted = false;
  /** Why nothing is written any more. */
  #ended: unknown;

  constructor(store: StateStore, claim: Claim, assignment: Assignment, config: StateQueueConfig) {
    this.#store = store;
    this.#claim = claim;
    this.#assignment = assignment;
    this.#config = config;
  }

  /** As the store has it. */
  get stored(): Claim {
    return this.#claim;
  }

  /**
   * Queues the change when subscribed to; emits the state that holds it, once that is stored. Unsubscribed before it is
   * sent, it is not written. Errors: `KCR_INTERNAL` for a change that does not fit, `KCR_FENCED`, and whatever else the
   * store refuses, which ends the queue.
   */
  change(change: StateChange): Observable<PartitionState> {
    return new Observable<PartitionState>((subscriber) => {
      const waiting: Waiting = {
        change,
        stored: (state) => {
          subscriber.next(state);
          subscriber.complete();
        },
        failed: (error) => subscriber.error(error),
      };
      const refusal = this.#refusalOf(waiting);
      if (refusal !== undefined) return waiting.failed(refusal);
      if (change.kind === 'halt') this.#hasHalted = true;
      this.#waiting = [...this.#waiting, waiting];
      this.#pump();
      return () => {
        this.#waiting = this.#waiting.filter((other) => other !== waiting);
        this.#stopWhenUnwanted();
      };
    });
  }

  /** Does it follow from what the state will be once all that came before is stored? */
  #refusalOf(waiting: Waiting): unknown {
    if (this.#ended !== undefined) return this.#ended;
    const underWay = this.#writing?.joined ?? [];
    const before = this.#waiting.filter((other) => !underWay.includes(other));
    const { misfits } = nextWrite(this.#writing?.state ?? this.#claim.state, [...before, waiting], Infinity);
    const misfit = misfits.find((each) => each.waiting === waiting);
    return misfit === undefined ? undefined : this.#misuse(misfit.why);
  }

  #pump(): void {
    if (this.#ended !== undefined || this.#writing !== undefined) return;
    // After a halt nothing is written but another halt.
    const waiting = this.#hasHalted ? this.#waiting.filter(({ change }) => change.kind === 'halt') : this.#waiting;
    const { state, joined, misfits } = nextWrite(this.#claim.state, waiting, this.#config.maxPending);
    const gone = new Set(misfits.map((misfit) => misfit.waiting));
    this.#waiting = this.#waiting.filter((each) => !gone.has(each));
    if (joined.length > 0) this.#write({ state, joined, running: new Subscription() });
    for (const misfit of misfits) misfit.waiting.failed(this.#misuse(misfit.why));
  }

  #write(write: Write): void {
    this.#writing = write;
    const config = { ...this.#config, assignment: this.#assignment };
    const written$ = writeState(this.#store, this.#claim, write.state, config);
    write.running.add(
      written$.subscribe({
        next: (claim) => this.#hasStored(claim, write),
        error: (error: unknown) => this.#end(asIngestError(error, 'KCR_STORE', 'the state could not be written')),
      }),
    );
  }

  /** The only place where a change is answered: the store has written it. */
  #hasStored(claim: Claim, { state, joined }: Write): void {
    this.#claim = claim;
    this.#writing = undefined;
    const gone = new Set(joined);
    this.#waiting = this.#waiting.filter((waiting) => !gone.has(waiting));
    this.#config.onEvent({ kind: 'stateWritten', assignment: this.#assignment, pending: state.pending.length });
    // An answer may queue the next change, and have it written: `state` is the one that holds these.
    for (const waiting of joined) waiting.stored(state);
    this.#pump();
  }

  /** After an error the stored state is not known any more: this assignment is over. */
  #end(error: unknown): void {
    this.#ended = error;
    this.#writing = undefined;
    const all = this.#waiting;
    this.#waiting = [];
    for (const waiting of all) waiting.failed(error);
  }

  /** Nobody waits any more: the assignment was lost. A write under way may still land; the claim decides. */
  #stopWhenUnwanted(): void {
    if (this.#writing === undefined || this.#waiting.length > 0) return;
    this.#writing.running.unsubscribe();
    this.#writing = undefined;
    this.#ended = this.#misuse('a write whose outcome nobody waited for');
  }

  #misuse(what: string): IngestError {
    const { topic, partition } = this.#assignment;
    return new IngestError('KCR_INTERNAL', `The ledger was given ${what}`, { topic, partition });
  }
}
