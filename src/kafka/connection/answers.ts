/**
 * A broker's answers, before kafkajs believes them: each must be to a request that this very connection sent, and
 * be such that it can be taken apart. What is not ends its connection, which is reopened; never the process.
 * Imports: kafka.
 */
import {
  changeBrokers,
  type KafkajsBroker,
  type KafkajsBrokerPool,
  type KafkajsConnection,
  type KafkajsPool,
  type KafkajsRequest,
} from './broker.js';
import type { KafkaLog } from '../options.js';
import { isTimeout, reasonOf } from './classify-error.js';

const LENGTH_BYTES = 4;
/**
 * From a request's beginning: its length, the number of its kind, its version, then the number that its answer repeats.
 */
const CORRELATION_AT = 8;
const SASL_HANDSHAKE_API = 17;
const FETCH_API = 1;
/** A broker that is over its quota says how long to be silent; kafkajs would believe weeks. */
const MAX_THROTTLE_MS = 30_000;
/** Between two words about the same broker. */
const TELL_EVERY_MS = 10_000;

/** Which requests of one connection are not answered yet. */
export class OpenRequests {
  readonly #open = new Set<number>();
  /** After the oldest handshake a login's bytes follow without any head: nothing can be told of them. */
  #isBare = false;

  /** One whole request, its length included. */
  sent(request: Buffer): void {
    if (this.#isBare || request.length < CORRELATION_AT + 4) return;
    if (request.readInt16BE(LENGTH_BYTES) === SASL_HANDSHAKE_API && request.readInt16BE(LENGTH_BYTES + 2) === 0)
      this.#isBare = true;
    this.#open.add(request.readInt32BE(CORRELATION_AT));
  }

  /** One whole answer, its length included. Undefined: it belongs to a request; else what is wrong. */
  answered(answer: Buffer): Error | undefined {
    if (this.#isBare) return undefined;
    const short = shortAnswer(answer);
    if (short !== undefined) return short;
    const id = answer.readInt32BE(LENGTH_BYTES);
    return this.#open.delete(id)
      ? undefined
      : new Error(`an answer to request ${id}, which was not sent or is answered already`);
  }
}

/**
 * What is wrong with an answer, its length included, that does not even say to which request it is; undefined: it says
 * so.
 */
function shortAnswer({ length }: Buffer): Error | undefined {
  return length < LENGTH_BYTES + 4
    ? new Error(`an answer of ${length - LENGTH_BYTES} bytes, which does not even say to what`)
    : undefined;
}

/**
 * An answer that cannot be taken apart. Neither fatal nor final: the same request may be answered well next time.
 * Without a cause: what the language threw is taken for a defect, wherever it stands (trouble.ts).
 */
class BadAnswer extends Error {
  override readonly name = 'BadAnswer';
}

/** kafkajs's list of the connections to one broker. */
interface OpenPool extends KafkajsPool {
  readonly pool?: readonly (KafkajsConnection | undefined)[];
}

/**
 * Whatever a broker that the cluster makes from now on answers: what kafkajs or we throw at it is a lost connection.
 */
export function containAnswers(pool: KafkajsBrokerPool, log: KafkaLog): void {
  const toldMs = new Map<string, number>();
  changeBrokers(pool, (broker) => {
    const connections = broker.connectionPool;
    const send = connections.send.bind(connections);
    connections.send = (kafka) =>
      send(contained(kafka, (error) => cut(broker, kafka, error))).catch((thrown: unknown) => {
        // A connection over which nothing comes back any more is asked again for ever, unless it is reopened.
        if (isTimeout(thrown))
          (connections as OpenPool).pool?.[kafka.request.apiKey === FETCH_API ? 1 : 0]?.socket?.destroy(
            new Error('a request was not answered in time'),
          );
        throw thrown;
      });
  });

  async function cut({ connectionPool }: KafkajsBroker, { request }: KafkajsRequest, error: BadAnswer): Promise<void> {
    const broker = `${connectionPool.host}:${connectionPool.port}`;
    const nowMs = performance.now();
    if (nowMs - (toldMs.get(broker) ?? -Infinity) >= TELL_EVERY_MS) {
      toldMs.set(broker, nowMs);
      log('warn', 'an answer cannot be read, reopening the connection', {
        broker,
        request: request.apiName,
        reason: error.message,
      });
    }
    const connection = await connectionPool.getConnection(request.apiKey === FETCH_API ? 1 : 0).catch(() => undefined);
    connection?.socket?.destroy(error);
    // Until kafkajs has heard of it, it takes the connection for a good one.
    await new Promise(setImmediate);
  }
}

/**
 * A request whose answer, when it cannot be read, is a `BadAnswer`, after `onBad` has cut the connection that it came
 * over.
 */
export function contained(kafka: KafkajsRequest, onBad: (error: BadAnswer) => Promise<void>): KafkajsRequest {
  const guard = async <T>(call: () => Promise<T>): Promise<T> => {
    try {
      return await call();
    } catch (thrown) {
      if (!isForeign(thrown)) throw thrown;
      const error = new BadAnswer(`an answer to ${kafka.request.apiName} cannot be read: ${reasonOf(thrown)}`);
      await onBad(error);
      throw error;
    }
  };
  const { response } = kafka;
  return {
    ...kafka,
    response: {
      decode: (payload) => guard(async () => calmed(await response.decode(payload))),
      parse: (decoded) => guard(() => response.parse(decoded)),
    },
  };
}

/** What the language throws at bytes that are not what they should be; not what Kafka said, nor what we say of it. */
function isForeign(thrown: unknown): boolean {
  return (
    thrown instanceof RangeError ||
    thrown instanceof TypeError ||
    thrown instanceof SyntaxError ||
    !(thrown instanceof Error)
  );
}

function calmed(decoded: unknown): unknown {
  const answer = decoded as { clientSideThrottleTime?: unknown } | undefined;
  if (typeof answer?.clientSideThrottleTime === 'number' && answer.clientSideThrottleTime > MAX_THROTTLE_MS)
    answer.clientSideThrottleTime = MAX_THROTTLE_MS;
  return decoded;
}
