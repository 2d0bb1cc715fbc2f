/**
 * How many bytes compressed records unpack to, told from their framing before anything is unpacked. Pure. Errors
 * for a framing that is none.
 *
 * - snappy says it exactly; the decoder holds to it.
 * - lz4 and zstd: an upper bound, from the sizes of their blocks
 *   (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md,
 *   https://datatracker.ietf.org/doc/html/rfc8878).
 * - gzip ends with it, modulo 2^32 and only of its last member: a claim, which unpacking checks (codecs.ts).
 * Imports: nothing.
 */

/** At most so many bytes come of one byte, whatever the format's framing says. */
const GZIP_MOST_RATIO = 1032;
const SNAPPY_MOST_RATIO = 32;
const LZ4_MOST_RATIO = 255;

export function unpackedSize(codec: number, data: Buffer): number {
  switch (codec) {
    case 1:
      return gzipSize(data);
    case 2:
      return snappySize(data);
    case 3:
      return lz4Size(data);
    case 4:
      return zstdSize(data);
    default:
      return data.length;
  }
}

/** `claim`: beyond what the format can hold it is a lie. */
function gzipSize(data: Buffer): number {
  if (data.length < 18) throw new Error(`gzip of ${data.length} bytes, fewer than its head and tail have`);
  return Math.min(data.readUInt32LE(data.length - 4), data.length * GZIP_MOST_RATIO);
}

// "\x82SNAPPY\0", then two version numbers; then blocks, each with its length before it. Java writes this; librdkafka
// writes one bare block.
const XERIAL_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]);
const XERIAL_HEADER_BYTES = 16;

/** The blocks of snappy data, as they lie in it. */
export function snappyBlocks(data: Buffer): Buffer[] {
  if (data.length < XERIAL_HEADER_BYTES || XERIAL_MAGIC.compare(data, 0, XERIAL_MAGIC.length) !== 0) return [data];
  const blocks: Buffer[] = [];
  for (let at = XERIAL_HEADER_BYTES; at < data.length;) {
    const length = at + 4 > data.length ? -1 : data.readInt32BE(at);
    at += 4;
    if (length <= 0 || at + length > data.length)
      throw new Error(`snappy block of ${length} bytes at ${at} of ${data.length}`);
    blocks.push(data.subarray(at, at + length));
    at += length;
  }
  return blocks;
}

function snappySize(data: Buffer): number {
  return snappyBlocks(data).reduce((sum, block) => sum + snappyBlockSize(block), 0);
}

/** The length stands first, 32 bits in groups of seven. */
function snappyBlockSize(block: Buffer): number {
  let size = 0;
  for (let at = 0; at < 5; at++) {
    const byte = block[at];
    if (byte === undefined) break;
    size += (byte & 0x7f) * 2 ** (7 * at);
    if (byte >= 0x80) continue;
    if (size > block.length * SNAPPY_MOST_RATIO)
      throw new Error(`a snappy block of ${block.length} bytes says it unpacks to ${size}`);
    return size;
  }
  throw new Error('a snappy block without a length');
}

const LZ4_MAGIC = 0x184d2204;
const SKIPPABLE_MAGIC = 0x184d2a50;
const LZ4_BLOCK_BYTES: readonly (number | undefined)[] = [
  undefined,
  undefined,
  undefined,
  undefined,
  2 ** 16,
  2 ** 18,
  2 ** 20,
  2 ** 22,
];

/** `exact`: the blocks are walked through, which takes a while, instead of being taken for full. */
export function lz4Size(data: Buffer, exact = false): number {
  let size = 0;
  const from = data.length >= 7 && data.readUInt32LE(0) === LZ4_MAGIC ? 4 : -1;
  if (from < 0) throw new Error('not an lz4 frame');
  const flags = data[from] as number;
  const blockBytes = LZ4_BLOCK_BYTES[((data[from + 1] as number) >>> 4) & 7];
  if (flags >>> 6 !== 1 || blockBytes === undefined)
    throw new Error('an lz4 frame of a version or with a block size that is not known');
  const checksumBytes = (flags & 0x10) === 0 ? 0 : 4;
  let at = from + 2 + ((flags & 0x08) === 0 ? 0 : 8) + ((flags & 0x01) === 0 ? 0 : 4) + 1;
  for (;;) {
    if (at + 4 > data.length) throw new Error('an lz4 frame without an end');
    const word = data.readUInt32LE(at);
    const length = word & 0x7fffffff;
    at += 4;
    if (word === 0) {
      at += (flags & 0x04) === 0 ? 0 : 4;
      if (at !== data.length) throw new Error(`an lz4 frame that ends at ${at} of ${data.length} bytes`);
      return size;
    }
    if (at + length > data.length || length > blockBytes)
      throw new Error(`an lz4 block of ${length} bytes at ${at} of ${data.length}`);
    if (word >= 0x80000000) size += length;
    else size += exact ? lz4BlockSize(data, at, at + length) : Math.min(blockBytes, length * LZ4_MOST_RATIO);
    at += length + checksumBytes;
  }
}

/** Literals and matches, added up: each sequence begins with a byte of two lengths. */
function lz4BlockSize(data: Buffer, from: number, end: number): number {
  let at = from;
  let size = 0;
  const longLength = (short: number): number => {
    let length = short;
    if (short !== 15) return length;
    for (let byte = 255; byte === 255; length += byte) {
      if (at >= end) throw new Error('an lz4 block that is cut off');
      byte = data[at++] as number;
    }
    return length;
  };
  while (at < end) {
    const token = data[at++] as number;
    const literals = longLength(token >>> 4);
    at += literals;
    size += literals;
    if (at >= end) break;
    at += 2; // the match's distance
    size += longLength(token & 0x0f) + 4;
  }
  return size;
}

const ZSTD_MAGIC = 0xfd2fb528;
const ZSTD_BLOCK_BYTES = 128 * 1024;

function zstdSize(data: Buffer): number {
  let size = 0;
  let frames = 0;
  for (let at = 0; at < data.length;) {
    if (at + 8 > data.length) throw new Error('bytes behind a zstd frame that are none');
    const magic = data.readUInt32LE(at);
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
      at += 8 + data.readUInt32LE(at + 4);
      continue;
    }
    if (magic !== ZSTD_MAGIC) throw new Error('not a zstd frame');
    const frame = zstdFrame(data, at + 4);
    size += frame.size;
    at = frame.end;
    frames++;
  }
  if (frames === 0) throw new Error('no zstd frame');
  return size;
}

/** One frame, from behind its magic number. */
function zstdFrame(data: Buffer, from: number): { readonly size: number; readonly end: number } {
  const descriptor = data[from] as number;
  const single = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >>> 6;
  const sizeBytes = sizeFlag === 0 ? (single ? 1 : 0) : 2 ** sizeFlag;
  const windowByte = single ? 0 : (data[from + 1] ?? 0);
  let at = from + 1 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
  if (at + sizeBytes > data.length) throw new Error('a zstd frame that is cut off');
  const said = sizeBytes === 0 ? undefined : contentSize(data, at, sizeBytes);
  at += sizeBytes;
  const windowBytes = single ? (said ?? 0) : 2 ** (10 + (windowByte >>> 3)) * (1 + (windowByte & 7) / 8);
  const blockBytes = Math.min(ZSTD_BLOCK_BYTES, Math.max(windowBytes, 1));
  let bound = 0;
  for (let isLast = false; !isLast;) {
    if (at + 3 > data.length) throw new Error('a zstd frame without an end');
    const head = data.readUIntLE(at, 3);
    const [type, length] = [(head >>> 1) & 3, head >>> 3];
    isLast = (head & 1) === 1;
    if (type === 3 || (length > ZSTD_BLOCK_BYTES && type !== 1)) throw new Error('a zstd block that cannot be');
    // Raw and repeated blocks say what comes of them; a compressed one gives no more than a full block.
    bound += type === 2 ? blockBytes : length;
    at += 3 + (type === 1 ? 1 : length);
  }
  at += (descriptor & 4) === 0 ? 0 : 4;
  if (at > data.length) throw new Error('a zstd frame that is cut off');
  if (said !== undefined && said > bound)
    throw new Error(`a zstd frame says it unpacks to ${said} bytes, and its blocks to ${bound} at most`);
  return { size: said ?? bound, end: at };
}

function contentSize(data: Buffer, at: number, bytes: number): number {
  switch (bytes) {
    case 1:
      return data.readUInt8(at);
    case 2:
      return data.readUInt16LE(at) + 256;
    case 4:
      return data.readUInt32LE(at);
    default:
      return Number(data.readBigUInt64LE(at));
  }
}
