/**
 * Zstd, with Node's own decoder where it has one (22.15), else in WebAssembly, whose memory never shrinks: what
 * is large is unpacked in a thread that ends with it. Bytes in, bytes out. Imports: @bokuweb/zstd-wasm, Node.
 */
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import * as zlib from 'node:zlib';
import { compress, decompress, init } from '@bokuweb/zstd-wasm';
import { asBuffer, TooLarge, THREAD_BYTES, type Bytes } from './unpacking.js';

/** Beyond it a decoder's memory is not kept. The module's own memory grows to about as much. */
const KEPT_BYTES = 8 * 1024 * 1024;

type NativeOptions = { readonly maxOutputLength: number; readonly chunkSize: number };
type NativeZstd = (data: Buffer, options: NativeOptions, done: (error: Error | null, result: Buffer) => void) => void;
const native = zlib as unknown as {
  zstdDecompress?: NativeZstd;
  zstdDecompressSync?: (data: Buffer, options: NativeOptions) => Buffer;
};

/** `mostBytes`: from `unpackedSize`, or a limit below it. @throws TooLarge beyond it. */
export function zstdDecode(data: Buffer, mostBytes: number): Bytes {
  const { zstdDecompress: threaded, zstdDecompressSync: direct } = native;
  if (threaded === undefined || direct === undefined)
    return mostBytes > KEPT_BYTES ? decodeInThread(data, mostBytes) : ready().then(() => decodeHere(data, mostBytes));
  const options = { maxOutputLength: Math.max(1, mostBytes), chunkSize: Math.max(64, mostBytes + 1) };
  const failed = (thrown: unknown): never => {
    throw (thrown as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE' ? new TooLarge(mostBytes) : thrown;
  };
  if (data.length >= THREAD_BYTES) return promisify(threaded)(data, options).catch(failed);
  try {
    return direct(data, options);
  } catch (thrown) {
    return failed(thrown);
  }
}

/**
 * The decoder takes as much memory as the frame says, or as it is told where the frame says nothing: both are known to
 * be at most this.
 */
function decodeHere(data: Buffer, defaultHeapSize: number): Buffer {
  try {
    return asBuffer(decompress(data, { defaultHeapSize }));
  } catch (thrown) {
    throw errorOf(thrown, defaultHeapSize);
  }
}

const THREAD = `
const { parentPort, workerData: { path, data, defaultHeapSize } } = require('node:worker_threads');
const { init, decompress } = require(path);
init().then(() => {
  const bytes = decompress(data, { defaultHeapSize });
  parentPort.postMessage(bytes, [bytes.buffer]);
});`;

function decodeInThread(data: Buffer, defaultHeapSize: number): Promise<Buffer> {
  const path = createRequire(import.meta.url).resolve('@bokuweb/zstd-wasm');
  return new Promise((resolve, reject) => {
    const thread = new Worker(THREAD, {
      eval: true,
      execArgv: [],
      workerData: { path, data: Uint8Array.from(data), defaultHeapSize },
    });
    thread.once('message', (bytes: Uint8Array) => resolve(asBuffer(bytes)));
    thread.once('error', (thrown) => reject(errorOf(thrown, defaultHeapSize)));
    thread.once('exit', () => reject(new Error('the thread that unpacks zstd ended without a result')));
  });
}

/** Error -70: what comes of it does not fit into the memory that was given. */
function errorOf(thrown: unknown, mostBytes: number): Error {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  return error.message.endsWith('code -70') ? new TooLarge(mostBytes) : error;
}

let loading: Promise<void> | undefined;

function ready(): Promise<void> {
  loading ??= init();
  return loading;
}

export async function zstdEncode(data: Buffer): Promise<Buffer> {
  await ready();
  return Buffer.from(compress(data));
}
