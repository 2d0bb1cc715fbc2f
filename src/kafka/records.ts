/**
 * Room: Kafka's record batches (magic 2), from bytes to where the records in them lie. Pure but for decompression. kafkajs's decoder
 * is not used: it loses the order and the names of headers, does not tell of batches that compaction has emptied, and
 * is several times slower.
 */
import { IngestError } from '../errors.js';
import { PACKED_RECORD_BYTES, PackedRecords, PartBuilder, type PackedPart } from '../model/packed-records.js';
import type { RecordHeaders, Records } from '../model/record.js';
import { abortedFilter, type AbortedTransaction } from './aborted.js';
import { decompress } from './codecs.js';

/** What a range of a partition's log holds for a reader. */
export interface DecodedRange {
  readonly records: Records;
  /** The last offset that was looked at, with or without a record. */
  readonly lastOffset: number;
  /** Bytes of keys and values. */
  readonly bytes: number;
  /** Memory that the records hold on to, bytes: the buffers they lie in, and their columns. */
  readonly heldBytes: number;
  /** Bytes of the log that were taken for it, as they are compressed. */
  readonly takenBytes: number;
}

export interface LogSlice {
  readonly data: Buffer;
  /** Records before it are left out: a batch may begin earlier. */
  readonly fromOffset: number;
  readonly aborted: readonly AbortedTransaction[];
}

interface BatchHead {
  readonly baseOffset: number;
  readonly lastOffset: number;
  readonly codec: number;
  readonly control: boolean;
  readonly transactional: boolean;
  readonly producerId: bigint;
  /** For log-append time the one time of all records, else undefined. */
  readonly appendTimeMs: number | undefined;
  readonly firstTimestampMs: number;
  readonly count: number;
  /** The records, as they are compressed. */
  readonly body: Buffer;
}

const noHeaders: RecordHeaders = Object.freeze([]);

/** From the batch's beginning to its first record. */
const HEAD_BYTES = 61;
/** From the batch's beginning to what its length counts. */
const LENGTH_END = 12;
/** A part's own objects, about. */
const PART_COST_BYTES = 1024;
/** An answer is held on to by so many partitions that had an equal part of it; with more of them each makes a copy. */
const MOST_PARTITIONS_SHARED = 4.5;
const TWO_32 = 2 ** 32;

/** So many bytes of batches, or so many compressed ones, are taken at a time: as many as there are threads for. */
const GROUP_BYTES = 128 * 1024;
const GROUP_COMPRESSED = 4;

/**
 * What one fetch brought of a partition, decoded piece by piece: compressed it is small, and while there is no room for
 * more records it waits compressed.
 */
export class LogReader {
  readonly #heads: readonly BatchHead[];
  readonly #isAborted: ReturnType<typeof abortedFilter>;
  readonly #fromOffset: number;
  #at = 0;

  constructor({ data, fromOffset, aborted }: LogSlice) {
    this.#fromOffset = fromOffset;
    this.#heads = batchHeads(ownBytes(data)).filter(({ lastOffset }) => lastOffset >= fromOffset);
    this.#isAborted = abortedFilter(aborted);
  }

  /** Are there batches left? */
  get isOver(): boolean {
    return this.#at >= this.#heads.length;
  }

  /** Decodes whole batches until they hold on to `limitBytes` or none is left. */
  async next(limitBytes: number): Promise<DecodedRange> {
    const parts: PackedPart[] = [];
    let lastOffset = this.#fromOffset - 1;
    let bytes = 0;
    let heldBytes = 0;
    let takenBytes = 0;
    while (!this.isOver && heldBytes < limitBytes) {
      const group: BatchHead[] = [];
      for (let size = 0, compressed = 0; size < GROUP_BYTES && compressed < GROUP_COMPRESSED && !this.isOver; ) {
        const head = this.#heads[this.#at++] as BatchHead;
        lastOffset = head.lastOffset;
        takenBytes += HEAD_BYTES + head.body.length;
        if (!this.#isReadable(head)) continue;
        group.push(head);
        size += head.body.length;
        if (head.codec !== 0) compressed++;
      }
      const isCompressed = group.some(({ codec }) => codec !== 0);
      const bodies = isCompressed ? await Promise.all(group.map(async ({ codec, body }) => decompress(codec, body))) : group.map(({ body }) => body);
      const capacity = group.reduce((sum, head, i) => sum + countOf(head, bodies[i]!), 0);
      if (capacity === 0) continue;
      const builder = new PartBuilder(capacity, headersAt);
      const parser = new RecordParser(builder);
      for (let i = 0; i < group.length; i++) parser.read(group[i]!, bodies[i]!, this.#fromOffset);
      parts.push(builder.build());
      bytes += parser.bytes;
      heldBytes += bodies.reduce((sum, body) => sum + body.length, 0) + capacity * PACKED_RECORD_BYTES + PART_COST_BYTES;
    }
    return { records: PackedRecords.of(parts), lastOffset, bytes, heldBytes, takenBytes };
  }

  #isReadable(head: BatchHead): boolean {
    const abortMarker = head.control && isAbortMarker(head);
    // Asked of every batch: the filter follows the transactions from one to the next.
    return !this.#isAborted({ ...head, abortMarker }) && !head.control && head.count > 0;
  }
}

/**
 * Slices hold on to the whole answer, with what it brought of every other partition. Where that is most of it a copy is
 * cheaper than the memory.
 */
function ownBytes(data: Buffer): Buffer {
  if (data.length * MOST_PARTITIONS_SHARED >= data.buffer.byteLength) return data;
  const copy = Buffer.allocUnsafeSlow(data.length);
  data.copy(copy);
  return copy;
}

/** The whole batches; a broker may cut the last one short. */
function batchHeads(data: Buffer): BatchHead[] {
  const heads: BatchHead[] = [];
  for (let at = 0; data.length - at >= HEAD_BYTES; ) {
    const end = at + LENGTH_END + data.readInt32BE(at + 8);
    const magic = data.readInt8(at + 16);
    if (magic !== 2) throw oldFormat(magic, data.readBigInt64BE(at));
    if (end - at < HEAD_BYTES) throw new Error(`a record batch of ${end - at} bytes`);
    if (end > data.length) break;
    heads.push(batchHead(data, at, end));
    at = end;
  }
  return heads;
}

function batchHead(data: Buffer, at: number, end: number): BatchHead {
  const attributes = data.readInt16BE(at + 21);
  const baseOffset = readInt64(data, at);
  const lastOffset = baseOffset + data.readInt32BE(at + 23);
  if (!Number.isSafeInteger(baseOffset) || !Number.isSafeInteger(lastOffset)) {
    throw new IngestError('KCR_OFFSET_RANGE', `Offset ${data.readBigInt64BE(at)} is larger than a number can hold exactly`);
  }
  return {
    baseOffset,
    lastOffset,
    codec: attributes & 0x07,
    transactional: (attributes & 0x10) !== 0,
    control: (attributes & 0x20) !== 0,
    appendTimeMs: (attributes & 0x08) === 0 ? undefined : readInt64(data, at + 35),
    firstTimestampMs: readInt64(data, at + 27),
    producerId: data.readBigInt64BE(at + 43),
    count: data.readInt32BE(at + 57),
    body: data.subarray(at + HEAD_BYTES, end),
  };
}

/** Beyond 2^53 it is rounded: the caller checks. */
function readInt64(data: Buffer, at: number): number {
  return data.readInt32BE(at) * TWO_32 + data.readUInt32BE(at + 4);
}

/** A batch that claims more than it can hold is broken; it is not believed before memory is asked for. */
function countOf({ count, baseOffset }: BatchHead, body: Buffer): number {
  if (count * MIN_RECORD_BYTES > body.length) throw new Error(`the batch at ${baseOffset} says it has ${count} records, which is more than its ${body.length} bytes can hold`);
  return count;
}

/** A control batch has one record, whose key is a version and a type: 0 aborts, 1 commits. It is never compressed. */
function isAbortMarker(head: BatchHead): boolean {
  if (head.count < 1) return false;
  const builder = new PartBuilder(1, headersAt);
  new RecordParser(builder).read({ ...head, count: 1 }, head.body, 0);
  const key = PackedRecords.of([builder.build()]).at(0)?.key ?? null;
  return key !== null && key.length >= 4 && key.readInt16BE(2) === 0;
}

function oldFormat(magic: number, offset: bigint): IngestError {
  return new IngestError('KCR_KAFKA', `The log holds records in message format v${magic} at offset ${offset}`, {
    hint: 'formats v0 and v1 are older than Kafka 0.11: write the topic anew, or begin behind those records',
  });
}

/** The shortest record: seven numbers of one byte each. */
const MIN_RECORD_BYTES = 7;

/** Reads records into columns. Its position is state, so that reading a number makes no object. */
class RecordParser {
  /** Of keys and values. */
  bytes = 0;
  readonly #into: PartBuilder;
  #data: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(into: PartBuilder) {
    this.#into = into;
  }

  read({ baseOffset, count, appendTimeMs, firstTimestampMs }: BatchHead, body: Buffer, fromOffset: number): void {
    this.#data = body;
    this.#at = 0;
    this.#into.open(body);
    for (let i = 0; i < count; i++) {
      const length = this.#varint();
      const end = this.#at + length;
      if (length < 0 || end > body.length) throw new Error(`record ${i} of the batch at ${baseOffset} is cut off`);
      this.#at++; // attributes, unused
      const timestampDelta = this.#varlong();
      const offset = baseOffset + this.#varint();
      if (offset < fromOffset) {
        this.#at = end;
        continue;
      }
      const keyLength = this.#varint();
      const keyStart = this.#at;
      if (keyLength > 0) this.#at += keyLength;
      const valueLength = this.#varint();
      const valueStart = this.#at;
      if (valueLength > 0) this.#at += valueLength;
      this.#skipHeaders();
      if (this.#at !== end) throw new Error(`record ${i} of the batch at ${baseOffset} does not end where it should`);
      this.bytes += Math.max(0, keyLength) + Math.max(0, valueLength);
      this.#into.add(offset, appendTimeMs ?? firstTimestampMs + timestampDelta, keyStart, keyLength, valueStart, valueLength);
    }
  }

  #skipHeaders(): void {
    for (let texts = 2 * this.#varint(); texts > 0 && this.#at < this.#data.length; texts--) {
      const length = this.#varint();
      if (length > 0) this.#at += length;
    }
  }

  /** Zigzag, at most 32 bits. */
  #varint(): number {
    const data = this.#data;
    let byte = data[this.#at++] as number;
    if (byte < 0x80) return (byte >>> 1) ^ -(byte & 1);
    let value = byte & 0x7f;
    for (let shift = 7; byte >= 0x80; shift += 7) {
      if (shift > 28) throw new Error('a number of more than 32 bits');
      byte = data[this.#at++] as number;
      value |= (byte & 0x7f) << shift;
    }
    return (value >>> 1) ^ -(value & 1);
  }

  /** Zigzag, at most 64 bits; exact up to 2^53, which is enough for a difference of times. */
  #varlong(): number {
    const data = this.#data;
    let byte = data[this.#at++] as number;
    let value = byte & 0x7f;
    for (let factor = 128; byte >= 0x80; factor *= 128) {
      if (factor > 2 ** 63) throw new Error('a number of more than 64 bits');
      byte = data[this.#at++] as number;
      value += (byte & 0x7f) * factor;
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}

function headersAt(data: Buffer, from: number): RecordHeaders {
  let at = from;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = data[at++] as number;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    }
  };
  const slice = (): Buffer | null => {
    const length = varint();
    if (length < 0) return null;
    at += length;
    return data.subarray(at - length, at);
  };
  const count = varint();
  if (count <= 0) return noHeaders;
  return Array.from({ length: count }, () => [slice()?.toString('utf8') ?? '', slice()] as const);
}
