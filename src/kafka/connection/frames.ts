/**
 * A broker's answers, each read from the socket straight into memory of its own. Node would give a fresh 64 KiB
 * for each piece and kafkajs join the pieces: the same bytes three times, most of it the garbage collector's work.
 * Knows that an answer begins with its length (https://kafka.apache.org/protocol#protocol_common), and nothing else.
 * Imports: Node.
 */
import type { OnReadOpts } from 'node:net';

const LENGTH_BYTES = 4;
/** What the beginning of an answer is read into: small ones fit as a whole. */
const SCRATCH_BYTES = 64 * 1024;
/** Kafka's own limit for an answer is below it; a length beyond it is no Kafka. */
export const MAX_ANSWER_BYTES = 1024 ** 3;
/** How an answer of HTTP begins, read as a length. */
const HTTP = Buffer.from('HTTP').readInt32BE();

export interface FrameSink {
  /** One whole answer, its length included; the memory is the receiver's. */
  frame(bytes: Buffer): void;
  /** Not Kafka's protocol: the connection is of no use. */
  broken(error: Error): void;
}

/** What `net.connect` and `tls.connect` take as `onread`. */
export function framesTo(sink: FrameSink): OnReadOpts {
  const scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  const reader = new FrameReader(scratch, sink);
  return {
    buffer: () => reader.room(),
    callback: (read, buffer) => {
      reader.take(buffer as Buffer, read);
      return true;
    },
  };
}

export class FrameReader {
  readonly #scratch: Buffer;
  readonly #sink: FrameSink;
  /** The answer that is being read, and how much of it is there. */
  #frame: Buffer | undefined;
  #filled = 0;
  /** The beginning of a length that came in two pieces. */
  #head = Buffer.alloc(LENGTH_BYTES);
  #headFilled = 0;
  #isBroken = false;

  constructor(scratch: Buffer, sink: FrameSink) {
    this.#scratch = scratch;
    this.#sink = sink;
  }

  /** Where the next bytes should go: the rest of a large answer is read in place. */
  room(): Buffer {
    const frame = this.#frame;
    return frame === undefined || frame.length - this.#filled < SCRATCH_BYTES
      ? this.#scratch
      : frame.subarray(this.#filled);
  }

  take(from: Buffer, length: number): void {
    if (this.#isBroken) return;
    if (from !== this.#scratch) {
      // It is in place already.
      this.#filled += length;
      return this.#finish();
    }
    for (let at = 0; at < length && !this.#isBroken;) {
      if (this.#frame === undefined) at = this.#begin(from, at, length);
      const frame = this.#frame;
      if (frame === undefined) continue;
      const end = Math.min(length, at + frame.length - this.#filled);
      from.copy(frame, this.#filled, at, end);
      this.#filled += end - at;
      at = end;
      this.#finish();
    }
  }

  #begin(from: Buffer, at: number, length: number): number {
    const end = Math.min(length, at + LENGTH_BYTES - this.#headFilled);
    from.copy(this.#head, this.#headFilled, at, end);
    this.#headFilled += end - at;
    if (this.#headFilled < LENGTH_BYTES) return end;
    this.#headFilled = 0;
    const size = this.#head.readInt32BE(0);
    if (size < 0 || size > MAX_ANSWER_BYTES) {
      this.#isBroken = true;
      this.#sink.broken(
        new Error(
          `an answer of ${size} bytes: ` +
            `${size === HTTP ? 'an HTTP server answers, not Kafka' : "this is not Kafka's protocol; is it a TLS port?"}`,
        ),
      );
      return length;
    }
    this.#frame =
      size + LENGTH_BYTES < SCRATCH_BYTES
        ? Buffer.allocUnsafe(size + LENGTH_BYTES)
        : Buffer.allocUnsafeSlow(size + LENGTH_BYTES);
    this.#head.copy(this.#frame);
    this.#filled = LENGTH_BYTES;
    return end;
  }

  #finish(): void {
    const frame = this.#frame;
    if (frame === undefined || this.#filled < frame.length) return;
    this.#frame = undefined;
    this.#sink.frame(frame);
  }
}
