/**
 * Goes through records without making any: the loops over every record of a batch. Pure. Imports: nothing.
 */
import { STRIDE, type PackedPart, type Window } from './packed-part.js';
import type { KafkaRecord, RecordHeaders, Records } from './record.js';

const noBytes = Buffer.alloc(0);
const noPart: PackedPart = {
  length: 0,
  buffers: [],
  offsets: new Float64Array(0),
  timestampsMs: new Float64Array(0),
  places: new Int32Array(0),
  headersAt: () => [],
};

/**
 * Goes through records without making any: `next()` moves to the first, then to each further one, and the fields are of
 * that one.
 */
export abstract class RecordCursor {
  offset = 0;
  timestampMs = 0;
  /** What key and value lie in. */
  data: Buffer = noBytes;
  keyStart = 0;
  /** -1: null. */
  keyLength = -1;
  valueStart = 0;
  /** -1: null. */
  valueLength = -1;

  abstract next(): boolean;
  abstract headers(): RecordHeaders;

  key(): Buffer | null {
    return this.keyLength < 0 ? null : this.data.subarray(this.keyStart, this.keyStart + this.keyLength);
  }
}

export class PackedCursor extends RecordCursor {
  readonly #windows: readonly Window[];
  #nextWindow = 0;
  #part: PackedPart = noPart;
  #index = -1;
  #to = 0;
  #buffer = -1;

  constructor(windows: readonly Window[]) {
    super();
    this.#windows = windows;
  }

  next(): boolean {
    if (++this.#index >= this.#to && !this.#open()) return false;
    const { offsets, timestampsMs, places, buffers } = this.#part;
    const index = this.#index;
    const at = index * STRIDE;
    this.offset = offsets[index]!;
    this.timestampMs = timestampsMs[index]!;
    const buffer = places[at]!;
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.data = buffers[buffer]!;
    }
    this.keyStart = places[at + 1]!;
    this.keyLength = places[at + 2]!;
    this.valueStart = places[at + 3]!;
    this.valueLength = places[at + 4]!;
    return true;
  }

  headers(): RecordHeaders {
    return this.#part.headersAt(this.data, this.valueStart + Math.max(0, this.valueLength));
  }

  #open(): boolean {
    const window = this.#windows[this.#nextWindow];
    if (window === undefined) {
      this.#index = this.#to; // stays at the end
      return false;
    }
    this.#nextWindow += 1;
    this.#part = window.part;
    this.#index = window.from;
    this.#to = window.to;
    this.#buffer = -1;
    return true;
  }
}

/** Records that are there already: a transform's rows, a test's. */
export class PlainCursor extends RecordCursor {
  readonly #records: Iterator<KafkaRecord>;
  #record: KafkaRecord | undefined;

  constructor(records: Records) {
    super();
    this.#records = records[Symbol.iterator]();
  }

  next(): boolean {
    const next = this.#records.next();
    if (next.done === true) return false;
    const record = next.value;
    this.#record = record;
    this.offset = record.offset;
    this.timestampMs = record.timestampMs;
    this.keyLength = record.key === null ? -1 : record.key.length;
    this.data = record.value ?? noBytes;
    this.valueLength = record.value === null ? -1 : record.value.length;
    return true;
  }

  headers(): RecordHeaders {
    return this.#record?.headers ?? [];
  }

  override key(): Buffer | null {
    return this.#record?.key ?? null;
  }
}
