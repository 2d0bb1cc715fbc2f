// What becomes of a record batch that cannot be believed, and of one that is large: the fetcher against a broker made of
// answers, in fake time.
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { IngestEvent } from '../../../src/events.js';
import { encodeBatch } from '../bytes.js';
import { FakeKafka } from '../fake-kafka.js';

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] }));
afterEach(() => void vi.useRealTimers());

const batch = (base: number, count = 1) =>
  encodeBatch({ base, records: Array.from({ length: count }, (_, delta) => ({ delta, value: Buffer.from('v') })) });
const damaged = (base: number, count = 3): Buffer => {
  const bad = batch(base, count);
  bad[bad.length - 2]! ^= 1;
  return bad;
};
const realSetTimeout = setTimeout;

/** Fake time goes on until it is so; unpacking happens in threads, which no fake time moves. */
async function until(isSo: () => boolean): Promise<void> {
  for (let rounds = 0; !isSo(); rounds++) {
    expect(rounds).toBeLessThan(5000);
    await vi.advanceTimersByTimeAsync(20);
    await new Promise((resolve) => realSetTimeout(resolve, 2));
  }
}

describe('D3: a record batch that cannot be believed', () => {
  test('D3: is asked for again over a new connection: damage on the way costs nothing', async () => {
    const kafka = new FakeKafka(2);
    kafka.answers.set(0, damaged(10)).set(1, batch(10));
    await vi.advanceTimersByTimeAsync(60);
    kafka.lasting.add(0);
    kafka.answers.set(0, batch(10, 3));
    await vi.advanceTimersByTimeAsync(1000);
    expect(
      kafka.chunks.map(({ assignment: { partition }, lastOffset, records }) => [partition, lastOffset, records.length]),
    ).toEqual([
      [1, 10, 1],
      [0, 12, 3],
    ]);
    expect(kafka.events).toEqual([]);
    expect(kafka.renewed).toBe(1);
    expect(kafka.logged).toEqual(['a record batch cannot be read, asking for it again']);
  });

  test('D3: that stays so halts its partition, names itself and what to do; the others go on', async () => {
    const kafka = new FakeKafka(2);
    kafka.answers.set(0, Buffer.concat([batch(10), damaged(11)]));
    kafka.lasting.add(0);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_CORRUPT_BATCH']);
    expect(kafka.errors[0]!.message).toMatch(
      /base offset 11 .*CRC-32C.*topic t, partition 0, offsets 11-13.*kafka-dump-log\.sh.*onCorruptBatch to "skip", or the group's offset to 14/,
    );
    expect(kafka.renewed).toBe(3);
    // What lies before it was delivered, once.
    expect(kafka.chunks.map(({ lastOffset, records }) => [lastOffset, records.length])).toEqual([[10, 1]]);
    const fetches = kafka.fetches;
    kafka.answers.set(1, batch(10));
    await vi.advanceTimersByTimeAsync(1000);
    expect(kafka.chunks.at(-1)).toMatchObject({ assignment: { partition: 1 }, lastOffset: 10 });
    expect(kafka.fetches - fetches).toBeLessThan(30);
  });

  test('D3: is left out where the policy says so: told with its offsets, covered, and what lies behind it is read', async () => {
    const told: IngestEvent[] = [];
    const kafka = new FakeKafka(1, { onCorruptBatch: 'skip', onEvent: (event) => told.push(event) });
    kafka.answers.set(0, Buffer.concat([batch(10), damaged(11), batch(14)]));
    kafka.lasting.add(0);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(kafka.events).toEqual([]);
    expect(told).toMatchObject([
      {
        kind: 'corruptBatch',
        assignment: { partition: 0 },
        first: 11,
        last: 13,
        records: 3,
        error: { code: 'KCR_CORRUPT_BATCH' },
      },
    ]);
    expect(
      kafka.chunks.map(({ afterOffset, lastOffset, records }) => [afterOffset, lastOffset, records.length]),
    ).toEqual([
      [9, 10, 1],
      [10, 13, 0],
      [13, 14, 1],
    ]);
  });

  test('D3: whose own offsets cannot be believed halts under either policy: skipping it could skip good records', async () => {
    const kafka = new FakeKafka(1, { onCorruptBatch: 'skip' });
    const bad = batch(10, 3);
    bad[25]! ^= 4;
    kafka.answers.set(0, bad);
    kafka.lasting.add(0);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_CORRUPT_BATCH']);
    expect(kafka.chunks).toEqual([]);
  });

  test('D3: of which the length is damaged is no batch that was cut short for ever', async () => {
    const kafka = new FakeKafka(1);
    const bad = batch(10, 3);
    bad[9]! ^= 1;
    kafka.answers.set(0, bad);
    kafka.lasting.add(0);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_CORRUPT_BATCH']);
    expect(kafka.errors[0]!.message).toMatch(/says it has 65\d{3} bytes, and \d+ came/);
  });

  test('a batch that the broker cut short behind those of another partition is waited for, and no damage', async () => {
    const kafka = new FakeKafka(2);
    kafka.lasting.add(0).add(1);
    kafka.answers.set(0, batch(10)).set(1, batch(10).subarray(0, 65));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(kafka.events).toEqual([]);
    kafka.answers.set(1, batch(10));
    await vi.advanceTimersByTimeAsync(500);
    expect(kafka.chunks.some(({ assignment: { partition } }) => partition === 1)).toBe(true);
  });
});

describe('D5: large batches', () => {
  const MIB = 1024 * 1024;
  const large = (base: number, mib: number) =>
    encodeBatch({ base, records: [{ delta: 0, value: Buffer.alloc(mib * MIB) }], codec: 1, compress: gzipSync });

  test('D5: of many partitions are held one beyond the budget at a time, and all are read in the end', async () => {
    const kafka = new FakeKafka(6, { budgetBytes: 60 * MIB });
    for (let partition = 0; partition < 6; partition++) kafka.answers.set(partition, large(10, 40));
    await until(() => kafka.chunks.length === 2);
    await vi.advanceTimersByTimeAsync(3000);
    expect(kafka.chunks.length).toBe(2);
    expect(kafka.credits.outstanding).toBeLessThan(90 * MIB);
    for (let done = 0; done < 6; done++) {
      await until(() => kafka.chunks.length > done);
      const { assignment, lastOffset } = kafka.chunks[done]!;
      if (kafka.credits.done(assignment.assignmentId, lastOffset)) kafka.fetcher.roomMade();
      expect(kafka.credits.outstanding).toBeLessThan(90 * MIB);
    }
    expect(kafka.chunks.map(({ assignment: { partition } }) => partition).sort()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(kafka.events).toEqual([]);
  }, 60_000);

  test('D5: behind one that fills the room the chunk says that nothing more comes for now', async () => {
    const kafka = new FakeKafka(1, { budgetBytes: 60 * MIB });
    kafka.answers.set(0, Buffer.concat([batch(10), large(11, 40), large(12, 40)]));
    await until(() => kafka.chunks.length === 2);
    await vi.advanceTimersByTimeAsync(1000);
    expect(kafka.chunks.map(({ lastOffset, isLastForNow }) => [lastOffset, isLastForNow])).toEqual([
      [10, undefined],
      [11, true],
    ]);
    kafka.credits.done(0, 11);
    kafka.fetcher.roomMade();
    await until(() => kafka.chunks.length === 3);
    expect(kafka.chunks.at(-1)!.lastOffset).toBe(12);
  });
});

describe('D6: a broker that answers at once with nothing', () => {
  test('D6: is asked a few times a second, not thousands, told once, and what comes then is read', async () => {
    const kafka = new FakeKafka(1);
    kafka.answersAfterMs = 0;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(kafka.fetches).toBeLessThan(100);
    expect(kafka.logged).toEqual(['a broker answers fetches at once with nothing, asking it less often']);
    kafka.answers.set(0, batch(10));
    await vi.advanceTimersByTimeAsync(500);
    expect(kafka.chunks).toMatchObject([{ lastOffset: 10 }]);
  });

  test('D6: a broker that waits as it should is asked again at once', async () => {
    const kafka = new FakeKafka(1);
    kafka.answersAfterMs = 250;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(kafka.fetches).toBeGreaterThan(38);
    expect(kafka.logged).toEqual([]);
  });
});
