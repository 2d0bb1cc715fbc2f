/**
 * Room: what is asked of Kafka before the start: does it answer, does it let us in, are the topics there.
 */
import { IngestError } from '../errors.js';
import { withAdmin } from './admin.js';
import { clientSettings, type KafkaClientOptions } from './options.js';
import { kafkaError, kafkaType, reasonOf, troubleOf } from './trouble.js';

export { lagOf, type PartitionLag } from './admin.js';

export interface KafkaFacts {
  readonly clusterId: string;
  readonly topics: readonly { readonly topic: string; readonly partitions: number }[];
}

/**
 * @throws `KCR_KAFKA_UNREACHABLE` within about ten seconds, `KCR_TOPIC_MISSING`, `KCR_PREFLIGHT` for a refused login,
 * `KCR_KAFKA` for whatever else Kafka refuses.
 */
export async function checkKafka(options: KafkaClientOptions & { readonly topics: readonly string[] }): Promise<KafkaFacts> {
  return withAdmin(clientSettings(options), 'The check of Kafka', async (admin) => {
    const { clusterId } = await admin.describeCluster();
    const existing = new Set(await admin.listTopics());
    const missing = options.topics.filter((topic) => !existing.has(topic));
    if (missing.length > 0) throw topicMissing(missing, options.brokers);
    const { topics } = await admin.fetchTopicMetadata({ topics: [...options.topics] }).catch((thrown: unknown) => {
      if (kafkaType(thrown) === 'UNKNOWN_TOPIC_OR_PARTITION') throw topicMissing(options.topics, options.brokers);
      if (troubleOf(thrown) === 'fatal') throw kafkaError(thrown, 'Looking at the topics');
      // A broker that has just been started, or an election: the same start may succeed later.
      throw new IngestError('KCR_KAFKA_UNREACHABLE', `Looking at the topics failed: ${reasonOf(thrown)}`, {
        serverCode: kafkaType(thrown), hint: 'the cluster is not ready: try again in a while', cause: thrown,
      });
    });
    const partitions = new Map(topics.map(({ name, partitions: list }) => [name, list.length]));
    return { clusterId, topics: options.topics.map((topic) => ({ topic, partitions: partitions.get(topic) ?? 0 })) };
  });
}

export function topicMissing(topics: readonly string[], brokers: readonly string[]): IngestError {
  const [first = ''] = topics;
  const message = topics.length === 1 ? `The topic ${first} does not exist` : `The topics ${topics.join(', ')} do not exist`;
  const hint = `create it: kafka-topics.sh --bootstrap-server ${brokers[0]} --create --topic ${first} --partitions 4 --replication-factor 3`;
  return new IngestError('KCR_TOPIC_MISSING', message, { topic: first, hint });
}
