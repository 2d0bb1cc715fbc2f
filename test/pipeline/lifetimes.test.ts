// The six operators composed by hand over fake ports: what becomes of a partition that is revoked, lost, fenced or
// halted while an insert is under way.
import { identity, type MonoTypeOperatorFunction, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import {
  bufferCountOrTime,
  commit,
  consume,
  groupByPartition,
  insertDeduped,
  reconcileWithState,
  transformRows,
} from '../../operators/index.js';
import type { Outcome } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import type { SourceEvent } from '../../src/ports.js';
import type { RecordedBatch } from '../../src/stages.js';
import {
  FakeSink,
  FakeSource,
  FakeStore,
  Journal,
  assigned,
  chunk,
  fetched,
  lost,
  range,
  revoked,
  stateOf,
  tenure,
  type FakeSinkConfig,
  type Scripts,
} from '../support/fakes.js';
import { asText, marbles, type Marbles } from '../support/marbles.js';

const zero = tenure(0, 1);
const one = tenure(1, 2);
const zeroAgain = tenure(0, 3);

interface Setup {
  readonly journal: Journal;
  readonly store: FakeStore;
  readonly outcomes: Observable<string>;
}

interface Setting {
  readonly scripts?: Scripts;
  readonly sink?: FakeSinkConfig;
  readonly transform?: MonoTypeOperatorFunction<RecordedBatch>;
}

/** Of partition 0: A assigned, a, b, d and h (half of a) chunks, R revoked, L lost, C assigned again, c: a and b again. Of 1: B, x and y, S. */
function exactlyOnce(
  m: Marbles,
  marbleEvents: string,
  { scripts = {}, sink: sinkConfig = {}, transform = identity }: Setting = {},
): Setup {
  const journal = new Journal();
  const events = m.hot<SourceEvent>(marbleEvents, {
    A: assigned(zero),
    B: assigned(one),
    C: assigned(zeroAgain),
    L: lost(zero),
    R: revoked(zero, () => journal.note('released 0')),
    S: revoked(one, () => journal.note('released 1')),
    a: fetched(chunk(9, 14, { of: zero })),
    h: fetched(chunk(9, 12, { of: zero })),
    b: fetched(chunk(14, 19, { of: zero })),
    d: fetched(chunk(19, 24, { of: zero })),
    c: fetched(chunk(9, 19, { of: zeroAgain })),
    x: fetched(chunk(-1, 4, { of: one })),
    y: fetched(chunk(4, 9, { of: one })),
  });
  const store = new FakeStore(journal, stateOf(-1), scripts);
  const source = new FakeSource(journal, events, scripts);
  const sink = new FakeSink(journal, scripts, sinkConfig);
  const ledger = new Ledger(store, source, { group: 'g', owner: 'me', retry: { minDelayMs: 5, random: () => 0 } });
  const outcomes = consume(source).pipe(
    groupByPartition(source, (partition) =>
      partition.chunks.pipe(
        bufferCountOrTime({ count: 5 }),
        reconcileWithState(partition, ledger, sink),
        transform,
        insertDeduped(sink, { retry: { minDelayMs: 5, random: () => 0 } }),
        commit(partition, ledger),
      ),
    ),
    asText(text),
  );
  return { journal, store, outcomes };
}

function text(outcome: Outcome): string {
  const { partition } = outcome.assignment;
  return outcome.kind === 'halted'
    ? `${partition} halted: ${outcome.error.code}`
    : `${partition}:${range(outcome)}${outcome.replay ? ' again' : ''}`;
}

const legend = { a: '0:10-14', b: '0:15-19', r: '0:10-14 again', x: '1:0-4', y: '1:5-9' };
const quick = { write: '-k', commit: '-k' };

describe('a partition that is revoked in the middle of an insert', () => {
  test(
    'is inserted, settled, committed and only then released',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-a-R-------------', { scripts: { ...quick, 'insert 10-14': '------k' } });
      m.expect(setup.outcomes).toBeObservable('------------a------', legend);
      m.flush();
      expect(setup.journal.of('insert', 'write', 'commit', 'released')).toEqual([
        '3 write 0: settled none, in doubt 10-14',
        '4 insert 10-14',
        '10 write 0: settled 14',
        '11 commit 0:15',
        '12 released 0',
      ]);
    }),
  );

  test(
    'takes along what was still being buffered',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-h-R-');
      m.expect(setup.outcomes).toBeObservable('-----h-', { h: '0:10-12' });
      m.flush();
      expect(setup.journal.of('insert', 'commit', 'released')).toEqual([
        '5 insert 10-12',
        '5 commit 0:13',
        '5 released 0',
      ]);
    }),
  );

  test(
    'is released when its claim has come, though it has nothing to insert',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-R------', { scripts: { claim: '-----k' } });
      setup.outcomes.subscribe();
      m.flush();
      expect(setup.journal.of('claim', 'released')).toEqual(['1 claim 0', '6 released 0']);
    }),
  );

  test(
    'does not keep the other partition waiting',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-B-a-x-R-y------------', { scripts: { 'insert 10-14': '-----------k' } });
      m.expect(setup.outcomes).toBeObservable('-------x---y----a-------', legend);
    }),
  );
});

describe('I9: a partition that is lost in the middle of an insert', () => {
  test(
    'is dropped at once: nothing is settled or committed, and the next tenure claims after that',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-a--(LC)----', { scripts: { ...quick, 'insert 10-14': ['------k', 'k'] } });
      m.expect(setup.outcomes).toBeObservable('-');
      m.flush();
      expect(setup.journal.of('claim', 'insert', 'write', 'commit', 'release', 'seek')).toEqual([
        '1 claim 0',
        '3 write 0: settled none, in doubt 10-14',
        '4 insert 10-14',
        '6 insert 10-14 dropped',
        '6 release 10-14',
        '6 claim 0',
        '6 seek 0:10',
      ]);
      expect(setup.store.stateOf()).toMatchObject({ settled: undefined, pending: [{ first: 10, last: 14 }] });
    }),
  );

  test(
    'is replayed by the next tenure exactly as it was recorded, then goes on',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-a--(LC)-c---', { scripts: { 'insert 10-14': ['------k', 'k'] } });
      m.expect(setup.outcomes).toBeObservable('-----------(rs)', { r: '0:10-14 again', s: '0:15-19' });
    }),
  );

  test(
    'is dropped also when the source forgot to tell that it was lost',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-a--C', { scripts: { 'insert 10-14': '------k' } });
      setup.outcomes.subscribe();
      m.flush();
      expect(setup.journal.of('insert', 'claim')).toEqual([
        '1 claim 0',
        '3 insert 10-14',
        '6 insert 10-14 dropped',
        '6 claim 0',
      ]);
    }),
  );

  test(
    'in the middle of settling leaves its range in doubt',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-a--L-', { scripts: { write: ['k', '------k'] } });
      setup.outcomes.subscribe();
      m.flush();
      expect(setup.journal.of('write', 'commit')).toEqual([
        '3 write 0: settled none, in doubt 10-14',
        '3 write 0: settled 14',
        '6 write 0: settled 14 dropped',
      ]);
    }),
  );
});

describe('a partition with a poison record', () => {
  test(
    'halts where the record is; the other goes on',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-B-a-b-x-y-', { scripts: quick, sink: { poison: 17 } });
      m.expect(setup.outcomes).toBeObservable('--------(ah)x-y', { ...legend, h: '0 halted: KCR_POISON' });
      m.flush();
      expect(setup.journal.of('halt')).toEqual(['8 halt 0']);
    }),
  );

  const poisonBehind: Setting = { scripts: { ...quick, 'insert 10-14': '-----k' }, sink: { poison: 17 } };
  const halted = { ...legend, h: '0 halted: KCR_POISON' };

  test(
    'halts only when the batch before it is settled and committed: else each restart would insert that one again',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-(ab)-------', poisonBehind);
      m.expect(setup.outcomes).toBeObservable('-----------(ah)', halted);
      m.flush();
      expect(setup.journal.of('commit')).toEqual(['10 commit 0:15']);
      expect(setup.store.stateOf()).toMatchObject({ settled: 14, pending: [{ first: 15, last: 19 }] });
    }),
  );

  test(
    'halts with its own error though more chunks come meanwhile',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-(abd)-------', poisonBehind);
      m.expect(setup.outcomes).toBeObservable('-----------(ah)', halted);
    }),
  );

  test(
    'halts likewise for a transform that throws: what is under way before it is finished',
    marbles((m) => {
      const throwing = transformRows<RecordedBatch>(({ offset, value }) => {
        if (offset === 17) throw new Error('no such field');
        return value;
      });
      const setup = exactlyOnce(m, '-A-(ab)-d-----', { ...poisonBehind, sink: {}, transform: throwing });
      m.expect(setup.outcomes).toBeObservable('-----------(ah)', { ...legend, h: '0 halted: KCR_TRANSFORM' });
      m.flush();
      expect(setup.store.stateOf()).toMatchObject({ settled: 14, pending: [{ first: 15, last: 19 }] });
      expect(setup.journal.of('halt')[0]).toBe('8 halt 0');
    }),
  );

  test(
    'halts at once when the partition is fenced meanwhile: nothing of a former owner is waited for',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-a-b--', { scripts: { 'insert 10-14': '-----k' } });
      m.hot('----s').subscribe(() => setup.store.seize(0));
      m.expect(setup.outcomes).toBeObservable('-');
      m.flush();
      expect(setup.journal.of('insert', 'halt', 'reassign')).toEqual([
        '3 insert 10-14',
        '5 insert 10-14 dropped',
        '5 halt 0',
        '5 reassign 0',
      ]);
    }),
  );
});

describe('a partition that another process claims', () => {
  test(
    'I4: writes, commits and tells nothing more; the other goes on',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-B-a---x-', { scripts: { 'insert 10-14': '---k' } });
      m.hot('------s').subscribe(() => setup.store.seize(0));
      m.expect(setup.outcomes).toBeObservable('---------x-', legend);
      m.flush();
      expect(setup.journal.of('commit', 'halt')).toEqual(['8 halt 0', '9 commit 1:5']);
      expect(setup.store.stateOf()).toMatchObject({ settled: undefined, pending: [{ first: 10, last: 14 }] });
    }),
  );
});

describe('ClickHouse is down', () => {
  test(
    'on one partition’s insert: it waits and then goes on, in order; nothing is lost',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-a-b', { scripts: { 'insert 10-14': ['c', 'c', 'k'] } });
      m.expect(setup.outcomes).toBeObservable('18ms (ab)', legend);
      m.flush();
      expect(setup.store.stateOf()).toEqual({ ...stateOf(19), began: 10 });
    }),
  );

  test(
    'a drain that cannot end leaves its ranges in doubt for the next owner',
    marbles((m) => {
      const setup = exactlyOnce(m, '-A-a-R--------L', { scripts: { 'insert 10-14': 'c' } });
      m.expect(setup.outcomes).toBeObservable('-');
      m.flush();
      expect(setup.journal.of('released', 'commit')).toEqual([]);
      expect(setup.store.stateOf()).toMatchObject({ settled: undefined, pending: [{ first: 10, last: 14 }] });
    }),
  );
});
