/**
 * A port: where records come from. Imports: errors, model, rxjs.
 */
import type { Observable, ObservableInput } from 'rxjs';
import type { IngestError } from '../errors.js';
import type { PartitionSelection } from '../model/pauses.js';
import type { Assignment, Chunk } from '../model/record.js';

/**
 * What a source tells. Of one assignment: `assigned`, then any number of `fetched`, perhaps `failed`, then `revoked` or
 * `lost`.
 */
export type SourceEvent = Assigned | Fetched | Failed | Revoked | Lost;

/** A partition is ours: its chunks follow, until it is revoked or lost. */
export interface Assigned {
  readonly kind: 'assigned';
  readonly assignment: Assignment;
}

/** Chunks of one assignment are contiguous: each begins where the last one ended, or where `seek` put it. */
export interface Fetched {
  readonly kind: 'fetched';
  readonly assignment: Assignment;
  readonly chunk: Chunk;
}

/** No further chunk of this assignment can be had. It stays assigned, and the others go on. */
export interface Failed {
  readonly kind: 'failed';
  readonly assignment: Assignment;
  readonly error: IngestError;
}

/**
 * The partition is about to be given away. The source waits (up to its drain time-out) until `release` is called, so
 * that what is in flight can be settled and committed. When the time-out strikes first, `lost` follows.
 */
export interface Revoked {
  readonly kind: 'revoked';
  readonly assignment: Assignment;
  /** To be called once what was taken is settled: the partition is given back. */
  readonly release: () => void;
}

/** The partition is already somebody else's. Nothing that was read of it may be used any more. */
export interface Lost {
  readonly kind: 'lost';
  readonly assignment: Assignment;
}

/** What a partition's log holds at this moment: offsets from `start` up to `end`, which the next record will get. */
export interface LogEnds {
  readonly start: number;
  readonly end: number;
}

/** How far a source is with a partition that is assigned to it. */
export interface SourceProgress {
  readonly topic: string;
  readonly partition: number;
  /** The offset that the next record will get; undefined: not known yet. */
  readonly logEnd: number | undefined;
  /** From here on offsets belong to transactions that are open; undefined: not known, or all is read. */
  readonly stableEnd: number | undefined;
  /** The byte budget has no room for more of it before some of it is done. */
  readonly isFull: boolean;
}

/** What a source tells of itself for the status. */
export interface SourceFacts {
  /** One for each partition that is assigned, in any order. */
  readonly partitions: readonly SourceProgress[];
  /** What may be fetched and not done at once, and what is. */
  readonly budget?: { readonly bytes: number; readonly usedBytes: number } | undefined;
}

/**
 * Where records come from. A source is `events` and `commit`; what else it can do is optional, and each thing says what
 * the pipeline does without it. Calls that give nothing back take effect when they are made.
 */
export interface RecordSource {
  /**
   * Subscribing begins (a consumer group is joined), unsubscribing ends it at once. Completes after `drain` when
   * everything was released, or when there is nothing more. Errors when the source cannot go on.
   */
  readonly events: Observable<SourceEvent>;
  /**
   * Commits `nextOffset` (one past the last that is done) under the generation of the assignment. Errors with
   * `KCR_FENCED` when the assignment is not current any more.
   */
  commit(assignment: Assignment, nextOffset: number): ObservableInput<void>;
  /**
   * Commits in one attempt, for those whose commits must not be overwritten by older ones: a copy of a request that
   * hangs somewhere may take effect after later ones. Errors with `KCR_FENCED` when the assignment is not current any
   * more, and when the outcome is not known: then nothing more is committed for this assignment, the partition is
   * assigned again, and from that on nothing of this one that is still on its way takes effect; with
   * `KCR_KAFKA_UNREACHABLE` (retryable) when it had no effect and will have none. Without it at-most-once uses
   * `commit`.
   */
  commitOnce?(assignment: Assignment, nextOffset: number): ObservableInput<void>;
  /** Kafka's cluster id; a part of every token and state key. Exactly-once needs it. */
  cluster?(): ObservableInput<string>;
  /**
   * Asked after a claim: is what the state tells of still in the log? Errors: `KCR_KAFKA_UNREACHABLE` (retryable), also
   * while the topic is not the one of the assignment: a process that was frozen must not judge by a topic that is gone.
   * Exactly-once needs it.
   */
  log?(assignment: Assignment): ObservableInput<LogEnds>;
  /**
   * The next chunk of this assignment begins at `offset`; chunks read before are not delivered any more. Exactly-once
   * needs it.
   */
  seek?(assignment: Assignment, offset: number): ObservableInput<void>;
  /**
   * Called before `events` is subscribed to, by the ledger of a state store: where a partition begins is decided by its
   * state, not by the group's committed offset. A source that judges that offset by itself waits for `claimed` first.
   */
  stateDecides?(): void;
  /**
   * The state of this assignment was claimed, and what follows from it sought. A source that waited for that to judge
   * the group's offset, which may not be in the log, need not wait any longer. `inDoubtUpTo`: nothing can be done
   * before the records up to this offset are here, since a range in doubt goes into the table as a whole; a source that
   * has a budget must deliver them all the same. Undefined: nothing is in doubt.
   */
  claimed?(assignment: Assignment, inDoubtUpTo: number | undefined): void;
  /** Everything up to `lastOffset` has left the pipeline: its bytes are free for further fetches. */
  done?(assignment: Assignment, lastOffset: number): void;
  /**
   * No more chunks of this assignment are wanted; it stays assigned, and heartbeats go on. Without it they are dropped.
   */
  halt?(assignment: Assignment): void;
  /**
   * This assignment cannot go on, though the group still says the partition is ours: its state was claimed by another,
   * or the outcome of a write will never be known. `lost` follows, then after a while `assigned` with a new epoch,
   * unless the partition was given away meanwhile. `afterMs`: how long that while is; undefined: the source chooses.
   * Without it a partition that has halted stays halted.
   */
  reassign?(assignment: Assignment, afterMs?: number): void;
  /**
   * No more chunks of the selected partitions, of all without a selection, until `resume`. It holds for partitions that
   * are assigned later, too. What was said last counts: of a partition, else of its topic, else of all.
   */
  pause?(selection?: PartitionSelection): void;
  /** Goes on where it paused. */
  resume?(selection?: PartitionSelection): void;
  /** How far it is at this moment, for status and metrics. Without it nobody knows of a lag. */
  progress?(): SourceFacts;
  /** Revokes every assignment with a release, then ends; `events` completes. */
  drain?(): void;
}

/** A source that can say what its log holds and begin anywhere in it: exactly-once goes on where its state says. */
export type SeekableSource = RecordSource & Required<Pick<RecordSource, 'cluster' | 'log' | 'seek'>>;

/** What can be told to wait while others catch up: a source, or an `Ingestion`. */
export interface Pausable {
  /** Takes nothing new from now on; what was taken goes on. Without a selection: all partitions. */
  pause(selection?: PartitionSelection): void;
  /** Without a selection: all, whatever was paused one by one. */
  resume(selection?: PartitionSelection): void;
}

/** A member of a consumer group: it can do all of it. */
export type GroupSource = SeekableSource &
  Pausable &
  Required<Pick<RecordSource, 'done' | 'halt' | 'reassign' | 'drain'>>;
