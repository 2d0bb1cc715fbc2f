/**
 * Records as they came, in columns: where each one's key and value lie in the bytes that were fetched. Pure.
 * Imports: nothing.
 */
import type { KafkaRecord, RecordHeaders } from './record.js';

/** Numbers of `places` for each record. */
export const STRIDE = 5;
/** Memory that a record's columns take, bytes. */
export const PACKED_RECORD_BYTES = 2 * Float64Array.BYTES_PER_ELEMENT + STRIDE * Int32Array.BYTES_PER_ELEMENT;

/** Records that lie in a few buffers, ascending by offset. */
export interface PackedPart {
  readonly length: number;
  readonly buffers: readonly Buffer[];
  readonly offsets: Float64Array;
  readonly timestampsMs: Float64Array;
  /**
   * For each record: its buffer's index, where the key begins, its length, where the value begins, its length; a length
   * of -1 is null.
   */
  readonly places: Int32Array;
  /** Reads the headers, which begin behind the value. */
  readonly headersAt: (data: Buffer, at: number) => RecordHeaders;
}

/** Fills the columns of one part. */
export class PartBuilder {
  readonly #buffers: Buffer[] = [];
  readonly #offsets: Float64Array;
  readonly #timestampsMs: Float64Array;
  readonly #places: Int32Array;
  readonly #headersAt: PackedPart['headersAt'];
  #length = 0;

  /** `capacity`: how many records will come at most. */
  constructor(capacity: number, headersAt: PackedPart['headersAt']) {
    this.#offsets = new Float64Array(capacity);
    this.#timestampsMs = new Float64Array(capacity);
    this.#places = new Int32Array(STRIDE * capacity);
    this.#headersAt = headersAt;
  }

  get length(): number {
    return this.#length;
  }

  /** What the next records lie in. */
  open(data: Buffer): void {
    this.#buffers.push(data);
  }

  add(
    offset: number,
    timestampMs: number,
    keyStart: number,
    keyLength: number,
    valueStart: number,
    valueLength: number,
  ): void {
    const index = this.#length++;
    this.#offsets[index] = offset;
    this.#timestampsMs[index] = timestampMs;
    const places = this.#places;
    const at = index * STRIDE;
    places[at] = this.#buffers.length - 1;
    places[at + 1] = keyStart;
    places[at + 2] = keyLength;
    places[at + 3] = valueStart;
    places[at + 4] = valueLength;
  }

  /** Takes back what was added last. */
  truncate(length: number): void {
    this.#length = Math.min(this.#length, length);
  }

  build(): PackedPart {
    return {
      length: this.#length,
      buffers: this.#buffers,
      offsets: this.#offsets,
      timestampsMs: this.#timestampsMs,
      places: this.#places,
      headersAt: this.#headersAt,
    };
  }
}

/** Some records of a part: from index `from` up to `to`, which is not one of them. */
export interface Window {
  readonly part: PackedPart;
  readonly from: number;
  readonly to: number;
  /** How many records the windows before it have. */
  readonly before: number;
}

/** As a record of its own. */
export function recordAt(
  { buffers, offsets, timestampsMs, places, headersAt }: PackedPart,
  index: number,
): KafkaRecord {
  const at = index * STRIDE;
  const data = buffers[places[at]!]!;
  const keyStart = places[at + 1]!;
  const keyLength = places[at + 2]!;
  const valueStart = places[at + 3]!;
  const valueLength = places[at + 4]!;
  return {
    offset: offsets[index]!,
    timestampMs: timestampsMs[index]!,
    key: keyLength < 0 ? null : data.subarray(keyStart, keyStart + keyLength),
    value: valueLength < 0 ? null : data.subarray(valueStart, valueStart + valueLength),
    headers: headersAt(data, valueStart + Math.max(0, valueLength)),
  };
}
