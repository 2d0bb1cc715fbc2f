/**
 * Records into the rows of an insert. Pure but for the buffers it is given.
 * Values are JSON already, so their bytes go through as they are; the provenance columns the table has are spliced in
 * before the closing brace. Nothing is parsed, nothing is allocated for a record. Imports: errors, kernel, model.
 */
import { IngestError } from '../../errors.js';
import { isSpace } from '../../kernel/index.js';
import { cursorOver, type RecordCursor } from '../../model/packed-records.js';
import type { Records } from '../../model/record.js';
import { ESCAPED, headerBound, noBytes, nullText, put, writeHeaders, writeInteger, writeString } from './json-text.js';

/** Which provenance columns to fill, and how the table wants them. */
export interface Provenance {
  readonly topic: boolean;
  readonly partition: boolean;
  readonly offset: boolean;
  /**
   * A point in time (DateTime, DateTime64) or milliseconds since the epoch (Int64, UInt64). A producer may set any 64
   * bits; what a column cannot take becomes the nearest time that it can.
   */
  readonly timestamp: 'time' | 'milliseconds' | 'unsignedMilliseconds' | undefined;
  /** What stands for a message without a key. */
  readonly key: 'null' | 'empty' | undefined;
  /** As an object (Map), as the text of one (String), or as a list of pairs (Array(Tuple(String, String))). */
  readonly headers: 'object' | 'text' | 'pairs' | undefined;
  /** What stands for a header without a value. */
  readonly headerNull: 'null' | 'empty';
}

export const noProvenance: Provenance = {
  topic: false,
  partition: false,
  offset: false,
  timestamp: undefined,
  key: undefined,
  headers: undefined,
  headerNull: 'empty',
};

const QUOTE = 34;
const COMMA = 44;
const OPEN = 123;
const CLOSE = 125;
const LINE_FEED = 10;
const ZERO = 48;
const DIGITS = 16;
const TIME_LENGTH = '"2026-11-22T08:30:00.123Z"'.length;
/**
 * 2262-04-11T23:47:16Z, the last second of a DateTime64(9); a DateTime ends earlier, and takes its own end for what is
 * later.
 */
export const LAST_TIME_MS = 9_223_372_036_000;

/** Rows of one topic and partition. */
export class RowEncoder {
  readonly #columns: Provenance;
  /** `"_topic":"orders","_partition":3,"_offset":`, as far as the table has them. */
  readonly #prefix: Buffer;
  readonly #spliced: boolean;
  /** Of each row's bound. */
  readonly #fixedBytes: number;
  #second = Number.NaN;
  #secondText: Buffer = Buffer.alloc(0);

  constructor(columns: Provenance, topic: string, partition: number) {
    this.#columns = columns;
    this.#prefix = Buffer.from(constantFields(columns, topic, partition));
    const { timestamp, key, headers } = columns;
    this.#spliced = this.#prefix.length > 0 || timestamp !== undefined || key !== undefined || headers !== undefined;
    this.#fixedBytes =
      this.#prefix.length + DIGITS + (timestamp === undefined ? 0 : timestampName.length + TIME_LENGTH) + 32;
  }

  /** Rows of one insert. Only one at a time is to be written from. */
  rows(records: Records): RowWriter {
    return new RowWriter(this, cursorOver(records));
  }

  /** No fewer bytes than the row will take. */
  bound(row: RecordCursor): number {
    const { key, headers } = this.#columns;
    let bytes = this.#fixedBytes + Math.max(0, row.valueLength);
    if (key !== undefined) bytes += keyName.length + 2 + ESCAPED * (row.keyLength < 0 ? 4 : row.keyLength);
    if (headers !== undefined) bytes += headersName.length + 8 + headerBound(row.headers());
    return bytes;
  }

  /** Are all of the rows sure to fit into so many bytes? */
  fit(records: Records, bytes: number): boolean {
    let left = bytes;
    for (const row = cursorOver(records); left >= 0 && row.next();) left -= this.bound(row);
    return left >= 0;
  }

  /** Writes the row and its line feed; gives where it ends. */
  write(target: Buffer, from: number, row: RecordCursor): number {
    const { data, valueStart, valueLength } = row;
    if (valueLength < 0)
      throw new IngestError('KCR_INTERNAL', 'a tombstone came as far as the insert', { offset: row.offset });
    const end = this.#spliced ? closingBrace(data, valueStart, valueLength) : valueStart + valueLength;
    // A view, as `subarray` would make one, but cheaper.
    target.set(new Uint8Array(data.buffer, data.byteOffset + valueStart, end - valueStart), from);
    let at = from + end - valueStart;
    if (this.#spliced) at = this.#splice(target, at, row, isEmptyObject(data, valueStart, end));
    target[at++] = LINE_FEED;
    return at;
  }

  #splice(target: Buffer, from: number, record: RecordCursor, first: boolean): number {
    const { offset, timestamp, key, headers, headerNull } = this.#columns;
    let at = from;
    // Every name but the prefix's first brings its own comma.
    const start = at;
    if (this.#prefix.length > 0) {
      target[at++] = COMMA;
      target.set(this.#prefix, at);
      at += this.#prefix.length;
      if (offset) at = writeInteger(target, at, record.offset);
    }
    if (timestamp !== undefined) {
      at = put(target, at, timestampName);
      const { timestampMs } = record;
      at =
        timestamp === 'time'
          ? this.#writeTime(target, at, timestampMs)
          : writeInteger(target, at, timestamp === 'milliseconds' ? timestampMs : Math.max(0, timestampMs));
    }
    if (key !== undefined) {
      at = put(target, at, keyName);
      const bytes = record.key();
      at = bytes === null && key === 'null' ? put(target, at, nullText) : writeString(target, at, bytes ?? noBytes);
    }
    if (headers !== undefined) {
      at = put(target, at, headersName);
      at = writeHeaders(target, at, record.headers(), headers, headerNull);
    }
    if (first) {
      target.copyWithin(start, start + 1, at);
      at--;
    }
    target[at++] = CLOSE;
    return at;
  }

  /** ISO 8601 in UTC: the only form every DateTime type reads alike, whatever its zone and precision. */
  #writeTime(target: Buffer, from: number, timestampMs: number): number {
    // Kafka's "no timestamp" is -1.
    const ms = Math.min(LAST_TIME_MS, Math.max(0, timestampMs));
    const second = Math.floor(ms / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondText = Buffer.from(`"${new Date(second * 1000).toISOString().slice(0, -4)}`);
    }
    let at = put(target, from, this.#secondText);
    const rest = Math.floor(ms) - second * 1000;
    target[at++] = ZERO + Math.floor(rest / 100);
    target[at++] = ZERO + (Math.floor(rest / 10) % 10);
    target[at++] = ZERO + (rest % 10);
    target[at++] = 90; // Z
    target[at++] = QUOTE;
    return at;
  }
}

/** The rows of one insert, written as there is room for them. */
export class RowWriter {
  readonly #encoder: RowEncoder;
  readonly #row: RecordCursor;
  #isOver: boolean;

  constructor(encoder: RowEncoder, row: RecordCursor) {
    this.#encoder = encoder;
    this.#row = row;
    this.#isOver = !row.next();
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** No fewer bytes than the next row will take; 0 when there is none. */
  get nextBound(): number {
    return this.#isOver ? 0 : this.#encoder.bound(this.#row);
  }

  /**
   * Writes whole rows from the target's beginning, as long as the next one is sure to fit; gives the number of bytes.
   */
  fill(target: Buffer): number {
    let at = 0;
    while (!this.#isOver && at + this.#encoder.bound(this.#row) <= target.length) {
      at = this.#encoder.write(target, at, this.#row);
      this.#isOver = !this.#row.next();
    }
    // Writing beyond the end of a buffer goes unnoticed.
    if (at > target.length)
      throw new IngestError('KCR_INTERNAL', `rows took ${at} bytes where ${target.length} were expected`);
    return at;
  }
}

const timestampName = Buffer.from(',"_timestamp":');
const keyName = Buffer.from(',"_key":');
const headersName = Buffer.from(',"_headers":');

function constantFields(
  { topic: hasTopic, partition: hasPartition, offset }: Provenance,
  topic: string,
  partition: number,
): string {
  return [
    ...(hasTopic ? [`"_topic":${JSON.stringify(topic)}`] : []),
    ...(hasPartition ? [`"_partition":${partition}`] : []),
    ...(offset ? ['"_offset":'] : []),
  ].join(',');
}

/** Where the last brace stands; the value is known to end with one. */
function closingBrace(data: Uint8Array, start: number, length: number): number {
  let at = start + length - 1;
  while (at > start && data[at] !== CLOSE) at--;
  return at;
}

function isEmptyObject(data: Uint8Array, start: number, brace: number): boolean {
  let at = brace - 1;
  while (at > start && isSpace(data[at])) at--;
  return data[at] === OPEN;
}
