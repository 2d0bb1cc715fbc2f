// Sends records so that each is in the topic once, also when the broker is slow and the producer tries again.
import { CompressionTypes, Partitioners, type Message } from 'kafkajs';
import { kafkaClient, produce, type ProduceOptions } from '../stack/clients.js';

export async function send(
  brokers: readonly string[],
  topic: string,
  messages: readonly (Message | string)[],
  options: ProduceOptions = {},
): Promise<void> {
  if (options.transactional !== undefined) return produce(brokers, topic, messages, options);
  const producer = kafkaClient(brokers).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  try {
    await producer.send({
      topic,
      messages: messages.map((message) => (typeof message === 'string' ? { value: message } : message)),
      compression: options.compression ?? CompressionTypes.None,
    });
  } finally {
    await producer.disconnect();
  }
}
