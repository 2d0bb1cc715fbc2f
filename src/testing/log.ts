/**
 * The simulated topic. Records, and the offsets that no record has: compaction, control records, aborted
 * transactions. Imports: model, ports.
 */
import { bytesOf } from '../model/batch.js';
import type { Assignment, Chunk, KafkaRecord } from '../model/record.js';
import type { LogEnds } from '../ports.js';

/** One record as a test writes it: its value, as JSON or as bytes. */
export type Value = object | Buffer | null;

interface PartitionLog {
  start: number;
  end: number;
  records: KafkaRecord[];
}

/** A topic's partitions. Every record has a timestamp that no other record ever had, by which the checker knows it. */
export class SimulatedLog {
  readonly topic: string;
  #partitions: PartitionLog[];
  readonly #produced: KafkaRecord[] = [];
  #created = 1;

  constructor(topic: string, partitions: number) {
    this.topic = topic;
    this.#partitions = Array.from({ length: partitions }, emptyLog);
  }

  /** How many partitions the topic has. */
  get partitions(): number {
    return this.#partitions.length;
  }

  /** Kafka's id of the topic, another one after `recreate`. */
  get topicId(): string {
    return `${this.topic}-id-${this.#created}`;
  }

  /** The topic gets more partitions, empty ones. */
  grow(partitions: number): void {
    while (this.#partitions.length < partitions) this.#partitions.push(emptyLog());
  }

  /** Appends records; each takes the next offset. */
  produce(partition: number, ...values: readonly Value[]): void {
    const log = this.#of(partition);
    for (const value of values) {
      const bytes = value === null || Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value));
      const record: KafkaRecord = {
        offset: log.end,
        timestampMs: this.#produced.length,
        key: null,
        value: bytes,
        headers: [],
      };
      this.#produced.push(record);
      log.records.push(record);
      log.end += 1;
    }
  }

  /** Appends offsets that no record has, as the end of a transaction or an aborted one leaves them. */
  leaveHole(partition: number, offsets = 1): void {
    this.#of(partition).end += offsets;
  }

  /** Compaction: the record of this offset is gone, its neighbours stay. */
  compact(partition: number, offset: number): void {
    const log = this.#of(partition);
    log.records = log.records.filter((record) => record.offset !== offset);
  }

  /** Retention: everything before `offset` is gone. */
  retainFrom(partition: number, offset: number): void {
    const log = this.#of(partition);
    log.start = Math.min(Math.max(log.start, offset), log.end);
    log.records = log.records.filter((record) => record.offset >= log.start);
  }

  /** An unclean leader took over: everything from `offset` on is gone, and the next record gets that offset. */
  truncate(partition: number, offset: number): void {
    const log = this.#of(partition);
    log.end = Math.min(log.end, Math.max(offset, log.start));
    log.records = log.records.filter((record) => record.offset < log.end);
  }

  /** The topic is deleted and recreated, empty, under another id. */
  recreate(): void {
    this.#created += 1;
    this.#partitions = this.#partitions.map(emptyLog);
  }

  /** Where the log of a partition begins and ends. */
  ends(partition: number): LogEnds {
    const { start, end } = this.#of(partition);
    return { start, end };
  }

  /** The records that are in the log of a partition now, in order. */
  records(partition: number): readonly KafkaRecord[] {
    return this.#of(partition).records;
  }

  /** A record that is or was in the log, by its timestamp. */
  produced(timestampMs: number): KafkaRecord | undefined {
    return this.#produced[timestampMs];
  }

  /** What a fetch at `position` brings: at most `count` records, and the holes around them. Undefined: nothing yet. */
  fetch(assignment: Assignment, position: number, count: number): Chunk | undefined {
    const { end, records } = this.#of(assignment.partition);
    if (position >= end) return undefined;
    let from = 0;
    while (from < records.length && records[from]!.offset < position) from += 1;
    const taken = records.slice(from, from + count);
    const isAll = from + count >= records.length;
    const lastOffset = isAll ? end - 1 : taken[taken.length - 1]!.offset;
    return {
      assignment,
      afterOffset: position - 1,
      lastOffset,
      records: taken,
      bytes: bytesOf(taken),
      highWatermark: end,
    };
  }

  #of(partition: number): PartitionLog {
    const log = this.#partitions[partition];
    if (log === undefined)
      throw new RangeError(`Expected a partition from 0 to ${this.#partitions.length - 1}, got ${partition}`);
    return log;
  }
}

function emptyLog(): PartitionLog {
  return { start: 0, end: 0, records: [] };
}
