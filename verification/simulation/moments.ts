// Room: a set of moments, for millions of them, and the orders that lead on from each: 64 bits stand for a moment. Two
// different ones with the same bits are not to be feared in what is run here.

export class Moments {
  size = 0;
  #slots = new Int32Array(1 << 16);
  #high = new Int32Array(1 << 15);
  #low = new Int32Array(1 << 15);
  #orders = new Float64Array(1 << 15);

  /** The number of a moment that is new; of one that is known the complement. */
  enter(parts: readonly number[]): number {
    let high = 0x9e3779b9 | 0;
    let low = 0x41c6ce57 | 0;
    for (const part of parts) {
      high = Math.imul(high ^ part, 0x85ebca6b);
      high ^= high >>> 15;
      low = Math.imul(low ^ part, 0xc2b2ae35);
      low ^= low >>> 13;
    }
    const mask = this.#slots.length - 1;
    for (let at = (high ^ Math.imul(low, 0x27d4eb2f)) & mask; ; at = (at + 1) & mask) {
      const number = this.#slots[at]! - 1;
      if (number < 0) return this.#add(at, high, low);
      if (this.#high[number] === high && this.#low[number] === low) return ~number;
    }
  }

  orders(number: number): number {
    return this.#orders[number]!;
  }

  set(number: number, orders: number): void {
    this.#orders[number] = orders;
  }

  #add(at: number, high: number, low: number): number {
    const number = this.size++;
    this.#slots[at] = number + 1;
    this.#high[number] = high;
    this.#low[number] = low;
    if (this.size === this.#high.length) this.#grow();
    return number;
  }

  #grow(): void {
    const size = this.#high.length * 2;
    this.#high = copied(new Int32Array(size), this.#high);
    this.#low = copied(new Int32Array(size), this.#low);
    this.#orders = copied(new Float64Array(size), this.#orders);
    this.#slots = new Int32Array(size * 2);
    const mask = size * 2 - 1;
    for (let number = 0; number < this.size; number++) {
      let at = (this.#high[number]! ^ Math.imul(this.#low[number]!, 0x27d4eb2f)) & mask;
      while (this.#slots[at] !== 0) at = (at + 1) & mask;
      this.#slots[at] = number + 1;
    }
  }
}

function copied<T extends Int32Array | Float64Array>(to: T, from: T): T {
  to.set(from);
  return to;
}
