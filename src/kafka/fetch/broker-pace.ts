/**
 * How long one broker may take for its next answer, and how long to wait before it is asked again.
 * Imports: kafka/connection.
 */
import { Backoff } from '../connection/wait.js';

/** While a partition waits for room, a fetch of the others may not wait long at first: it would hold this one up. */
const SHORT_WAIT_MS = 20;
/** An answer with nothing may come early once in a while: when leaders change, when a wait is short. */
const HASTY_ANSWERS = 3;

export class BrokerPace {
  readonly #maxWaitMs: number;
  readonly #failures = new Map<number, Backoff>();
  /** Waits of fetches while others wait for room: they grow as long as nothing comes and no room is made. */
  readonly #shortWaitsMs = new Map<number, number>();
  /** Answers in a row, of each broker, that came at once and with nothing. */
  readonly #hasty = new Map<number, Backoff>();

  /** `maxWaitMs`: what a broker may take for an answer when nobody waits for room. */
  constructor(maxWaitMs: number) {
    this.#maxWaitMs = maxWaitMs;
  }

  /** What the broker may take for its next answer, milliseconds. `othersWait`: partitions of it wait for room. */
  answerWithinMs(broker: number, othersWait: boolean): number {
    if (!othersWait) return this.#maxWaitMs;
    const waitMs = Math.min(this.#shortWaitsMs.get(broker) ?? SHORT_WAIT_MS, this.#maxWaitMs);
    this.#shortWaitsMs.set(broker, waitMs * 2);
    return waitMs;
  }

  /** Records came, or there is room where there was none. */
  roomMade(): void {
    this.#shortWaitsMs.clear();
  }

  /** A fetch failed: which failure in a row it is, and how long to wait. */
  failed(broker: number): { readonly attempt: number; readonly pauseMs: number } {
    const backoff = entry(this.#failures, broker);
    return { attempt: backoff.failures + 1, pauseMs: backoff.next() };
  }

  /** A fetch was answered. `isIdle`: with nothing at all. */
  answered(broker: number, isIdle: boolean): void {
    this.#failures.delete(broker);
    if (!isIdle) this.#hasty.delete(broker);
  }

  /**
   * A broker waits before it answers with nothing. One that does not would be asked thousands of times a second.
   * Undefined: it waited, or may be in haste for once. `isNew`: it was not held back until now.
   */
  hasteOf(
    broker: number,
    tookMs: number,
    limitMs: number,
  ): { readonly pauseMs: number; readonly isNew: boolean } | undefined {
    if (tookMs >= limitMs / 2) {
      this.#hasty.delete(broker);
      return undefined;
    }
    const backoff = entry(this.#hasty, broker);
    const pauseMs = Math.min(backoff.next(), Math.max(this.#maxWaitMs, SHORT_WAIT_MS));
    if (backoff.failures <= HASTY_ANSWERS) return undefined;
    return { pauseMs, isNew: backoff.failures === HASTY_ANSWERS + 1 };
  }
}

function entry(backoffs: Map<number, Backoff>, broker: number): Backoff {
  const backoff = backoffs.get(broker) ?? new Backoff();
  backoffs.set(broker, backoff);
  return backoff;
}
