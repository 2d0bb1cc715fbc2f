/**
 * Waiting that can be called off, and how long to wait before the same is tried again. Knows nothing of Kafka.
 * Imports: Node.
 */
import { setMaxListeners } from 'node:events';

/** Resolves after `ms`, or at once when the signal is or gets aborted. Never rejects. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener('abort', finish);
  });
}

/** Lets timers and sockets have their turn, so that work on thousands of partitions does not hold up a heartbeat. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Longer than this nobody else has to wait while thousands of partitions are gone through. */
export const TURN_LIMIT_MS = 10;

/** Nor behind more of them: what each sets off in promises runs in the same turn, after it was measured. */
const ITEMS_A_TURN = 32;

/** Others have their turn in between: there may be thousands. */
export async function eachInTurn<T>(items: readonly T[], act: (item: T) => void): Promise<void> {
  let sinceMs = performance.now();
  for (const [i, item] of items.entries()) {
    act(item);
    if (performance.now() - sinceMs < TURN_LIMIT_MS && (i + 1) % ITEMS_A_TURN !== 0) continue;
    await breathe();
    sinceMs = performance.now();
  }
}

/** A controller that thousands may wait on: Node warns of a leak at the eleventh listener. */
export function newAbort(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

/** Resolves or rejects with the promise, or resolves to undefined as soon as the signal is aborted. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const giveUp = (): void => resolve(undefined);
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp);
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', giveUp));
  });
}

const MIN_DELAY_MS = 50;
const MAX_DELAY_MS = 2000;

/** Waits that double from call to call, with a random part, so that members do not come back in step. */
export class Backoff {
  #failures = 0;

  /** The next wait, milliseconds. */
  next(): number {
    const fullMs = Math.min(MAX_DELAY_MS, MIN_DELAY_MS * 2 ** Math.min(this.#failures, 10));
    this.#failures++;
    return Math.round(fullMs * (0.5 + 0.5 * Math.random()));
  }

  get failures(): number {
    return this.#failures;
  }

  reset(): void {
    this.#failures = 0;
  }
}
