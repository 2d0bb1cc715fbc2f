/**
 * The four compressions of Kafka, both ways. Bytes in, bytes out; nothing of Kafka's protocol but the framings
 * that its clients put round snappy. No decoder is given more room than it was told to fill.
 * Imports: Node, kafkajs, lz4-napi, snappy.
 */
import { promisify } from 'node:util';
import { createGunzip, gunzip, gunzipSync, type ZlibOptions } from 'node:zlib';
import kafkajs from 'kafkajs';
import { compressFrame, decompressFrame, decompressFrameSync } from 'lz4-napi';
import {
  compress as snappyCompress,
  uncompress as snappyUncompress,
  uncompressSync as snappyUncompressSync,
} from 'snappy';
import { lz4Size, snappyBlocks, unpackedSize } from './unpacked-size.js';
import { asBuffer, TooLarge, THREAD_BYTES, type Bytes } from './unpacking.js';
import { zstdDecode, zstdEncode } from './zstd.js';

/** What kafkajs's own consumers are given at most. */
const DEFAULT_LIMIT_BYTES = 1024 ** 3;

/**
 * What it takes to unpack: an upper bound, or for gzip what it says of itself, which may be less than what comes: then
 * `decompress` throws `TooLarge`, and `gzipSize` counts.
 *
 * @throws TooLarge when it is more than `limitBytes`; of zstd that does not say its size, when its blocks may hold
 * more.
 */
export function unpackedBound(codec: number, data: Buffer, limitBytes: number): number {
  const bound = unpackedSize(codec, data);
  if (bound <= limitBytes) return bound;
  if (codec === 3) {
    const exact = lz4Size(data, true);
    if (exact <= limitBytes) return exact;
  }
  throw new TooLarge(limitBytes);
}

/**
 * `codec` is the number in the attributes of a record batch; `mostBytes` from `unpackedBound`: no more memory is taken.
 *
 * @throws TooLarge when more comes.
 */
export function decompress(codec: number, data: Buffer, mostBytes: number): Bytes {
  switch (codec) {
    case 0:
      return data;
    case 1:
      return gzipDecode(data, mostBytes);
    case 2:
      return snappyDecode(data);
    case 3:
      return data.length < THREAD_BYTES ? decompressFrameSync(data) : decompressFrame(data);
    case 4:
      return zstdDecode(data, mostBytes);
    default:
      throw new Error(`codec ${codec} is not known`);
  }
}

const gunzipInThread = promisify<Buffer, ZlibOptions, Buffer>(gunzip);

function gzipDecode(data: Buffer, mostBytes: number): Bytes {
  // One piece that takes it all: pieces that are joined would take the memory twice.
  const options = { maxOutputLength: Math.max(1, mostBytes), chunkSize: Math.max(64, mostBytes + 1) };
  const failed = (thrown: unknown): never => {
    throw (thrown as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE' ? new TooLarge(mostBytes) : thrown;
  };
  const fitting = (bytes: Buffer): Buffer =>
    bytes.length * 2 < bytes.buffer.byteLength && mostBytes > THREAD_BYTES ? Buffer.from(bytes) : bytes;
  if (data.length >= THREAD_BYTES || mostBytes > 16 * THREAD_BYTES)
    return gunzipInThread(data, options).then(fitting, failed);
  try {
    return fitting(gunzipSync(data, options));
  } catch (thrown) {
    return failed(thrown);
  }
}

/**
 * Counts what comes of gzip data that says too little of itself, and keeps none of it. @throws TooLarge beyond the
 * limit.
 */
export async function gzipSize(data: Buffer, limitBytes: number): Promise<number> {
  const stream = createGunzip();
  let size = 0;
  stream.end(data);
  for await (const piece of stream as AsyncIterable<Buffer>) {
    size += piece.length;
    if (size > limitBytes) throw new TooLarge(limitBytes);
  }
  return size;
}

/** It takes what its own head says, which `unpackedBound` has seen. */
function snappyDecode(data: Buffer): Bytes {
  const blocks = snappyBlocks(data);
  const [first] = blocks;
  if (first === data)
    return data.length < THREAD_BYTES ? asBuffer(snappyUncompressSync(data)) : snappyUncompress(data).then(asBuffer);
  // A block is 32 KiB before compression: not worth a thread.
  const unpacked = blocks.map((block) => asBuffer(snappyUncompressSync(block)));
  return unpacked.length === 1 ? (unpacked[0] as Buffer) : Buffer.concat(unpacked);
}

/** Makes snappy, lz4 and zstd known to kafkajs's producers, which bring gzip only. The source needs no registration. */
export function registerCodecs(): void {
  const { CompressionTypes, CompressionCodecs } = kafkajs;
  const codec = (type: number, compress: (data: Buffer) => Promise<Buffer>) => (): object => ({
    compress: (encoder: { buffer: Buffer }) => compress(encoder.buffer),
    decompress: async (data: Buffer) => decompress(type, data, unpackedBound(type, data, DEFAULT_LIMIT_BYTES)),
  });
  CompressionCodecs[CompressionTypes.Snappy] = codec(2, (data) => snappyCompress(data));
  CompressionCodecs[CompressionTypes.LZ4] = codec(3, (data) => compressFrame(data));
  CompressionCodecs[CompressionTypes.ZSTD] = codec(4, zstdEncode);
}
