/**
 * What is asked of Kafka before the start: does it answer, does it let us in, are the topics there.
 * Imports: errors, kafka/connection, model, preflight.
 */
import { IngestError } from '../errors.js';
import { refusalFrom, type Finding } from '../preflight/finding.js';
import { withAdmin } from './admin.js';
import { nearNames } from '../model/near-names.js';
import { clientSettings, type KafkaClientOptions } from './options.js';
import type { KafkajsCluster } from './connection/broker.js';
import { isGone, topicNames } from './connection/metadata.js';

export { lagOf, type PartitionLag } from './admin.js';

export interface KafkaFacts {
  readonly clusterId: string;
  readonly topics: readonly { readonly topic: string; readonly partitions: number }[];
}

/**
 * @throws `KCR_KAFKA_UNREACHABLE` within about ten seconds, also for a partition without a leader; `KCR_TOPIC_MISSING`;
 * `KCR_PREFLIGHT` for a refused login; `KCR_KAFKA` for whatever else Kafka refuses.
 */
export async function checkKafka(
  options: KafkaClientOptions & { readonly topics: readonly string[] },
): Promise<KafkaFacts> {
  const { brokers, topics } = options;
  return withAdmin(clientSettings(options), 'The check of Kafka', async (admin, cluster) => {
    const { clusterId } = await admin.describeCluster();
    await loadTopics(cluster, topics, brokers);
    return {
      clusterId,
      topics: topics.map((topic) => ({ topic, partitions: cluster.findTopicPartitionMetadata(topic).length })),
    };
  });
}

export interface KafkaFindings {
  readonly findings: readonly Finding[];
  /** Of all topics together: so many may have ranges in doubt in one table at once. Undefined: Kafka did not tell. */
  readonly partitions: number | undefined;
}

/** The same as `checkKafka`, for people. */
export async function kafkaFindings(options: Parameters<typeof checkKafka>[0]): Promise<KafkaFindings> {
  try {
    const { clusterId, topics } = await checkKafka(options);
    const findings: Finding[] = [
      { level: 'ok', what: 'Kafka', detail: `cluster ${clusterId} at ${options.brokers.join(', ')}` },
      ...topics.map(({ topic, partitions }): Finding => ({
        level: 'ok',
        what: `topic ${topic}`,
        detail: `${partitions} partitions`,
      })),
    ];
    return { findings, partitions: topics.reduce((sum, { partitions }) => sum + partitions, 0) };
  } catch (thrown) {
    return { findings: [refusalFrom('Kafka', thrown)], partitions: undefined };
  }
}

/** The metadata of the topics is there then. @throws `KCR_TOPIC_MISSING`, with the names that are near. */
export async function loadTopics(
  cluster: KafkajsCluster,
  topics: readonly string[],
  brokers: readonly string[],
): Promise<void> {
  try {
    await cluster.addMultipleTargetTopics(topics);
  } catch (thrown) {
    const missing = topics.filter((topic) => isGone(cluster, topic));
    if (missing.length === 0) throw thrown;
    throw topicMissing(missing, brokers, await topicNames(cluster).catch(() => []));
  }
}

/** `existing`: where the topics of the cluster are known, the names near to the missing ones are suggested. */
export function topicMissing(
  topics: readonly string[],
  brokers: readonly string[],
  existing: readonly string[] = [],
): IngestError {
  const [first = ''] = topics;
  const message =
    topics.length === 1 ? `The topic ${first} does not exist` : `The topics ${topics.join(', ')} do not exist`;
  const near = [...new Set(topics.flatMap((topic) => nearNames(topic, existing)))];
  const meant = near.length === 0 ? '' : `did you mean ${near.join(', ')}? Otherwise `;
  const create =
    `kafka-topics.sh --bootstrap-server ${brokers[0]} --create --topic ${first} --partitions 4 ` +
    '--replication-factor 3';
  return new IngestError('KCR_TOPIC_MISSING', message, { topic: first, hint: `${meant}create it: ${create}` });
}
