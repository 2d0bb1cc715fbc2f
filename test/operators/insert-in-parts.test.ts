// Batches that the server refuses without naming a record: in parts, until the record stands alone.
import { concatMap, takeUntil, tap, timer } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { insertDeduped, type InsertConfig } from '../../operators/insert-deduped.js';
import type { IngestError } from '../../src/errors.js';
import type { Delivered, IngestEvent } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import { emptyState } from '../../src/model/state.js';
import type { InsertBatch } from '../../src/ports.js';
import {
  FakeSink,
  FakeSource,
  FakeStore,
  Journal,
  chunk,
  failure,
  insertBatch,
  intent,
  range,
  type FakeSinkConfig,
  type Scripts,
  recordedBy,
  committed,
} from '../support/fakes.js';
import type { InsertableBatch } from '../../src/stages.js';
import { marbles, type Marbles } from '../support/marbles.js';

const batch = insertBatch(9, 17, { intent: intent(10, 17), token: 't:10-17' });
const retry = { minDelayMs: 1, maxDelayMs: 2, random: () => 0 };
const surely = (fields = {}) => failure('KCR_POISON', { serverCode: 395, divisible: 'surely', ...fields });
const perhaps = (serverCode = 9999) => failure('KCR_INSERT_IN_DOUBT', { serverCode, divisible: 'perhaps' });
const tooLarge = () => failure('KCR_INSERT_FATAL', { serverCode: 252, divisible: 'surely' });
const lostReply = () => failure('KCR_INSERT_IN_DOUBT');

type Refusal = NonNullable<FakeSinkConfig['refusal']>;
const refusing =
  (error: () => IngestError, ...poison: readonly number[]): Refusal =>
  (offsets) =>
    offsets.some((offset) => poison.includes(offset)) ? error() : undefined;

interface Ran {
  readonly journal: Journal;
  readonly store: FakeStore;
  readonly sink: FakeSink;
  readonly events: IngestEvent[];
  readonly delivered: Pick<Delivered, 'afterOffset' | 'lastOffset' | 'rows'>[];
  readonly error: IngestError | undefined;
}

interface Setup {
  readonly config?: InsertConfig;
  readonly of?: InsertBatch;
  readonly scripts?: Scripts;
  /** Where nothing of any range is in the table. */
  readonly isEmpty?: boolean;
  readonly sink?: FakeSinkConfig;
  readonly untilMs?: number;
  /** At-most-once. */
  readonly isCommitted?: boolean;
}

/** What is delivered is settled, as `commit` does. */
function ran(
  m: Marbles,
  refusal: Refusal,
  {
    config = {},
    of = batch,
    scripts = {},
    isEmpty = true,
    sink: more = {},
    untilMs = 2000,
    isCommitted = false,
  }: Setup = {},
): Ran {
  const journal = new Journal();
  const store = new FakeStore(
    journal,
    { ...emptyState, settled: of.afterOffset, pending: of.intent === undefined ? [] : [of.intent] },
    scripts,
  );
  const ledger = new Ledger(store, new FakeSource(journal), { group: 'g1', owner: 'me', retry });
  const sink = new FakeSink(journal, scripts, { refusal, ...more });
  const prepare = sink.prepare.bind(sink);
  // A look of a part finds none of its records.
  if (isEmpty)
    sink.prepare = (part) => ({
      ...prepare(part),
      readBack: (why) => [
        (journal.note(`look ${range(part)} ${why ?? ''}`),
        { missing: why === undefined ? [] : [...part.records].map(({ offset }) => offset), doubled: [] }),
      ],
    });
  const events: IngestEvent[] = [];
  const delivered: Ran['delivered'][number][] = [];
  let error: IngestError | undefined;
  const run$ = ledger.open(of.assignment).pipe(
    concatMap((opened) =>
      m
        .cold<InsertableBatch>('b', { b: isCommitted ? committed(of) : recordedBy(opened, of) })
        .pipe(
          insertDeduped(sink, { retry, onPoison: 'exclude', onEvent: (event) => void events.push(event), ...config }),
        ),
    ),
    tap((one) => {
      delivered.push(one);
      if (of.intent !== undefined) ledger.of(of.assignment).settle(one.lastOffset).subscribe();
    }),
    takeUntil(timer(untilMs)),
  );
  run$.subscribe({ error: (thrown: IngestError) => (error = thrown) });
  m.flush();
  return { journal, store, sink, events, delivered, error };
}

const leftOut = ({ events }: Ran) =>
  events.flatMap((event) => (event.kind === 'excluded' ? [event.record?.offset] : []));
const rows = ({ delivered }: Ran) => delivered.reduce((sum, one) => sum + one.rows, 0);
const stuck = ({ events }: Ran) => events.filter(({ kind }) => kind === 'stuck');

/** Ascending, without a hole. */
function expectWhole({ delivered, store, error }: Ran, lastOffset = 17): void {
  expect(error).toBeUndefined();
  expect(delivered.map(({ afterOffset }) => afterOffset)).toEqual([
    9,
    ...delivered.slice(0, -1).map((one) => one.lastOffset),
  ]);
  expect(delivered.at(-1)?.lastOffset).toBe(lastOffset);
  expect(store.stateOf().settled).toBe(lastOffset);
  expect(store.stateOf().pending).toEqual([]);
}

for (const [name, error] of [
  ['surely a record’s', surely],
  ['perhaps a record’s', perhaps],
] as const) {
  describe(`a refusal that is ${name}`, () => {
    test.each([[[10]], [[13]], [[17]], [[12, 13]], [[12, 17]]])(
      'of %j: it is left out, the others arrive once',
      (poison) => {
        marbles((m) => {
          const found = ran(m, refusing(error, ...poison));
          expectWhole(found);
          expect(leftOut(found)).toEqual(poison);
          expect(rows(found)).toBe(8 - poison.length);
          // Of a refusal that is perhaps the moment's one part is repeated, to see that others still are taken.
          expect(found.sink.tokens.length - new Set(found.sink.tokens).size).toBe(error === perhaps ? 1 : 0);
        })();
      },
    );
  });
}

describe('one that is surely a record’s', () => {
  test(
    'I1: no part is inserted before it is recorded, and none of it under the token of the whole',
    marbles((m) => {
      const found = ran(m, refusing(surely, 13), { scripts: { write: '--k' }, untilMs: 60 });
      const lines = found.journal.of('insert', 'write');
      expect(lines.slice(0, 3)).toEqual([
        '0 insert 10-17',
        '0 write 0: settled 9, in doubt 10-13 14-17',
        '2 insert 10-13',
      ]);
      expect(found.sink.tokens).not.toContain('t:10-17');
    }),
  );

  test(
    'halts with the record named, by default, and the ones before it are in the table',
    marbles((m) => {
      const found = ran(m, refusing(surely, 13), { config: { onPoison: 'halt' } });
      expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { offset: 13 } });
      expect(found.delivered.at(-1)?.lastOffset).toBe(12);
      expect(found.store.stateOf().settled).toBe(12);
    }),
  );

  test(
    'all are poison: halts, since the table is wrong, not a record',
    marbles((m) => {
      const many = insertBatch(9, 49, { intent: intent(10, 49), token: 't:10-49' });
      const found = ran(m, () => surely(), { of: many, scripts: { write: '-k' } });
      expect(found.error?.message).toContain('too many others of its batch were left out already');
      expect(leftOut(found)).toHaveLength(20);
    }),
  );

  test(
    'a record that was not tried by itself is not left out for what others were refused for: the table may be mended by now',
    marbles((m) => {
      const found = ran(m, (_, attempt) => (attempt === 1 ? surely() : undefined), {
        of: insertBatch(9, 11, { intent: intent(10, 11), token: 't' }),
      });
      expectWhole(found, 11);
      expect(leftOut(found)).toEqual([]);
      expect(rows(found)).toBe(2);
    }),
  );

  test(
    'I16: with rows of another ClickHouse partition in the table nothing is recorded in parts: they would be there twice',
    marbles((m) => {
      const found = ran(
        m,
        refusing(() => surely({ mayHaveLanded: true }), 13),
        { isEmpty: false, sink: { readBacks: [{ missing: [13, 15] }] } },
      );
      expect(found.error?.message).toContain('rows of its range are in the table');
      expect(found.journal.of('write')).toEqual([]);
      expect(found.journal.of('insert')).toHaveLength(1);
    }),
  );

  test(
    'I16: where it may have landed in part each range is looked for before it is cut',
    marbles((m) => {
      const found = ran(
        m,
        refusing(() => surely({ mayHaveLanded: true }), 13),
      );
      expectWhole(found);
      expect(found.journal.of('look').map((line) => line.split(' ')[2])).toEqual(['10-17', '10-13', '13']);
    }),
  );
});

test(
  'a part that is twice not sent, since its token grew old at that moment, was not refused: its record is not left out',
  marbles((m) => {
    const doubts = ['it is old', 'it is old'];
    const found = ran(m, refusing(surely, 17), {
      sink: { tokenDoubt: (part) => (part.lastOffset === 16 ? doubts.shift() : undefined) },
    });
    expectWhole(found);
    expect([doubts, leftOut(found)]).toEqual([[], [17]]);
  }),
);

for (const [name, first] of [
  ['is refused', 10],
  ['comes last', 11],
] as const) {
  test(
    `a record that ${name} while the server twice refuses everything is not left out`,
    marbles((m) => {
      const other = first === 10 ? 11 : 10;
      let taken = 0;
      // The other one is taken once; when it is repeated the server refuses everything, and recovers later.
      const found = ran(
        m,
        (offsets) => {
          if (offsets.length > 1) return perhaps();
          if (offsets.at(0) === other) return taken++ === 0 || taken > 20 ? undefined : perhaps();
          return taken > 3 ? undefined : perhaps();
        },
        { of: insertBatch(9, 11, { intent: intent(10, 11), token: 't' }) },
      );
      expectWhole(found, 11);
      expect(leftOut(found)).toEqual([]);
      expect(rows(found)).toBe(2);
    }),
  );
}

test(
  'a replay of which a record is left out is an insert that was never sent: no table is asked for it any more',
  marbles((m) => {
    const replays: string[] = [];
    const tokenDoubt = (one: InsertBatch) => void replays.push(`${one.intent?.excluded.length ?? 0} ${one.replay}`);
    const found = ran(
      m,
      refusing(() => failure('KCR_POISON', { offset: 13 }), 13),
      { of: { ...batch, replay: true }, sink: { tokenDoubt } },
    );
    expectWhole(found);
    expect(new Set(replays)).toEqual(new Set(['0 true', '1 false']));
  }),
);

describe('the parts', () => {
  const two = insertBatch(9, 11, { intent: intent(10, 11), token: 't' });
  const few = insertBatch(9, 12, { intent: intent(10, 12), token: 't' });
  const divided = ({ events }: Ran) => events.flatMap((event) => (event.kind === 'divided' ? [event.first] : []));

  test(
    'a record that the server names on the way is left out at once, and nobody else is looked for',
    marbles((m) => {
      const found = ran(m, (offsets) =>
        !offsets.includes(12) ? undefined : offsets.length > 4 ? surely() : failure('KCR_POISON', { offset: 12 }),
      );
      expectWhole(found);
      expect(found.journal.of('insert').map((line) => line.split(' ').slice(2).join(' '))).toEqual([
        '10-17',
        '10-13',
        '10-13 without 12',
        '14-17',
      ]);
    }),
  );

  test(
    'a record that is taken once others were is delivered, not left out: it was the moment',
    marbles((m) => {
      let isTaken = false;
      const found = ran(
        m,
        (offsets) => {
          if (offsets.length > 1 || (offsets.at(0) === 10 && !isTaken)) return perhaps();
          isTaken = true;
          return undefined;
        },
        { of: two },
      );
      expectWhole(found, 11);
      expect([leftOut(found), rows(found)]).toEqual([[], 2]);
    }),
  );

  test(
    'a record that is then refused by another code is not left out for the one before: nobody knows yet whose that is',
    marbles((m) => {
      let [isTaken, others] = [false, 0];
      const found = ran(
        m,
        (offsets) => {
          if (offsets.length > 1 || (offsets.at(0) === 10 && !isTaken)) return perhaps();
          if (offsets.at(0) === 10) return others++ < 20 ? perhaps(53) : undefined;
          isTaken = true;
          return undefined;
        },
        { of: two },
      );
      expectWhole(found, 11);
      expect([leftOut(found), rows(found)]).toEqual([[], 2]);
    }),
  );

  test(
    'I16: what follows a suspect stays as it is recorded while an attempt at it may be on its way',
    marbles((m) => {
      let [alone, behind] = [0, 0];
      const found = ran(
        m,
        (offsets) => {
          if (offsets.length === 3) return perhaps();
          if (offsets.at(0) === 10) return alone++ < 20 ? perhaps() : undefined;
          behind += 1;
          return behind === 1 ? lostReply() : behind < 20 ? perhaps() : undefined;
        },
        { of: few },
      );
      expectWhole(found, 12);
      expect([leftOut(found), rows(found), divided(found)]).toEqual([[], 3, [10]]);
    }),
  );

  test(
    'I16: where the table cannot tell whether an error that is nobody’s left rows there, nobody is left out',
    marbles((m) => {
      const sink = (fields: object) =>
        failure('KCR_INSERT_IN_DOUBT', { serverCode: 9999, divisible: 'perhaps', ...fields });
      const found = ran(m, (_, attempt) => (attempt < 20 ? sink({ mayHaveLanded: true }) : undefined), {
        of: two,
        isEmpty: false,
        scripts: { 'readBack 10-11': ['v', 'k'] },
      });
      expectWhole(found, 11);
      expect([leftOut(found), found.sink.tokens]).toEqual([[], ['t']]);
    }),
  );
});

describe('too many of something for one insert', () => {
  test(
    'is sent in halves, and nobody is left out',
    marbles((m) => {
      const found = ran(m, (offsets) => (offsets.length > 2 ? tooLarge() : undefined));
      expectWhole(found);
      expect(rows(found)).toBe(8);
      expect(leftOut(found)).toEqual([]);
    }),
  );

  test(
    'of a single record halts with what the server says',
    marbles((m) => {
      expect(ran(m, () => tooLarge())).toMatchObject({ error: { code: 'KCR_INSERT_FATAL' }, delivered: [] });
    }),
  );
});

describe('one that is perhaps nobody’s', () => {
  test(
    'and passes: nobody is left out',
    marbles((m) => {
      const found = ran(m, (_, attempt) => (attempt < 40 ? perhaps() : undefined));
      expectWhole(found);
      expect(leftOut(found)).toEqual([]);
      expect(rows(found)).toBe(8);
    }),
  );

  test(
    'and comes by another code after some were taken: nobody is left out',
    marbles((m) => {
      const found = ran(m, (_, attempt) =>
        attempt <= 5 ? perhaps(53) : attempt === 6 || attempt > 60 ? undefined : perhaps(),
      );
      expectWhole(found);
      expect(leftOut(found)).toEqual([]);
    }),
  );

  test(
    'I16: while an attempt may be on its way the range stays as it is recorded: what lands would be there beside its parts',
    marbles((m) => {
      const found = ran(m, (_, attempt) => (attempt === 2 ? lostReply() : attempt < 20 ? perhaps() : undefined));
      expectWhole(found);
      expect(found.sink.tokens).toEqual(['t:10-17']);
      expect(found.events.filter(({ kind }) => kind === 'verified')).toEqual([]);
    }),
  );

  test(
    'I16: so does one of an earlier owner, of whose attempts nobody knows',
    marbles((m) => {
      const found = ran(m, (_, attempt) => (attempt < 20 ? perhaps() : undefined), { of: { ...batch, replay: true } });
      expectWhole(found);
      expect(found.sink.tokens).toEqual(['t:10-17']);
    }),
  );

  test(
    'of a part while an attempt at it may be on its way: the part stays, and the others arrive behind it',
    marbles((m) => {
      const found = ran(m, (offsets, attempt) =>
        attempt === 6 ? lostReply() : attempt < 30 && offsets.includes(10) ? perhaps() : undefined,
      );
      expectWhole(found);
      expect(rows(found)).toBe(8);
    }),
  );

  test(
    'of the first record and of another: where none between is taken the others wait, nobody is left out, and it is told',
    marbles((m) => {
      const found = ran(m, refusing(perhaps, 10, 17));
      expect([found.error, leftOut(found), found.delivered]).toEqual([undefined, [], []]);
      expect(stuck(found)[0]).toMatchObject({ first: 10, last: 10 });
    }),
  );

  test(
    'a single record is tried until it is taken, and told with its place',
    marbles((m) => {
      const one = insertBatch(9, 10, { intent: intent(10, 10), token: 't:10' });
      const found = ran(m, (_, attempt) => (attempt < 50 ? perhaps() : undefined), { of: one });
      expectWhole(found, 10);
      expect(leftOut(found)).toEqual([]);
      expect(stuck(found)).toMatchObject([
        { first: 10, last: 10, attempts: 5, error: { fields: { serverCode: 9999 } } },
        { attempts: 35 },
      ]);
    }),
  );
});

describe('without a recorded range', () => {
  const plain: InsertBatch = { ...chunk(9, 17), intent: undefined, token: undefined, replay: false };

  test(
    'at-least-once: the record is found without a look and without a ledger',
    marbles((m) => {
      const found = ran(
        m,
        refusing(() => surely({ mayHaveLanded: true }), 13),
        { of: plain },
      );
      expect(found.error).toBeUndefined();
      expect(leftOut(found)).toEqual([13]);
      expect(rows(found)).toBe(7);
      expect(found.journal.of('look', 'write')).toEqual([]);
    }),
  );

  test(
    'at-least-once: so it is after a lost reply, by a code that nobody knows',
    marbles((m) => {
      const found = ran(
        m,
        (offsets, attempt) => (attempt === 1 ? lostReply() : offsets.includes(13) ? perhaps() : undefined),
        { of: plain },
      );
      expect(found.error).toBeUndefined();
      expect([leftOut(found), rows(found)]).toEqual([[13], 7]);
    }),
  );

  test(
    'at-most-once: what may have landed is abandoned, not sent in parts',
    marbles((m) => {
      const found = ran(m, refusing(perhaps, 13), { of: plain, isCommitted: true });
      expect(found.journal.of('insert')).toEqual(['0 insert 10-17']);
      expect(found.events.filter(({ kind }) => kind === 'abandoned')).toMatchObject([{ first: 10, last: 17, rows: 8 }]);
    }),
  );
});

test(
  'a half whose transform gives no rows is recorded and delivered, and nothing is sent for it',
  marbles((m) => {
    const half = { ...batch, records: batch.records.slice(4) };
    const found = ran(m, refusing(surely, 16), { of: half });
    expectWhole(found);
    expect(rows(found)).toBe(3);
  }),
);

test(
  'what was left out before stays left out in the parts',
  marbles((m) => {
    const before = {
      ...batch,
      intent: intent(10, 17, { excluded: [11, 15] }),
      records: [...batch.records].filter(({ offset }) => offset !== 11 && offset !== 15),
    } as InsertBatch;
    const found = ran(m, refusing(surely, 13), { of: before, untilMs: 3, scripts: { write: ['k', '-'] } });
    expect(found.store.stateOf().pending.map(({ first, last, excluded }) => [first, last, excluded])).toEqual([
      [10, 13, [11]],
      [14, 17, [15]],
    ]);
  }),
);

test(
  'what is recorded of a part says how many records it can have, not how many the whole had',
  marbles((m) => {
    const whole = { ...batch, intent: intent(10, 17, { rows: 5 }) };
    const found = ran(m, refusing(surely, 13), { of: whole, untilMs: 3, scripts: { write: ['k', '-'] } });
    expect(found.store.stateOf().pending.map(({ first, last, rows: most }) => [first, last, most])).toEqual([
      [10, 13, 4],
      [14, 17, 4],
    ]);
  }),
);
