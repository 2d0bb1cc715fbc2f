/**
 * Where a partition begins: what the group committed, or an end of the log. Questions to brokers, no state.
 * Imports: errors, kafka/group.
 */
import { IngestError } from '../../errors.js';
import { nameOf, type TopicPartition } from '../group/assignor.js';
import type { KafkajsBroker } from './broker.js';
import { overLane } from './lanes.js';
import { withErrors, type PartitionErrors } from './partition-errors.js';
import { knownLeader } from './metadata.js';
import type { KafkaConnection } from './kafka-connection.js';

export const EARLIEST = '-2';
export const LATEST = '-1';

const READ_UNCOMMITTED = 0;
const READ_COMMITTED = 1;

export interface Committed extends TopicPartition {
  /** Undefined: the group never committed, or long ago. */
  readonly next: number | undefined;
  readonly metadata: string;
}

/** @throws what befell the whole request, or else one of the partitions. */
export async function committedOffsets(
  coordinator: KafkajsBroker,
  groupId: string,
  partitions: readonly TopicPartition[],
): Promise<Committed[]> {
  const { committed, errors } = await committedOffsetsEach(coordinator, groupId, partitions);
  for (const error of errors.values()) throw error;
  return committed;
}

/** The error of a partition stands under its name; `committed` lacks it. */
export async function committedOffsetsEach(
  coordinator: KafkajsBroker,
  groupId: string,
  partitions: readonly TopicPartition[],
): Promise<{ readonly committed: Committed[]; readonly errors: PartitionErrors }> {
  const topics = byTopic(partitions).map(({ topic, partitions: list }) => ({
    topic,
    partitions: list.map((partition) => ({ partition })),
  }));
  const { answer, errors } = await withErrors(coordinator, (broker) => broker.offsetFetch({ groupId, topics }));
  const committed = answer.responses.flatMap(({ topic, partitions: list }) =>
    list
      .filter(({ partition }) => !errors.has(nameOf({ topic, partition })))
      .map(({ partition, offset, metadata }) => {
        const next = exactOffset(offset, { topic, partition });
        return { topic, partition, next: next < 0 ? undefined : next, metadata: metadata ?? '' };
      }),
  );
  return { committed, errors };
}

export interface ListOffsets {
  /** `EARLIEST`, `LATEST`, or milliseconds since the epoch. */
  readonly timestamp: string;
  /** The latest offset is the one a reader of this isolation gets to, or the log's end. */
  readonly isolation: 'read_committed' | 'read_uncommitted';
}

export interface ListedOffsets {
  /** By name of the partition. */
  readonly offsets: ReadonlyMap<string, number>;
  /** By name: no leader, or one that could not be asked. */
  readonly errors: PartitionErrors;
}

/** Asks each partition's leader. The metadata must be loaded. @throws when any of them cannot be told. */
export async function listOffsets(
  kafka: Pick<KafkaConnection, 'cluster'>,
  partitions: readonly TopicPartition[],
  ask: ListOffsets,
): Promise<(TopicPartition & { readonly offset: number })[]> {
  const { offsets, errors } = await listOffsetsEach(kafka, partitions, ask);
  for (const error of errors.values()) throw error;
  return partitions.flatMap(({ topic, partition }) => {
    const offset = offsets.get(nameOf({ topic, partition }));
    return offset === undefined ? [] : [{ topic, partition, offset }];
  });
}

/** A partition that cannot be told does not keep the others from being told. */
export async function listOffsetsEach(
  { cluster }: Pick<KafkaConnection, 'cluster'>,
  partitions: readonly TopicPartition[],
  ask: ListOffsets,
): Promise<ListedOffsets> {
  const byLeader = new Map<number, TopicPartition[]>();
  const errors = new Map<string, unknown>();
  for (const { topic, partition } of partitions) {
    const leader = knownLeader(cluster, topic, partition);
    if (leader === undefined)
      errors.set(
        nameOf({ topic, partition }),
        new IngestError('KCR_KAFKA_UNREACHABLE', 'No broker leads the partition', { topic, partition }),
      );
    else entryOf(byLeader, leader).push({ topic, partition });
  }
  const answers = await Promise.all(
    [...byLeader].map(([nodeId, led]) =>
      listFrom(cluster, nodeId, led, ask).catch((error: unknown) => failedAll(led, error)),
    ),
  );
  for (const answer of answers) for (const [name, error] of answer.errors) errors.set(name, error);
  return { offsets: new Map(answers.flatMap(({ offsets }) => [...offsets])), errors };
}

async function listFrom(
  cluster: KafkaConnection['cluster'],
  nodeId: number,
  led: readonly TopicPartition[],
  { timestamp, isolation }: ListOffsets,
): Promise<ListedOffsets> {
  const broker = overLane(await cluster.findBroker({ nodeId }), 'offsets');
  const topics = byTopic(led).map(({ topic, partitions: list }) => ({
    topic,
    partitions: list.map((partition) => ({ partition, timestamp })),
  }));
  const isolationLevel = isolation === 'read_committed' ? READ_COMMITTED : READ_UNCOMMITTED;
  const { answer, errors } = await withErrors(broker, (view) => view.listOffsets({ isolationLevel, topics }));
  const offsets = answer.responses.flatMap(({ topic, partitions: list }) =>
    list
      .filter(({ partition }) => !errors.has(nameOf({ topic, partition })))
      .map(
        ({ partition, offset }) => [nameOf({ topic, partition }), exactOffset(offset, { topic, partition })] as const,
      ),
  );
  return { offsets: new Map(offsets), errors };
}

function failedAll(partitions: readonly TopicPartition[], error: unknown): ListedOffsets {
  return { offsets: new Map(), errors: new Map(partitions.map((each) => [nameOf(each), error])) };
}

function exactOffset(offset: string, { topic, partition }: TopicPartition): number {
  const exact = Number(offset);
  if (Number.isSafeInteger(exact)) return exact;
  throw new IngestError('KCR_OFFSET_RANGE', `Offset ${offset} is larger than a number can hold exactly`, {
    topic,
    partition,
  });
}

export function byTopic(partitions: readonly TopicPartition[]): { topic: string; partitions: number[] }[] {
  const topics = new Map<string, number[]>();
  for (const { topic, partition } of partitions) entryOf(topics, topic).push(partition);
  return [...topics].map(([topic, list]) => ({ topic, partitions: list }));
}

/** The list under a key, made when it is not there yet. */
export function entryOf<Key, Item>(lists: Map<Key, Item[]>, key: Key): Item[] {
  const list = lists.get(key) ?? [];
  lists.set(key, list);
  return list;
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
    ? `Offset ${wanted} is gone: the log begins at ${logStart} and ends at ${logEnd}; ${logStart - wanted} ` +
      'offsets were deleted before they were read'
    : `Offset ${wanted} is beyond the log, which begins at ${logStart} and ends at ${logEnd}: the topic was ` +
      'recreated or truncated';
  const hint = gone
    ? 'raise retention.ms or retention.bytes of the topic; to go on without what is lost, set onGap to "continue"'
    : "find out what became of the topic; to read it again, let onOutOfRange give an offset, or reset the group's offsets";
  return new IngestError('KCR_OFFSET_RANGE', message, { topic, partition, offset: wanted, hint });
}
