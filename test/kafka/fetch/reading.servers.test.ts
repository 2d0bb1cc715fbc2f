// The source against a real broker: what it reads, where it begins, and that nothing is skipped, doubled or leaked.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { CompressionTypes, Partitioners, type Message, type Producer } from 'kafkajs';
import { firstValueFrom, from } from 'rxjs';
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { registerCodecs } from '../../../src/kafka/fetch/codecs.js';
import { checkKafka, lagOf } from '../../../src/kafka/preflight.js';
import { kafkaSource, type KafkaSourceOptions } from '../../../src/kafka/source.js';
import { createTopic, deleteRecordsBefore, kafkaClient, withAdmin } from '../../stack/clients.js';
import { sharedStack } from '../../stack/shared.js';
import { send as produce } from '../send.js';
import { Watch, type Behaviour } from '../watch.js';

const { brokers } = sharedStack();
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => i + from);

async function newTopic(partitions = 1, config: Record<string, string> = {}): Promise<string> {
  const topic = `reading-${randomUUID()}`;
  await createTopic(brokers, topic, { partitions, config });
  return topic;
}

function watch(topic: string, options: Partial<KafkaSourceOptions> = {}, behaviour: Behaviour = {}): Watch {
  const watching = new Watch(
    { brokers, topics: [topic], groupId: `group-${topic}`, fromBeginning: true, ...options },
    behaviour,
  );
  onTestFinished(() => {
    watching.unsubscribe();
    expect(watching.breaches).toEqual([]);
  });
  return watching;
}

async function committed(groupId: string, topic: string): Promise<Record<number, string>> {
  const [offsets] = await withAdmin(brokers, (admin) => admin.fetchOffsets({ groupId, topics: [topic] }));
  return Object.fromEntries((offsets?.partitions ?? []).map(({ partition, offset }) => [partition, offset]));
}

async function transactional(id: string): Promise<Producer> {
  const producer = kafkaClient(brokers).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    transactionalId: `${id}-${randomUUID()}`,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  onTestFinished(() => producer.disconnect());
  return producer;
}

beforeAll(() => registerCodecs());

describe('reading', () => {
  test('no record of four unequal partitions is lost, doubled or out of order', async () => {
    const topic = await newTopic(4);
    const sent = numbers(20_000).map((i): Message => ({
      key: `${i}`,
      value: `value ${i}`,
      partition: [0, 0, 0, 1, 1, 2, 3][i % 7] as number,
    }));
    for (let at = 0; at < sent.length; at += 2000) await produce(brokers, topic, sent.slice(at, at + 2000));
    const watching = watch(topic, { maxBytesPerPartition: 16_384 });
    await watching.until(({ records }) => records.length >= sent.length);
    await sleep(300);
    for (const partition of [0, 1, 2, 3]) {
      const records = watching.chunks
        .filter(({ assignment }) => assignment.partition === partition)
        .flatMap(({ records: list }) => [...list]);
      const expected = sent.filter((message) => message.partition === partition);
      expect(records.map(({ offset }) => offset)).toEqual(numbers(expected.length));
      expect(records.map(({ value }) => value?.toString())).toEqual(expected.map(({ value }) => value));
      expect(records.map(({ key }) => key?.toString())).toEqual(expected.map(({ key }) => key));
    }
    expect(watching.chunks.length).toBeGreaterThan(20);
    expect(watching.chunks.at(-1)?.highWatermark).toBeGreaterThan(0);
  });

  test('records of every codec are read, mixed in one partition', async () => {
    const topic = await newTopic();
    const codecs = ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD'] as const;
    for (const codec of codecs) {
      const messages = numbers(500).map((i): Message => ({
        key: codec,
        value: `${codec} ${i} ${'again '.repeat(20)}`,
        headers: { h: codec },
        timestamp: `${1_790_000_000_000 + i}`,
      }));
      await produce(brokers, topic, messages, { compression: CompressionTypes[codec] });
    }
    const watching = watch(topic);
    await watching.until(({ records }) => records.length >= 2500);
    expect(watching.values).toEqual(
      codecs.flatMap((codec) => numbers(500).map((i) => `${codec} ${i} ${'again '.repeat(20)}`)),
    );
    for (const record of watching.records) {
      const codec = record.key?.toString() ?? '';
      expect(record.headers).toEqual([['h', Buffer.from(codec)]]);
      expect(record.timestampMs).toBe(1_790_000_000_000 + (record.offset % 500));
    }
  });

  test('tombstones, empty values and missing keys are told apart', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, [
      { key: null, value: null },
      { key: '', value: '' },
      { key: 'k', value: 'v' },
    ]);
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 3);
    expect(watching.records.map(({ key, value }) => [key?.toString() ?? null, value?.toString() ?? null])).toEqual([
      [null, null],
      ['', ''],
      ['k', 'v'],
    ]);
  });

  test('a record larger than a fetch does not block its partition', async () => {
    const topic = await newTopic(2);
    await produce(brokers, topic, [
      { value: Buffer.alloc(900_000, 'x'), partition: 0 },
      { value: 'small', partition: 1 },
      { value: 'after', partition: 0 },
    ]);
    const watching = watch(topic, { maxBytesPerPartition: 1024, maxBytes: 1024 });
    await watching.until(({ records }) => records.length === 3);
  });
});

describe('transactions', () => {
  test('records of interleaved aborted transactions do not leak, and their offsets are committed past', async () => {
    const topic = await newTopic();
    const [outer, inner] = [await transactional('outer'), await transactional('inner')];
    const outerTx = await outer.transaction();
    const innerTx = await inner.transaction();
    const send = (tx: typeof outerTx, value: string) => tx.send({ topic, messages: [{ value }] });
    await send(outerTx, 'outer 1');
    await send(innerTx, 'inner 1');
    await innerTx.abort();
    await send(outerTx, 'outer 2');
    await outerTx.abort();
    await produce(brokers, topic, ['plain']);
    await produce(brokers, topic, ['committed'], { transactional: 'commit' });
    const watching = watch(topic);
    await watching.until(({ chunks }) => chunks.at(-1)?.lastOffset === 7);
    expect(watching.values).toEqual(['plain', 'committed']);
    // The last offset is the marker of the last transaction: nobody needs to wait for a record behind it.
    await watching.commit(watching.chunks.at(-1)!.assignment, 8);
    expect(await lagOf({ brokers, groupId: `group-${topic}`, topics: [topic] })).toEqual([
      { topic, partition: 0, end: 8, committed: 8, lag: 0 },
    ]);
  });

  test('a range of nothing but aborted records is delivered as a chunk without records, so that the lag reaches zero', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, ['aborted 1', 'aborted 2'], { transactional: 'abort' });
    const watching = watch(topic);
    await watching.until(({ chunks }) => chunks.length > 0);
    expect(watching.chunks).toMatchObject([{ afterOffset: -1, lastOffset: 2, records: { length: 0 }, bytes: 0 }]);
  });

  test('an open transaction is waited for, and read once it is committed', async () => {
    const topic = await newTopic();
    const producer = await transactional('open');
    const tx = await producer.transaction();
    await tx.send({ topic, messages: [{ value: 'in doubt' }] });
    await produce(brokers, topic, ['behind it']);
    const watching = watch(topic);
    const dirty = watch(topic, { groupId: `dirty-${topic}`, isolation: 'read_uncommitted' });
    await dirty.until(({ records }) => records.length === 2);
    await sleep(500);
    expect(watching.records).toEqual([]);
    await tx.commit();
    await watching.until(({ records }) => records.length === 2);
    expect(watching.values).toEqual(['in doubt', 'behind it']);
  });
});

describe('where reading begins', () => {
  test('a group that never committed begins at the earliest record with fromBeginning', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, ['a', 'b', 'c']);
    await deleteRecordsBefore(brokers, topic, 0, 1n);
    const watching = watch(topic, { fromBeginning: true });
    await watching.until(({ records }) => records.length === 2);
    expect(watching.chunks[0]).toMatchObject({ afterOffset: 0, lastOffset: 2 });
  });

  test('without it at the end, and what comes while nobody reads is not skipped afterwards', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, ['old 1', 'old 2']);
    const first = watch(topic, { fromBeginning: false });
    await first.until(({ owned }) => owned.length === 1);
    await sleep(300);
    first.source.drain();
    await first.until(({ isComplete }) => isComplete);
    expect(first.records).toEqual([]);
    expect(await committed(`group-${topic}`, topic)).toEqual({ 0: '2' });
    await produce(brokers, topic, ['while down']);
    const second = watch(topic, { fromBeginning: false });
    await second.until(({ records }) => records.length === 1);
    expect(second.values).toEqual(['while down']);
  });

  test('a group goes on behind what it committed', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, ['a', 'b', 'c']);
    const first = watch(topic);
    await first.until(({ records }) => records.length === 3);
    await first.commit(first.owned[0]!, 2, 'kept beside it');
    expect(await first.committed(first.owned[0]!)).toMatchObject({ next: 2, metadata: 'kept beside it' });
    first.source.drain();
    await first.until(({ isComplete }) => isComplete);
    const second = watch(topic);
    await second.until(({ records }) => records.length === 1);
    expect(second.values).toEqual(['c']);
    expect(second.chunks[0]?.afterOffset).toBe(1);
  });

  test('after a seek the next chunk begins exactly there, even while a fetch is on its way', async () => {
    const topic = await newTopic();
    for (let at = 0; at < 2000; at += 100) await produce(brokers, topic, numbers(100, at).map(String));
    const watching = watch(topic, { maxBytesPerPartition: 2000 });
    await watching.until(({ chunks }) => chunks.length > 3);
    for (const target of [1500, 3, 3, 777, 0, 1999]) {
      const before = watching.chunks.length;
      await watching.seek(watching.owned[0]!, target);
      await watching.until(({ chunks }) => chunks.length > before);
      expect(watching.chunks[before]).toMatchObject({ afterOffset: target - 1 });
      expect(watching.chunks[before]?.records.at(0)?.offset).toBe(target);
    }
  });

  test('a seek from within the delivery of a chunk is heeded too', async () => {
    const topic = await newTopic();
    // More than one chunk in one fetch: the rest of it must not be delivered any more.
    for (let at = 0; at < 120; at += 10)
      await produce(
        brokers,
        topic,
        numbers(10, at).map((i) => `${i}`.padEnd(90_000, 'x')),
      );
    let isSought = false;
    const watching = watch(
      topic,
      { maxBytesPerPartition: 16 * 1024 * 1024 },
      {
        onChunk: (chunk, self) => {
          self.source.done(chunk.assignment, chunk.lastOffset);
          if (isSought) return;
          isSought = true;
          void self.seek(chunk.assignment, 5);
        },
      },
    );
    await watching.until(({ chunks }) => chunks.length > 1);
    expect(watching.chunks[1]?.afterOffset).toBe(4);
    expect(watching.chunks[1]?.records.at(0)?.offset).toBe(5);
  });
});

describe('an offset that the log does not hold', () => {
  test('fails with what was wanted and what there is, and nothing is reset; the other partitions go on', async () => {
    const topic = await newTopic(2);
    await produce(
      brokers,
      topic,
      numbers(10).map((i) => ({ value: `${i}`, partition: 0 })),
    );
    const groupId = `group-${topic}`;
    await withAdmin(brokers, (admin) =>
      admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '2' }] }),
    );
    await deleteRecordsBefore(brokers, topic, 0, 6n);
    const watching = watch(topic);
    await watching.until((self) => self.of('failed').length === 1);
    expect(watching.of('failed')[0]?.error).toMatchObject({
      code: 'KCR_OFFSET_RANGE',
      fields: { topic, partition: 0, offset: 2 },
      message: expect.stringMatching(
        /Offset 2 is gone: the log begins at 6 and ends at 10; 4 offsets were deleted.*What to do/,
      ) as string,
    });
    await produce(brokers, topic, [{ value: 'of another', partition: 1 }]);
    await watching.until(({ records }) => records.length > 0);
    expect(watching.values).toEqual(['of another']);
    expect(watching.owned).toHaveLength(2);
    expect(await committed(groupId, topic)).toEqual({ 0: '2', 1: '0' });
  });

  test('is told apart from a topic that was made again', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, ['only']);
    const groupId = `group-${topic}`;
    await withAdmin(brokers, (admin) =>
      admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '900' }] }),
    );
    const watching = watch(topic);
    await watching.until((self) => self.of('failed').length === 1);
    expect(watching.of('failed')[0]?.error.message).toMatch(
      /Offset 900 is beyond the log, which begins at 0 and ends at 1: the topic was recreated/,
    );
    expect(await committed(groupId, topic)).toEqual({ 0: '900' });
  });

  test('can be decided by the caller', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, numbers(10).map(String));
    await withAdmin(brokers, (admin) =>
      admin.setOffsets({ groupId: `group-${topic}`, topic, partitions: [{ partition: 0, offset: '2' }] }),
    );
    await deleteRecordsBefore(brokers, topic, 0, 6n);
    const watching = watch(topic, { onOutOfRange: ({ logStart }) => logStart });
    await watching.until(({ records }) => records.length === 4);
    // What is gone is covered by a chunk without records, so that whoever waits for offset 2 sees that it will not come.
    expect(watching.chunks).toMatchObject([
      { afterOffset: 1, lastOffset: 5, records: [] },
      { afterOffset: 5, lastOffset: 9 },
    ]);
  });
});

describe('back-pressure', () => {
  const KIB = 1024;

  test('nothing more is fetched than the budget holds, and everything comes once it is done', async () => {
    const topic = await newTopic(4);
    for (let i = 0; i < 16; i++)
      await produce(
        brokers,
        topic,
        numbers(64, i * 64).map((n) => ({ value: `${n}`.padEnd(8 * KIB, 'x'), partition: n % 4 })),
      );
    const budgetBytes = 1024 * KIB;
    const held: number[] = [];
    const watching = watch(
      topic,
      { budgetBytes, maxBytesPerPartition: 128 * KIB },
      { onChunk: () => undefined, onEvent: (_, { source }) => held.push(source?.outstandingBytes ?? 0) },
    );
    await watching.until(({ source }) => source.outstandingBytes > budgetBytes / 2);
    // Until a while has brought nothing more, however slow the broker is.
    for (let seen = -1; seen !== watching.chunks.length; await sleep(700)) seen = watching.chunks.length;
    expect(watching.records.length).toBeLessThan(512);
    let next = 0;
    const finishing = setInterval(() => {
      const chunk = watching.chunks[next];
      if (chunk === undefined) return;
      next++;
      watching.source.done(chunk.assignment, chunk.lastOffset);
    }, 2);
    onTestFinished(() => clearInterval(finishing));
    await watching.until(({ records }) => records.length === 1024);
    expect(Math.max(...held)).toBeLessThan(budgetBytes + 4 * 256 * KIB);
  });

  test('well compressed records are unpacked only as there is room for them', async () => {
    const topic = await newTopic();
    // 40 MiB of zeros in about 50 KiB: one fetch brings it all.
    for (let i = 0; i < 10; i++)
      await produce(
        brokers,
        topic,
        numbers(4).map(() => ({ value: Buffer.alloc(1024 * KIB) })),
        { compression: CompressionTypes.GZIP },
      );
    const watching = watch(topic, { budgetBytes: 8 * 1024 * KIB }, { onChunk: () => undefined });
    await watching.until(({ chunks }) => chunks.length > 0);
    await sleep(700);
    expect(watching.source.outstandingBytes).toBeLessThan(25 * 1024 * KIB);
    for (let i = 0; i < watching.chunks.length || watching.records.length < 40; i++) {
      await watching.until(({ chunks }) => chunks.length > i);
      const chunk = watching.chunks[i]!;
      watching.source.done(chunk.assignment, chunk.lastOffset);
    }
    expect(watching.records.map(({ offset }) => offset)).toEqual(numbers(40));
  });

  test('a partition that waits for room is not held up by idle ones when it has it', async () => {
    const topic = await newTopic(2);
    for (let i = 0; i < 30; i++) await produce(brokers, topic, [{ value: Buffer.alloc(64 * KIB), partition: 0 }]);
    const watching = watch(
      topic,
      { budgetBytes: 64 * KIB, maxWaitMs: 20_000, requestTimeoutMs: 60_000 },
      {
        onChunk: (chunk, { source }) => void sleep(10).then(() => source.done(chunk.assignment, chunk.lastOffset)),
      },
    );
    // Held up even three times it would take longer.
    await watching.until(({ records }) => records.length === 30);
  });

  test('a halted partition gives nothing more and keeps nobody waiting', async () => {
    const topic = await newTopic(2);
    const watching = watch(topic);
    await watching.until(({ owned }) => owned.length === 2);
    watching.source.halt(watching.owned[0]!);
    await produce(
      brokers,
      topic,
      numbers(20).map((i) => ({ value: `${i}`, partition: i % 2 })),
    );
    await watching.until(({ records }) => records.length === 10);
    await sleep(600);
    expect(new Set(watching.chunks.map(({ assignment }) => assignment.partition))).toEqual(new Set([1]));
    expect(watching.owned).toHaveLength(2);
  });

  test('paused it gives nothing, resumed it goes on where it was', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, numbers(10).map(String));
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 10);
    watching.source.pause();
    await produce(brokers, topic, numbers(10, 10).map(String));
    await sleep(600);
    expect(watching.records).toHaveLength(10);
    watching.source.resume();
    await watching.until(({ records }) => records.length === 20);
    expect(watching.values).toEqual(numbers(20).map(String));
  });

  test('a partition that is paused before it begins gives nothing until it is resumed, the others do', async () => {
    const topic = await newTopic(2);
    await produce(
      brokers,
      topic,
      numbers(20).map((i) => ({ value: `${i}`, partition: i % 2 })),
    );
    const source = kafkaSource({ brokers, groupId: topic, topics: [topic], fromBeginning: true });
    source.pause({ topic, partition: 0 });
    const read = [0, 0];
    const running = source.events.subscribe((event) => {
      if (event.kind === 'fetched') read[event.assignment.partition]! += [...event.chunk.records].length;
    });
    onTestFinished(() => running.unsubscribe());
    await vi.waitFor(() => expect(read[1]).toBe(10), { timeout: 20_000 });
    await sleep(600);
    expect(read).toEqual([0, 10]);
    source.resume({ topic, partition: 0 });
    await vi.waitFor(() => expect(read).toEqual([10, 10]), { timeout: 20_000 });
  });
});

describe('preflight', () => {
  test("tells the cluster's id, which is a part of every token, and how many partitions there are", async () => {
    const topic = await newTopic(3);
    const facts = await checkKafka({ brokers, topics: [topic] });
    const { clusterId } = await withAdmin(brokers, (admin) => admin.describeCluster());
    expect(facts).toEqual({ clusterId, topics: [{ topic, partitions: 3 }] });
    const watching = watch(topic);
    expect(await firstValueFrom(from(watching.source.cluster()))).toBe(clusterId);
  });

  test('names a topic that is missing and the command that makes it', async () => {
    const missing = `missing-${randomUUID()}`;
    await expect(checkKafka({ brokers, topics: [await newTopic(), missing] })).rejects.toMatchObject({
      code: 'KCR_TOPIC_MISSING',
      fields: { topic: missing },
      message: expect.stringContaining(`--create --topic ${missing}`) as string,
    });
    await expect(watch(missing).until(() => false)).rejects.toMatchObject({ code: 'KCR_TOPIC_MISSING' });
  });

  test('names the brokers when none answers, soon', async () => {
    const startMs = Date.now();
    await expect(checkKafka({ brokers: ['127.0.0.1:9', '127.0.0.1:10'], topics: ['t'] })).rejects.toMatchObject({
      code: 'KCR_KAFKA_UNREACHABLE',
      message: expect.stringMatching(/127\.0\.0\.1:9, 127\.0\.0\.1:10.*What to do/) as string,
    });
    expect(Date.now() - startMs).toBeLessThan(11_000);
  });

  test('the lag of a group that never committed counts from the beginning of the log', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, numbers(10).map(String));
    await deleteRecordsBefore(brokers, topic, 0, 4n);
    expect(await lagOf({ brokers, groupId: `none-${topic}`, topics: [topic] })).toEqual([
      { topic, partition: 0, end: 10, committed: undefined, lag: 6 },
    ]);
  });
});
