/**
 * Room: the effectful edge of a partition's state: one tenure's view of it, and the one queue through which it is
 * written. Two stages share it: `reconcileWithState` records intents, `commit` settles them. Ports and the model may
 * enter; no client library.
 *
 * What happens when the process dies between two effects:
 *   after the claim               nothing was inserted; the next owner claims again
 *   after a restart was stored    perhaps nobody was told of it; the next owner goes on with the restarted state
 *   after an intent was stored    the range is in doubt; the next owner replays exactly it (W1, W2, W3)
 *   after settling                Kafka's committed offset lags; the next owner skips what is settled (W4)
 *   before a halt was stored      nobody who looks at the state sees it; the next owner halts likewise and stores it
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
  Observable,
  of,
  takeUntil,
  tap,
  throwError,
  timer,
  type SchedulerLike,
  type Subscription,
} from 'rxjs';
import { IngestError, asIngestError, hasCode, type ErrorCode } from './errors.js';
import { ignoreEvents, type OnEvent } from './events.js';
import type { Assignment } from './model/record.js';
import { isBehind, compareWithLog, type LogCheck } from './model/compare-with-log.js';
import {
  lastKnownOffset,
  resumeOffset,
  type HaltNote,
  type Intent,
  type IntentNotes,
  type PartitionState,
} from './model/state.js';
import { dedupToken } from './model/token.js';
import type { Claim, SeekableSource, StateStore } from './ports.js';
import { retryRetryable, type RetryConfig } from './retry.js';

export interface LedgerConfig {
  /** The consumer group; part of the state's key. */
  readonly group: string;
  /** Who claims: unique to this process, readable by a person. */
  readonly owner: string;
  /** Ranges of one partition that may be in doubt at once. @default 2 */
  readonly maxPending?: number;
  /**
   * A topic that was created anew or truncated since the state was written: `halt` the partition, or `restart` it where
   * its log begins (anew) or ends (truncated), under tokens that were never used. @default 'halt'
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
      maxPending = 2,
      onReset = 'halt',
      retry = {},
      onEvent = ignoreEvents,
      scheduler = asyncScheduler,
    } = config;
    if (!Number.isInteger(maxPending) || maxPending < 1 || maxPending > 16) {
      throw new IngestError('KCR_CONFIG', `Expected \`maxPending\` to be an integer from 1 to 16, got ${maxPending}`);
    }
    this.#store = store;
    this.#source = source;
    source.stateDecides?.();
    this.#config = { group, owner, maxPending, onReset, retry, onEvent, scheduler };
  }

  /** Claims the partition's state for this tenure. Emits once; waits for a store that does not answer. */
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
      tap((claim) => this.#claimed.set(assignment, new PartitionLedger(this.#store, claim, assignment, this.#config))),
      concatMap((claim) =>
        this.#stand(claim, assignment).pipe(
          map((compareWithLog) => new PartitionLedger(this.#store, compareWithLog, assignment, this.#config)),
        ),
      ),
      tap((opened) => {
        this.#open.set(assignment, opened);
        const { settled, pending } = opened.state;
        onEvent({ kind: 'claimed', assignment, settled, inDoubt: pending.length });
      }),
    );
  }

  /**
   * The claim as it was found, or with the state to go on with where the log is not the one that the state speaks of. That
   * is stored before it is told: who comes next may find a log in which the difference does not show any more.
   */
  #stand(claim: Claim, assignment: Assignment): Observable<Claim> {
    const { onReset, onEvent } = this.#config;
    const { state } = claim;
    return this.#look(state, assignment, truncationLooks.count).pipe(
      concatMap((found) => {
        if (found.kind === 'same') {
          if (isBehind(found.state, assignment.committed))
            return throwError(() => behindError(found.state, assignment));
          // Whatever log an empty state is of, it says nothing of it.
          const isLearnt = found.state !== state && state.settled !== undefined;
          // What it halted at may be gone, with nothing new to settle for long.
          const goesOn = state.halted !== undefined && state.settled !== undefined && state.pending.length === 0;
          return isLearnt || goesOn
            ? this.#decide(claim, withoutHalt(found.state), assignment)
            : of({ ...claim, state: found.state });
        }
        const { restarted } = found;
        if (onReset === 'halt' || restarted === undefined) return throwError(() => resetError(assignment, found));
        const { settled, pending } = state;
        return this.#decide(claim, restarted, assignment).pipe(
          tap(() =>
            onEvent({
              kind: 'restarted',
              assignment,
              reason: found.kind,
              settled,
              inDoubt: pending,
              startOffset: (restarted.settled ?? -1) + 1,
            }),
          ),
        );
      }),
    );
  }

  #decide(claim: Claim, state: PartitionState, assignment: Assignment): Observable<Claim> {
    const { retry, onEvent, scheduler } = this.#config;
    return defer(() => from(this.#store.write(claim, state))).pipe(
      last(),
      retryRetryable(retry, scheduler, (notice) => onEvent({ kind: 'retry', call: 'write', assignment, ...notice })),
      tap({
        error: (error: unknown) => hasCode(error, 'KCR_FENCED') && onEvent({ kind: 'fenced', assignment, error }),
      }),
    );
  }

  #look(
    state: PartitionState,
    assignment: Assignment,
    looksLeft: number,
  ): Observable<LogCheck & { readonly end: number }> {
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
   * Stores that the partition has halted, for people who look at its state; gone again once it gets on. Completes without a
   * value whatever becomes of that, within a second: a state that is not claimed, is another's now, or whose store is away
   * is left as it is. Nothing else of the tenure is written after it.
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

function withoutHalt({ halted: _, ...state }: PartitionState): PartitionState {
  return state;
}

/** Nothing of it was ingested by this claim: a person decides whether the rows in between are in the table. */
function behindError(state: PartitionState, { topic, partition, committed = 0 }: Assignment): IngestError {
  const resume = resumeOffset(state) ?? 0;
  const message = `The group has committed offset ${committed}, but the state goes on at ${resume}: the state store was set back, or something else has committed for the group. To go on from the state would ingest ${resume}-${committed - 1} once more`;
  return new IngestError('KCR_STATE_BEHIND', message, {
    topic,
    partition,
    first: resume,
    last: committed - 1,
    hint: `if the table has those rows ("verify" tells), go on behind them: "state reset --topic ${topic} --partition ${partition} --to-committed --apply"; if they are to be ingested, stop the group, set its offset to ${resume} (kafka-consumer-groups.sh --reset-offsets --topic ${topic}:${partition} --to-offset ${resume}) and start again`,
  });
}

function resetError(
  { topic, partition, topicId }: Assignment,
  found: Exclude<LogCheck, { kind: 'same' }> & { readonly end: number },
): IngestError {
  if (found.kind === 'recreated') {
    return new IngestError(
      'KCR_TOPIC_RESET',
      `The topic was deleted and created anew: the state is of the topic with the id ${found.was}, Kafka has ${topicId}`,
      {
        topic,
        partition,
        hint: 'to ingest the new topic from its beginning set onReset to "restart"; its rows join those of the old one in the table',
      },
    );
  }
  const hint =
    found.restarted === undefined
      ? 'a range in doubt reaches into what is gone: look it up in the table by _partition and _offset, then set the state with "state reset"'
      : 'to go on where the log ends set onReset to "restart"; offsets beyond it then stand in the table twice, with the lost records and with new ones';
  return new IngestError(
    'KCR_TOPIC_RESET',
    `The log ends at ${found.end}, but the state tells of offset ${found.known}: the topic was truncated or created anew`,
    {
      topic,
      partition,
      offset: found.known,
      hint,
    },
  );
}

interface Waiter<T> {
  readonly value: T;
  readonly stored: () => void;
  readonly failed: (error: unknown) => void;
}

interface IntentWaiter extends Waiter<Intent> {
  value: Intent;
}

/** Changes a range in doubt, as it is stored when the write is made. */
interface Amendment extends Waiter<number> {
  /** Where the range begins. */
  readonly value: number;
  readonly amended: (stored: Intent) => Intent;
}

/** One partition's state during one tenure. Writes are one at a time; what waits meanwhile goes into the next one. */
export class PartitionLedger {
  readonly #store: StateStore;
  readonly #assignment: Assignment;
  readonly #config: Settings;
  #claim: Claim;
  #intents: IntentWaiter[] = [];
  #amendments: Amendment[] = [];
  #recuts: Waiter<readonly Intent[]>[] = [];
  #settles: Waiter<number>[] = [];
  #halt: Waiter<HaltNote> | undefined;
  #hasHalted = false;
  #writing: Subscription | undefined;
  #ended: unknown;

  constructor(store: StateStore, claim: Claim, assignment: Assignment, config: Settings) {
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
    const { cluster, group, topic, partition } = this.#claim.key;
    const { incarnation, topicId } = this.state;
    return dedupToken({ cluster, group, topic, topicId, partition, incarnation, intent });
  }

  /**
   * Emits the intent as it is stored (I1), with its floor: nothing that is recorded with it or before it, and not settled
   * yet, lies below. Waits while `maxPending` ranges are in doubt.
   */
  intend(intent: Intent): Observable<Intent> {
    return new Observable<Intent>((subscriber) => {
      const last = this.#intents.at(-1)?.value.last ?? lastKnownOffset(this.state);
      if (last !== undefined && intent.first !== last + 1) {
        subscriber.error(this.#broken(`an intent that begins at ${intent.first} after one that ends at ${last}`));
        return;
      }
      const waiter: IntentWaiter = {
        value: intent,
        stored: () => {
          subscriber.next(waiter.value);
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
        const expected =
          oldest === undefined ? 'nothing is in doubt' : `the oldest range in doubt ends at ${oldest.last}`;
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

  /**
   * Records a range in doubt anew, as `intent` has it and with further offsets left out: with any it is another batch,
   * under another token; with none it is confirmed, which only its owner can. Emits the intent once it is stored (I12):
   * inserted before that, a restart would insert the range under its old token.
   */
  exclude(intent: Intent, offsets: readonly number[]): Observable<Intent> {
    if (offsets.length === 0) return this.#amend(intent, () => intent);
    const excluded = [...new Set([...intent.excluded, ...offsets])].sort((a, b) => a - b);
    // Nothing was ever sent under the new token, so no fill was either.
    const { isFilling: _, ...rest } = intent;
    return this.#amend(intent, () => ({ ...rest, excluded }));
  }

  /** Adds to a range in doubt what must outlive this process before it is acted on. Emits the intent once it is stored. */
  note(intent: Intent, fields: IntentNotes): Observable<Intent> {
    return this.#amend(intent, (stored) => ({ ...stored, ...fields }));
  }

  #amend({ first, last }: Intent, amended: (stored: Intent) => Intent): Observable<Intent> {
    return new Observable<Intent>((subscriber) => {
      const inDoubt = () => this.state.pending.find((intent) => intent.first === first);
      const unknown = () => subscriber.error(this.#broken(`a change to ${first}-${last}, which is not in doubt`));
      const stored = () => {
        const intent = inDoubt();
        if (intent === undefined) return unknown();
        subscriber.next(intent);
        subscriber.complete();
      };
      const waiter: Amendment = { value: first, amended, stored, failed: (error) => subscriber.error(error) };
      if (inDoubt() === undefined) return unknown();
      this.#amendments.push(waiter);
      this.#pump();
      return () => {
        this.#amendments = this.#amendments.filter((other) => other !== waiter);
        this.#stopWhenUnwanted();
      };
    });
  }

  /**
   * Records ranges in doubt in other parts, which cover the very same offsets; each part is a range of its own from then
   * on, under a token of its own. Only for ranges of which no row is in the table, and of which every attempt was answered
   * (I16). Emits the parts once they are stored.
   */
  recut(parts: readonly Intent[]): Observable<readonly Intent[]> {
    return new Observable<readonly Intent[]>((subscriber) => {
      if (!coversWholeRanges(this.state.pending, parts)) {
        subscriber.error(
          this.#broken(`parts of ${parts[0]?.first}-${parts.at(-1)?.last} that are not those of whole ranges in doubt`),
        );
        return;
      }
      const waiter: Waiter<readonly Intent[]> = {
        value: parts,
        stored: () => {
          subscriber.next(parts);
          subscriber.complete();
        },
        failed: (error) => subscriber.error(error),
      };
      this.#recuts.push(waiter);
      this.#pump();
      return () => {
        this.#recuts = this.#recuts.filter((other) => other !== waiter);
        this.#stopWhenUnwanted();
      };
    });
  }

  /** Emits once it is stored that the partition has halted. What waits is not written any more, but for a write under way. */
  halt(code: ErrorCode, heals: boolean): Observable<HaltNote> {
    return new Observable<HaltNote>((subscriber) => {
      const before = this.state.halted;
      // Tried again and halted by the same: it stands since then.
      const value = { code, atMs: before?.code === code ? before.atMs : this.#config.scheduler.now(), heals };
      const stored = () => {
        subscriber.next(value);
        subscriber.complete();
      };
      const waiter: Waiter<HaltNote> = { value, stored, failed: (error) => subscriber.error(error) };
      this.#halt = waiter;
      this.#hasHalted = true;
      this.#pump();
      return () => {
        if (this.#halt === waiter) this.#halt = undefined;
        this.#stopWhenUnwanted();
      };
    });
  }

  get #waiters(): readonly Waiter<unknown>[] {
    return [
      ...this.#settles,
      ...this.#amendments,
      ...this.#recuts,
      ...this.#intents,
      ...(this.#halt === undefined ? [] : [this.#halt]),
    ];
  }

  #pump(): void {
    if (this.#ended !== undefined) return this.#fail(this.#ended);
    if (this.#writing !== undefined) return;
    if (this.#halt !== undefined) return this.#write(haltedState(this.state, this.#halt.value), [this.#halt]);
    if (this.#hasHalted) return;
    const settles = this.#settles;
    const settled = settles.reduce<number | undefined>(
      (most, { value }) => Math.max(most ?? value, value),
      this.state.settled,
    );
    const amendments = this.#amendments;
    const recuts = this.#recuts;
    const unsettled = this.state.pending
      .filter((intent) => settled === undefined || intent.last > settled)
      .map((intent) =>
        amendments
          .filter(({ value }) => value === intent.first)
          .reduce((stored, { amended }) => amended(stored), intent),
      );
    const inDoubt = recuts.reduce((pending, { value }) => inParts(pending, value), unsettled);
    // A predecessor with a larger maxPending may have left more in doubt than there is room for.
    const intents = this.#intents.slice(0, Math.max(0, this.#config.maxPending - inDoubt.length));
    if (settles.length + amendments.length + recuts.length + intents.length === 0) return;
    const floor = (inDoubt[0] ?? intents[0]?.value)?.first;
    for (const waiter of intents)
      if (floor !== undefined && floor < waiter.value.first) waiter.value = { ...waiter.value, floor };
    const began = lastKnownOffset(this.state) === undefined ? intents[0]?.value.first : undefined;
    const isGoingOn = settles.length > 0 || this.state.pending.length === 0;
    const next: PartitionState = {
      ...(isGoingOn ? withoutHalt(this.state) : this.state),
      ...(began === undefined || began === 0 ? {} : { began }),
      settled,
      pending: [...inDoubt, ...intents.map(({ value }) => value)],
    };
    this.#write(next, [...settles, ...amendments, ...recuts, ...intents]);
  }

  #write(next: PartitionState, waiters: readonly Waiter<unknown>[]): void {
    const { retry, onEvent, scheduler } = this.#config;
    const assignment = this.#assignment;
    const write$ = defer(() => from(this.#store.write(this.#claim, next))).pipe(
      last(),
      retryRetryable(retry, scheduler, (notice) => onEvent({ kind: 'retry', call: 'write', assignment, ...notice })),
    );
    let isDone = false;
    const writing = write$.subscribe({
      next: (claim) => {
        isDone = true;
        this.#claim = claim;
        this.#writing = undefined;
        const gone = new Set(waiters);
        this.#settles = this.#settles.filter((waiter) => !gone.has(waiter));
        this.#amendments = this.#amendments.filter((waiter) => !gone.has(waiter));
        this.#recuts = this.#recuts.filter((waiter) => !gone.has(waiter));
        this.#intents = this.#intents.filter((waiter) => !gone.has(waiter));
        if (this.#halt !== undefined && gone.has(this.#halt)) this.#halt = undefined;
        onEvent({ kind: 'stateWritten', assignment, pending: next.pending.length });
        for (const waiter of waiters) waiter.stored();
        this.#pump();
      },
      error: (thrown: unknown) => {
        isDone = true;
        const error = asIngestError(thrown, 'KCR_STORE', 'the state could not be written');
        if (error.code === 'KCR_FENCED') onEvent({ kind: 'fenced', assignment, error });
        this.#fail(error);
      },
    });
    if (!isDone) this.#writing = writing;
  }

  /** After an error the stored state is not known any more: this tenure is over. */
  #fail(error: unknown): void {
    this.#ended = error;
    this.#writing = undefined;
    const waiters = this.#waiters;
    this.#halt = undefined;
    this.#recuts = [];
    this.#settles = [];
    this.#amendments = [];
    this.#intents = [];
    for (const waiter of waiters) waiter.failed(error);
  }

  /** Nobody waits any more: the tenure was lost. A write under way may still land; the claim decides. */
  #stopWhenUnwanted(): void {
    if (this.#writing === undefined || this.#waiters.length > 0) return;
    this.#writing.unsubscribe();
    this.#writing = undefined;
    this.#ended = this.#broken('a write whose outcome nobody waited for');
  }

  #broken(what: string): IngestError {
    const { topic, partition } = this.#assignment;
    return new IngestError('KCR_INTERNAL', `The ledger was given ${what}`, { topic, partition });
  }
}

/** What an empty state learnt of its log is stored with the first range: until then another topic under the name is no reset. */
function haltedState(state: PartitionState, halted: HaltNote): PartitionState {
  return lastKnownOffset(state) === undefined ? { ...state, topicId: undefined, halted } : { ...state, halted };
}

/** Do the parts cover, without a hole, exactly some of the ranges? */
function coversWholeRanges(pending: readonly Intent[], parts: readonly Intent[]): boolean {
  const [first, last] = [parts[0]?.first, parts.at(-1)?.last];
  const isContiguous = parts.every(
    (part, at) => part.first <= part.last && (at === 0 || part.first === parts[at - 1]!.last + 1),
  );
  return (
    isContiguous && pending.some((intent) => intent.first === first) && pending.some((intent) => intent.last === last)
  );
}

function inParts(pending: readonly Intent[], parts: readonly Intent[]): Intent[] {
  const [first, last] = [parts[0]!.first, parts.at(-1)!.last];
  return [
    ...pending.filter((intent) => intent.last < first),
    ...parts,
    ...pending.filter((intent) => intent.first > last),
  ];
}
