/**
 * Room: Kafka's record batches (magic 2), from bytes to `KafkaRecord`s. Pure but for decompression. kafkajs's decoder
 * is not used: it loses the order and the names of headers, does not tell of batches that compaction has emptied, and
 * is several times slower.
 */
import { IngestError } from '../errors.js';
import type { KafkaRecord, RecordHeaders } from '../model/record.js';
import { abortedFilter, type AbortedTransaction } from './aborted.js';
import { decompress } from './codecs.js';

/** What a range of a partition's log holds for a reader. */
export interface DecodedRange {
  readonly records: KafkaRecord[];
  /** The last offset that was looked at, with or without a record. */
  readonly lastOffset: number;
  /** Bytes of keys and values. */
  readonly bytes: number;
  /** Memory that the records hold on to, bytes: the buffers they are slices of, and what each costs by itself. */
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
/** A KafkaRecord with the Buffer objects of its key and value, measured on Node 20. */
const RECORD_COST_BYTES = 320;
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
    // A copy: slices of the answer would hold on to what it brought of every other partition.
    this.#heads = batchHeads(ownBytes(data)).filter(({ lastOffset }) => lastOffset >= fromOffset);
    this.#isAborted = abortedFilter(aborted);
  }

  /** Are there batches left? */
  get isOver(): boolean {
    return this.#at >= this.#heads.length;
  }

  /** Decodes whole batches until they hold on to `limitBytes` or none is left. */
  async next(limitBytes: number): Promise<DecodedRange> {
    const records: KafkaRecord[] = [];
    const parser = new RecordParser();
    let lastOffset = this.#fromOffset - 1;
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
      const bodies = await Promise.all(group.map(async ({ codec, body }) => decompress(codec, body)));
      for (let i = 0; i < group.length; i++) {
        const [head, body, before] = [group[i] as BatchHead, bodies[i] as Buffer, records.length];
        parser.read(head, body, this.#fromOffset, records);
        heldBytes += body.length + (records.length - before) * RECORD_COST_BYTES;
      }
    }
    return { records, lastOffset, bytes: parser.bytes, heldBytes, takenBytes };
  }

  #isReadable(head: BatchHead): boolean {
    const abortMarker = head.control && isAbortMarker(head);
    // Asked of every batch: the filter follows the transactions from one to the next.
    return !this.#isAborted({ ...head, abortMarker }) && !head.control && head.count > 0;
  }
}

function ownBytes(data: Buffer): Buffer {
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

/** A control batch has one record, whose key is a version and a type: 0 aborts, 1 commits. It is never compressed. */
function isAbortMarker(head: BatchHead): boolean {
  if (head.count < 1) return false;
  const key = new RecordParser().firstKey(head.body);
  return key !== null && key.length >= 4 && key.readInt16BE(2) === 0;
}

function oldFormat(magic: number, offset: bigint): IngestError {
  return new IngestError('KCR_KAFKA', `The log holds records in message format v${magic} at offset ${offset}`, {
    hint: 'formats v0 and v1 are older than Kafka 0.11: write the topic anew, or begin behind those records',
  });
}

/** One for each range: its position is state, so that reading a number makes no object. */
class RecordParser {
  bytes = 0;
  #data: Buffer = Buffer.alloc(0);
  #at = 0;

  read(head: BatchHead, body: Buffer, fromOffset: number, into: KafkaRecord[]): void {
    this.#data = body;
    this.#at = 0;
    for (let i = 0; i < head.count; i++) {
      const length = this.#varint();
      const end = this.#at + length;
      if (length < 0 || end > body.length) throw new Error(`record ${i} of the batch at ${head.baseOffset} is cut off`);
      this.#at++; // attributes, unused
      const timestampDelta = this.#varlong();
      const offset = head.baseOffset + this.#varint();
      if (offset < fromOffset) {
        this.#at = end;
        continue;
      }
      const key = this.#slice();
      const value = this.#slice();
      const headers = this.#headers();
      if (this.#at !== end) throw new Error(`record ${i} of the batch at ${head.baseOffset} does not end where it should`);
      const timestampMs = head.appendTimeMs ?? head.firstTimestampMs + timestampDelta;
      into.push({ offset, timestampMs, key, value, headers });
    }
  }

  firstKey(body: Buffer): Buffer | null {
    this.#data = body;
    this.#at = 0;
    this.#varint();
    this.#at++;
    this.#varlong();
    this.#varint();
    return this.#slice();
  }

  #slice(): Buffer | null {
    const length = this.#varint();
    if (length < 0) return null;
    const start = this.#at;
    this.#at += length;
    this.bytes += length;
    return this.#data.subarray(start, this.#at);
  }

  #headers(): RecordHeaders {
    const count = this.#varint();
    if (count <= 0) return noHeaders;
    const headers: [string, Buffer | null][] = [];
    const { bytes } = this;
    for (let i = 0; i < count; i++) headers.push([this.#slice()?.toString('utf8') ?? '', this.#slice()]);
    this.bytes = bytes; // keys and values only
    return headers;
  }

  /** Zigzag, at most 32 bits. */
  #varint(): number {
    let byte = this.#data[this.#at++] as number;
    let value = byte & 0x7f;
    for (let shift = 7; byte >= 0x80; shift += 7) {
      if (shift > 28) throw new Error('a number of more than 32 bits');
      byte = this.#data[this.#at++] as number;
      value |= (byte & 0x7f) << shift;
    }
    return (value >>> 1) ^ -(value & 1);
  }

  /** Zigzag, at most 64 bits; exact up to 2^53, which is enough for a difference of times. */
  #varlong(): number {
    let byte = this.#data[this.#at++] as number;
    let value = byte & 0x7f;
    for (let factor = 128; byte >= 0x80; factor *= 128) {
      if (factor > 2 ** 63) throw new Error('a number of more than 64 bits');
      byte = this.#data[this.#at++] as number;
      value += (byte & 0x7f) * factor;
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}
