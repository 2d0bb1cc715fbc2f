// Imports: nothing of the product's encoders. The bytes of requests and answers, from a broker's side.

/** Reads a request from its beginning: the head, then the body. */
export class RequestReader {
  #at = 0;
  readonly apiKey: number;
  readonly version: number;
  readonly correlation: number;
  readonly #isFlexible: boolean;

  constructor(
    private readonly bytes: Buffer,
    isFlexible: (apiKey: number, version: number) => boolean,
  ) {
    this.apiKey = this.int16();
    this.version = this.int16();
    this.correlation = this.int32();
    // The client's id is not compact in any version.
    const length = this.int16();
    this.#at += Math.max(0, length);
    this.#isFlexible = isFlexible(this.apiKey, this.version);
    this.tags();
  }

  int8(): number {
    return this.bytes.readInt8(this.#take(1));
  }

  int16(): number {
    return this.bytes.readInt16BE(this.#take(2));
  }

  int32(): number {
    return this.bytes.readInt32BE(this.#take(4));
  }

  int64(): number {
    return Number(this.bytes.readBigInt64BE(this.#take(8)));
  }

  id(): string {
    const at = this.#take(16);
    return this.bytes.toString('base64url', at, at + 16);
  }

  /** Null reads as undefined. */
  string(): string | undefined {
    const length = this.#isFlexible ? this.#uvarint() - 1 : this.int16();
    if (length < 0) return undefined;
    const at = this.#take(length);
    return this.bytes.toString('utf8', at, at + length);
  }

  data(): Buffer {
    const length = this.#isFlexible ? this.#uvarint() - 1 : this.int32();
    const at = this.#take(Math.max(0, length));
    return this.bytes.subarray(at, this.#at);
  }

  /** Null reads as the empty one. */
  list<T>(read: () => T): T[] {
    const count = this.#isFlexible ? this.#uvarint() - 1 : this.int32();
    return Array.from({ length: Math.max(0, count) }, read);
  }

  tags(): void {
    if (!this.#isFlexible) return;
    for (let left = this.#uvarint(); left > 0; left--) {
      this.#uvarint();
      this.#take(this.#uvarint());
    }
  }

  #uvarint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.bytes.readUInt8(this.#take(1));
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }

  #take(length: number): number {
    const at = this.#at;
    this.#at += length;
    if (this.#at > this.bytes.length) throw new RangeError('a request is shorter than it says');
    return at;
  }
}

/** Writes the body of an answer. */
export class AnswerWriter {
  readonly #parts: Buffer[] = [];

  constructor(private readonly isFlexible: boolean) {}

  int8(value: number): this {
    return this.#number(1, (part) => part.writeInt8(value));
  }

  int16(value: number): this {
    return this.#number(2, (part) => part.writeInt16BE(value));
  }

  int32(value: number): this {
    return this.#number(4, (part) => part.writeInt32BE(value));
  }

  int64(value: number): this {
    return this.#number(8, (part) => part.writeBigInt64BE(BigInt(value)));
  }

  id(text: string): this {
    this.#parts.push(Buffer.from(text, 'base64url'));
    return this;
  }

  string(text: string | null): this {
    const bytes = text === null ? undefined : Buffer.from(text);
    if (this.isFlexible) this.#uvarint((bytes?.length ?? -1) + 1);
    else this.int16(bytes?.length ?? -1);
    if (bytes !== undefined) this.#parts.push(bytes);
    return this;
  }

  data(bytes: Buffer): this {
    this.#count(bytes.length);
    this.#parts.push(bytes);
    return this;
  }

  list<T>(items: readonly T[], write: (item: T) => void): this {
    this.#count(items.length);
    for (const item of items) write(item);
    return this;
  }

  tags(): this {
    if (this.isFlexible) this.#uvarint(0);
    return this;
  }

  /** The whole answer: its length, its head, its body. */
  answer(correlation: number, isFlexibleHead: boolean): Buffer {
    const head = Buffer.alloc(isFlexibleHead ? 9 : 8);
    const length = this.#parts.reduce((sum, part) => sum + part.length, head.length);
    head.writeInt32BE(length - 4, 0);
    head.writeInt32BE(correlation, 4);
    return Buffer.concat([head, ...this.#parts], length);
  }

  #count(count: number): void {
    if (this.isFlexible) this.#uvarint(count + 1);
    else this.int32(count);
  }

  #uvarint(value: number): void {
    const out: number[] = [];
    let left = value;
    for (; left >= 0x80; left >>>= 7) out.push((left & 0x7f) | 0x80);
    out.push(left);
    this.#parts.push(Buffer.from(out));
  }

  #number(bytes: number, write: (part: Buffer) => void): this {
    const part = Buffer.alloc(bytes);
    write(part);
    this.#parts.push(part);
    return this;
  }
}
