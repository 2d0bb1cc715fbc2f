// Kafka's primitive types both ways (https://kafka.apache.org/protocol#protocol_types), for encoders and the oracle.

export class Writer {
  readonly #parts: Buffer[] = [];
  readonly #flexible: boolean;

  constructor(flexible: boolean) {
    this.#flexible = flexible;
  }

  int8 = (value: number): this => this.#number(1, BigInt(value));
  int16 = (value: number): this => this.#number(2, BigInt(value));
  int32 = (value: number): this => this.#number(4, BigInt(value));
  int64 = (value: bigint): this => this.#number(8, value);

  raw(bytes: Buffer): this {
    this.#parts.push(bytes);
    return this;
  }

  string(value: string | null): this {
    if (value === null) return this.#flexible ? this.uvarint(0n) : this.int16(-1);
    const bytes = Buffer.from(value);
    return (this.#flexible ? this.uvarint(BigInt(bytes.length) + 1n) : this.int16(bytes.length)).raw(bytes);
  }

  bytes(value: Buffer | null): this {
    return this.#length(value === null ? -1 : value.length).raw(value ?? Buffer.alloc(0));
  }

  array<T>(items: readonly T[] | null, write: (item: T) => void): this {
    this.#length(items === null ? -1 : items.length);
    items?.forEach(write);
    return this;
  }

  tags(tagged: readonly (readonly [number, Buffer])[] = []): this {
    if (!this.#flexible) return this;
    this.uvarint(BigInt(tagged.length));
    for (const [tag, bytes] of tagged) this.uvarint(BigInt(tag)).uvarint(BigInt(bytes.length)).raw(bytes);
    return this;
  }

  uvarint(value: bigint): this {
    const out: number[] = [];
    let left = value;
    for (; left >= 0x80n; left >>= 7n) out.push(Number(left & 0x7fn) | 0x80);
    out.push(Number(left));
    return this.raw(Buffer.from(out));
  }

  whole(): Buffer {
    return Buffer.concat(this.#parts);
  }

  #length(length: number): this {
    return this.#flexible ? this.uvarint(BigInt(length + 1)) : this.int32(length);
  }

  #number(bytes: number, value: bigint): this {
    const data = Buffer.alloc(8);
    data.writeBigInt64BE(BigInt.asIntN(64, value));
    return this.raw(data.subarray(8 - bytes));
  }
}

/** Throws at whatever lies beyond the end. */
export class Reader {
  /** A length below that of null was read, which no broker writes. */
  isOdd = false;
  readonly #data: Buffer;
  readonly #flexible: boolean;
  #at = 0;

  constructor(data: Buffer, flexible: boolean) {
    this.#data = data;
    this.#flexible = flexible;
  }

  get left(): number {
    return this.#data.length - this.#at;
  }

  int8 = (): number => this.#take(1).readInt8();
  int16 = (): number => this.#take(2).readInt16BE();
  int32 = (): number => this.#take(4).readInt32BE();
  int64 = (): bigint => this.#take(8).readBigInt64BE();
  raw = (length: number): Buffer => this.#take(length);

  /** Null reads as the empty one. */
  string(): string {
    const length = this.#noted(this.#flexible ? this.#compact() : this.int16());
    return this.#take(Math.max(0, length)).toString('utf8');
  }

  bytes(): Buffer {
    return this.#take(Math.max(0, this.#length()));
  }

  array<T>(read: () => T): T[] {
    const count = this.#length();
    const items: T[] = [];
    for (let i = 0; i < count; i++) items.push(read());
    return items;
  }

  tags(): void {
    if (!this.#flexible) return;
    for (let left = this.uvarint(); left > 0n; left--) {
      this.uvarint();
      const length = this.uvarint();
      if (length > BigInt(this.left)) throw new Error('a tag is cut off');
      this.#take(Number(length));
    }
  }

  uvarint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#take(1)[0]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new Error('a number does not end');
  }

  #length(): number {
    return this.#noted(this.#flexible ? this.#compact() : this.int32());
  }

  #noted(length: number): number {
    if (length < -1) this.isOdd = true;
    return length;
  }

  #compact(): number {
    const length = this.uvarint() - 1n;
    if (length > BigInt(this.#data.length)) throw new Error('more than there is');
    return Number(length);
  }

  #take(length: number): Buffer {
    if (length > this.left) throw new Error('cut off');
    this.#at += length;
    return this.#data.subarray(this.#at - length, this.#at);
  }
}
