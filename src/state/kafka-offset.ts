/**
 * What lies in the offsets of a consumer group: an offset, and beside it the text of a state or none.
 * Imports: errors, model, ports, rxjs.
 */
import type { ObservableInput } from 'rxjs';
import { IngestError, hasCode } from '../errors.js';
import type { Assignment } from '../model/record.js';
import { chosenOffset, decodeState, neverStored, stateName, type StoredState } from '../model/state-codec.js';
import { resumeOffset, type PartitionState } from '../model/state.js';
import type { GroupSource, StateKey } from '../ports.js';

/** What the group has committed for one partition. */
export interface CommittedOffset {
  /** Undefined: nothing. */
  readonly next: number | undefined;
  readonly metadata: string;
}

/** A source that commits with metadata, under the generation of an assignment. `kafkaSource` is one. */
export interface OffsetSource extends GroupSource {
  /** The assignment in which this process has the partition; it may be revoked and not yet released. */
  assignmentOf(topic: string, partition: number): Assignment | undefined;
  /** Read after the join. Errors: `KCR_KAFKA_UNREACHABLE` (retryable). */
  committed(assignment: Assignment): ObservableInput<CommittedOffset>;
  /**
   * One attempt. Errors: `KCR_FENCED` when the generation is over, or when the outcome is not known, in which case the
   * member joins again; `KCR_KAFKA_UNREACHABLE` (retryable) when it cannot take effect behind anything that is
   * committed from now on; `KCR_STORE`, `KCR_KAFKA` when it was refused.
   */
  commitOnce(assignment: Assignment, nextOffset: number, metadata?: string): ObservableInput<void>;
}

const hintForeign =
  'give this pipeline a group of its own (kafka.groupId); or, if what stands there is not needed, stop all ' +
  'members of the group and reset its ' +
  'offsets with kafka-consumer-groups.sh --reset-offsets, which takes the metadata away: the partition then ' +
  'begins at that offset, with nothing in doubt';

/**
 * What the group's committed offset and its metadata say of a partition. Errors with `KCR_STATE_INVALID` where the
 * metadata is not a state, or one that speaks of another offset.
 */
export function stateFromOffset(next: number | undefined, metadata: string, key: StateKey, nowMs: number): StoredState {
  if (isNoState(metadata)) {
    if (next === undefined) return neverStored;
    return {
      state: { settled: next - 1, pending: [], incarnation: Math.floor(nowMs / 1000), topicId: undefined },
      owner: '',
      write: '',
    };
  }
  const stored = decoded(metadata, key);
  const resume = resumeOffset(stored.state);
  if (resume === undefined || resume === next) return stored;
  throw new IngestError(
    'KCR_STATE_INVALID',
    `The group's committed offset is ${next}, but the state beside it goes on at ${resume} [${stateName(key)}]`,
    {
      topic: key.topic,
      partition: key.partition,
      hint: hintForeign,
    },
  );
}

/** Nothing stands beside the offset, or only that a source chose it as where to begin. */
export const isNoState = (metadata: string): boolean => metadata === '' || metadata === chosenOffset;

/** What is committed with a state; `stood` where it does not say what comes next. */
export function offsetOf(state: PartitionState, stood: number): number {
  return resumeOffset(state) ?? stood;
}

function decoded(metadata: string, key: StateKey): StoredState {
  try {
    return decodeState(metadata, key);
  } catch (thrown) {
    if (!hasCode(thrown, 'KCR_STATE_INVALID') || thrown.fields.hint !== undefined) throw thrown;
    const { topic, partition } = key;
    throw new IngestError(
      'KCR_STATE_INVALID',
      `The metadata beside the group's committed offset is not a state of this program. ${thrown.reason}`,
      {
        topic,
        partition,
        hint: hintForeign,
        cause: thrown,
      },
    );
  }
}
