/**
 * The state of a partition, as the state stores keep it. Pure data and pure functions, imports the model only.
 * Imports: nothing.
 */

/**
 * What a range is inserted into, as it was when the range was recorded. A later look into the table may conclude only
 * what these fields allow.
 */
export interface TableRecord {
  /** ClickHouse's UUID of the table, or the Keeper path of a replicated one; undefined: the database gives none. */
  readonly id?: string;
  /**
   * The provenance columns that the rows are sent with, a letter each: t topic, p partition, o offset, s timestamp,
   * k key, h headers. Behind a dash stands a hash of the types of the first three. '': the rows have none.
   */
  readonly columns: string;
  /** Hash of the table's whole definition, without its name. */
  readonly shape: string;
  /**
   * When the definition was changed last, seconds since the epoch on the server; undefined: the server does not say.
   */
  readonly alteredS?: number;
  /** Number of the last mutation that named a provenance column; undefined: the user may not see mutations. */
  readonly mutation?: number;
}

/** A range written to the state store before its insert. Both ends are included. */
export interface Intent {
  readonly first: number;
  readonly last: number;
  /** Records in the range when the intent was made; on a replay there may be fewer (compaction), never more. */
  readonly rows: number;
  /** When the intent was made, milliseconds since the epoch. */
  readonly atMs: number;
  /** Fingerprint of what must not change between an insert and its replay: insert settings, server. */
  readonly settings: string;
  readonly tables: readonly string[];
  /** The version of the transform between intent and insert, as its author names it; undefined: none was named. */
  readonly transformVersion?: string;
  /** Undefined: recorded by a version that did not say. */
  readonly written?: TableRecord;
  /**
   * Every offset below it was settled when this range was recorded, so its row was in the table then. Undefined:
   * `first`.
   */
  readonly floor?: number;
  /** Which form the token has (see `dedupToken`); undefined: the first, which does not name the group. */
  readonly tokenForm?: 2;
  /**
   * A fill may have been sent (see `PreparedInsert.fill`): from then on what is missing goes out under the fill's token
   * only.
   * @default false
   */
  readonly isFilling?: true;
  /**
   * A fill was answered, and the look behind it did not see its rows: nothing of the range is sent any more. @default
   * false
   */
  readonly isUnseen?: true;
  /**
   * Until then the table may show rows of it that will disappear, milliseconds since the epoch by the clock of who was
   * told so.
   */
  readonly unknownUntilMs?: number;
  /** Offsets that are not part of the batch (poison), ascending. They change the token. */
  readonly excluded: readonly number[];
  /** The dedup token under which another program has inserted the range; it is sent as it stands. */
  readonly token?: string;
}

/** What is added to a range while it is in doubt. */
export type IntentNotes = Partial<Pick<Intent, 'isFilling' | 'isUnseen' | 'unknownUntilMs'>>;

/** That a partition has halted, for people who look at its state. No decision depends on it. */
export interface HaltNote {
  /** Of the error: see `errorCodes`. A newer version may have written one that this one does not know. */
  readonly code: string;
  /** Since when, milliseconds since the epoch by the clock of its owner. */
  readonly atMs: number;
  /** It is started again by itself, since what is wrong may be mended from outside; false: it waits for a person. */
  readonly heals: boolean;
}

/** What is known of one partition: one value in the state store. */
export interface PartitionState {
  /**
   * Everything up to and including this offset is in ClickHouse; -1: nothing is, and offset 0 comes next; undefined:
   * nothing was ever settled, and the consumer group says what comes next.
   */
  readonly settled: number | undefined;
  /** Ranges in doubt: ascending, contiguous, the first begins at settled + 1. */
  readonly pending: readonly Intent[];
  /** Tells a re-created topic from the one before; part of every token. */
  readonly incarnation: number;
  /** Kafka's id of the topic that the offsets are of; part of every token. Undefined: the brokers gave none. */
  readonly topicId: string | undefined;
  /**
   * The partition was started again: the table may have other rows under the same offsets, so that it cannot be asked
   * which of a range are there.
   */
  readonly isOffsetReused?: true;
  /**
   * Where the first owner began, above 0: what lies before it was never to be ingested. Undefined: at 0, or nobody
   * noted it.
   */
  readonly began?: number;
  /** Undefined: it has not halted, has gone on since, or its halt could not be stored. */
  readonly halted?: HaltNote;
}

/** The state of a partition that nobody has claimed yet. */
export const emptyState: PartitionState = Object.freeze({
  settled: undefined,
  pending: Object.freeze([]),
  incarnation: 0,
  topicId: undefined,
});

/** The offset at which an owner of this state goes on; undefined: wherever the consumer group stands. */
export function resumeOffset(state: PartitionState): number | undefined {
  const inDoubt = state.pending[0];
  if (inDoubt !== undefined) return inDoubt.first;
  return state.settled === undefined ? undefined : state.settled + 1;
}

/** The last offset that is settled or in doubt; undefined: none. */
export function lastKnownOffset(state: PartitionState): number | undefined {
  return state.pending.at(-1)?.last ?? state.settled;
}
