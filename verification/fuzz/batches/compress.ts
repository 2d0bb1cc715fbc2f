// Kafka's four compressions, the way in: the libraries, and framings written by hand that they never make.
import { gzipSync } from 'node:zlib';
import { compress as zstdCompress } from '@bokuweb/zstd-wasm';
import kafkajs from 'kafkajs';
import { compressFrameSync } from 'lz4-napi';
import { compressSync as snappyCompress } from 'snappy';
import { registerCodecs } from '../../../src/kafka/fetch/codecs.js';
import type { Random } from '../random.js';

/**
 * The one instance of zstd in WebAssembly is begun by the product: begun twice, its two memories get mixed up. The
 * oracle unpacks with another library.
 */
export async function compressionReady(): Promise<void> {
  registerCodecs();
  const codec = kafkajs.CompressionCodecs[kafkajs.CompressionTypes.ZSTD] as () => {
    compress(encoder: { buffer: Buffer }): Promise<Buffer>;
  };
  await codec().compress({ buffer: Buffer.from('ready') });
}

export const codecNumbers = { none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 } as const;

export function compress(codec: number, plain: Buffer, random: Random): Buffer {
  switch (codec) {
    case codecNumbers.gzip:
      return gzipSync(plain, { level: random.int(10) });
    case codecNumbers.snappy:
      return random.chance(0.5) ? snappyCompress(plain) : xerial(plain, random);
    case codecNumbers.lz4:
      return random.chance(0.7) ? compressFrameSync(plain) : lz4Stored(plain, random);
    case codecNumbers.zstd:
      return random.chance(0.5) ? Buffer.from(zstdCompress(plain, random.between(1, 6))) : zstdStored(plain, random);
    default:
      return plain;
  }
}

/** What Java writes: blocks with their length before each, behind a magic number. */
function xerial(plain: Buffer, random: Random): Buffer {
  const head = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
  const parts: Buffer[] = [head];
  const size = random.pick([32 * 1024, 7, 64]);
  for (let at = 0; at < plain.length; at += size) {
    const block = snappyCompress(plain.subarray(at, at + size));
    const length = Buffer.alloc(4);
    length.writeInt32BE(block.length);
    parts.push(length, block);
  }
  return Buffer.concat(parts);
}

/** An LZ4 frame of stored blocks, without content size and checksums, as some producers write it. */
function lz4Stored(plain: Buffer, random: Random): Buffer {
  // Version 1, independent blocks; blocks of up to 64 KiB. The last byte is a checksum of the two before it.
  const parts: Buffer[] = [Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82])];
  const size = random.pick([64 * 1024, 11]);
  for (let at = 0; at < plain.length; at += size) {
    const block = plain.subarray(at, at + size);
    const length = Buffer.alloc(4);
    length.writeUInt32LE((0x80000000 | block.length) >>> 0);
    parts.push(length, block);
  }
  return Buffer.concat([...parts, Buffer.alloc(4)]);
}

const ZSTD_BLOCK_BYTES = 128 * 1024;

/** A zstd frame without content size, as Java writes it; of stored blocks, and of blocks that repeat one byte. */
function zstdStored(plain: Buffer, random: Random): Buffer {
  const size = Math.min(ZSTD_BLOCK_BYTES, random.pick([ZSTD_BLOCK_BYTES, 13, 100]));
  const blocks: Buffer[] = [];
  for (let at = 0; at < plain.length || at === 0; at += size) blocks.push(plain.subarray(at, at + size));
  return zstdFrame(
    blocks.map((block) => (isOneByte(block) ? { repeat: block.length, byte: block[0]! } : { stored: block })),
  );
}

type ZstdBlock = { readonly stored: Buffer } | { readonly repeat: number; readonly byte: number };

function zstdFrame(blocks: readonly ZstdBlock[]): Buffer {
  // No content size, no checksum; a window of 128 KiB (7 << 3).
  const parts: Buffer[] = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38])];
  blocks.forEach((block, index) => {
    const isLast = index === blocks.length - 1 ? 1 : 0;
    const [type, size, content] =
      'stored' in block ? [0, block.stored.length, block.stored] : [1, block.repeat, Buffer.from([block.byte])];
    const head = Buffer.alloc(3);
    head.writeUIntLE(isLast | (type << 1) | (size << 3), 0, 3);
    parts.push(head, content);
  });
  return Buffer.concat(parts);
}

function isOneByte(block: Buffer): boolean {
  return block.length > 1 && block.every((byte) => byte === block[0]);
}

/** A few hundred bytes that unpack to `blocks` times 128 KiB: between `head` and nothing. */
export function zstdBomb(head: Buffer, blocks: number): Buffer {
  return zstdFrame([
    { stored: head },
    ...Array.from({ length: blocks }, () => ({ repeat: ZSTD_BLOCK_BYTES, byte: 0x20 })),
  ]);
}
