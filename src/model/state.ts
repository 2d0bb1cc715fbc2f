/**
 * Room: the state of a partition, as the state stores keep it. Pure data and pure functions, imports the model only.
 * No clock, no store may enter.
 */

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
  /** Offsets that are not part of the batch (poison), ascending. They change the token. */
  readonly excluded: readonly number[];
  /** The dedup token under which another program has inserted the range; it is sent as it stands. */
  readonly token?: string;
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
   * The partition was begun anew: the table may have other rows under the same offsets, so that it cannot be asked
   * which of a range are there.
   */
  readonly isAnew?: true;
}

export const emptyState: PartitionState = Object.freeze({ settled: undefined, pending: Object.freeze([]), incarnation: 0, topicId: undefined });

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
