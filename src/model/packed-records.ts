/**
 * Records as they came, in columns: where each one's key and value lie in the bytes that were fetched. A record of
 * its own costs several hundred bytes and the garbage collector's time; here it is made only when somebody asks for it.
 * Imports: nothing.
 */
import { recordAt, type PackedPart, type Window } from './packed-part.js';
import { PackedCursor, PlainCursor, type RecordCursor } from './record-cursor.js';
import type { KafkaRecord, Records } from './record.js';

export { PACKED_RECORD_BYTES, PartBuilder, type PackedPart } from './packed-part.js';
export type { RecordCursor } from './record-cursor.js';

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

export function cursorOver(records: Records): RecordCursor {
  return records instanceof PackedRecords ? records.cursor() : new PlainCursor(records);
}

/** As `Array.prototype.slice` reads its arguments. */
function clamped(index: number, length: number): number {
  return index < 0 ? Math.max(0, length + index) : Math.min(index, length);
}
