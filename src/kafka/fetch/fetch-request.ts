/**
 * One fetch from one broker: in a session, by topic id, where the broker speaks it, and by name where
 * not. No decoding of the answer (fetch-answer.ts), no positions (fetcher.ts). Imports: errors, kafka/connection.
 */
import { IngestError } from '../../errors.js';
import {
  decodeInTurns,
  ID_VERSION,
  sessionOf,
  throttleOf,
  type FetchedPartition,
  type NameOf,
} from './fetch-answer.js';
import type { FetchPartition, FetchRequest } from './fetch-partition.js';
import { isSessionRefused, NO_SESSION, type FetchSession, type SessionRequest } from './fetch-session.js';
import { breathe } from '../connection/wait.js';
import { FlexibleWriter, type EncodedRequest } from '../connection/protocol.js';
import {
  joinNothing,
  maxVersion,
  through,
  type TopicPartitions,
  type KafkajsBroker,
  type KafkajsConnection,
  type WireResponse,
} from '../connection/broker.js';

const FETCH_API = 1;
/** The one of a broker's connections that kafkajs fetches over. */
const FETCH_CONNECTION = 1;
/** The first whose answers carry record batches and aborted transactions: Kafka 0.11. */
const MIN_VERSION = 4;
/** The last that kafkajs speaks. */
const MAX_NAMED_VERSION = 11;
const NETWORK_DELAY_MS = 100;
/** So many partitions of a request are gone through in one turn of the event loop. */
const PARTITIONS_A_TURN = 1000;

export interface FetchAnswer {
  readonly partitions: readonly FetchedPartition[];
  /** A quota is exceeded: for so long the broker reads nothing more from the connection, milliseconds; 0: none is. */
  readonly throttleMs: number;
  /** Partitions that are not answered have no error, and nothing new. */
  readonly hasNewsOnly?: boolean;
}

interface SessionAnswer extends FetchAnswer {
  /** 0: none. */
  readonly sessionId?: number;
}

/** `session`: what this broker remembers of earlier requests; without it everything is asked for each time. */
export async function fetchFrom(
  broker: KafkajsBroker,
  request: FetchRequest,
  session?: FetchSession,
): Promise<FetchAnswer> {
  const connection = await broker.connectionPool.getConnection(FETCH_CONNECTION);
  joinNothing(connection);
  const speaksIds = (await maxVersion(broker, FETCH_API)) >= ID_VERSION;
  const isById = ({ topicId }: FetchPartition): boolean => speaksIds && topicId !== undefined;
  const byId = request.partitions.filter(isById);
  const byName = request.partitions.filter((partition) => !isById(partition));
  if (session !== undefined && byName.length === 0) return fetchInSession(broker, request, session, connection);
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

async function fetchById(broker: KafkajsBroker, request: FetchRequest): Promise<SessionAnswer> {
  const names = new Map(request.partitions.map(({ topic, topicId }) => [topicId, topic]));
  return sendById(broker, request, undefined, (id) => names.get(id));
}

/**
 * A broker forgets sessions when it is restarted or has too many: then everything is asked for again, once and at once.
 */
async function fetchInSession(
  broker: KafkajsBroker,
  request: FetchRequest,
  session: FetchSession,
  connection: KafkajsConnection,
): Promise<FetchAnswer> {
  if (request.partitions.length > PARTITIONS_A_TURN) await breathe();
  session.goesOver(connection.socket);
  const isRetried = session.isIncremental;
  try {
    return await fetchOnce(broker, request, session, connection);
  } catch (thrown) {
    if (!isRetried || !isSessionRefused(thrown)) throw thrown;
  }
  return fetchOnce(broker, request, session, connection);
}

async function fetchOnce(
  broker: KafkajsBroker,
  request: FetchRequest,
  session: FetchSession,
  connection: KafkajsConnection,
): Promise<FetchAnswer> {
  const hasNewsOnly = session.isIncremental;
  const asked = session.next(request.partitions);
  const partitions = hasNewsOnly ? asked.partitions : shuffled(asked.partitions);
  try {
    const nameOf: NameOf = (id) => session.nameOf(id);
    const { sessionId = 0, ...answer } = await sendById(broker, { ...request, partitions }, asked, nameOf);
    session.answered(sessionId, connection.socket);
    return { ...answer, hasNewsOnly };
  } catch (thrown) {
    session.broken(thrown);
    throw thrown;
  }
}

async function sendById(
  broker: KafkajsBroker,
  request: FetchRequest,
  session: SessionRequest | undefined,
  nameOf: NameOf,
): Promise<SessionAnswer> {
  const answer = broker.connectionPool.send({
    request: {
      apiKey: FETCH_API,
      apiVersion: ID_VERSION,
      apiName: 'Fetch',
      encode: async () => encodeFetchById(request, session),
    },
    response: {
      decode: async (payload) => ({
        partitions: await decodeInTurns(payload, ID_VERSION, nameOf),
        throttleMs: throttleOf(payload, ID_VERSION),
        sessionId: sessionOf(payload),
      }),
      parse: async (decoded) => decoded,
    },
    requestTimeout: request.maxWaitMs + NETWORK_DELAY_MS,
  });
  return (await answer) as SessionAnswer;
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
export function encodeFetchById(
  request: FetchRequest,
  { id, epoch, forgotten }: Omit<SessionRequest, 'partitions'> = { ...NO_SESSION, forgotten: [] },
): EncodedRequest {
  const writer = new FlexibleWriter();
  const { maxWaitMs, maxBytes, partitions } = request;
  writer.int32(-1).int32(maxWaitMs).int32(1).int32(maxBytes).int8(isolationLevel(request));
  writer.int32(id).int32(epoch);
  writer.array(neighbours(partitions), ([topicId, list]) => {
    writer.id(topicId).array(list, ({ partition, offset, maxBytes: partitionMaxBytes }) => {
      writer.int32(partition).int32(-1).int64(offset).int32(-1).int64(-1).int32(partitionMaxBytes).tags();
    });
    writer.tags();
  });
  writer.array(forgotten, ({ topicId, partitions: gone }) => {
    writer.id(topicId).array(gone, (partition) => void writer.int32(partition));
    writer.tags();
  });
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
      `The broker speaks version ${version} of the fetch protocol; ${MIN_VERSION} to ${MAX_NAMED_VERSION} are ` +
        'understood',
      {
        hint: 'use brokers of Kafka 0.11 or newer',
      },
    );
  }
  return {
    decode: async (payload) => ({
      partitions: await decodeInTurns(payload, version),
      throttleMs: throttleOf(payload, version),
    }),
    parse: async (decoded) => decoded,
  };
}
