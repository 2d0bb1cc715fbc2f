/**
 * Where the logs of topics begin and end, and where they reach a time: looked at from outside, without a group.
 * Imports: kafka/connection, kafka/group.
 */
import { withAdmin } from './admin.js';
import { EARLIEST, LATEST, listOffsets, type ListOffsets } from './connection/list-offsets.js';
import { partitionsOf } from './connection/metadata.js';
import { nameOf, type TopicPartition } from './group/assignor.js';
import { clientSettings, type KafkaClientOptions } from './options.js';
import { loadTopics } from './preflight.js';

export interface LogPosition extends TopicPartition {
  /** The first offset the log holds. */
  readonly logStart: number;
  /** Where a reader of committed records gets to. */
  readonly stableEnd: number;
  /** The first offset whose record is not older than the time that was asked for; `stableEnd` where none is. */
  readonly atTime: number | undefined;
}

/**
 * By topic, in the order that was asked for, then by partition. `timeMs`: since the epoch.
 *
 * @throws `KCR_KAFKA_UNREACHABLE` within about ten seconds, `KCR_TOPIC_MISSING`, `KCR_KAFKA`.
 */
export async function logPositions(
  options: KafkaClientOptions,
  topics: readonly string[],
  timeMs?: number,
): Promise<readonly LogPosition[]> {
  return withAdmin(clientSettings(options), 'Looking at the logs', async (_, cluster) => {
    await loadTopics(cluster, topics, options.brokers);
    const partitions = partitionsOf(cluster, topics);
    const ask = async (timestamp: string, isolation: ListOffsets['isolation']): Promise<ReadonlyMap<string, number>> =>
      new Map(
        (await listOffsets({ cluster }, partitions, { timestamp, isolation })).map((at) => [nameOf(at), at.offset]),
      );
    const starts = await ask(EARLIEST, 'read_uncommitted');
    const times = timeMs === undefined ? undefined : await ask(String(timeMs), 'read_committed');
    const ends = await ask(LATEST, 'read_committed');
    return partitions.map((each): LogPosition => {
      const stableEnd = ends.get(nameOf(each)) ?? 0;
      const reached = times?.get(nameOf(each));
      return {
        ...each,
        logStart: starts.get(nameOf(each)) ?? 0,
        stableEnd,
        // Kafka answers -1 where no record is as new as that.
        atTime: reached === undefined || reached >= 0 ? reached : stableEnd,
      };
    });
  });
}
