import { concatMap, delay, map, of, timer, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { reconcileWithState, type ReconcileConfig } from '../../operators/reconcile-with-state.js';
import { Ledger, type LedgerConfig } from '../../src/ledger.js';
import type { Assignment } from '../../src/model/record.js';
import type { PartitionState } from '../../src/model/state.js';
import { dedupToken } from '../../src/model/token.js';
import type { InsertBatch } from '../../src/ports.js';
import type { BufferedBatch } from '../../src/stages.js';
import {
  FakeSink,
  FakeSource,
  FakeStore,
  Journal,
  briefBatch,
  chunk,
  failure,
  insertBatch,
  intent,
  p0,
  p1,
  reportTo,
  stateOf,
  tenure,
  type Scripts,
  handleOf,
} from '../support/fakes.js';
import { asText, marbles, type Marbles } from '../support/marbles.js';

interface Setup {
  readonly journal: Journal;
  readonly store: FakeStore;
  readonly source: FakeSource;
  readonly ledger: Ledger;
  stage(
    config?: ReconcileConfig,
    assignment?: Assignment,
  ): (batches: Observable<BufferedBatch>) => Observable<InsertBatch>;
}

const nothing = stateOf(-1);

/** Scripts: `claim`, `write`, `seek`, `cluster`. */
function setUp(state: PartitionState, scripts: Scripts = {}, config: Partial<LedgerConfig> = {}): Setup {
  const journal = new Journal();
  const store = new FakeStore(journal, state, scripts);
  const source = new FakeSource(journal, undefined, scripts);
  const ledger = new Ledger(store, source, {
    group: 'g1',
    owner: 'me',
    retry: { minDelayMs: 3, random: () => 0 },
    ...config,
  });
  return {
    journal,
    store,
    source,
    ledger,
    stage: (stageConfig = {}, assignment = p0) =>
      reconcileWithState(handleOf(source, assignment), ledger, new FakeSink(journal), stageConfig),
  };
}

/** What passes, as `insert 10-14`, `replay 10-14` or `skip 8-9`. */
const passing = (
  m: Marbles,
  source: string,
  batches: Record<string, BufferedBatch>,
  setup: Setup,
  config?: ReconcileConfig,
): Observable<string> =>
  m.hot<BufferedBatch>(source, batches, failure('KCR_KAFKA')).pipe(setup.stage(config), asText(briefBatch));

/** Which goes along, for the insert. */
const withoutLedger = map((batch: InsertBatch) => ({ ...batch, ledger: undefined }));

const ab = { a: chunk(9, 14), b: chunk(14, 19) };
const legend = { A: 'insert 10-14', B: 'insert 15-19', R: 'replay 10-14', Q: 'replay 15-19' };

describe('reconcileWithState', () => {
  test(
    'the diagram of its documentation',
    marbles((m) => {
      const setup = setUp(stateOf(9, [10, 14]));
      const passed = passing(m, '-a-----b--------|', { a: chunk(7, 11), b: chunk(11, 19) }, setup);
      m.expect(passed).toBeObservable('-s-----(ri)-----|', { s: 'skip 8-9', r: 'replay 10-14', i: 'insert 15-19' });
      m.flush();
      expect(setup.journal.lines).toEqual(['0 claim 0', '0 seek 0:10', '7 write 0: settled 9, in doubt 10-14 15-19']);
    }),
  );

  test(
    'what was fetched while the claim was under way is not fetched twice when the source begins where the state resumes',
    marbles((m) => {
      const setup = setUp(stateOf(9, [10, 14]), { claim: '--k' });
      const source = m.hot<BufferedBatch>('-a-----|', { a: chunk(9, 16) });
      const passed = source.pipe(setup.stage({}, tenure(0, 1, 10)), asText(briefBatch));
      m.expect(passed).toBeObservable('--(RI)-|', { R: 'replay 10-14', I: 'insert 15-16' });
      m.flush();
      expect(setup.journal.lines.filter((line) => line.includes('seek'))).toEqual([]);
    }),
  );

  test(
    'never: the partition is claimed all the same',
    marbles((m) => {
      const setup = setUp(nothing, { claim: '--k' });
      m.expect(passing(m, '-', {}, setup)).toBeObservable('-');
      m.flush();
      expect(setup.journal.lines).toEqual(['0 claim 0']);
    }),
  );

  test(
    'empty',
    marbles((m) => m.expect(passing(m, '----|', {}, setUp(nothing))).toBeObservable('----|')),
  );

  test(
    'one',
    marbles((m) => m.expect(passing(m, '-a-|', ab, setUp(nothing))).toBeObservable('-A-|', legend)),
  );

  test(
    'many',
    marbles((m) => {
      const setup = setUp(nothing, {}, { maxPending: 16 });
      m.expect(passing(m, '-a--b--|', ab, setup)).toBeObservable('-A--B--|', legend);
      m.flush();
      expect(setup.store.stateOf()).toMatchObject({
        settled: undefined,
        pending: [
          { first: 10, last: 14 },
          { first: 15, last: 19 },
        ],
      });
    }),
  );

  test(
    'an error of the source is told',
    marbles((m) => m.expect(passing(m, '-a-#', ab, setUp(nothing))).toBeObservable('-A-#', legend, 'KCR_KAFKA')),
  );

  test(
    'everything at once: a store and a source that answer without a delay',
    marbles((m) => {
      const setup = setUp(nothing);
      m.expect(of<BufferedBatch>(chunk(9, 14)).pipe(setup.stage(), asText(briefBatch))).toBeObservable('(A|)', legend);
      m.flush();
      expect(setup.journal.lines).toEqual(['0 claim 0', '0 write 0: settled none, in doubt 10-14']);
    }),
  );
});

describe('the claim', () => {
  test(
    'is made when the partition is assigned, not when its first batch comes',
    marbles((m) => {
      const setup = setUp(nothing, { claim: '--k' });
      m.expect(passing(m, '-------a', ab, setup)).toBeObservable('-------A', legend);
      m.flush();
      expect(setup.journal.of('claim')).toEqual(['0 claim 0']);
    }),
  );

  test(
    'is waited for: batches that come before it pass behind it, in order',
    marbles((m) => {
      const setup = setUp(nothing, { claim: '------k' });
      m.expect(passing(m, '-a-b------|', ab, setup)).toBeObservable('------(AB)|', legend);
    }),
  );

  test(
    'is waited for by a revoke: a partition is not released while its claim is under way',
    marbles((m) => {
      const setup = setUp(nothing, { claim: '------k' });
      m.expect(passing(m, '-|', ab, setup)).toBeObservable('------|');
    }),
  );

  test(
    'is made again while the store does not answer',
    marbles((m) => {
      const setup = setUp(nothing, { claim: ['-u', '-u', '-k'] });
      m.expect(passing(m, '-a', ab, setup)).toBeObservable('------------A', legend);
      m.flush();
      expect(setup.journal.of('claim')).toEqual(['0 claim 0', '4 claim 0', '11 claim 0']);
    }),
  );

  test(
    'that the store refuses ends the stream, and the source is left',
    marbles((m) => {
      const setup = setUp(nothing, { claim: '--s' });
      const source = m.hot<BufferedBatch>('-a-b-', ab);
      m.expect(source.pipe(setup.stage(), asText(briefBatch))).toBeObservable('--#', {}, 'KCR_STORE');
      m.expect(source).toHaveSubscriptions('^-!');
    }),
  );

  test(
    'that the store refuses at once ends the stream too',
    marbles((m) => {
      const setup = setUp(nothing, { claim: 's' });
      m.expect(passing(m, '-a-b-', ab, setup)).toBeObservable('#', {}, 'KCR_STORE');
      m.flush();
      expect(setup.journal.of('claim')).toHaveLength(1);
    }),
  );

  test(
    'I9: is dropped when the partition is lost meanwhile: it must not fence the next owner',
    marbles((m) => {
      const setup = setUp(nothing, { claim: '-----k' });
      m.expect(m.hot<BufferedBatch>('-a----', ab).pipe(setup.stage()), '^--!').toBeObservable('-');
      m.flush();
      expect(setup.journal.lines).toEqual(['0 claim 0', '3 claim 0 dropped']);
      expect(setup.store.stateOf()).toEqual(nothing);
    }),
  );
});

describe('the seek', () => {
  test(
    'sends the source behind what is settled, whatever the group’s committed offset says',
    marbles((m) => {
      const setup = setUp(stateOf(9));
      passing(m, '-', {}, setup).subscribe();
      m.flush();
      expect(setup.journal.of('seek')).toEqual(['0 seek 0:10']);
    }),
  );

  test(
    'sends the source to the first range in doubt',
    marbles((m) => {
      const setup = setUp(stateOf(9, [10, 14], [15, 19]));
      passing(m, '-', {}, setup).subscribe();
      m.flush();
      expect(setup.journal.of('seek')).toEqual(['0 seek 0:10']);
    }),
  );

  test.each([
    ['sought', 0],
    ['begun', 10],
  ])('is followed by how far the ranges in doubt reach, which may be more than there is room for (%s)', (_, begin) =>
    marbles((m) => {
      const setup = setUp(stateOf(9, [10, 14], [15, 19]), { seek: '--k' });
      m.hot<BufferedBatch>('-')
        .pipe(setup.stage({}, tenure(0, 1, begin)))
        .subscribe();
      m.flush();
      expect(setup.source.claims).toEqual([19]);
    })(),
  );

  test.each([
    ['a state that says where', stateOf(9)],
    ['one that says nothing', nothing],
  ])('the source hears of the claim where nothing is in doubt, with %s: it may wait for it', (_, state) =>
    marbles((m) => {
      const setup = setUp(state, { claim: '--k' });
      passing(m, '-', {}, setup).subscribe();
      m.flush();
      expect(setup.source.claims).toEqual([undefined]);
    })(),
  );

  test(
    'is not made for a partition that nothing is known of',
    marbles((m) => {
      const setup = setUp(nothing);
      passing(m, '-a', ab, setup).subscribe();
      m.flush();
      expect(setup.journal.of('seek')).toEqual([]);
    }),
  );

  test(
    'is waited for before anything passes',
    marbles((m) => {
      const setup = setUp(stateOf(9), { seek: '-----k' });
      m.expect(passing(m, '-a', ab, setup)).toBeObservable('-----A', legend);
    }),
  );

  test(
    'that fails ends the stream: the records between would be lost',
    marbles((m) => {
      const setup = setUp(stateOf(9), { seek: '--e' });
      m.expect(passing(m, '-a', ab, setup)).toBeObservable('--#', {}, 'KCR_KAFKA');
    }),
  );

  test(
    'makes records come again: what is ahead of it is left for then',
    marbles((m) => {
      const passed = passing(m, '-b--a--b', ab, setUp(stateOf(9)));
      m.expect(passed).toBeObservable('----A--B', legend);
    }),
  );

  test(
    'makes records come again: half of a range in doubt that was read before is replayed once, and whole',
    marbles((m) => {
      const passed = passing(m, '-h--w', { h: chunk(9, 12), w: chunk(9, 19) }, setUp(stateOf(9, [10, 14])));
      m.expect(passed).toBeObservable('----(RB)', legend);
    }),
  );
});

describe('I1: what is new', () => {
  test(
    'passes only once its range is stored',
    marbles((m) => {
      const setup = setUp(nothing, { write: '----k' });
      const stored = () => setup.store.stateOf().pending.length;
      const passed = m.hot<BufferedBatch>('-a', ab).pipe(
        setup.stage(),
        asText((batch) => `${briefBatch(batch)}, stored: ${stored()}`),
      );
      m.expect(passed).toBeObservable('-----A', { A: 'insert 10-14, stored: 1' });
    }),
  );

  test(
    'does not pass while the store does not answer',
    marbles((m) => {
      const setup = setUp(nothing, { write: ['-u', '-u', '-k'] });
      m.expect(passing(m, '-a', ab, setup)).toBeObservable('-------------A', legend);
    }),
  );

  test(
    'does not pass when the store refuses',
    marbles((m) => {
      const setup = setUp(nothing, { write: '-s' });
      m.expect(passing(m, '-a', ab, setup)).toBeObservable('--#', {}, 'KCR_STORE');
    }),
  );

  test(
    'I4: does not pass when another owner has claimed the partition since',
    marbles((m) => {
      const setup = setUp(nothing);
      timer(1).subscribe(() => setup.store.seize());
      m.expect(passing(m, '--a', ab, setup)).toBeObservable('--#', {}, 'KCR_FENCED');
    }),
  );

  test(
    'waits while as many as maxPending are in doubt',
    marbles((m) => {
      const setup = setUp(nothing, {}, { maxPending: 1 });
      timer(6)
        .pipe(concatMap(() => setup.ledger.of(p0).settle(14)))
        .subscribe();
      m.expect(passing(m, '-ab', ab, setup)).toBeObservable('-A----B', legend);
      m.flush();
      expect(setup.journal.of('write')).toHaveLength(2);
    }),
  );

  test(
    'is recorded with all that a replay needs',
    marbles((m) => {
      const batch = chunk(9, 14, { holes: [12] });
      const recorded = intent(10, 14, { rows: 4, atMs: 3, tokenForm: 2 });
      const token = dedupToken({
        cluster: 'c1',
        group: 'g1',
        topic: 'clicks',
        incarnation: 0,
        partition: 0,
        intent: recorded,
      });
      const passed = m.hot<BufferedBatch>('---a', { a: batch }).pipe(setUp(nothing).stage(), withoutLedger);
      const { highWatermark: _, ...plain } = batch;
      m.expect(passed).toBeObservable('---A', {
        A: { ...plain, intent: recorded, token, replay: false, ledger: undefined },
      });
    }),
  );

  test(
    'I9: a write under way is dropped when the partition is lost',
    marbles((m) => {
      const setup = setUp(nothing, { write: '-----k' });
      m.expect(m.hot<BufferedBatch>('-a----', ab).pipe(setup.stage()), '^--!').toBeObservable('-');
      m.flush();
      expect(setup.journal.of('write')).toEqual([
        '1 write 0: settled none, in doubt 10-14',
        '3 write 0: settled none, in doubt 10-14 dropped',
      ]);
      expect(setup.store.stateOf()).toEqual(nothing);
    }),
  );
});

describe('what waits for its turn: while inserts take long there are larger batches, not more', () => {
  const four = { a: chunk(9, 14), b: chunk(14, 19), c: chunk(19, 24), d: chunk(24, 29) };
  const names = {
    A: 'insert 10-14',
    B: 'insert 15-29',
    C: 'insert 15-24',
    D: 'insert 25-29',
    E: 'insert 20-29',
    F: 'insert 15-19',
    G: 'insert 20-24',
  };
  const joinUpTo = { count: 100, bytes: 1_000_000 };
  const waiting = (
    m: Marbles,
    marbleSource: string,
    config: ReconcileConfig,
    batches: Record<string, BufferedBatch> = four,
  ) => {
    const setup = setUp(nothing, { claim: '--------k' });
    return {
      setup,
      passed$: passing(m, marbleSource, batches, { ...setup, stage: (more) => setup.stage(more) }, config),
    };
  };

  test(
    'the diagram of the documentation',
    marbles((m) => {
      m.expect(waiting(m, '-a--b--c----|', { joinUpTo }).passed$).toBeObservable('--------(AC)|', names);
    }),
  );

  test(
    'becomes one behind the batch that has its turn, and is recorded as one range',
    marbles((m) => {
      const { setup, passed$ } = waiting(m, '-abcd', { joinUpTo });
      m.expect(passed$).toBeObservable('--------(AB)', names);
      m.flush();
      expect(setup.store.stateOf().pending).toMatchObject([
        { first: 10, last: 14, rows: 5 },
        { first: 15, last: 29, rows: 15 },
      ]);
    }),
  );

  test(
    'stays apart where the limit for records would be passed',
    marbles((m) => {
      m.expect(waiting(m, '-abc', { joinUpTo: { ...joinUpTo, count: 9 } }).passed$).toBeObservable(
        '--------(AF)',
        names,
      );
      m.expect(waiting(m, '-abc', { joinUpTo: { ...joinUpTo, count: 10 } }).passed$).toBeObservable(
        '--------(AC)',
        names,
      );
    }),
  );

  test(
    'stays apart where the limit for bytes would be passed',
    marbles((m) => {
      const bytes = four.b.bytes + four.c.bytes;
      m.expect(waiting(m, '-abc', { joinUpTo: { ...joinUpTo, bytes: bytes - 1 } }).passed$).toBeObservable(
        '--------(AF)',
        names,
      );
      m.expect(waiting(m, '-abc', { joinUpTo: { ...joinUpTo, bytes } }).passed$).toBeObservable('--------(AC)', names);
    }),
  );

  test(
    'stays apart where offsets lie in between: a gap is one',
    marbles((m) => {
      const { setup, passed$ } = waiting(m, '-abd', { joinUpTo, onGap: 'continue', onEvent: () => undefined });
      m.expect(passed$).toBeObservable('--------(AF)', names);
      m.flush();
      expect(setup.store.stateOf().pending).toHaveLength(2);
    }),
  );

  test(
    'stays apart unless it is asked for',
    marbles((m) => {
      m.expect(waiting(m, '-abc', {}).passed$).toBeObservable('--------(AF)', names);
    }),
  );

  test(
    'is not made to wait: what has its turn at once is a batch of its own',
    marbles((m) => {
      const setup = setUp(nothing, {}, { maxPending: 16 });
      m.expect(passing(m, '-a-b-c|', four, setup, { joinUpTo })).toBeObservable('-A-F-G|', names);
    }),
  );

  test(
    'ends with the source: everything passes, then it completes',
    marbles((m) => {
      m.expect(waiting(m, '-ab|', { joinUpTo }).passed$).toBeObservable('--------(AF|)', names);
    }),
  );
});

describe('I2: what was in doubt', () => {
  test(
    'is replayed under the recorded intent and token, whatever is left of its records',
    marbles((m) => {
      const recorded = intent(10, 14, { rows: 5, atMs: 77, settings: 'older', tables: ['db.other'], excluded: [13] });
      const setup = setUp({ ...stateOf(9), pending: [recorded], incarnation: 2 });
      const token = dedupToken({
        cluster: 'c1',
        group: 'g1',
        topic: 'clicks',
        incarnation: 2,
        partition: 0,
        intent: recorded,
      });
      const expected = {
        ...insertBatch(9, 14, { holes: [10, 13], intent: recorded, token, replay: true }),
        ledger: undefined,
      };
      m.expect(
        m.hot<BufferedBatch>('-a', { a: chunk(9, 14, { holes: [10] }) }).pipe(setup.stage(), withoutLedger),
      ).toBeObservable('-A', { A: expected });
    }),
  );

  test(
    'is replayed without a write: it is recorded already',
    marbles((m) => {
      const setup = setUp(stateOf(9, [10, 14]));
      m.expect(passing(m, '-a', ab, setup)).toBeObservable('-R', legend);
      m.flush();
      expect(setup.journal.of('write')).toEqual([]);
    }),
  );

  test(
    'I3: passes before anything new, both ranges of it',
    marbles((m) => {
      const passed = passing(
        m,
        '-a-b',
        { a: chunk(9, 17), b: chunk(17, 24) },
        setUp(stateOf(9, [10, 14], [15, 19]), {}, { maxPending: 3 }),
      );
      m.expect(passed).toBeObservable('-R-(QN)', { ...legend, N: 'insert 20-24' });
    }),
  );

  test(
    'is held until its end came, on a quiet topic for as long as it takes',
    marbles((m) => {
      const passed = passing(m, '-a--------b', { a: chunk(9, 12), b: chunk(12, 14) }, setUp(stateOf(9, [10, 14])));
      m.expect(passed).toBeObservable('----------R', legend);
    }),
  );

  test(
    'and is held when the partition is revoked stays in doubt for the next owner',
    marbles((m) => {
      const setup = setUp(stateOf(9, [10, 14]));
      m.expect(passing(m, '-a-|', { a: chunk(9, 12) }, setup)).toBeObservable('---|');
      m.flush();
      expect(setup.store.stateOf()).toEqual(stateOf(9, [10, 14]));
    }),
  );
});

describe('what is settled', () => {
  test(
    'passes without records, to be committed only',
    marbles((m) => {
      const setup = setUp(stateOf(9));
      const expected = { ...insertBatch(4, 9), records: [], bytes: 0, ledger: undefined };
      m.expect(m.hot<BufferedBatch>('-a', { a: chunk(4, 9) }).pipe(setup.stage(), withoutLedger)).toBeObservable('-A', {
        A: expected,
      });
    }),
  );
});

describe('I10: a transform that was changed while a range was in doubt', () => {
  const recordedFor = (transformVersion?: string): PartitionState => ({
    ...stateOf(9),
    pending: [intent(10, 14, transformVersion === undefined ? {} : { transformVersion })],
  });
  const replayed = (m: Marbles, state: PartitionState, transformVersion?: string) =>
    passing(m, '-a|', { a: chunk(9, 14) }, setUp(state), { transformVersion });

  test(
    'its version is recorded with each range',
    marbles((m) => {
      const setup = setUp(stateOf(9));
      passing(m, '-a|', { a: chunk(9, 14) }, setup, { transformVersion: 'v1' }).subscribe();
      m.flush();
      expect(setup.store.stateOf().pending).toMatchObject([{ first: 10, last: 14, transformVersion: 'v1' }]);
    }),
  );

  for (const [was, now] of [
    ['v1', 'v2'],
    ['v1', undefined],
  ] as const) {
    test(
      `recorded for ${was}, and it is ${now} now: the partition halts before anything is made again`,
      marbles((m) => {
        m.expect(replayed(m, recordedFor(was), now)).toBeObservable('-#', {}, 'KCR_TRANSFORM');
      }),
    );
  }

  test(
    'the same version goes on, and a range that names none: the option may be new',
    marbles((m) => {
      m.expect(replayed(m, recordedFor('v1'), 'v1')).toBeObservable('-R|', legend);
      m.expect(replayed(m, recordedFor(), 'v2')).toBeObservable('-R|', legend);
      m.expect(replayed(m, recordedFor())).toBeObservable('-R|', legend);
    }),
  );

  test(
    'it says which, of what, and what to do',
    marbles((m) => {
      const told: string[] = [];
      m.hot<BufferedBatch>('-a|', { a: chunk(9, 14) })
        .pipe(setUp(recordedFor('v1')).stage({ transformVersion: 'v2' }))
        .subscribe({ error: (error: Error) => told.push(error.message) });
      m.flush();
      expect(told[0]).toMatch(
        /transform version "v1", and it is "v2" now.*partition 0, offsets 10-14, table db.clicks.*go back to the transform and its version "v1".*drain/,
      );
    }),
  );

  test('a version that no state has room for is refused at once', () => {
    for (const transformVersion of ['', 'x'.repeat(101)])
      expect(() => setUp(nothing).stage({ transformVersion })).toThrow(
        'Expected `transformVersion` to have 1 to 100 characters',
      );
  });
});

describe('a gap in the log', () => {
  test(
    'I3: is told once the range that passes over it is stored: until then another owner may decide',
    marbles((m) => {
      const setup = setUp(stateOf(9), { write: '---k' });
      const stage = setup.stage({ onGap: 'continue', onEvent: reportTo(setup.journal) }, tenure(0, 1, 10));
      m.expect(m.hot<BufferedBatch>('-b', { b: chunk(14, 19) }).pipe(stage, asText(briefBatch))).toBeObservable(
        '----B',
        { B: 'insert 10-19' },
      );
      m.flush();
      expect(setup.journal.of('write', 'event')).toEqual(['1 write 0: settled 9, in doubt 10-19', '4 event gap']);
    }),
  );

  test(
    'in what is in doubt is told at once: its range is stored already',
    marbles((m) => {
      const setup = setUp(stateOf(9, [10, 19]));
      const stage = setup.stage({ onGap: 'continue', onEvent: reportTo(setup.journal) }, tenure(0, 1, 10));
      m.expect(m.hot<BufferedBatch>('-b', { b: chunk(14, 16) }).pipe(stage, asText(briefBatch))).toBeObservable('-');
      m.flush();
      expect(setup.journal.of('event')).toEqual(['1 event gap']);
    }),
  );

  const broken = { a: chunk(9, 14), b: chunk(16, 19) };

  test(
    'halts: records that nobody saw are not passed over in silence',
    marbles((m) => {
      m.expect(passing(m, '-a-b', broken, setUp(nothing))).toBeObservable('-A-#', legend, 'KCR_OFFSET_GAP');
    }),
  );

  test(
    'is told and gone behind with onGap continue; the next range covers it',
    marbles((m) => {
      const setup = setUp(nothing);
      m.expect(
        passing(m, '-a-b', broken, setup, { onGap: 'continue', onEvent: reportTo(setup.journal) }),
      ).toBeObservable('-A-B', legend);
      m.flush();
      expect(setup.journal.of('event')).toEqual(['3 event gap']);
    }),
  );

  test(
    'names the offsets that are gone',
    marbles((m) => {
      const told: string[] = [];
      m.hot<BufferedBatch>('-a-b', broken)
        .pipe(setUp(nothing).stage())
        .subscribe({ error: (error: Error) => told.push(error.message) });
      m.flush();
      expect(told[0]).toContain(
        'The log goes on at offset 17, but 15 was expected: 2 offsets are gone (topic clicks, partition 0, offsets 15-16)',
      );
    }),
  );
});

describe('two partitions', () => {
  test(
    'a store that is slow for one does not delay the other',
    marbles((m) => {
      const setup = setUp(nothing, { write: ['---------k', 'k'] });
      const other = { x: chunk(9, 14, { of: p1 }) };
      m.expect(passing(m, '-a', ab, setup)).toBeObservable('----------A', legend);
      m.expect(m.hot<BufferedBatch>('--x', other).pipe(setup.stage({}, p1), asText(briefBatch))).toBeObservable(
        '--A',
        legend,
      );
    }),
  );

  test(
    'a tenure that comes back claims again, and replays what the one before left in doubt',
    marbles((m) => {
      const setup = setUp(nothing);
      const again = tenure(0, 9);
      m.expect(m.hot<BufferedBatch>('-a---', ab).pipe(setup.stage(), asText(briefBatch)), '^--!').toBeObservable(
        '-A',
        legend,
      );
      m.expect(
        m
          .hot<BufferedBatch>('-----x', { x: chunk(9, 16, { of: again }) })
          .pipe(setup.stage({}, again), asText(briefBatch)),
        '----^',
      ).toBeObservable('-----(RN)', { ...legend, N: 'insert 15-16' });
    }),
  );
});

test(
  'a sink that has no route for the topic ends the stream before anything is recorded',
  marbles((m) => {
    const journal = new Journal();
    const store = new FakeStore(journal);
    const source = new FakeSource(journal);
    const ledger = new Ledger(store, source, { group: 'g1', owner: 'me' });
    const sink = {
      describe: () => {
        throw failure('KCR_CONFIG');
      },
    };
    m.expect(
      m.hot<BufferedBatch>('-a', ab).pipe(reconcileWithState(handleOf(source), ledger, sink), asText(briefBatch)),
    ).toBeObservable('-#', {}, 'KCR_CONFIG');
    m.flush();
    expect(journal.of('write')).toEqual([]);
  }),
);

test(
  'slow consumers behind it do not make it pass anything before its time',
  marbles((m) => {
    const setup = setUp(nothing, { write: '--k' });
    const slow = m.hot<BufferedBatch>('-ab', ab).pipe(
      setup.stage(),
      concatMap((batch) => of(batch).pipe(delay(5))),
      asText(briefBatch),
    );
    m.expect(slow).toBeObservable('--------A----B', legend);
  }),
);

describe('onlyInDoubt: a drain before an upgrade', () => {
  const only: ReconcileConfig = { onlyInDoubt: true };

  test(
    'lets the ranges in doubt pass, then completes: nothing new is recorded',
    marbles((m) => {
      const setup = setUp(stateOf(9, [10, 14], [15, 19]));
      const source = m.hot<BufferedBatch>('-a---b---c--|', { a: chunk(9, 14), b: chunk(14, 25), c: chunk(25, 30) });
      m.expect(source.pipe(setup.stage(only), asText(briefBatch))).toBeObservable('-R---(Q|)', legend);
      m.expect(source).toHaveSubscriptions('^----!');
      m.flush();
      expect(setup.journal.of('write')).toEqual([]);
    }),
  );

  test(
    'completes at the claim when nothing is in doubt',
    marbles((m) => {
      const setup = setUp(stateOf(9), { claim: '--k' });
      m.expect(passing(m, '-a---b---|', ab, setup, only)).toBeObservable('--|');
      m.flush();
      expect(setup.journal.of('write')).toEqual([]);
    }),
  );

  test(
    'completes at once with a store that answers at once',
    marbles((m) => m.expect(passing(m, '-a---b---|', ab, setUp(stateOf(9)), only)).toBeObservable('|')),
  );
});

describe('the state decides where to go on, not the group’s committed offset', () => {
  for (const [committed, what] of [
    [0, 'was set back'],
    [50, 'is beyond it'],
  ] as const) {
    test(
      `one that ${what} is told`,
      marbles((m) => {
        const setup = setUp(stateOf(9));
        const source = m.hot<BufferedBatch>('--|', {});
        m.expect(
          source.pipe(setup.stage({ onEvent: reportTo(setup.journal) }, tenure(0, 1, committed)), asText(briefBatch)),
        ).toBeObservable('--|');
        m.flush();
        expect(setup.journal.lines).toEqual(['0 claim 0', '0 event resumed', '0 seek 0:10']);
      }),
    );
  }
});
