/**
 * A partition's log read from one offset to another, without a group: what is to be compared with the table. One
 * fetch at a time; nothing is committed, nobody joins. Imports: abort, errors, kafka, kafka/connection, model.
 */
import { within } from '../../abort.js';
import { IngestError } from '../../errors.js';
import type { Records } from '../../model/record.js';
import { damageError, damageOfCut } from './damage.js';
import type { FetchedPartition } from './fetch-answer.js';
import { fetchFrom, renewFetchConnection } from './fetch-request.js';
import { sourceSettings, type KafkaSourceOptions, type SourceSettings } from '../options.js';
import { EARLIEST, listOffsets } from '../connection/list-offsets.js';
import { DAMAGE_RETRIES } from './reading.js';
import { LogReader } from './records.js';
import { kafkaError, reasonOf, classifyError } from '../connection/classify-error.js';
import { Backoff, sleep } from '../connection/wait.js';
import { checkedBroker, openConnection, type KafkaConnection } from '../connection/kafka-connection.js';

export interface ScanRange {
  readonly topic: string;
  readonly partition: number;
  /** Both ends are included. */
  readonly first: number;
  readonly last: number;
}

/** A part of the range; the parts are contiguous. */
export interface ScannedChunk {
  readonly first: number;
  readonly last: number;
  /** What a reader of committed records gets, ascending; none where the log has holes. */
  readonly records: Records;
  /** Retention took these offsets while they were about to be read: what the log held is not known any more. */
  readonly isGone: boolean;
  /** Why these offsets cannot be read, though the log has them: a record batch that is damaged. */
  readonly unreadable?: string;
}

/** Decoded records that are held at once, bytes, about. */
const CHUNK_BYTES = 8 * 1024 * 1024;
const DISCONNECT_LIMIT_MS = 1000;
/**
 * A broker that cannot answer, a leader that is being elected, a transaction that stays open: given up after so long.
 */
const PATIENCE_MS = 30_000;
const DAMAGE_PAUSE_MS = 100;
const OUT_OF_RANGE = 1;
const never = new AbortController().signal;

/** Reads any number of ranges over one connection to each broker. `close` it. */
export class LogScan {
  readonly #settings: SourceSettings;
  readonly #kafka: KafkaConnection;
  readonly #connected: Promise<void>;

  constructor(options: KafkaSourceOptions) {
    this.#settings = sourceSettings(options);
    this.#kafka = openConnection(this.#settings);
    this.#connected = this.#connect();
    this.#connected.catch(() => undefined);
  }

  /** @throws `KCR_KAFKA_UNREACHABLE`, `KCR_KAFKA`, `KCR_OFFSET_RANGE` for a range that the log does not reach to. */
  async *read(range: ScanRange): AsyncGenerator<ScannedChunk, void, undefined> {
    await this.#connected;
    let next = range.first;
    for (let damages = 0; next <= range.last;) {
      const from = next;
      const reader = await this.#fetch(range, next);
      if (reader === undefined) {
        const start = await this.#start(range);
        if (start <= next) throw this.#unreached(range, next);
        const last = Math.min(start - 1, range.last);
        yield { first: next, last, records: [], isGone: true };
        next = last + 1;
        continue;
      }
      while (!reader.isOver && next <= range.last) {
        const { records, lastOffset } = await reader.next(CHUNK_BYTES);
        if (lastOffset < next) continue;
        const last = Math.min(lastOffset, range.last);
        yield {
          first: next,
          last,
          records: lastOffset > last ? records.filter(({ offset }) => offset <= last) : records,
          isGone: false,
        };
        next = last + 1;
      }
      damages = next > from ? 0 : damages + 1;
      const damage = reader.damage ?? damageOfCut(reader.cut);
      if (damage === undefined || damages === 0) continue;
      if (damages <= DAMAGE_RETRIES) {
        await this.#renewConnection(range, damages);
        continue;
      }
      // Where its own offsets cannot be believed, nobody knows where the next batch begins.
      const last = Math.min(damage.bounds?.last ?? range.last, range.last);
      yield { first: next, last, records: [], isGone: false, unreadable: damageError(damage, range).detail };
      next = last + 1;
    }
  }

  async close(): Promise<void> {
    await within(this.#kafka.cluster.disconnect(), DISCONNECT_LIMIT_MS);
    this.#kafka.end();
  }

  async #connect(): Promise<void> {
    const { cluster } = this.#kafka;
    try {
      await cluster.connect();
      await cluster.addMultipleTargetTopics(this.#settings.topics);
    } catch (thrown) {
      throw kafkaError(thrown, 'Connecting to read the log');
    }
  }

  /** Undefined: the offset is out of the log's range. Tries again until something came or patience is at its end. */
  async #fetch({ topic, partition, last }: ScanRange, offset: number): Promise<LogReader | undefined> {
    const { maxWaitMs, maxBytes, isolation } = this.#settings;
    const endMs = performance.now() + PATIENCE_MS;
    const backoff = new Backoff();
    for (;;) {
      let why: string;
      try {
        const leader =
          this.#kafka.cluster.findTopicPartitionMetadata(topic).find(({ partitionId }) => partitionId === partition)
            ?.leader ?? -1;
        const broker = checkedBroker(await this.#kafka.cluster.findBroker({ nodeId: leader }));
        const {
          partitions: [fetched],
        } = await fetchFrom(broker, {
          maxWaitMs,
          maxBytes,
          isolation,
          partitions: [{ topic, partition, offset, maxBytes }],
        });
        if (fetched?.errorCode === OUT_OF_RANGE) return undefined;
        const found = fetched?.errorCode === 0 ? this.#opened(fetched, offset) : undefined;
        if (found !== undefined) return found;
        why =
          fetched === undefined || fetched.errorCode !== 0
            ? `Kafka's error ${fetched?.errorCode ?? -1}`
            : `no record came up to ${last}; is a transaction open?`;
      } catch (thrown) {
        if (classifyError(thrown) === 'fatal')
          throw kafkaError(thrown, 'Reading the log', { topic, partition, offset });
        why = reasonOf(thrown);
      }
      if (performance.now() > endMs)
        throw new IngestError(
          'KCR_KAFKA_UNREACHABLE',
          `The log could not be read within ${PATIENCE_MS / 1000} s: ${why}`,
          { topic, partition, offset },
        );
      await sleep(backoff.next(), never);
      await this.#kafka.cluster.refreshMetadata().catch(() => undefined);
    }
  }

  /** Undefined: nothing that was asked for, and no damage that would say why. */
  #opened({ data, aborted, highWatermark }: FetchedPartition, fromOffset: number): LogReader | undefined {
    const reader = new LogReader({
      data,
      fromOffset,
      aborted,
      highWatermark,
      maxBatchBytes: this.#settings.budgetBytes,
    });
    return reader.isOver && reader.damage === undefined && reader.cut === undefined ? undefined : reader;
  }

  /** The damage may have happened on the way. */
  async #renewConnection({ topic, partition }: ScanRange, times: number): Promise<void> {
    const { cluster } = this.#kafka;
    const leader =
      cluster.findTopicPartitionMetadata(topic).find(({ partitionId }) => partitionId === partition)?.leader ?? -1;
    await cluster
      .findBroker({ nodeId: leader })
      .then(renewFetchConnection)
      .catch(() => undefined);
    await sleep(DAMAGE_PAUSE_MS * 2 ** times, never);
  }

  async #start({ topic, partition }: ScanRange): Promise<number> {
    const [start] = await listOffsets(this.#kafka, [{ topic, partition }], {
      timestamp: EARLIEST,
      isolation: 'read_uncommitted',
    });
    return start?.offset ?? 0;
  }

  #unreached({ topic, partition, last }: ScanRange, offset: number): IngestError {
    return new IngestError('KCR_OFFSET_RANGE', `The log ends before offset ${last}, which it should hold`, {
      topic,
      partition,
      offset,
      hint: 'the topic was truncated or recreated; see `state show`',
    });
  }
}
