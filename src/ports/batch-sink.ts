/**
 * A port: where batches go. Imports: model, rxjs.
 */
import type { ObservableInput } from 'rxjs';
import type { Batch } from '../model/record.js';
import type { Intent } from '../model/state.js';

/** A batch on its way into the table: its range is recorded (exactly-once) or it has no intent at all. */
export interface InsertBatch extends Batch {
  /**
   * The recorded intent; undefined in the at-most-once and at-least-once arrangements, and where nothing is inserted.
   */
  readonly intent: Intent | undefined;
  /** The dedup token of the recorded range; undefined as above. */
  readonly token: string | undefined;
  /** The range was in doubt when this process took the partition over. */
  readonly replay: boolean;
  /** The table may have other rows under the same offsets: of the topic as it was, or of an earlier reading. */
  readonly isOffsetReused?: boolean;
}

/** What was sent and confirmed. */
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
export interface PreparedInsert {
  /** Completes with one result once the server's answer was read to its end. */
  insert(): ObservableInput<InsertResult>;
  /**
   * Why the server may not know the token any more, so that the table must be asked before an attempt is sent: the
   * intent is older than the dedup budget, the server is another version than the one it was recorded for, or the table
   * may have forgotten what was sent under it. Undefined: the token tells. Asked before each attempt: a process that
   * was frozen must not wake up and send.
   */
  tokenDoubt(nowMs: number): string | undefined;
  /**
   * Must the range be read back before it is settled, when an attempt was ambiguous or the batch is a replay? On a
   * plain MergeTree yes: the server writes the token to its log before it renames the part, so a kill in between makes
   * the retry answer 200 with the rows missing.
   */
  readonly readBackWhenInDoubt: boolean;
  /**
   * Asks the table. `tokenDoubt`: why it is asked before an attempt instead of after one. It concludes only from a
   * table and columns that the attempts really wrote to (I15). Errors with `KCR_READ_BACK` where that is not possible
   * and the doubt cannot be cleared otherwise.
   */
  readBack(tokenDoubt?: string): ObservableInput<ReadBack>;
  /**
   * Inserts exactly these offsets of the batch under the batch's own token; of a range of which a look has shown the
   * others. A block is named by token and ClickHouse partition, and is there or not as a whole: so where a whole
   * attempt that hangs somewhere lands as well, one of the two is dropped.
   */
  insertMissing(missing: readonly number[]): ObservableInput<InsertResult>;
  /**
   * Inserts exactly these offsets of the batch, under the token `<token>:fill1`, which does not depend on the
   * offsets: a ClickHouse partition's block is there or not as a whole, so a fill that an earlier owner has under way
   * has the same rows for the same block and is deduplicated. There is no second one: a fill that was answered and is
   * not seen shows that looking at the table proves nothing.
   */
  fill(missing: readonly number[]): ObservableInput<InsertResult>;
  /** Gives the bytes back. Called once, after the last attempt ended or was given up. */
  release(): void;
}

/**
 * Where batches go. A sink is one function; with `verification` it is enough for exactly-once.
 *
 * A batch is inserted as a whole or not at all. Errors: `KCR_INSERT_RETRIABLE` (nothing of it landed), `KCR_POISON`
 * with the record's offset, `KCR_INSERT_FATAL`; `KCR_INSERT_IN_DOUBT` where the outcome is not known, for which
 * anything is taken that is no `IngestError`. A batch whose insert failed is given again, with the same records and the
 * same token.
 */
export interface BatchSink {
  /** Completes with one result once the rows are there for sure. */
  insert(batch: InsertBatch): ObservableInput<InsertResult>;
  readonly verification?: Verification;
}

/** Tells what is there already: asked of a range in doubt before it is sent again. */
export interface Verification {
  /**
   * Which offsets of the batch are not there? All of them or none, since a batch is inserted as a whole. No attempt at
   * it may land after the answer, unless a second one under its token adds nothing.
   */
  look(batch: InsertBatch): ObservableInput<ReadBack>;
  /** What a new intent for this topic records of where its rows go. @default the topic's name for the table */
  describe?(topic: string): IntentTarget;
}

/** A sink that exactly-once can rest on. */
export interface VerifiableSink extends BatchSink {
  readonly verification: Verification;
}

/** Where a range goes, as its intent records it. */
export type IntentTarget = Pick<Intent, 'tables' | 'settings' | 'written'>;

/**
 * A sink that makes a batch's bytes once for all attempts, knows for how long a token holds, and can insert parts of a
 * range: ClickHouse's.
 */
export interface PreparingSink {
  /** Throws `KCR_POISON` for a record that is not one JSON object. */
  prepare(batch: InsertBatch): PreparedInsert;
  /**
   * What a new intent for this topic records: the tables, what identifies them and how rows are sent to them, and the
   * fingerprint of the settings.
   */
  describe(topic: string): IntentTarget;
  /** Gives connections back. A promise, not cold: calling it is enough. */
  close(): Promise<void>;
}
