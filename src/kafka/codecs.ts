/**
 * Room: the four compressions of Kafka, both ways. Bytes in, bytes out; nothing of Kafka's protocol but the framings
 * that its clients put round snappy.
 */
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { compress as zstdCompress, decompress as zstdDecompress, init as zstdInit } from '@bokuweb/zstd-wasm';
import kafkajs from 'kafkajs';
import { compressFrame, decompressFrame, decompressFrameSync } from 'lz4-napi';
import { compress as snappyCompress, uncompress as snappyUncompress, uncompressSync as snappyUncompressSync } from 'snappy';
import { IngestError } from '../errors.js';

export type Bytes = Buffer | Promise<Buffer>;

/** Below this a thread of its own costs more than it saves. */
const THREAD_BYTES = 32 * 1024;

const gunzip = promisify(zlib.gunzip);

/** `codec` is the number in the attributes of a record batch. */
export function decompress(codec: number, data: Buffer): Bytes {
  switch (codec) {
    case 0:
      return data;
    case 1:
      return data.length < THREAD_BYTES ? zlib.gunzipSync(data) : gunzip(data);
    case 2:
      return snappyDecode(data);
    case 3:
      return data.length < THREAD_BYTES ? decompressFrameSync(data) : decompressFrame(data);
    case 4:
      return zstdDecode(data);
    default:
      throw new IngestError('KCR_KAFKA', `Records are compressed with codec ${codec}, which is not known`);
  }
}

// "\x82SNAPPY\0", then two version numbers; then blocks, each with its length before it. Java writes this; librdkafka
// writes one bare block.
const XERIAL_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]);
const XERIAL_HEADER_BYTES = 16;

function snappyDecode(data: Buffer): Bytes {
  if (data.length < XERIAL_HEADER_BYTES || XERIAL_MAGIC.compare(data, 0, XERIAL_MAGIC.length) !== 0) {
    return data.length < THREAD_BYTES ? asBuffer(snappyUncompressSync(data)) : snappyUncompress(data).then(asBuffer);
  }
  const blocks: Buffer[] = [];
  for (let at = XERIAL_HEADER_BYTES; at < data.length; ) {
    const length = data.readInt32BE(at);
    at += 4;
    if (length < 0 || at + length > data.length) throw new Error(`snappy block of ${length} bytes at ${at} of ${data.length}`);
    // A block is 32 KiB before compression: not worth a thread.
    blocks.push(asBuffer(snappyUncompressSync(data.subarray(at, at + length))));
    at += length;
  }
  return blocks.length === 1 ? (blocks[0] as Buffer) : Buffer.concat(blocks);
}

function asBuffer(bytes: Buffer | string): Buffer {
  return typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
}

type NativeZstd = (data: Buffer, done: (error: Error | null, result: Buffer) => void) => void;
const native = zlib as unknown as { zstdDecompress?: NativeZstd; zstdDecompressSync?: (data: Buffer) => Buffer };

function zstdDecode(data: Buffer): Bytes {
  // Node has it since 22.15.
  const { zstdDecompress: threaded, zstdDecompressSync: direct } = native;
  if (threaded !== undefined && direct !== undefined) {
    return data.length < THREAD_BYTES ? direct(data) : promisify(threaded)(data);
  }
  return zstdReady().then(() => zstdDecodeWasm(data));
}

const MAX_ZSTD_BYTES = 1024 * 1024 * 1024;

/** Java's frames do not say how long their content is; the decoder wants to know: try larger and larger rooms. */
function zstdDecodeWasm(data: Buffer): Buffer {
  for (let defaultHeapSize = Math.max(1 << 20, data.length * 8); ; defaultHeapSize *= 4) {
    try {
      const bytes = zstdDecompress(data, { defaultHeapSize });
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    } catch (error) {
      const tooSmall = error instanceof Error && error.message.endsWith('code -70');
      if (!tooSmall || defaultHeapSize >= MAX_ZSTD_BYTES) throw error;
    }
  }
}

let zstdLoading: Promise<void> | undefined;

function zstdReady(): Promise<void> {
  zstdLoading ??= zstdInit();
  return zstdLoading;
}

/** Makes snappy, lz4 and zstd known to kafkajs's producers, which bring gzip only. The source needs no registration. */
export function registerCodecs(): void {
  const { CompressionTypes, CompressionCodecs } = kafkajs;
  const codec = (type: number, compress: (data: Buffer) => Promise<Buffer>) => (): object => ({
    compress: (encoder: { buffer: Buffer }) => compress(encoder.buffer),
    decompress: async (data: Buffer) => decompress(type, data),
  });
  CompressionCodecs[CompressionTypes.Snappy] = codec(2, (data) => snappyCompress(data));
  CompressionCodecs[CompressionTypes.LZ4] = codec(3, (data) => compressFrame(data));
  CompressionCodecs[CompressionTypes.ZSTD] = codec(4, async (data) => {
    await zstdReady();
    return Buffer.from(zstdCompress(data));
  });
}
