/**
 * Room: the effectful edge of a partition's state: one tenure's view of it, and the one queue through which it is
 * written. Two stages share it: `reconcileWithState` records intents, `commit` settles them. Ports and the model may
 * enter; no client library.
 *
 * What happens when the process dies between two effects:
 *   after the claim               nothing was inserted; the next owner claims again
 *   after an intent was stored    the range is in doubt; the next owner replays exactly it (W1, W2, W3)
 *   after settling                Kafka's committed offset lags; the next owner skips what is settled (W4)
 */
import { asyncScheduler, concatMap, defer, from, last, map, Observable, tap, type SchedulerLike, type Subscription } from 'rxjs';
import { IngestError, asIngestError } from './errors.js';
import { noReport, type Report } from './events.js';
import type { Assignment } from './model/record.js';
import { lastKnownOffset, resumeOffset, type Intent, type PartitionState } from './model/state.js';
import { dedupToken } from './model/token.js';
import type { Claim, RecordSource, StateStore } from './ports.js';
import { retryRetryable, type RetryConfig } from './retry.js';

export interface LedgerConfig {
  /** The consumer group; part of the state's key. */
  readonly group: string;
  /** Who claims: unique to this process, readable by a person. */
  readonly owner: string;
  /** Ranges of one partition that may be in doubt at once. @default 2 */
  readonly maxPending?: number;
  /** For calls to the store. */
  readonly retry?: RetryConfig;
  readonly report?: Report;
  readonly scheduler?: SchedulerLike;
}

/** The states of all partitions of one pipeline. */
export class Ledger {
  readonly #store: StateStore;
  readonly #source: Pick<RecordSource, 'cluster'>;
  readonly #config: Required<LedgerConfig>;
  readonly #open = new WeakMap<Assignment, PartitionLedger>();

  constructor(store: StateStore, source: Pick<RecordSource, 'cluster'>, config: LedgerConfig) {
    const { group, owner, maxPending = 2, retry = {}, report = noReport, scheduler = asyncScheduler } = config;
    if (!Number.isInteger(maxPending) || maxPending < 1 || maxPending > 16) {
      throw new IngestError('KCR_CONFIG', `Expected \`maxPending\` to be an integer from 1 to 16, got ${maxPending}`);
    }
    this.#store = store;
    this.#source = source;
    this.#config = { group, owner, maxPending, retry, report, scheduler };
  }

  /** Claims the partition's state for this tenure. Emits once; waits for a store that does not answer. */
  open(assignment: Assignment): Observable<PartitionLedger> {
    const { group, owner, retry, report, scheduler } = this.#config;
    const { topic, partition, epoch } = assignment;
    return defer(() => from(this.#source.cluster())).pipe(
      concatMap((cluster) =>
        defer(() => from(this.#store.claim({ cluster, group, topic, partition }, `${owner}#${epoch}`))).pipe(last()),
      ),
      retryRetryable(retry, scheduler, (notice) => report({ kind: 'retry', call: 'claim', assignment, ...notice })),
      map((claim) => new PartitionLedger(this.#store, claim, assignment, this.#config)),
      tap((opened) => {
        this.#open.set(assignment, opened);
        const { settled, pending } = opened.state;
        report({ kind: 'claimed', assignment, settled, inDoubt: pending.length });
      }),
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

interface Waiter<T> {
  readonly value: T;
  readonly stored: () => void;
  readonly failed: (error: unknown) => void;
}

/** One partition's state during one tenure. Writes are one at a time; what waits meanwhile goes into the next one. */
export class PartitionLedger {
  readonly #store: StateStore;
  readonly #assignment: Assignment;
  readonly #config: Required<LedgerConfig>;
  #claim: Claim;
  #intents: Waiter<Intent>[] = [];
  #settles: Waiter<number>[] = [];
  #writing: Subscription | undefined;
  #ended: unknown;

  constructor(store: StateStore, claim: Claim, assignment: Assignment, config: Required<LedgerConfig>) {
    this.#store = store;
    this.#claim = claim;
    this.#assignment = assignment;
    this.#config = config;
  }

  /** As the store has it. */
  get state(): PartitionState {
    return this.#claim.state;
  }

  token(intent: Intent): string {
    const { cluster, topic, partition } = this.#claim.key;
    return dedupToken({ cluster, topic, partition, incarnation: this.state.incarnation, intent });
  }

  /** Emits the intent once it is stored (I1). Waits while `maxPending` ranges are in doubt. */
  intend(intent: Intent): Observable<Intent> {
    return new Observable<Intent>((subscriber) => {
      const last = this.#intents.at(-1)?.value.last ?? lastKnownOffset(this.state);
      if (last !== undefined && intent.first !== last + 1) {
        subscriber.error(this.#broken(`an intent that begins at ${intent.first} after one that ends at ${last}`));
        return;
      }
      const waiter: Waiter<Intent> = {
        value: intent,
        stored: () => {
          subscriber.next(intent);
          subscriber.complete();
        },
        failed: (error) => subscriber.error(error),
      };
      this.#intents.push(waiter);
      this.#pump();
      return () => {
        this.#intents = this.#intents.filter((other) => other !== waiter);
        this.#stopWhenUnwanted();
      };
    });
  }

  /**
   * Settles the oldest range in doubt, which must end at `lastOffset`; emits what is settled once that is stored. Emits
   * at once if it is already, or lies before everything this state tells of.
   */
  settle(lastOffset: number): Observable<number> {
    return new Observable<number>((subscriber) => {
      const emit = () => {
        subscriber.next(this.state.settled ?? lastOffset);
        subscriber.complete();
      };
      const resume = resumeOffset(this.state);
      if (resume !== undefined && lastOffset < resume) return emit();
      const oldest = this.state.pending[this.#settles.length];
      if (oldest?.last !== lastOffset) {
        const expected = oldest === undefined ? 'nothing is in doubt' : `the oldest range in doubt ends at ${oldest.last}`;
        subscriber.error(this.#broken(`settling ${lastOffset} while ${expected}`));
        return;
      }
      const waiter: Waiter<number> = { value: lastOffset, stored: emit, failed: (error) => subscriber.error(error) };
      this.#settles.push(waiter);
      this.#pump();
      return () => {
        this.#settles = this.#settles.filter((other) => other !== waiter);
        this.#stopWhenUnwanted();
      };
    });
  }

  #pump(): void {
    if (this.#ended !== undefined) return this.#fail(this.#ended);
    if (this.#writing !== undefined) return;
    const settles = this.#settles;
    const settled = settles.reduce<number | undefined>((most, { value }) => Math.max(most ?? value, value), this.state.settled);
    const inDoubt = this.state.pending.filter((intent) => settled === undefined || intent.last > settled);
    // A predecessor with a larger maxPending may have left more in doubt than there is room for.
    const intents = this.#intents.slice(0, Math.max(0, this.#config.maxPending - inDoubt.length));
    if (settles.length === 0 && intents.length === 0) return;
    const next: PartitionState = { ...this.state, settled, pending: [...inDoubt, ...intents.map(({ value }) => value)] };
    this.#write(next, [...settles, ...intents]);
  }

  #write(next: PartitionState, waiters: readonly Waiter<unknown>[]): void {
    const { retry, report, scheduler } = this.#config;
    const assignment = this.#assignment;
    const write$ = defer(() => from(this.#store.write(this.#claim, next))).pipe(
      last(),
      retryRetryable(retry, scheduler, (notice) => report({ kind: 'retry', call: 'write', assignment, ...notice })),
    );
    let isDone = false;
    const writing = write$.subscribe({
      next: (claim) => {
        isDone = true;
        this.#claim = claim;
        this.#writing = undefined;
        const gone = new Set(waiters);
        this.#settles = this.#settles.filter((waiter) => !gone.has(waiter));
        this.#intents = this.#intents.filter((waiter) => !gone.has(waiter));
        report({ kind: 'stateWritten', assignment, pending: next.pending.length });
        for (const waiter of waiters) waiter.stored();
        this.#pump();
      },
      error: (thrown: unknown) => {
        isDone = true;
        const error = asIngestError(thrown, 'KCR_STORE', 'the state could not be written');
        if (error.code === 'KCR_FENCED') report({ kind: 'fenced', assignment, error });
        this.#fail(error);
      },
    });
    if (!isDone) this.#writing = writing;
  }

  /** After an error the stored state is not known any more: this tenure is over. */
  #fail(error: unknown): void {
    this.#ended = error;
    this.#writing = undefined;
    const waiters = [...this.#settles, ...this.#intents];
    this.#settles = [];
    this.#intents = [];
    for (const waiter of waiters) waiter.failed(error);
  }

  /** Nobody waits any more: the tenure was lost. A write under way may still land; the claim decides. */
  #stopWhenUnwanted(): void {
    if (this.#writing === undefined || this.#settles.length + this.#intents.length > 0) return;
    this.#writing.unsubscribe();
    this.#writing = undefined;
    this.#ended = this.#broken('a write whose outcome nobody waited for');
  }

  #broken(what: string): IngestError {
    const { topic, partition } = this.#assignment;
    return new IngestError('KCR_INTERNAL', `The ledger was given ${what}`, { topic, partition });
  }
}
