// Two brokers: a partition's leader moves, and a broker goes away, without a rebalance and without a record lost.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { groupNow } from '../../src/kafka/group-admin.js';
import { checkKafka } from '../../src/kafka/preflight.js';
import { configFile, program } from '../cli/program.js';
import { command, createTopic, kafkaClient, query, withAdmin } from '../stack/clients.js';
import { kafkaPair } from '../stack/kafka.js';
import type { ServerProcess } from '../stack/process.js';
import { sharedStack } from '../stack/shared.js';
import { send as produce } from './send.js';
import { Watch } from './watch.js';

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => i + from);
let first: ServerProcess;
let second: ServerProcess;
let dir: string;
let brokers: string[];

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kafka-leaders-'));
  [first, second] = await kafkaPair(dir);
  await first.start();
  await second.start();
  brokers = [first.address, second.address];
  await untilBrokers(2);
});

afterAll(async () => {
  await second?.kill();
  await first?.kill();
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
});

async function untilBrokers(count: number): Promise<void> {
  await withAdmin([first.address], async (admin) => {
    while ((await admin.describeCluster()).brokers.length < count) await sleep(100);
  });
}

const topicOn = (topic: string, replicas: readonly (readonly number[])[]) =>
  createTopic([first.address], topic, { replicas });

async function move(topic: string, partition: number, to: number): Promise<void> {
  await withAdmin([first.address], async (admin) => {
    await admin.alterPartitionReassignments({
      topics: [{ topic, partitionAssignment: [{ partition, replicas: [to] }] }],
    });
    for (;;) {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      if (topics[0]?.partitions.find(({ partitionId }) => partitionId === partition)?.leader === to) return;
      await sleep(50);
    }
  });
}

/** On the broker that stays, wherever the tests before have left them. */
async function coordinatorsOn(topic: string, broker: number): Promise<void> {
  // There are some from now on. A broker under load may not have heard of the topic yet.
  await vi.waitFor(() => groupNow({ brokers, topics: [topic], groupId: 'nobody' }), { timeout: 60_000, interval: 200 });
  await move('__consumer_offsets', 0, broker);
}

function watch(topic: string): Watch {
  const watching = new Watch({
    brokers,
    topics: [topic],
    groupId: topic,
    fromBeginning: true,
    heartbeatIntervalMs: 500,
    sessionTimeoutMs: 30_000,
  });
  onTestFinished(() => {
    watching.unsubscribe();
    expect(watching.breaches).toEqual([]);
  });
  return watching;
}

describe('two brokers', () => {
  test('a leader that moves is followed: no rebalance, no record lost or doubled', async () => {
    await topicOn('moving', [[1], [2], [1]]);
    const watching = watch('moving');
    const sendMore = (from: number) =>
      produce(
        [first.address],
        'moving',
        numbers(300, from).map((i) => ({ value: `${i}`, partition: i % 3 })),
      );
    await sendMore(0);
    await watching.until(({ records }) => records.length === 300);
    for (const [round, to] of [2, 1, 2].entries()) {
      await move('moving', 0, to);
      await sendMore(300 * (round + 1));
      await watching.until(({ records }) => records.length === 300 * (round + 2));
    }
    for (const partition of [0, 1, 2]) {
      const offsets = watching.chunks
        .filter(({ assignment }) => assignment.partition === partition)
        .flatMap(({ records }) => records.map(({ offset }) => offset));
      expect(offsets).toEqual(numbers(400));
    }
    expect(watching.of('assigned')).toHaveLength(3);
    expect(watching.lines.join()).toContain('looking for the leader');
  });

  test('a coordinator that moves is followed: the same generation goes on', async () => {
    await topicOn('coordinated', [[1]]);
    await produce([first.address], 'coordinated', numbers(3).map(String));
    const watching = watch('coordinated');
    await watching.until(({ records }) => records.length === 3);
    await watching.commit(watching.owned[0]!, 1);
    for (const [next, to] of [
      [2, 2],
      [3, 1],
    ] as const) {
      await move('__consumer_offsets', 0, to);
      await watching.commit(watching.owned[0]!, next);
      expect(await watching.committed(watching.owned[0]!)).toMatchObject({ next });
      await sleep(1500);
    }
    expect(watching.of('assigned')).toHaveLength(1);
    expect(watching.of('lost')).toEqual([]);
    watching.source.drain();
    await watching.until(({ isComplete }) => isComplete);
  });

  test('while one broker is down the partitions of the other go on', async () => {
    await topicOn('apart', [[1], [2]]);
    await coordinatorsOn('apart', 1);
    const producer = kafkaClient([first.address]).producer({ idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    onTestFinished(() => producer.disconnect());
    const watching = watch('apart');
    await producer.send({ topic: 'apart', messages: numbers(10).map((i) => ({ value: `${i}`, partition: i % 2 })) });
    await watching.until(({ records }) => records.length === 10);
    await second.kill();
    for (let i = 0; i < 10; i++) {
      await producer.send({ topic: 'apart', messages: [{ value: `alone ${i}`, partition: 0 }] });
      await sleep(300);
    }
    await watching.until(({ records }) => records.length === 20);
    await second.start();
    await producer.send({ topic: 'apart', messages: [{ value: 'back', partition: 1 }] });
    await watching.until(({ records }) => records.length === 21);
    expect(watching.of('assigned')).toHaveLength(2);
    expect(watching.of('lost')).toEqual([]);
  });

  test('a start while a partition has no leader is told to try again, by its exit code too; a topic of others without one is no matter', async () => {
    await topicOn('led', [[1], [1]]);
    await topicOn('unled', [[1], [2]]);
    await coordinatorsOn('led', 1);
    const [led, unled] = await Promise.all([tenFor('led'), tenFor('unled')]);
    await second.kill();
    await untilRefused('unled', /no leader/);

    const [refused, checked] = await Promise.all([
      program(['run', unled]).ended,
      program(['check', unled, '--json']).ended,
      ingestsTen('led', led),
    ]);
    expect(refused).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(
        /^KCR_KAFKA_UNREACHABLE: .*unled\/1 has no leader.*try again in a while/m,
      ) as string,
    });
    expect(checked.code).toBe(3);
    const refusals = (JSON.parse(checked.stdout) as { findings: { level: string }[] }).findings.filter(
      ({ level }) => level === 'refusal',
    );
    expect(refusals).toMatchObject([
      {
        what: 'Kafka',
        code: 'KCR_KAFKA_UNREACHABLE',
        detail: expect.stringContaining('unled/1 has no leader') as string,
      },
    ]);
  });
});

/** Ten records in a topic of these brokers, a table and a configuration for them. */
async function tenFor(topic: string): Promise<string> {
  const { clickhouseUrl, keeperConnect } = sharedStack();
  await command(
    clickhouseUrl,
    `CREATE TABLE leaders_${topic} (id UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`,
  );
  await produce(
    [first.address],
    topic,
    numbers(10).map((id) => ({ value: JSON.stringify({ id }), partition: id % 2 })),
  );
  return configFile({
    kafka: { brokers: [first.address], groupId: topic, fromBeginning: true },
    clickhouse: { url: clickhouseUrl },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic, table: `leaders_${topic}` }],
    batch: { maxWaitMs: 50 },
  });
}

async function untilRefused(topic: string, why: RegExp): Promise<void> {
  for (;;) {
    const answer = await checkKafka({ brokers: [first.address], topics: [topic] }).catch(String);
    if (typeof answer === 'string' && why.test(answer)) return;
    await sleep(200);
  }
}

async function ingestsTen(topic: string, config: string): Promise<void> {
  const running = program(['run', config]);
  const rows = async () =>
    query(sharedStack().clickhouseUrl, `SELECT count() AS n, uniqExact(id) AS ids FROM leaders_${topic}`);
  await running.until(
    async () => JSON.stringify(await rows()) === '[{"n":10,"ids":10}]',
    `the rows of ${topic} were there`,
  );
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(0);
}
