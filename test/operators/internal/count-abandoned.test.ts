import type { OperatorFunction } from 'rxjs';
import { concatMap, throwError } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { countAbandoned } from '../../../operators/internal/count-abandoned.js';
import { insertDeduped } from '../../../operators/insert-deduped.js';
import type { ErrorCode } from '../../../src/errors.js';
import type { Delivered, IngestEvent, OnEvent } from '../../../src/events.js';
import { atMostOnce } from '../../../src/pipeline/at-most-once.js';
import type { SourceEvent } from '../../../src/ports.js';
import type { BufferedBatch, CommittedBatch } from '../../../src/stages.js';
import {
  FakeSink,
  FakeSource,
  Journal,
  assigned,
  briefDelivered,
  chunk,
  committed,
  failure,
  fetched,
  lost,
  p0,
  type Scripts,
} from '../../support/fakes.js';
import { asText, marbles, type Marbles } from '../../support/marbles.js';

/** b: 10-14, c: 15-19 with a hole at 17, d: 20-24; all of them were committed. */
const batches: Record<string, CommittedBatch> = {
  b: committed(chunk(9, 14)),
  c: committed(chunk(14, 19, { holes: [17] })),
  d: committed(chunk(19, 24)),
};
const legend = { B: 'delivered 10-14', C: 'delivered 15-19', D: 'delivered 20-24' };

type Counted = readonly [first: number, last: number, rows: number, code: string];

function counting(
  m: Marbles,
  marbleSource: string,
  scripts: Scripts,
  deliver?: (onEvent: OnEvent) => OperatorFunction<CommittedBatch, Delivered>,
  code: ErrorCode = 'KCR_KAFKA',
) {
  const abandoned: Counted[] = [];
  const onEvent = (event: IngestEvent): void => {
    if (event.kind === 'abandoned') abandoned.push([event.first, event.last, event.rows, event.error.code]);
  };
  const inserting = (told: OnEvent): OperatorFunction<CommittedBatch, Delivered> =>
    insertDeduped(new FakeSink(new Journal(), scripts), { onEvent: told });
  const delivered = m
    .hot(marbleSource, batches, failure(code))
    .pipe(countAbandoned(deliver ?? inserting, onEvent), asText(briefDelivered));
  return { delivered, abandoned };
}

describe('at-most-once: what was committed and comes to no table is counted', () => {
  test(
    'nothing of what is delivered',
    marbles((m) => {
      const { delivered, abandoned } = counting(m, '-b-c----d-|', { 'insert 10-14': '--k' });
      m.expect(delivered).toBeObservable('---(BC)-D-|', { ...legend });
      m.flush();
      expect(abandoned).toEqual([]);
    }),
  );

  test(
    'behind a batch that is refused: those under way and those that wait, once',
    marbles((m) => {
      const { delivered, abandoned } = counting(m, '-(bcd)-', { 'insert 10-14': '---p', 'insert 15-19': '-----k' });
      m.expect(delivered).toBeObservable('----#', {}, 'KCR_POISON');
      m.flush();
      expect(abandoned).toEqual([
        [10, 14, 5, 'KCR_POISON'],
        [15, 24, 9, 'KCR_POISON'],
      ]);
    }),
  );

  test(
    'one record that was refused while the one before it is under way is counted once',
    marbles((m) => {
      const abandoned: Counted[] = [];
      const onEvent = (event: IngestEvent): void => {
        if (event.kind === 'abandoned') abandoned.push([event.first, event.last, event.rows, event.error.code]);
      };
      const ones = { b: committed(chunk(9, 10)), c: committed(chunk(10, 11)) };
      const sink = new FakeSink(new Journal(), { 'insert 10': '---------k', 'insert 11': '--p' });
      const delivered = m
        .hot('-(bc)--', ones)
        .pipe(countAbandoned((told) => insertDeduped(sink, { onEvent: told }), onEvent));
      m.expect(delivered, '^----!').toBeObservable('-');
      m.flush();
      expect(abandoned).toEqual([
        [11, 11, 1, 'KCR_POISON'],
        [10, 10, 1, 'KCR_INSERT_IN_DOUBT'],
      ]);
    }),
  );

  test(
    'before a batch that is refused while the one before it is under way: the partition may be lost then',
    marbles((m) => {
      const { delivered, abandoned } = counting(m, '-(bcd)-', { 'insert 10-14': '---------k', 'insert 15-19': '--p' });
      m.expect(delivered, '^----!').toBeObservable('-');
      m.flush();
      expect(abandoned).toEqual([
        [15, 19, 4, 'KCR_POISON'],
        [10, 14, 5, 'KCR_INSERT_IN_DOUBT'],
        [20, 24, 5, 'KCR_INSERT_IN_DOUBT'],
      ]);
    }),
  );

  test(
    'when the partition is lost: what is under way may have landed',
    marbles((m) => {
      const { delivered, abandoned } = counting(m, '-b--c-d---', { 'insert 15-19': '------k' });
      m.expect(delivered, '^-------!').toBeObservable('-B', { ...legend });
      m.flush();
      expect(abandoned).toEqual([[15, 24, 9, 'KCR_INSERT_IN_DOUBT']]);
    }),
  );

  test(
    'when the stage before the insert throws, also what it threw for',
    marbles((m) => {
      const { delivered, abandoned } = counting(
        m,
        '-b',
        {},
        () => (committed) => committed.pipe(concatMap(() => throwError(() => failure('KCR_TRANSFORM')))),
      );
      m.expect(delivered).toBeObservable('-#', {}, 'KCR_TRANSFORM');
      m.flush();
      expect(abandoned).toEqual([[10, 14, 5, 'KCR_TRANSFORM']]);
    }),
  );

  test(
    'of an unknown outcome only by the insert that goes on after it',
    marbles((m) => {
      const { delivered, abandoned } = counting(m, '-b-c-|', { 'insert 10-14': '-d' });
      m.expect(delivered).toBeObservable('--BC-|', { ...legend });
      m.flush();
      expect(abandoned).toEqual([[10, 14, 5, 'KCR_INSERT_IN_DOUBT']]);
    }),
  );

  test(
    'of a batch of which a part is delivered only the rest',
    marbles((m) => {
      const part = {
        kind: 'delivered',
        assignment: batches['b']!.assignment,
        afterOffset: 9,
        lastOffset: 11,
        rows: 2,
        bytes: 2,
        replay: false,
      } as const;
      const { delivered, abandoned } = counting(
        m,
        '-b',
        {},
        () => (committed) => committed.pipe(concatMap(() => m.cold('a#', { a: part }, failure('KCR_POISON')))),
      );
      m.expect(delivered).toBeObservable('-A#', { A: 'delivered 10-11' }, 'KCR_POISON');
      m.flush();
      expect(abandoned).toEqual([[12, 14, 3, 'KCR_POISON']]);
    }),
  );

  test.each([
    ['KCR_KAFKA', '----(B#)', []],
    // Somebody else has the partition: nothing is waited for.
    ['KCR_FENCED', '--#', [[10, 14, 5, 'KCR_FENCED']]],
  ] as const)('behind an error of the commit before it: %s', (code, diagram, expected) =>
    marbles((m) => {
      const { delivered, abandoned } = counting(m, '-b#', { 'insert 10-14': '---k' }, undefined, code);
      m.expect(delivered).toBeObservable(diagram, { ...legend }, code);
      m.flush();
      expect(abandoned).toEqual(expected);
    })(),
  );
});

test(
  'at-most-once, as it is arranged, counts what a lost partition had committed',
  marbles((m) => {
    const events = m.hot<SourceEvent>('-A-b-c-L-', {
      A: assigned(p0),
      b: fetched(chunk(-1, 4)),
      c: fetched(chunk(4, 9)),
      L: lost(p0),
    });
    const journal = new Journal();
    const told: IngestEvent[] = [];
    const sink = new FakeSink(journal, { 'insert 5-9': '-------k' });
    atMostOnce(new FakeSource(journal, events), sink, {
      batch: { count: 5, maxWaitMs: 1 },
      onEvent: (event) => told.push(event),
      scheduler: m.scheduler,
    }).subscribe();
    m.flush();
    expect(told.filter(({ kind }) => kind === 'abandoned')).toMatchObject([
      { first: 5, last: 9, rows: 5, error: { code: 'KCR_INSERT_IN_DOUBT' } },
    ]);
  }),
);

test(
  'by hand, too: insertDeduped counts what came to it committed, once, however often it is counted',
  marbles((m) => {
    const told: Counted[] = [];
    const onEvent: OnEvent = (event) => {
      if (event.kind === 'abandoned') told.push([event.first, event.last, event.rows, event.error.code]);
    };
    const sink = (): FakeSink => new FakeSink(new Journal(), { 'insert 10-14': '---p', 'insert 15-19': '-----k' });
    m.cold('(bcd)', batches)
      .pipe(insertDeduped(sink(), { onEvent }))
      .subscribe({ error: () => undefined });
    m.flush();
    const byHand = told.splice(0);
    m.cold('(bcd)', batches)
      .pipe(countAbandoned((telling) => insertDeduped(sink(), { onEvent: telling }), onEvent))
      .subscribe({ error: () => undefined });
    m.flush();
    expect(byHand).toEqual([
      [10, 14, 5, 'KCR_POISON'],
      [15, 24, 9, 'KCR_POISON'],
    ]);
    expect(told).toEqual(byHand);
  }),
);

test(
  'what was not committed is not lost, and not counted',
  marbles((m) => {
    const told: IngestEvent[] = [];
    m.cold<BufferedBatch>('b', { b: chunk(9, 14) })
      .pipe(
        insertDeduped(new FakeSink(new Journal(), { 'insert 10-14': '-p' }), { onEvent: (event) => told.push(event) }),
      )
      .subscribe({ error: () => undefined });
    m.flush();
    expect(told.filter(({ kind }) => kind === 'abandoned')).toEqual([]);
  }),
);
