// A broker's answers as bytes on a connection: cut into answers by the product, and by a look at the lengths.
import type { Random } from '../random.js';
import { mostAnswerBytes, type FrameSubject } from './subject.js';

/** An answer begins with the number of the request it is for. */
const LEAST_ANSWER_BYTES = 4;
/** Larger ones are announced, not sent. */
const MOST_SENT_BYTES = 200_000;

export function frameFault(
  random: Random,
  subject: FrameSubject,
): { readonly what: string | undefined; readonly bytes: Buffer } {
  const bytes = stream(random);
  const should = expected(bytes);
  const read = subject(pieces(random, bytes));
  const what = ((): string | undefined => {
    if (should.isBroken !== undefined && read.isBroken !== should.isBroken)
      return should.isBroken ? 'a length that is none is believed' : 'a sound answer breaks its connection';
    if (read.frames.length !== should.frames.length)
      return `${read.frames.length} answers are read of ${should.frames.length}`;
    return read.frames.every((frame, index) => frame.equals(should.frames[index]!))
      ? undefined
      : 'an answer has other bytes';
  })();
  return { what, bytes };
}

function expected(bytes: Buffer): { readonly frames: readonly Buffer[]; readonly isBroken: boolean | undefined } {
  const frames: Buffer[] = [];
  for (let at = 0; at + 4 <= bytes.length;) {
    const size = bytes.readInt32BE(at);
    // What is too short to say what it answers may be waited for first.
    if (size >= 0 && size < LEAST_ANSWER_BYTES && at + 4 + size > bytes.length) return { frames, isBroken: undefined };
    if (size < LEAST_ANSWER_BYTES || size > mostAnswerBytes) return { frames, isBroken: true };
    if (at + 4 + size > bytes.length) break;
    frames.push(bytes.subarray(at, at + 4 + size));
    at += 4 + size;
  }
  return { frames, isBroken: false };
}

function stream(random: Random): Buffer {
  const parts: Buffer[] = [];
  for (let left = random.small(6); left >= 0; left--) {
    const size = random.chance(0.05) ? random.small(MOST_SENT_BYTES) : random.small(60) + LEAST_ANSWER_BYTES;
    const length = Buffer.alloc(4);
    const lie = random.chance(0.08)
      ? random.pick([0, 1, 3, -1, 2147483647, mostAnswerBytes + 1, 0x48545450, 0x15030300, size + 1, size - 1])
      : size;
    length.writeInt32BE(lie);
    parts.push(length, size > 1000 ? Buffer.alloc(size, random.int(256)) : random.bytes(size));
  }
  const whole = Buffer.concat(parts);
  return random.chance(0.3) ? whole.subarray(0, random.int(whole.length + 1)) : whole;
}

function pieces(random: Random, bytes: Buffer): Buffer[] {
  const list: Buffer[] = [];
  const most = random.pick([1, 3, 10, 1000, 70_000]);
  const least = Math.ceil(bytes.length / 2000);
  for (let at = 0; at < bytes.length;) {
    const length = Math.max(least, 1 + random.int(most));
    list.push(bytes.subarray(at, at + length));
    at += length;
  }
  return list;
}
