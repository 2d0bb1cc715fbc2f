/**
 * Room: records as they came, in columns: where each one's key and value lie in the bytes that were fetched. A record of
 * its own costs several hundred bytes and the garbage collector's time; here it is made only when somebody asks for it.
 * Pure, imports the model only; nothing of Kafka's or ClickHouse's formats may enter.
 */
import type { KafkaRecord, RecordHeaders, Records } from './record.js';

/** Numbers of `places` for each record. */
const STRIDE = 5;
/** Memory that a record's columns take, bytes. */
export const PACKED_RECORD_BYTES = 2 * Float64Array.BYTES_PER_ELEMENT + STRIDE * Int32Array.BYTES_PER_ELEMENT;

/** Records that lie in a few buffers, ascending by offset. */
export interface PackedPart {
  readonly length: number;
  readonly buffers: readonly Buffer[];
  readonly offsets: Float64Array;
  readonly timestampsMs: Float64Array;
  /** For each record: its buffer's index, where the key begins, its length, where the value begins, its length; a length of -1 is null. */
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
interface Window {
  readonly part: PackedPart;
  readonly from: number;
  readonly to: number;
  /** How many records the windows before it have. */
  readonly before: number;
}

export class PackedRecords implements Records {
  readonly #windows: readonly Window[];
  readonly length: number;

  private constructor(windows: readonly Window[]) {
    this.#windows = windows;
    const last = windows.at(-1);
    this.length = last === undefined ? 0 : last.before + last.to - last.from;
  }

  static of(parts: readonly PackedPart[]): PackedRecords {
    return PackedRecords.#from(parts.map((part) => ({ part, from: 0, to: part.length })));
  }

  /** One after the other, without copying what they hold. */
  static join(all: readonly PackedRecords[]): PackedRecords {
    return PackedRecords.#from(all.flatMap((records) => records.#windows));
  }

  static #from(spans: readonly Omit<Window, 'before'>[]): PackedRecords {
    const windows: Window[] = [];
    let before = 0;
    for (const { part, from, to } of spans) {
      if (from >= to) continue;
      windows.push({ part, from, to, before });
      before += to - from;
    }
    return new PackedRecords(windows);
  }

  at(index: number): KafkaRecord | undefined {
    const found = this.#find(index < 0 ? this.length + index : index);
    return found === undefined ? undefined : recordAt(found.part, found.index);
  }

  /** As `at(index).offset`, without making the record. */
  offsetAt(index: number): number {
    const found = this.#find(index);
    if (found === undefined) throw new RangeError(`there is no record ${index} among ${this.length}`);
    return found.part.offsets[found.index]!;
  }

  slice(start = 0, end = this.length): PackedRecords {
    const [first, beyond] = [clamped(start, this.length), clamped(end, this.length)];
    return PackedRecords.#from(
      this.#windows.map(({ part, from, to, before }) => ({
        part,
        from: Math.max(from, from + first - before),
        to: Math.min(to, from + beyond - before),
      })),
    );
  }

  /** What is kept is made: an array. */
  filter(keep: (record: KafkaRecord, index: number) => boolean): KafkaRecord[] {
    const kept: KafkaRecord[] = [];
    let index = 0;
    for (const record of this) if (keep(record, index++)) kept.push(record);
    return kept;
  }

  map<T>(make: (record: KafkaRecord, index: number) => T): T[] {
    const made: T[] = [];
    for (const record of this) made.push(make(record, made.length));
    return made;
  }

  find(is: (record: KafkaRecord, index: number) => boolean): KafkaRecord | undefined {
    let index = 0;
    for (const record of this) if (is(record, index++)) return record;
    return undefined;
  }

  *[Symbol.iterator](): Generator<KafkaRecord, void, undefined> {
    for (const { part, from, to } of this.#windows)
      for (let index = from; index < to; index++) yield recordAt(part, index);
  }

  cursor(): RecordCursor {
    return new PackedCursor(this.#windows);
  }

  #find(index: number): { readonly part: PackedPart; readonly index: number } | undefined {
    if (!(index >= 0 && index < this.length)) return undefined;
    let [low, high] = [0, this.#windows.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#windows[middle]!.before <= index) low = middle;
      else high = middle - 1;
    }
    const { part, from, before } = this.#windows[low]!;
    return { part, index: from + index - before };
  }
}

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

export function cursorOver(records: Records): RecordCursor {
  return records instanceof PackedRecords ? records.cursor() : new PlainCursor(records);
}

class PackedCursor extends RecordCursor {
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
class PlainCursor extends RecordCursor {
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

const noBytes = Buffer.alloc(0);
const noPart: PackedPart = {
  length: 0,
  buffers: [],
  offsets: new Float64Array(0),
  timestampsMs: new Float64Array(0),
  places: new Int32Array(0),
  headersAt: () => [],
};

function recordAt({ buffers, offsets, timestampsMs, places, headersAt }: PackedPart, index: number): KafkaRecord {
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

/** As `Array.prototype.slice` reads its arguments. */
function clamped(index: number, length: number): number {
  return index < 0 ? Math.max(0, length + index) : Math.min(index, length);
}
