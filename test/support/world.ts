// A small world for the arrangements: a log, a consumer group, a state store and a table, all of which outlive the
// process. Every port call takes time, in the middle of which its effect takes place; a process can die at any call.
import { Observable, VirtualAction, VirtualTimeScheduler, type Subscription } from 'rxjs';
import { IngestError, type ErrorCode } from '../../src/errors.js';
import type { Assignment } from '../../src/model/record.js';
import { emptyState, type PartitionState } from '../../src/model/state.js';
import type { BatchSink, Claim, RecordSource, SourceEvent, StateKey, StateStore } from '../../src/ports.js';
import { chunk } from './fakes.js';

/**
 * What becomes of a call and of the process that makes it:
 * `before` the process dies, nothing took effect; `after` it dies between the effect and the reply; `late` it dies, and
 * the request takes effect when the next process is at work; `reply` it lives, the effect took place, the reply is lost.
 */
export const fates = ['before', 'after', 'late', 'reply'] as const;
export type Fate = (typeof fates)[number];

export interface Fault {
  /** The n-th port call, from 1. */
  readonly call: number;
  readonly fate: Fate;
}

/** How a process works that is about to live. Other sizes in another life: other cuts. */
export interface Life {
  readonly chunkSize: number;
  readonly batchCount: number;
  readonly fault?: Fault | undefined;
}

const latencyMs = 4;
const fetchMs = 3;
const rebirthMs = 20;
const lateMs = 60;

export class World {
  /** Stops after a while, should a process call for ever. */
  readonly clock = new VirtualTimeScheduler(VirtualAction, 20_000);
  /** Names of the port calls made so far, in all lives. */
  readonly calls: string[] = [];
  /** What was broken of I1 and I6. */
  readonly violations: string[] = [];

  readonly #committed = new Map<number, number>();
  readonly #states = new Map<number, { state: PartitionState; version: number }>();
  readonly #tokens = new Set<string>();
  readonly #rows: string[] = [];
  #generation = 0;
  #epoch = 0;
  #callsOfLife = 0;
  #life: Life = { chunkSize: 1, batchCount: 1 };
  #process: Subscription | undefined;

  /** `logs[p]` is the number of records of partition p. */
  constructor(readonly logs: readonly number[]) {}

  /** Lets a process live until it dies by its fault or has nothing left to do. */
  live(life: Life, start: (world: World, life: Life) => Observable<unknown>): this {
    this.#life = life;
    this.#callsOfLife = 0;
    this.#generation += 1;
    this.clock.schedule(() => {
      this.#process = start(this, life).subscribe();
    }, rebirthMs);
    this.clock.flush();
    this.#process?.unsubscribe();
    return this;
  }

  /** Offsets of the topic that the table lacks, and those it has more than once: `partition:offset`. */
  verdict(): { readonly missing: readonly string[]; readonly doubled: readonly string[] } {
    const expected = this.logs.flatMap((count, partition) => Array.from({ length: count }, (_, offset) => `${partition}:${offset}`));
    const seen = new Map<string, number>();
    for (const row of this.#rows) seen.set(row, (seen.get(row) ?? 0) + 1);
    return { missing: expected.filter((row) => !seen.has(row)), doubled: [...seen].filter(([, times]) => times > 1).map(([row]) => row) };
  }

  // --- ports

  readonly source: RecordSource = {
    events: new Observable<SourceEvent>((subscriber) => {
      const fetching = this.logs.map((_, partition) => this.#fetch(partition, (event) => subscriber.next(event)));
      return () => fetching.forEach((stop) => stop());
    }),
    cluster: () => this.#call('cluster', () => 'c1'),
    log: ({ partition }) => this.#call('log', () => ({ start: 0, end: this.logs[partition] ?? 0 })),
    seek: (assignment, offset) => this.#call('seek', () => void this.#positions.set(assignment.epoch, offset)),
    commit: (assignment, nextOffset) => this.#call('commit', () => this.#commit(assignment, nextOffset), 'KCR_KAFKA'),
    done: () => undefined,
    halt: ({ epoch }) => void this.#positions.delete(epoch),
    renew: () => undefined,
    pause: () => undefined,
    resume: () => undefined,
    drain: () => undefined,
  };

  readonly store: StateStore = {
    name: 'world',
    claim: (key, owner) => {
      const { version } = this.#kept(key);
      return this.#call('claim', () => this.#put({ key, owner, version }, this.#kept(key).state), 'KCR_STORE_UNREACHABLE');
    },
    write: (claim, state) => this.#call('write', () => this.#put(claim, state)),
    read: (key) => [{ state: this.#kept(key).state, owner: undefined }],
    close: () => Promise.resolve(),
  };

  readonly sink: BatchSink = {
    freeze: ({ assignment: { partition }, records, token, intent }) => ({
      insert: () =>
        this.#call('insert', () => {
          if (intent !== undefined) this.#expectRecorded(partition, intent.first, intent.last);
          const isKnown = token !== undefined && this.#tokens.has(token);
          if (token !== undefined) this.#tokens.add(token);
          if (!isKnown) this.#rows.push(...records.map(({ offset }) => `${partition}:${offset}`));
          return { rows: records.length, bytes: 0 };
        }, 'KCR_INSERT_IN_DOUBT'),
      tokenDoubt: () => undefined,
      readBackWhenInDoubt: false,
      readBack: () => [{ missing: [], doubled: [] }],
      fill: () => [{ rows: 0, bytes: 0 }],
      release: () => undefined,
    }),
    describe: () => ({ tables: ['db.t'], settings: 's' }),
    close: () => Promise.resolve(),
  };

  // --- what happens

  readonly #positions = new Map<number, number>();

  #fetch(partition: number, tell: (event: SourceEvent) => void): () => void {
    const { chunkSize } = this.#life;
    const startOffset = this.#committed.get(partition) ?? 0;
    const assignment: Assignment = { topic: 't', partition, epoch: ++this.#epoch, generation: this.#generation, startOffset };
    this.#positions.set(assignment.epoch, startOffset);
    const poll = this.clock.schedule(function (this: { schedule(state: unknown, delayMs: number): unknown }) {
      deliver();
      this.schedule(undefined, fetchMs);
    }, fetchMs);
    const deliver = (): void => {
      const position = this.#positions.get(assignment.epoch);
      const end = this.logs[partition] ?? 0;
      if (position === undefined || position >= end) return this.#idle(poll);
      const last = Math.min(end, position + chunkSize) - 1;
      this.#positions.set(assignment.epoch, last + 1);
      tell({ kind: 'fetched', assignment, chunk: chunk(position - 1, last, { of: assignment }) });
    };
    this.clock.schedule(() => tell({ kind: 'assigned', assignment }), 1);
    return () => poll.unsubscribe();
  }

  /** Polls on for a while, since a seek may be under way, then stops: the clock must run out. */
  #idle(poll: Subscription): void {
    this.clock.schedule(() => poll.unsubscribe(), 200);
  }

  #commit({ partition, generation }: Assignment, nextOffset: number): void {
    if (generation !== this.#generation) throw new IngestError('KCR_FENCED', 'the generation is over');
    const kept = this.#states.get(partition)?.state;
    if (kept !== undefined && nextOffset > (kept.settled ?? -1) + 1) this.violations.push(`I6: committed ${nextOffset}, settled ${kept.settled}`);
    this.#committed.set(partition, nextOffset);
  }

  #kept({ partition }: StateKey): { state: PartitionState; version: number } {
    return this.#states.get(partition) ?? { state: emptyState, version: 0 };
  }

  #put({ key, owner, version }: Pick<Claim, 'key' | 'owner'> & { readonly version: unknown }, state: PartitionState): Claim {
    if (version !== this.#kept(key).version) throw new IngestError('KCR_FENCED', 'claimed by another');
    const next = this.#kept(key).version + 1;
    this.#states.set(key.partition, { state, version: next });
    return { key, owner, state, version: next };
  }

  #expectRecorded(partition: number, first: number, last: number): void {
    const { settled = -1, pending } = this.#states.get(partition)?.state ?? emptyState;
    const isRecorded = last <= settled || pending.some((intent) => intent.first === first && intent.last === last);
    if (!isRecorded) this.violations.push(`I1: inserted ${first}-${last}, which is not recorded`);
  }

  #call<T>(name: string, effect: () => T, whenReplyIsLost?: ErrorCode): Observable<T> {
    return new Observable<T>((subscriber) => {
      this.calls.push(name);
      this.#callsOfLife += 1;
      const { fault } = this.#life;
      const fate = fault?.call === this.#callsOfLife ? fault.fate : undefined;
      if (fate === 'before' || fate === 'late') {
        if (fate === 'late') this.clock.schedule(() => void attempt(effect), lateMs);
        this.#die();
        return undefined;
      }
      const working = this.clock.schedule(() => {
        const reply = attempt(effect);
        if (fate === 'after') return this.#die();
        subscriber.add(
          this.clock.schedule(() => {
            if (fate === 'reply' && whenReplyIsLost !== undefined) return subscriber.error(new IngestError(whenReplyIsLost, 'the reply was lost'));
            if ('error' in reply) return subscriber.error(reply.error);
            subscriber.next(reply.value);
            subscriber.complete();
          }, latencyMs / 2),
        );
      }, latencyMs / 2);
      return () => working.unsubscribe();
    });
  }

  #die(): void {
    this.#process?.unsubscribe();
  }
}

function attempt<T>(effect: () => T): { readonly value: T } | { readonly error: unknown } {
  try {
    return { value: effect() };
  } catch (error) {
    return { error };
  }
}
