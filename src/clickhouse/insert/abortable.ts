/**
 *
 * Imports: rxjs.
 */
import { Observable } from 'rxjs';

/** A promise as a cold Observable: every subscription runs it again, unsubscribing aborts it. */
export function abortable<T>(run: (signal: AbortSignal) => Promise<T>): Observable<T> {
  return new Observable<T>((subscriber) => {
    const abort = new AbortController();
    run(abort.signal).then(
      (value) => {
        subscriber.next(value);
        subscriber.complete();
      },
      (error: unknown) => subscriber.error(error),
    );
    return () => abort.abort();
  });
}
