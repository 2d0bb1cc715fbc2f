/**
 *
 * Imports: nothing.
 */
import { lastKnownOffset, resumeOffset, type PartitionState } from './state.js';

/** What Kafka says of the partition's log at the claim. */
export interface LogNow {
  /** Kafka's id of the topic; undefined: the brokers give none. */
  readonly topicId: string | undefined;
  /** The first offset the log holds. */
  readonly start: number;
  /** The offset the next record will get. */
  readonly end: number;
}

export type LogCheck =
  /** The state speaks of this log. It may have learnt the topic's id. */
  | { readonly kind: 'same'; readonly state: PartitionState }
  /** The topic was deleted and recreated under its name: none of the state's offsets mean anything in this log. */
  | { readonly kind: 'recreated'; readonly was: string; readonly restarted: PartitionState }
  /**
   * The log ends before what the state tells of: it was truncated, or recreated where topics have no id.
   * `restarted` is undefined when a range in doubt reaches into what is gone: only a person can tell what became of it.
   */
  | { readonly kind: 'truncated'; readonly known: number; readonly restarted: PartitionState | undefined };

/**
 * | stored | log | standing |
 * | --- | --- | --- |
 * | no topic id, nothing in doubt | any id | same, and the id is learnt |
 * | no topic id, ranges in doubt | any id | same; the id is learnt later, since tokens of recorded ranges must not change |
 * | a topic id | another id | recreated |
 * | a topic id | none | same: an older broker answered |
 * | reaches beyond `end` | | truncated |
 */
export function compareWithLog(state: PartitionState, log: LogNow): LogCheck {
  const { topicId } = state;
  if (topicId !== undefined && log.topicId !== undefined && topicId !== log.topicId) {
    return { kind: 'recreated', was: topicId, restarted: restartedAt(log.start, state, log.topicId) };
  }
  const known = lastKnownOffset(state);
  if (known !== undefined && known >= log.end) {
    // The settled offset may be where the next range begins; a range in doubt is one that was read.
    const isInDoubt = state.pending.length > 0;
    return {
      kind: 'truncated',
      known,
      restarted: isInDoubt ? undefined : restartedAt(log.end, state, log.topicId ?? topicId),
    };
  }
  const learns = topicId === undefined && log.topicId !== undefined && state.pending.length === 0;
  return { kind: 'same', state: learns ? { ...state, topicId: log.topicId } : state };
}

/**
 * Was the state set back? What is committed was settled before, so a committed offset beyond where the state goes on
 * tells of a newer state that is gone, or of another program that committed for the group. Not told of a partition that
 * was started again: what is committed may be of the log that is gone.
 */
export function isBehind(state: PartitionState, committed: number | undefined): boolean {
  const resume = resumeOffset(state);
  return committed !== undefined && resume !== undefined && state.isOffsetReused !== true && committed > resume;
}

/** Goes on at `offset` under tokens that were never used. */
export function restartedAt(offset: number, before: PartitionState, topicId: string | undefined): PartitionState {
  return { settled: offset - 1, pending: [], incarnation: before.incarnation + 1, topicId, isOffsetReused: true };
}
