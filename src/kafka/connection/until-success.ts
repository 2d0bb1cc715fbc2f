/**
 * An attempt that is made again until it succeeds, with new metadata each time. Imports: errors, kafka.
 */
import { IngestError } from '../../errors.js';
import type { KafkaLog } from '../options.js';
import { classifyError, kafkaError, reasonOf } from './classify-error.js';
import type { KafkaConnection } from './kafka-connection.js';
import { Backoff, sleep, unlessAborted } from './wait.js';

export interface Attempts {
  readonly kafka: Pick<KafkaConnection, 'cluster'>;
  readonly log: KafkaLog;
  /** What is done, as the start of a sentence: `Reading the committed offsets`. */
  readonly doing: string;
  /** Calls it off. */
  readonly signal: AbortSignal;
}

/**
 * Undefined when the signal called it off, or the group goes on without us (`KCR_FENCED`).
 *
 * @throws what no retry mends.
 */
export async function untilSuccess<T>(
  { kafka, log, doing, signal }: Attempts,
  attempt: () => Promise<T>,
): Promise<T | undefined> {
  const backoff = new Backoff();
  while (!signal.aborted) {
    try {
      return await unlessAborted(attempt(), signal);
    } catch (thrown) {
      if (thrown instanceof IngestError && thrown.code === 'KCR_FENCED') return undefined;
      if (classifyError(thrown) === 'fatal') throw kafkaError(thrown, doing);
      log('warn', `${doing.toLowerCase()} failed, trying again`, {
        attempt: backoff.failures + 1,
        reason: reasonOf(thrown),
      });
      await sleep(backoff.next(), signal);
      await unlessAborted(
        kafka.cluster.refreshMetadata().catch(() => undefined),
        signal,
      );
    }
  }
  return undefined;
}
