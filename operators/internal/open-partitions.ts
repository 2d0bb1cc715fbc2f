/**
 * A helper of groupByPartition: the partitions that are ours, each with its inner stream, its halts and how it ends.
 * Imports: errors, events, model, ports, rxjs, stages.
 */
import { Observable, Subject, defer, from, type ObservableInput, type Subscriber, type Subscription } from 'rxjs';
import { IngestError, asIngestError, hasCode, mayHeal, type ErrorFields } from '../../src/errors.js';
import type { Halted, OnEvent } from '../../src/events.js';
import { partitionName } from '../../src/model/partition-name.js';
import type { Assignment, Chunk } from '../../src/model/record.js';
import type { Partition, SourceEvent } from '../../src/ports.js';
import type { stage } from '../../src/stages.js';
import { ownPartition, type OwnPartition, type PartitionSource } from './partition.js';

/**
 * What a project emits: it must say how far it has got, so that the source may fetch on. What is still to be inserted,
 * settled or committed is not covered.
 */
export interface Covered {
  readonly lastOffset: number;
  readonly [stage]?: never;
}

export const healDefaults = { minDelayMs: 10_000, maxDelayMs: 300_000 } as const;

/** When a partition that halted for what can be mended from outside is started again. */
export interface HealConfig {
  /** Before a partition that has halted is started again for the first time, milliseconds. @default 10000 */
  readonly minDelayMs?: number;
  /** The wait doubles from halt to halt up to this, until a batch is delivered again, milliseconds. @default 300000 */
  readonly maxDelayMs?: number;
}

/** What becomes of a partition that halts. */
export interface GroupByPartitionConfig {
  /**
   * A partition that halts for what can be mended from outside (rights, settings, a table, a server) is started again
   * after a while; `false`: it stays halted, like one that halts for a record. @default {}
   */
  readonly heal?: HealConfig | false;
  readonly onEvent?: OnEvent;
}

interface OpenPartition {
  readonly assignment: Assignment;
  readonly handle: OwnPartition;
  readonly chunks: Subject<Chunk>;
  /** True once the project has subscribed to its chunks, even if it has unsubscribed since. */
  isHeard: boolean;
  inner?: Subscription;
  release?: () => void;
  /** Of its halt. */
  note?: Subscription;
  isOver: boolean;
  /** Of what was given to the project, and of what came out of it. */
  taken: { readonly afterOffset: number; lastOffset: number } | undefined;
  doneUpTo: number | undefined;
}

export class OpenPartitions<T extends Covered> {
  readonly #open = new Map<number, OpenPartition>();
  /** How often partitions have halted without a batch being delivered since, by their names. */
  readonly #halts = new Map<string, number>();
  /** Partitions that have halted, until `onHalt` has ended. */
  readonly #halting = new Map<number, OpenPartition>();
  #isSourceDone = false;

  constructor(
    private readonly source: PartitionSource,
    private readonly project: (partition: Partition) => ObservableInput<T>,
    private readonly config: Required<GroupByPartitionConfig>,
    private readonly subscriber: Subscriber<T | Halted>,
  ) {}

  on(event: SourceEvent): void {
    const opened = this.#open.get(event.assignment.assignmentId);
    if (event.kind !== 'fetched') this.config.onEvent({ kind: event.kind, assignment: event.assignment });
    switch (event.kind) {
      case 'assigned':
        return this.#begin(event.assignment);
      case 'fetched':
        return opened === undefined ? undefined : this.#deliver(opened, event.chunk);
      case 'failed':
        return opened === undefined ? undefined : this.#halt(opened, event.error);
      case 'revoked':
        return opened === undefined
          ? this.#revokeHalted(event.assignment.assignmentId, event.release)
          : this.#finish(opened, event.release);
      case 'lost':
        if (opened !== undefined) this.#discard(opened);
        this.#endHalting(event.assignment.assignmentId);
        return this.#completeWhenEmpty();
    }
  }

  completeAll(): void {
    this.#isSourceDone = true;
    for (const opened of [...this.#open.values()]) {
      // One that is being revoked keeps its release: the source may still wait for it.
      if (opened.release === undefined) this.#finish(opened, () => undefined);
    }
    this.#completeWhenEmpty();
  }

  discardAll(): void {
    for (const opened of [...this.#open.values()]) this.#discard(opened);
    for (const assignmentId of [...this.#halting.keys()]) this.#endHalting(assignmentId);
  }

  #begin(assignment: Assignment): void {
    const chunks = new Subject<Chunk>();
    const handle = ownPartition(
      this.source,
      assignment,
      defer(() => {
        opened.isHeard = true;
        return chunks;
      }),
    );
    const opened: OpenPartition = {
      assignment,
      handle,
      chunks,
      isHeard: false,
      isOver: false,
      taken: undefined,
      doneUpTo: undefined,
    };
    this.#open.set(assignment.assignmentId, opened);
    const inner$ = new Observable<T>((inner) => from(this.project(handle)).subscribe(inner));
    const inner = inner$.subscribe({
      next: (value) => {
        if (opened.isOver) return;
        opened.doneUpTo = value.lastOffset;
        handle.done(value.lastOffset);
        this.#healed(assignment);
        this.subscriber.next(value);
      },
      error: (thrown: unknown) => this.#halt(opened, thrown),
      complete: () => {
        const isByItself = opened.release === undefined && !opened.isOver;
        if (isByItself) handle.halt();
        this.#end(opened);
        if (isByItself) this.config.onEvent({ kind: 'finished', assignment });
      },
    });
    opened.inner = inner;
    if (opened.isOver) inner.unsubscribe();
  }

  #deliver(opened: OpenPartition, chunk: Chunk): void {
    if (opened.release !== undefined) return;
    if (opened.chunks.observed) {
      opened.taken ??= { afterOffset: chunk.afterOffset, lastOffset: chunk.lastOffset };
      opened.taken.lastOffset = chunk.lastOffset;
      return opened.chunks.next(chunk);
    }
    // A pipeline that has left its chunks, by an error or of its own will, finishes what it took and wants no more.
    if (opened.isHeard) return opened.handle.halt();
    this.#halt(
      opened,
      new IngestError('KCR_INTERNAL', 'the project has not subscribed to its chunks', {
        ...opened.assignment,
        hint: 'subscribe to partition.chunks when the project is called; chunks are not kept for later',
      }),
    );
  }

  #finish(opened: OpenPartition, release: () => void): void {
    opened.release = release;
    opened.chunks.complete();
  }

  #halt(opened: OpenPartition, thrown: unknown): void {
    const { assignment } = opened;
    if (opened.isOver) return;
    const error = asIngestError(
      thrown,
      'KCR_TRANSFORM',
      'an operator in the pipeline of this partition threw',
      underWay(opened),
    );
    opened.handle.halt();
    if (hasCode(error, 'KCR_FENCED')) {
      this.#discard(opened);
      this.#release(opened);
      // Is it ours nevertheless, somebody must claim it again: a claim that came late belongs to a process that is
      // gone.
      if (opened.release === undefined) opened.handle.reassign();
      return this.#completeWhenEmpty();
    }
    const healsInMs = this.#healsIn(error, opened);
    const halted: Halted = { kind: 'halted', assignment, error, ...(healsInMs === undefined ? {} : { healsInMs }) };
    this.#halting.set(assignment.assignmentId, opened);
    let isToldOrNoted = false;
    const afterBoth = () => {
      const isFirst = !isToldOrNoted;
      isToldOrNoted = true;
      if (isFirst || !this.#halting.delete(assignment.assignmentId)) return;
      const isRevoked = opened.release !== undefined;
      this.#release(opened);
      if (healsInMs !== undefined && !isRevoked) opened.handle.reassign(healsInMs);
      this.#completeWhenEmpty();
    };
    // Before the discard: what it writes comes behind a write that is under way, which would be given up otherwise.
    opened.note = opened.handle
      .noteHalt(halted, healsInMs !== undefined)
      .subscribe({ error: afterBoth, complete: afterBoth });
    this.#discard(opened);
    // Told before the release, which may let the source complete: after that nothing can be told.
    this.subscriber.next(halted);
    afterBoth();
  }

  /** Released only when it has been noted that it halted; nothing of it is left to finish. */
  #revokeHalted(assignmentId: number, release: () => void): void {
    const opened = this.#halting.get(assignmentId);
    if (opened === undefined) return release();
    opened.release = release;
  }

  #endHalting(assignmentId: number): void {
    const opened = this.#halting.get(assignmentId);
    this.#halting.delete(assignmentId);
    opened?.note?.unsubscribe();
  }

  #healsIn(error: IngestError, { assignment, release }: OpenPartition): number | undefined {
    const { heal } = this.config;
    if (heal === false || !mayHeal(error)) return undefined;
    if (release !== undefined) return 0;
    const { minDelayMs = healDefaults.minDelayMs, maxDelayMs = healDefaults.maxDelayMs } = heal;
    const halts = this.#halts.get(partitionName(assignment)) ?? 0;
    this.#halts.set(partitionName(assignment), halts + 1);
    return Math.min(maxDelayMs, minDelayMs * 2 ** Math.min(halts, 30));
  }

  #healed(assignment: Assignment): void {
    const attempts = this.#halts.get(partitionName(assignment));
    if (attempts === undefined) return;
    this.#halts.delete(partitionName(assignment));
    this.config.onEvent({ kind: 'healed', assignment, attempts });
  }

  /** The inner stream completed by itself. */
  #end(opened: OpenPartition): void {
    if (opened.isOver) return;
    opened.isOver = true;
    this.#open.delete(opened.assignment.assignmentId);
    this.#release(opened);
    this.#completeWhenEmpty();
  }

  #release({ assignment, release }: OpenPartition): void {
    if (release === undefined) return;
    release();
    this.config.onEvent({ kind: 'released', assignment });
  }

  #discard(opened: OpenPartition): void {
    opened.isOver = true;
    this.#open.delete(opened.assignment.assignmentId);
    opened.inner?.unsubscribe();
  }

  #completeWhenEmpty(): void {
    if (this.#isSourceDone && this.#open.size + this.#halting.size === 0) this.subscriber.complete();
  }
}

/** What was taken and has not come out: somewhere in it the operator threw. */
function underWay({ assignment: { topic, partition }, taken, doneUpTo }: OpenPartition): ErrorFields {
  if (taken === undefined) return { topic, partition };
  return {
    topic,
    partition,
    first: Math.max(doneUpTo ?? taken.afterOffset, taken.afterOffset) + 1,
    last: taken.lastOffset,
    hint: 'mend the operator and start again; the partition goes on at these records',
  };
}
