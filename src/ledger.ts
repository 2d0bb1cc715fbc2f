/**
 * The states of a pipeline's partitions: claims them and compares each with its log. Two stages share it:
 * `reconcileWithState` records intents, `commit` settles them.
 *
 *   ledger/partition-ledger.ts   what may be asked of one partition's state while it is assigned
 *   ledger/state-queue.ts        the one queue through which that state is written
 *   model/state-change.ts        what a change makes of a state, and which changes become one write
 *
 * What happens when the process dies between two effects:
 *   after the claim               nothing was inserted; the next owner claims again
 *   after a restart was stored    perhaps nobody was told of it; the next owner goes on with the restarted state
 *   after an intent was stored    the range is in doubt; the next owner replays exactly it (W1, W2, W3)
 *   after settling                Kafka's committed offset lags; the next owner skips what is settled (W4)
 *   before a halt was stored      nobody who looks at the state sees it; the next owner halts likewise and stores it
 * Imports: errors, events, ledger, model, ports, retry, rxjs.
 */
import {
  asyncScheduler,
  catchError,
  concatMap,
  defer,
  EMPTY,
  from,
  ignoreElements,
  last,
  map,
  of,
  takeUntil,
  tap,
  throwError,
  timer,
  type Observable,
  type SchedulerLike,
} from 'rxjs';
import { IngestError, type ErrorCode } from './errors.js';
import { ignoreEvents, type OnEvent } from './events.js';
import { PartitionLedger } from './ledger/partition-ledger.js';
import { behindError, resetError, type FoundLog } from './ledger/refusals.js';
import { writeState } from './ledger/state-queue.js';
import type { Assignment } from './model/record.js';
import { compareWithLog, isBehind } from './model/compare-with-log.js';
import { withoutHalt } from './model/state-change.js';
import type { PartitionState } from './model/state.js';
import type { Claim, SeekableSource, StateStore } from './ports.js';
import { retryRetryable, type RetryConfig } from './retry.js';

export type { PartitionLedger };

/** Ranges of one partition that may be in doubt at once: the most, and what it is unless said otherwise. */
export const MAX_PENDING = 16;
export const MAX_PENDING_DEFAULT = 2;

/** Whose states are claimed, and how many ranges of a partition may be in doubt. */
export interface LedgerConfig {
  /** The consumer group; part of the state's key. */
  readonly group: string;
  /** Who claims: unique to this process, readable by a person. */
  readonly owner: string;
  /** Ranges of one partition that may be in doubt at once. @default 2 */
  readonly maxPending?: number;
  /**
   * A topic that was recreated or truncated since the state was written: `halt` the partition, or `restart` it where
   * its log begins (recreated) or ends (truncated), under tokens that were never used. @default 'halt'
   */
  readonly onReset?: 'halt' | 'restart';
  /** For calls to the store. */
  readonly retry?: RetryConfig;
  readonly onEvent?: OnEvent;
  /** @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

type LedgerSource = Pick<SeekableSource, 'cluster' | 'log' | 'stateDecides'>;

/** As it is within. */
type Settings = Required<Omit<LedgerConfig, 'onEvent'>> & { readonly onEvent: OnEvent };

/** A new leader may tell too early an end at first, until it has caught up: a truncation is believed when it stays. */
const truncationLooks = { count: 5, everyMs: 1000 };

/** For storing that a partition has halted: it holds up neither the others nor a drain. */
const HALT_LIMIT_MS = 1000;

/** The states of all partitions of one pipeline. */
export class Ledger {
  readonly #store: StateStore;
  readonly #source: LedgerSource;
  readonly #config: Settings;
  readonly #open = new WeakMap<Assignment, PartitionLedger>();
  /** As they were found, before it is known whether the partition may go on. */
  readonly #claimed = new WeakMap<Assignment, PartitionLedger>();

  constructor(store: StateStore, source: LedgerSource, config: LedgerConfig) {
    const {
      group,
      owner,
      maxPending = MAX_PENDING_DEFAULT,
      onReset = 'halt',
      retry = {},
      onEvent = ignoreEvents,
      scheduler = asyncScheduler,
    } = config;
    if (!Number.isInteger(maxPending) || maxPending < 1 || maxPending > MAX_PENDING) {
      throw new IngestError(
        'KCR_CONFIG',
        `Expected \`maxPending\` to be an integer from 1 to ${MAX_PENDING}, got ${maxPending}`,
      );
    }
    this.#store = store;
    this.#source = source;
    source.stateDecides?.();
    this.#config = { group, owner, maxPending, onReset, retry, onEvent, scheduler };
  }

  /** Claims the partition's state for this assignment. Emits once; waits for a store that does not answer. */
  open(assignment: Assignment): Observable<PartitionLedger> {
    const { group, owner, retry, onEvent, scheduler } = this.#config;
    const { topic, partition, assignmentId } = assignment;
    return defer(() => from(this.#source.cluster())).pipe(
      concatMap((cluster) =>
        defer(() => from(this.#store.claim({ cluster, group, topic, partition }, `${owner}#${assignmentId}`))).pipe(
          last(),
        ),
      ),
      retryRetryable(retry, scheduler, (notice) => onEvent({ kind: 'retry', call: 'claim', assignment, ...notice })),
      tap((claim) => this.#claimed.set(assignment, this.#partition(claim, assignment))),
      concatMap((claim) => this.#afterLogCheck(claim, assignment)),
      map((claim) => this.#partition(claim, assignment)),
      tap((opened) => {
        this.#open.set(assignment, opened);
        const { settled, pending } = opened.state;
        onEvent({ kind: 'claimed', assignment, settled, inDoubt: pending.length });
      }),
    );
  }

  #partition(claim: Claim, assignment: Assignment): PartitionLedger {
    return new PartitionLedger(this.#store, claim, assignment, this.#config);
  }

  /**
   * The claim as it was found, or with the state to go on with where the log is not the one that the state speaks of.
   * That state is stored before it is told: the next owner may find a log in which the difference does not show any
   * more.
   */
  #afterLogCheck(claim: Claim, assignment: Assignment): Observable<Claim> {
    const { onReset } = this.#config;
    const { state } = claim;
    return this.#look(state, assignment, truncationLooks.count).pipe(
      concatMap((found) => {
        if (found.kind === 'same') return this.#sameLog(claim, found.state, assignment);
        const { restarted } = found;
        if (onReset === 'halt' || restarted === undefined) return throwError(() => resetError(assignment, found));
        return this.#restart(claim, restarted, found.kind, assignment);
      }),
    );
  }

  /** `found` may have learnt the topic's id. */
  #sameLog(claim: Claim, found: PartitionState, assignment: Assignment): Observable<Claim> {
    const { state } = claim;
    if (isBehind(found, assignment.committed)) return throwError(() => behindError(found, assignment));
    // An empty state says nothing of any log: what it learns is stored with its first range.
    const isLearnt = found !== state && state.settled !== undefined;
    // What it halted at may be gone, and no record may come for long.
    const goesOn = state.halted !== undefined && state.settled !== undefined && state.pending.length === 0;
    return isLearnt || goesOn ? this.#write(claim, withoutHalt(found), assignment) : of({ ...claim, state: found });
  }

  #restart(
    claim: Claim,
    restarted: PartitionState,
    reason: 'recreated' | 'truncated',
    assignment: Assignment,
  ): Observable<Claim> {
    const { settled, pending: inDoubt } = claim.state;
    const startOffset = (restarted.settled ?? -1) + 1;
    return this.#write(claim, restarted, assignment).pipe(
      tap(() => this.#config.onEvent({ kind: 'restarted', assignment, reason, settled, inDoubt, startOffset })),
    );
  }

  #write(claim: Claim, state: PartitionState, assignment: Assignment): Observable<Claim> {
    return writeState(this.#store, claim, state, { ...this.#config, assignment });
  }

  #look(state: PartitionState, assignment: Assignment, looksLeft: number): Observable<FoundLog> {
    const { retry, onEvent, scheduler } = this.#config;
    return defer(() => from(this.#source.log(assignment))).pipe(
      last(),
      retryRetryable(retry, scheduler, (notice) => onEvent({ kind: 'retry', call: 'log', assignment, ...notice })),
      concatMap((log) => {
        const found = compareWithLog(state, { topicId: assignment.topicId, ...log });
        if (found.kind !== 'truncated' || looksLeft <= 1) return of({ ...found, end: log.end });
        return timer(truncationLooks.everyMs, scheduler).pipe(
          concatMap(() => this.#look(state, assignment, looksLeft - 1)),
        );
      }),
    );
  }

  /**
   * Stores that the partition has halted, for people who look at its state; gone again once it gets on. Completes
   * without a value whatever becomes of that, within a second: a state that is not claimed, is another's now, or whose
   * store is away is left as it is. Nothing else of the assignment is written after it.
   */
  halt(assignment: Assignment, code: ErrorCode, heals: boolean): Observable<never> {
    const { scheduler } = this.#config;
    return defer(() => (this.#open.get(assignment) ?? this.#claimed.get(assignment))?.halt(code, heals) ?? EMPTY).pipe(
      ignoreElements(),
      catchError(() => EMPTY),
      takeUntil(timer(HALT_LIMIT_MS, scheduler)),
    );
  }

  /** The state that `open` claimed for this very assignment. */
  of(assignment: Assignment): PartitionLedger {
    const opened = this.#open.get(assignment);
    if (opened !== undefined) return opened;
    throw new IngestError('KCR_INTERNAL', 'commit settles through a ledger that did not claim the partition', {
      topic: assignment.topic,
      partition: assignment.partition,
      hint: 'give reconcileWithState and commit the same ledger',
    });
  }
}
