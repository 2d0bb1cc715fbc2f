/**
 * The part of kafkajs that is used underneath its consumer: its Cluster and Brokers, that is connections,
 * metadata and requests. The classes are not public as a whole, so their shape is written down and checked here, for
 * exactly one version of kafkajs. Imports: Node, errors.
 */
import type { Socket } from 'node:net';
import { IngestError } from '../../errors.js';
import type { EncodedRequest } from './protocol.js';

export const KAFKAJS_VERSION = '2.2.4';

export interface TopicPartitions<Partition> {
  readonly topic: string;
  readonly partitions: readonly Partition[];
}

export interface KafkajsRequest {
  readonly request: {
    readonly apiKey: number;
    readonly apiVersion: number;
    readonly apiName: string;
    encode(): Promise<EncodedRequest>;
  };
  readonly response: WireResponse;
  readonly requestTimeout?: number;
}

export interface WireResponse {
  decode(payload: Buffer): Promise<unknown>;
  parse(decoded: unknown): Promise<unknown>;
}

export interface KafkajsConnection {
  /** What has come of the next answer so far. */
  chunks: Buffer[];
  /** Undefined or null before it is connected. */
  readonly socket?: Socket | null | undefined;
  send(request: KafkajsRequest): Promise<unknown>;
}

export interface KafkajsPool {
  readonly host: string;
  readonly port: number;
  send(request: KafkajsRequest): Promise<unknown>;
  getConnection(index: number): Promise<KafkajsConnection>;
}

export interface PartitionError {
  readonly partition: number;
  readonly errorCode: number;
}

export interface KafkajsBroker {
  readonly nodeId: number;
  readonly connectionPool: KafkajsPool;
  connect(): Promise<void>;
  isConnected(): boolean;
  apiVersions(): Promise<Readonly<Record<number, { readonly maxVersion: number }>>>;
  /** Of these topics; undefined: of all. */
  metadata: (this: KafkajsBroker, topics: readonly string[] | undefined) => Promise<unknown>;
  findGroupCoordinator(group: { groupId: string }): Promise<unknown>;
  joinGroup(request: {
    groupId: string;
    sessionTimeout: number;
    rebalanceTimeout: number;
    memberId: string;
    groupProtocols: readonly { name: string; metadata: Buffer }[];
  }): Promise<{
    generationId: number;
    groupProtocol: string;
    leaderId: string;
    memberId: string;
    members: readonly { memberId: string; memberMetadata: Buffer }[];
  }>;
  syncGroup(request: {
    groupId: string;
    generationId: number;
    memberId: string;
    groupAssignment: readonly { memberId: string; memberAssignment: Buffer }[];
  }): Promise<{ memberAssignment: Buffer }>;
  heartbeat(request: { groupId: string; groupGenerationId: number; memberId: string }): Promise<unknown>;
  leaveGroup(request: { groupId: string; memberId: string }): Promise<unknown>;
  offsetCommit(request: {
    groupId: string;
    groupGenerationId: number;
    memberId: string;
    topics: readonly TopicPartitions<{ partition: number; offset: string; metadata: string | null }>[];
  }): Promise<unknown>;
  offsetFetch(request: { groupId: string; topics: readonly TopicPartitions<{ partition: number }>[] }): Promise<{
    responses: readonly TopicPartitions<{ partition: number; offset: string; metadata: string | null }>[];
  }>;
  listOffsets(request: {
    isolationLevel: number;
    topics: readonly TopicPartitions<{ partition: number; timestamp: string }>[];
  }): Promise<{ responses: readonly TopicPartitions<PartitionError & { offset: string }>[] }>;
  fetch(request: {
    isolationLevel: number;
    maxWaitTime: number;
    minBytes: number;
    maxBytes: number;
    topics: readonly TopicPartitions<{ partition: number; fetchOffset: string; maxBytes: number }>[];
  }): Promise<unknown>;
}

export interface PartitionMetadata {
  readonly partitionErrorCode: number;
  readonly partitionId: number;
  /** -1: none. */
  readonly leader: number;
}

export interface KafkajsBrokerPool {
  readonly metadata: {
    readonly brokers: readonly { readonly nodeId: number; readonly host: string; readonly port: number }[];
    readonly topicMetadata: readonly { readonly topic: string; readonly topicErrorCode: number }[];
  } | null;
  readonly brokers?: Readonly<Record<string, KafkajsBroker>>;
  readonly seedBroker?: KafkajsBroker;
  createBroker: (options: unknown) => KafkajsBroker;
}

export interface KafkajsCluster {
  readonly brokerPool: KafkajsBrokerPool;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  addMultipleTargetTopics(topics: readonly string[]): Promise<void>;
  metadata(asked: { topics: readonly string[] }): Promise<unknown>;
  refreshMetadata(): Promise<void>;
  findTopicPartitionMetadata(topic: string): readonly PartitionMetadata[];
  findBroker(node: { nodeId: number }): Promise<KafkajsBroker>;
  findGroupCoordinator(group: { groupId: string }): Promise<KafkajsBroker>;
}

/** Every broker that the cluster makes from now on is changed before it is used. */
export function changeBrokers(pool: KafkajsBrokerPool, change: (broker: KafkajsBroker) => void): void {
  const create = pool.createBroker;
  pool.createBroker = (options) => {
    const broker = create(options);
    change(broker);
    return broker;
  };
}

const versions = new WeakMap<KafkajsBroker, ReturnType<KafkajsBroker['apiVersions']>>();

/**
 * The newest version of a request that this very broker speaks, -1 for none. kafkajs believes of all brokers what the
 * first one told, which is wrong while they are upgraded one by one.
 */
export async function maxVersion(broker: KafkajsBroker, apiKey: number): Promise<number> {
  let asked = versions.get(broker);
  if (asked === undefined) {
    asked = broker.apiVersions();
    versions.set(broker, asked);
    asked.catch(() => forgetVersions(broker));
  }
  return (await asked)[apiKey]?.maxVersion ?? -1;
}

/** It may come back as another version. */
export function forgetVersions(broker: KafkajsBroker): void {
  versions.delete(broker);
}

/**
 * A broker whose requests pass through `send`; everything else stays the broker's own. A connection that the broker has
 * closed is opened again at the next request; kafkajs would close the broker's other ones with it.
 */
export function through(
  broker: KafkajsBroker,
  send: (pool: KafkajsPool, request: KafkajsRequest) => Promise<unknown>,
): KafkajsBroker {
  const pool = broker.connectionPool;
  const view = Object.create(pool, {
    send: { value: (request: KafkajsRequest) => send(pool, request) },
  }) as KafkajsPool;
  return Object.create(broker, {
    connectionPool: { value: view },
    disconnect: { value: async () => undefined },
  }) as KafkajsBroker;
}

const whole = new WeakSet<KafkajsConnection>();

/**
 * kafkajs keeps what is left behind an answer, as a rule an empty Buffer, and joins it with the next answer, which
 * copies that. Answers come whole here (frames.ts): nothing is left, and nothing need be joined.
 */
export function joinNothing(connection: KafkajsConnection): void {
  if (whole.has(connection)) return;
  whole.add(connection);
  let chunks = connection.chunks;
  Object.defineProperty(connection, 'chunks', {
    get: () => chunks,
    set: (list: Buffer[]) => (chunks = list.filter(({ length }) => length > 0)),
  });
}

const CLUSTER_CALLS = [
  'connect',
  'disconnect',
  'addMultipleTargetTopics',
  'metadata',
  'refreshMetadata',
  'findTopicPartitionMetadata',
  'findBroker',
  'findGroupCoordinator',
] as const satisfies readonly (keyof KafkajsCluster)[];

const BROKER_CALLS = [
  'isConnected',
  'apiVersions',
  'metadata',
  'findGroupCoordinator',
  'joinGroup',
  'syncGroup',
  'heartbeat',
  'leaveGroup',
  'offsetCommit',
  'offsetFetch',
  'listOffsets',
  'fetch',
] as const satisfies readonly (keyof KafkajsBroker)[];

export function checkedCluster(cluster: unknown): KafkajsCluster {
  demand('Cluster', cluster, CLUSTER_CALLS);
  demand('BrokerPool', (cluster as KafkajsCluster).brokerPool, ['createBroker']);
  return cluster as KafkajsCluster;
}

export function checkedBroker(broker: unknown): KafkajsBroker {
  demand('Broker', broker, BROKER_CALLS);
  demand('ConnectionPool', (broker as KafkajsBroker).connectionPool, ['send', 'getConnection']);
  return broker as KafkajsBroker;
}

function demand(what: string, object: unknown, calls: readonly string[]): void {
  const missing = calls.filter((name) => typeof (object as Record<string, unknown> | undefined)?.[name] !== 'function');
  if (missing.length === 0) return;
  throw new IngestError('KCR_KAFKAJS_HOOKS', `kafkajs's ${what} lacks ${missing.join(', ')}`, {
    hint: `install kafkajs ${KAFKAJS_VERSION} unchanged`,
  });
}
