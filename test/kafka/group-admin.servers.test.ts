// The source as a member of a group: partitions change hands without a record lost or committed by the wrong one.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { Membership } from '../../src/kafka/group/membership.js';
import { sourceSettings } from '../../src/kafka/options.js';
import type { KafkaSourceOptions } from '../../src/kafka/source.js';
import { openConnection } from '../../src/kafka/connection/kafka-connection.js';
import type { Assignment } from '../../src/model/record.js';
import { committedOffsets, createTopic, withAdmin } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { send as produce } from './send.js';
import { watchInTest, type Behaviour, type Watch } from './watch.js';

const { brokers } = sharedStack();
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => i + from);
/** Quick enough for a test: rebalances are seen within 200 ms. */
const QUICK = { heartbeatIntervalMs: 200, sessionTimeoutMs: 6000, rebalanceTimeoutMs: 20_000 } as const;

async function newTopic(partitions = 1): Promise<string> {
  const topic = `group-${randomUUID()}`;
  await createTopic(brokers, topic, { partitions });
  return topic;
}

function watch(topic: string, options: Partial<KafkaSourceOptions> = {}, behaviour: Behaviour = {}): Watch {
  return watchInTest(
    { brokers, topics: [topic], groupId: topic, fromBeginning: true, ...QUICK, ...options },
    behaviour,
  );
}

const committed = (topic: string): Promise<string[]> => committedOffsets(brokers, topic, topic);

async function members(topic: string): Promise<string[]> {
  const { groups } = await withAdmin(brokers, (admin) => admin.describeGroups([topic]));
  return groups.flatMap((group) => group.members.map(({ memberId }) => memberId));
}

/** Somebody removes a member from the group, as the coordinator does when it hears nothing of it. */
async function expel(topic: string): Promise<void> {
  const [memberId] = await members(topic);
  const kafka = openConnection(sourceSettings({ brokers, topics: [topic], groupId: topic }));
  await kafka.cluster.connect();
  await kafka.cluster.addMultipleTargetTopics([topic]);
  const coordinator = await kafka.cluster.findGroupCoordinator({ groupId: topic });
  await coordinator.leaveGroup({ groupId: topic, memberId: memberId as string });
  await kafka.cluster.disconnect();
}

const names = (assignments: readonly Assignment[]) => assignments.map(({ partition }) => partition).sort();

describe('a rebalance', () => {
  test('waits for what is in flight: it is committed under the old generation, and the next owner begins behind it', async () => {
    const topic = await newTopic(4);
    await produce(
      brokers,
      topic,
      numbers(400).map((i) => ({ value: `${i}`, partition: i % 4 })),
    );
    const commits: Promise<void>[] = [];
    const first = watch(
      topic,
      {},
      {
        onRevoked: ({ assignment, release }, self) => {
          const last =
            self.chunks.filter((chunk) => chunk.assignment.assignmentId === assignment.assignmentId).at(-1)
              ?.lastOffset ?? -1;
          const commit = sleep(500)
            .then(() => self.commit(assignment, last + 1))
            .then(release);
          commits.push(commit);
        },
      },
    );
    await first.until(({ records }) => records.length === 400);
    const second = watch(topic);
    await second.until(({ owned }) => owned.length === 2);
    await first.until(({ owned }) => owned.length === 2);
    await expect(Promise.all(commits)).resolves.toHaveLength(4);
    expect(await committed(topic)).toEqual(['100', '100', '100', '100']);
    expect([...names(first.owned), ...names(second.owned)].sort()).toEqual([0, 1, 2, 3]);
    expect(first.of('lost')).toEqual([]);
    await produce(
      brokers,
      topic,
      numbers(40).map((i) => ({ value: `more ${i}`, partition: i % 4 })),
    );
    await first.until(() => first.records.length + second.records.length === 440);
    await sleep(300);
    // Nothing was delivered to both.
    expect(second.chunks.every(({ afterOffset }) => afterOffset >= 99)).toBe(true);
    expect(first.records.length + second.records.length).toBe(440);
  });

  test('comes at any moment: nothing is delivered of a partition after it was revoked', async () => {
    const topic = await newTopic(4);
    for (let i = 0; i < 20; i++)
      await produce(
        brokers,
        topic,
        numbers(400).map((n) => ({ value: `${n}`.padEnd(1000, 'x'), partition: n % 4 })),
      );
    // Each drains from within the delivery of a chunk: the rest of that fetch is still to come.
    for (const nth of [1, 2, 3, 5, 8]) {
      let chunks = 0;
      const watching = watch(
        topic,
        { groupId: `${topic}-${nth}`, maxBytesPerPartition: 300_000 },
        {
          onChunk: (chunk, { source }) => {
            source.done(chunk.assignment, chunk.lastOffset);
            if (++chunks === nth) source.drain();
          },
          onRevoked: ({ release }) => void sleep(200).then(release),
        },
      );
      await watching.until(({ isComplete }) => isComplete);
      expect(watching.breaches).toEqual([]);
    }
  });

  test('is not missed by heartbeats while a flush lasts longer than the session: the commit is still accepted', async () => {
    const topic = await newTopic(2);
    await produce(
      brokers,
      topic,
      numbers(10).map((i) => ({ value: `${i}`, partition: i % 2 })),
    );
    let commits = 0;
    const first = watch(
      topic,
      { sessionTimeoutMs: 3000, drainTimeoutMs: 15_000 },
      {
        onRevoked: ({ assignment, release }, self) => {
          void sleep(6000)
            .then(() => self.commit(assignment, 5))
            .then(() => {
              commits++;
              release();
            });
        },
      },
    );
    await first.until(({ records }) => records.length === 10);
    const second = watch(topic);
    await second.until(({ owned }) => owned.length === 1);
    expect(commits).toBe(2);
    expect(first.of('lost')).toEqual([]);
    expect(await committed(topic)).toEqual(['5', '5']);
  });

  test('does not wait for ever: what is not released in time is lost, and its late commit is refused', async () => {
    const topic = await newTopic(2);
    await produce(
      brokers,
      topic,
      numbers(10).map((i) => ({ value: `${i}`, partition: i % 2 })),
    );
    const first = watch(
      topic,
      { drainTimeoutMs: 1000 },
      { onRevoked: ({ assignment, release }) => assignment.partition === 0 && release() },
    );
    await first.until(({ records }) => records.length === 10);
    const [, kept] = first.owned as [Assignment, Assignment];
    const second = watch(topic);
    await second.until(({ owned }) => owned.length === 1);
    expect(first.of('lost').map(({ assignment }) => assignment)).toEqual([kept]);
    await expect(first.commit(kept, 5)).rejects.toMatchObject({ code: 'KCR_FENCED' });
    await first.until(({ owned }) => owned.length === 1);
    expect(await committed(topic)).toEqual(['0', '0']);
  });

  test('takes partitions from a member that leaves without waiting for its session to run out', async () => {
    const topic = await newTopic(2);
    // Far longer than a rebalance takes on a busy machine.
    const patient = { sessionTimeoutMs: 120_000 };
    const [first, second] = [watch(topic, patient), watch(topic, patient)];
    await first.until(() => first.owned.length === 1 && second.owned.length === 1);
    first.unsubscribe();
    await second.until(({ owned }) => owned.length === 2);
    expect(first.of('revoked')).toHaveLength(first.of('assigned').length - 1);
  });

  test('follows when the topic gets more partitions, and their first records are not skipped', async () => {
    const topic = await newTopic(1);
    const watching = watch(topic, { fromBeginning: false, metadataMaxAgeMs: 1500 });
    await watching.until(({ owned }) => owned.length === 1);
    await withAdmin(brokers, (admin) => admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] }));
    await sleep(200);
    await produce(
      brokers,
      topic,
      numbers(9).map((i) => ({ value: `${i}`, partition: i % 3 })),
    );
    await watching.until(({ owned }) => owned.length === 3);
    await watching.until(({ records }) => new Set(records.map(({ value }) => value?.toString())).size === 9);
  });
});

describe('the fence', () => {
  test('a commit under a generation that is over is refused by the broker, though the member is still in the group', async () => {
    const topic = await newTopic(1);
    const settings = sourceSettings({ brokers, topics: [topic], groupId: topic, ...QUICK });
    const [one, two] = [openConnection(settings), openConnection(settings)];
    const [mine, theirs] = [new Membership(one, settings), new Membership(two, settings)];
    const never = new AbortController().signal;
    for (const { cluster } of [one, two]) {
      await cluster.connect();
      await cluster.addMultipleTargetTopics([topic]);
    }
    onTestFinished(async () => {
      await Promise.all([mine.leave(), theirs.leave()]);
      for (const { cluster, cut } of [one, two]) await cluster.disconnect().then(() => cut());
    });
    const old = (await mine.join(never))!;
    const request = { topic, partition: 0, next: 7, metadata: null };
    await mine.commit(old, request, never);
    const joining = theirs.join(never);
    // The group prepares to rebalance: the old generation may still commit, and is still alive.
    while ((await mine.beat(old)) === 'alive') await sleep(20);
    await mine.commit(old, { ...request, next: 8 }, never);
    expect(await committed(topic)).toEqual(['8']);
    const fresh = (await mine.join(never))!;
    await joining;
    expect(fresh.generationId).toBeGreaterThan(old.generationId);
    expect(fresh.memberId).toBe(old.memberId);
    await expect(mine.commit(old, { ...request, next: 3 }, never)).rejects.toMatchObject({
      code: 'KCR_FENCED',
      fields: { serverCode: 'ILLEGAL_GENERATION' },
    });
    await mine.commit(fresh, { ...request, next: 9 }, never);
    expect(await committed(topic)).toEqual(['9']);
  });

  test('a member that was expelled cannot commit, hears at once that its partitions are lost, and comes back', async () => {
    const topic = await newTopic(1);
    await produce(brokers, topic, ['a', 'b']);
    const watching = watch(topic, {
      heartbeatIntervalMs: 60_000,
      sessionTimeoutMs: 120_000,
      rebalanceTimeoutMs: 120_000,
    });
    await watching.until(({ records }) => records.length === 2);
    const [old] = watching.owned as [Assignment];
    await expel(topic);
    await expect(watching.commit(old, 2)).rejects.toMatchObject({
      code: 'KCR_FENCED',
      fields: { serverCode: 'UNKNOWN_MEMBER_ID' },
    });
    await watching.until((self) => self.of('lost').length === 1, 20_000);
    await watching.until(({ records }) => records.length === 4);
    expect(watching.of('revoked')).toEqual([]);
    expect(watching.owned[0]?.assignmentId).toBeGreaterThan(old.assignmentId);
    expect(await committed(topic)).toEqual(['0']);
    await expect(watching.commit(old, 2)).rejects.toMatchObject({ code: 'KCR_FENCED' });
  });

  test('a heartbeat finds it out when nothing is committed', async () => {
    const topic = await newTopic(1);
    const watching = watch(topic);
    await watching.until(({ owned }) => owned.length === 1);
    await expel(topic);
    await watching.until((self) => self.of('lost').length === 1 && self.owned.length === 1);
  });

  test('an expulsion during a drain ends it: the rest is lost', async () => {
    const topic = await newTopic(2);
    const watching = watch(
      topic,
      { drainTimeoutMs: 100_000, rebalanceTimeoutMs: 120_000 },
      { onRevoked: ({ assignment, release }) => assignment.partition === 0 && release() },
    );
    await watching.until(({ owned }) => owned.length === 2);
    watching.source.drain();
    await expel(topic);
    await watching.until(({ isComplete }) => isComplete);
    expect(watching.of('lost').map(({ assignment }) => assignment.partition)).toEqual([1]);
  });

  test('a seek, done or halt of an assignment that is over does nothing', async () => {
    const topic = await newTopic(1);
    await produce(brokers, topic, ['a', 'b']);
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 2);
    const [old] = watching.owned as [Assignment];
    await expel(topic);
    await watching.until(({ records }) => records.length === 4);
    await expect(watching.seek(old, 0)).rejects.toMatchObject({ code: 'KCR_FENCED' });
    watching.source.halt(old);
    watching.source.done(old, 1000);
    await produce(brokers, topic, ['c']);
    await watching.until(({ records }) => records.length === 5);
  });
});

describe('the end', () => {
  test('a drain revokes, lets final commits through, leaves the group and completes', async () => {
    const topic = await newTopic(2);
    await produce(
      brokers,
      topic,
      numbers(10).map((i) => ({ value: `${i}`, partition: i % 2 })),
    );
    const watching = watch(
      topic,
      {},
      {
        onRevoked: ({ assignment, release }, self) =>
          void sleep(300)
            .then(() => self.commit(assignment, 5))
            .then(release),
      },
    );
    await watching.until(({ records }) => records.length === 10);
    watching.source.drain();
    watching.source.drain();
    await watching.until(({ isComplete }) => isComplete);
    expect(watching.of('revoked')).toHaveLength(2);
    expect(watching.of('lost')).toEqual([]);
    expect(await committed(topic)).toEqual(['5', '5']);
    expect(await members(topic)).toEqual([]);
  });

  test('a drain that nobody answers ends in time, with what is left lost', async () => {
    const topic = await newTopic(1);
    const watching = watch(topic, { drainTimeoutMs: 700 }, { onRevoked: () => undefined });
    await watching.until(({ owned }) => owned.length === 1);
    watching.source.drain();
    await watching.until(({ isComplete }) => isComplete);
    expect(watching.of('lost')).toHaveLength(1);
  });

  test('a drain or an unsubscription while still joining leaves no member behind that others would wait for', async () => {
    const topic = await newTopic(1);
    // A member that keeps the others waiting in their join: it does not release, until it is told to.
    let release = (): void => undefined;
    const patient = { sessionTimeoutMs: 120_000, drainTimeoutMs: 100_000, rebalanceTimeoutMs: 120_000 };
    const slow = watch(topic, patient, { onRevoked: (event) => (release = event.release) });
    await slow.until(({ owned }) => owned.length === 1);
    const [drained, left] = [watch(topic, patient), watch(topic, patient)];
    await slow.until((self) => self.of('revoked').length === 1);
    await sleep(1000);
    drained.source.drain();
    left.unsubscribe();
    await drained.until(({ isComplete }) => isComplete);
    await vi.waitFor(async () => expect(await members(topic)).toHaveLength(1), { timeout: 30_000, interval: 50 });
    release();
    await slow.until((self) => self.of('assigned').length === 2);
  });

  test('events end at once when unsubscribed, and can be subscribed to again, one at a time', async () => {
    const topic = await newTopic(1);
    await produce(brokers, topic, ['a']);
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 1);
    await expect(new Promise((_, reject) => watching.source.events.subscribe({ error: reject }))).rejects.toMatchObject(
      { code: 'KCR_CONFIG' },
    );
    watching.unsubscribe();
    const count = watching.events.length;
    await produce(brokers, topic, ['b']);
    await sleep(500);
    expect(watching.events).toHaveLength(count);
    const seen: string[] = [];
    const again = watching.source.events.subscribe((event) => seen.push(event.kind));
    onTestFinished(() => again.unsubscribe());
    const startMs = Date.now();
    while (!seen.includes('fetched') && Date.now() - startMs < 10_000) await sleep(20);
    expect(seen.slice(0, 2)).toEqual(['assigned', 'fetched']);
  });
});
