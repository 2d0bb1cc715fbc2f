/**
 * One partition's state during one assignment, as the stages change it.
 *
 * Each method queues a change and emits once the state that holds it is stored; what happens when the process dies
 * before or after that stands in `../ledger.ts`. Imports: errors, model, ports, rxjs.
 */
import { defer, map, of, type Observable } from 'rxjs';
import { IngestError, type ErrorCode } from '../errors.js';
import type { Assignment } from '../model/record.js';
import { resumeOffset, type HaltNote, type Intent, type IntentNotes, type PartitionState } from '../model/state.js';
import type { StateChange } from '../model/state-change.js';
import { dedupToken } from '../model/token.js';
import type { Claim, StateStore } from '../ports.js';
import { StateQueue, type StateQueueConfig } from './state-queue.js';

/**
 * The claimed state of one partition: what is settled, what is in doubt, and the writes that change it, one after the
 * other.
 */
export class PartitionLedger {
  readonly #assignment: Assignment;
  readonly #config: StateQueueConfig;
  readonly #queue: StateQueue;

  constructor(store: StateStore, claim: Claim, assignment: Assignment, config: StateQueueConfig) {
    this.#assignment = assignment;
    this.#config = config;
    this.#queue = new StateQueue(store, claim, assignment, config);
  }

  /** As the store has it. */
  get state(): PartitionState {
    return this.#queue.stored.state;
  }

  /** The `insert_deduplication_token` of a recorded range. */
  token(intent: Intent): string {
    const { cluster, group, topic, partition } = this.#queue.stored.key;
    const { incarnation, topicId } = this.state;
    return dedupToken({ cluster, group, topic, topicId, partition, incarnation, intent });
  }

  /**
   * Emits the intent as it is stored (I1), with its floor. Waits while `maxPending` ranges are in doubt. It must begin
   * behind the last range that is settled, in doubt or waiting (I7); the first one of a partition may begin anywhere.
   */
  intend(intent: Intent): Observable<Intent> {
    return this.#changeRange({ kind: 'record', intent }, intent);
  }

  /**
   * Settles the oldest range in doubt, which must end at `lastOffset` (I5). Emits what is settled once that is stored;
   * at once if it is already, or lies before everything this state tells of.
   */
  settle(lastOffset: number): Observable<number> {
    return defer(() => {
      const resume = resumeOffset(this.state);
      if (resume !== undefined && lastOffset < resume) return of(this.state.settled ?? lastOffset);
      return this.#queue.change({ kind: 'settle', last: lastOffset }).pipe(map(({ settled = lastOffset }) => settled));
    });
  }

  /**
   * Records a range in doubt again, as `intent` has it and with further offsets left out: with any it is another batch,
   * under another token; with none it is confirmed, which only its owner can. Emits the intent once it is stored (I12):
   * inserted before that, a restart would insert the range under its old token.
   */
  exclude(intent: Intent, offsets: readonly number[]): Observable<Intent> {
    const replacing = (by: Intent) => this.#changeRange({ kind: 'replace', parts: [by] }, by);
    if (offsets.length === 0) return replacing(intent);
    const excluded = [...new Set([...intent.excluded, ...offsets])].sort((a, b) => a - b);
    // Nothing was ever sent under the new token, so no fill was either.
    const { isFilling: _, ...rest } = intent;
    return replacing({ ...rest, excluded });
  }

  /**
   * Adds to a range in doubt what must outlive this process before it is acted on. Emits the intent once it is stored.
   */
  note(intent: Intent, notes: IntentNotes): Observable<Intent> {
    const { first, last } = intent;
    return this.#changeRange({ kind: 'note', first, last, notes }, intent);
  }

  /**
   * Records ranges in doubt in other parts, which cover the very same offsets; each part is a range of its own from
   * then on, under a token of its own. Only for ranges of which no row is in the table, and of which every attempt was
   * answered (I16). Emits the parts once they are stored.
   */
  recut(parts: readonly Intent[]): Observable<readonly Intent[]> {
    return this.#queue
      .change({ kind: 'replace', parts })
      .pipe(map((stored) => parts.map((part) => this.#rangeOf(stored, part))));
  }

  /**
   * Emits once it is stored that the partition has halted. What waits is not written any more, but for a write under
   * way.
   */
  halt(code: ErrorCode, heals: boolean): Observable<HaltNote> {
    return defer(() => {
      const before = this.state.halted;
      // Tried again and halted by the same: it stands since then.
      const note = { code, atMs: before?.code === code ? before.atMs : this.#config.scheduler.now(), heals };
      return this.#queue.change({ kind: 'halt', note }).pipe(map(() => note));
    });
  }

  #changeRange(change: StateChange, range: Intent): Observable<Intent> {
    return this.#queue.change(change).pipe(map((stored) => this.#rangeOf(stored, range)));
  }

  #rangeOf({ pending }: PartitionState, { first, last }: Intent): Intent {
    const intent = pending.find((each) => each.first === first);
    if (intent !== undefined) return intent;
    const { topic, partition } = this.#assignment;
    throw new IngestError('KCR_INTERNAL', `The range ${first}-${last} is not in doubt any more`, { topic, partition });
  }
}
