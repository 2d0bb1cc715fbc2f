import { randomBytes } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import kafkajs from 'kafkajs';
import { compressSync as snappyCompressSync } from 'snappy';
import { beforeAll, describe, expect, test } from 'vitest';
import { decompress as decompressUpTo, registerCodecs, unpackedBound } from '../../../src/kafka/fetch/codecs.js';

const LIMIT_BYTES = 16 * 1024 * 1024;
const decompress = (codec: number, data: Buffer) =>
  decompressUpTo(codec, data, unpackedBound(codec, data, LIMIT_BYTES));

const { CompressionTypes, CompressionCodecs } = kafkajs;
type Codec = { compress(encoder: { buffer: Buffer }): Promise<Buffer>; decompress(data: Buffer): Promise<Buffer> };
const codecOf = (type: number) => (CompressionCodecs[type as 1] as unknown as () => Codec)();

describe('compressed records', () => {
  beforeAll(() => registerCodecs());

  test.each(['GZIP', 'Snappy', 'LZ4', 'ZSTD'] as const)(
    'what a producer compressed with %s is read as it was written',
    async (name) => {
      const codec = codecOf(CompressionTypes[name]);
      const property = fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 2000 }),
        fc.integer({ min: 1, max: 200 }),
        async (unit, times) => {
          const data = Buffer.concat(Array.from({ length: times }, () => Buffer.from(unit)));
          const packed = await codec.compress({ buffer: data });
          expect((await decompress(CompressionTypes[name], packed)).equals(data)).toBe(true);
          expect((await codec.decompress(packed)).equals(data)).toBe(true);
        },
      );
      await fc.assert(property, { numRuns: 50 });
      // Large enough for a thread of its own, on either side.
      const data = Buffer.concat([randomBytes(300_000), Buffer.alloc(300_000)]);
      expect((await decompress(CompressionTypes[name], await codec.compress({ buffer: data }))).equals(data)).toBe(
        true,
      );
    },
  );

  test("snappy in Java's framing is not taken for garbage", async () => {
    const data = randomBytes(100_000);
    const blocks = [0, 32_768, 65_536, 98_304].map((at) => snappyCompressSync(data.subarray(at, at + 32_768)));
    const framed = Buffer.concat([
      Buffer.from([0x82, ...Buffer.from('SNAPPY'), 0, 0, 0, 0, 1, 0, 0, 0, 1]),
      ...blocks.flatMap((block) => [int32(block.length), block]),
    ]);
    expect((await decompress(2, framed)).equals(data)).toBe(true);
    expect(() => decompress(2, framed.subarray(0, framed.length - 1))).toThrow(/snappy block/);
  });

  test('zstd frames that do not tell their size are read, as Java writes them', async () => {
    // What `zstd` makes of 3 MiB of zeros from a pipe: no content size in the frame's head.
    const data = Buffer.alloc(3 * 1024 * 1024);
    expect((await decompress(4, streamedZstd(data.length))).equals(data)).toBe(true);
  });

  test('what says that it unpacks to more than it may is not unpacked', () => {
    const data = Buffer.alloc(1_000_000);
    for (const [codec, packed] of [
      [1, gzipSync(data)],
      [2, snappyCompressSync(data)],
    ] as const) {
      expect(() => unpackedBound(codec, packed, data.length - 1)).toThrow(/unpacks to more than 999999 bytes/);
      expect(unpackedBound(codec, packed, data.length)).toBe(data.length);
    }
  });

  test('damaged data is an error, not fewer records', async () => {
    const packed = gzipSync(randomBytes(1000));
    packed[500] = (packed[500] as number) ^ 0xff;
    await expect(async () => decompress(1, packed)).rejects.toThrow();
    await expect(async () => decompress(4, randomBytes(100))).rejects.toThrow();
    await expect(async () => decompress(3, randomBytes(100))).rejects.toThrow();
    await expect(async () => decompress(2, randomBytes(100))).rejects.toThrow();
    await expect(async () => decompress(9, randomBytes(100))).rejects.toThrow(/codec 9/);
  });
});

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

/** A frame of run-length blocks of 128 KiB, whose head has a window size and no content size. */
function streamedZstd(length: number): Buffer {
  const BLOCK = 128 * 1024;
  const blocks = length / BLOCK;
  const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58]);
  const runs = Array.from({ length: blocks }, (_, i) => {
    const run = Buffer.alloc(4);
    run.writeUIntLE((BLOCK << 3) | (1 << 1) | (i === blocks - 1 ? 1 : 0), 0, 3);
    return run;
  });
  return Buffer.concat([head, ...runs]);
}
