/**
 * Who gets which partition, decided by the group's leader. Pure. The name and the bytes are those of kafkajs's
 * round robin, so that a group may have members of both. Imports: kafkajs, model.
 */
import kafkajs from 'kafkajs';

const { MemberAssignment, MemberMetadata } = kafkajs.AssignerProtocol;

export const ASSIGNOR_NAME = 'RoundRobinAssigner';
const VERSION = 0;

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

export { partitionName as nameOf } from '../../model/partition-name.js';

export interface Member {
  readonly memberId: string;
  readonly memberMetadata: Buffer;
}

/**
 * `userData` means nothing to anybody; but who joins with another one than before makes the group begin a new
 * generation.
 */
export function subscription(
  topics: readonly string[],
  userData: Buffer = Buffer.alloc(0),
): { name: string; metadata: Buffer } {
  return { name: ASSIGNOR_NAME, metadata: MemberMetadata.encode({ version: VERSION, topics: [...topics], userData }) };
}

export function topicsOf(metadata: Buffer): readonly string[] {
  return MemberMetadata.decode(metadata)?.topics ?? [];
}

/**
 * Deals the partitions out in turn, each topic only to the members that want it. `grown` goes along as user data, which
 * members of other programs do not look at.
 */
export function assign(
  members: readonly Member[],
  partitionsOf: (topic: string) => readonly number[],
  grown: readonly string[] = [],
): { memberId: string; memberAssignment: Buffer }[] {
  const wishes = members
    .map(({ memberId, memberMetadata }) => ({ memberId, topics: new Set(topicsOf(memberMetadata)) }))
    .sort((a, b) => (a.memberId < b.memberId ? -1 : 1));
  const dealt = new Map<string, Record<string, number[]>>(wishes.map(({ memberId }) => [memberId, {}]));
  const topics = [...new Set(wishes.flatMap(({ topics }) => [...topics]))].sort();
  let turn = 0;
  for (const topic of topics) {
    const takers = wishes.filter((wish) => wish.topics.has(topic));
    for (const partition of [...partitionsOf(topic)].sort((a, b) => a - b)) {
      const taker = dealt.get((takers[turn++ % takers.length] as { memberId: string }).memberId) as Record<
        string,
        number[]
      >;
      (taker[topic] ??= []).push(partition);
    }
  }
  const userData = Buffer.from(JSON.stringify({ grown }));
  return [...dealt].map(([memberId, assignment]) => ({
    memberId,
    memberAssignment: MemberAssignment.encode({ version: VERSION, assignment, userData }),
  }));
}

export interface DecodedAssignment {
  /** Sorted, so that events come in an order one can read. */
  readonly partitions: TopicPartition[];
  /** Topics that got partitions since the group began to read them; undefined: who dealt said nothing of it. */
  readonly grown: ReadonlySet<string> | undefined;
}

export function decodeAssignment(memberAssignment: Buffer): DecodedAssignment {
  const decoded = MemberAssignment.decode(memberAssignment);
  const partitions = Object.entries(decoded?.assignment ?? {})
    .flatMap(([topic, list]) => list.map((partition) => ({ topic, partition })))
    .sort((a, b) => (a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1));
  return { partitions, grown: grownOf(decoded?.userData) };
}

/** Another program may have dealt, and said something else there. */
function grownOf(userData: Buffer | null | undefined): ReadonlySet<string> | undefined {
  if (userData === null || userData === undefined || userData.length === 0) return undefined;
  try {
    const { grown } = JSON.parse(userData.toString()) as { grown?: unknown };
    if (!Array.isArray(grown) || !grown.every((topic) => typeof topic === 'string')) return undefined;
    return new Set(grown as readonly string[]);
  } catch {
    return undefined;
  }
}
