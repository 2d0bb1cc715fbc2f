// The source against a real broker while topics are deleted, recreated, or retained away under it.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import type { KafkaSourceOptions } from '../../src/kafka/source.js';
import { committedOffsets, createTopic, deleteRecordsBefore, withAdmin } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { send as produce } from './send.js';
import { watchInTest, type Behaviour, type Watch } from './watch.js';

const { brokers } = sharedStack();
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => i + from);
const words = (word: string, count: number) => numbers(count).map((i) => `${word} ${i}`);
/** A busy machine does not lose its session: that would be a generation more. */
const QUICK = { heartbeatIntervalMs: 200, sessionTimeoutMs: 15_000, rebalanceTimeoutMs: 20_000 } as const;

async function newTopic(partitions = 1): Promise<string> {
  const topic = `resets-${randomUUID()}`;
  await createTopic(brokers, topic, { partitions });
  return topic;
}

async function recreate(topic: string, partitions = 1): Promise<void> {
  await withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [topic] }));
  await vi.waitFor(() => createTopic(brokers, topic, { partitions }), { timeout: 10_000, interval: 100 });
}

function watch(topics: string | string[], options: Partial<KafkaSourceOptions> = {}, behaviour: Behaviour = {}): Watch {
  const list = [topics].flat();
  return watchInTest(
    { brokers, topics: list, groupId: list[0] as string, fromBeginning: true, ...QUICK, ...options },
    behaviour,
  );
}

const committed = (topic: string): Promise<string[]> => committedOffsets(brokers, topic, topic);

/** What was delivered under each epoch, in their order. */
function byTenure(watching: Watch): string[][] {
  return watching
    .of('assigned')
    .map(({ assignment: { assignmentId } }) =>
      watching.chunks
        .filter(({ assignment }) => assignment.assignmentId === assignmentId)
        .flatMap(({ records }) => records.map(({ value }) => String(value))),
    );
}

describe('the topic id', () => {
  let topic: string;
  beforeAll(async () => {
    topic = await newTopic();
  });

  test('of an assignment is the one Kafka gives, and another one when the topic was recreated while nobody read', async () => {
    const ids: (string | undefined)[] = [];
    for (let round = 0; round < 2; round++) {
      const watching = watch(topic);
      await watching.until(({ owned }) => owned.length === 1);
      ids.push(watching.owned[0]?.topicId);
      watching.source.drain();
      await watching.until(({ isComplete }) => isComplete);
      await recreate(topic);
    }
    for (const id of ids) expect(id).toMatch(/^[\w-]{22}$/);
    expect(ids[0]).not.toBe(ids[1]);
  });
});

describe('a topic that is recreated while it is read', () => {
  /** The source sleeps over it and wakes up when the new topic has more records than the old one had. */
  async function overgrown(options: Partial<KafkaSourceOptions>): Promise<{ watching: Watch; topic: string }> {
    const topic = await newTopic();
    await produce(brokers, topic, words('old', 5));
    const watching = watch(topic, options);
    await watching.until(({ records }) => records.length === 5);
    await watching.commit(watching.owned[0]!, 5);
    watching.source.pause();
    await sleep(400);
    await recreate(topic);
    await produce(brokers, topic, words('new', 20));
    watching.source.resume();
    return { watching, topic };
  }

  test('gives nothing under the old assignment, however fast it grew, and all of it under the next, for the claim to decide', async () => {
    const { watching } = await overgrown({ stateDecides: true });
    await watching.until(({ records }) => records.length >= 25);
    await sleep(500);
    expect(byTenure(watching)).toEqual([words('old', 5), words('new', 20)]);
    const [before, after] = watching.of('assigned').map(({ assignment }) => assignment);
    expect(after).toMatchObject({ generation: before?.generation, startOffset: 0 });
    expect(after?.assignmentId).toBeGreaterThan(before?.assignmentId as number);
    expect(after?.topicId).not.toBe(before?.topicId);
    expect(watching.of('lost').map(({ assignment }) => assignment)).toEqual([before]);
  });

  test('starts again by itself under "restart", and a restart of the program does not go back to the old offset', async () => {
    const { watching, topic } = await overgrown({ onReset: 'restart' });
    await watching.until(({ records }) => records.length >= 25);
    expect(byTenure(watching)).toEqual([words('old', 5), words('new', 20)]);
    expect(await committed(topic)).toEqual(['0']);
  });

  test('fails where nobody would decide, and what is new stays in Kafka until somebody does', async () => {
    const { watching } = await overgrown({});
    await watching.until((self) => self.of('failed').length === 1);
    await sleep(500);
    expect(watching.of('failed')[0]?.error).toMatchObject({
      code: 'KCR_TOPIC_RESET',
      message: expect.stringContaining('recreated') as string,
    });
    expect(byTenure(watching)).toEqual([words('old', 5)]);
    expect(watching.owned).toHaveLength(1);
  });

  test('between two generations is not taken for the one before', async () => {
    for (const onReset of ['halt', 'restart'] as const) {
      const topic = await newTopic(2);
      await produce(
        brokers,
        topic,
        words('old', 4).map((value) => ({ value, partition: 0 })),
      );
      let isRecreated = false;
      const first = watch(
        topic,
        { onReset, groupId: topic },
        {
          onRevoked: ({ assignment, release }, self) => {
            // The commit comes after the topic was recreated: the old offset is committed for the new topic.
            void vi
              .waitUntil(() => isRecreated, { timeout: 15_000 })
              .then(() => self.commit(assignment, assignment.partition === 0 ? 4 : 0))
              .then(release);
          },
        },
      );
      await first.until(({ records }) => records.length === 4);
      const second = watch(topic, { onReset, groupId: topic });
      await first.until((self) => self.of('revoked').length === 2);
      await recreate(topic, 2);
      await produce(
        brokers,
        topic,
        words('new', 8).flatMap((value) => [0, 1].map((partition) => ({ value, partition }))),
      );
      isRecreated = true;
      await first.until(({ owned }) => owned.length === 1);
      await second.until(({ owned }) => owned.length === 1);
      if (onReset === 'restart') {
        await first.until((self) => byTenure(self).at(-1)?.length === 8);
      } else {
        await first.until((self) => self.of('failed').length === 1);
        expect(first.of('failed')[0]?.error.code).toBe('KCR_TOPIC_RESET');
        expect(byTenure(first).at(-1)).toEqual([]);
      }
      first.unsubscribe();
      second.unsubscribe();
    }
  });
});

describe('a topic that is gone', () => {
  test('does not stop the others, nor their rebalance, and is read again when it is back', async () => {
    const [gone, stays] = [await newTopic(), await newTopic(2)];
    const first = watch([gone, stays], { metadataMaxAgeMs: 1000, onReset: 'restart' });
    await first.until(({ owned }) => owned.length === 3);
    await withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [gone] }));
    await sleep(1500);
    const second = watch(stays, { groupId: gone });
    await second.until(({ owned }) => owned.length === 1, 20_000);
    await produce(
      brokers,
      stays,
      words('on', 8).map((value, i) => ({ value, partition: i % 2 })),
    );
    // Who notices late that the topic is gone asks for one more rebalance, after which what nobody committed is read again.
    await first.until(() => new Set([...first.values, ...second.values]).size === 8);
    expect(first.error).toBeUndefined();
    await createTopic(brokers, gone);
    await produce(brokers, gone, ['back']);
    await first.until(({ values }) => values.includes('back'), 20_000);
  });
});

describe('retention', () => {
  test('that overtakes a running consumer fails its partition with what was lost, or passes over it where that is wanted', async () => {
    for (const onOutOfRange of [undefined, ({ logStart }: { logStart: number }) => logStart]) {
      const topic = await newTopic();
      await produce(brokers, topic, words('first', 5));
      const watching = watch(topic, { onOutOfRange });
      await watching.until(({ records }) => records.length === 5);
      watching.source.pause();
      // A fetch that was under way must be over: it would bring what is deleted below.
      await sleep(1500);
      await produce(brokers, topic, words('second', 5));
      await deleteRecordsBefore(brokers, topic, 0, 8n);
      watching.source.resume();
      if (onOutOfRange === undefined) {
        await watching.until((self) => self.of('failed').length === 1);
        expect(watching.of('failed')[0]?.error).toMatchObject({
          code: 'KCR_OFFSET_RANGE',
          message: expect.stringContaining('3 offsets were deleted') as string,
        });
      } else {
        await watching.until(({ records }) => records.length === 7);
        expect(watching.chunks.slice(1)).toMatchObject([
          { afterOffset: 4, lastOffset: 7, records: [] },
          { afterOffset: 7, lastOffset: 9 },
        ]);
      }
    }
  });

  test('that overtook a group while it was down waits for the state to say where to go on', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, words('r', 10));
    await withAdmin(brokers, (admin) =>
      admin.setOffsets({ groupId: topic, topic, partitions: [{ partition: 0, offset: '2' }] }),
    );
    await deleteRecordsBefore(brokers, topic, 0, 6n);
    const watching = watch(topic, { stateDecides: true });
    await watching.until(({ owned }) => owned.length === 1);
    await sleep(1500);
    expect(watching.of('failed')).toEqual([]);
    await watching.seek(watching.owned[0]!, 7);
    await watching.until(({ records }) => records.length === 3);
    expect(watching.values).toEqual(['r 7', 'r 8', 'r 9']);
  });
});

describe("the group's offsets", () => {
  test('that an administrator set while nobody was in the group are where the assignment says that it begins', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, words('r', 10));
    for (const offset of [7, 3, 10]) {
      await withAdmin(brokers, (admin) =>
        admin.setOffsets({ groupId: topic, topic, partitions: [{ partition: 0, offset: String(offset) }] }),
      );
      const watching = watch(topic);
      await watching.until(({ owned }) => owned.length === 1);
      expect(watching.owned[0]?.startOffset).toBe(offset);
      if (offset < 10) await watching.until(({ records }) => records.length === 10 - offset);
      watching.source.drain();
      await watching.until(({ isComplete }) => isComplete);
    }
  });

  test('beyond the log begin at its end under "restart", which is written down', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, words('r', 3));
    await withAdmin(brokers, (admin) =>
      admin.setOffsets({ groupId: topic, topic, partitions: [{ partition: 0, offset: '900' }] }),
    );
    const watching = watch(topic, { onReset: 'restart' });
    await watching.until((self) => self.of('assigned').length === 2);
    expect(watching.owned[0]?.startOffset).toBe(3);
    await produce(brokers, topic, ['next']);
    await watching.until(({ records }) => records.length === 1);
    expect(watching.values).toEqual(['next']);
    expect(await committed(topic)).toEqual(['3']);
  });

  test('and what is kept beside them are not touched by a start, also where the state says something else', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, words('r', 3));
    const first = watch(topic);
    await first.until(({ records }) => records.length === 3);
    await first.commitOnce(first.owned[0]!, 2, 'kept');
    first.source.drain();
    await first.until(({ isComplete }) => isComplete);
    const second = watch(topic, { stateDecides: true });
    await second.until(({ records }) => records.length === 1);
    expect(await second.committed(second.owned[0]!)).toMatchObject({ next: 2, metadata: 'kept' });
  });
});

test("where the state goes on at the group's offset and retention has taken it, the partition fails with the claim, not half a minute later", async () => {
  const topic = await newTopic();
  await produce(brokers, topic, words('r', 5));
  const first = watch(topic);
  await first.until(({ records }) => records.length === 5);
  await first.commit(first.owned[0]!, 2);
  first.source.drain();
  await first.until(({ isComplete }) => isComplete);
  await deleteRecordsBefore(brokers, topic, 0, 4n);
  const second = watch(topic, { stateDecides: true });
  await second.until(({ lines }) => lines.join().includes('waiting for the state to say where to go on'));
  expect(second.of('failed')).toEqual([]);
  second.source.claimed?.(second.owned[0]!, undefined);
  await second.until((self) => self.of('failed').length === 1, 10_000);
  expect(second.of('failed')[0]!.error).toMatchObject({
    code: 'KCR_OFFSET_RANGE',
    fields: { topic, partition: 0, offset: 2 },
  });
});

describe('the ends of the log', () => {
  test('are those of the partition before anything was fetched, and the holes at its end count', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, words('r', 5));
    await produce(brokers, topic, ['aborted'], { transactional: 'abort' });
    await deleteRecordsBefore(brokers, topic, 0, 2n);
    const ends: Promise<unknown>[] = [];
    const watching = watch(
      topic,
      {},
      { onEvent: ({ kind, assignment }, self) => kind === 'assigned' && ends.push(self.logEnds(assignment)) },
    );
    await watching.until(() => ends.length === 1);
    expect(await ends[0]).toEqual({ start: 2, end: 7 });
    watching.source.drain();
    await watching.until(({ isComplete }) => isComplete);
    await expect(watching.logEnds(watching.of('assigned')[0]!.assignment)).rejects.toMatchObject({
      code: 'KCR_FENCED',
    });
  });

  test('of a topic that was recreated are never told as those of the one before', async () => {
    const topic = await newTopic();
    await produce(brokers, topic, words('old', 5));
    const watching = watch(topic, { stateDecides: true });
    await watching.until(({ records }) => records.length === 5);
    watching.source.pause();
    const [old] = watching.owned as [NonNullable<(typeof watching.owned)[0]>];
    await recreate(topic);
    await expect(watching.logEnds(old)).rejects.toMatchObject({ code: 'KCR_KAFKA_UNREACHABLE', retryable: true });
    watching.source.resume();
    await watching.until(({ owned }) => owned[0] !== undefined && owned[0].assignmentId > old.assignmentId);
    expect(await watching.logEnds(watching.owned[0]!)).toEqual({ start: 0, end: 0 });
  });
});

describe('a partition that is reassigned', () => {
  test('is lost at once and assigned again in the same generation, where the group stands by then', async () => {
    const topic = await newTopic(2);
    await produce(
      brokers,
      topic,
      words('r', 10).map((value) => ({ value, partition: 0 })),
    );
    const assignedAtMs: number[] = [];
    const watching = watch(
      topic,
      { sessionTimeoutMs: 2000 },
      { onEvent: ({ kind }) => kind === 'assigned' && assignedAtMs.push(performance.now()) },
    );
    await watching.until(({ records }) => records.length === 10);
    const [first] = watching.owned as [NonNullable<(typeof watching.owned)[0]>];
    await watching.commit(first, 6);
    const renewedAtMs = performance.now();
    watching.source.reassign(first);
    expect(watching.of('lost').map(({ assignment }) => assignment)).toEqual([first]);
    expect(watching.source.assignmentOf(topic, 0)).toBeUndefined();
    watching.source.reassign(first); // it is over: nothing happens
    await watching.until(({ owned }) => owned.length === 2);
    expect(assignedAtMs.at(-1)! - renewedAtMs).toBeGreaterThan(1500);
    const again = watching.source.assignmentOf(topic, 0);
    expect(again).toMatchObject({
      topic,
      partition: 0,
      generation: first.generation,
      startOffset: 6,
      topicId: first.topicId,
    });
    await watching.until(({ records }) => records.length === 14);
    // The second time the pause is twice as long.
    const againAtMs = performance.now();
    watching.source.reassign(again!);
    expect(watching.owned).toHaveLength(1);
    await watching.until(({ owned }) => owned.length === 2);
    expect(assignedAtMs.at(-1)! - againAtMs).toBeGreaterThan(3000);
    expect(watching.of('lost')).toHaveLength(2);
    expect(watching.lines.join()).toMatch(/claimed again after a pause/);
  });

  test('is not assigned any more when the session ended meanwhile, nor when it is draining', async () => {
    const topic = await newTopic(2);
    const watching = watch(
      topic,
      {},
      { onRevoked: ({ assignment, release }, self) => (self.source.reassign(assignment), release()) },
    );
    await watching.until(({ owned }) => owned.length === 2);
    watching.source.reassign(watching.owned[0]!);
    watching.source.drain();
    await watching.until(({ isComplete }) => isComplete);
    await sleep(2500);
    expect(watching.of('assigned')).toHaveLength(2);
    expect(watching.of('lost')).toHaveLength(1);
    expect(watching.of('revoked')).toHaveLength(1);
  });
});
