// What one's own operators may not do between the stages, and when it is seen.
import { describe, expect, test } from 'vitest';
import { unbroken } from '../../../operators/internal/unbroken.js';
import { emptyState } from '../../../src/model/state.js';
import { insertBatch, intent } from '../../support/fakes.js';
import { marbles, type Marbles } from '../../support/marbles.js';

const pending = [intent(10, 14), intent(15, 19), intent(20, 24)];
const recorded = (first: number, inDoubt = pending) => ({
  ...insertBatch(first - 1, first + 4, { intent: intent(first, first + 4) }),
  ledger: { state: { ...emptyState, settled: 9, pending: inDoubt } },
});
const batches = { a: recorded(10), b: recorded(15), c: recorded(20) };

function failing(m: Marbles, source: string, message: RegExp): void {
  const errors: unknown[] = [];
  m.cold(source, batches)
    .pipe(unbroken())
    .subscribe({ error: (error: unknown) => errors.push(error) });
  m.flush();
  expect(errors).toMatchObject([{ code: 'KCR_TRANSFORM', message: expect.stringMatching(message) as string }]);
}

describe('H1: a recorded batch that is dropped by hand', () => {
  test(
    'is none where all come',
    marbles((m) => {
      m.expect(m.cold('-a-b-c-|', batches).pipe(unbroken())).toBeObservable('-a-b-c-|', batches);
    }),
  );

  test(
    'is seen when the next one comes',
    marbles((m) => failing(m, '-a---c', /let a batch go: the one behind it came, that of 15-19 did not/)),
  );

  test(
    'or given twice: it names the batch, and says how rows are left out',
    marbles((m) => {
      const errors: unknown[] = [];
      m.cold('-a---a', batches)
        .pipe(unbroken())
        .subscribe({ error: (error: unknown) => errors.push(error) });
      m.flush();
      expect(errors).toMatchObject([
        {
          code: 'KCR_TRANSFORM',
          message: expect.stringContaining('gave a batch twice') as string,
          fields: {
            first: 10,
            last: 14,
            hint: expect.stringContaining('a batch without rows must pass too') as string,
          },
        },
      ]);
    }),
  );

  test(
    'as the last one it is seen when the source completes',
    marbles((m) => failing(m, '-a-b---|', /let a batch go: the source ended, that of 20-24 did not/)),
  );

  test(
    'of several it names the whole range',
    marbles((m) => failing(m, '-a---|', /the source ended, that of 15-24 did not/)),
  );

  test(
    'may still be held by an operator while the source goes on, or fails, or nobody waits any more',
    marbles((m) => {
      m.expect(m.cold('-a-b----', batches).pipe(unbroken())).toBeObservable('-a-b----', batches);
      m.expect(m.cold('-a-b--#', batches).pipe(unbroken())).toBeObservable('-a-b--#', batches);
    }),
  );

  test(
    'is none where what comes last is all that is in doubt',
    marbles((m) => {
      const all = { z: recorded(10, [intent(10, 14)]) };
      m.expect(m.cold('-z-|', all).pipe(unbroken())).toBeObservable('-z-|', all);
    }),
  );
});
