/**
 * Room: one fetch from one broker, by topic id where the broker speaks it and by name where not; the answer is taken
 * apart into the raw bytes of each partition with an error code of its own. No decoding of records (records.ts), no
 * positions (fetcher.ts).
 */
import { IngestError } from '../../errors.js';
import type { AbortedTransaction } from './aborted.js';
import type { TopicPartition } from '../group/assignor.js';
import { AnswerReader, FlexibleWriter, type EncodedRequest } from '../connection/protocol.js';
import {
  joinNothing,
  maxVersion,
  through,
  type TopicPartitions,
  type KafkajsBroker,
  type WireResponse,
} from '../connection/broker.js';

const FETCH_API = 1;
/** The one of a broker's connections that kafkajs fetches over. */
const FETCH_CONNECTION = 1;
/** The first whose answers carry record batches and aborted transactions: Kafka 0.11. */
const MIN_VERSION = 4;
/** The last that kafkajs speaks. */
const MAX_NAMED_VERSION = 11;
/** Topics go by their id: Kafka 3.1. */
export const ID_VERSION = 13;
/** From this one on a broker answers first, then reads nothing more from the connection for a while (KIP-219). */
const THROTTLED_AFTER_VERSION = 8;
const NETWORK_DELAY_MS = 100;
/** Transactions that overlap one fetch of a partition: as many as have producers there, and one for each of its batches at most. */
const MAX_ABORTED = 100_000;

export interface FetchPartition extends TopicPartition {
  /** What it is fetched by, where the broker speaks it: a topic that was created anew answers under its own id only. */
  readonly topicId?: string | undefined;
  readonly offset: number;
  readonly maxBytes: number;
}

export interface FetchRequest {
  readonly maxWaitMs: number;
  readonly maxBytes: number;
  readonly isolation: 'read_committed' | 'read_uncommitted';
  readonly partitions: readonly FetchPartition[];
}

export interface FetchedPartition extends TopicPartition {
  /** Kafka's number of an error; 0: none. */
  readonly errorCode: number;
  readonly highWatermark: number;
  /** Where readers of committed records get to; -1: the broker does not say. */
  readonly stableEnd: number;
  readonly aborted: readonly AbortedTransaction[];
  readonly data: Buffer;
}

export interface FetchAnswer {
  readonly partitions: readonly FetchedPartition[];
  /** A quota is exceeded: for so long the broker reads nothing more from the connection, milliseconds; 0: none is. */
  readonly throttleMs: number;
}

export async function fetchFrom(broker: KafkajsBroker, request: FetchRequest): Promise<FetchAnswer> {
  joinNothing(await broker.connectionPool.getConnection(FETCH_CONNECTION));
  const speaksIds = (await maxVersion(broker, FETCH_API)) >= ID_VERSION;
  const isById = ({ topicId }: FetchPartition): boolean => speaksIds && topicId !== undefined;
  const byId = request.partitions.filter(isById);
  const byName = request.partitions.filter((partition) => !isById(partition));
  // Brokers that give ids give them to all topics: as a rule one of the two is empty.
  const answers = await Promise.all([
    byId.length === 0 ? NOTHING : fetchById(broker, { ...request, partitions: shuffled(byId) }),
    byName.length === 0 ? NOTHING : fetchByName(broker, { ...request, partitions: byName }),
  ]);
  return {
    partitions: answers.flatMap(({ partitions }) => partitions),
    throttleMs: Math.max(...answers.map(({ throttleMs }) => throttleMs)),
  };
}

/** What is fetched next comes over a new connection. */
export async function renewFetchConnection(broker: KafkajsBroker): Promise<void> {
  const { socket } = await broker.connectionPool.getConnection(FETCH_CONNECTION);
  socket?.destroy(new Error('connection renewed by the client'));
}

const NOTHING: FetchAnswer = { partitions: [], throttleMs: 0 };

async function fetchById(broker: KafkajsBroker, request: FetchRequest): Promise<FetchAnswer> {
  const names = new Map(request.partitions.map(({ topic, topicId }) => [topicId, topic]));
  const answer = broker.connectionPool.send({
    request: {
      apiKey: FETCH_API,
      apiVersion: ID_VERSION,
      apiName: 'Fetch',
      encode: async () => encodeFetchById(request),
    },
    response: {
      decode: async (payload) => ({
        partitions: decodeAnswer(payload, ID_VERSION, (id) => names.get(id)),
        throttleMs: throttleOf(payload, ID_VERSION),
      }),
      parse: async (decoded) => decoded,
    },
    requestTimeout: request.maxWaitMs + NETWORK_DELAY_MS,
  });
  return (await answer) as FetchAnswer;
}

async function fetchByName(broker: KafkajsBroker, request: FetchRequest): Promise<FetchAnswer> {
  let hooked = false;
  const view = through(broker, (pool, kafka) => {
    if (kafka.request.apiKey !== FETCH_API) return pool.send(kafka);
    hooked = true;
    return pool.send({ ...kafka, response: responseOf(kafka.request.apiVersion) });
  });
  const answer = await view.fetch({
    isolationLevel: isolationLevel(request),
    maxWaitTime: request.maxWaitMs,
    minBytes: 1,
    maxBytes: request.maxBytes,
    topics: requestTopics(request.partitions),
  });
  if (!hooked)
    throw new IngestError('KCR_KAFKAJS_HOOKS', "kafkajs's fetch did not pass through the hook", {
      hint: 'install kafkajs 2.2.4 unchanged',
    });
  return answer as FetchAnswer;
}

function isolationLevel({ isolation }: FetchRequest): number {
  return isolation === 'read_committed' ? 1 : 0;
}

function requestTopics(
  partitions: FetchRequest['partitions'],
): TopicPartitions<{ partition: number; fetchOffset: string; maxBytes: number }>[] {
  const topics = new Map<string, { partition: number; fetchOffset: string; maxBytes: number }[]>();
  for (const { topic, partition, offset, maxBytes } of partitions) {
    const list = topics.get(topic) ?? [];
    list.push({ partition, fetchOffset: String(offset), maxBytes });
    topics.set(topic, list);
  }
  return [...topics].map(([topic, list]) => ({ topic, partitions: list }));
}

/** A broker fills its answer in the order of the request: nobody may always be last. */
function shuffled<T>(items: readonly T[]): T[] {
  const list = [...items];
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [list[i], list[j]] = [list[j] as T, list[i] as T];
  }
  return list;
}

/** https://kafka.apache.org/protocol#The_Messages_Fetch, version 13. */
export function encodeFetchById(request: FetchRequest): EncodedRequest {
  const writer = new FlexibleWriter();
  const { maxWaitMs, maxBytes, partitions } = request;
  writer.int32(-1).int32(maxWaitMs).int32(1).int32(maxBytes).int8(isolationLevel(request));
  writer.int32(0).int32(-1); // no fetch session
  writer.array(neighbours(partitions), ([topicId, list]) => {
    writer.id(topicId).array(list, ({ partition, offset, maxBytes: partitionMaxBytes }) => {
      writer.int32(partition).int32(-1).int64(offset).int32(-1).int64(-1).int32(partitionMaxBytes).tags();
    });
    writer.tags();
  });
  writer.array([], () => undefined); // nothing is left out of a session
  return writer.string('').tags().encoded();
}

/** Partitions of one topic that follow one another, in the same order. */
function neighbours(partitions: FetchRequest['partitions']): [string | undefined, FetchPartition[]][] {
  const topics: [string | undefined, FetchPartition[]][] = [];
  for (const partition of partitions) {
    const last = topics.at(-1);
    if (last !== undefined && last[0] === partition.topicId) last[1].push(partition);
    else topics.push([partition.topicId, [partition]]);
  }
  return topics;
}

function responseOf(version: number): WireResponse {
  if (version < MIN_VERSION || version > MAX_NAMED_VERSION) {
    throw new IngestError(
      'KCR_KAFKA',
      `The broker speaks version ${version} of the fetch protocol; ${MIN_VERSION} to ${MAX_NAMED_VERSION} are understood`,
      {
        hint: 'use brokers of Kafka 0.11 or newer',
      },
    );
  }
  return {
    decode: async (payload) => ({
      partitions: decodeAnswer(payload, version),
      throttleMs: throttleOf(payload, version),
    }),
    parse: async (decoded) => decoded,
  };
}

/** Before version 8 a broker throttled by answering late: by the time the answer comes it is over. */
function throttleOf(payload: Buffer, version: number): number {
  return version < THROTTLED_AFTER_VERSION ? 0 : Math.max(0, new AnswerReader(payload, version >= ID_VERSION).int32());
}

/**
 * https://kafka.apache.org/protocol#The_Messages_Fetch, versions 4 to 11 and 13. `nameOf`: the name of a topic that was
 * asked for by id; what nobody asked for is left out.
 */
export function decodeAnswer(
  payload: Buffer,
  version: number,
  nameOf: (topicId: string | undefined) => string | undefined = () => undefined,
): FetchedPartition[] {
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
  const topics = reader.array(() => {
    const topic = isById ? nameOf(reader.id()) : reader.string();
    const partitions = reader.array(() => decodePartition(reader, topic ?? '', version));
    reader.tags();
    return topic === undefined ? [] : partitions;
  });
  reader.tags();
  reader.end();
  return topics.flat();
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
