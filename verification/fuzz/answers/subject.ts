// The product's side of a broker's answers. The only file of this kind that knows where it is.
import { containAnswers, OpenRequests } from '../../../src/kafka/connection/answers.js';
import type { KafkajsBroker, KafkajsBrokerPool, KafkajsRequest } from '../../../src/kafka/connection/broker.js';
import { decodeAnswer } from '../../../src/kafka/fetch/fetch-answer.js';
import { FrameReader, MAX_ANSWER_BYTES } from '../../../src/kafka/connection/frames.js';
import { decodeMetadata } from '../../../src/kafka/connection/metadata.js';

export const mostAnswerBytes = MAX_ANSWER_BYTES;

/** Bytes of a connection, cut into answers. */
export interface Frames {
  readonly frames: readonly Buffer[];
  /** The connection is of no use any more. */
  readonly isBroken: boolean;
}

export type FrameSubject = (pieces: readonly Buffer[]) => Frames;

export const cutAsShipped: FrameSubject = (pieces) => {
  const frames: Buffer[] = [];
  let broken = 0;
  const scratch = Buffer.alloc(64 * 1024);
  const requests = new OpenRequests();
  const reader = new FrameReader(scratch, {
    frame: (bytes) => {
      // Behind a connection that is destroyed nothing is looked at any more.
      if (broken > 0) return;
      if (bytes.length >= 8) requests.sent(requestFor(bytes));
      if (requests.answered(bytes) === undefined) frames.push(Buffer.from(bytes));
      else broken += 1;
    },
    broken: () => void (broken = Math.max(1, broken)),
  });
  for (const piece of pieces) {
    // As Node does: into the room that is offered, as much as there is.
    for (let at = 0; at < piece.length;) {
      const room = reader.room();
      if (room.length === 0) throw new Error('no room is offered');
      const length = piece.copy(room, 0, at, Math.min(piece.length, at + room.length));
      reader.take(room, length);
      at += length;
    }
  }
  return { frames, isBroken: broken === 1 };
};

/** Gives what an answer says, or throws what the fetching loop would meet. */
export interface AnswerSubject {
  readonly fetch: (payload: Buffer, version: number, nameOf: NameOf) => Promise<unknown>;
  readonly metadata: (payload: Buffer) => Promise<unknown>;
}

export type NameOf = (topicId: string | undefined) => string | undefined;

/** The request that an answer says it is for. */
function requestFor(answer: Buffer): Buffer {
  const request = Buffer.alloc(12);
  answer.copy(request, 8, 4, 8);
  return request;
}

export const decodeAsShipped: AnswerSubject = {
  fetch: (payload, version, nameOf) => answered(1, version, payload, (bytes) => decodeAnswer(bytes, version, nameOf)),
  metadata: (payload) => answered(3, 10, payload, decodeMetadata),
};

/** As the cluster asks: what is thrown at an answer is contained. */
const broker = ((): KafkajsBroker => {
  const connectionPool = {
    host: 'fuzz',
    port: 9092,
    getConnection: async () => ({ chunks: [], send: async () => undefined }),
    send: async ({ response }: Pick<KafkajsRequest, 'response'>) => response.parse(await response.decode(sent)),
  };
  const pool = {
    metadata: null,
    createBroker: () => ({ nodeId: 1, connectionPool }) as unknown as KafkajsBroker,
  } satisfies KafkajsBrokerPool;
  containAnswers(pool, () => undefined);
  return pool.createBroker();
})();
let sent = Buffer.alloc(0);

function answered(
  apiKey: number,
  apiVersion: number,
  payload: Buffer,
  decode: (bytes: Buffer) => unknown,
): Promise<unknown> {
  sent = Buffer.from(payload);
  const request = { apiKey, apiVersion, apiName: `api ${apiKey}`, encode: () => Promise.reject(new Error('not sent')) };
  return broker.connectionPool.send({
    request,
    response: { decode: async (bytes) => decode(bytes), parse: async (decoded) => decoded },
  });
}
