import { asyncScheduler, defer, of, throwError, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import type { ErrorCode } from '../src/errors.js';
import { retryRetryable, type RetryConfig, type RetryNotice } from '../src/retry.js';
import { failure } from './support/fakes.js';
import { errorsAsCodes, marbles } from './support/marbles.js';

/** Fails with each of the codes in turn, then answers. */
function calls(...codes: readonly ErrorCode[]): Observable<string> {
  let made = 0;
  return defer(() => {
    const code = codes[made++];
    return code === undefined ? of('answer') : throwError(() => failure(code));
  });
}

const four = [
  'KCR_STORE_UNREACHABLE',
  'KCR_INSERT_RETRIABLE',
  'KCR_INSERT_IN_DOUBT',
  'KCR_CLICKHOUSE_UNREACHABLE',
] as const;
const again = (config: RetryConfig, onRetry?: (notice: RetryNotice) => void) =>
  retryRetryable<string>(config, asyncScheduler, onRetry);
const answer = { a: 'answer' };

describe('retryRetryable', () => {
  test(
    'a call that answers is made once',
    marbles((m) => {
      m.expect(calls().pipe(again({}))).toBeObservable('(a|)', answer);
    }),
  );

  test(
    'waits twice as long from retry to retry, so that a server that comes back is not run over',
    marbles((m) => {
      m.expect(calls(...four).pipe(again({ minDelayMs: 10, random: () => 0 }))).toBeObservable('150ms (a|)', answer);
    }),
  );

  test(
    'never waits longer than maxDelayMs, however long a server is down',
    marbles((m) => {
      m.expect(calls(...four).pipe(again({ minDelayMs: 10, maxDelayMs: 25, random: () => 0 }))).toBeObservable(
        '80ms (a|)',
        answer,
      );
    }),
  );

  test(
    'jitter only shortens a wait, by at most its share',
    marbles((m) => {
      const waits: number[] = [];
      const config = { minDelayMs: 10, jitter: 0.5, random: () => 1 };
      m.expect(calls(...four).pipe(again(config, ({ delayMs }) => waits.push(delayMs)))).toBeObservable(
        '75ms (a|)',
        answer,
      );
      m.flush();
      expect(waits).toEqual([5, 10, 20, 40]);
    }),
  );

  test(
    'an error that a retry does not mend is let through at once',
    marbles((m) => {
      m.expect(calls('KCR_SCHEMA').pipe(again({}), errorsAsCodes())).toBeObservable('#', {}, 'KCR_SCHEMA');
    }),
  );

  test(
    'gives up after maxAttempts with the last error',
    marbles((m) => {
      const config = { minDelayMs: 10, maxAttempts: 3, random: () => 0 };
      m.expect(calls(...four).pipe(again(config), errorsAsCodes())).toBeObservable('30ms #', {}, 'KCR_INSERT_IN_DOUBT');
    }),
  );

  test(
    'what is thrown without being an IngestError is a defect, and not tried again',
    marbles((m) => {
      const broken$ = defer((): Observable<string> => {
        throw new TypeError('cannot read properties of undefined');
      });
      m.expect(broken$.pipe(again({}), errorsAsCodes())).toBeObservable('#', {}, 'KCR_INTERNAL');
    }),
  );

  test(
    'is not made again after an unsubscription in the middle of a wait',
    marbles((m) => {
      const notices: number[] = [];
      const retried$ = calls(...four).pipe(
        again({ minDelayMs: 10, random: () => 0 }, ({ attempt }) => notices.push(attempt)),
      );
      m.expect(retried$, '^ 14ms !').toBeObservable('-');
      m.flush();
      expect(notices).toEqual([1, 2]);
    }),
  );

  test(
    'the wait does not overflow after a thousand attempts',
    marbles((m) => {
      const waits: number[] = [];
      const config = { minDelayMs: 1, maxDelayMs: 2, random: () => 0 };
      const down = Array.from({ length: 1000 }, (): ErrorCode => 'KCR_STORE_UNREACHABLE');
      calls(...down)
        .pipe(again(config, ({ delayMs }) => waits.push(delayMs)))
        .subscribe();
      m.flush();
      expect(waits).toHaveLength(1000);
      expect(Math.max(...waits)).toBe(2);
    }),
  );
});
