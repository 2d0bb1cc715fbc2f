// The fetcher against a broker made of answers, in fake time: what a partition makes of each error.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { AssignedPartition } from '../../../src/kafka/group/assigned-partition.js';
import { encodeBatch } from '../bytes.js';
import { FakeKafka } from '../fake-kafka.js';

const OUT_OF_RANGE = 1;
const UNKNOWN_TOPIC = 3;
const NOT_AUTHORIZED = 29;
const UNKNOWN_ID = 100;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const batch = (base: number) => encodeBatch({ base, records: [{ delta: 0, value: Buffer.from('v') }] });

describe('a topic id that the leader does not know', () => {
  test('is waited for while the metadata still tells the same: it may be a leader that lags behind', async () => {
    const kafka = new FakeKafka(1);
    kafka.answers.set(0, UNKNOWN_ID);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(kafka.events).toEqual([]);
    kafka.answers.set(0, batch(10));
    await vi.advanceTimersByTimeAsync(1000);
    expect(kafka.chunks).toMatchObject([{ lastOffset: 10 }]);
  });

  test('means that the topic was recreated only when Kafka keeps saying so', async () => {
    const kafka = new FakeKafka(1);
    kafka.answers.set(0, UNKNOWN_ID);
    await vi.advanceTimersByTimeAsync(60);
    // Told by some that lag behind, or that are ahead.
    for (const [topicId, refreshes] of [
      ['id-2', 2],
      ['id-1', 1],
      ['id-2', 2],
      ['id-3', 1],
      ['id-2', 1],
      ['id-1', 1],
    ] as const) {
      kafka.topicId = topicId;
      kafka.refreshes = 0;
      while (kafka.refreshes < refreshes) await vi.advanceTimersByTimeAsync(10);
    }
    expect(kafka.events).toEqual([]);
    kafka.topicId = 'id-2';
    await vi.advanceTimersByTimeAsync(2000);
    expect(kafka.events).toEqual([
      { kind: 'reset', partition: 0, what: { kind: 'recreated', was: 'id-1', topicId: 'id-2' } },
    ]);
  });

  test('is not decided upon by what was told before all brokers fell silent', async () => {
    const kafka = new FakeKafka(1);
    kafka.answers.set(0, UNKNOWN_ID);
    await vi.advanceTimersByTimeAsync(60);
    kafka.topicId = 'id-2';
    await vi.advanceTimersByTimeAsync(250);
    kafka.isSilent = true;
    await vi.advanceTimersByTimeAsync(5000);
    expect(kafka.events).toEqual([]);
  });
});

describe('one partition that cannot go on', () => {
  test('because its topic is gone for too long fails alone', async () => {
    const kafka = new FakeKafka(2);
    kafka.answers.set(0, UNKNOWN_TOPIC);
    await vi.advanceTimersByTimeAsync(50_000);
    expect(kafka.events).toEqual([]);
    await vi.advanceTimersByTimeAsync(15_000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_TOPIC_MISSING']);
    kafka.answers.set(1, batch(10));
    await vi.advanceTimersByTimeAsync(1000);
    expect(kafka.chunks).toMatchObject([{ assignment: { partition: 1 } }]);
  });

  test('because the metadata says that the topic is gone fails too, and not sooner', async () => {
    const kafka = new FakeKafka(1);
    kafka.answers.set(0, UNKNOWN_ID);
    kafka.topicError = UNKNOWN_TOPIC;
    await vi.advanceTimersByTimeAsync(50_000);
    expect(kafka.events).toEqual([]);
    await vi.advanceTimersByTimeAsync(15_000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_TOPIC_MISSING']);
  });

  test('because it may not be read any more fails alone', async () => {
    const kafka = new FakeKafka(2);
    kafka.answers.set(1, NOT_AUTHORIZED);
    kafka.answers.set(0, batch(10));
    await vi.advanceTimersByTimeAsync(1000);
    expect(kafka.kinds).toEqual(['failed 1: KCR_KAFKA']);
    expect(kafka.chunks).toMatchObject([{ assignment: { partition: 0 } }]);
  });

  test('because its records are in a format that is not read fails alone, whether at the head or in what is inside', async () => {
    const kafka = new FakeKafka(2);
    const old = Buffer.from(batch(10));
    old.writeInt8(1, 16);
    kafka.answers.set(0, old);
    kafka.lasting.add(0).add(1);
    await vi.advanceTimersByTimeAsync(5000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_KAFKA']);
    kafka.answers.set(1, encodeBatch({ base: 10, records: [{ delta: 0 }], codec: 6 }));
    await vi.advanceTimersByTimeAsync(5000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_KAFKA', 'failed 1: KCR_KAFKA']);
    expect(kafka.chunks).toEqual([]);
  });
});

describe('a partition that a fetch session says nothing of', () => {
  test('has found its leader: an error long after is a new one', async () => {
    const kafka = new FakeKafka(2);
    kafka.sessionId = 7;
    await vi.advanceTimersByTimeAsync(200);
    for (let round = 0; round < 3; round++) {
      kafka.answers.set(0, UNKNOWN_TOPIC);
      kafka.lasting.add(0);
      await vi.advanceTimersByTimeAsync(40_000);
      kafka.lasting.delete(0);
      kafka.answers.delete(0);
      await vi.advanceTimersByTimeAsync(2000);
    }
    expect(kafka.events).toEqual([]);
  });

  test('is read on when something comes, and nobody is asked more often than the broker makes wait', async () => {
    const kafka = new FakeKafka(2);
    kafka.sessionId = 7;
    kafka.answersAfterMs = 250;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(kafka.fetches).toBeLessThanOrEqual(41);
    kafka.answers.set(1, batch(10));
    await vi.advanceTimersByTimeAsync(1000);
    expect(kafka.chunks).toMatchObject([{ assignment: { partition: 1 }, lastOffset: 10 }]);
  });
});

describe('an offset out of range', () => {
  test('that retention took fails its partition', async () => {
    const kafka = new FakeKafka(1);
    kafka.answers.set(0, OUT_OF_RANGE);
    kafka.log = { start: 20, end: 100 };
    await vi.advanceTimersByTimeAsync(1000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_OFFSET_RANGE']);
  });

  test('beyond the log at the beginning of an assignment is the word of the group alone: it fails, or restarts', async () => {
    for (const onReset of ['halt', 'restart'] as const) {
      const kafka = new FakeKafka(1, { onReset });
      kafka.answers.set(0, OUT_OF_RANGE);
      kafka.log = { start: 0, end: 5 };
      await vi.advanceTimersByTimeAsync(2000);
      expect(kafka.kinds).toEqual([onReset === 'halt' ? 'failed 0: KCR_OFFSET_RANGE' : 'reset 0: truncated']);
    }
  });

  test('beyond a log that was read is a truncation, when the log stays that short', async () => {
    const kafka = new FakeKafka(1);
    kafka.answers.set(0, batch(10));
    await vi.advanceTimersByTimeAsync(60);
    kafka.answers.set(0, OUT_OF_RANGE);
    kafka.log = { start: 0, end: 5 };
    for (let round = 0; round < 3; round++) {
      kafka.log = { start: 0, end: 5 };
      await vi.advanceTimersByTimeAsync(300);
      kafka.log = { start: 0, end: 100 }; // it was a leader that lagged behind
      await vi.advanceTimersByTimeAsync(300);
    }
    expect(kafka.events).toEqual([]);
    kafka.log = { start: 0, end: 5 };
    await vi.advanceTimersByTimeAsync(2000);
    expect(kafka.events).toMatchObject([
      { kind: 'reset', what: { kind: 'truncated', wanted: 11, logStart: 0, logEnd: 5 } },
    ]);
  });

  test("waits for the claim where the state decides: the group's offset is not what counts", async () => {
    for (const log of [
      { start: 20, end: 100 },
      { start: 0, end: 5 },
    ]) {
      const kafka = new FakeKafka(1, { stateDecides: true });
      kafka.answers.set(0, OUT_OF_RANGE);
      kafka.log = log;
      await vi.advanceTimersByTimeAsync(20_000);
      expect(kafka.events).toEqual([]);
      expect(kafka.fetches).toBeLessThan(60);
      const [assigned] = kafka.allAssigned as [AssignedPartition];
      [assigned.next, assigned.isUnproven] = [30, false]; // a seek
      kafka.answers.set(0, batch(30));
      await vi.advanceTimersByTimeAsync(1000);
      expect(kafka.chunks).toMatchObject([{ afterOffset: 29 }]);
    }
  });

  test('that the claim has corrected holds its partition up no longer', async () => {
    const kafka = new FakeKafka(1, { stateDecides: true });
    kafka.answers.set(0, OUT_OF_RANGE);
    kafka.log = { start: 20, end: 100 };
    await vi.advanceTimersByTimeAsync(2000);
    const [assigned] = kafka.allAssigned as [AssignedPartition];
    [assigned.next, assigned.isUnproven] = [30, false]; // a seek
    kafka.answers.set(0, batch(30));
    kafka.fetcher.claimed(assigned);
    await vi.advanceTimersByTimeAsync(60);
    expect(kafka.chunks).toMatchObject([{ afterOffset: 29 }]);
  });

  test('that the claim has confirmed fails at once: nobody will send it elsewhere', async () => {
    const kafka = new FakeKafka(1, { stateDecides: true });
    kafka.answers.set(0, OUT_OF_RANGE);
    kafka.log = { start: 20, end: 100 };
    await vi.advanceTimersByTimeAsync(2000);
    expect(kafka.events).toEqual([]);
    kafka.fetcher.claimed(kafka.allAssigned[0]!);
    await vi.advanceTimersByTimeAsync(60);
    expect(kafka.kinds).toEqual(['failed 0: KCR_OFFSET_RANGE']);
  });

  test('that no claim corrects fails after a while', async () => {
    const kafka = new FakeKafka(1, { stateDecides: true });
    kafka.answers.set(0, OUT_OF_RANGE);
    kafka.log = { start: 20, end: 100 };
    await vi.advanceTimersByTimeAsync(40_000);
    expect(kafka.kinds).toEqual(['failed 0: KCR_OFFSET_RANGE']);
  });
});

test('the chunk that takes the last room says so, and no other: whoever waits for more behind it waits for nothing', async () => {
  const kafka = new FakeKafka(1, { budgetBytes: 1_000_000 });
  const half = (base: number) => encodeBatch({ base, records: [{ delta: 0, value: Buffer.alloc(600_000) }] });
  for (const base of [10, 11]) {
    kafka.answers.set(0, half(base));
    await vi.advanceTimersByTimeAsync(1000);
  }
  expect(kafka.chunks.map(({ lastOffset, isLastForNow }) => [lastOffset, isLastForNow])).toEqual([
    [10, undefined],
    [11, true],
  ]);
});

describe('a fetch that is refused or held back as a whole', () => {
  test('J8: is made again, whatever the error is: the source does not end', async () => {
    for (const refusal of [-1, 56, 7, 14, 70]) {
      const kafka = new FakeKafka(1);
      kafka.refusal = refusal;
      kafka.answers.set(0, batch(10));
      await vi.advanceTimersByTimeAsync(10_000);
      expect(kafka.events).toEqual([]);
      expect(kafka.chunks).toHaveLength(1);
    }
  });

  test('J5: a quota is waited out, so that no fetch lies unread with the broker until it is taken for lost', async () => {
    const kafka = new FakeKafka(1);
    kafka.throttleMs = 12_000;
    kafka.answers.set(0, batch(10));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(kafka.chunks).toHaveLength(1);
    expect(kafka.tooEarly).toBe(0);
    expect(kafka.fetches).toBeGreaterThanOrEqual(4);
    expect(kafka.logged).not.toContain('a broker answers fetches at once with nothing, asking it less often');
  });

  test('J5: a broker that names an absurd time is asked again after half a minute', async () => {
    const kafka = new FakeKafka(1);
    kafka.throttleMs = 0x7fffffff;
    await vi.advanceTimersByTimeAsync(100);
    kafka.throttleMs = 0;
    await vi.advanceTimersByTimeAsync(31_000);
    expect(kafka.fetches).toBeGreaterThanOrEqual(2);
  });
});
