/**
 * Room: one fetch from one broker: kafkajs sends and receives it, the answer is taken apart here, as raw bytes of each
 * partition with an error code of its own. No decoding of records (records.ts), no positions (fetcher.ts).
 */
import { IngestError } from '../errors.js';
import type { AbortedTransaction } from './aborted.js';
import type { TopicPartition } from './assignor.js';
import { through, type TopicPartitions, type WireBroker, type WireResponse } from './wire.js';

const FETCH_API = 1;
/** The first whose answers carry record batches and aborted transactions: Kafka 0.11. */
const MIN_VERSION = 4;
/** The last that kafkajs speaks. */
const MAX_VERSION = 11;

export interface FetchRequest {
  readonly maxWaitMs: number;
  readonly maxBytes: number;
  readonly isolation: 'read_committed' | 'read_uncommitted';
  readonly partitions: readonly (TopicPartition & { readonly offset: number; readonly maxBytes: number })[];
}

export interface FetchedPartition extends TopicPartition {
  /** Kafka's number of an error; 0: none. */
  readonly errorCode: number;
  readonly highWatermark: number;
  readonly aborted: readonly AbortedTransaction[];
  readonly data: Buffer;
}

export async function fetchFrom(broker: WireBroker, request: FetchRequest): Promise<readonly FetchedPartition[]> {
  let hooked = false;
  const view = through(broker, (pool, wire) => {
    if (wire.request.apiKey !== FETCH_API) return pool.send(wire);
    hooked = true;
    return pool.send({ ...wire, response: responseOf(wire.request.apiVersion) });
  });
  const answer = await view.fetch({
    isolationLevel: request.isolation === 'read_committed' ? 1 : 0,
    maxWaitTime: request.maxWaitMs,
    minBytes: 1,
    maxBytes: request.maxBytes,
    topics: requestTopics(request.partitions),
  });
  if (!hooked) throw new IngestError('KCR_KAFKAJS_HOOKS', "kafkajs's fetch did not pass through the hook", { hint: 'install kafkajs 2.2.4 unchanged' });
  return answer as readonly FetchedPartition[];
}

function requestTopics(partitions: FetchRequest['partitions']): TopicPartitions<{ partition: number; fetchOffset: string; maxBytes: number }>[] {
  const topics = new Map<string, { partition: number; fetchOffset: string; maxBytes: number }[]>();
  for (const { topic, partition, offset, maxBytes } of partitions) {
    const list = topics.get(topic) ?? [];
    list.push({ partition, fetchOffset: String(offset), maxBytes });
    topics.set(topic, list);
  }
  return [...topics].map(([topic, list]) => ({ topic, partitions: list }));
}

function responseOf(version: number): WireResponse {
  if (version < MIN_VERSION || version > MAX_VERSION) {
    throw new IngestError('KCR_KAFKA', `The broker speaks version ${version} of the fetch protocol; ${MIN_VERSION} to ${MAX_VERSION} are understood`, {
      hint: 'use brokers of Kafka 0.11 or newer',
    });
  }
  return {
    decode: async (payload) => decodeAnswer(payload, version),
    parse: async (decoded) => decoded,
  };
}

/** https://kafka.apache.org/protocol#The_Messages_Fetch, versions 4 to 11. */
export function decodeAnswer(payload: Buffer, version: number): FetchedPartition[] {
  const reader = new Reader(payload);
  reader.int32(); // throttle time: the broker throttles by answering late
  if (version >= 7) {
    const errorCode = reader.int16();
    if (errorCode !== 0) throw new IngestError('KCR_KAFKA', 'The broker refused a fetch', { serverCode: errorCode });
    reader.int32(); // session id
  }
  const fetched: FetchedPartition[] = [];
  for (let topics = reader.int32(); topics > 0; topics--) {
    const topic = reader.string();
    for (let partitions = reader.int32(); partitions > 0; partitions--) fetched.push(decodePartition(reader, topic, version));
  }
  return fetched;
}

function decodePartition(reader: Reader, topic: string, version: number): FetchedPartition {
  const partition = reader.int32();
  const errorCode = reader.int16();
  const highWatermark = reader.int64();
  reader.int64(); // last stable offset
  if (version >= 5) reader.int64(); // log start offset
  const aborted: AbortedTransaction[] = [];
  // -1 when there is no list.
  for (let count = reader.int32(); count > 0; count--) aborted.push({ producerId: reader.bigint64(), firstOffset: reader.int64() });
  if (version >= 11) reader.int32(); // preferred read replica: only with a rack id
  const data = reader.bytes();
  return { topic, partition, errorCode, highWatermark, aborted, data };
}

class Reader {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  int16(): number {
    this.#at += 2;
    return this.#data.readInt16BE(this.#at - 2);
  }

  int32(): number {
    this.#at += 4;
    return this.#data.readInt32BE(this.#at - 4);
  }

  bigint64(): bigint {
    this.#at += 8;
    return this.#data.readBigInt64BE(this.#at - 8);
  }

  int64(): number {
    return Number(this.bigint64());
  }

  string(): string {
    const length = this.int16();
    this.#at += length;
    return this.#data.toString('utf8', this.#at - length, this.#at);
  }

  bytes(): Buffer {
    const length = Math.max(0, this.int32());
    this.#at += length;
    if (this.#at > this.#data.length) throw new RangeError('a fetch answer is shorter than it says');
    return this.#data.subarray(this.#at - length, this.#at);
  }
}
