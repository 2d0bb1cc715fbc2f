import { createRequire } from 'node:module';
import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { joinNothing, type KafkajsConnection } from '../../../src/kafka/connection/broker.js';
import { FrameReader, MAX_ANSWER_BYTES } from '../../../src/kafka/connection/frames.js';

const SCRATCH_BYTES = 64 * 1024;

function reading() {
  const frames: Buffer[] = [];
  const broken: Error[] = [];
  const scratch = Buffer.alloc(SCRATCH_BYTES);
  const reader = new FrameReader(scratch, {
    frame: (bytes) => frames.push(bytes),
    broken: (error) => broken.push(error),
  });
  /** As a socket would: at most what there is room for, and at most `most`. */
  const feed = (stream: Buffer, most: () => number): void => {
    for (let at = 0; at < stream.length;) {
      const room = reader.room();
      const length = Math.min(room.length, most(), stream.length - at);
      stream.copy(room, 0, at, at + length);
      reader.take(room, length);
      at += length;
    }
  };
  return { frames, broken, scratch, feed, reader };
}

function answer(body: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length);
  return Buffer.concat([length, body]);
}

afterEach(() => vi.restoreAllMocks());

describe("a broker's answers", () => {
  test('come whole and unchanged, wherever the network cuts them', () => {
    const size = fc.oneof(
      fc.nat({ max: 40 }),
      fc.integer({ min: SCRATCH_BYTES - 10, max: SCRATCH_BYTES + 10 }),
      fc.integer({ min: 100_000, max: 300_000 }),
    );
    const property = fc.property(
      fc.array(size, { minLength: 1, maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 90_000 }), { minLength: 1, maxLength: 20 }),
      (sizes, cuts) => {
        const answers = sizes.map((length, i) => answer(Buffer.alloc(length, i + 1)));
        const { frames, feed } = reading();
        let cut = 0;
        feed(Buffer.concat(answers), () => cuts[cut++ % cuts.length]!);
        expect(frames.length).toBe(answers.length);
        frames.forEach((frame, i) => expect(frame.equals(answers[i]!)).toBe(true));
      },
    );
    fc.assert(property, { numRuns: 100 });
  });

  test('of which the length itself is cut in two are not lost', () => {
    const { frames, feed } = reading();
    feed(Buffer.concat([answer(Buffer.from('ab')), answer(Buffer.from('c'))]), () => 1);
    expect(frames.map(String)).toEqual(['\0\0\0\x02ab', '\0\0\0\x01c']);
  });

  test('are memory of their own: what is read later does not change them', () => {
    const { frames, scratch, feed } = reading();
    feed(answer(Buffer.alloc(300_000, 7)), () => 1_000_000);
    feed(answer(Buffer.from('small')), () => 1_000_000);
    scratch.fill(0);
    expect(frames[0]!.subarray(4).equals(Buffer.alloc(300_000, 7))).toBe(true);
    expect(frames[1]!.subarray(4).toString()).toBe('small');
  });

  test('of which the larger part is read in place, not copied', () => {
    const { reader, scratch } = reading();
    const beginning = answer(Buffer.alloc(1_000_000)).subarray(0, SCRATCH_BYTES);
    beginning.copy(scratch);
    reader.take(scratch, beginning.length);
    expect(reader.room()).not.toBe(scratch);
    expect(reader.room().length).toBe(1_000_004 - SCRATCH_BYTES);
  });

  test.each([-1, MAX_ANSWER_BYTES + 1, 0x48545450])(
    'with a length of %d end the connection instead of filling the memory',
    (length) => {
      const { frames, broken, feed } = reading();
      const stream = Buffer.alloc(8);
      stream.writeInt32BE(length);
      feed(stream, () => 100);
      feed(answer(Buffer.from('later')), () => 100);
      expect(broken.map(({ message }) => message)).toEqual([expect.stringContaining(`an answer of ${length} bytes`)]);
      expect(frames).toEqual([]);
    },
  );

  test('are not joined with the nothing that the one before left behind', () => {
    const joining = vi.spyOn(Buffer, 'concat');
    const received: Buffer[] = [];
    const { prototype } = createRequire(import.meta.url)('kafkajs/src/network/connection.js') as {
      prototype: { processData(bytes: Buffer): void };
    };
    const connection = {
      chunks: [],
      bytesBuffered: 0,
      bytesNeeded: 4,
      requestQueue: { fulfillRequest: ({ payload }: { payload: Buffer }) => received.push(payload) },
    };
    joinNothing(connection as unknown as KafkajsConnection);
    const answers = ['first', 'second', 'third'].map((text) =>
      answer(Buffer.concat([Buffer.alloc(4), Buffer.from(text)])),
    );
    joining.mockClear();
    for (const bytes of answers) prototype.processData.call(connection, bytes);
    expect(received.map(String)).toEqual(['first', 'second', 'third']);
    expect(joining).not.toHaveBeenCalled();
    expect(received[1]!.buffer).toBe(answers[1]!.buffer);
  });
});
