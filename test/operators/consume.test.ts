import { NEVER, Observable, Subject, from, take } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { consume } from '../../operators/consume.js';
import type { SourceEvent } from '../../src/ports.js';
import { FakeSource, Journal, assigned, briefEvent, chunk, fetched, lost, revoked, tenure } from '../support/fakes.js';
import { asText, marbles, type Marbles } from '../support/marbles.js';

const first = tenure(0, 1);
const second = tenure(0, 2);
const other = tenure(1, 3);
const third = tenure(0, 4);

/** Capitals are the lifetimes, small letters the chunks. */
const events: Record<string, SourceEvent> = {
  A: assigned(first),
  a: fetched(chunk(-1, 4, { of: first })),
  b: fetched(chunk(4, 9, { of: first })),
  L: lost(first),
  R: revoked(first),
  B: assigned(second),
  c: fetched(chunk(9, 14, { of: second })),
  S: revoked(second),
  O: assigned(other),
  x: fetched(chunk(-1, 0, { of: other })),
  P: assigned(third),
  d: fetched(chunk(9, 14, { of: third })),
};
const named = Object.fromEntries(Object.entries(events).map(([letter, event]) => [letter, briefEvent(event)]));

const consuming = (events$: Observable<SourceEvent>) =>
  consume(new FakeSource(new Journal(), events$)).pipe(asText(briefEvent));

function expectPassing(m: Marbles, source: string, passing: string): void {
  m.expect(consuming(m.hot(source, events))).toBeObservable(passing, named);
}

describe('consume', () => {
  test(
    'the diagram of its documentation',
    marbles((m) => {
      expectPassing(m, /* source */ '-A-a-B---b-c-S-|', /*           consume(source) */ '-A-a-(LB)--c-S-|');
    }),
  );

  test(
    'never: a group without records is waited for',
    marbles((m) => {
      const source = m.hot<SourceEvent>('-');
      m.expect(consuming(source)).toBeObservable('-');
      m.expect(source).toHaveSubscriptions('^');
    }),
  );

  test(
    'empty: a source that is drained at once completes',
    marbles((m) => {
      const source = m.hot<SourceEvent>('|');
      m.expect(consuming(source)).toBeObservable('|');
      m.expect(source).toHaveSubscriptions('(^!)');
    }),
  );

  test(
    'one event passes',
    marbles((m) => expectPassing(m, '-A---|', '-A---|')),
  );

  test(
    'an error of the source is told',
    marbles((m) => {
      const source = m.hot<SourceEvent>('-A-a-#', events, 'broken');
      m.expect(consuming(source)).toBeObservable('-A-a-#', named, 'broken');
      m.expect(source).toHaveSubscriptions('^----!');
    }),
  );

  test(
    'an early unsubscription leaves the group',
    marbles((m) => {
      const source = m.hot<SourceEvent>('-A-a-b-', events);
      m.expect(consuming(source), '^---!').toBeObservable('-A-a-', named);
      m.expect(source).toHaveSubscriptions('^---!');
    }),
  );

  test(
    'nothing is joined before it is subscribed to, and each subscription has tenures of its own',
    marbles((m) => {
      const source = m.cold<SourceEvent>('-A-a-|', events);
      const passing$ = consuming(source);
      m.expect(passing$).toBeObservable('-A-a-|', named);
      m.expect(passing$, '---^').toBeObservable('----A-a-|', named);
      m.expect(source).toHaveSubscriptions(['^----!', '---^----!']);
    }),
  );

  test(
    'two partitions interleaved: the tenures of one are nothing to the other',
    marbles((m) => expectPassing(m, '-A-O-a-x-P----x-d|', '-A-O-a-x-(LP)-x-d|')),
  );

  test(
    'I9: a chunk that comes before its tenure, or after it was lost, never passes',
    marbles((m) => expectPassing(m, '-a-A-a-L-b-B-c-|', '---A-a-L---B-c-|')),
  );

  test(
    'I9: a tenure that the source forgot to end is lost before the next one begins',
    marbles((m) => expectPassing(m, '-A-B----c-|', '-A-(LB)-c-|')),
  );

  test(
    'a loss that is told twice passes once',
    marbles((m) => expectPassing(m, '-A-L-L-|', '-A-L---|')),
  );

  test(
    'a chunk still passes while its tenure is being revoked',
    marbles((m) => expectPassing(m, '-A-R-a-|', '-A-R-a-|')),
  );

  test(
    'an epoch that is used again ends the stream with KCR_INTERNAL instead of mixing two tenures',
    marbles((m) => {
      const source = m.hot<SourceEvent>('-A-A-a-|', events);
      m.expect(consuming(source)).toBeObservable('-A-#', named, 'KCR_INTERNAL');
      m.expect(source).toHaveSubscriptions('^--!');
    }),
  );

  test(
    'an epoch that another partition has already is refused too: stages know a tenure by it',
    marbles((m) => {
      const source = m.hot<SourceEvent>('-A-X-|', { ...events, X: assigned(tenure(1, first.assignmentId)) });
      m.expect(consuming(source)).toBeObservable('-A-#', named, 'KCR_INTERNAL');
    }),
  );
});

describe('consume and a release', () => {
  /** Events by hand, so that a release can be called between them. */
  function byHand() {
    const source = new Subject<SourceEvent>();
    const passed: string[] = [];
    let release = (): void => undefined;
    const released: string[] = [];
    consume(new FakeSource(new Journal(), source)).subscribe((event) => {
      passed.push(briefEvent(event));
      if (event.kind === 'revoked') release = event.release;
    });
    return {
      source,
      passed,
      released,
      release: () => release(),
      revoke: (of: typeof first) => source.next(revoked(of, () => released.push(`${of.assignmentId}`))),
    };
  }

  test('a partition that was released and comes back is not told as lost', () => {
    const { source, passed, released, release, revoke } = byHand();
    source.next(assigned(first));
    revoke(first);
    release();
    source.next(assigned(second));
    expect(passed).toEqual(['assigned of 0@1', 'revoked of 0@1', 'assigned of 0@2']);
    expect(released).toEqual(['1']);
  });

  test('I9: a chunk that comes after its tenure was released never passes', () => {
    const { source, passed, release, revoke } = byHand();
    source.next(assigned(first));
    revoke(first);
    release();
    source.next(fetched(chunk(-1, 4, { of: first })));
    expect(passed).toEqual(['assigned of 0@1', 'revoked of 0@1']);
  });

  test('a release that comes late does not end the tenure that came after', () => {
    const { source, passed, release, revoke } = byHand();
    source.next(assigned(first));
    revoke(first);
    source.next(lost(first));
    source.next(assigned(second));
    release();
    source.next(fetched(chunk(-1, 4, { of: second })));
    expect(passed.at(-1)).toBe('0-4 of 0@2');
  });

  test('a revoke of an assignment that is over is released at once: the group does not wait for nobody', () => {
    const { source, passed, released, revoke } = byHand();
    source.next(assigned(first));
    source.next(lost(first));
    revoke(first);
    expect(passed).toEqual(['assigned of 0@1', 'lost of 0@1']);
    expect(released).toEqual(['1']);
  });
});

describe('consume and a source that emits while it is being listened to', () => {
  test('a chunk that a loss brings about comes after the assignment it belongs to', () => {
    const source = new Subject<SourceEvent>();
    const passed: string[] = [];
    consume(new FakeSource(new Journal(), source)).subscribe((event) => {
      passed.push(briefEvent(event));
      if (event.kind === 'lost') source.next(events['c']!);
    });
    source.next(assigned(first));
    source.next(assigned(second));
    expect(passed).toEqual(['assigned of 0@1', 'lost of 0@1', 'assigned of 0@2', '10-14 of 0@2']);
  });

  test('a source that emits at once is left when enough was taken', () => {
    let produced = 0;
    const endless = new Observable<SourceEvent>((subscriber) => {
      for (let assignmentId = 1; !subscriber.closed && assignmentId < 100; assignmentId++) {
        produced += 1;
        subscriber.next(assigned(tenure(assignmentId, assignmentId)));
      }
    });
    consume(new FakeSource(new Journal(), endless)).pipe(take(3)).subscribe();
    expect(produced).toBe(3);
  });

  test(
    'a listener that throws does not break the source',
    marbles((m) => {
      const source = m.hot<SourceEvent>('-A-a-', events);
      const failing$ = consume(new FakeSource(new Journal(), source)).pipe(
        asText((event) => {
          if (event.kind === 'fetched') throw new Error('listener');
          return briefEvent(event);
        }),
      );
      m.expect(failing$).toBeObservable('-A-#', named, new Error('listener'));
      m.expect(source).toHaveSubscriptions('^--!');
    }),
  );

  test('nothing but `events` is asked of the source', () => {
    const journal = new Journal();
    consume(new FakeSource(journal, NEVER)).subscribe().unsubscribe();
    consume(new FakeSource(journal, from([events['A']!, events['a']!]))).subscribe();
    expect(journal.lines).toEqual([]);
  });
});
