/**
 * The dedup window of a simulated table: which tokens it knows. Pure. Imports: nothing.
 */

/** The token window of one table. */
export class TokenWindow {
  readonly #known = new Map<string, number>();

  constructor(
    private readonly size: number,
    private readonly ageMs: number,
  ) {}

  /** Remembers a block; false: it was known already, which does not make it younger. */
  take(block: string, nowMs: number): boolean {
    this.#forget(nowMs);
    if (this.#known.has(block)) return false;
    this.#known.set(block, nowMs);
    if (this.#known.size > this.size) this.#known.delete(this.#known.keys().next().value!);
    return true;
  }

  save(): ReadonlyMap<string, number> {
    return new Map(this.#known);
  }

  restore(known: ReadonlyMap<string, number>): void {
    this.#known.clear();
    for (const [block, atMs] of known) this.#known.set(block, atMs);
  }

  blocks(): readonly string[] {
    return [...this.#known.keys()];
  }

  #forget(nowMs: number): void {
    if (this.ageMs === Infinity) return;
    for (const [block, atMs] of this.#known) {
      if (nowMs - atMs <= this.ageMs) return;
      this.#known.delete(block);
    }
  }
}
