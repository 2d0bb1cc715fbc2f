/**
 * The few words that all codecs share. Imports nothing. Imports: nothing.
 */

export type Bytes = Buffer | Promise<Buffer>;

/** Below this many compressed bytes a thread of its own costs more than it saves. */
export const THREAD_BYTES = 32 * 1024;

/** It unpacks to more than it may. */
export class TooLarge extends Error {
  override readonly name = 'TooLarge';

  constructor(mostBytes: number) {
    super(`it unpacks to more than ${mostBytes} bytes`);
  }
}

/** Without copying. */
export function asBuffer(bytes: Uint8Array | string): Buffer {
  if (typeof bytes === 'string') return Buffer.from(bytes);
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
