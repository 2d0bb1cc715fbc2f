/**
 * May this user commit for the group? Asked without being a member, and without a commit.
 * Imports: errors, kafka, kafka/connection.
 */
import { IngestError } from '../../errors.js';
import { Membership } from './membership.js';
import { type KafkaSourceOptions, sourceSettings } from '../options.js';
import { kafkaError, kafkaType, classifyError } from '../connection/classify-error.js';
import { openConnection } from '../connection/kafka-connection.js';

/**
 * As a member that no group has, for a partition that no topic has: refused, and what for tells whether this user may
 * commit. Kafka looks at rights first, then whether it knows the partition, then at the group.
 */
const nobody = { memberId: 'preflight', groupGenerationId: 0x7fffffff };
const nowhere = { partition: 0x7fffffff, offset: '0', metadata: null };

/** Waits for the coordinator, which a cluster's first group does not have yet, or which loads. */
export async function mayCommit(options: KafkaSourceOptions, limitMs: number): Promise<void> {
  const { topics } = options;
  const settings = sourceSettings(options);
  const kafka = openConnection(settings);
  const membership = new Membership(kafka, settings);
  const endMs = performance.now() + limitMs;
  const isRefused = async (topic: string): Promise<boolean> => {
    try {
      await membership.ask((coordinator) =>
        coordinator.offsetCommit({ ...nobody, groupId: settings.groupId, topics: [{ topic, partitions: [nowhere] }] }),
      );
    } catch (thrown) {
      if (classifyError(thrown) === 'fenced' || kafkaType(thrown) === 'UNKNOWN_TOPIC_OR_PARTITION') return true;
      // A coordinator that was just made is not there yet.
      if (classifyError(thrown) !== 'fatal' && performance.now() < endMs) return false;
      const { detail, fields } = kafkaError(thrown, `Committing offsets of the topic ${topic}`);
      throw new IngestError('KCR_KAFKA', detail, {
        hint: fields.hint ?? 'no broker coordinates the group yet: look at the brokers',
        cause: thrown,
      });
    }
    throw new IngestError(
      'KCR_PREFLIGHT',
      `The brokers took a commit of a member that the group ${settings.groupId} does not have: generations are no ` +
        'fence there',
      {
        hint: 'this is not how Kafka behaves; use the store "keeper" or "keeper-map"',
      },
    );
  };
  try {
    await kafka.cluster.connect();
    // One at a time: kafkajs tells of the first refusal only.
    for (const topic of topics)
      while (!(await isRefused(topic))) await new Promise((resolve) => setTimeout(resolve, 200));
  } finally {
    await kafka.cluster.disconnect().catch(() => undefined);
    kafka.end();
  }
}
