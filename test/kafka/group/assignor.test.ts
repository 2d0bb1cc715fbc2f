import fc from 'fast-check';
import kafkajs from 'kafkajs';
import { describe, expect, test } from 'vitest';
import { ASSIGNOR_NAME, assign, decodeAssignment, subscription } from '../../../src/kafka/group/assignor.js';

const member = (memberId: string, topics: readonly string[]) => ({
  memberId,
  memberMetadata: subscription(topics).metadata,
});
const dealt = (members: Parameters<typeof assign>[0], counts: Readonly<Record<string, number>>) =>
  assign(members, (topic) => Array.from({ length: counts[topic] ?? 0 }, (_, i) => i)).map(
    ({ memberId, memberAssignment }) => ({
      memberId,
      partitions: decodeAssignment(memberAssignment).partitions,
    }),
  );

describe('dealing out partitions', () => {
  test('each partition has exactly one reader, who wants its topic, and the load is even', () => {
    const topics = fc.constantFrom('a', 'b', 'c');
    const members = fc.array(fc.uniqueArray(topics, { minLength: 1 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(members, fc.record({ a: fc.nat(9), b: fc.nat(9), c: fc.nat(9) }), (wishes, counts) => {
        const result = dealt(
          wishes.map((wish, i) => member(`m${i}`, wish)),
          counts,
        );
        const all = result.flatMap(({ partitions }) =>
          partitions.map(({ topic, partition }) => `${topic}/${partition}`),
        );
        const wanted = [...new Set(wishes.flat())].flatMap((topic) =>
          Array.from({ length: counts[topic] }, (_, i) => `${topic}/${i}`),
        );
        expect(all.sort()).toEqual(wanted.sort());
        for (const { memberId, partitions } of result)
          for (const { topic } of partitions) expect(wishes[Number(memberId.slice(1))]).toContain(topic);
        if (wishes.every((wish) => wish.length === 3)) {
          const loads = result.map(({ partitions }) => partitions.length);
          expect(Math.max(...loads) - Math.min(...loads)).toBeLessThanOrEqual(1);
        }
      }),
    );
  });

  test('a member that got nothing is told so, and one of another client is understood', () => {
    const result = dealt([member('m1', ['a']), member('m2', ['a'])], { a: 1 });
    expect(result).toEqual([
      { memberId: 'm1', partitions: [{ topic: 'a', partition: 0 }] },
      { memberId: 'm2', partitions: [] },
    ]);
    const theirs = kafkajs.PartitionAssigners.roundRobin({ cluster: {} as never, groupId: 'g', logger: {} as never });
    expect(theirs.name).toBe(ASSIGNOR_NAME);
    expect(theirs.protocol({ topics: ['a'] }).metadata).toEqual(subscription(['a']).metadata);
    expect(decodeAssignment(Buffer.alloc(0))).toEqual({ partitions: [], grown: undefined });
  });
});
