/**
 * How much a second, over the last seconds. Pure: the time is given. Imports: nothing.
 */

const SLOTS = 10;
const SLOT_MS = 1000;

/** Sums of the last ten whole seconds; what is older is forgotten when something is asked or added. */
export class Rate {
  readonly #sums = new Float64Array(SLOTS + 1);
  readonly #bornMs: number;
  #slot = -Infinity;

  constructor(nowMs: number) {
    this.#bornMs = nowMs;
  }

  add(amount: number, nowMs: number): void {
    this.#advance(nowMs);
    const at = this.#slot % this.#sums.length;
    this.#sums[at] = (this.#sums[at] as number) + amount;
  }

  /** Of the last ten seconds, or of the time since it was made, at least one second. */
  perSecond(nowMs: number): number {
    this.#advance(nowMs);
    const current = this.#slot % this.#sums.length;
    let sum = 0;
    for (const [at, amount] of this.#sums.entries()) if (at !== current) sum += amount;
    const wholeSeconds = Math.min(SLOTS, this.#slot - Math.floor(this.#bornMs / SLOT_MS));
    return wholeSeconds < 1 ? (this.#sums[current] as number) : sum / wholeSeconds;
  }

  #advance(nowMs: number): void {
    const slot = Math.floor(nowMs / SLOT_MS);
    const passed = Math.min(slot - this.#slot, this.#sums.length);
    for (let i = 0; i < passed; i++) this.#sums[(slot - i) % this.#sums.length] = 0;
    if (slot > this.#slot) this.#slot = slot;
  }
}
