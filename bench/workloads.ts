/**
 * What is ingested: a table, a topic and its records, for each workload.
 */
import { Partitioners, type Message } from 'kafkajs';
import { command, createTopic, kafkaClient } from '../test/stack/clients.js';
import type { Stack } from '../test/stack/stack.js';
import { eventColumns } from '../test/support/event-producer.js';
import { loadSource, produceFlights } from '../examples/demo/flights.js';

export interface Workload {
  readonly name: 'flights' | 'event244' | 'event1k';
  readonly columns: string;
  readonly rows: number;
  readonly partitions: number;
}

export const workloads: Readonly<Record<Workload['name'], Omit<Workload, 'rows' | 'partitions'>>> = {
  flights: {
    name: 'flights',
    columns: 'date DateTime64(3), delay Int16, distance Int16, origin String, destination String',
  },
  event244: { name: 'event244', columns: eventColumns },
  event1k: { name: 'event1k', columns: `${eventColumns}, body String` },
};

/** A JSON event of 244 bytes, or of 1,024. */
export function event(id: number, name: Workload['name']): string {
  const kind = ['view', 'click', 'order', 'login'][id % 4]!;
  const fixed = {
    id,
    at: 1_795_000_000_000 + id,
    user: (id * 2654435761) % 1_000_003,
    kind,
    url: `https://shop.example/items/${id % 9973}?ref=mail`,
    agent: 'Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101',
    amount: (id % 10_000) / 100,
  };
  const size = name === 'event1k' ? 1024 : 244;
  const short = JSON.stringify(name === 'event1k' ? { ...fixed, body: '' } : fixed);
  const pad = 'x'.repeat(Math.max(0, size - short.length));
  return JSON.stringify(name === 'event1k' ? { ...fixed, body: pad } : { ...fixed, url: fixed.url + pad });
}

/** The first values of a workload, whose name the topic's begins with. */
export async function values(clickhouseUrl: string, topic: string, count: number): Promise<readonly string[]> {
  const name = workloadOf(topic);
  if (name !== 'flights') return Array.from({ length: count }, (_, id) => event(id, name));
  const lines = await command(
    clickhouseUrl,
    `SELECT * EXCEPT n FROM flights_source ORDER BY n LIMIT ${count} FORMAT JSONEachRow`,
  );
  return lines.trimEnd().split('\n');
}

function workloadOf(topic: string): Workload['name'] {
  const name = topic.split('_')[0] as Workload['name'];
  if (name in workloads) return name;
  throw new Error(`the topic ${topic} is of no workload`);
}

/** Makes the topic and fills it. Resolves to the bytes of all values. */
export async function produceWorkload(
  stack: Stack,
  topic: string,
  { name, rows, partitions }: Workload,
): Promise<number> {
  await createTopic(stack.brokers, topic, { partitions });
  if (name === 'flights') {
    await command(stack.clickhouseUrl, 'DROP TABLE IF EXISTS flights_source');
    await loadSource(stack.clickhouseUrl, rows, 'flights_source');
    const producedBytes = { total: 0 };
    await produceFlights(stack, 'flights_source', topic, () => undefined);
    const answer = await command(
      stack.clickhouseUrl,
      "SELECT sum(length(formatRowNoNewline('JSONEachRow', date, delay, distance, origin, destination))) FROM flights_source",
    );
    producedBytes.total = Number(answer);
    return producedBytes.total;
  }
  const producer = kafkaClient(stack.brokers).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  let bytes = 0;
  const perSend = name === 'event1k' ? 800 : 3000;
  for (let first = 0; first < rows; first += perSend) {
    const messages: Message[] = [];
    for (let id = first; id < Math.min(rows, first + perSend); id++) {
      const value = event(id, name);
      bytes += value.length;
      messages.push({ value, partition: Math.floor(id / 500) % partitions });
    }
    await producer.send({ topic, messages, acks: -1 });
  }
  await producer.disconnect();
  return bytes;
}
