// Imports: the stack's clients. Topics with thousands of partitions, and a record in each; the filling runs in a process of
// its own, since a producer has pauses of its own.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Partitioners } from 'kafkajs';
import { kafkaClient, withAdmin } from '../test/stack/clients.js';

/** Partitions in one request: a controller takes 10,000 records at once. */
const AT_ONCE = 2000;
const READY_LIMIT_MS = 120_000;

export async function create(brokers: readonly string[], names: readonly string[], partitions: number): Promise<void> {
  await withAdmin(brokers, async (admin) => {
    const step = Math.ceil(AT_ONCE / partitions);
    for (let first = 0; first < names.length; first += step) {
      const topics = names
        .slice(first, first + step)
        .map((topic) => ({ topic, numPartitions: partitions, replicationFactor: 1 }));
      await admin.createTopics({ topics, waitForLeaders: false, timeout: 120_000 });
    }
    // A broker with little of the processor opens thousands of logs late.
    const last = names.at(-1) as string;
    for (const endMs = performance.now() + READY_LIMIT_MS; performance.now() < endMs; await sleep(500)) {
      const isLed = await admin.fetchTopicOffsets(last).then(
        (offsets) => offsets.length === partitions,
        () => false,
      );
      if (isLed) return;
    }
    throw new Error(`the topics are not ready after ${READY_LIMIT_MS / 1000} s`);
  });
}

/** One record into each partition, through a producer that knows nothing of the topics yet. */
export async function fill(brokers: readonly string[], names: readonly string[], partitions: number): Promise<void> {
  const producer = kafkaClient(brokers, { requestTimeout: 120_000 }).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  try {
    const step = Math.ceil(AT_ONCE / partitions);
    for (let first = 0; first < names.length; first += step) {
      const topicMessages = names.slice(first, first + step).map((topic) => ({
        topic,
        messages: Array.from({ length: partitions }, (_, partition) => ({ partition, value: '{}' })),
      }));
      await producer.sendBatch({ topicMessages });
    }
  } finally {
    await producer.disconnect();
  }
}

export interface Filling {
  readonly brokers: readonly string[];
  readonly names: readonly string[];
  readonly partitions: number;
}

export async function fillElsewhere(filling: Filling): Promise<void> {
  const producer = fork(fileURLToPath(new URL('scale-topics.ts', import.meta.url)), {
    execArgv: ['--import', 'tsx'],
    env: { ...process.env, SCALE_FILL: 'yes' },
  });
  producer.send(filling);
  await once(producer, 'exit');
}

if (process.env['SCALE_FILL'] !== undefined) {
  const [filling] = (await once(process, 'message')) as [Filling];
  await fill(filling.brokers, filling.names, filling.partitions);
  process.disconnect();
}
