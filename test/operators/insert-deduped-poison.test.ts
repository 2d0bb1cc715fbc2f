// Records that the table cannot take, under the policy to leave them out.
import { concatMap, take, takeUntil, timer, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { insertDeduped, type InsertConfig } from '../../operators/insert-deduped.js';
import { reconcileWithState } from '../../operators/reconcile-with-state.js';
import { atLeastOnce } from '../../src/pipeline/at-least-once.js';
import { atMostOnce } from '../../src/pipeline/at-most-once.js';
import { exactlyOnce } from '../../src/pipeline/exactly-once.js';
import type { InsertableBatch, Inserted } from '../../src/stages.js';
import { IngestError } from '../../src/errors.js';
import type { IngestEvent } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import { emptyState } from '../../src/model/state.js';
import type { InsertBatch } from '../../src/ports.js';
import {
  FakeSink,
  FakeSource,
  FakeStore,
  Journal,
  assigned,
  briefDelivered,
  chunk,
  fetched,
  insertBatch,
  intent,
  p0,
  type FakeSinkConfig,
  type Scripts,
  recordedBy,
  committed,
  handleOf,
} from '../support/fakes.js';
import { asText, marbles, type Marbles } from '../support/marbles.js';

const recorded = intent(10, 14);
const b = insertBatch(9, 14, { intent: recorded, token: 't:10-14' });
const legend = { B: 'delivered 10-14', R: 'delivered 10-14 again' };
const retry = { minDelayMs: 3, random: () => 0 };
/** Of a range that was recorded without the group: recorded again it keeps that form. */
const token = (without = '') => `kcr1:c1:clicks:0:0:10-14${without === '' ? '' : `:without=${without}`}`;
const offsetsFrom = (first: number, count: number) => Array.from({ length: count }, (_, index) => first + index);

interface Setup {
  readonly journal: Journal;
  readonly store: FakeStore;
  readonly sink: FakeSink;
  readonly events: IngestEvent[];
  readonly delivered: Observable<Inserted<'recorded'>>;
  calls(): string[];
}

function excluding(
  batch: InsertBatch,
  m: Marbles,
  scripts: Scripts,
  sinkConfig: FakeSinkConfig,
  config: InsertConfig = {},
): Setup {
  const journal = new Journal();
  const events: IngestEvent[] = [];
  const store = new FakeStore(
    journal,
    { ...emptyState, settled: batch.afterOffset, pending: [batch.intent ?? recorded] },
    scripts,
  );
  const ledger = new Ledger(store, new FakeSource(journal), { group: 'g1', owner: 'me', retry });
  const sink = new FakeSink(journal, scripts, sinkConfig);
  const onEvent = (event: IngestEvent) => void events.push(event);
  const delivered = ledger
    .open(batch.assignment)
    .pipe(
      concatMap((opened) =>
        m
          .cold('-b', { b: recordedBy(opened, batch) })
          .pipe(insertDeduped(sink, { retry, onPoison: 'exclude', onEvent, ...config })),
      ),
    );
  return {
    journal,
    store,
    sink,
    events,
    delivered,
    calls: () => journal.of('write', 'insert', 'readBack', 'fill', 'release'),
  };
}

const told = ({ events }: Setup) =>
  events.flatMap((event) => (event.kind === 'excluded' ? [event.record?.offset] : []));

describe('a record that the table cannot take', () => {
  test(
    'I12: is left out of the recorded range first, then the rest is inserted as another batch',
    marbles((m) => {
      const setup = excluding(b, m, { 'insert 10-14': '--k', write: '---k' }, { refuses: [12] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('--------B', legend);
      m.flush();
      expect(setup.calls()).toEqual([
        '1 insert 10-14',
        '3 release 10-14',
        '3 write 0: settled 9, in doubt 10-14',
        '6 insert 10-14 without 12',
        '8 release 10-14 without 12',
      ]);
      expect(setup.store.stateOf().pending).toMatchObject([{ first: 10, last: 14, excluded: [12] }]);
      expect(setup.sink.tokens).toEqual([token('12')]);
      expect(told(setup)).toEqual([12]);
    }),
  );

  test(
    'is told with its record and the reason, and not counted as a row',
    marbles((m) => {
      const setup = excluding(b, m, {}, { refuses: [12] });
      m.expect(setup.delivered.pipe(asText(({ rows }) => `${rows} rows`))).toBeObservable('-B', { B: '4 rows' });
      m.flush();
      expect(setup.events.filter(({ kind }) => kind === 'excluded')).toMatchObject([
        {
          kind: 'excluded',
          assignment: p0,
          record: { offset: 12, value: Buffer.from('{"n":12}') },
          error: { code: 'KCR_POISON' },
        },
      ]);
    }),
  );

  test(
    'that cannot even be frozen is left out in the same way',
    marbles((m) => {
      const setup = excluding(b, m, {}, { poison: [11, 13] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-B', legend);
      m.flush();
      expect(setup.calls()).toEqual([
        '1 write 0: settled 9, in doubt 10-14',
        '1 write 0: settled 9, in doubt 10-14',
        '1 insert 10-14 without 11,13',
        '1 release 10-14 without 11,13',
      ]);
      expect(told(setup)).toEqual([11, 13]);
    }),
  );

  test(
    'of several each is found by an attempt of its own',
    marbles((m) => {
      const setup = excluding(b, m, {}, { refuses: [11, 14], poison: 12 });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-B', legend);
      m.flush();
      expect(setup.journal.of('insert')).toEqual([
        '1 insert 10-14 without 12',
        '1 insert 10-14 without 11,12',
        '1 insert 10-14 without 11,12,14',
      ]);
      expect(setup.sink.tokens).toEqual([token('11,12,14')]);
      expect(told(setup)).toEqual([12, 11, 14]);
    }),
  );

  test(
    'all of a small batch: the range is delivered with no rows',
    marbles((m) => {
      const setup = excluding(b, m, {}, { refuses: offsetsFrom(10, 5) });
      m.expect(setup.delivered.pipe(asText(({ rows }) => `${rows} rows`))).toBeObservable('-B', { B: '0 rows' });
      m.flush();
      expect(setup.store.stateOf().pending).toMatchObject([{ excluded: [10, 11, 12, 13, 14] }]);
      expect(setup.sink.tokens).toEqual([]);
    }),
  );

  test(
    'halts the partition by default',
    marbles((m) => {
      const setup = excluding(b, m, {}, { refuses: [12] }, { onPoison: 'halt' });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-#', {}, 'KCR_POISON');
      m.flush();
      expect(setup.calls()).toEqual(['1 insert 10-14', '1 release 10-14']);
      expect(told(setup)).toEqual([]);
    }),
  );

  test(
    'halts when the exclusion cannot be recorded',
    marbles((m) => {
      const setup = excluding(b, m, { write: '-x' }, { refuses: [12] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('--#', {}, 'KCR_FENCED');
      m.flush();
      expect(setup.journal.of('insert')).toEqual(['1 insert 10-14']);
      expect(told(setup)).toEqual([]);
    }),
  );

  test(
    'halts without the ledger that recorded the range, and when the error names no record',
    marbles((m) => {
      const sink = new FakeSink(new Journal(), {}, { refuses: [12] });
      m.expect(
        m.cold('b', { b }).pipe(insertDeduped(sink, { onPoison: 'exclude' }), asText(briefDelivered)),
      ).toBeObservable('#', {}, 'KCR_POISON');
      const nameless = excluding(b, m, { 'insert 10-14': '-p' }, {});
      m.expect(nameless.delivered.pipe(asText(briefDelivered))).toBeObservable('--#', {}, 'KCR_POISON');
    }),
  );

  test(
    'an unsubscription while the exclusion is stored: nothing is inserted any more',
    marbles((m) => {
      const setup = excluding(b, m, { write: '-----k' }, { refuses: [12] });
      m.expect(setup.delivered.pipe(asText(briefDelivered)), '^--!').toBeObservable('-');
      m.flush();
      expect(setup.journal.of('insert')).toEqual(['1 insert 10-14']);
    }),
  );
});

describe('where most is poison the table or the topic is wrong', () => {
  function errorOf(setup: Setup, m: Marbles): IngestError {
    let error: unknown;
    setup.delivered.subscribe({ error: (thrown: unknown) => (error = thrown) });
    m.flush();
    if (!(error instanceof IngestError)) throw new Error(`expected a halt, got ${String(error)}`);
    return error;
  }
  const batchOf = (count: number) => insertBatch(9, 9 + count, { intent: intent(10, 9 + count) });

  test.each([
    [11, 11, 10],
    [30, 30, 15],
    [1000, 101, 100],
  ])('of %i records %i: the partition halts after %i were left out', (count, poisoned, excluded) => {
    marbles((m) => {
      const setup = excluding(batchOf(count), m, { write: '-k' }, { refuses: offsetsFrom(10, poisoned) });
      const error = errorOf(setup, m);
      expect(error).toMatchObject({ code: 'KCR_POISON', fields: { offset: 10 + excluded } });
      expect(error.message).toContain('at most 100, and half of a batch of more than 20');
      expect(error.fields.hint).toContain('mend the table, or drop such records with a transform');
      expect(told(setup)).toHaveLength(excluded);
      expect(setup.sink.tokens).toEqual([]);
    })();
  });

  test.each([
    [10, 10],
    [30, 15],
    [1000, 100],
  ])('of %i records %i: they are left out', (count, poisoned) => {
    marbles((m) => {
      const setup = excluding(batchOf(count), m, { write: '-k' }, { refuses: offsetsFrom(10, poisoned) });
      setup.delivered.subscribe();
      m.flush();
      expect(told(setup)).toHaveLength(poisoned);
      expect(setup.sink.tokens).toHaveLength(count === poisoned ? 0 : 1);
    })();
  });

  test(
    'what an earlier life has left out of the range counts',
    marbles((m) => {
      const replay = { ...batchOf(40), intent: intent(10, 49, { excluded: offsetsFrom(10, 20) }), replay: true };
      const left = { ...replay, records: replay.records.slice(20) };
      expect(errorOf(excluding(left, m, {}, { refuses: [40] }), m).message).toContain('too many others');
    }),
  );
});

describe('after an attempt that may have landed', () => {
  const absent = { missing: [10, 11, 13, 14] };
  const replay = { ...b, replay: true };

  test(
    'it is left out only when no row of the range is in the table',
    marbles((m) => {
      const setup = excluding(replay, m, {}, { refuses: [12], readBacks: [absent] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-R', legend);
      m.flush();
      // Looked at under the old token, whose attempt might still be running.
      expect(setup.calls()).toEqual([
        '1 insert 10-14',
        '1 release 10-14',
        '1 readBack 10-14 since a record of it is refused now',
        '1 release 10-14',
        '1 write 0: settled 9, in doubt 10-14',
        '1 insert 10-14 without 12',
        '1 release 10-14 without 12',
      ]);
    }),
  );

  for (const [name, found] of [
    ['all', { missing: [] }],
    ['some', { missing: [10, 11] }],
  ] as const) {
    test(
      `it halts when ${name} of the range is there: inserted under another token it would double`,
      marbles((m) => {
        const setup = excluding(replay, m, {}, { refuses: [12], readBacks: [found] });
        m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-#', {}, 'KCR_POISON');
        m.flush();
        expect(setup.journal.of('write')).toEqual([]);
        expect(setup.journal.of('insert')).toHaveLength(1);
      }),
    );
  }

  test(
    'it halts when that cannot be verified',
    marbles((m) => {
      const setup = excluding(replay, m, { 'readBack 10-14': 'v' }, { refuses: [12] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-#', {}, 'KCR_POISON');
      m.flush();
      expect(setup.journal.of('write')).toEqual([]);
    }),
  );

  test(
    'so too in this very life',
    marbles((m) => {
      const setup = excluding(b, m, { 'insert 10-14': ['-d', '-k'] }, { refuses: [12], readBacks: [{ missing: [] }] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('------#', {}, 'KCR_POISON');
      m.flush();
      expect(setup.journal.of('readBack')).toEqual(['6 readBack 10-14 since a record of it is refused now']);
      expect(setup.journal.of('write')).toEqual([]);
    }),
  );

  test(
    'an attempt of which nothing landed is no doubt',
    marbles((m) => {
      const setup = excluding(b, m, { 'insert 10-14': ['-t', '-k'] }, { refuses: [12] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-------B', legend);
      m.flush();
      expect(setup.journal.of('readBack')).toEqual([]);
    }),
  );

  test(
    'records that cannot be frozen are not looked for: they cannot have been sent',
    marbles((m) => {
      const setup = excluding(replay, m, {}, { poison: [11, 12], readBacks: [{ missing: [10, 13, 14] }] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-R', legend);
      m.flush();
      // After the first exclusion nothing can have been sent under the new token.
      expect(setup.journal.of('readBack')).toEqual(['1 readBack 10-14 since a record of it is refused now']);
      expect(told(setup)).toEqual([11, 12]);
    }),
  );

  test(
    'a recorded age is not the new token’s: it begins with the exclusion',
    marbles((m) => {
      const tokenDoubt = ({ intent: of }: InsertBatch, nowMs: number) =>
        nowMs - (of?.atMs ?? 0) > 8 ? 'it is old' : undefined;
      const setup = excluding(
        { ...replay },
        m,
        { 'insert 10-14': '---------k' },
        { refuses: [12], readBacks: [absent], tokenDoubt },
      );
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-------------------R', legend);
      m.flush();
      expect(setup.journal.of('readBack')).toEqual(['10 readBack 10-14 since a record of it is refused now']);
    }),
  );
});

describe('tombstones, which no table takes', () => {
  /** 11 is one, 13 has an empty value. */
  const records = [...b.records].map((one) =>
    one.offset === 11 ? { ...one, value: null } : one.offset === 13 ? { ...one, value: Buffer.alloc(0) } : one,
  );
  const mixed = { ...b, records };

  test(
    'are skipped where poison is left out, counted and told; an empty value is none',
    marbles((m) => {
      const setup = excluding(mixed, m, {}, {});
      m.expect(setup.delivered.pipe(asText(({ rows }) => `${rows} rows`))).toBeObservable('-B', { B: '4 rows' });
      m.flush();
      expect(setup.events.filter(({ kind }) => kind === 'tombstones')).toEqual([
        { kind: 'tombstones', assignment: p0, first: 10, last: 14, records: 1, replay: false },
      ]);
    }),
  );

  for (const config of [{ onTombstone: 'halt' }, { onPoison: 'halt' }] as const)
    test(
      `go to the sink with ${JSON.stringify(config)}, which knows what to say of them`,
      marbles((m) => {
        const setup = excluding(mixed, m, {}, {}, config);
        m.expect(setup.delivered.pipe(asText(({ rows }) => `${rows} rows`))).toBeObservable('-B', { B: '5 rows' });
        m.flush();
        expect(setup.events.filter(({ kind }) => kind === 'tombstones')).toEqual([]);
      }),
    );
});

describe('without a recorded range', () => {
  for (const [delivery, given] of [
    ['at-least-once', chunk(9, 14)],
    ['at-most-once', committed(chunk(9, 14))],
  ] as const) {
    test(
      `(${delivery}) the record is left out, told and counted; no ledger is needed`,
      marbles((m) => {
        const events: IngestEvent[] = [];
        const sink = new FakeSink(new Journal(), {}, { refuses: [12], poison: 14 });
        const delivered = m.cold<InsertableBatch>('-b', { b: given }).pipe(
          insertDeduped(sink, { onPoison: 'exclude', onEvent: (event) => void events.push(event) }),
          asText(({ rows }) => `${rows} rows`),
        );
        m.expect(delivered).toBeObservable('-B', { B: '3 rows' });
        m.flush();
        expect(events).toMatchObject([
          { kind: 'excluded', record: { offset: 14 } },
          { kind: 'excluded', record: { offset: 12 } },
        ]);
        expect(sink.tokens).toEqual([undefined]);
      }),
    );
  }
});

describe('I12: whenever the process dies, the next one inserts the range either as it was or as it was recorded', () => {
  /** A life over the same store; it reads 10-14, and dies at a frame. */
  function live(m: Marbles, store: FakeStore, sink: FakeSink, diesAtMs?: number): IngestEvent[] {
    const events: IngestEvent[] = [];
    const onEvent = (event: IngestEvent) => void events.push(event);
    const source = new FakeSource(store.journal);
    const ledger = new Ledger(store, source, { group: 'g1', owner: 'me', retry });
    const assignment = { ...p0, startOffset: 10 };
    m.cold('-b', { b: { ...chunk(9, 14), assignment } })
      .pipe(
        reconcileWithState(handleOf(source, assignment), ledger, sink, { onEvent }),
        insertDeduped(sink, { retry, onPoison: 'exclude', onEvent }),
        diesAtMs === undefined ? take(1) : takeUntil(timer(diesAtMs)),
      )
      .subscribe();
    return events;
  }

  const scripts: Scripts = { claim: '-k', write: '--k', 'insert 10-14': '--k' };

  // Frames: 1 claim, 2 intent, 4 insert, 6 exclusion, 8 insert of the rest, 10 done.
  for (let diesAtMs = 3; diesAtMs <= 9; diesAtMs++) {
    test(
      `at ${diesAtMs}`,
      marbles((m) => {
        const store = new FakeStore(new Journal(), { ...emptyState, settled: 9 }, scripts);
        const one = new FakeSink(store.journal, scripts, { refuses: [12] });
        const before = live(m, store, one, diesAtMs);
        const two = new FakeSink(store.journal, scripts, { refuses: [12], readBacks: [{ missing: [10, 11, 13, 14] }] });
        let after: IngestEvent[] = [];
        m.cold(`${'-'.repeat(30)}x`).subscribe(() => (after = live(m, store, two)));
        m.flush();
        // The rows went under one token in all lives, and the record was told in each that left it out.
        expect(new Set([...one.tokens, ...two.tokens])).toEqual(new Set(['kcr2:c1:g1:clicks:0:0:10-14:without=12']));
        expect(store.stateOf().pending).toMatchObject([{ excluded: [12] }]);
        const told = [...before, ...after].flatMap((event) =>
          event.kind === 'excluded' ? [[event.record?.offset, event.replay]] : [],
        );
        expect(told).toEqual(
          diesAtMs < 8
            ? [[12, false]]
            : [
                [12, false],
                [12, true],
              ],
        );
      }),
    );
  }
});

for (const delivery of ['at-most-once', 'at-least-once', 'exactly-once'] as const) {
  test(
    `the pipeline of ${delivery} passes the policy on, and the ledger where there is one`,
    marbles((m) => {
      const journal = new Journal();
      const assignment = { ...p0, startOffset: 10 };
      const events = m.cold('(af)', { a: assigned(assignment), f: fetched({ ...chunk(9, 14), assignment }) });
      const sink = new FakeSink(journal, {}, { refuses: [12] });
      const source = new FakeSource(journal, events);
      const told: string[] = [];
      const config = {
        onPoison: 'exclude',
        batch: { maxWaitMs: 5 },
        onEvent: ({ kind }: IngestEvent) => void told.push(kind),
      } as const;
      const outcomes = {
        'at-most-once': () => atMostOnce(source, sink, config),
        'at-least-once': () => atLeastOnce(source, sink, config),
        'exactly-once': () =>
          exactlyOnce(source, sink, new FakeStore(journal, { ...emptyState, settled: 9 }), {
            ...config,
            group: 'g1',
            owner: 'me',
          }),
      }[delivery]();
      m.expect(
        outcomes.pipe(asText((one) => (one.kind === 'delivered' ? `${one.rows} rows` : one.kind))),
      ).toBeObservable('-----r', { r: '4 rows' });
      m.flush();
      expect(told.filter((kind) => kind === 'excluded')).toHaveLength(1);
    }),
  );
}
