/**
 * What a fetch asks for. Values only. Imports: kafka/group.
 */
import type { TopicPartition } from '../group/assignor.js';

export interface FetchPartition extends TopicPartition {
  /** What it is fetched by, where the broker speaks it: a topic that was recreated answers under its own id only. */
  readonly topicId?: string | undefined;
  readonly offset: number;
  readonly maxBytes: number;
}

export interface FetchRequest {
  readonly maxWaitMs: number;
  readonly maxBytes: number;
  readonly isolation: 'read_committed' | 'read_uncommitted';
  readonly partitions: readonly FetchPartition[];
}
