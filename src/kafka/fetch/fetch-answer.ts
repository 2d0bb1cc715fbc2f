/**
 * A broker's answer to a fetch, taken apart into the raw bytes of each partition with an error code
 * of its own. No decoding of records: that is records.ts. Imports: kafka/connection, kafka/group.
 */
import type { AbortedTransaction } from './aborted.js';
import type { TopicPartition } from '../group/assignor.js';
import { AnswerReader } from '../connection/protocol.js';
import { breathe } from '../connection/wait.js';

/** The first version by topic id that we speak: Kafka 3.1. */
export const ID_VERSION = 13;
/** From this one on a broker answers first, then reads nothing more from the connection for a while (KIP-219). */
const THROTTLED_AFTER_VERSION = 8;
/**
 * Transactions that overlap one fetch of a partition: as many as have producers there, and one for each of its batches
 * at most.
 */
const MAX_ABORTED = 100_000;
/** So many partitions of an answer are gone through in one turn of the event loop. */
const PARTITIONS_A_TURN = 1000;

export interface FetchedPartition extends TopicPartition {
  /** Kafka's number of an error; 0: none. */
  readonly errorCode: number;
  readonly highWatermark: number;
  /** Where readers of committed records get to; -1: the broker does not say. */
  readonly stableEnd: number;
  readonly aborted: readonly AbortedTransaction[];
  readonly data: Buffer;
}

/** The name of a topic that was asked for by id; undefined: nobody asked for it. */
export type NameOf = (topicId: string | undefined) => string | undefined;

/** Before version 8 a broker throttled by answering late: by the time the answer comes it is over. */
export function throttleOf(payload: Buffer, version: number): number {
  return version < THROTTLED_AFTER_VERSION ? 0 : Math.max(0, new AnswerReader(payload, version >= ID_VERSION).int32());
}

/** The fetch session that the answer belongs to; 0: none. */
export function sessionOf(payload: Buffer): number {
  const reader = new AnswerReader(payload, true);
  reader.int32(); // throttle time
  reader.int16();
  return reader.int32();
}

/**
 * https://kafka.apache.org/protocol#The_Messages_Fetch, versions 4 to 11 and 13. `nameOf`: the name of a topic that was
 * asked for by id; what nobody asked for is left out.
 */
export function decodeAnswer(payload: Buffer, version: number, nameOf: NameOf = () => undefined): FetchedPartition[] {
  return [...partitionsOf(payload, version, nameOf)];
}

/** As `decodeAnswer`. Others have their turn in between: there may be thousands of partitions. */
export async function decodeInTurns(
  payload: Buffer,
  version: number,
  nameOf: NameOf = () => undefined,
): Promise<FetchedPartition[]> {
  const partitions: FetchedPartition[] = [];
  for (const partition of partitionsOf(payload, version, nameOf)) {
    partitions.push(partition);
    if (partitions.length % PARTITIONS_A_TURN === 0) await breathe();
  }
  return partitions;
}

function* partitionsOf(payload: Buffer, version: number, nameOf: NameOf): Generator<FetchedPartition, void> {
  const isById = version >= ID_VERSION;
  const reader = new AnswerReader(payload, isById);
  reader.int32(); // throttle time
  if (version >= 7) {
    const errorCode = reader.int16();
    if (errorCode !== 0)
      throw Object.assign(new Error(`the broker refused a fetch with its error ${errorCode}`), {
        type: `error ${errorCode}`,
      });
    reader.int32(); // session id
  }
  for (let topics = reader.count(); topics > 0; topics--) {
    const topic = isById ? nameOf(reader.id()) : reader.string();
    for (let left = reader.count(); left > 0; left--) {
      const partition = decodePartition(reader, topic ?? '', version);
      if (topic !== undefined) yield partition;
    }
    reader.tags();
  }
  reader.tags();
  reader.end();
}

function decodePartition(reader: AnswerReader, topic: string, version: number): FetchedPartition {
  const partition = reader.int32();
  const errorCode = reader.int16();
  const highWatermark = reader.int64();
  const stableEnd = reader.int64();
  if (version >= 5) reader.int64(); // log start offset
  const aborted = reader.array(() => {
    const transaction = { producerId: reader.bigint64(), firstOffset: reader.int64() };
    reader.tags();
    return transaction;
  }, MAX_ABORTED);
  if (version >= 11) reader.int32(); // preferred read replica: only with a rack id
  const data = reader.bytes();
  reader.tags();
  return { topic, partition, errorCode, highWatermark, stableEnd, aborted, data };
}
