// Chance that a seed repeats: what the chaos run draws its faults from, their targets and their times.

/** Mulberry32: small, quick, and the same everywhere. */
export class Draw {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to 1. */
  share(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer from `least` to `most`, both included. */
  between(least: number, most: number): number {
    return least + Math.floor(this.share() * (most - least + 1));
  }

  pick<T>(of: readonly T[]): T {
    const picked = of[Math.floor(this.share() * of.length)];
    if (picked === undefined) throw new Error('nothing to pick from');
    return picked;
  }

  shuffled<T>(of: readonly T[]): T[] {
    const items = [...of];
    for (let i = items.length - 1; i > 0; i--) {
      const j = Math.floor(this.share() * (i + 1));
      [items[i], items[j]] = [items[j]!, items[i]!];
    }
    return items;
  }
}

/** Gives each item once before any comes again, each time round in another order. */
export class ShuffleBag<T> {
  #left: T[] = [];

  constructor(
    private readonly items: readonly T[],
    private readonly draw: Draw,
  ) {}

  next(): T {
    if (this.#left.length === 0) this.#left = this.draw.shuffled(this.items);
    return this.#left.pop()!;
  }
}
