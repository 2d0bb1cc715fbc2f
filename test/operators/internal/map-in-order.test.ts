import { EmptyError, NEVER, concatMap, defer, of, take, throwError, timer, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { mapInOrder } from '../../../operators/internal/map-in-order.js';
import { Journal } from '../../support/fakes.js';
import { marbles } from '../../support/marbles.js';

/** Frames that the projection of each letter takes; an error where it is negative. */
const frames: Readonly<Record<string, number>> = { a: 6, b: 2, c: 1, d: 1, x: -2 };

function working(letter: string): Observable<string> {
  const wait = frames[letter] ?? 1;
  return timer(Math.abs(wait)).pipe(
    concatMap(() => (wait < 0 ? throwError(() => `${letter} failed`) : of(letter.toUpperCase()))),
  );
}

describe('mapInOrder', () => {
  test(
    'results come out in the order of the source, however long each takes',
    marbles((m) => {
      m.expect(m.hot('-ab----|').pipe(mapInOrder(working, 2))).toBeObservable('-------(AB|)');
    }),
  );

  test(
    'no more than the limit are under way; the next begins when one has ended',
    marbles((m) => {
      const journal = new Journal();
      const noted = (letter: string) =>
        defer(() => {
          journal.note(`begin ${letter}`);
          return working(letter);
        });
      m.expect(m.hot('-(abcd)---').pipe(mapInOrder(noted, 2))).toBeObservable('-------(ABCD)');
      m.flush();
      expect(journal.lines).toEqual(['1 begin a', '1 begin b', '3 begin c', '4 begin d']);
    }),
  );

  test(
    'never',
    marbles((m) => {
      const source = m.hot('-');
      m.expect(source.pipe(mapInOrder(working, 2))).toBeObservable('-');
      m.expect(source).toHaveSubscriptions('^');
    }),
  );

  test(
    'empty',
    marbles((m) => m.expect(m.hot('--|').pipe(mapInOrder(working, 2))).toBeObservable('--|')),
  );

  test(
    'one',
    marbles((m) => m.expect(m.hot('-b----|').pipe(mapInOrder(working, 2))).toBeObservable('---B--|')),
  );

  test(
    'an error of the source waits for its turn: what is under way is finished',
    marbles((m) => {
      const source = m.hot('-a--#', undefined, 'broken');
      m.expect(source.pipe(mapInOrder(working, 2))).toBeObservable('-------(A#)', { A: 'A' }, 'broken');
      m.expect(source).toHaveSubscriptions('^---!');
    }),
  );

  test(
    'an urgent error of the source is told at once, and what is under way discarded',
    marbles((m) => {
      const slow = m.cold('-----A');
      m.expect(
        m.hot('-a--#', undefined, 'broken').pipe(
          mapInOrder(
            () => slow,
            2,
            (error) => error === 'broken',
          ),
        ),
      ).toBeObservable('----#', {}, 'broken');
      m.expect(slow).toHaveSubscriptions('-^--!');
    }),
  );

  test(
    'an error of a projection waits for its turn: what was before it is not lost',
    marbles((m) => {
      const source = m.hot('-ax----b-');
      m.expect(source.pipe(mapInOrder(working, 2))).toBeObservable('-------(A#)', { A: 'A' }, 'x failed');
      m.expect(source).toHaveSubscriptions('^------!');
    }),
  );

  test(
    'an error in its turn is told at once, and what is behind it is discarded',
    marbles((m) => {
      const later = m.cold('------B');
      const projected = m.hot('-xb---').pipe(mapInOrder((letter) => (letter === 'x' ? working('x') : later), 2));
      m.expect(projected).toBeObservable('---#', {}, 'x failed');
      m.expect(later).toHaveSubscriptions('--^!');
    }),
  );

  test(
    'a projection that throws is an error in its turn',
    marbles((m) => {
      const throwing = (letter: string) => {
        if (letter === 'b') throw new Error('thrown');
        return working(letter);
      };
      m.expect(m.hot('-ab----').pipe(mapInOrder(throwing, 2))).toBeObservable(
        '-------(A#)',
        { A: 'A' },
        new Error('thrown'),
      );
    }),
  );

  test(
    'a projection that ends without a result is an error: the results behind it would wait for it for ever',
    marbles((m) => {
      const source = m.hot<string>('-eb-----|');
      m.expect(
        source.pipe(mapInOrder((letter) => (letter === 'e' ? m.cold<string>('--|') : working(letter)), 2)),
      ).toBeObservable('---#', {}, new EmptyError());
    }),
  );

  test(
    'an unsubscription discards all that is under way',
    marbles((m) => {
      const inner = m.cold('-----B');
      const source = m.hot('-a-b---');
      m.expect(source.pipe(mapInOrder(() => inner, 2)), '^---!').toBeObservable('-');
      m.expect(source).toHaveSubscriptions('^---!');
      m.expect(inner).toHaveSubscriptions(['-^--!', '---^!']);
    }),
  );

  test(
    'taking enough discards the rest',
    marbles((m) => {
      const slow = m.cold('-----B');
      m.expect(
        m.hot('-ba---').pipe(
          mapInOrder((letter) => (letter === 'a' ? slow : working('b')), 2),
          take(1),
        ),
      ).toBeObservable('---(B|)');
      m.expect(slow).toHaveSubscriptions('--^!');
    }),
  );

  test(
    'completes only when the last result is out',
    marbles((m) => {
      m.expect(m.hot('-a|').pipe(mapInOrder(working, 2))).toBeObservable('-------(A|)');
      m.expect(m.hot('-a|').pipe(mapInOrder(() => NEVER, 2))).toBeObservable('-');
    }),
  );

  test(
    'each subscription counts its own turns',
    marbles((m) => {
      const mapped = m.cold('-b-c---|').pipe(mapInOrder(working, 2));
      m.expect(mapped).toBeObservable('---BC--|');
      m.expect(mapped, '--^').toBeObservable('-----BC--|');
    }),
  );
});
