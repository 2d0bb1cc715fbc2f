import { NEVER, Observable, concat, concatMap, of, timer, type ObservableInput } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { insertDeduped, type InsertConfig } from '../../operators/insert-deduped.js';
import { IngestError } from '../../src/errors.js';
import type { Delivered, IngestEvent } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import { emptyState } from '../../src/model/state.js';
import type { PreparedInsert, InsertBatch, InsertResult } from '../../src/ports.js';
import {
  FakeSink,
  FakeSource,
  FakeStore,
  Journal,
  briefDelivered,
  chunk,
  failure,
  insertBatch,
  intent,
  p1,
  reportTo,
  type FakeSinkConfig,
  type Scripts,
  recordedBy,
  committed,
} from '../support/fakes.js';
import type { Inserted, RecordedBatch } from '../../src/stages.js';
import { asText, errorsAsCodes, marbles, type Marbles } from '../support/marbles.js';

const b = insertBatch(9, 14, { intent: intent(10, 14), token: 't:10-14' });
const c = insertBatch(14, 19, { intent: intent(15, 19), token: 't:15-19' });
const d = insertBatch(19, 24, { intent: intent(20, 24), token: 't:20-24' });
const batches: Record<string, RecordedBatch> = {
  b,
  c,
  d,
  r: { ...b, replay: true },
  e: insertBatch(9, 14, { holes: [10, 11, 12, 13, 14] }),
};
const legend = {
  B: 'delivered 10-14',
  C: 'delivered 15-19',
  D: 'delivered 20-24',
  R: 'delivered 10-14 again',
  E: 'delivered 10-14',
};

/** Waits 3, 6, 12 frames. */
const retry = { minDelayMs: 3, random: () => 0 };

interface Setup {
  readonly journal: Journal;
  readonly delivered: Observable<string>;
  readonly source: ReturnType<Marbles['hot']>;
}

function inserting(
  m: Marbles,
  marbleSource: string,
  scripts: Scripts = {},
  sinkConfig: FakeSinkConfig = {},
  config: InsertConfig = {},
): Setup {
  const journal = new Journal();
  const source = m.hot<RecordedBatch>(marbleSource, batches, failure('KCR_FENCED'));
  const sink = new FakeSink(journal, scripts, sinkConfig);
  return { journal, source, delivered: source.pipe(insertDeduped(sink, { retry, ...config }), asText(briefDelivered)) };
}

const calls = ({ journal }: Setup): string[] => journal.lines.filter((line) => !line.includes('release'));

describe('insertDeduped', () => {
  test(
    'the diagram of its documentation',
    marbles((m) => {
      const scripts = { 'insert 10-14': ['--d', '--k'], 'insert 15-19': '--k' };
      const setup = inserting(m, '             -b---c------|', scripts);
      m.expect(setup.delivered).toBeObservable('--------(BC)|', legend);
      m.flush();
      expect(calls(setup)).toEqual(['1 insert 10-14', '5 insert 15-19', '6 insert 10-14']);
    }),
  );

  test(
    'never',
    marbles((m) => {
      const { delivered, source } = inserting(m, '-');
      m.expect(delivered).toBeObservable('-');
      m.expect(source).toHaveSubscriptions('^');
    }),
  );

  test(
    'empty',
    marbles((m) => m.expect(inserting(m, '--|').delivered).toBeObservable('--|')),
  );

  test(
    'one',
    marbles((m) =>
      m.expect(inserting(m, '-b-----|', { 'insert 10-14': '---k' }).delivered).toBeObservable('----B--|', legend),
    ),
  );

  test(
    'a source that completes is not an excuse: what is under way is finished',
    marbles((m) =>
      m.expect(inserting(m, '-b|', { 'insert 10-14': '-----k' }).delivered).toBeObservable('------(B|)', legend),
    ),
  );

  test(
    'an error of the source waits for its turn: what is under way before it is delivered',
    marbles((m) => {
      const journal = new Journal();
      const source = m.hot('-bc#', batches, failure('KCR_TRANSFORM'));
      const sink = new FakeSink(journal, { 'insert 10-14': '-----k' });
      m.expect(source.pipe(insertDeduped(sink), asText(briefDelivered))).toBeObservable(
        '------(BC#)',
        legend,
        'KCR_TRANSFORM',
      );
    }),
  );

  test(
    'KCR_FENCED from the source discards what is under way: a former owner stops at once',
    marbles((m) => {
      const setup = inserting(m, '-b-#', { 'insert 10-14': '-----k' });
      m.expect(setup.delivered).toBeObservable('---#', {}, 'KCR_FENCED');
      m.flush();
      expect(setup.journal.lines).toEqual(['1 insert 10-14', '3 insert 10-14 dropped', '3 release 10-14']);
    }),
  );

  test(
    'I9: an unsubscription (the partition is lost) stops the insert and gives its bytes back',
    marbles((m) => {
      const setup = inserting(m, '-bc-----', { 'insert 10-14': '---------k', 'insert 15-19': '---------k' });
      m.expect(setup.delivered, '^---!').toBeObservable('-');
      m.expect(setup.source).toHaveSubscriptions('^---!');
      m.flush();
      expect(setup.journal.lines).toEqual([
        '1 insert 10-14',
        '2 insert 15-19',
        '4 insert 10-14 dropped',
        '4 release 10-14',
        '4 insert 15-19 dropped',
        '4 release 15-19',
      ]);
    }),
  );

  test(
    'I9: an unsubscription in the middle of a wait: the attempt that was due is not made',
    marbles((m) => {
      const setup = inserting(m, '-b---', { 'insert 10-14': ['-t', '-k'] });
      m.expect(setup.delivered, '^--!').toBeObservable('-');
      m.flush();
      expect(calls(setup)).toEqual(['1 insert 10-14']);
    }),
  );

  test(
    'tells the rows and bytes that were sent',
    marbles((m) => {
      const journal = new Journal();
      const inserted: Omit<Delivered, 'kind'> & { readonly kind: 'inserted' } = {
        kind: 'inserted',
        assignment: b.assignment,
        afterOffset: 9,
        lastOffset: 14,
        rows: 5,
        bytes: 50,
        replay: false,
      };
      m.expect(m.cold('b|', batches).pipe(insertDeduped(new FakeSink(journal)))).toBeObservable('B|', {
        B: inserted as Inserted<'recorded'>,
      });
    }),
  );

  test(
    'takes batches without an intent: the arrangements that record nothing',
    marbles((m) => {
      const plain = chunk(9, 14);
      const preparedInsert: InsertBatch[] = [];
      const sink = new FakeSink(new Journal());
      const prepare = sink.prepare.bind(sink);
      sink.prepare = (batch) => {
        preparedInsert.push(batch);
        return prepare(batch);
      };
      m.expect(m.cold('b|', { b: plain }).pipe(insertDeduped(sink), asText(briefDelivered))).toBeObservable(
        'B|',
        legend,
      );
      m.flush();
      expect(preparedInsert).toEqual([{ ...plain, intent: undefined, token: undefined, replay: false }]);
    }),
  );

  test(
    'a batch without records is not sent, and passes in its turn',
    marbles((m) => {
      const empty = insertBatch(14, 19, { holes: [15, 16, 17, 18, 19] });
      const journal = new Journal();
      const delivered = m
        .hot('-bc------|', { b, c: empty })
        .pipe(insertDeduped(new FakeSink(journal, { 'insert 10-14': '----k' })), asText(briefDelivered));
      m.expect(delivered).toBeObservable('-----(BC)|', legend);
      m.flush();
      expect(journal.of('insert')).toEqual(['1 insert 10-14']);
    }),
  );

  for (const concurrency of [0, -1, 1.5, Number.NaN]) {
    test(`concurrency ${concurrency} is refused when the stage is built`, () => {
      expect(() => insertDeduped(new FakeSink(new Journal()), { concurrency })).toThrow(
        `Expected \`concurrency\` to be a positive integer, got ${concurrency}`,
      );
    });
  }
});

describe('several batches', () => {
  test(
    'come out in the order of the source, though a later one was faster',
    marbles((m) => {
      const setup = inserting(m, '-bc---------|', { 'insert 10-14': '------k', 'insert 15-19': '-k' });
      m.expect(setup.delivered).toBeObservable('-------(BC)-|', legend);
    }),
  );

  test(
    'two are under way at once by default, and a third waits',
    marbles((m) => {
      const setup = inserting(m, '-(bcd)', {
        'insert 10-14': '---k',
        'insert 15-19': '-----k',
        'insert 20-24': '-----k',
      });
      m.expect(setup.delivered).toBeObservable('----B-C--D', legend);
      m.flush();
      expect(setup.journal.of('insert')).toEqual(['1 insert 10-14', '1 insert 15-19', '4 insert 20-24']);
    }),
  );

  test(
    'one is under way at a time with concurrency 1',
    marbles((m) => {
      const setup = inserting(
        m,
        '-(bc)------|',
        { 'insert 10-14': '---k', 'insert 15-19': '---k' },
        {},
        { concurrency: 1 },
      );
      m.expect(setup.delivered).toBeObservable('----B--C---|', legend);
    }),
  );

  test(
    'a batch that fails for good stops its partition after those before it were delivered',
    marbles((m) => {
      const setup = inserting(m, '-bc---------', { 'insert 10-14': '------k', 'insert 15-19': '-p' });
      m.expect(setup.delivered).toBeObservable('-------(B#)', legend, 'KCR_POISON');
    }),
  );
});

describe('I5: a batch is delivered', () => {
  /** A sink whose answers are spelt out. */
  const answering = (insert: () => ObservableInput<InsertResult>) => ({
    prepare: (): PreparedInsert => ({
      insert,
      tokenDoubt: () => undefined,
      readBackWhenInDoubt: false,
      insertMissing: () => NEVER,
      readBack: () => NEVER,
      fill: () => NEVER,
      release: () => undefined,
    }),
  });

  test(
    'only once the answer was read to its end, not at its first byte',
    marbles((m) => {
      const result = { rows: 5, bytes: 50 };
      const insert = () =>
        concat(
          of(result),
          new Observable<never>((subscriber) => timer(5).subscribe({ complete: () => subscriber.complete() })),
        );
      m.expect(m.cold('-b', batches).pipe(insertDeduped(answering(insert)), asText(briefDelivered))).toBeObservable(
        '------B',
        legend,
      );
    }),
  );

  test(
    'not when an error comes behind the first byte',
    marbles((m) => {
      const insert = () => m.cold<InsertResult>('r--#', { r: { rows: 5, bytes: 50 } }, failure('KCR_ROW_COUNT'));
      m.expect(m.cold('-b', batches).pipe(insertDeduped(answering(insert)), asText(briefDelivered))).toBeObservable(
        '----#',
        legend,
        'KCR_ROW_COUNT',
      );
    }),
  );

  test(
    'not when the answer ends without a result',
    marbles((m) => {
      const delivered = m.cold('-b', batches).pipe(insertDeduped(answering(() => m.cold('--|'))), errorsAsCodes());
      m.expect(delivered).toBeObservable('---#', {}, 'KCR_INTERNAL');
    }),
  );
});

describe('a failed insert', () => {
  test(
    'is made again, later and later, with the same frozen bytes',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': ['-t', '-c', '-t', '-k'] });
      m.expect(setup.delivered).toBeObservable('26ms B', legend);
      m.flush();
      expect(setup.journal.lines).toEqual([
        '1 insert 10-14',
        '5 insert 10-14',
        '12 insert 10-14',
        '25 insert 10-14',
        '26 release 10-14',
      ]);
    }),
  );

  test(
    'I8: is made again with bytes that were made once: made again they might be another block',
    marbles((m) => {
      let preparedInsert = 0;
      const sink = new FakeSink(new Journal(), { 'insert 10-14': ['-t', '-d', '-k'] });
      const counting = {
        prepare: (batch: InsertBatch) => {
          preparedInsert += 1;
          return sink.prepare(batch);
        },
      };
      m.hot('-b', batches).pipe(insertDeduped(counting, { retry })).subscribe();
      m.flush();
      expect(preparedInsert).toBe(1);
    }),
  );

  test(
    'is made again for as long as ClickHouse is down: there is no last attempt',
    marbles((m) => {
      const setup = inserting(
        m,
        '-b',
        { 'insert 10-14': [...Array.from({ length: 50 }, () => 'c'), 'k'] },
        {},
        { retry: { minDelayMs: 1, maxDelayMs: 4, random: () => 0 } },
      );
      m.expect(setup.delivered).toBeObservable('196ms B', legend);
    }),
  );

  test(
    'E5: what rights or settings forbid is tried a few times more, since they may be changing, then stops the partition',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': '--f' });
      m.expect(setup.delivered).toBeObservable('56ms #', {}, 'KCR_INSERT_FATAL');
      m.flush();
      expect(setup.journal.lines.filter((line) => line.endsWith(' insert 10-14'))).toHaveLength(5);
      expect(setup.journal.lines.at(-1)).toBe('56 release 10-14');
    }),
  );

  test(
    'E5: a refusal that passes costs the partition nothing',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': ['--f', '--f', '-k'] });
      m.expect(setup.delivered).toBeObservable('15ms B', legend);
    }),
  );

  test(
    'is given up after maxAttempts, when one is set',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': '-t' }, {}, { retry: { ...retry, maxAttempts: 2 } });
      m.expect(setup.delivered).toBeObservable('------#', {}, 'KCR_INSERT_RETRIABLE');
    }),
  );

  test(
    'one partition’s retries are its own: the other goes on',
    marbles((m) => {
      const journal = new Journal();
      const sink = new FakeSink(journal, { 'insert 10-14': ['-c', '-c', '-k'] });
      const stage = () => insertDeduped(sink, { retry });
      const other = insertBatch(9, 14, { of: p1 });
      m.expect(m.hot('-b', { b }).pipe(stage(), asText(briefDelivered))).toBeObservable('13ms B', legend);
      m.expect(m.hot('--o', { o: other }).pipe(stage(), asText(briefDelivered))).toBeObservable('--B', legend);
    }),
  );

  test(
    'a poison record is told before anything is sent',
    marbles((m) => {
      const setup = inserting(m, '-b', {}, { poison: 12 });
      m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_POISON');
      m.flush();
      expect(setup.journal.lines).toEqual([]);
    }),
  );

  test(
    'a sink that throws what is not an IngestError stops the partition and is not asked again',
    marbles((m) => {
      const broken = new FakeSink(new Journal(), { 'insert 10-14': 'z' });
      m.expect(m.cold('b', batches).pipe(insertDeduped(broken), errorsAsCodes())).toBeObservable(
        '#',
        {},
        'KCR_INTERNAL',
      );
    }),
  );
});

describe('I11: on a table whose server can forget the rows but not the token', () => {
  const forgetful = { readBackWhenInDoubt: true };

  test(
    'an insert in doubt is read back once it succeeds',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': ['-d', '-k'], 'readBack 10-14': '--k' }, forgetful);
      m.expect(setup.delivered).toBeObservable('--------B', legend);
      m.flush();
      expect(calls(setup)).toEqual(['1 insert 10-14', '5 insert 10-14', '6 readBack 10-14']);
    }),
  );

  test(
    'so is one that was in doubt, then failed plainly, then succeeded',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': ['-d', '-t', '-k'] }, forgetful);
      setup.delivered.subscribe();
      m.flush();
      expect(calls(setup)).toEqual(['1 insert 10-14', '5 insert 10-14', '12 insert 10-14', '13 readBack 10-14']);
    }),
  );

  test(
    'so is every replay, though its insert succeeds at once: the one before it may be in doubt',
    marbles((m) => {
      const setup = inserting(m, '-r', { 'insert 10-14': '-k' }, forgetful);
      m.expect(setup.delivered).toBeObservable('--R', legend);
      m.flush();
      expect(calls(setup)).toEqual(['1 insert 10-14', '2 readBack 10-14']);
    }),
  );

  test(
    'a failure of which nothing landed costs no query',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': ['-t', '-k'] }, forgetful);
      setup.delivered.subscribe();
      m.flush();
      expect(calls(setup)).toEqual(['1 insert 10-14', '5 insert 10-14']);
    }),
  );

  test(
    'the doubt of one batch is not another’s',
    marbles((m) => {
      const setup = inserting(m, '-bc', { 'insert 10-14': ['-d', '-k'], 'insert 15-19': '-k' }, forgetful);
      setup.delivered.subscribe();
      m.flush();
      expect(setup.journal.of('readBack')).toEqual(['6 readBack 10-14']);
    }),
  );

  test(
    'what is missing is filled, and read back again',
    marbles((m) => {
      const setup = inserting(m, '-r', {}, { ...forgetful, readBacks: [{ missing: [11, 12] }, {}] });
      m.expect(setup.delivered).toBeObservable('-R', legend);
      m.flush();
      expect(calls(setup)).toEqual([
        '1 insert 10-14',
        '1 readBack 10-14',
        '1 fill 10-14 with 11,12',
        '1 readBack 10-14',
      ]);
    }),
  );

  test(
    'a fill that is in doubt is made again, so that its token eats the double',
    marbles((m) => {
      const setup = inserting(
        m,
        '-r',
        { 'fill 10-14': ['-d', '-k'] },
        { ...forgetful, readBacks: [{ missing: [11] }, {}] },
      );
      m.expect(setup.delivered).toBeObservable('------R', legend);
      m.flush();
      expect(setup.journal.of('fill')).toEqual(['1 fill 10-14 with 11', '5 fill 10-14 with 11']);
    }),
  );

  test(
    'a read-back that fails is made again',
    marbles((m) => {
      const setup = inserting(m, '-r', { 'readBack 10-14': ['-c', '-k'] }, forgetful);
      m.expect(setup.delivered).toBeObservable('------R', legend);
    }),
  );

  test(
    'C5: a fill that was answered and is not seen stops the partition: each further one would add a copy of every row',
    marbles((m) => {
      const setup = inserting(
        m,
        '-r',
        {},
        { ...forgetful, readBacks: Array.from({ length: 9 }, () => ({ missing: [11, 12] })) },
      );
      m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_READ_BACK');
      m.flush();
      expect(setup.journal.of('fill')).toEqual(['1 fill 10-14 with 11,12']);
    }),
  );

  test(
    'C5: the error names the offsets of which a copy too many may be there, and the table',
    marbles((m) => {
      const sink = new FakeSink(
        new Journal(),
        {},
        { ...forgetful, readBacks: [{ missing: [11, 12] }, { missing: [12] }] },
      );
      const recorded = { ...b, replay: true, intent: intent(10, 14, { tables: ['db.clicks'] }) };
      let error: unknown;
      m.hot('-r', { r: recorded })
        .pipe(insertDeduped(sink))
        .subscribe({ error: (thrown: unknown) => void (error = thrown) });
      m.flush();
      expect(error).toMatchObject({
        code: 'KCR_READ_BACK',
        fields: { table: 'db.clicks', first: 10, last: 14 },
        message: expect.stringContaining('offset 12 was answered') as string,
      });
      expect(error).toMatchObject({
        message: expect.stringContaining('one copy too many may be in the table') as string,
      });
    }),
  );

  test(
    'rows that a fill has doubled stop the partition',
    marbles((m) => {
      const setup = inserting(m, '-r', {}, { ...forgetful, readBacks: [{ missing: [11, 12] }, { doubled: [11] }] });
      m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_READ_BACK');
    }),
  );

  test(
    'rows that are there twice stop the partition: a person must look',
    marbles((m) => {
      const setup = inserting(m, '-r', {}, { ...forgetful, readBacks: [{ doubled: [12] }] });
      m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_READ_BACK');
      m.flush();
      expect(setup.journal.of('fill')).toEqual([]);
    }),
  );

  test(
    'on a table that forgets neither, nothing is read back',
    marbles((m) => {
      const setup = inserting(m, '-r----------c', { 'insert 10-14': ['-d', '-k'] });
      setup.delivered.subscribe();
      m.flush();
      expect(setup.journal.of('readBack')).toEqual([]);
    }),
  );
});

describe('a token that the server may have forgotten', () => {
  const all = [10, 11, 12, 13, 14];
  const old = { tokenDoubt: 'it is old' };
  const forgetful = { ...old, readBackWhenInDoubt: true };

  test(
    'nothing is missing: nothing is sent, and the range is delivered with no rows',
    marbles((m) => {
      const journal = new Journal();
      const rows = m.hot('-r', batches).pipe(
        insertDeduped(new FakeSink(journal, { 'readBack 10-14': '--k' }, old)),
        asText(({ rows: n, bytes }) => `${n} rows, ${bytes} bytes`),
      );
      m.expect(rows).toBeObservable('---R', { R: '0 rows, 0 bytes' });
      m.flush();
      expect(journal.lines).toEqual(['1 readBack 10-14 since it is old', '3 release 10-14']);
    }),
  );

  test(
    'everything is missing: it is inserted under the recorded token, so that a late attempt of another is still deduplicated',
    marbles((m) => {
      const sink = new FakeSink(
        new Journal(),
        { 'readBack 10-14': '--k', 'insert 10-14': '--k' },
        { ...old, readBacks: [{ missing: all }] },
      );
      m.expect(m.hot('-r', batches).pipe(insertDeduped(sink), asText(briefDelivered))).toBeObservable('-----R', legend);
      m.flush();
      expect(sink.journal.of('readBack', 'insert')).toEqual(['1 readBack 10-14 since it is old', '3 insert 10-14']);
      expect(sink.tokens).toEqual(['t:10-14']);
    }),
  );

  test(
    'everything is missing, on a table that forgets rows: after the insert it is read back as every replay is',
    marbles((m) => {
      const setup = inserting(m, '-r', {}, { ...forgetful, readBacks: [{ missing: all }, { missing: [11] }, {}] });
      m.expect(setup.delivered).toBeObservable('-R', legend);
      m.flush();
      expect(calls(setup)).toEqual([
        '1 readBack 10-14 since it is old',
        '1 insert 10-14',
        '1 readBack 10-14',
        '1 fill 10-14 with 11',
        '1 readBack 10-14',
      ]);
    }),
  );

  test(
    'some is missing: exactly that is inserted under the recorded token and read back, and nothing else is sent',
    marbles((m) => {
      const journal = new Journal();
      const sink = new FakeSink(journal, {}, { ...old, readBacks: [{ missing: [12, 13] }, {}] });
      m.expect(
        m.hot('-r', batches).pipe(
          insertDeduped(sink),
          asText(({ rows }) => `${rows} rows`),
        ),
      ).toBeObservable('-R', { R: '2 rows' });
      m.flush();
      expect(journal.lines).toEqual([
        '1 readBack 10-14 since it is old',
        '1 insert 10-14 with 12,13',
        '1 readBack 10-14',
        '1 release 10-14',
      ]);
    }),
  );

  test(
    'rows that are there twice stop the partition',
    marbles((m) => {
      const setup = inserting(m, '-r', {}, { ...old, readBacks: [{ doubled: [12] }] });
      m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_READ_BACK');
      m.flush();
      expect(calls(setup)).toEqual(['1 readBack 10-14 since it is old']);
    }),
  );

  test(
    'a table that cannot be asked stops the partition: nothing is sent blindly',
    marbles((m) => {
      const setup = inserting(m, '-r', { 'readBack 10-14': '-v' }, old);
      m.expect(setup.delivered).toBeObservable('--#', {}, 'KCR_READ_BACK');
      m.flush();
      expect(setup.journal.of('insert', 'fill')).toEqual([]);
    }),
  );

  test(
    'a look that fails for the moment is made again before anything is sent',
    marbles((m) => {
      const setup = inserting(m, '-r', { 'readBack 10-14': ['-c', '-k'] }, { ...old, readBacks: [{ missing: all }] });
      m.expect(setup.delivered).toBeObservable('------R', legend);
      m.flush();
      expect(calls(setup)).toEqual([
        '1 readBack 10-14 since it is old',
        '5 readBack 10-14 since it is old',
        '6 insert 10-14',
      ]);
    }),
  );

  test(
    'the table is asked before each attempt, not only before the first',
    marbles((m) => {
      const setup = inserting(m, '-r', { 'insert 10-14': ['-d', '-k'] }, { ...old, readBacks: [{ missing: all }, {}] });
      m.expect(setup.delivered).toBeObservable('-----R', legend);
      m.flush();
      // The first attempt has landed, though its answer was lost.
      expect(calls(setup)).toEqual([
        '1 readBack 10-14 since it is old',
        '1 insert 10-14',
        '5 readBack 10-14 since it is old',
      ]);
    }),
  );

  test(
    'a batch that is retried for so long that it grows old is looked for before the next attempt',
    marbles((m) => {
      const tokenDoubt = (_batch: InsertBatch, nowMs: number) => (nowMs > 10 ? 'it is old' : undefined);
      const setup = inserting(
        m,
        '-b',
        { 'insert 10-14': ['-d', '-t', '-k'] },
        { tokenDoubt, readBacks: [{ missing: all }] },
      );
      m.expect(setup.delivered).toBeObservable('-------------B', legend);
      m.flush();
      expect(calls(setup)).toEqual([
        '1 insert 10-14',
        '5 insert 10-14',
        '12 readBack 10-14 since it is old',
        '12 insert 10-14',
      ]);
    }),
  );

  test(
    'so is a fill',
    marbles((m) => {
      const tokenDoubt = (_batch: InsertBatch, nowMs: number) => (nowMs > 3 ? 'it is old' : undefined);
      const readBacks = [{ missing: [11, 12] }, { missing: [12] }, {}];
      const setup = inserting(
        m,
        '-r',
        { 'fill 10-14': ['-d', '-k'] },
        { tokenDoubt, readBackWhenInDoubt: true, readBacks },
      );
      m.expect(setup.delivered).toBeObservable('------R', legend);
      m.flush();
      expect(calls(setup)).toEqual([
        '1 insert 10-14',
        '1 readBack 10-14',
        '1 fill 10-14 with 11,12',
        '5 readBack 10-14 since it is old',
        '5 fill 10-14 with 12',
        '6 readBack 10-14',
      ]);
    }),
  );

  test(
    'what was looked for is reported as verified, and a retry as the call that failed',
    marbles((m) => {
      const events: IngestEvent[] = [];
      const sink = new FakeSink(
        new Journal(),
        { 'readBack 10-14': ['-c', 'k'], 'insert 10-14': ['-t', 'k'] },
        { ...old, readBacks: [{ missing: all }, { missing: all }] },
      );
      m.hot('-r', batches)
        .pipe(insertDeduped(sink, { retry, onEvent: (event) => events.push(event) }))
        .subscribe();
      m.flush();
      const seen = events.map((event) =>
        event.kind === 'retry'
          ? `retry ${event.call}`
          : event.kind === 'verified'
            ? `missing ${event.missing}`
            : event.kind,
      );
      expect(seen).toEqual(['retry readBack', 'missing 5', 'retry insert', 'missing 5']);
    }),
  );

  describe('of a range that was recorded but never sent', () => {
    const recorded = { ...emptyState, settled: 9, pending: [b.intent!] };
    const isOld = (batch: InsertBatch, nowMs: number) =>
      nowMs - (batch.intent?.atMs ?? 0) > 10 ? 'it is old' : undefined;

    function withLedger(m: Marbles, scripts: Scripts, config: FakeSinkConfig, storeScripts: Scripts = {}) {
      const journal = new Journal();
      const store = new FakeStore(journal, recorded, storeScripts);
      const ledger = new Ledger(store, new FakeSource(journal), { group: 'g1', owner: 'me', retry });
      const sink = new FakeSink(journal, scripts, config);
      const delivered = ledger.open(b.assignment).pipe(
        concatMap((opened) => m.cold('-b', { b: recordedBy(opened, b) }).pipe(insertDeduped(sink, { retry }))),
        asText(briefDelivered),
      );
      return { journal, store, sink, delivered, calls: () => journal.of('write', 'insert', 'readBack') };
    }

    test(
      'a write to the store tells that nobody else has sent it: the table is not asked, and the token goes on',
      marbles((m) => {
        // ClickHouse was away for longer than the token is relied on.
        const setup = withLedger(
          m,
          { 'insert 10-14': ['-t', '-t', '-k'] },
          { tokenDoubt: isOld, readBackWhenInDoubt: true },
        );
        m.expect(setup.delivered).toBeObservable('-------------B', legend);
        m.flush();
        expect(setup.calls()).toEqual([
          '1 insert 10-14',
          '5 insert 10-14',
          '12 write 0: settled 9, in doubt 10-14',
          '12 insert 10-14',
        ]);
        expect(setup.store.stateOf().pending).toMatchObject([{ first: 10, last: 14, atMs: 12 }]);
        expect(setup.sink.tokens).toEqual(['kcr1:c1:clicks:0:0:10-14']);
      }),
    );

    test(
      'a process that was frozen wakes up as a former owner: it sends nothing',
      marbles((m) => {
        const setup = withLedger(
          m,
          { 'insert 10-14': ['-t', '-k'] },
          { tokenDoubt: (_batch, nowMs) => (nowMs > 2 ? 'it is old' : undefined) },
        );
        m.cold('---s').subscribe(() => setup.store.seize());
        m.expect(setup.delivered).toBeObservable('-----#', {}, 'KCR_FENCED');
        m.flush();
        expect(setup.journal.of('insert')).toEqual(['1 insert 10-14']);
      }),
    );

    test(
      'however long ClickHouse is away',
      marbles((m) => {
        const setup = withLedger(
          m,
          { 'insert 10-14': [...Array.from({ length: 8 }, () => '-t'), '-k'] },
          { tokenDoubt: isOld },
        );
        setup.delivered.subscribe();
        m.flush();
        expect(setup.journal.of('readBack')).toEqual([]);
        expect(setup.sink.tokens).toHaveLength(1);
      }),
    );

    test(
      'a doubt that does not go with it is looked at',
      marbles((m) => {
        const recordedAgain = '1 write 0: settled 9, in doubt 10-14';
        const setup = withLedger(m, {}, { tokenDoubt: 'it is another version', readBacks: [{ missing: all }] });
        m.expect(setup.delivered).toBeObservable('-B', legend);
        m.flush();
        expect(setup.calls()).toEqual([
          recordedAgain,
          recordedAgain,
          '1 readBack 10-14 since it is another version',
          recordedAgain,
          '1 insert 10-14',
        ]);
      }),
    );

    test(
      'once an attempt may have landed, only the table can tell',
      marbles((m) => {
        const setup = withLedger(m, { 'insert 10-14': ['-d', '-t', '-k'] }, { tokenDoubt: isOld, readBacks: [{}] });
        setup.delivered.subscribe();
        m.flush();
        expect(setup.calls()).toEqual(['1 insert 10-14', '5 insert 10-14', '12 readBack 10-14 since it is old']);
      }),
    );
  });
});

describe('at-most-once: a committed batch', () => {
  const taken = { b: committed(chunk(9, 14)), c: committed(chunk(14, 19)) };
  const inserting = (m: Marbles, marbleSource: string, scripts: Scripts): Pick<Setup, 'journal' | 'delivered'> => {
    const journal = new Journal();
    return {
      journal,
      delivered: m
        .hot(marbleSource, taken)
        .pipe(insertDeduped(new FakeSink(journal, scripts), { retry }), asText(briefDelivered)),
    };
  };

  test(
    'an insert that may have landed is not made again, and the next batch goes on',
    marbles((m) => {
      const setup = inserting(m, '-b-c-', { 'insert 10-14': '-d' });
      m.expect(setup.delivered).toBeObservable('--BC-', legend);
      m.flush();
      expect(setup.journal.of('insert')).toEqual(['1 insert 10-14', '3 insert 15-19']);
    }),
  );

  test(
    'abandoned rows are told and not counted as delivered',
    marbles((m) => {
      const events: IngestEvent[] = [];
      const delivered = m.cold('b', taken).pipe(
        insertDeduped(new FakeSink(new Journal(), { 'insert 10-14': '-d' }), {
          onEvent: (event) => events.push(event),
        }),
        asText(({ rows, bytes }) => `${rows} rows, ${bytes} bytes`),
      );
      m.expect(delivered).toBeObservable('-B', { B: '0 rows, 0 bytes' });
      m.flush();
      expect(events).toMatchObject([{ kind: 'abandoned', first: 10, last: 14, rows: 5 }]);
    }),
  );

  test(
    'an insert of which nothing landed is still made again',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': ['-t', '-k'] });
      m.expect(setup.delivered).toBeObservable('------B', legend);
    }),
  );

  test(
    'poison still stops the partition',
    marbles((m) => {
      const setup = inserting(m, '-b', { 'insert 10-14': '-p' });
      m.expect(setup.delivered).toBeObservable('--#', {}, 'KCR_POISON');
    }),
  );
});

test(
  'a record that was lost, and why, is said with its place once',
  marbles((m) => {
    const failures: string[] = [];
    const sink = {
      prepare: () => {
        throw new IngestError('KCR_POISON', 'bad', {
          topic: 'clicks',
          partition: 0,
          offset: 11,
          table: 'db.t',
          serverCode: 27,
        });
      },
    };
    m.cold('b', { b: committed(chunk(9, 14)) })
      .pipe(insertDeduped(sink))
      .subscribe({
        error: ({ detail, fields }: IngestError) => failures.push(detail, fields.hint ?? ''),
      });
    m.flush();
    expect(failures[1]).toBe('ingest 10-14 by a group of its own, or choose at-least-once');
    expect(failures[0]).toBe(
      'bad; the 5 records of the offsets 10-14 are lost to the table: at-most-once had committed them before the insert (topic clicks, partition 0, offset 11, table db.t, server code 27)',
    );
  }),
);

test(
  'I11: without the ledger that recorded the range no write clears the doubt of a token: the table is asked before it is sent',
  marbles((m) => {
    const journal = new Journal();
    const doubts = ['it is old'];
    const sink = new FakeSink(journal, {}, { tokenDoubt: () => doubts.shift(), readBacks: [{ missing: [] }] });
    m.cold('b', batches).pipe(insertDeduped(sink, { retry })).subscribe();
    m.flush();
    expect(journal.of('insert', 'readBack')).toEqual(['0 readBack 10-14 since it is old']);
  }),
);

test(
  'retries and read-backs are reported, for logs and metrics',
  marbles((m) => {
    const journal = new Journal();
    const sink = new FakeSink(
      journal,
      { 'insert 10-14': ['-d', '-k'] },
      { readBackWhenInDoubt: true, readBacks: [{ missing: [11] }] },
    );
    m.cold('b', batches)
      .pipe(insertDeduped(sink, { retry, onEvent: reportTo(journal) }))
      .subscribe();
    m.flush();
    expect(journal.of('event')).toEqual(['1 event retry', '5 event verified', '5 event verified']);
  }),
);
