/**
 * The outcomes as a Node stream. Imports: Node, ports, rxjs.
 */
import { Readable } from 'node:stream';
import type { Observable, Subscription } from 'rxjs';
import type { Pausable } from './ports.js';

/**
 * The values of an observable as an object-mode `Readable`. RxJS knows no back-pressure, so a reader that does not keep
 * up closes the valve: the source fetches nothing more until the reader has caught up. What is on its way by then (at
 * most the source's byte budget) still comes and is kept.
 *
 * Subscribes at the first read; destroying the stream unsubscribes.
 */
export function toReadable<T>(values: Observable<T>, valve?: Partial<Pausable>): Readable {
  let subscription: Subscription | undefined;
  let isWaiting = false;
  const readable = new Readable({
    objectMode: true,
    read() {
      subscription ??= values.subscribe({
        next: (value) => {
          if (readable.push(value) || isWaiting) return;
          isWaiting = true;
          valve?.pause?.();
        },
        error: (error: unknown) => readable.destroy(error instanceof Error ? error : new Error(String(error))),
        complete: () => readable.push(null),
      });
      if (!isWaiting) return;
      isWaiting = false;
      valve?.resume?.();
    },
    destroy(error, done) {
      subscription?.unsubscribe();
      done(error);
    },
  });
  return readable;
}
