/**
 * How long to wait before a partition is started again, so that starting again cannot become a spin. Pure; knows
 * neither Kafka nor a clock. Imports: nothing.
 */

const MAX_PAUSE_MS = 300_000;
/** A renewal within so many pauses of the one before follows from the same cause. */
const FOLLOWS_WITHIN = 10;

/** The pause doubles from one renewal of a name to the next, as long as they follow each other closely. */
export class ReassignBackoff {
  readonly #last = new Map<string, { readonly pauseMs: number; readonly untilMs: number }>();

  /** Milliseconds to wait from `nowMs`; at least `firstMs`, at most `limitMs`. */
  pause(name: string, firstMs: number, nowMs: number, limitMs = MAX_PAUSE_MS): number {
    const last = this.#last.get(name);
    const follows = last !== undefined && nowMs - last.untilMs <= last.pauseMs * FOLLOWS_WITHIN;
    const pauseMs = Math.min(limitMs, Math.max(firstMs, follows ? last.pauseMs * 2 : 0));
    this.#last.set(name, { pauseMs, untilMs: nowMs + pauseMs });
    return pauseMs;
  }
}
