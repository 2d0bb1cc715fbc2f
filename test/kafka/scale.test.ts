// Thousands of partitions: what is done for each of them must not go through all of them. Work is counted, not timed.
import { describe, expect, test } from 'vitest';
import { Assignments } from '../../src/kafka/group/assignments.js';
import { Inquiries } from '../../src/kafka/group/inquiries.js';
import { newAssignedPartition } from '../../src/kafka/group/assigned-partition.js';
import { Generation } from '../../src/kafka/group/generation.js';
import { knownLeader, knownTopicId } from '../../src/kafka/connection/metadata.js';
import type { KafkaConnection } from '../../src/kafka/connection/kafka-connection.js';
import { Credits } from '../../src/model/credits.js';
import type { Assignment } from '../../src/model/record.js';

const COUNT = 10_000;

/** Metadata that counts how often one of its topics is looked at. */
function counted(topics: number, partitionsEach: number) {
  let looks = 0;
  const partitionMetadata = Array.from({ length: partitionsEach }, (_, partitionId) => ({
    partitionErrorCode: 0,
    partitionId,
    leader: partitionId % 3,
  }));
  const topicMetadata = Array.from({ length: topics }, (_, i) => ({
    get topic() {
      looks++;
      return `t${i}`;
    },
    topicErrorCode: 0,
    topicId: `id-${i}`,
    partitionMetadata,
  }));
  return {
    cluster: { brokerPool: { metadata: { topicMetadata } } } as unknown as KafkaConnection['cluster'],
    looks: () => looks,
  };
}

const assigned = (index: number, topic = `t${index}`, partition = 0): Assignment => ({
  topic,
  partition,
  topicId: `id-${index}`,
  assignmentId: index,
  generation: 1,
  startOffset: 0,
});

describe('thousands of partitions in one process', () => {
  test('J1: no topic is searched for among all the others, however often its partitions are asked for', () => {
    const { cluster, looks } = counted(COUNT, 1);
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < COUNT; i++) {
        expect(knownLeader(cluster, `t${i}`, 0)).toBe(0);
        expect(knownTopicId(cluster, `t${i}`)).toBe(`id-${i}`);
      }
    }
    expect(looks()).toBeLessThanOrEqual(2 * COUNT);
    expect(knownLeader(cluster, 't1', 1)).toBeUndefined();
    expect(knownLeader(cluster, 'another', 0)).toBeUndefined();
  });

  test('J1: the ends of all logs are asked for in a few requests, and no answer goes to another partition', async () => {
    const { cluster } = counted(COUNT, 1);
    const sizes: number[] = [];
    let refreshes = 0;
    const listOffsets = async ({
      topics,
    }: {
      topics: { topic: string; partitions: { partition: number; timestamp: string }[] }[];
    }) => {
      sizes.push(topics.length);
      return {
        responses: topics.map(({ topic, partitions }) => ({
          topic,
          partitions: partitions.map(({ partition, timestamp }) => ({
            partition,
            errorCode: 0,
            offset: timestamp === '-2' ? '1' : `${Number(topic.slice(1)) + 1}`,
          })),
        })),
      };
    };
    const kafka = {
      cluster: Object.assign(cluster, {
        findBroker: async () => ({ listOffsets, connectionPool: {} }),
        refreshMetadata: async () => void refreshes++,
      }),
    } as unknown as KafkaConnection;
    const inquiries = new Inquiries(kafka, { committed: async () => [] });
    const logs = await Promise.all(Array.from({ length: COUNT }, (_, i) => inquiries.log(assigned(i))));
    expect(logs.every(({ end }, i) => end === i + 1)).toBe(true);
    expect(sizes).toEqual(Array.from({ length: 10 }, () => 2000));
    expect(refreshes).toBe(5);
  });

  test('J6: the end of a log that nobody leads is unknown for its own partition only', async () => {
    const { cluster } = counted(2, 1);
    const listOffsets = async ({ topics }: { topics: { topic: string }[] }) => ({
      responses: topics.map(({ topic }) => ({ topic, partitions: [{ partition: 0, errorCode: 0, offset: '5' }] })),
    });
    const kafka = {
      cluster: Object.assign(cluster, {
        findBroker: async () => ({ listOffsets, connectionPool: {} }),
        refreshMetadata: async () => undefined,
      }),
    } as unknown as KafkaConnection;
    const inquiries = new Inquiries(kafka, { committed: async () => [] });
    const outcomes = await Promise.allSettled([inquiries.log(assigned(0)), inquiries.log(assigned(1, 't1', 7))]);
    expect(outcomes[0]).toEqual({ status: 'fulfilled', value: { start: 5, end: 5 } });
    expect(outcomes[1]).toMatchObject({
      status: 'rejected',
      reason: { code: 'KCR_KAFKA_UNREACHABLE', fields: { topic: 't1', partition: 7 } },
    });
  });

  test('J1: an assignment is found by its name while it is ours, and a later one of the same partition in its place', () => {
    const assignments = new Assignments();
    const generation = new Generation({ memberId: 'm', generationId: 1, isLeader: false, partitions: [] });
    const [first, second] = [
      newAssignedPartition(assigned(1, 't', 0), generation, 0),
      newAssignedPartition(assigned(2, 't', 0), generation, 0),
    ];
    assignments.add(first);
    assignments.add(second);
    expect(assignments.find('t', 0)).toBe(second);
    assignments.remove(first);
    expect(assignments.find('t', 0)).toBe(second);
    expect(first.ended.signal.aborted).toBe(true);
    assignments.remove(second);
    expect(assignments.find('t', 0)).toBeUndefined();
  });

  test('J1: a partition that is paused for its share goes on when others leave, without all being looked at for each', () => {
    const credits = new Credits(1000);
    for (let assignmentId = 0; assignmentId < COUNT; assignmentId++) credits.open(assignmentId);
    credits.delivered(0, { lastOffset: 0, held: 1, fetched: 1 });
    expect(credits.mayFetch(0, 5)).toBe(false);
    for (let assignmentId = 1; assignmentId < COUNT; assignmentId++) credits.close(assignmentId);
    expect(credits.mayFetch(0, 5)).toBe(true);
  });
});
