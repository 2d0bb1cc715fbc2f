// kafkajs 2.2.4 against a real Kafka 4.x: what the whole project stands on, each test named after what would be lost.
import { CompressionTypes, type Consumer, type ConsumerConfig, Partitioners } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { createTopic, deleteRecordsBefore, kafkaClient, produce, topicEnd, withAdmin } from './clients.js';
import { type Stack, startStack } from './stack.js';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });
const PATIENT = { timeout: 90_000, interval: 50 };

describe('kafkajs 2.2.4 against real Kafka 4.x', () => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack({ keeper: false, clickhouse: false });
  });
  afterAll(() => stack?.stop());

  test('no record is lost or reordered on its way through a topic', async () => {
    await createTopic(stack.brokers, 'order', { partitions: 1 });
    const sent = Array.from({ length: 500 }, (_, index) => `record ${index}`);
    await produce(stack.brokers, 'order', sent.slice(0, 200));
    await produce(stack.brokers, 'order', sent.slice(200));
    const { seen } = await reader(stack, 'order');
    await vi.waitFor(() => expect(seen).toEqual(sent), PATIENT);
    expect(await topicEnd(stack.brokers, 'order')).toEqual(new Map([[0, 500n]]));
  });

  test('keys, headers, timestamps and null values come out as they went in', async () => {
    await createTopic(stack.brokers, 'whole');
    const timestamp = '1790000000123';
    await produce(stack.brokers, 'whole', [{ key: 'k', value: null, headers: { h: 'v' }, timestamp }]);
    const consumer = await joined(stack, 'whole-group');
    await consumer.subscribe({ topic: 'whole', fromBeginning: true });
    const seen: unknown[] = [];
    await consumer.run({
      eachMessage: async ({ message: { key, value, headers, timestamp: at } }) => {
        seen.push([key?.toString(), value, headers?.['h']?.toString(), at]);
      },
    });
    await vi.waitFor(() => expect(seen).toEqual([['k', null, 'v', timestamp]]), PATIENT);
  });

  test('the state kept in commit metadata is not lost: it comes back byte for byte', async () => {
    await createTopic(stack.brokers, 'state');
    await produce(stack.brokers, 'state', ['a', 'b', 'c']);
    const { consumer, seen } = await reader(stack, 'state', { groupId: 'state-group' });
    await vi.waitFor(() => expect(seen).toHaveLength(3), PATIENT);
    const metadata = JSON.stringify({ v: 1, from: '2', to: '5', text: 'ä€😀' });
    await consumer.commitOffsets([{ topic: 'state', partition: 0, offset: '2', metadata }]);
    expect(await committed(stack, 'state-group', 'state')).toEqual([{ partition: 0, offset: '2', metadata }]);
  });

  test('metadata of 4096 characters is kept, one more is refused and changes nothing', async () => {
    await createTopic(stack.brokers, 'limit');
    await produce(stack.brokers, 'limit', ['a']);
    const { consumer, seen } = await reader(stack, 'limit', { groupId: 'limit-group' });
    await vi.waitFor(() => expect(seen).toHaveLength(1), PATIENT);
    const longest = 'é'.repeat(4096);
    await consumer.commitOffsets([{ topic: 'limit', partition: 0, offset: '1', metadata: longest }]);
    const tooLong = consumer.commitOffsets([{ topic: 'limit', partition: 0, offset: '1', metadata: `${longest}x` }]);
    await expect(tooLong).rejects.toThrow(/metadata/i);
    expect(await committed(stack, 'limit-group', 'limit')).toEqual([{ partition: 0, offset: '1', metadata: longest }]);
  });

  test('no partition is left without a reader when a second consumer joins the group', async () => {
    await createTopic(stack.brokers, 'shared', { partitions: 4 });
    const first = await member(stack, 'shared', 'shared-group');
    await vi.waitFor(() => expect(first.partitions).toEqual([0, 1, 2, 3]), PATIENT);
    await vi.waitFor(() => expect(first.generation).toBeGreaterThan(0), PATIENT);
    const before = first.generation;
    const second = await member(stack, 'shared', 'shared-group');
    await vi.waitFor(() => {
      expect(first.partitions).toHaveLength(2);
      expect(second.partitions).toHaveLength(2);
      expect([...first.partitions, ...second.partitions].sort()).toEqual([0, 1, 2, 3]);
      expect(first.generation).toBeGreaterThan(before);
      expect(second.generation).toBe(first.generation);
    }, PATIENT);
    await second.consumer.disconnect();
    await vi.waitFor(() => expect(first.partitions).toEqual([0, 1, 2, 3]), PATIENT);
  });

  test('a member that died without leaving does not keep its partitions', async () => {
    await createTopic(stack.brokers, 'dead', { partitions: 2 });
    const quiet = await member(stack, 'dead', 'dead-group', { sessionTimeout: 1500 });
    await vi.waitFor(() => expect(quiet.partitions).toEqual([0, 1]), PATIENT);
    // Its handler holds on to a record without a heartbeat, so for the broker it is gone.
    quiet.hold();
    await produce(stack.brokers, 'dead', [{ value: 'x', partition: 0 }]);
    await vi.waitFor(() => expect(quiet.held).toBe(true), PATIENT);
    const heir = await member(stack, 'dead', 'dead-group', { sessionTimeout: 1500 });
    await vi.waitFor(() => expect(heir.partitions).toEqual([0, 1]), PATIENT);
    quiet.release();
  });

  test('gzip-compressed records are not unreadable', async () => {
    await createTopic(stack.brokers, 'gzip');
    const sent = Array.from({ length: 100 }, (_, index) => `the same text again ${index}`);
    await produce(stack.brokers, 'gzip', sent, { compression: CompressionTypes.GZIP });
    const { seen } = await reader(stack, 'gzip');
    await vi.waitFor(() => expect(seen).toEqual(sent), PATIENT);
  });

  test('records of an aborted transaction are not taken for real ones', async () => {
    await createTopic(stack.brokers, 'transactions');
    await produce(stack.brokers, 'transactions', ['aborted 1', 'aborted 2'], {
      transactional: 'abort',
      transactionalId: 'tx',
    });
    await produce(stack.brokers, 'transactions', ['committed'], { transactional: 'commit', transactionalId: 'tx' });
    await produce(stack.brokers, 'transactions', ['plain']);
    const { seen } = await reader(stack, 'transactions');
    await vi.waitFor(() => expect(seen).toContain('plain'), PATIENT);
    expect(seen).toEqual(['committed', 'plain']);
    // Two markers and the aborted records take offsets too.
    expect(await topicEnd(stack.brokers, 'transactions')).toEqual(new Map([[0, 6n]]));
  });

  test('KNOWN DEFECT of kafkajs: records of interleaved aborted transactions do come through', async () => {
    await createTopic(stack.brokers, 'interleaved');
    const [outer, inner] = [await transactional(stack, 'outer'), await transactional(stack, 'inner')];
    const outerTx = await outer.transaction();
    const innerTx = await inner.transaction();
    const send = (tx: typeof outerTx, value: string) => tx.send({ topic: 'interleaved', messages: [{ value }] });
    await send(outerTx, 'outer 1');
    await send(innerTx, 'inner 1');
    await innerTx.abort();
    await send(outerTx, 'outer 2');
    await outerTx.abort();
    await produce(stack.brokers, 'interleaved', ['plain']);
    const { seen } = await reader(stack, 'interleaved');
    await vi.waitFor(() => expect(seen).toContain('plain'), PATIENT);
    // Should be ['plain']. When this fails, kafkajs has been mended and our own filter can go.
    expect(seen).toEqual(['outer 1', 'plain']);
  });

  test('KNOWN DEFECT of kafkajs: an offset out of range wipes the committed state and skips live records', async () => {
    await createTopic(stack.brokers, 'expired');
    await produce(stack.brokers, 'expired', ['a', 'b', 'c', 'd']);
    const before = await reader(stack, 'expired', { groupId: 'expired-group' });
    await vi.waitFor(() => expect(before.seen).toHaveLength(4), PATIENT);
    await before.consumer.commitOffsets([{ topic: 'expired', partition: 0, offset: '1', metadata: 'precious' }]);
    await before.consumer.disconnect();
    // Retention takes the record to read next; 'c' and 'd' are still there.
    await deleteRecordsBefore(stack.brokers, 'expired', 0, 2n);
    const consumer = await joined(stack, 'expired-group');
    await consumer.subscribe({ topic: 'expired', fromBeginning: false });
    const seen: string[] = [];
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ message }) => {
        seen.push(String(message.value));
      },
    });
    await vi.waitFor(async () => {
      const wiped = [{ partition: 0, offset: '-1', metadata: null }];
      expect(await committed(stack, 'expired-group', 'expired')).toEqual(wiped);
    }, PATIENT);
    const late = setInterval(() => void produce(stack.brokers, 'expired', ['late']).catch(() => undefined), 500);
    onTestFinished(() => clearInterval(late));
    await vi.waitFor(() => expect(seen).toContain('late'), PATIENT);
    expect(seen).not.toContain('c');
    expect(seen).not.toContain('d');
  });
});

async function joined(stack: Stack, groupId: string, config: Partial<ConsumerConfig> = {}): Promise<Consumer> {
  const consumer = kafkaClient(stack.brokers).consumer({
    maxWaitTimeInMs: 250,
    heartbeatInterval: 250,
    ...config,
    groupId,
  });
  await consumer.connect();
  onTestFinished(() => consumer.disconnect());
  return consumer;
}

/** A consumer that reads a topic from its beginning, commits nothing and collects the values. */
async function reader(
  stack: Stack,
  topic: string,
  config: Partial<ConsumerConfig> = {},
): Promise<{ consumer: Consumer; seen: string[] }> {
  const consumer = await joined(stack, config.groupId ?? `${topic}-reader`, config);
  const seen: string[] = [];
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ message }) => {
      seen.push(String(message.value));
    },
  });
  return { consumer, seen };
}

interface Member {
  readonly consumer: Consumer;
  partitions: number[];
  generation: number;
  held: boolean;
  /** From now on its handler does not return. */
  hold: () => void;
  release: () => void;
}

async function member(
  stack: Stack,
  topic: string,
  groupId: string,
  config: Partial<ConsumerConfig> = {},
): Promise<Member> {
  const consumer = await joined(stack, groupId, { sessionTimeout: 6000, ...config });
  let release = (): void => undefined;
  let gate = Promise.resolve();
  const self: Member = {
    consumer,
    partitions: [],
    generation: 0,
    held: false,
    hold: () => {
      gate = new Promise((resolve) => (release = resolve));
    },
    release: () => release(),
  };
  consumer.on('consumer.group_join', ({ payload }) => {
    self.partitions = (payload.memberAssignment[topic] ?? []).toSorted((a, b) => a - b);
  });
  consumer.on('consumer.heartbeat', ({ payload }) => {
    self.generation = payload.groupGenerationId;
  });
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async () => {
      self.held = true;
      await gate;
    },
  });
  return self;
}

async function transactional(stack: Stack, transactionalId: string) {
  const producer = kafkaClient(stack.brokers).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    transactionalId,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  onTestFinished(() => producer.disconnect());
  return producer;
}

async function committed(stack: Stack, groupId: string, topic: string) {
  const [answer] = await withAdmin(stack.brokers, (admin) => admin.fetchOffsets({ groupId, topics: [topic] }));
  return answer?.partitions;
}
