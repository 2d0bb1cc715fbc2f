import { concatWith, defer, map, of, Subscription, timer, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import type { IngestError } from '../src/errors.js';
import type { IngestEvent } from '../src/events.js';
import { Ledger, type LedgerConfig, type PartitionLedger } from '../src/ledger.js';
import type { Intent, PartitionState } from '../src/model/state.js';
import { dedupToken } from '../src/model/token.js';
import {
  FakeSource,
  FakeStore,
  Journal,
  briefState,
  intent,
  p0,
  reportTo,
  stateOf,
  tenure,
  type Scripts,
} from './support/fakes.js';
import { asText, errorsAsCodes, marbles } from './support/marbles.js';

/** No jitter, so that waits can be drawn: 10, 20, 40 frames. */
const retry = { minDelayMs: 10, random: () => 0 };

interface Setup {
  readonly journal: Journal;
  readonly store: FakeStore;
  readonly book: PartitionLedger;
}

/** A partition whose state was just claimed. `write` scripts: `'--k'` takes two frames. */
function claimed(initial = stateOf(-1), scripts: Scripts = {}, config: Partial<LedgerConfig> = {}): Setup {
  const journal = new Journal();
  const store = new FakeStore(journal, initial, scripts);
  const ledger = new Ledger(store, new FakeSource(journal), { group: 'g1', owner: 'me', retry, ...config });
  let book: PartitionLedger | undefined;
  ledger.open(p0).subscribe((opened) => (book = opened));
  if (book === undefined) throw new Error('the claim did not answer at once');
  return { journal, store, book };
}

const at = (frame: number, act: () => void): void => void timer(frame).subscribe(act);
const writes = ({ journal }: Setup): string[] => journal.of('write');
/** Subscribes at a frame and notes in the journal what comes of it. */
function noteAt({ journal }: Setup, frame: number, name: string, call: () => Observable<unknown>): void {
  at(frame, () =>
    call().subscribe({
      next: () => journal.note(`told ${name}`),
      error: (error: { code: string }) => journal.note(`told ${name}: ${error.code}`),
    }),
  );
}

describe('writes', () => {
  test(
    'are one at a time, and what waits meanwhile goes into the next one',
    marbles((m) => {
      const setup = claimed(stateOf(-1), { write: '---k' }, { maxPending: 3 });
      const { book } = setup;
      book.intend(intent(0, 4)).subscribe();
      at(1, () => book.intend(intent(5, 9)).subscribe());
      at(2, () => book.intend(intent(10, 14)).subscribe());
      m.flush();
      expect(writes(setup)).toEqual([
        '0 write 0: settled none, in doubt 0-4',
        '3 write 0: settled none, in doubt 0-4 5-9 10-14',
      ]);
    }),
  );

  test(
    'settling a batch and recording the next one is one write',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: '--k' }, { maxPending: 1 });
      setup.book.intend(intent(15, 19)).subscribe();
      at(5, () => setup.book.settle(14).subscribe());
      m.flush();
      expect(writes(setup)).toEqual(['5 write 0: settled 14, in doubt 15-19']);
    }),
  );

  test(
    'a store that ends without saying that it wrote is an error, not a partition that waits for ever',
    marbles((m) => {
      const setup = claimed(stateOf(-1), { write: '--|' });
      noteAt(setup, 0, 'intent', () => setup.book.intend(intent(0, 4)));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['2 told intent: KCR_INTERNAL']);
    }),
  );

  for (const maxPending of [1, 2]) {
    test(
      `cost one a batch in steady state with maxPending ${maxPending}`,
      marbles((m) => {
        const setup = claimed(stateOf(-1), { write: '--k' }, { maxPending });
        const { book } = setup;
        const batches = 40;
        // A source that is always ahead, inserts that take ten frames, settling in order: what the stages do.
        const begin = (n: number): void => {
          if (n === batches) return;
          book.intend(intent(5 * n, 5 * n + 4)).subscribe(() => {
            begin(n + 1);
            at(10, () => book.settle(5 * n + 4).subscribe());
          });
        };
        begin(0);
        m.flush();
        expect(setup.store.stateOf()).toMatchObject({ settled: 5 * batches - 1, pending: [] });
        // The first intents have nothing to be settled with, the last batches have no intent behind them.
        expect(writes(setup)).toHaveLength(batches + maxPending);
      }),
    );
  }

  test(
    'I4: each is made under the claim that the last one gave',
    marbles((m) => {
      const setup = claimed(stateOf(-1), { write: '-k' });
      const versions: unknown[] = [];
      const write = setup.store.write.bind(setup.store);
      setup.store.write = (claim, state) => {
        versions.push(claim.version);
        return write(claim, state);
      };
      const { book } = setup;
      book.intend(intent(0, 4)).subscribe(() => book.settle(4).subscribe(() => book.intend(intent(5, 9)).subscribe()));
      m.flush();
      expect(versions).toEqual([1, 2, 3]);
      expect(setup.store.stateOf()).toEqual(stateOf(4, [5, 9]));
    }),
  );

  test(
    'I4: a former owner changes nothing, and everybody who waits is told KCR_FENCED',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: '--k' });
      const { book, store, journal } = setup;
      at(1, () => store.seize());
      noteAt(setup, 0, 'settle', () => book.settle(14));
      noteAt(setup, 0, 'first intent', () => book.intend(intent(15, 19)));
      noteAt(setup, 0, 'second intent', () => book.intend(intent(20, 24)));
      noteAt(setup, 9, 'late intent', () => book.intend(intent(15, 19)));
      m.flush();
      expect(store.stateOf()).toEqual(stateOf(9, [10, 14]));
      expect(journal.of('told')).toEqual([
        '2 told settle: KCR_FENCED',
        '2 told first intent: KCR_FENCED',
        '2 told second intent: KCR_FENCED',
        '9 told late intent: KCR_FENCED',
      ]);
      expect(writes(setup)).toHaveLength(1);
    }),
  );

  test(
    'a store that does not answer is asked again, later and later, with the same write',
    marbles((m) => {
      const setup = claimed(stateOf(-1), { write: ['-u', '-u', '-u', '-k'] });
      noteAt(setup, 0, 'intent', () => setup.book.intend(intent(0, 4)));
      m.flush();
      const write = 'write 0: settled none, in doubt 0-4';
      expect(writes(setup)).toEqual([`0 ${write}`, `11 ${write}`, `32 ${write}`, `73 ${write}`]);
      expect(setup.journal.of('told')).toEqual(['74 told intent']);
    }),
  );

  test(
    'a store that refuses ends the tenure: nothing is written on a state that is not known',
    marbles((m) => {
      const setup = claimed(stateOf(-1), { write: ['-s', '-k'] });
      noteAt(setup, 0, 'intent', () => setup.book.intend(intent(0, 4)));
      noteAt(setup, 5, 'another', () => setup.book.intend(intent(0, 4)));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['1 told intent: KCR_STORE', '5 told another: KCR_STORE']);
      expect(writes(setup)).toHaveLength(1);
    }),
  );
});

describe('the queue', () => {
  test(
    'tells each what its own write has stored, though another is told first and at once goes on to the next write',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: ['---k', 'k'] });
      const { book } = setup;
      book.note(intent(10, 14), { isFilling: true }).subscribe();
      at(1, () => book.note(intent(10, 14), { isUnseen: true }).subscribe(() => book.settle(14).subscribe()));
      noteAt(setup, 2, 'note on it', () => book.note(intent(10, 14), { unknownUntilMs: 7 }));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['3 told note on it']);
    }),
  );

  test(
    'I7: what followed a change that was given up is refused, not written behind a gap',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: '---k' }, { maxPending: 4 });
      setup.book.note(intent(10, 14), { isFilling: true }).subscribe();
      const givenUp = setup.book.intend(intent(15, 19)).subscribe();
      noteAt(setup, 0, 'follower', () => setup.book.intend(intent(20, 24)));
      at(1, () => givenUp.unsubscribe());
      m.flush();
      expect(setup.journal.of('told')).toEqual(['3 told follower: KCR_INTERNAL']);
      expect(setup.store.stateOf().pending).toEqual([intent(10, 14, { isFilling: true })]);
    }),
  );

  test(
    'I7: a range that is being written counts as recorded, though who asked for it waits no more',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: '---k' }, { maxPending: 4 });
      const givenUp = setup.book.intend(intent(15, 19)).subscribe();
      noteAt(setup, 0, 'note', () => setup.book.note(intent(10, 14), { isFilling: true }));
      at(1, () => givenUp.unsubscribe());
      noteAt(setup, 2, 'the same', () => setup.book.intend(intent(15, 19)));
      noteAt(setup, 2, 'the next', () => setup.book.intend(intent(20, 24)));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['2 told the same: KCR_INTERNAL', '6 told note', '6 told the next']);
      expect(setup.store.stateOf().pending.map(({ first }) => first)).toEqual([10, 15, 20]);
    }),
  );

  test(
    'I9: given up while the store is being called, nothing is asked of it again',
    marbles((m) => {
      const setup = claimed(stateOf(-1), { write: ['---k', '-u', '-k'] });
      const givenUp = new Subscription();
      const write = setup.store.write.bind(setup.store);
      setup.store.write = (claim, state) => {
        if (state.pending.length === 2) givenUp.unsubscribe();
        return write(claim, state);
      };
      setup.book.intend(intent(0, 4)).subscribe();
      at(1, () => givenUp.add(setup.book.intend(intent(5, 9)).subscribe()));
      m.flush();
      expect(writes(setup)).toEqual([
        '0 write 0: settled none, in doubt 0-4',
        '3 write 0: settled none, in doubt 0-4 5-9',
        '3 write 0: settled none, in doubt 0-4 5-9 dropped',
      ]);
    }),
  );
});

describe('an intent', () => {
  test(
    'I1: is told of only once it is stored',
    marbles((m) => {
      const setup = claimed(stateOf(-1), { write: '----k' });
      const stored = () => setup.store.stateOf().pending.length;
      const told$ = setup.book.intend(intent(0, 4));
      m.expect(told$.pipe(asText(({ first, last }) => `${first}-${last}, stored: ${stored()}`))).toBeObservable(
        '----(i|)',
        { i: '0-4, stored: 1' },
      );
    }),
  );

  test(
    'waits while as many as maxPending are in doubt',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14], [15, 19]), {}, { maxPending: 2 });
      noteAt(setup, 0, 'third', () => setup.book.intend(intent(20, 24)));
      noteAt(setup, 5, 'settle', () => setup.book.settle(14));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['5 told settle', '5 told third']);
      expect(setup.store.stateOf()).toMatchObject(stateOf(14, [15, 19], [20, 24]));
    }),
  );

  test(
    'I15: is stored with where everything below was settled: what is in doubt beside it may be inserted after it',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14], [15, 19]), {}, { maxPending: 3 });
      let told: Intent | undefined;
      setup.book.intend(intent(20, 24)).subscribe((stored) => (told = stored));
      m.flush();
      expect(setup.store.stateOf().pending.map(({ floor }) => floor)).toEqual([undefined, undefined, 10]);
      expect(told?.floor).toBe(10);
    }),
  );

  test(
    'I15: what is settled in the same write lies below',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), {}, { maxPending: 1 });
      setup.book.intend(intent(15, 19)).subscribe();
      setup.book.settle(14).subscribe();
      m.flush();
      expect(setup.store.stateOf()).toEqual(stateOf(14, [15, 19]));
    }),
  );

  test(
    'waits also when a predecessor with a larger maxPending left more in doubt',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14], [15, 19], [20, 24]), {}, { maxPending: 1 });
      for (const first of [25, 30, 35]) noteAt(setup, 0, `${first}`, () => setup.book.intend(intent(first, first + 4)));
      m.flush();
      expect(setup.journal.of('told')).toEqual([]);
      expect(setup.store.stateOf().pending).toHaveLength(3);
    }),
  );

  test(
    'I7: is refused when it leaves a gap or overlaps',
    marbles((m) => {
      const { book } = claimed(stateOf(9, [10, 14]));
      m.expect(book.intend(intent(16, 19)).pipe(errorsAsCodes())).toBeObservable('#', {}, 'KCR_INTERNAL');
      m.expect(book.intend(intent(14, 19)).pipe(errorsAsCodes())).toBeObservable('#', {}, 'KCR_INTERNAL');
    }),
  );

  test(
    'I7: is refused when it does not follow one that still waits',
    marbles((m) => {
      const { book } = claimed(stateOf(-1), { write: '--k' });
      book.intend(intent(0, 4)).subscribe();
      m.expect(book.intend(intent(6, 9)).pipe(errorsAsCodes())).toBeObservable('#', {}, 'KCR_INTERNAL');
    }),
  );

  test(
    'the first one of a partition may begin anywhere',
    marbles((m) => {
      const setup = claimed(stateOf(-1));
      setup.book.intend(intent(1000, 1004)).subscribe();
      m.flush();
      expect(setup.store.stateOf().pending.map(({ first }) => first)).toEqual([1000]);
    }),
  );
});

describe('settling', () => {
  test(
    'I5: is told of only once it is stored',
    marbles((m) => {
      const { book } = claimed(stateOf(9, [10, 14]), { write: '---k' });
      m.expect(book.settle(14)).toBeObservable('---(s|)', { s: 14 });
    }),
  );

  test(
    'what is settled is told at once, without a write',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]));
      m.expect(setup.book.settle(9)).toBeObservable('(s|)', { s: 9 });
      m.expect(setup.book.settle(4)).toBeObservable('(s|)', { s: 9 });
      m.flush();
      expect(writes(setup)).toEqual([]);
    }),
  );

  test(
    'what lies before the first range there ever was is nothing to settle',
    marbles((m) => {
      const setup = claimed(stateOf(-1, [10, 14]));
      m.expect(setup.book.settle(7)).toBeObservable('(s|)', { s: 7 });
      m.flush();
      expect(writes(setup)).toEqual([]);
    }),
  );

  test(
    'out of order is refused: what is not in the table would count as settled',
    marbles((m) => {
      const { book, store } = claimed(stateOf(9, [10, 14], [15, 19]));
      m.expect(book.settle(19).pipe(errorsAsCodes())).toBeObservable('#', {}, 'KCR_INTERNAL');
      m.expect(book.settle(12).pipe(errorsAsCodes())).toBeObservable('#', {}, 'KCR_INTERNAL');
      m.flush();
      expect(store.stateOf()).toEqual(stateOf(9, [10, 14], [15, 19]));
    }),
  );

  test(
    'what was never recorded is refused',
    marbles((m) => {
      const { book } = claimed(stateOf(9));
      m.expect(book.settle(14).pipe(errorsAsCodes())).toBeObservable('#', {}, 'KCR_INTERNAL');
    }),
  );

  test(
    'two that wait for one write are settled by the next one',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14], [15, 19]), { write: '---k' }, { maxPending: 3 });
      setup.book.intend(intent(20, 24)).subscribe();
      noteAt(setup, 1, 'first', () => setup.book.settle(14));
      noteAt(setup, 2, 'second', () => setup.book.settle(19));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['6 told first', '6 told second']);
      expect(writes(setup)).toEqual([
        '0 write 0: settled 9, in doubt 10-14 15-19 20-24',
        '3 write 0: settled 19, in doubt 20-24',
      ]);
    }),
  );
});

describe('a tenure that is lost', () => {
  test(
    'I9: writes nothing more: a retry that was due is not made',
    marbles((m) => {
      const setup = claimed(stateOf(-1), { write: ['-u', '-k'] });
      const waiting = setup.book.intend(intent(0, 4)).subscribe();
      at(5, () => waiting.unsubscribe());
      m.flush();
      expect(writes(setup)).toHaveLength(1);
    }),
  );

  test(
    'I9: its write under way is dropped, and nothing follows on a state that is not known',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: '-----k' });
      const waiting = setup.book.settle(14).subscribe();
      waiting.add(setup.book.intend(intent(15, 19)).subscribe());
      at(2, () => waiting.unsubscribe());
      noteAt(setup, 3, 'afterwards', () => setup.book.intend(intent(15, 19)));
      m.flush();
      expect(writes(setup)).toEqual(['0 write 0: settled 14', '2 write 0: settled 14 dropped']);
      expect(setup.journal.of('told')).toEqual(['3 told afterwards: KCR_INTERNAL']);
    }),
  );

  test(
    'one who stops waiting does not take the write from another',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: '-----k' }, { maxPending: 1 });
      const intending = setup.book.intend(intent(15, 19)).subscribe();
      noteAt(setup, 0, 'settle', () => setup.book.settle(14));
      at(2, () => intending.unsubscribe());
      m.flush();
      expect(setup.journal.of('told')).toEqual(['5 told settle']);
    }),
  );

  test(
    'an intent that nobody waits for any more, and that was not sent, is not written',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), {}, { maxPending: 1 });
      const waiting = setup.book.intend(intent(15, 19)).subscribe();
      at(1, () => waiting.unsubscribe());
      at(2, () => setup.book.settle(14).subscribe());
      m.flush();
      expect(setup.store.stateOf()).toEqual(stateOf(14));
    }),
  );
});

describe('I12: leaving a poison record out of a range in doubt', () => {
  test(
    'is stored before it is told',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14], [15, 19]), { write: '---k' });
      noteAt(setup, 0, 'exclusion', () =>
        setup.book.exclude(intent(10, 14), [12]).pipe(map(({ excluded }) => excluded.join())),
      );
      m.flush();
      expect(setup.journal.lines.slice(1)).toEqual(['0 write 0: settled 9, in doubt 10-14 15-19', '3 told exclusion']);
      expect(setup.store.stateOf().pending.map(({ excluded }) => excluded)).toEqual([[12], []]);
    }),
  );

  test(
    'a second record joins the first, in the order of the offsets',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]));
      setup.book.exclude(intent(10, 14), [13]).subscribe((less) => setup.book.exclude(less, [11]).subscribe());
      m.flush();
      expect(setup.store.stateOf().pending.map(({ excluded }) => excluded)).toEqual([[11, 13]]);
    }),
  );

  test(
    'goes into one write with what else waits',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14], [15, 19]), { write: '---k' }, { maxPending: 3 });
      setup.book.intend(intent(20, 24)).subscribe();
      at(1, () => setup.book.settle(14).subscribe());
      at(1, () => setup.book.exclude(intent(15, 19), [16]).subscribe());
      m.flush();
      expect(writes(setup)).toEqual([
        '0 write 0: settled 9, in doubt 10-14 15-19 20-24',
        '3 write 0: settled 14, in doubt 15-19 20-24',
      ]);
      expect(setup.store.stateOf().pending.map(({ excluded }) => excluded)).toEqual([[16], []]);
    }),
  );

  test(
    'is refused for a range that is not in doubt',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]));
      noteAt(setup, 0, 'exclusion', () => setup.book.exclude(intent(15, 19), [16]));
      m.flush();
      expect(setup.journal.of('told', 'write')).toEqual(['0 told exclusion: KCR_INTERNAL']);
    }),
  );

  test(
    'fails with the tenure, and nothing is inserted on it',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: '--x' });
      noteAt(setup, 0, 'exclusion', () => setup.book.exclude(intent(10, 14), [12]));
      noteAt(setup, 5, 'another', () => setup.book.exclude(intent(10, 14), [13]));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['2 told exclusion: KCR_FENCED', '5 told another: KCR_FENCED']);
    }),
  );

  test(
    'one who stops waiting before it was sent does not have it written',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]), { write: '---k' }, { maxPending: 2 });
      setup.book.intend(intent(15, 19)).subscribe();
      const waiting = setup.book.exclude(intent(10, 14), [12]).subscribe();
      at(1, () => waiting.unsubscribe());
      m.flush();
      expect(setup.store.stateOf().pending.map(({ excluded }) => excluded)).toEqual([[], []]);
    }),
  );
});

describe('a note on a range in doubt', () => {
  test(
    'is stored before it is told, beside another change of the same range',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14], [15, 19]), { write: '---k' });
      setup.book.exclude(intent(15, 19), [16]).subscribe();
      noteAt(setup, 1, 'note', () => setup.book.note(intent(10, 14), { isFilling: true }));
      noteAt(setup, 2, 'exclusion', () => setup.book.exclude(intent(15, 19, { excluded: [16] }), [17]));
      noteAt(setup, 2, 'note on it', () => setup.book.note(intent(15, 19), { isFilling: true }));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['6 told note', '6 told exclusion', '6 told note on it']);
      expect(setup.store.stateOf().pending).toEqual([
        intent(10, 14, { isFilling: true }),
        intent(15, 19, { excluded: [16, 17], isFilling: true }),
      ]);
    }),
  );

  test(
    'does not outlive an exclusion: nothing was filled under the new token',
    marbles((m) => {
      const filling = intent(10, 14, { isFilling: true });
      const setup = claimed({ ...stateOf(9), pending: [filling] });
      setup.book.exclude(filling, [12]).subscribe();
      m.flush();
      expect(setup.store.stateOf().pending).toEqual([intent(10, 14, { excluded: [12] })]);
    }),
  );

  test(
    'is refused for a range that is not in doubt',
    marbles((m) => {
      const setup = claimed(stateOf(9, [10, 14]));
      noteAt(setup, 0, 'note', () => setup.book.note(intent(15, 19), { isFilling: true }));
      m.flush();
      expect(setup.journal.of('told', 'write')).toEqual(['0 told note: KCR_INTERNAL']);
    }),
  );
});

describe('I16: recording ranges in doubt in other parts', () => {
  const inDoubt = () => stateOf(9, [10, 14], [15, 19]);
  const refused = ['0 told recut: KCR_INTERNAL'];
  const cut = (initial: PartitionState, ...parts: readonly Intent[]): string[] => {
    const setup = claimed(initial);
    setup.book.recut(parts).subscribe({
      next: () => setup.journal.note('told recut'),
      error: (error: { code: string }) => setup.journal.note(`told recut: ${error.code}`),
    });
    return [...writes(setup), ...setup.journal.of('told')];
  };

  test(
    'is stored before it is told, and leaves the other ranges as they are',
    marbles((m) => {
      const setup = claimed(inDoubt(), { write: '---k' });
      noteAt(setup, 0, 'recut', () => setup.book.recut([intent(10, 11), intent(12, 14)]));
      m.flush();
      expect(setup.journal.of('write', 'told')).toEqual([
        '0 write 0: settled 9, in doubt 10-11 12-14 15-19',
        '3 told recut',
      ]);
      expect(setup.store.stateOf().pending).toMatchObject([
        { first: 10, last: 11 },
        { first: 12, last: 14 },
        { first: 15, last: 19 },
      ]);
    }),
  );

  test(
    'takes several whole ranges at once, and other borders within them',
    marbles(() => {
      expect(cut(inDoubt(), intent(10, 12), intent(13, 19))).toEqual([
        '0 write 0: settled 9, in doubt 10-12 13-19',
        '0 told recut',
      ]);
    }),
  );

  test(
    'is refused unless the parts cover whole ranges without a hole: an offset that no range names is lost',
    marbles(() => {
      expect(cut(inDoubt(), intent(10, 11), intent(13, 14))).toEqual(refused);
      expect(cut(inDoubt(), intent(10, 12), intent(12, 14))).toEqual(refused);
      expect(cut(inDoubt(), intent(10, 11), intent(12, 13))).toEqual(refused);
      expect(cut(inDoubt(), intent(11, 12), intent(13, 14))).toEqual(refused);
      expect(cut(inDoubt(), intent(20, 24))).toEqual(refused);
      expect(cut(inDoubt())).toEqual(refused);
    }),
  );

  test(
    'goes into one write with what settles and what is recorded behind it',
    marbles((m) => {
      const setup = claimed(inDoubt(), { write: '--k' }, { maxPending: 4 });
      setup.book.note(intent(15, 19), { unknownUntilMs: 1 }).subscribe();
      at(1, () => {
        setup.book.settle(14).subscribe();
        setup.book.recut([intent(15, 16), intent(17, 19)]).subscribe();
        setup.book.intend(intent(20, 24)).subscribe();
      });
      m.flush();
      expect(writes(setup)[1]).toBe('2 write 0: settled 14, in doubt 15-16 17-19 20-24');
    }),
  );

  test(
    'I4: of a former owner changes nothing, and nothing is inserted on it',
    marbles((m) => {
      const setup = claimed(inDoubt());
      setup.store.seize();
      noteAt(setup, 0, 'recut', () => setup.book.recut([intent(10, 11), intent(12, 14)]));
      m.flush();
      expect(setup.journal.of('told')).toEqual(['0 told recut: KCR_FENCED']);
      expect(setup.store.stateOf().pending).toHaveLength(2);
    }),
  );

  test(
    'that nobody waits for any more, and that was not sent, is not written',
    marbles((m) => {
      const setup = claimed(inDoubt(), { write: '---k' });
      setup.book.note(intent(15, 19), { unknownUntilMs: 1 }).subscribe();
      at(1, () => {
        const waiting = setup.book.recut([intent(10, 11), intent(12, 14)]).subscribe();
        at(1, () => waiting.unsubscribe());
      });
      m.flush();
      expect(writes(setup)).toEqual(['0 write 0: settled 9, in doubt 10-14 15-19']);
    }),
  );
});

describe('a state that does not speak of the log that is there', () => {
  interface Claiming {
    readonly journal: Journal;
    readonly store: FakeStore;
    readonly source: FakeSource;
    readonly opened: Observable<string>;
  }
  function claiming(
    initial: PartitionState,
    config: Partial<LedgerConfig> = {},
    scripts: Scripts = {},
    storeScripts: Scripts = {},
  ): Claiming {
    const journal = new Journal();
    const store = new FakeStore(journal, initial, storeScripts);
    const source = new FakeSource(journal, undefined, scripts);
    const ledger = new Ledger(store, source, {
      group: 'g1',
      owner: 'me',
      retry,
      onEvent: reportTo(journal),
      ...config,
    });
    const opened = ledger
      .open({ ...p0, topicId: 'B' })
      .pipe(asText(({ state }) => `${briefState(state)} of ${state.topicId}@${state.incarnation}`));
    return { journal, store, source, opened };
  }
  const ofA = (state: PartitionState): PartitionState => ({ ...state, topicId: 'A' });

  test(
    'of a topic that was recreated halts, though the log has grown past it',
    marbles((m) => {
      const { opened } = claiming(ofA(stateOf(9)));
      m.expect(opened).toBeObservable('#', {}, 'KCR_TOPIC_RESET');
    }),
  );

  test(
    'of a topic that was recreated begins it under `restart`, with tokens that were never used',
    marbles((m) => {
      const { opened, journal, store } = claiming(ofA(stateOf(9, [10, 14])), { onReset: 'restart' });
      m.expect(opened).toBeObservable('(s|)', { s: 'settled -1 of B@1' });
      m.flush();
      expect(journal.of('event', 'write')).toEqual(['0 write 0: settled -1', '0 event restarted', '0 event claimed']);
      expect(store.stateOf()).toEqual({ settled: -1, pending: [], incarnation: 1, topicId: 'B', isOffsetReused: true });
    }),
  );

  test(
    'I3: a restart is stored before it is told: the next owner finds a log that has grown past it, and begins where it was truncated',
    marbles((m) => {
      const { opened, source, journal } = claiming({ ...stateOf(9), topicId: 'B' }, { onReset: 'restart' });
      source.ends = { start: 0, end: 5 };
      const grown = defer(() => {
        source.ends = { start: 0, end: 13 };
        return opened;
      });
      m.expect(opened.pipe(concatWith(grown))).toBeObservable('4s (ss|)', { s: 'settled 4 of B@1' });
      m.flush();
      expect(journal.of('event', 'write').map((line) => line.replace(/^\d+ /, ''))).toEqual([
        'write 0: settled 4',
        'event restarted',
        'event claimed',
        'event claimed',
      ]);
    }),
  );

  test(
    'I3: a restart that a former owner decides on is not told',
    marbles((m) => {
      const { opened, journal, store, source } = claiming(ofA(stateOf(9)), { onReset: 'restart' }, { log: '--k' });
      m.cold('-s').subscribe(() => store.seize());
      m.expect(opened).toBeObservable('--#', {}, 'KCR_FENCED');
      m.flush();
      expect(source.claims).toEqual([]);
      expect(journal.of('event')).toEqual(['2 event fenced']);
    }),
  );

  test(
    'I3: a store that is away for a while does not lose the restart',
    marbles((m) => {
      const { opened, journal } = claiming(ofA(stateOf(9)), { onReset: 'restart' }, {}, { write: ['u', 'k'] });
      m.expect(opened).toBeObservable('----------(s|)', { s: 'settled -1 of B@1' });
      m.flush();
      expect(journal.of('event')).toEqual(['0 event retry', '10 event restarted', '10 event claimed']);
    }),
  );

  test(
    'that reaches beyond the log’s end halts, once the end has stayed there: a new leader catches up first',
    marbles((m) => {
      const { opened, source } = claiming({ ...stateOf(9), topicId: 'B' });
      source.ends = { start: 0, end: 5 };
      m.expect(opened).toBeObservable('4s #', {}, 'KCR_TOPIC_RESET');
    }),
  );

  test.each([
    [
      'recreated',
      ofA(stateOf(9)),
      /deleted and recreated: the state is of the topic with the id A, Kafka has B/,
      /ingest the new topic from its beginning set onReset to "restart"/,
    ],
    [
      'truncated',
      { ...stateOf(9), topicId: 'B' },
      /ends at 5, but the state tells of offset 9/,
      /go on where the log ends set onReset to "restart"/,
    ],
    [
      'truncated within a range in doubt',
      { ...stateOf(3, [4, 9]), topicId: 'B' },
      /ends at 5, but the state tells of offset 9/,
      /look it up in the table by _partition and _offset/,
    ],
  ])('says what happened to the topic, and what to do: %s', (_, state, message, hint) => {
    marbles((m) => {
      const errors: IngestError[] = [];
      const source = new FakeSource(new Journal());
      source.ends = { start: 0, end: 5 };
      new Ledger(new FakeStore(new Journal(), state), source, { group: 'g1', owner: 'me' })
        .open({ ...p0, topicId: 'B' })
        .subscribe({ error: (error: IngestError) => errors.push(error) });
      m.flush();
      expect(errors.map(({ reason }) => reason)).toEqual([expect.stringMatching(message)]);
      expect(errors[0]?.fields.hint).toMatch(hint);
    })();
  });

  test(
    'a store that is away is told by the call that waits for it',
    marbles((m) => {
      const calls: unknown[] = [];
      const onEvent = (event: IngestEvent): void => {
        if (event.kind === 'retry') calls.push(event.call);
      };
      const { opened } = claiming(
        ofA(stateOf(9)),
        { onReset: 'restart', onEvent },
        {},
        { claim: ['u', 'k'], write: ['u', 'k'] },
      );
      opened.subscribe();
      m.flush();
      expect(calls).toEqual(['claim', 'write']);
    }),
  );

  test(
    'that is only ahead of a leader that has yet to catch up goes on',
    marbles((m) => {
      const { opened, source } = claiming({ ...stateOf(9), topicId: 'B' });
      source.ends = { start: 0, end: 5 };
      at(2500, () => (source.ends = { start: 0, end: 10 }));
      m.expect(opened).toBeObservable('3s (s|)', { s: 'settled 9 of B@0' });
    }),
  );

  test(
    'goes on where the log ends under `restart`',
    marbles((m) => {
      const { opened, source } = claiming({ ...stateOf(9), topicId: 'B' }, { onReset: 'restart' });
      source.ends = { start: 0, end: 5 };
      m.expect(opened).toBeObservable('4s (s|)', { s: 'settled 4 of B@1' });
    }),
  );

  test(
    'halts even under `restart` when a range in doubt reaches into what is gone',
    marbles((m) => {
      const { opened, source } = claiming({ ...stateOf(3, [4, 9]), topicId: 'B' }, { onReset: 'restart' });
      source.ends = { start: 0, end: 5 };
      m.expect(opened).toBeObservable('4s #', {}, 'KCR_TOPIC_RESET');
    }),
  );

  test(
    'the topic’s id is learnt by a state without one',
    marbles((m) => {
      m.expect(claiming(stateOf(9)).opened).toBeObservable('(s|)', { s: 'settled 9 of B@0' });
      m.expect(claiming(stateOf(-1)).opened).toBeObservable('(s|)', { s: 'settled none of B@0' });
    }),
  );

  test(
    'I3: what was learnt is stored, where anything is settled: the topic may be another one when the next owner asks',
    marbles((m) => {
      const learning = claiming(stateOf(9));
      const empty = claiming(stateOf(-1));
      learning.opened.subscribe();
      empty.opened.subscribe();
      m.flush();
      expect([learning.store.stateOf().topicId, empty.store.stateOf().topicId]).toEqual(['B', undefined]);
    }),
  );

  test(
    'a broker that does not answer is asked again',
    marbles((m) => {
      const { opened, journal } = claiming({ ...stateOf(9), topicId: 'B' }, {}, { log: ['-u', '-k'] });
      m.expect(opened).toBeObservable('12ms (s|)', { s: 'settled 9 of B@0' });
      m.flush();
      expect(journal.lines).toEqual(['0 claim 0', '1 event retry', '12 event claimed']);
    }),
  );
});

describe('claiming', () => {
  test(
    'waits for a store that does not answer, and tells what is settled and in doubt',
    marbles((m) => {
      const journal = new Journal();
      const store = new FakeStore(journal, stateOf(9, [10, 14]), { claim: ['-u', '-u', '-k'] });
      const ledger = new Ledger(store, new FakeSource(journal), {
        group: 'g1',
        owner: 'me',
        retry,
        onEvent: reportTo(journal),
      });
      m.expect(ledger.open(p0).pipe(asText(({ state }) => `${state.settled}`))).toBeObservable('33ms (c|)', { c: '9' });
      m.flush();
      expect(journal.lines).toEqual([
        '0 claim 0',
        '1 event retry',
        '11 claim 0',
        '12 event retry',
        '32 claim 0',
        '33 event claimed',
      ]);
    }),
  );

  test(
    'each tenure claims under a name of its own, so that a person can tell zombies apart',
    marbles((m) => {
      const journal = new Journal();
      const store = new FakeStore(journal);
      const ledger = new Ledger(store, new FakeSource(journal), { group: 'g1', owner: 'me' });
      const claims: string[] = [];
      const claim = store.claim.bind(store);
      store.claim = (key, owner) => {
        claims.push(`${key.cluster}/${key.group}/${key.topic}/${key.partition} by ${owner}`);
        return claim(key, owner);
      };
      ledger.open(p0).subscribe();
      ledger.open(tenure(0, 7)).subscribe();
      m.flush();
      expect(claims).toEqual(['c1/g1/clicks/0 by me#1', 'c1/g1/clicks/0 by me#7']);
    }),
  );

  test('a tenure that claimed nothing cannot settle: two stages with two ledgers are told apart', () => {
    const ledger = new Ledger(new FakeStore(new Journal()), new FakeSource(new Journal()), {
      group: 'g1',
      owner: 'me',
    });
    expect(() => ledger.of(p0)).toThrow('give reconcileWithState and commit the same ledger');
  });

  test(
    'tokens name the cluster, the topic and the incarnation of the claimed state (I10)',
    marbles(() => {
      const { book } = claimed({ ...stateOf(9), incarnation: 4 });
      expect(book.token(intent(10, 14))).toBe(
        dedupToken({
          cluster: 'c1',
          group: 'g1',
          topic: 'clicks',
          incarnation: 4,
          partition: 0,
          intent: intent(10, 14),
        }),
      );
    }),
  );

  for (const maxPending of [0, 17, 1.5, Number.NaN]) {
    test(`maxPending ${maxPending} is refused at once`, () => {
      const open = () =>
        new Ledger(new FakeStore(new Journal()), new FakeSource(new Journal()), {
          group: 'g',
          owner: 'me',
          maxPending,
        });
      expect(open).toThrow(`Expected \`maxPending\` to be an integer from 1 to 16, got ${maxPending}`);
    });
  }

  test(
    'an option given as undefined means its default, and batches still pass',
    marbles((m) => {
      const options = {
        maxPending: undefined,
        retry: undefined,
        onEvent: undefined,
        scheduler: undefined,
      } as unknown as Partial<LedgerConfig>;
      const { book, store } = claimed(stateOf(-1), { write: ['u', 'k'] }, options);
      book.intend(intent(0, 4)).subscribe();
      m.flush();
      expect(store.stateOf().pending).toHaveLength(1);
    }),
  );
});

describe('J9: a state that was set back', () => {
  const hundred = stateOf(99);
  /** What comes of a claim under an assignment whose committed offset is this. */
  const claimedAt = (committed: number | undefined, initial: PartitionState, config: Partial<LedgerConfig> = {}) => {
    const journal = new Journal();
    const ledger = new Ledger(new FakeStore(journal, initial), new FakeSource(journal), {
      group: 'g1',
      owner: 'me',
      retry,
      ...config,
    });
    let outcome: unknown;
    ledger
      .open({ ...p0, startOffset: committed ?? 500, committed })
      .subscribe({ next: ({ state }) => (outcome = state.settled), error: (error: unknown) => (outcome = error) });
    return { outcome, writes: journal.of('write') };
  };

  test('J9: halts the partition and says what to do, instead of inserting its rows once more', () => {
    for (const onReset of ['halt', 'restart'] as const) {
      const { outcome, writes: written } = claimedAt(500, hundred, { onReset });
      expect(outcome).toMatchObject({
        code: 'KCR_STATE_BEHIND',
        fields: { topic: 'clicks', partition: 0, first: 100, last: 499 },
      });
      expect((outcome as Error).message).toMatch(
        /committed offset 500, but the state goes on at 100.*would ingest 100-499 once more.*state reset --topic clicks --partition 0 --to-committed.*--to-offset 100/,
      );
      expect(written).toEqual([]);
    }
  });

  test('J9: is seen by what is in doubt too, and not by a commit that lags behind', () => {
    expect(claimedAt(110, stateOf(99, [100, 109])).outcome).toMatchObject({
      code: 'KCR_STATE_BEHIND',
      fields: { first: 100, last: 109 },
    });
    for (const committed of [undefined, 0, 57, 100]) {
      expect(claimedAt(committed, hundred).outcome).toBe(99);
      expect(claimedAt(committed, stateOf(99, [100, 109])).outcome).toBe(99);
    }
  });

  test('J9: the same group used at-least-once before there was a state goes on where it stands; used so in between it halts', () => {
    expect(claimedAt(500, stateOf(-1)).outcome).toBeUndefined();
    expect(claimedAt(500, hundred).outcome).toMatchObject({ code: 'KCR_STATE_BEHIND' });
  });

  test('J9: a partition that was started again, or reset by a person, is not halted by what was committed of before', () => {
    expect(claimedAt(500, { ...hundred, isOffsetReused: true }).outcome).toBe(99);
  });

  test('J9: a topic that was recreated restarts, though the group had committed of the old one', () => {
    const journal = new Journal();
    const ledger = new Ledger(new FakeStore(journal, { ...hundred, topicId: 'old' }), new FakeSource(journal), {
      group: 'g1',
      owner: 'me',
      retry,
      onReset: 'restart',
    });
    let settled: unknown;
    ledger.open({ ...p0, topicId: 'new', committed: 500 }).subscribe(({ state }) => (settled = state.settled));
    expect(settled).toBe(-1);
  });
});

describe('a partition that has halted', () => {
  const halt = ({ ledger }: { readonly ledger: Ledger }, heals = false) => ledger.halt(p0, 'KCR_POISON', heals);
  const opened = (initial: PartitionState, scripts: Scripts = {}, config: Partial<LedgerConfig> = {}, source = {}) => {
    const journal = new Journal();
    const store = new FakeStore(journal, initial, scripts);
    const ledger = new Ledger(store, Object.assign(new FakeSource(journal), source), {
      group: 'g1',
      owner: 'me',
      retry,
      ...config,
    });
    let book: PartitionLedger | undefined;
    const failed: unknown[] = [];
    ledger.open(p0).subscribe({ next: (each) => (book = each), error: (error) => failed.push(error) });
    return { journal, store, ledger, failed, book: () => book! };
  };
  const note = { code: 'KCR_POISON', atMs: 7, heals: false };

  test(
    'is seen in its state: which error, since when, and whether it heals by itself',
    marbles((m) => {
      const setup = opened(stateOf(9, [10, 14]));
      at(5, () => halt(setup, true).subscribe());
      m.flush();
      expect(setup.store.stateOf()).toEqual({
        ...stateOf(9, [10, 14]),
        halted: { code: 'KCR_POISON', atMs: 5, heals: true },
      });
    }),
  );

  test(
    'is seen to stand since it stands, however often it was tried again',
    marbles((m) => {
      const setup = opened({ ...stateOf(9, [10, 14]), halted: note });
      at(50, () => halt(setup).subscribe());
      m.flush();
      expect(setup.store.stateOf().halted).toEqual(note);
    }),
  );

  test(
    'by another error is seen to stand since then',
    marbles((m) => {
      const setup = opened({ ...stateOf(9, [10, 14]), halted: { ...note, code: 'KCR_SCHEMA' } });
      at(50, () => halt(setup).subscribe());
      m.flush();
      expect(setup.store.stateOf().halted).toEqual({ ...note, atMs: 50 });
    }),
  );

  test(
    'is not seen any more once it gets on, and until then it is: an operator acts on what stands',
    marbles((m) => {
      const setup = opened({ ...stateOf(9, [10, 14]), halted: note });
      setup.book().note(intent(10, 14), { isFilling: true }).subscribe();
      setup.book().intend(intent(15, 19)).subscribe();
      expect(setup.store.stateOf().halted).toEqual(note);
      setup.book().settle(14).subscribe();
      m.flush();
      expect(setup.store.stateOf()).not.toHaveProperty('halted');
    }),
  );

  test('is not seen any more by who goes on with nothing in doubt, though no record may come for days', () => {
    expect(opened({ ...stateOf(9), halted: note }).store.stateOf()).toEqual(stateOf(9));
    const empty = opened({ ...stateOf(-1), halted: note });
    empty.book().intend(intent(0, 4)).subscribe();
    expect(empty.store.stateOf()).toEqual(stateOf(-1, [0, 4]));
  });

  test('also before it may go on: a topic that was recreated waits for a person', () => {
    const setup = opened(
      { ...stateOf(9), topicId: 'old' },
      {},
      {},
      { log: () => of({ topicId: 'new', start: 0, end: 100 }) },
    );
    expect(setup.failed).toHaveLength(1);
    setup.ledger.halt(p0, 'KCR_TOPIC_RESET', false).subscribe();
    expect(setup.store.stateOf()).toMatchObject({ settled: 9, topicId: 'old', halted: { code: 'KCR_TOPIC_RESET' } });
  });

  test('with nothing ever recorded learns no topic by it: another topic under the name is no reset', () => {
    const setup = opened(stateOf(-1), {}, {}, { log: () => of({ topicId: 'new', start: 0, end: 100 }) });
    expect(setup.book().state.topicId).toBe('new');
    halt(setup).subscribe();
    expect(setup.store.stateOf()).toMatchObject({ topicId: undefined, halted: { code: 'KCR_POISON' } });
  });

  test(
    'has its note follow a write that is under way, and nothing that waits',
    marbles((m) => {
      const setup = opened(stateOf(9, [10, 14]), { write: '---k' });
      const settling = setup.book().settle(14).subscribe();
      at(1, () => setup.book().intend(intent(15, 19)).subscribe());
      at(2, () => (halt(setup).subscribe(), settling.unsubscribe()));
      m.flush();
      expect(setup.store.stateOf()).toEqual({ ...stateOf(14), halted: { ...note, atMs: 2 } });
    }),
  );

  test(
    'does not wait for a store that is away, nor fail by it: what it halted at is told, and a drain goes on',
    marbles((m) => {
      const setup = opened(stateOf(9), { write: '--' });
      m.expect(halt(setup)).toBeObservable('1000ms |');
      m.flush();
      const refused = opened(stateOf(9), { write: 'f' });
      const ends: string[] = [];
      halt(refused).subscribe({ error: () => ends.push('error'), complete: () => ends.push('complete') });
      expect(ends).toEqual(['complete']);
    }),
  );

  test('I4: that was taken over meanwhile leaves the new owner’s state as it is', () => {
    const setup = opened(stateOf(9));
    setup.store.seize();
    halt(setup).subscribe();
    expect(setup.store.stateOf()).toEqual(stateOf(9));
  });

  test('that was never claimed is noted nowhere', () => {
    const setup = opened(stateOf(9));
    setup.ledger.halt(tenure(0, 99), 'KCR_POISON', false).subscribe();
    expect(setup.store.stateOf()).toEqual(stateOf(9));
  });
});
