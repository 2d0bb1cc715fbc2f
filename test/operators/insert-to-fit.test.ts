// Batches of which a transform made more rows than one insert may have.
import { concatMap, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { insertDeduped, type InsertConfig } from '../../operators/insert-deduped.js';
import { transformRows } from '../../operators/between/transform-rows.js';
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
  briefDelivered,
  insertBatch,
  intent,
  type FakeSinkConfig,
  type Scripts,
  recordedBy,
} from '../support/fakes.js';
import type { Inserted, RecordedBatch } from '../../src/stages.js';
import { asText, marbles, type Marbles } from '../support/marbles.js';

const recorded = intent(10, 14, { tokenForm: 2 });
/** Each of its five records becomes three rows; a block of the tests has seven. */
const tripled = transformRows<RecordedBatch>(({ offset }) => [{ offset }, { offset }, { offset }]);
const legend = {
  A: 'delivered 10-11',
  B: 'delivered 12-13',
  C: 'delivered 14',
  a: 'delivered 10-11 again',
  b: 'delivered 12-13 again',
  c: 'delivered 14 again',
};

interface Setup {
  readonly journal: Journal;
  readonly store: FakeStore;
  readonly sink: FakeSink;
  readonly events: IngestEvent[];
  readonly delivered: Observable<Inserted<'recorded'>>;
}

function setUp(
  m: Marbles,
  batch: Partial<InsertBatch> = {},
  sinkConfig: FakeSinkConfig = {},
  scripts: Scripts = {},
  config: InsertConfig = {},
  transform = tripled,
): Setup {
  const journal = new Journal();
  const events: IngestEvent[] = [];
  const store = new FakeStore(journal, { ...emptyState, settled: 9, pending: [recorded] }, scripts);
  const ledger = new Ledger(store, new FakeSource(journal), { group: 'g1', owner: 'me' });
  const sink = new FakeSink(journal, scripts, { blockRows: 7, ...sinkConfig });
  const given = insertBatch(9, 14, { intent: recorded, token: 't:10-14', ...batch });
  const onEvent = (event: IngestEvent) => void events.push(event);
  const delivered = ledger
    .open(given.assignment)
    .pipe(
      concatMap((opened) =>
        m.cold('-b', { b: recordedBy(opened, given) }).pipe(transform, insertDeduped(sink, { onEvent, ...config })),
      ),
    );
  return { journal, store, sink, events, delivered };
}

const calls = ({ journal }: Setup) => journal.of('write', 'insert', 'readBack', 'fill');

function errorOf({ delivered }: Setup, m: Marbles): IngestError {
  let error: unknown;
  delivered.subscribe({ error: (thrown: unknown) => (error = thrown) });
  m.flush();
  if (!(error instanceof IngestError)) throw new Error(`expected a halt, got ${String(error)}`);
  return error;
}

describe('a recorded range of more rows than one insert may have', () => {
  test(
    'I8: goes on in parts that fit, which are recorded first',
    marbles((m) => {
      const setup = setUp(m, {}, {}, { write: '--k', 'insert 10-11': '-k', 'insert 12-13': '-k', 'insert 14': '-k' });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('----ABC', legend);
      m.flush();
      expect(calls(setup)).toEqual([
        '1 write 0: settled 9, in doubt 10-11 12-13 14-14',
        '3 insert 10-11',
        '4 insert 12-13',
        '5 insert 14',
      ]);
      expect(setup.sink.tokens).toEqual(
        ['10-11', '12-13', '14-14'].map((range) => expect.stringMatching(new RegExp(`:${range}$`)) as string),
      );
      expect(setup.events.filter(({ kind }) => kind === 'divided')).toMatchObject([{ first: 10, last: 14 }]);
    }),
  );

  test(
    'I8: keeps the version of the transform in its parts, so that a replay of one is known to be the same',
    marbles((m) => {
      const setup = setUp(m, { intent: { ...recorded, transformVersion: 'v1' } });
      setup.delivered.subscribe();
      m.flush();
      expect(setup.store.stateOf().pending).toMatchObject([
        { last: 11, transformVersion: 'v1' },
        { last: 13, transformVersion: 'v1' },
        { last: 14, transformVersion: 'v1' },
      ]);
    }),
  );

  test(
    'I8: sends nothing when the parts cannot be recorded',
    marbles((m) => {
      const setup = setUp(m, {}, {}, { write: '-x' });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('--#', {}, 'KCR_FENCED');
      m.flush();
      expect(setup.sink.tokens).toEqual([]);
    }),
  );

  test(
    'I8: halts without the ledger that recorded it, since its parts would go out under one token',
    marbles((m) => {
      const sink = new FakeSink(new Journal(), {}, { blockRows: 7 });
      const batch = insertBatch(9, 14, { intent: recorded, token: 't:10-14' });
      m.expect(m.cold('b', { b: batch }).pipe(tripled, insertDeduped(sink), asText(briefDelivered))).toBeObservable(
        '#',
        {},
        'KCR_CONFIG',
      );
      m.flush();
      expect(sink.tokens).toEqual([]);
    }),
  );

  test(
    'I8: one that was never recorded is cut, too',
    marbles((m) => {
      const sink = new FakeSink(new Journal(), {}, { blockRows: 7 });
      m.expect(
        m.cold('b', { b: insertBatch(9, 14) }).pipe(tripled, insertDeduped(sink), asText(briefDelivered)),
      ).toBeObservable('(ABC)', legend);
    }),
  );
});

describe('a replay of more rows than one insert may have', () => {
  const replay = { replay: true };
  const all = { missing: [10, 11] };
  const absent = [all, { missing: [12, 13] }, { missing: [14] }];

  test(
    'I8: that was surely never sent is cut at once',
    marbles((m) => {
      const setup = setUp(m, replay);
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('-(abc)', legend);
      m.flush();
      expect(setup.journal.of('readBack')).toEqual([]);
    }),
  );

  test(
    'I8: that may have been sent is cut when none of it is there, also after the time in which it could land',
    marbles((m) => {
      const setup = setUp(m, replay, { mayLandForMs: 20, readBacks: [...absent, ...absent] });
      m.expect(setup.delivered.pipe(asText(briefDelivered))).toBeObservable('- 20ms (abc)', legend);
      m.flush();
      const why = ' since a record of it is refused now';
      const look = (at: number) => ['10-11', '12-13', '14'].map((range) => `${at} readBack ${range}${why}`);
      expect(calls(setup)).toEqual([
        ...look(1),
        ...look(21),
        '21 write 0: settled 9, in doubt 10-11 12-13 14-14',
        '21 insert 10-11',
        '21 insert 12-13',
        '21 insert 14',
      ]);
    }),
  );

  test.each([
    ['at first', [all, { missing: [] }]],
    ['since an attempt has landed meanwhile', [...absent, all, { missing: [12] }]],
  ])('I8: of which rows are there %s halts and says what to do', (_, readBacks) =>
    marbles((m) => {
      const setup = setUp(m, replay, { mayLandForMs: 20, readBacks });
      const error = errorOf(setup, m);
      expect(error).toMatchObject({
        code: 'KCR_READ_BACK',
        fields: { hint: expect.stringContaining('go back to the transform') as string },
      });
      expect(setup.journal.of('write', 'insert')).toEqual([]);
    })(),
  );

  test(
    'I15: of which a fill was not seen is not sent in parts either, though a look finds none of it',
    marbles((m) => {
      const unseen = { replay: true, intent: { ...recorded, isFilling: true as const, isUnseen: true as const } };
      const setup = setUp(m, unseen, { mayLandForMs: 20, readBacks: [...absent, ...absent, all] });
      expect(errorOf(setup, m)).toMatchObject({ code: 'KCR_READ_BACK', fields: { first: 10, last: 11 } });
      expect(setup.journal.of('insert', 'fill')).toEqual([]);
    }),
  );

  test(
    'I9: keeps in its parts until when the server does not know of it',
    marbles((m) => {
      const setup = setUp(m, { replay: true, intent: { ...recorded, unknownUntilMs: 330_000 } });
      setup.delivered.subscribe();
      m.flush();
      expect(setup.store.stateOf().pending).toMatchObject(
        [11, 13, 14].map((last) => ({ last, unknownUntilMs: 330_000 })),
      );
    }),
  );

  test(
    'I8: halts where a look proves nothing',
    marbles((m) => {
      const setup = setUp(m, replay, { mayLandForMs: 20 }, { 'readBack 10-11': '-v' });
      expect(errorOf(setup, m).code).toBe('KCR_READ_BACK');
      expect(setup.journal.of('write', 'insert')).toEqual([]);
    }),
  );
});

describe('one record of more rows than one insert may have', () => {
  const twelve = transformRows<RecordedBatch>(({ offset }) =>
    Array.from({ length: offset === 12 ? 8 : 2 }, () => ({ offset })),
  );

  test(
    'I8: halts by its offset',
    marbles((m) => {
      expect(errorOf(setUp(m, {}, {}, {}, {}, twelve), m)).toMatchObject({
        code: 'KCR_POISON',
        fields: { offset: 12 },
      });
    }),
  );

  test(
    'I8: is left out where the policy says so, and the rest is cut',
    marbles((m) => {
      const setup = setUp(m, {}, {}, {}, { onPoison: 'exclude' }, twelve);
      setup.delivered.subscribe();
      m.flush();
      expect(setup.journal.of('insert')).toEqual(['1 insert 10-13 without 12', '1 insert 14']);
      expect(setup.events.flatMap((event) => (event.kind === 'excluded' ? [event.record?.offset] : []))).toEqual([12]);
    }),
  );
});

test(
  'I8: a transform that makes two hundred thousand rows of one record is no error',
  marbles((m) => {
    const many = transformRows<RecordedBatch>(() => Array.from({ length: 200_000 }, () => Buffer.from('{}')));
    const rows: number[] = [];
    m.cold('b', { b: insertBatch(9, 10) })
      .pipe(many)
      .subscribe(({ records }) => rows.push(records.length));
    m.flush();
    expect(rows).toEqual([200_000]);
  }),
);
