/**
 * The records in a batch's unpacked body: where each one's key and value lie. Pure. Nothing the bytes say is
 * believed: every length lies within its record, every offset within the batch, every loop takes a byte or ends.
 * Imports: model.
 */
import type { PartBuilder } from '../../model/packed-records.js';
import type { RecordHeaders } from '../../model/record.js';
import type { BatchHead } from './batch-head.js';
import { BadBatch } from './damage.js';

/** The shortest record: seven numbers of one byte each. */
export const MIN_RECORD_BYTES = 7;

/** Apart from the loop that they end: what is compiled with it stays small, and twice as fast. */
const wrong = {
  length: (record: number, length: number, left: number) =>
    new BadBatch(`record ${record} says it has ${length} bytes, of the ${left} that are left`),
  delta: (record: number, delta: number, before: number, last: number) =>
    new BadBatch(`record ${record} has the offset delta ${delta}, behind ${before} in a batch that ends at ${last}`),
  end: (record: number) => new BadBatch(`record ${record} has fields that do not end where it does`),
  rest: (bytes: number, count: number) => new BadBatch(`${bytes} bytes are left behind its ${count} records`),
  headers: (record: number, count: number, bytes: number) =>
    new BadBatch(`record ${record} says it has ${count} headers, in ${bytes} bytes`),
  headerName: (record: number) => new BadBatch(`record ${record} has a header without a name`),
  headerValue: (record: number, length: number) => new BadBatch(`record ${record} has a header of ${length} bytes`),
  number: (bits: number) => new BadBatch(`a number in it has more than ${bits} bits`),
};

/** Reads records into columns. Its position is state, so that reading a number makes no object. */
export class RecordParser {
  /** Of keys and values. */
  bytes = 0;
  readonly #into: PartBuilder;
  #data: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(into: PartBuilder) {
    this.#into = into;
  }

  /** @throws BadBatch; what was added of the batch until then is of no use. */
  read(
    { baseOffset, lastOffset, count, appendTimeMs, firstTimestampMs }: BatchHead,
    body: Buffer,
    fromOffset: number,
  ): void {
    this.#data = body;
    this.#at = 0;
    this.#into.open(body);
    const lastDelta = lastOffset - baseOffset;
    for (let i = 0, before = -1; i < count; i++) {
      const length = this.#varint();
      const end = this.#at + length;
      if (length < MIN_RECORD_BYTES - 1 || end > body.length) throw wrong.length(i, length, body.length - this.#at);
      this.#at++; // attributes, unused
      const timestampDelta = this.#varlong();
      const delta = this.#varint();
      if (delta <= before || delta > lastDelta) throw wrong.delta(i, delta, before, lastDelta);
      before = delta;
      const keyLength = this.#varint();
      const keyStart = this.#at;
      if (keyLength > 0) this.#at += keyLength;
      const valueLength = this.#varint();
      const valueStart = this.#at;
      if (valueLength > 0) this.#at += valueLength;
      this.#skipHeaders(i, end);
      // Positions only grow: whoever ends here was within the record all the way.
      if (this.#at !== end || keyLength < -1 || valueLength < -1) throw wrong.end(i);
      if (baseOffset + delta < fromOffset) continue;
      this.bytes += Math.max(0, keyLength) + Math.max(0, valueLength);
      this.#into.add(
        baseOffset + delta,
        appendTimeMs ?? firstTimestampMs + timestampDelta,
        keyStart,
        keyLength,
        valueStart,
        valueLength,
      );
    }
    if (this.#at !== body.length) throw wrong.rest(body.length - this.#at, count);
  }

  #skipHeaders(record: number, end: number): void {
    const count = this.#varint();
    // A header is two lengths at least.
    if (count < 0 || count > (end - this.#at) / 2) throw wrong.headers(record, count, end - this.#at);
    if (count > 0) this.#skipTexts(record, count);
  }

  #skipTexts(record: number, count: number): void {
    for (let left = count; left > 0; left--) {
      const nameLength = this.#varint();
      if (nameLength < 0) throw wrong.headerName(record);
      this.#at += nameLength;
      const valueLength = this.#varint();
      if (valueLength < -1) throw wrong.headerValue(record, valueLength);
      if (valueLength > 0) this.#at += valueLength;
    }
  }

  /** Zigzag, at most 32 bits. Behind the end it reads zeros: the caller checks where it is. */
  #varint(): number {
    const data = this.#data;
    let byte = data[this.#at++] as number;
    if (byte < 0x80) return (byte >>> 1) ^ -(byte & 1);
    let value = byte & 0x7f;
    for (let shift = 7; byte >= 0x80; shift += 7) {
      if (shift > 28) throw wrong.number(32);
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
      if (factor > 2 ** 63) throw wrong.number(64);
      byte = data[this.#at++] as number;
      value += (byte & 0x7f) * factor;
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}

const noHeaders: RecordHeaders = Object.freeze([]);

/** The headers that begin at `from`, of a record that the parser has passed: their lengths are known to be right. */
export function headersAt(data: Buffer, from: number): RecordHeaders {
  let at = from;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = data[at++] as number;
      value |= (byte & 0x7f) << shift;
      if (!(byte >= 0x80)) return (value >>> 1) ^ -(value & 1);
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
