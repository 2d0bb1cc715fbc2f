/**
 * The metadata of topics, asked in the version that tells Kafka's topic ids, and taken topic by topic: kafkajs's
 * own answer has no ids, and one topic that is gone, or one partition without a leader, makes it fail for all of them.
 * Imports: errors.
 */
import { IngestError } from '../../errors.js';
import { AnswerReader, FlexibleWriter, type EncodedRequest } from './protocol.js';
import {
  changeBrokers,
  maxVersion,
  through,
  type PartitionMetadata,
  type KafkajsBrokerPool,
  type KafkajsCluster,
  type KafkajsRequest,
} from './broker.js';

const METADATA_API = 3;
/** The first with topic ids: Kafka 2.8. */
const ID_VERSION = 10;
const UNKNOWN_TOPIC = 3;
const TOPIC_ERRORS: Readonly<Record<number, string>> = {
  3: 'UNKNOWN_TOPIC_OR_PARTITION',
  5: 'LEADER_NOT_AVAILABLE',
  17: 'INVALID_TOPIC_EXCEPTION',
  29: 'TOPIC_AUTHORIZATION_FAILED',
};

/** As kafkajs keeps it, with the id. */
export interface TopicMetadata {
  readonly topicErrorCode: number;
  readonly topic: string;
  /** Undefined: the brokers give none. */
  readonly topicId: string | undefined;
  readonly partitionMetadata: readonly PartitionMetadata[];
}

export interface ClusterMetadata {
  readonly brokers: readonly {
    readonly nodeId: number;
    readonly host: string;
    readonly port: number;
    readonly rack: string | null;
  }[];
  readonly clusterId: string;
  readonly controllerId: number;
  readonly topicMetadata: readonly TopicMetadata[];
}

/** Every broker that the cluster makes from now on is asked for metadata in our way. */
export function hookMetadata(pool: KafkajsBrokerPool): void {
  changeBrokers(pool, (broker) => {
    const plain = broker.metadata;
    broker.metadata = async (topics) => {
      const newest = await maxVersion(broker, METADATA_API);
      return plain.call(
        through(broker, (connections, kafka) => connections.send(inOurWay(kafka, topics, newest))),
        topics,
      );
    };
  });
}

function inOurWay(kafka: KafkajsRequest, topics: readonly string[] | undefined, newest: number): KafkajsRequest {
  if (kafka.request.apiKey !== METADATA_API) return kafka;
  if (newest < ID_VERSION)
    return {
      ...kafka,
      response: {
        decode: (payload) => kafka.response.decode(payload),
        parse: async (decoded) => tolerant(decoded as ClusterMetadata),
      },
    };
  const request = {
    apiKey: METADATA_API,
    apiVersion: ID_VERSION,
    apiName: 'Metadata',
    encode: async () => encodeMetadataRequest(topics),
  };
  return {
    ...kafka,
    request,
    response: {
      decode: async (payload) => decodeMetadata(payload),
      parse: async (decoded) => tolerant(decoded as ClusterMetadata),
    },
  };
}

/** Errors stay where they are: with their topic, or as a partition that nobody leads. */
function tolerant(metadata: ClusterMetadata): ClusterMetadata {
  const topicMetadata = metadata.topicMetadata.map((topic) => ({
    ...topic,
    topicId: topic.topicErrorCode === 0 ? topic.topicId : undefined,
    partitionMetadata: topic.topicErrorCode === 0 ? topic.partitionMetadata : [],
  }));
  return { ...metadata, topicMetadata };
}

/** https://kafka.apache.org/protocol#The_Messages_Metadata, version 10. */
export function encodeMetadataRequest(topics: readonly string[] | undefined): EncodedRequest {
  const writer = new FlexibleWriter();
  if (topics === undefined)
    writer.uvarint(0); // null: all topics
  else writer.array(topics, (topic) => writer.id(undefined).string(topic).tags());
  return writer
    .bool(false) // no topic is created by asking
    .bool(false)
    .bool(false) // nor is anybody's authorization asked for
    .tags()
    .encoded();
}

export function decodeMetadata(payload: Buffer): ClusterMetadata {
  const reader = new AnswerReader(payload, true);
  reader.int32(); // throttle time
  const brokers = reader.array(() => {
    const broker = {
      nodeId: reader.int32(),
      host: reader.string(),
      port: reader.int32(),
      rack: reader.string() || null,
    };
    reader.tags();
    return broker;
  });
  const [clusterId, controllerId] = [reader.string(), reader.int32()];
  const topicMetadata = reader.array(() => {
    const [topicErrorCode, topic, topicId] = [reader.int16(), reader.string(), reader.id()];
    reader.int8(); // internal
    const partitionMetadata = reader.array(() => decodePartition(reader));
    reader.int32(); // authorized operations
    reader.tags();
    return { topicErrorCode, topic, topicId, partitionMetadata };
  });
  reader.int32(); // authorized operations
  reader.tags();
  reader.end();
  return { brokers, clusterId, controllerId, topicMetadata };
}

function decodePartition(reader: AnswerReader): PartitionMetadata {
  const [partitionErrorCode, partitionId, leader] = [reader.int16(), reader.int32(), reader.int32()];
  reader.int32(); // leader epoch
  for (let lists = 3; lists > 0; lists--) reader.array(() => reader.int32()); // replicas: all, in sync, offline
  reader.tags();
  return { partitionErrorCode, partitionId, leader };
}

/** The names of all topics that this user may see. The cluster must be connected. */
export async function topicNames({ brokerPool }: Told): Promise<readonly string[]> {
  const broker = Object.values(brokerPool.brokers ?? {}).find((one) => one.isConnected());
  const told = (await broker?.metadata(undefined)) as Pick<ClusterMetadata, 'topicMetadata'> | undefined;
  return told?.topicMetadata.map(({ topic }) => topic) ?? [];
}

type Told = Pick<KafkajsCluster, 'brokerPool'>;

interface IndexedTopic {
  readonly metadata: TopicMetadata;
  /** By id; made when the first partition of the topic is asked for. */
  partitions: ReadonlyMap<number, PartitionMetadata> | undefined;
}

/**
 * One index for each answer of a broker: a search through all topics for every partition takes minutes with thousands.
 */
const indexes = new WeakMap<object, ReadonlyMap<string, IndexedTopic>>();

function indexed({ brokerPool }: Told, topic: string): IndexedTopic | undefined {
  const told = brokerPool.metadata?.topicMetadata as readonly TopicMetadata[] | undefined;
  if (told === undefined) return undefined;
  let index = indexes.get(told);
  if (index === undefined) {
    index = new Map(told.map((metadata) => [metadata.topic, { metadata, partitions: undefined }]));
    indexes.set(told, index);
  }
  return index.get(topic);
}

/** What the last refresh told of a topic. */
export function knownTopic(cluster: Told, topic: string): TopicMetadata | undefined {
  return indexed(cluster, topic)?.metadata;
}

/** What the last refresh told of a partition. */
function knownPartition(cluster: Told, topic: string, partition: number): PartitionMetadata | undefined {
  const found = indexed(cluster, topic);
  if (found === undefined) return undefined;
  found.partitions ??= new Map(found.metadata.partitionMetadata.map((each) => [each.partitionId, each]));
  return found.partitions.get(partition);
}

/** The broker that leads a partition, as the last refresh told it; undefined: none. */
export function knownLeader(cluster: Told, topic: string, partition: number): number | undefined {
  const leader = knownPartition(cluster, topic, partition)?.leader;
  return leader === undefined || leader < 0 ? undefined : leader;
}

/** Kafka's id of the topic, as the last refresh told it. */
export function knownTopicId(cluster: Told, topic: string): string | undefined {
  return knownTopic(cluster, topic)?.topicId;
}

/** By topic, then by partition, as the last refresh told it. */
export function partitionsOf(
  cluster: Told,
  topics: readonly string[],
): { readonly topic: string; readonly partition: number }[] {
  return topics.flatMap((topic) =>
    (knownTopic(cluster, topic)?.partitionMetadata ?? [])
      .map(({ partitionId }) => ({ topic, partition: partitionId }))
      .sort((a, b) => a.partition - b.partition),
  );
}

/** Does the topic not exist, as far as the last refresh told? */
export function isGone(cluster: Told, topic: string): boolean {
  return knownTopic(cluster, topic)?.topicErrorCode === UNKNOWN_TOPIC;
}

/** Kafka's name for what is wrong with the topic, as the last refresh told it; undefined: nothing. */
export function topicTrouble(cluster: Told, topic: string): string | undefined {
  const code = knownTopic(cluster, topic)?.topicErrorCode ?? 0;
  return code === 0 ? undefined : (TOPIC_ERRORS[code] ?? `error ${code}`);
}

/** Kafka's name for why nobody is known to lead a partition, as the last refresh told it. */
export function partitionTrouble(cluster: Told, topic: string, partition: number): string {
  const known = knownTopic(cluster, topic)?.partitionMetadata.length ?? 0;
  if (known > 0 && knownPartition(cluster, topic, partition) === undefined) return 'UNKNOWN_TOPIC_OR_PARTITION';
  return topicTrouble(cluster, topic) ?? 'LEADER_NOT_AVAILABLE';
}

/** The partitions of the topics that nobody leads, as `topic/partition`, as the last refresh told it. */
export function leaderless(cluster: Told, topics: readonly string[]): readonly string[] {
  return topics.flatMap((topic) =>
    (knownTopic(cluster, topic)?.partitionMetadata ?? [])
      .filter(({ leader }) => leader < 0)
      .map(({ partitionId }) => `${topic}/${partitionId}`),
  );
}

/** What kafkajs does by itself when its metadata is not taken topic by topic. Throws as it would. */
export function demandTopics(cluster: Told, topics: readonly string[]): void {
  checkHooked(cluster);
  for (const topic of topics) {
    const type = topicTrouble(cluster, topic);
    if (type !== undefined) throw Object.assign(new Error(`${type}: topic ${topic}`), { type });
  }
}

/** @throws `KCR_KAFKAJS_HOOKS`: kafkajs asked for metadata in its own way. */
function checkHooked(cluster: Told): void {
  const [first] = cluster.brokerPool.metadata?.topicMetadata ?? [];
  if (first === undefined || 'topicId' in first) return;
  throw new IngestError('KCR_KAFKAJS_HOOKS', "kafkajs's metadata did not pass through the hook", {
    hint: 'install kafkajs 2.2.4 unchanged',
  });
}
