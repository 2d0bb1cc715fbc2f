/**
 * Where a group and the logs of its topics stand, in a few requests whatever the number of topics is.
 * Imports: kafka/connection.
 */
import { nameOf, type TopicPartition } from './assignor.js';
import { insist } from '../connection/until-coordinator.js';
import { checkedBroker, type KafkajsCluster } from '../connection/broker.js';
import { overLane } from '../connection/lanes.js';
import {
  committedOffsets,
  EARLIEST,
  LATEST,
  listOffsets,
  type Committed,
  type ListOffsets,
} from '../connection/list-offsets.js';
import { partitionsOf } from '../connection/metadata.js';

export interface GroupPosition extends TopicPartition {
  /** The first offset the log holds. */
  readonly logStart: number;
  /** The offset the next record will get. */
  readonly logEnd: number;
  /** Where a reader of committed records gets to: the log's end, or the first record of the oldest open transaction. */
  readonly stableEnd: number;
  /** The offset the group begins at next; undefined: it has committed nothing. */
  readonly committed: number | undefined;
  /** What stands beside the committed offset. */
  readonly metadata: string;
}

/**
 * By topic, in the order that was asked for, then by partition. @throws what Kafka refuses, for any of the partitions.
 */
export async function groupPositions(
  cluster: KafkajsCluster,
  groupId: string,
  topics: readonly string[],
): Promise<GroupPosition[]> {
  await cluster.addMultipleTargetTopics(topics);
  const partitions = partitionsOf(cluster, topics);
  const found = await insist(async () => {
    const coordinator = overLane(checkedBroker(await cluster.findGroupCoordinator({ groupId })), 'offsets');
    return committedOffsets(coordinator, groupId, partitions);
  });
  const committed = new Map(found.map((each): [string, Committed] => [nameOf(each), each]));
  const ask = async (timestamp: string, isolation: ListOffsets['isolation']): Promise<ReadonlyMap<string, number>> => {
    const listed = await listOffsets({ cluster }, partitions, { timestamp, isolation });
    return new Map(listed.map((each) => [nameOf(each), each.offset]));
  };
  // The log's end last: it is never before the stable one then.
  const [starts, stable, ends] = [
    await ask(EARLIEST, 'read_uncommitted'),
    await ask(LATEST, 'read_committed'),
    await ask(LATEST, 'read_uncommitted'),
  ];
  return partitions.map((each): GroupPosition => {
    const name = nameOf(each);
    const { next, metadata = '' } = committed.get(name) ?? {};
    const logEnd = ends.get(name) ?? 0;
    return {
      ...each,
      logStart: starts.get(name) ?? 0,
      logEnd,
      stableEnd: stable.get(name) ?? logEnd,
      committed: next,
      metadata,
    };
  });
}
