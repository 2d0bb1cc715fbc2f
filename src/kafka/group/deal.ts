/**
 * The leader's work between a join and its sync: which partitions there are, who gets them, and which of them were
 * added to a topic that the group was reading already. It asks; who is told is membership.ts.
 * Imports: kafka/connection.
 */
import { assign, nameOf, topicsOf, type Member, type TopicPartition } from './assignor.js';
import type { PartitionErrors } from '../connection/partition-errors.js';
import type { Committed } from '../connection/list-offsets.js';
import { isGone, knownTopic } from '../connection/metadata.js';
import { classifyError } from '../connection/classify-error.js';
import { sleep } from '../connection/wait.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';

/** A broker that was just started knows of no topic: so often is it asked again before a topic is dealt to nobody. */
const DEAL_LOOKS = 5;
const DEAL_LOOK_MS = 200;

export interface Deal {
  readonly groupAssignment: { memberId: string; memberAssignment: Buffer }[];
  /** How many partitions of each topic were dealt out. */
  readonly dealt: ReadonlyMap<string, number>;
}

export interface DealPorts {
  readonly kafka: Pick<KafkaConnection, 'cluster'>;
  readonly committed: (
    partitions: readonly TopicPartition[],
  ) => Promise<{ readonly committed: readonly Committed[]; readonly errors: PartitionErrors }>;
}

export async function deal(
  { kafka: { cluster }, committed }: DealPorts,
  members: readonly Member[],
  signal: AbortSignal,
): Promise<Deal> {
  // Other members may read topics that this one does not.
  const topics = [...new Set(members.flatMap(({ memberMetadata }) => topicsOf(memberMetadata)))];
  await cluster.addMultipleTargetTopics(topics).catch((thrown: unknown) => {
    // Theirs to complain about.
    if (classifyError(thrown) === 'transient') throw thrown;
  });
  for (let looks = 1; ; looks++) {
    await cluster.refreshMetadata();
    if (looks === DEAL_LOOKS || !topics.some((topic) => isGone(cluster, topic))) break;
    await sleep(DEAL_LOOK_MS, signal);
  }
  // Taken out of the metadata once: what a later refresh brings is not what was dealt.
  const partitions = new Map(
    topics.map((topic) => [
      topic,
      (knownTopic(cluster, topic)?.partitionMetadata ?? []).map(({ partitionId }) => partitionId),
    ]),
  );
  const all = [...partitions].flatMap(([topic, list]) => list.map((partition) => ({ topic, partition })));
  const grown = all.length === 0 ? [] : grownTopics(all, await committed(all));
  return {
    groupAssignment: assign(members, (topic) => partitions.get(topic) ?? [], grown),
    dealt: new Map([...partitions].map(([topic, { length }]) => [topic, length])),
  };
}

/**
 * Topics of which the group has committed some partitions and not others. All that a group begins with is committed
 * before any of it is read, so the others were added since; one that cannot be told counts as such, since beginning at
 * its beginning loses nothing.
 */
export function grownTopics(
  partitions: readonly TopicPartition[],
  { committed, errors }: { readonly committed: readonly Committed[]; readonly errors: PartitionErrors },
): string[] {
  const next = new Map(committed.map((each) => [nameOf(each), each.next]));
  const begun = new Set(committed.filter((each) => each.next !== undefined).map(({ topic }) => topic));
  const open = new Set(partitions.filter((each) => next.get(nameOf(each)) === undefined).map(({ topic }) => topic));
  const untold = new Set(partitions.filter((each) => errors.has(nameOf(each))).map(({ topic }) => topic));
  return [...new Set([...[...begun].filter((topic) => open.has(topic)), ...untold])].sort();
}
