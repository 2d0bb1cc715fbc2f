/**
 * The bytes of Kafka's protocol, for the requests that are newer than kafkajs: numbers, compact strings and
 * arrays, topic ids, tagged fields. Pure; knows no request. Imports: nothing.
 */

/** What kafkajs puts behind the header that it writes. */
export interface EncodedRequest {
  readonly buf: Buffer;
  readonly buffer: Buffer;
  size(): number;
}

const NO_ID = Buffer.alloc(16);
const FIRST_BYTES = 256;

/** Kafka writes a topic's id as its 16 bytes in base64url. */
export function idText(bytes: Buffer): string | undefined {
  return bytes.equals(NO_ID) ? undefined : bytes.toString('base64url');
}

/**
 * What is written here goes out as one flexible request: kafkajs's header lacks the tagged fields, so they come first.
 */
export class FlexibleWriter {
  /** Grows by doubling: a request for thousands of partitions has tens of thousands of fields. */
  #data = Buffer.alloc(FIRST_BYTES);
  #at = 1;

  int8(value: number): this {
    const at = this.#room(1);
    this.#data.writeInt8(value, at);
    return this;
  }

  int32(value: number): this {
    const at = this.#room(4);
    this.#data.writeInt32BE(value, at);
    return this;
  }

  int64(value: number): this {
    const at = this.#room(8);
    this.#data.writeBigInt64BE(BigInt(value), at);
    return this;
  }

  bool(value: boolean): this {
    return this.int8(value ? 1 : 0);
  }

  uvarint(value: number): this {
    let left = value;
    for (; left >= 0x80; left = Math.floor(left / 0x80)) this.#byte((left % 0x80) | 0x80);
    this.#byte(left);
    return this;
  }

  string(value: string): this {
    const length = Buffer.byteLength(value);
    this.uvarint(length + 1);
    const at = this.#room(length);
    this.#data.write(value, at);
    return this;
  }

  /** Undefined: no id. */
  id(text: string | undefined): this {
    const bytes = text === undefined ? NO_ID : Buffer.from(text, 'base64url');
    const at = this.#room(bytes.length);
    bytes.copy(this.#data, at);
    return this;
  }

  array<T>(items: readonly T[], write: (item: T) => void): this {
    this.uvarint(items.length + 1);
    for (const item of items) write(item);
    return this;
  }

  /** No tagged fields: at the end of the request and of each structure in it. */
  tags(): this {
    return this.uvarint(0);
  }

  encoded(): EncodedRequest {
    const bytes = this.#data.subarray(0, this.#at);
    return { buf: bytes, buffer: bytes, size: () => bytes.length };
  }

  #byte(value: number): void {
    const at = this.#room(1);
    this.#data.writeUInt8(value, at);
  }

  /** Where so many bytes go. `#data` may be another buffer afterwards. */
  #room(bytes: number): number {
    const at = this.#at;
    this.#at += bytes;
    if (this.#at <= this.#data.length) return at;
    const larger = Buffer.alloc(Math.max(this.#data.length * 2, this.#at));
    this.#data.copy(larger, 0, 0, at);
    this.#data = larger;
    return at;
  }
}

/** Reads an answer from its beginning. `flexible`: lengths are compact and structures end with tagged fields. */
export class AnswerReader {
  readonly flexible: boolean;
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer, flexible: boolean) {
    this.#data = data;
    this.flexible = flexible;
    this.tags(); // of the header, which kafkajs took for a part of the answer
  }

  int8(): number {
    return this.#data.readInt8(this.#take(1));
  }

  int16(): number {
    return this.#data.readInt16BE(this.#take(2));
  }

  int32(): number {
    return this.#data.readInt32BE(this.#take(4));
  }

  bigint64(): bigint {
    return this.#data.readBigInt64BE(this.#take(8));
  }

  int64(): number {
    return Number(this.bigint64());
  }

  id(): string | undefined {
    const at = this.#take(16);
    return idText(this.#data.subarray(at, at + 16));
  }

  /** Null reads as the empty one. */
  string(): string {
    const length = this.#present(this.flexible ? this.#uvarint() - 1 : this.int16());
    const at = this.#take(length);
    return this.#data.toString('utf8', at, at + length);
  }

  /** Null reads as the empty one. */
  bytes(): Buffer {
    const length = this.#present(this.#length());
    const at = this.#take(length);
    return this.#data.subarray(at, at + length);
  }

  /** Null reads as the empty one. `mostItems`: more are refused before one is read. */
  array<T>(read: () => T, mostItems = Infinity): T[] {
    const items: T[] = [];
    for (let left = this.count(mostItems); left > 0; left--) items.push(read());
    return items;
  }

  /** Of the items of a list, which are read next. */
  count(mostItems = Infinity): number {
    const count = this.#present(this.#length());
    // Each item takes a byte at least.
    if (count > this.#data.length - this.#at || count > mostItems)
      throw new RangeError(`an answer says it has a list of ${count}, in ${this.#data.length - this.#at} bytes`);
    return count;
  }

  /** @throws when something is left. */
  end(): void {
    if (this.#at !== this.#data.length)
      throw new RangeError(`an answer has ${this.#data.length - this.#at} bytes behind its end`);
  }

  /** Tagged fields, all of which are passed over. */
  tags(): void {
    if (!this.flexible) return;
    for (let left = this.#uvarint(); left > 0; left--) {
      this.#uvarint();
      this.#take(this.#uvarint());
    }
  }

  /** -1 is null. */
  #present(length: number): number {
    if (length < -1) throw new RangeError(`an answer has a length of ${length}`);
    return Math.max(0, length);
  }

  #length(): number {
    return this.flexible ? this.#uvarint() - 1 : this.int32();
  }

  #uvarint(): number {
    let value = 0;
    for (let factor = 1; ; factor *= 0x80) {
      const byte = this.#data.readUInt8(this.#take(1));
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      if (factor > 0x80 ** 4) throw new RangeError('a length of more than 35 bits in an answer');
    }
  }

  /** Where so many bytes begin, which are read then. */
  #take(length: number): number {
    const at = this.#at;
    this.#at += length;
    if (this.#at > this.#data.length) throw new RangeError('an answer is shorter than it says');
    return at;
  }
}
