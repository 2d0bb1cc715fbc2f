// insertDeduped over a sink of one function: what it makes of doubt where there is nothing but `insert` and a look.
import { of, throwError } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { insertDeduped } from '../../operators/insert-deduped.js';
import type { BatchSink, InsertBatch } from '../../src/ports.js';
import { briefDelivered, chunk, failure, insertBatch, intent } from '../support/fakes.js';
import { asText, marbles } from '../support/marbles.js';

const recorded = insertBatch(9, 14, { intent: intent(10, 14), token: 't' });
const retry = { minDelayMs: 2, jitter: 0 };

/** Lands whatever it is told, and loses its first answers. */
function sinkOf({ lost = 0, there = [] as number[], isBlind = false } = {}) {
  const calls: string[] = [];
  let left = lost;
  const sink: BatchSink = {
    insert: ({ records }: InsertBatch) => {
      calls.push('insert');
      there.push(...records.map(({ offset }) => offset));
      return left-- > 0 ? throwError(() => new TypeError('socket hang up')) : of({ rows: records.length, bytes: 0 });
    },
    ...(isBlind
      ? {}
      : {
          verification: {
            look: ({ records }: InsertBatch) => (
              calls.push('look'),
              of({
                missing: records.map(({ offset }) => offset).filter((offset) => !there.includes(offset)),
                doubled: [],
              })
            ),
          },
        }),
  };
  return { sink, calls, there };
}

describe('a sink of one function', () => {
  test(
    'is asked before anything is sent again: an answer that was lost doubles nothing',
    marbles((m) => {
      const { sink, calls, there } = sinkOf({ lost: 1 });
      m.expect(
        m.cold('b', { b: recorded }).pipe(insertDeduped(sink, { retry }), asText(briefDelivered)),
      ).toBeObservable('--B', { B: 'delivered 10-14' });
      m.flush();
      expect(calls).toEqual(['insert', 'look']);
      expect(there).toEqual([10, 11, 12, 13, 14]);
    }),
  );

  test(
    'is asked before a replay, which an earlier process may have sent',
    marbles((m) => {
      const { sink, calls } = sinkOf({ there: [10, 11, 12, 13, 14] });
      m.expect(
        m.cold('b', { b: { ...recorded, replay: true } }).pipe(insertDeduped(sink, { retry }), asText(briefDelivered)),
      ).toBeObservable('B', { B: 'delivered 10-14 again' });
      m.flush();
      expect(calls).toEqual(['look']);
    }),
  );

  test(
    'where part of a range is there it halts: it inserts a batch as a whole',
    marbles((m) => {
      const { sink } = sinkOf({ there: [10] });
      m.expect(
        m.cold('b', { b: { ...recorded, replay: true } }).pipe(insertDeduped(sink, { retry }), asText(briefDelivered)),
      ).toBeObservable('#', {}, 'KCR_READ_BACK');
    }),
  );

  test(
    'without a look it takes no recorded range: nobody could say what is there',
    marbles((m) => {
      const { sink, calls } = sinkOf({ isBlind: true });
      m.expect(
        m.cold('b', { b: recorded }).pipe(insertDeduped(sink, { retry }), asText(briefDelivered)),
      ).toBeObservable('#', {}, 'KCR_CONFIG');
      m.flush();
      expect(calls).toEqual([]);
    }),
  );

  test(
    'without a look, at-least-once sends again',
    marbles((m) => {
      const { sink, calls } = sinkOf({ isBlind: true, lost: 1 });
      m.expect(
        m.cold('b', { b: chunk(9, 14) }).pipe(insertDeduped(sink, { retry }), asText(briefDelivered)),
      ).toBeObservable('--B', { B: 'delivered 10-14' });
      m.flush();
      expect(calls).toEqual(['insert', 'insert']);
    }),
  );

  test(
    'its own errors stay what they are',
    marbles((m) => {
      const sink: BatchSink = { insert: () => throwError(() => failure('KCR_POISON', { offset: 12 })) };
      m.expect(
        m.cold('b', { b: chunk(9, 14) }).pipe(insertDeduped(sink, { retry }), asText(briefDelivered)),
      ).toBeObservable('#', {}, 'KCR_POISON');
    }),
  );
});
