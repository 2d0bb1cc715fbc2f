/**
 * Room: what the stages need from the outside world, as interfaces. Adapters implement them (`kafka/`, `clickhouse/`,
 * `state/`), tests fake them. Only the model and rxjs's types may enter.
 *
 * Every call returns an `ObservableInput`: an adapter gives promises, a fake gives `timer` or `cold`, which is what
 * lets marble tests run the stages in virtual time. A call takes effect when it is subscribed to.
 */
import type { Observable, ObservableInput } from 'rxjs';
import type { IngestError } from './errors.js';
import type { Assignment, Batch, Chunk } from './model/record.js';
import type { Intent, PartitionState } from './model/state.js';

/**
 * What a source tells. Of one assignment: `assigned`, then any number of `fetched`, perhaps `failed`, then `revoked` or
 * `lost`.
 */
export type SourceEvent = Assigned | Fetched | Failed | Revoked | Lost;

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

/** Where records come from: a member of a consumer group. */
export interface RecordSource {
  /**
   * Subscribing joins the group, unsubscribing leaves it at once. Completes after `drain` when everything was
   * released. Errors when the source cannot go on.
   */
  readonly events: Observable<SourceEvent>;
  /** Kafka's cluster id; a part of every token and state key. */
  cluster(): ObservableInput<string>;
  /**
   * Asked after a claim: is what the state tells of still in the log? Errors: `KCR_KAFKA_UNREACHABLE` (retryable), also
   * while the topic is not the one of the assignment: a process that was frozen must not judge by a topic that is gone.
   */
  log(assignment: Assignment): ObservableInput<LogEnds>;
  /** The next chunk of this assignment begins at `offset`; chunks read before are not delivered any more. */
  seek(assignment: Assignment, offset: number): ObservableInput<void>;
  /**
   * The state of this assignment was claimed, and what follows from it sought. A source that waited for that to judge the
   * group's offset, which may not be in the log, need not wait any longer. `inDoubtUpTo`: nothing can be done before the
   * records up to this offset are here, since a range in doubt goes into the table as a whole; a source that has a budget
   * must deliver them all the same. Undefined: nothing is in doubt.
   */
  claimed?(assignment: Assignment, inDoubtUpTo: number | undefined): void;
  /**
   * Commits `nextOffset` (one past the last that is done) under the generation of the assignment. Errors with
   * `KCR_FENCED` when the assignment is not current any more.
   */
  commit(assignment: Assignment, nextOffset: number): ObservableInput<void>;
  /**
   * Commits in one attempt, for those whose commits must not be overwritten by older ones: a copy of a request that hangs
   * somewhere may take effect after later ones. Errors with `KCR_FENCED` when the assignment is not current any more, and
   * when the outcome is not known: then nothing more is committed for this assignment, the partition is assigned anew, and
   * from that on nothing of this one that is still on its way takes effect; with `KCR_KAFKA_UNREACHABLE` (retryable) when
   * it had no effect and will have none.
   */
  commitOnce?(assignment: Assignment, nextOffset: number): ObservableInput<void>;
  /** Everything up to `lastOffset` has left the pipeline: its bytes are free for further fetches. */
  done(assignment: Assignment, lastOffset: number): void;
  /** No more chunks of this assignment are wanted; it stays assigned, and heartbeats go on. */
  halt(assignment: Assignment): void;
  /**
   * This tenure cannot go on, though the group still says the partition is ours: its state was claimed by another, or
   * the outcome of a write will never be known. `lost` follows, then after a while `assigned` with a new epoch, unless
   * the partition was given away meanwhile. `afterMs`: how long that while is; undefined: the source chooses.
   */
  renew(assignment: Assignment, afterMs?: number): void;
  /** No more chunks of any assignment, until `resume`. For consumers that are slower than the ingestion. */
  pause(): void;
  resume(): void;
  /** Revokes every assignment with a release, then leaves the group; `events` completes. */
  drain(): void;
}

/** The name of one partition's state. */
export interface StateKey {
  readonly cluster: string;
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
}

/** The right to write one partition's state, until somebody else claims it. Opaque to everyone but its store. */
export interface Claim {
  readonly key: StateKey;
  /** Who holds it: unique to a process and tenure; told to people who look for a zombie. */
  readonly owner: string;
  readonly state: PartitionState;
  /** The store's own mark of this very value: a node's version, a nonce. */
  readonly version: unknown;
}

/** What a store keeps of one partition. */
export interface Stored {
  readonly state: PartitionState;
  /** Who wrote it last; undefined: nobody ever did. */
  readonly owner: string | undefined;
}

/** Where the state of partitions is kept. One contract, one contract test for all: `test/state/contract.ts`. */
export interface StateStore {
  readonly name: string;
  /**
   * Takes the partition over: reads its state (or the empty one) and makes every later write under an earlier claim
   * fail. Of two that claim at once, the later one wins and the earlier one's next write fails.
   * Errors: `KCR_STORE_UNREACHABLE` (retryable), `KCR_STATE_INVALID`.
   */
  claim(key: StateKey, owner: string): ObservableInput<Claim>;
  /**
   * Replaces the state by compare-and-set on the claim; gives the claim for the next write. A reply that got lost is
   * read back, never guessed. Errors: `KCR_FENCED`, `KCR_STORE_UNREACHABLE` (retryable, with the same claim).
   */
  write(claim: Claim, state: PartitionState): ObservableInput<Claim>;
  /** Reads without claiming. */
  read(key: StateKey): ObservableInput<Stored>;
  /** Gives connections back. A promise, not cold: calling it is enough. */
  close(): Promise<void>;
}

/** A batch on its way into the table: its range is recorded (exactly-once) or it has no intent at all. */
export interface InsertBatch extends Batch {
  /** The recorded intent; undefined in the at-most-once and at-least-once arrangements, and where nothing is inserted. */
  readonly intent: Intent | undefined;
  /** The dedup token of the recorded range; undefined as above. */
  readonly token: string | undefined;
  /** The range was in doubt when this process took the partition over. */
  readonly replay: boolean;
  /** The table may have other rows under the same offsets: of the topic as it was, or of an earlier reading. */
  readonly isAnew?: boolean;
}

export interface InsertResult {
  readonly rows: number;
  /** Bytes of the request's body. */
  readonly bytes: number;
}

/** What the table holds of a batch, by its provenance columns. */
export interface ReadBack {
  /** Offsets of the batch that have no row in the table, ascending. */
  readonly missing: readonly number[];
  /** Offsets of the batch that have more rows than they should, ascending. */
  readonly doubled: readonly number[];
  /** The look proves nothing, and the batch's own token still decides: `missing` has all of it. @default false */
  readonly isUnproven?: true;
}

/**
 * One batch with its bytes made once; every attempt sends the same bytes with the same token and settings.
 * Calls error with `KCR_INSERT_RETRIABLE`, `KCR_INSERT_IN_DOUBT`, `KCR_POISON`, `KCR_SCHEMA`, `KCR_INSERT_FATAL`.
 */
export interface FrozenInsert {
  /** Completes with one result once the server's answer was read to its end. */
  insert(): ObservableInput<InsertResult>;
  /**
   * Why the server may not know the token any more, so that the table must be asked before an attempt is sent: the
   * intent is older than the dedup budget, the server is another version than the one it was recorded for, or the table
   * may have forgotten what was sent under it. Undefined: the token tells. Asked before each attempt: a process that was frozen must not wake up and send.
   */
  tokenDoubt(nowMs: number): string | undefined;
  /**
   * Must the range be read back before it is settled, when an attempt was ambiguous or the batch is a replay? On a
   * plain MergeTree yes: the server writes the token to its log before it renames the part, so a kill in between makes
   * the retry answer 200 with the rows missing.
   */
  readonly readBackWhenInDoubt: boolean;
  /**
   * Asks the table. `tokenDoubt`: why it is asked before an attempt instead of after one. It concludes only from a table
   * and columns that the attempts really wrote to (I15). Errors with `KCR_READ_BACK` where that is not possible and the
   * doubt cannot be cleared otherwise.
   */
  readBack(tokenDoubt?: string): ObservableInput<ReadBack>;
  /**
   * Inserts exactly these offsets of the batch under the batch's own token; of a range of which a look has shown the
   * others. A block is named by token and ClickHouse partition, and is there or not as a whole: so where a whole attempt
   * that hangs somewhere lands as well, one of the two is dropped.
   */
  insertMissing(missing: readonly number[]): ObservableInput<InsertResult>;
  /**
   * Inserts exactly these offsets of the batch, under the token `<token>:fill1`, which does not depend on the
   * offsets: a ClickHouse partition's block is there or not as a whole, so a fill that an earlier owner has under way
   * has the same rows for the same block and is deduplicated. There is no second one: a fill that was answered and is not
   * seen shows that looking at the table proves nothing.
   */
  fill(missing: readonly number[]): ObservableInput<InsertResult>;
  /** Gives the bytes back. Called once, after the last attempt ended or was given up. */
  release(): void;
}

/** Where batches go. */
export interface BatchSink {
  /** Throws `KCR_POISON` for a record that is not one JSON object. */
  freeze(batch: InsertBatch): FrozenInsert;
  /**
   * What a new intent for this topic records: the tables, what identifies them and how rows are sent to them, and the
   * fingerprint of the settings.
   */
  describe(topic: string): Pick<Intent, 'tables' | 'settings' | 'written'>;
  /** Gives connections back. A promise, not cold: calling it is enough. */
  close(): Promise<void>;
}
