/**
 * The leader deals out the partitions, so it has to see when there are more. Compares with what was dealt, not with
 * what is known when the watch begins: a refresh in between would hide what it brought.
 * Imports: kafka, kafka/connection.
 */
import type { KafkaLog } from '../options.js';
import { knownTopic } from '../connection/metadata.js';
import { reasonOf } from '../connection/classify-error.js';
import { sleep } from '../connection/wait.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';

/** After a refresh that failed: the age of the metadata is a promise. */
const RETRY_MS = 1000;

export interface TopicWatch {
  readonly kafka: Pick<KafkaConnection, 'cluster'>;
  readonly log: KafkaLog;
  /** How many partitions of each topic were dealt out. */
  readonly dealt: ReadonlyMap<string, number>;
  readonly metadataMaxAgeMs: number;
}

/**
 * Resolves with the topics that have other partitions than were dealt, as soon as there are any; with none when the
 * signal is aborted.
 */
export async function otherPartitions(
  { kafka: { cluster }, log, dealt, metadataMaxAgeMs }: TopicWatch,
  signal: AbortSignal,
): Promise<readonly string[]> {
  let waitMs = metadataMaxAgeMs;
  for (;;) {
    await sleep(waitMs, signal);
    if (signal.aborted) return [];
    waitMs = metadataMaxAgeMs;
    try {
      await cluster.refreshMetadata();
    } catch (thrown) {
      waitMs = Math.min(metadataMaxAgeMs, RETRY_MS);
      log('warn', 'the topics could not be looked at for new partitions, trying again', {
        reason: reasonOf(thrown),
        waitMs,
      });
    }
    const changed = [...dealt]
      .filter(([topic, count]) => isOther(knownTopic(cluster, topic)?.partitionMetadata.length ?? 0, count))
      .map(([topic]) => topic);
    if (changed.length > 0) return changed;
  }
}

/** A topic that has none is gone, or unknown for a moment: no reason to disturb the others. */
function isOther(count: number, dealt: number): boolean {
  return count > 0 && count !== dealt;
}
