/**
 * Room: what a join gives, and what is pinned to it. Values; no calls.
 */
import { IngestError } from '../../errors.js';
import type { TopicPartition } from './assignor.js';
import { kafkaType } from '../connection/classify-error.js';

/** What a join gave: commits are pinned to it. */
export interface Session {
  readonly memberId: string;
  readonly generation: number;
  /** This member deals out the partitions, so it watches for new ones. */
  readonly leader: boolean;
  readonly partitions: readonly TopicPartition[];
  /**
   * Topics of which the group had committed some partitions and not others when this generation was dealt: those others
   * were added since. Undefined: who dealt did not look.
   */
  readonly grown?: ReadonlySet<string> | undefined;
  /** Of the leader: how many partitions of each topic it dealt out, topics of other members included. */
  readonly dealt?: ReadonlyMap<string, number> | undefined;
}

export interface CommitRequest extends TopicPartition {
  readonly next: number;
  /** Kept by Kafka beside the offset, at most 4096 UTF-16 units. Each commit replaces it. */
  readonly metadata: string | null;
}

/** A commit of which nobody knows whether it took, or will take, effect. */
export class UnknownOutcome extends Error {
  override readonly name = 'UnknownOutcome';
}

export function fenced(topic: string, partition: number, next: number, cause: unknown): IngestError {
  return new IngestError('KCR_FENCED', `Offset ${next} was not committed: the partition is not ours any more`, {
    topic,
    partition,
    serverCode: kafkaType(cause),
    cause,
  });
}
