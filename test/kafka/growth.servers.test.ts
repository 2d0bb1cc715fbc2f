// Groups that grow on a real broker: topics that get partitions, and many topics in one process.
import { randomUUID } from 'node:crypto';
import { getEventListeners } from 'node:events';
import { Socket } from 'node:net';
import { expect, onTestFinished, test, vi } from 'vitest';
import { groupNow } from '../../src/kafka/group-admin.js';
import { Membership } from '../../src/kafka/group/membership.js';
import { sourceSettings } from '../../src/kafka/options.js';
import type { KafkaSourceOptions } from '../../src/kafka/source.js';
import { openConnection } from '../../src/kafka/connection/kafka-connection.js';
import { createTopic, kafkaClient, withAdmin } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { send as produce } from './send.js';
import { watchInTest, type Watch } from './watch.js';

const { brokers } = sharedStack();
const QUICK = { heartbeatIntervalMs: 200, sessionTimeoutMs: 30_000, rebalanceTimeoutMs: 60_000 } as const;
const OFFSET_COMMIT = 8;
const JOIN_GROUP = 11;

const newName = () => `growth-${randomUUID()}`;
const watch = (groupId: string, topics: readonly string[], options: Partial<KafkaSourceOptions> = {}): Watch =>
  watchInTest({ brokers, topics, groupId, ...QUICK, ...options });
const grow = (topic: string, count: number) =>
  withAdmin(brokers, (admin) => admin.createPartitions({ topicPartitions: [{ topic, count }] }));

async function newTopics(count: number): Promise<string[]> {
  const topics = Array.from({ length: count }, newName);
  await withAdmin(brokers, (admin) =>
    admin.createTopics({
      topics: topics.map((topic) => ({ topic, numPartitions: 1, replicationFactor: 1 })),
      waitForLeaders: false,
    }),
  );
  return topics;
}

/** Until the end of the test each call of the method is seen first. */
function wrap<T extends object>(
  prototype: T,
  method: string & keyof T,
  see: (on: T, args: readonly unknown[]) => void,
): void {
  const own = Object.getOwnPropertyDescriptor(prototype, method);
  const before = Reflect.get(prototype, method) as (...args: unknown[]) => unknown;
  const seeing = function (this: T, ...args: unknown[]): unknown {
    see(this, args);
    return before.apply(this, args);
  };
  Object.defineProperty(prototype, method, { value: seeing, writable: true, configurable: true });
  onTestFinished(
    () =>
      void (own === undefined
        ? Reflect.deleteProperty(prototype, method)
        : Object.defineProperty(prototype, method, own)),
  );
}

/** The requests of this process from now on, by their API key, as they are handed to a socket whole. */
function requests(): { count: (apiKey?: number) => number } {
  const keys: number[] = [];
  wrap(Socket.prototype, 'write', (_, [data]) => {
    if (Buffer.isBuffer(data) && data.length > 8) keys.push(data.readInt16BE(4));
  });
  return { count: (apiKey) => (apiKey === undefined ? keys : keys.filter((key) => key === apiKey)).length };
}

test('J3: a record of a partition that was added is read also by a process that knew the topic only with it', async () => {
  const topic = newName();
  await createTopic(brokers, topic);
  const first = watch(topic, [topic], { metadataMaxAgeMs: 600_000 });
  await first.until(({ owned }) => owned.length === 1);
  await grow(topic, 2);
  await vi.waitFor(() => produce(brokers, topic, [{ value: 'early', partition: 1 }]), {
    timeout: 30_000,
    interval: 100,
  });
  const second = watch(topic, [topic]);
  await first.until(() => [...first.values, ...second.values].includes('early'));
});

test('J3: nor is it skipped by a process that starts again after the topic grew, and a new topic still begins at its end', async () => {
  const topic = newName();
  await createTopic(brokers, topic);
  const before = watch(topic, [topic]);
  await before.until(({ owned }) => owned.length === 1);
  before.source.drain();
  await before.until(({ isComplete }) => isComplete);
  await grow(topic, 2);
  const other = newName();
  await createTopic(brokers, other);
  await produce(brokers, other, ['old']);
  await vi.waitFor(() => produce(brokers, topic, [{ value: 'early', partition: 1 }]), {
    timeout: 30_000,
    interval: 100,
  });
  const after = watch(topic, [topic, other]);
  await after.until(({ values, owned }) => values.includes('early') && owned.length === 3);
  await produce(brokers, other, ['new']);
  await after.until(({ values }) => values.includes('new'));
  expect(after.values).not.toContain('old');
});

test('J7: a topic that only another member reads is watched by the one that deals: its new partitions are read', async () => {
  const [ours, theirs] = [newName(), newName()];
  for (const topic of [ours, theirs]) await createTopic(brokers, topic);
  const leader = watch(ours, [ours], { metadataMaxAgeMs: 1000 });
  await leader.until(({ owned }) => owned.length === 1);
  // It knows of its own topics only late.
  const other = watch(ours, [theirs], { metadataMaxAgeMs: 600_000 });
  await other.until(({ owned }) => owned.length === 1);
  await grow(theirs, 3);
  await other.until(({ owned }) => owned.length === 3);
});

test('J1: hundreds of topics in one process are read to their end, in one generation and with few commits', async () => {
  const count = 300;
  const topics = await newTopics(count);
  await produceAll(topics);
  const sent = requests();
  const watching = watch(topics[0]!, topics, { fromBeginning: true });
  await watching.until(({ records }) => records.length >= count, 120_000);
  const commits = watching.owned.map((assignment) => watching.commit(assignment, 1));
  await Promise.all(commits);
  expect(watching.records).toHaveLength(count);
  expect(watching.of('assigned')).toHaveLength(count);
  // A first join is refused once, to give the member its id.
  expect(sent.count(JOIN_GROUP)).toBeLessThanOrEqual(2);
  // One for where they begin, one or two for these.
  expect(sent.count(OFFSET_COMMIT)).toBeLessThanOrEqual(3);
});

test('J10: looking at a group takes no more requests for many topics than for few', async () => {
  const topics = await newTopics(60);
  const groupId = newName();
  // The group's coordinator, and the leaders of the topics, are there.
  await vi.waitFor(() => groupNow({ brokers, groupId, topics }), { timeout: 30_000, interval: 100 });
  const taken: number[] = [];
  const sent = requests();
  for (const some of [topics.slice(0, 2), topics]) {
    const before = sent.count();
    const { partitions } = await groupNow({ brokers, groupId, topics: some });
    expect(partitions.map(({ topic, logEnd, committed }) => ({ topic, logEnd, committed }))).toEqual(
      some.map((topic) => ({ topic, logEnd: 0, committed: undefined })),
    );
    taken.push(sent.count() - before);
  }
  expect(taken[1]).toBeLessThanOrEqual(taken[0]! + 2);
});

test('J10: generation after generation nothing is left behind: no listener more, and no warning', async () => {
  const topic = newName();
  await createTopic(brokers, topic);
  const warnings: Error[] = [];
  const warn = (warning: Error) => void warnings.push(warning);
  process.on('warning', warn);
  const signals = new Set<EventTarget>();
  wrap(EventTarget.prototype, 'addEventListener', (target, [type]) => {
    if (type === 'abort') signals.add(target);
  });
  onTestFinished(() => void process.off('warning', warn));
  const watching = watch(topic, [topic]);
  const settings = sourceSettings({ brokers, topics: [topic], groupId: topic, ...QUICK });
  const kafka = openConnection(settings);
  await kafka.cluster.connect();
  onTestFinished(() => kafka.cluster.disconnect().then(() => kafka.end()));
  for (let generations = 0; generations < 20; generations = watching.of('assigned').length) {
    const before = watching.of('revoked').length;
    const guest = new Membership(kafka, settings);
    const joining = guest.join(new AbortController().signal);
    await watching.until((self) => self.of('revoked').length > before);
    await joining;
    await guest.leave();
    await watching.until(({ owned }) => owned.length === 1);
  }
  expect(Math.max(...[...signals].map((signal) => getEventListeners(signal, 'abort').length))).toBeLessThanOrEqual(8);
  expect(warnings.filter(({ name }) => name === 'MaxListenersExceededWarning')).toEqual([]);
});

async function produceAll(topics: readonly string[]): Promise<void> {
  const producer = kafkaClient(brokers).producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  await producer.sendBatch({ topicMessages: topics.map((topic) => ({ topic, messages: [{ value: '{}' }] })) });
  await producer.disconnect();
}
