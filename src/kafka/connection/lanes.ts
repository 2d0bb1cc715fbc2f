/**
 * The connections to one broker, by what goes over them. A broker answers the requests of a connection one after
 * the other, so a heartbeat must not share one with what may take long, or be muted by a quota. kafkajs has two; the
 * third is made here of the same class. No request is known here. Imports: Node.
 */
import type { Socket } from 'node:net';
import { contained } from './answers.js';
import {
  through,
  type KafkajsBroker,
  type KafkajsCluster,
  type KafkajsConnection,
  type KafkajsPool,
} from './broker.js';
import { isTimeout } from './classify-error.js';

/**
 * Indexes of kafkajs's pool: `group` joins and sends heartbeats, and asks for metadata; `offsets` commits and asks for
 * offsets.
 */
export const LANES = { group: 0, fetch: 1, offsets: 2 } as const;

export type Lane = keyof typeof LANES;

/** As kafkajs has it; only what is needed to make one more. */
interface OpenConnection extends KafkajsConnection {
  readonly versions: unknown;
  readonly requestQueue: { readonly enforceRequestTimeout: boolean };
  isConnected(): boolean;
  setVersions(versions: unknown): void;
  getSupportAuthenticationProtocol(): boolean | null;
  setSupportAuthenticationProtocol(isSupported: boolean | null): void;
}

interface OpenPool extends KafkajsPool {
  readonly logger: unknown;
  readonly pool: OpenConnection[];
}

/** A broker whose requests go over one connection. A request that is not answered in time cuts that connection only. */
export function overLane(broker: KafkajsBroker, lane: Lane): KafkajsBroker {
  return through(broker, (pool, request) => sendOver(pool, lane, request));
}

export async function sendOver(
  pool: KafkajsPool,
  lane: Lane,
  request: Parameters<KafkajsPool['send']>[0],
): Promise<unknown> {
  const connection = await laneOf(pool, lane);
  const { socket } = connection;
  try {
    return await connection.send(contained(request, async () => cutSocket(connection.socket)));
  } catch (thrown) {
    if (isTimeout(thrown)) cutSocket(socket);
    throw thrown;
  }
}

/** Cuts one connection to one broker. */
export function cutLane(pool: KafkajsPool, lane: Lane): void {
  cutSocket((pool as Partial<OpenPool>).pool?.[LANES[lane]]?.socket);
}

/** Cuts one connection to each broker: what waits on them fails at once, and the next request opens them again. */
export function cutEverywhere({ brokerPool: { brokers, seedBroker } }: KafkajsCluster, lane: Lane): void {
  const pools = [...Object.values(brokers ?? {}), seedBroker].map(
    (broker) => broker?.connectionPool as OpenPool | undefined,
  );
  for (const pool of new Set(pools)) {
    if (pool !== undefined) cutLane(pool, lane);
  }
}

function cutSocket(socket: Socket | null | undefined): void {
  if (socket === undefined || socket === null) return;
  // kafkajs listens to 'error', not to 'close'; what it has ended by itself it need not hear of.
  if (socket.writableEnded) socket.destroy();
  else socket.destroy(new Error('connection cut by the client'));
}

const connecting = new WeakMap<KafkajsConnection, Promise<OpenConnection>>();

/** Two that want a connection at once share one: kafkajs would open two, and lose sight of the first. */
function laneOf(given: KafkajsPool, lane: Lane): Promise<OpenConnection> {
  const pool = given as OpenPool;
  const index = LANES[lane];
  const connection = (pool.pool[index] ??= anotherOf(pool));
  const underWay = connecting.get(connection);
  if (underWay !== undefined) return underWay;
  if (connection.isConnected()) return Promise.resolve(connection);
  const opening = pool
    .getConnection(index)
    .then(() => connection)
    .finally(() => connecting.delete(connection));
  connecting.set(connection, opening);
  return opening;
}

function anotherOf({ pool: [first], logger }: OpenPool): OpenConnection {
  if (first === undefined) throw new Error('a broker without connections');
  const { enforceRequestTimeout } = first.requestQueue;
  // What kafkajs was given for the first is what it keeps of it.
  const options = { ...first, logger, enforceRequestTimeout };
  const Connection = first.constructor as new (options: unknown) => OpenConnection;
  const made = new Connection(options);
  made.setVersions(first.versions);
  made.setSupportAuthenticationProtocol(first.getSupportAuthenticationProtocol());
  return made;
}
