/**
 * One commit of a partition's offset, and the two ways in which it ends that its caller must tell
 * apart. Values; no calls. Imports: errors, kafka/connection.
 */
import { IngestError } from '../../errors.js';
import type { TopicPartition } from './assignor.js';
import { kafkaType } from '../connection/classify-error.js';

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
