/**
 * Durations of the last seconds, for a percentile. Pure: the time is given. Imports: nothing.
 */

const MOST = 1000;
const WINDOW_MS = 10_000;

export class RecentDurations {
  readonly #samples: { readonly value: number; readonly atMs: number }[] = [];

  add(value: number, nowMs: number): void {
    this.#samples.push({ value, atMs: nowMs });
    if (this.#samples.length > MOST) this.#samples.shift();
  }

  /** `part`: 0.95 for the value that 95 of 100 do not exceed. Undefined: there was none in the last ten seconds. */
  percentile(part: number, nowMs: number): number | undefined {
    const values = this.#samples.filter(({ atMs }) => nowMs - atMs <= WINDOW_MS).map(({ value }) => value);
    values.sort((a, b) => a - b);
    return values[Math.max(0, Math.ceil(values.length * part) - 1)];
  }
}
