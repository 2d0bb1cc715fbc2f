import {
  EMPTY,
  NEVER,
  concatMap,
  delay,
  filter,
  map,
  mergeMap,
  of,
  tap,
  throwError,
  type MonoTypeOperatorFunction,
} from 'rxjs';
import { describe, expect, test } from 'vitest';
import { transformBatches } from '../../../operators/between/transform-batches.js';
import { IngestError } from '../../../src/errors.js';
import type { BufferedBatch } from '../../../src/stages.js';
import { chunk, failure, range } from '../../support/fakes.js';
import { asText, marbles, type Marbles } from '../../support/marbles.js';

/** a covers 1-3, b 4-6. */
const values: Record<string, BufferedBatch> = { a: chunk(0, 3), b: chunk(3, 6) };
const legend = { A: '1-3 without records', B: '4-6 without records', a: '1-3', b: '4-6' };
const text = (batch: BufferedBatch) => `${range(batch)}${batch.records.length === 0 ? ' without records' : ''}`;
const emptied = map((batch: BufferedBatch): BufferedBatch => ({ ...batch, records: [], bytes: 0 }));

const transformed = (m: Marbles, source: string, operator: MonoTypeOperatorFunction<BufferedBatch>) =>
  m.hot<BufferedBatch>(source, values, failure('KCR_KAFKA')).pipe(transformBatches(operator), asText(text));

describe('transformBatches', () => {
  test(
    'the diagram of its documentation',
    marbles((m) =>
      m
        .expect(
          transformed(
            m,
            '-a-----b----|',
            concatMap((batch) => of(batch).pipe(delay(2), emptied)),
          ),
        )
        .toBeObservable('---A-----B--|', legend),
    ),
  );

  test(
    'never',
    marbles((m) => m.expect(transformed(m, '-', emptied)).toBeObservable('-')),
  );
  test(
    'empty',
    marbles((m) => m.expect(transformed(m, '--|', emptied)).toBeObservable('--|')),
  );
  test(
    'one and many',
    marbles((m) => m.expect(transformed(m, '-a-b|', emptied)).toBeObservable('-A-B|', legend)),
  );
  test(
    'an error of the source is told as it is',
    marbles((m) => m.expect(transformed(m, '-a-#', emptied)).toBeObservable('-A-#', legend, 'KCR_KAFKA')),
  );
  test(
    'an early unsubscription leaves the source and the operator',
    marbles((m) => {
      const source = m.hot<BufferedBatch>('-a---', values);
      m.expect(source.pipe(transformBatches(mergeMap(() => NEVER))), '^--!').toBeObservable('-');
      m.expect(source).toHaveSubscriptions('^--!');
    }),
  );

  test(
    'keeps the order of batches whose operator takes its time',
    marbles((m) =>
      m
        .expect(
          transformed(
            m,
            '(ab)',
            concatMap((batch) => of(batch).pipe(delay(batch === values['a'] ? 4 : 1))),
          ),
        )
        .toBeObservable('----ab', legend),
    ),
  );

  test(
    'is applied to each batch again: nothing is carried from one to the next',
    marbles((m) => {
      let applied = 0;
      m.hot<BufferedBatch>('-ab|', values)
        .pipe(transformBatches((batches) => (applied++, batches)))
        .subscribe();
      m.flush();
      expect(applied).toBe(2);
    }),
  );
});

describe('an operator that goes wrong is told at once, with the range', () => {
  const at = { topic: 'clicks', partition: 0, first: 1, last: 3 };
  const wrong: readonly (readonly [string, MonoTypeOperatorFunction<BufferedBatch>, string])[] = [
    ['H1: drops the batch', filter(() => false), 'Your operator let a batch go'],
    ['H1: drops it after a while', concatMap(() => EMPTY.pipe(delay(3))), 'Your operator let a batch go'],
    [
      'H2: throws',
      map(() => {
        throw new TypeError('no such field');
      }),
      'Your operator threw: no such field',
    ],
    [
      'H2: throws before it is subscribed to',
      () => {
        throw new TypeError('no such operator');
      },
      'Your operator threw: no such operator',
    ],
    ['H2: gives an error', () => throwError(() => 'no'), 'Your operator threw: no'],
    ['gives two of one', mergeMap((batch) => of(batch, batch)), 'Your operator made several batches of one'],
    [
      'changes the range',
      map((batch) => ({ ...batch, lastOffset: 99 }) as unknown as BufferedBatch),
      'Your operator gave another range',
    ],
    [
      'gives the batch of another partition',
      map((batch) => ({ ...batch, assignment: { ...batch.assignment, partition: 1 } })),
      'Your operator gave another range',
    ],
  ];
  for (const [name, operator, message] of wrong) {
    test(
      name,
      marbles((m) => {
        let error: unknown;
        m.hot<BufferedBatch>('-a', values)
          .pipe(transformBatches(operator))
          .subscribe({ error: (thrown: unknown) => (error = thrown) });
        m.flush();
        expect(error).toBeInstanceOf(IngestError);
        expect(error).toMatchObject({ code: 'KCR_TRANSFORM', fields: at });
        expect((error as IngestError).detail).toContain(message);
      }),
    );
  }

  test(
    'an IngestError of its own stays as it is',
    marbles((m) =>
      m
        .expect(
          transformed(
            m,
            '-a',
            tap(() => {
              throw failure('KCR_POISON', { offset: 2 });
            }),
          ),
        )
        .toBeObservable('-#', {}, 'KCR_POISON'),
    ),
  );
});
