// The product's side of a broker's answers. The only file of this kind that knows where it is.
import { contained, shortAnswer } from '../../../src/kafka/answers.js';
import { decodeAnswer } from '../../../src/kafka/fetch.js';
import { FrameReader, MAX_ANSWER_BYTES } from '../../../src/kafka/frames.js';
import { decodeMetadata } from '../../../src/kafka/topic-ids.js';

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
  let isEnded = false;
  const scratch = Buffer.alloc(64 * 1024);
  const reader = new FrameReader(scratch, {
    frame: (bytes) => {
      if (isEnded) return; // its connection is closed
      if (broken > 0) throw new Error('an answer comes behind what is broken');
      if (shortAnswer(bytes) !== undefined) return void (isEnded = true);
      frames.push(Buffer.from(bytes));
    },
    broken: () => void (broken += 1),
  });
  for (const piece of pieces) {
    // As Node does: into the room that is offered, as much as there is.
    for (let at = 0; at < piece.length; ) {
      const room = reader.room();
      if (room.length === 0) throw new Error('no room is offered');
      const length = piece.copy(room, 0, at, Math.min(piece.length, at + room.length));
      reader.take(room, length);
      at += length;
    }
  }
  if (broken > 1) throw new Error('broken more than once');
  return { frames, isBroken: isEnded || broken === 1 };
};

/** Gives what an answer says, or throws what the fetching loop would meet. */
export interface AnswerSubject {
  readonly fetch: (payload: Buffer, version: number, nameOf: NameOf) => Promise<unknown>;
  readonly metadata: (payload: Buffer) => Promise<unknown>;
}

export type NameOf = (topicId: string | undefined) => string | undefined;

export const decodeAsShipped: AnswerSubject = {
  fetch: (payload, version, nameOf) => decoded(payload, (bytes) => decodeAnswer(bytes, version, nameOf)),
  metadata: (payload) => decoded(payload, decodeMetadata),
};

/** As every answer is read: what is thrown at its bytes costs the connection. */
function decoded(payload: Buffer, decode: (bytes: Buffer) => unknown): Promise<unknown> {
  const request = { apiKey: 0, apiVersion: 0, apiName: 'Any', encode: () => Promise.reject(new Error('nothing is sent')) };
  return contained({ request, response: { decode: async (bytes) => decode(bytes), parse: async (same) => same } }, async () => undefined).response.decode(payload);
}
