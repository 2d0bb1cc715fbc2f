// A coordinator made of answers, below the surface of kafkajs: it has connections, and each answers what was sent over it
// in order, one request after the other.
import type { KafkajsBroker, KafkajsRequest } from '../../src/kafka/connection/broker.js';
import type { KafkaConnection } from '../../src/kafka/connection/kafka-connection.js';

const OFFSET_COMMIT = 8;
const HEARTBEAT = 12;
const LEAVE_GROUP = 13;

export interface FakeCommit {
  readonly memberId: string;
  readonly generation: number;
  /** `topic/partition:next`. */
  readonly commits: readonly string[];
}

interface Asked {
  readonly groupId: string;
  readonly groupGenerationId: number;
  readonly memberId: string;
  readonly topics: readonly {
    topic: string;
    partitions: readonly { partition: number; offset: string; metadata: string | null }[];
  }[];
}

export class FakeCoordinator {
  /** Requests to commit, as they arrived. */
  readonly requests: FakeCommit[] = [];
  heartbeats = 0;
  /** Requests that were sent over any connection, those that wait behind others included. */
  sent = 0;
  /** Kafka's name of the error that a partition's commit is answered with, by `topic/partition`. */
  readonly errors = new Map<string, string>();
  /** What the next request to commit is held by; its rejection is the fate of the whole request. */
  hold: Promise<unknown> = Promise.resolve();
  /** A fault before the bytes leave. */
  unsendable: Error | undefined;
  readonly #lanes: FakeConnection[] = [];

  constructor() {
    this.#lanes.push(new FakeConnection({ coordinator: this }), new FakeConnection({ coordinator: this }));
  }

  readonly broker = this.#broker();

  kafka(): KafkaConnection {
    const cluster = { brokerPool: { metadata: null }, findGroupCoordinator: async () => this.broker };
    return { cluster, cut: () => undefined, end: () => undefined } as unknown as KafkaConnection;
  }

  async answer({ request }: KafkajsRequest): Promise<unknown> {
    if (this.unsendable !== undefined) throw this.unsendable;
    const asked = (await request.encode()) as unknown as Asked;
    if (request.apiKey === HEARTBEAT) return void this.heartbeats++;
    const commits = asked.topics.flatMap(({ topic, partitions }) =>
      partitions.map(({ partition, offset }) => `${topic}/${partition}:${offset}`),
    );
    this.requests.push({ memberId: asked.memberId, generation: asked.groupGenerationId, commits });
    await this.hold;
    const code = (name: string) => (this.errors.has(name) ? 1 : 0);
    return {
      responses: asked.topics.map(({ topic, partitions }) => ({
        topic,
        partitions: partitions.map(({ partition }) => ({ partition, errorCode: code(`${topic}/${partition}`) })),
      })),
    };
  }

  #broker(): KafkajsBroker {
    const lanes = this.#lanes;
    const pool = {
      host: 'h',
      port: 1,
      pool: lanes,
      logger: undefined,
      send: async () => Promise.reject(new Error('a request chose no connection')),
      getConnection: async (index: number) => lanes[index],
    };
    const errors = this.errors;
    // As kafkajs does: the first error of any partition is the request's.
    const parse = async (decoded: unknown) => {
      for (const { topic, partitions } of (
        decoded as { responses: { topic: string; partitions: { partition: number; errorCode: number }[] }[] }
      ).responses) {
        for (const { partition, errorCode } of partitions) {
          const type = errors.get(`${topic}/${partition}`);
          if (errorCode !== 0) throw Object.assign(new Error(type), { type });
        }
      }
      return decoded;
    };
    const requestOf = (apiKey: number, asked: unknown): KafkajsRequest =>
      ({
        request: { apiKey, apiVersion: 0, apiName: '', encode: async () => asked },
        response: { decode: async (payload: unknown) => payload, parse },
      }) as unknown as KafkajsRequest;
    const call = (apiKey: number) =>
      function (this: KafkajsBroker, asked: unknown) {
        return this.connectionPool.send(requestOf(apiKey, asked));
      };
    const nothing = async () => undefined;
    return {
      ...Object.fromEntries(
        [
          'isConnected',
          'apiVersions',
          'metadata',
          'findGroupCoordinator',
          'joinGroup',
          'syncGroup',
          'offsetFetch',
          'listOffsets',
          'fetch',
        ].map((name) => [name, nothing]),
      ),
      nodeId: 1,
      connectionPool: pool,
      offsetCommit: call(OFFSET_COMMIT),
      heartbeat: call(HEARTBEAT),
      leaveGroup: call(LEAVE_GROUP),
    } as unknown as KafkajsBroker;
  }
}

/** Made by a class, since the third one is made of the class of the first. */
class FakeConnection {
  readonly coordinator: FakeCoordinator;
  readonly requestQueue = { enforceRequestTimeout: true };
  readonly versions = undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor({ coordinator }: { readonly coordinator: FakeCoordinator }) {
    this.coordinator = coordinator;
  }

  isConnected = () => true;
  setVersions = () => undefined;
  getSupportAuthenticationProtocol = () => null;
  setSupportAuthenticationProtocol = () => undefined;

  send(request: KafkajsRequest): Promise<unknown> {
    this.coordinator.sent++;
    const answer = this.#last
      .then(() => this.coordinator.answer(request))
      .then((decoded) => request.response.parse(decoded ?? { responses: [] }));
    this.#last = answer.catch(() => undefined);
    return answer;
  }
}
