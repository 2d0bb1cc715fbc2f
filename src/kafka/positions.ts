/**
 * Room: where a partition begins: what the group committed, or an end of the log. Questions to brokers, no state.
 */
import { IngestError } from '../errors.js';
import type { TopicPartition } from './assignor.js';
import type { PartitionError, TopicPartitions, WireBroker } from './broker.js';
import { isTimeout } from './trouble.js';
import type { Wire } from './wire.js';

export const EARLIEST = '-2';
export const LATEST = '-1';

const READ_UNCOMMITTED = 0;
const READ_COMMITTED = 1;

export interface Committed extends TopicPartition {
  /** Undefined: the group never committed, or long ago. */
  readonly next: number | undefined;
  readonly metadata: string;
}

export async function committedOffsets(coordinator: WireBroker, groupId: string, partitions: readonly TopicPartition[]): Promise<Committed[]> {
  const topics = byTopic(partitions).map(({ topic, partitions: list }) => ({ topic, partitions: list.map((partition) => ({ partition })) }));
  const { responses } = await coordinator.offsetFetch({ groupId, topics });
  return responses.flatMap(({ topic, partitions: list }) =>
    list.map(({ partition, offset, metadata }) => {
      const next = exactOffset(offset, { topic, partition });
      return { topic, partition, next: next < 0 ? undefined : next, metadata: metadata ?? '' };
    }),
  );
}

export interface ListOffsets {
  /** `EARLIEST`, `LATEST`, or milliseconds since the epoch. */
  readonly timestamp: string;
  /** The latest offset is the one a reader of this isolation gets to, or the log's end. */
  readonly isolation: 'read_committed' | 'read_uncommitted';
}

/** Asks each partition's leader. The metadata must be loaded. */
export async function listOffsets(
  { cluster, cut }: Wire,
  partitions: readonly TopicPartition[],
  { timestamp, isolation }: ListOffsets,
): Promise<(TopicPartition & { readonly offset: number })[]> {
  const byLeader = new Map<number, TopicPartition[]>();
  for (const each of partitions) {
    const leader = leaderOf(cluster.findTopicPartitionMetadata(each.topic), each);
    byLeader.set(leader, [...(byLeader.get(leader) ?? []), each]);
  }
  const answers = await Promise.all(
    [...byLeader].map(async ([nodeId, led]) => {
      const broker = await cluster.findBroker({ nodeId });
      const topics = byTopic(led).map(({ topic, partitions: list }) => ({ topic, partitions: list.map((partition) => ({ partition, timestamp })) }));
      const isolationLevel = isolation === 'read_committed' ? READ_COMMITTED : READ_UNCOMMITTED;
      try {
        return (await broker.listOffsets({ isolationLevel, topics })).responses;
      } catch (thrown) {
        if (isTimeout(thrown)) cut(broker.connectionPool);
        throw thrown;
      }
    }),
  );
  return answers.flat().flatMap(flatten);
}

function flatten({ topic, partitions }: TopicPartitions<PartitionError & { offset: string }>): (TopicPartition & { offset: number })[] {
  return partitions.map(({ partition, offset }) => ({ topic, partition, offset: exactOffset(offset, { topic, partition }) }));
}

function leaderOf(metadata: readonly { partitionId: number; leader: number }[], { topic, partition }: TopicPartition): number {
  const leader = metadata.find(({ partitionId }) => partitionId === partition)?.leader;
  if (leader !== undefined && leader >= 0) return leader;
  throw new IngestError('KCR_KAFKA_UNREACHABLE', 'No broker leads the partition', { topic, partition });
}

export function exactOffset(offset: string, { topic, partition }: TopicPartition): number {
  const exact = Number(offset);
  if (Number.isSafeInteger(exact)) return exact;
  throw new IngestError('KCR_OFFSET_RANGE', `Offset ${offset} is larger than a number can hold exactly`, { topic, partition });
}

export function byTopic(partitions: readonly TopicPartition[]): { topic: string; partitions: number[] }[] {
  const topics = new Map<string, number[]>();
  for (const { topic, partition } of partitions) {
    const list = topics.get(topic);
    if (list === undefined) topics.set(topic, [partition]);
    else list.push(partition);
  }
  return [...topics].map(([topic, list]) => ({ topic, partitions: list }));
}

/** An offset that the log does not hold. */
export interface Beyond {
  readonly topic: string;
  readonly partition: number;
  readonly wanted: number;
  readonly logStart: number;
  readonly logEnd: number;
}

export function outOfRange(where: Beyond): IngestError {
  const { topic, partition, wanted, logStart, logEnd } = where;
  const gone = wanted < logStart;
  const message = gone
    ? `Offset ${wanted} is gone: the log begins at ${logStart} and ends at ${logEnd}; ${logStart - wanted} offsets were deleted before they were read`
    : `Offset ${wanted} is beyond the log, which begins at ${logStart} and ends at ${logEnd}: the topic was created anew or truncated`;
  const hint = gone
    ? 'raise retention.ms or retention.bytes of the topic; to go on without what is lost, set onGap to "continue"'
    : "find out what became of the topic; to read it anew, let onOutOfRange give an offset, or reset the group's offsets";
  return new IngestError('KCR_OFFSET_RANGE', message, { topic, partition, offset: wanted, hint });
}

