/**
 * The values that travel through the pipeline. Pure data. Imports: nothing.
 */

/**
 * One Kafka message, with its value as the bytes that go into the table.
 *
 * Offsets are plain numbers: exact up to 2^53 - 1, which a partition that takes a million records a second reaches
 * after 285 years; the source refuses a larger one (`KCR_OFFSET_RANGE`) instead of rounding it.
 *
 * A transform may turn one record into none, one or several; what comes of a record keeps its offset.
 *
 * Key, value and headers are slices of what was fetched: whoever keeps one beyond its batch keeps megabytes, so copy it
 * (`Buffer.from(record.value)`).
 */
export interface KafkaRecord {
  readonly offset: number;
  /** Milliseconds since the epoch, as the producer or the broker set it. */
  readonly timestampMs: number;
  readonly key: Buffer | null;
  /** `null` is a tombstone. */
  readonly value: Buffer | null;
  readonly headers: RecordHeaders;
}

/** In the order of the message; a name may stand more than once. */
export type RecordHeaders = readonly (readonly [name: string, value: Buffer | null])[];

/**
 * Records, ascending by offset. An array of them is one. What the source delivers holds the bytes as they came and
 * makes a record again each time it is asked for one: going through it twice makes each of them twice.
 */
export interface Records extends Iterable<KafkaRecord> {
  readonly length: number;
  /** From the end for a negative index. */
  at(index: number): KafkaRecord | undefined;
  /** As of an array. */
  slice(start?: number, end?: number): Records;
  /** The records that `keep` is true of, in their order. */
  filter(keep: (record: KafkaRecord, index: number) => boolean): Records;
  /** What `make` gives for each record, as an array. */
  map<T>(make: (record: KafkaRecord, index: number) => T): T[];
  /** The first record that `is` is true of; undefined: none. */
  find(is: (record: KafkaRecord, index: number) => boolean): KafkaRecord | undefined;
}

/** One assignment of a partition to this process. A later one of the same partition has a greater `assignmentId`. */
export interface Assignment {
  readonly topic: string;
  readonly partition: number;
  /** Grows with every assignment this process is given; never used twice. */
  readonly assignmentId: number;
  /** The consumer group's generation under which it was given; commits are pinned to it. */
  readonly generation: number;
  /** Where the source begins, unless it is told to seek: the group's committed offset, or what stands for none. */
  readonly startOffset: number;
  /**
   * The offset that the group had committed; undefined: nothing, or only a place to begin that a source chose by
   * itself. Beyond where a claimed state goes on it halts the partition: the state is an old one.
   */
  readonly committed?: number | undefined;
  /**
   * Kafka's id of the topic, which a topic that is recreated under the same name does not share; undefined: the
   * brokers give none.
   */
  readonly topicId?: string | undefined;
}

/**
 * Records of one partition that cover the offsets `(afterOffset, lastOffset]`, holes allowed: compaction, aborted
 * transactions and control records leave offsets without a record. Immutable.
 */
export interface Batch {
  readonly assignment: Assignment;
  /** The offset just before the range; -1 at the beginning of the log. */
  readonly afterOffset: number;
  /** The last offset the range covers, whether or not a record has it. */
  readonly lastOffset: number;
  /** Ascending by offset. */
  readonly records: Records;
  /** Bytes of keys and values, for the limits on a batch and for back-pressure. */
  readonly bytes: number;
}

/** What one fetch brought for one partition. */
export interface Chunk extends Batch {
  /** The log's end as the broker told it with this fetch: the offset the next record will get. */
  readonly highWatermark: number;
  /** The source has no room for more of this partition before some of it is done: waiting for more is in vain. */
  readonly isLastForNow?: boolean;
}
