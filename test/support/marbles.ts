// rxjs-marbles for vitest, configured once. `run: true` is RxJS's own run mode: every `timer` is in virtual time, and
// one character of a diagram is one frame.
import {
  catchError,
  map,
  throwError,
  type MonoTypeOperatorFunction,
  type Observable,
  type OperatorFunction,
} from 'rxjs';
import { configure, type Context } from 'rxjs-marbles';
import { expect } from 'vitest';
import { IngestError } from '../../src/errors.js';

export type Marbles = Context;

const configured = configure({
  run: true,
  frameworkMatcher: true,
  assertDeepEqual: (actual: unknown, expected: unknown) => expect(actual).toStrictEqual(expected),
});

/** A test in virtual time. What still goes on after ten seconds of it (a retry that never ends) is let go. */
export function marbles(test: (m: Marbles) => void): () => void {
  return configured.marbles((m: Marbles) => {
    m.scheduler.maxFrames = 10_000;
    test(m);
  }) as () => void;
}

/** Each value as text, so that a diagram's legend reads as a sentence; errors as their code. */
export function asText<T>(text: (value: T) => string): OperatorFunction<T, string> {
  return (source) => source.pipe(map(text), errorsAsCodes());
}

/** An `IngestError` ends the diagram as its code: `#` with `'KCR_FENCED'`. */
export function errorsAsCodes<T>(): MonoTypeOperatorFunction<T> {
  return catchError((error: unknown): Observable<never> =>
    throwError(() => (error instanceof IngestError ? error.code : error)),
  );
}
