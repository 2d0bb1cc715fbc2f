// Random numbers that a seed decides: the same seed, kind and case make the same input on every machine.

/** The generator sfc32, begun from a hash of what names the case. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(...path: readonly (string | number)[]) {
    const name = path.join('/');
    [this.#a, this.#b, this.#c] = [hash(name, 0x811c9dc5), hash(name, 0x01000193), hash(name, 0x9e3779b9)];
    for (let i = 0; i < 12; i++) this.next();
  }

  /** 32 bits. */
  next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** An integer from 0 up to `beyond`, which is not one of them; at most 2^32. */
  int(beyond: number): number {
    return Math.floor((this.next() / 2 ** 32) * beyond);
  }

  /** Both ends included. */
  between(least: number, most: number): number {
    return least + this.int(most - least + 1);
  }

  /** Small numbers more often than large ones, up to `most`. */
  small(most: number): number {
    return this.int(this.int(most + 1) + 1);
  }

  chance(share: number): boolean {
    return this.next() < share * 2 ** 32;
  }

  pick<T>(items: ArrayLike<T>): T {
    return items[this.int(items.length)] as T;
  }

  bytes(length: number): Buffer<ArrayBuffer> {
    const data = Buffer.allocUnsafe(length);
    for (let i = 0; i < length; i++) data[i] = this.next() & 0xff;
    return data;
  }

  bigint(bits: number): bigint {
    let value = 0n;
    for (let left = bits; left > 0; left -= 32) value = (value << 32n) | BigInt(this.next());
    return value & ((1n << BigInt(bits)) - 1n);
  }
}

function hash(text: string, start: number): number {
  let value = start | 0;
  for (let i = 0; i < text.length; i++) {
    value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
    value ^= value >>> 15;
  }
  return value;
}
