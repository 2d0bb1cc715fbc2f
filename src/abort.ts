/**
 * Waiting that ends early, for the clock or for whoever calls it off. Imports: nothing.
 */

/** Resolves with the promise, or with undefined when it rejects or after `ms`. Never rejects. */
export function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(undefined), ms);
    const settle = (value?: T): void => {
      clearTimeout(timer);
      resolve(value);
    };
    promise.then(settle, () => settle());
  });
}

export interface Limit {
  readonly signal: AbortSignal;
  /** What waited is over: the limit has no effect any more. */
  readonly clear: () => void;
}

/** Aborted after `ms`, with what `late` says, or when `signal` is. */
export function limitOf(ms: number, late: () => Error, signal?: AbortSignal): Limit {
  const time = new AbortController();
  const timer = setTimeout(() => time.abort(late()), ms);
  return {
    signal: signal === undefined ? time.signal : AbortSignal.any([signal, time.signal]),
    clear: () => clearTimeout(timer),
  };
}

/** As the promise; rejects with the signal's reason as soon as that is aborted. The promise goes on unwatched. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    // The reason is ours: whoever aborts gives an IngestError.
    const aborted = (): void => reject(signal.reason as Error);
    if (signal.aborted) aborted();
    signal.addEventListener('abort', aborted, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  });
}
