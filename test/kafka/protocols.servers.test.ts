// A group that has a member of the newer protocol (KIP-848): the broker converts it, deals out the partitions itself, and
// has no generations any more.
import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test } from 'vitest';
import { Membership } from '../../src/kafka/group/membership.js';
import { sourceSettings } from '../../src/kafka/options.js';
import type { JoinedGroup } from '../../src/kafka/group/generation.js';
import { openConnection } from '../../src/kafka/connection/kafka-connection.js';
import { committedOffsets, createTopic } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { javaMember } from './java-member.js';

const { brokers } = sharedStack();

async function memberOf(topic: string) {
  const log: string[] = [];
  const settings = sourceSettings({
    brokers,
    topics: [topic],
    groupId: topic,
    heartbeatIntervalMs: 200,
    sessionTimeoutMs: 120_000,
    rebalanceTimeoutMs: 120_000,
    log: (level, message) => log.push(`${level} ${message}`),
  });
  const kafka = openConnection(settings);
  const membership = new Membership(kafka, settings);
  await kafka.cluster.connect();
  onTestFinished(async () => {
    await membership.leave();
    await kafka.cluster.disconnect().then(() => kafka.end());
  });
  const never = new AbortController().signal;
  const join = async (): Promise<JoinedGroup> => (await membership.join(never))!;
  /** Joins again and again until the group has settled. */
  const settle = async (until: (joined: JoinedGroup) => boolean): Promise<JoinedGroup> => {
    for (let joined = await join(); ; joined = await join()) {
      for (let beats = 0; beats < 20 && (await membership.beat(joined)) === 'alive'; beats++) {
        if (until(joined)) return joined;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  };
  return { membership, join, settle, log };
}

test('J2: a demanded generation that does not come is made up for: the member comes back under another id, and late commits are refused', async () => {
  const topic = `protocols-${randomUUID()}`;
  await createTopic(brokers, topic, { partitions: 2 });
  await javaMember(brokers, topic, [topic]);
  const { membership, settle, log } = await memberOf(topic);
  const before = await settle(({ partitions }) => partitions.length === 1);
  const { partition } = before.partitions[0]!;
  const commit = { topic, partition, metadata: null };
  await membership.commitOnce(before, { ...commit, next: 7 });
  membership.demandGeneration(before);
  const after = await settle(({ partitions }) => partitions.length === 1);
  expect(after.memberId).not.toBe(before.memberId);
  expect(log.join()).toContain('joining it as another member');
  await expect(membership.commitOnce(before, { ...commit, next: 3 })).rejects.toMatchObject({
    code: 'KCR_FENCED',
    fields: { serverCode: 'UNKNOWN_MEMBER_ID' },
  });
  expect((await committedOffsets(brokers, topic, topic))[partition]).toBe('7');
  await membership.commitOnce(after, { topic, partition: after.partitions[0]!.partition, metadata: null, next: 8 });
});

test('J2: a member of the newer protocol does not get into a group of ours: the broker refuses it, and we go on', async () => {
  const topic = `protocols-${randomUUID()}`;
  await createTopic(brokers, topic, { partitions: 2 });
  const { membership, join } = await memberOf(topic);
  const joined = await join();
  expect(joined.partitions).toHaveLength(2);
  const java = await javaMember(brokers, topic, [topic]);
  expect(java.lines).toEqual(['refused']);
  expect(await membership.beat(joined)).toBe('alive');
  await membership.commitOnce(joined, { topic, partition: 0, metadata: null, next: 1 });
});
