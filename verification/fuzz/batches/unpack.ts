// The way out of Kafka's compressions for the oracle: written from the formats' descriptions, or by libraries that the
// product does not use. Slow and strict; throws what it cannot read.
import { gunzipSync } from 'node:zlib';
import { decompress as zstdDecompress } from 'fzstd';
import { codecNumbers } from './compress.js';

/** Nothing that is made here unpacks to more, but bombs, which the oracle does not unpack. */
export const MOST_BYTES = 64 * 1024 * 1024;

export function unpack(codec: number, data: Buffer): Buffer {
  switch (codec) {
    case codecNumbers.none:
      return data;
    case codecNumbers.gzip:
      return gunzipSync(data, { maxOutputLength: MOST_BYTES });
    case codecNumbers.snappy:
      return snappy(data);
    case codecNumbers.lz4:
      return lz4(data);
    case codecNumbers.zstd:
      return Buffer.from(zstdDecompress(data));
    default:
      throw new Error(`codec ${codec} is not known`);
  }
}

const XERIAL = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]);
const XERIAL_HEADER_BYTES = 16;

function snappy(data: Buffer): Buffer {
  if (data.length < XERIAL_HEADER_BYTES || !data.subarray(0, 8).equals(XERIAL)) return snappyBlock(data);
  const parts: Buffer[] = [];
  for (let at = XERIAL_HEADER_BYTES; at < data.length;) {
    const length = data.readInt32BE(at);
    parts.push(snappyBlock(exactly(data, at + 4, length)));
    at += 4 + length;
  }
  return Buffer.concat(parts);
}

/** https://github.com/google/snappy/blob/main/format_description.txt */
function snappyBlock(data: Buffer): Buffer {
  let [at, length] = [0, 0];
  for (let shift = 0; ; shift += 7) {
    if (shift > 28) throw new Error('a length of more than 32 bits');
    const byte = byteAt(data, at++);
    length += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
  }
  if (length > MOST_BYTES) throw new Error('too long');
  const out = new Output(length);
  while (at < data.length) {
    const tag = byteAt(data, at++);
    const high = tag >>> 2;
    if ((tag & 3) === 0) {
      const extra = Math.max(0, high - 59);
      const size = extra === 0 ? high + 1 : exactly(data, at, extra).readUIntLE(0, extra) + 1;
      out.append(exactly(data, at + extra, size));
      at += extra + size;
      continue;
    }
    const width = (tag & 3) === 1 ? 1 : (tag & 3) === 2 ? 2 : 4;
    const low = exactly(data, at, width).readUIntLE(0, width);
    at += width;
    if (width === 1) out.repeat(low | ((tag >>> 5) << 8), ((tag >>> 2) & 7) + 4);
    else out.repeat(low, high + 1);
  }
  return out.whole();
}

/** https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md; checksums are not compared, as Kafka's own reader of contents. */
function lz4(data: Buffer): Buffer {
  if (data.length < 7 || data.readUInt32LE(0) !== 0x184d2204) throw new Error('no LZ4 frame');
  const flags = byteAt(data, 4);
  if (flags >>> 6 !== 1) throw new Error('another version of LZ4 frames');
  const [hasBlockSums, hasSize, hasSum, hasDictionary] = [flags & 0x10, flags & 0x08, flags & 0x04, flags & 0x01];
  let at = 6 + (hasSize ? 8 : 0) + (hasDictionary ? 4 : 0) + 1;
  const out = new Output(MOST_BYTES);
  for (;;) {
    const word = exactly(data, at, 4).readUInt32LE(0);
    at += 4;
    if (word === 0) break;
    const size = word & 0x7fffffff;
    const block = exactly(data, at, size);
    at += size + (hasBlockSums ? 4 : 0);
    if (word >= 0x80000000) out.append(block);
    else lz4Block(block, out);
  }
  if (hasSum) exactly(data, at, 4);
  return out.soFar();
}

/** https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md */
function lz4Block(block: Buffer, out: Output): void {
  let at = 0;
  const lengthFrom = (nibble: number): number => {
    let length = nibble;
    if (nibble < 15) return length;
    for (let byte = 255; byte === 255; length += byte) byte = byteAt(block, at++);
    return length;
  };
  while (at < block.length) {
    const token = byteAt(block, at++);
    const literals = lengthFrom(token >>> 4);
    out.append(exactly(block, at, literals));
    at += literals;
    if (at === block.length) return;
    const distance = exactly(block, at, 2).readUInt16LE(0);
    at += 2;
    out.repeat(distance, lengthFrom(token & 15) + 4);
  }
}

class Output {
  #data: Buffer;
  #filled = 0;
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
    this.#data = Buffer.alloc(Math.min(most, 64 * 1024));
  }

  append(bytes: Buffer): void {
    this.#room(bytes.length);
    bytes.copy(this.#data, this.#filled);
    this.#filled += bytes.length;
  }

  repeat(distance: number, length: number): void {
    if (distance === 0 || distance > this.#filled) throw new Error('a copy from before the beginning');
    this.#room(length);
    for (let left = length; left > 0; left--, this.#filled++)
      this.#data[this.#filled] = this.#data[this.#filled - distance]!;
  }

  soFar(): Buffer {
    return this.#data.subarray(0, this.#filled);
  }

  whole(): Buffer {
    if (this.#filled !== this.#most) throw new Error('another length than it says');
    return this.soFar();
  }

  #room(bytes: number): void {
    if (this.#filled + bytes > this.#most) throw new Error('more bytes than there may be');
    if (this.#filled + bytes <= this.#data.length) return;
    const larger = Buffer.alloc(Math.min(this.#most, Math.max(this.#data.length * 2, this.#filled + bytes)));
    this.#data.copy(larger);
    this.#data = larger;
  }
}

function byteAt(data: Buffer, at: number): number {
  const byte = data[at];
  if (byte === undefined) throw new Error('cut off');
  return byte;
}

function exactly(data: Buffer, at: number, length: number): Buffer {
  if (length < 0 || at + length > data.length) throw new Error('cut off');
  return data.subarray(at, at + length);
}
