/**
 * Where partitions begin, asked until it is known or the generation ends. Imports: errors, kafka, kafka/connection.
 */
import { IngestError } from '../../errors.js';
import type { TopicPartition } from './assignor.js';
import { UnknownOutcome } from './commit-request.js';
import type { Generation } from './generation.js';
import type { SourceSettings } from '../options.js';
import type { Found, StartOffset, StartOffsets } from './start-offsets.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';
import { untilSuccess } from '../connection/until-success.js';

export interface FindStartOffsetsPorts {
  readonly kafka: Pick<KafkaConnection, 'cluster'>;
  readonly settings: SourceSettings;
  readonly startOffsets: StartOffsets;
  /** The outcome of a commit is not known: whatever of this generation is still on its way must be refused. */
  readonly joinAgain: (generation: Generation) => void;
}

export class FindStartOffsets {
  readonly #ports: FindStartOffsetsPorts;

  constructor(ports: FindStartOffsetsPorts) {
    this.#ports = ports;
  }

  /** Where each partition begins, or undefined when the generation ended meanwhile. */
  find(generation: Generation, partitions: readonly TopicPartition[]): Promise<Found | undefined> {
    if (partitions.length === 0) return Promise.resolve({ startOffsets: [], missing: [] });
    const { startOffsets } = this.#ports;
    return this.#certainly(generation, 'Reading the committed offsets', () =>
      startOffsets.of(generation.joined, partitions, generation.ended.signal),
    );
  }

  /** Commits where they begin. True, or undefined when the generation ended meanwhile. */
  writeDown(generation: Generation, chosen: readonly StartOffset[]): Promise<boolean | undefined> {
    const { startOffsets } = this.#ports;
    return this.#certainly(generation, 'Writing down where to go on', async () => {
      await startOffsets.writeDown(generation.joined, chosen, generation.ended.signal);
      return true;
    });
  }

  /** Until it succeeds. Where the outcome of a first commit is not known, the generation ends. */
  #certainly<T>(generation: Generation, doing: string, attempt: () => Promise<T>): Promise<T | undefined> {
    const { kafka, settings, joinAgain } = this.#ports;
    const { log } = settings;
    return untilSuccess({ kafka, log, doing, signal: generation.ended.signal }, () =>
      attempt().catch((thrown: unknown) => {
        if (!(thrown instanceof UnknownOutcome)) throw thrown;
        log('warn', 'the outcome of a first commit is not known, joining again', { reason: thrown.message });
        joinAgain(generation);
        throw new IngestError('KCR_FENCED', 'The outcome of a first commit is not known', { cause: thrown });
      }),
    );
  }
}
