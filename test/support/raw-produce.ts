// Produces record batches as they are given, which no client would send: whatever the broker takes is in its log.
import { sourceSettings } from '../../src/kafka/options.js';
import { openConnection } from '../../src/kafka/connection/kafka-connection.js';
import type { KafkajsRequest } from '../../src/kafka/connection/broker.js';

const PRODUCE_API = 0;
/** The first in which batches may be compressed with zstd. */
const VERSION = 7;

/** Resolves to Kafka's error code: 0 for a batch that is in the log now. */
export async function produceRaw(
  brokers: readonly string[],
  topic: string,
  batch: Buffer,
  partition = 0,
): Promise<number> {
  const wire = openConnection(sourceSettings({ brokers, groupId: 'raw', topics: [topic] }));
  try {
    await wire.cluster.connect();
    await wire.cluster.addMultipleTargetTopics([topic]);
    const leader =
      wire.cluster.findTopicPartitionMetadata(topic).find(({ partitionId }) => partitionId === partition)?.leader ?? -1;
    const broker = await wire.cluster.findBroker({ nodeId: leader });
    return (await broker.connectionPool.send(requestOf(topic, partition, batch))) as number;
  } finally {
    await wire.cluster.disconnect().catch(() => undefined);
    wire.end();
  }
}

function requestOf(topic: string, partition: number, batch: Buffer): KafkajsRequest {
  const name = Buffer.from(topic);
  const head = Buffer.alloc(2 + 2 + 4 + 4 + 2 + name.length + 4 + 4 + 4);
  let at = head.writeInt16BE(-1, 0); // no transaction
  at = head.writeInt16BE(-1, at); // all replicas
  at = head.writeInt32BE(10_000, at);
  at = head.writeInt32BE(1, at);
  at = head.writeInt16BE(name.length, at);
  at += name.copy(head, at);
  at = head.writeInt32BE(1, at);
  at = head.writeInt32BE(partition, at);
  head.writeInt32BE(batch.length, at);
  const bytes = Buffer.concat([head, batch]);
  return {
    request: {
      apiKey: PRODUCE_API,
      apiVersion: VERSION,
      apiName: 'Produce',
      encode: async () => ({ buf: bytes, buffer: bytes, size: () => bytes.length }),
    },
    // Topics, the name, partitions, the partition, then its error code.
    response: {
      decode: async (answer) => answer.readInt16BE(4 + 2 + name.length + 4 + 4),
      parse: async (code) => code,
    },
  };
}
