import type { Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { commit } from '../../operators/commit.js';
import { Ledger } from '../../src/ledger.js';
import type { Assignment } from '../../src/model/record.js';
import type { Partition } from '../../src/ports.js';
import type { BufferedBatch, Done, Inserted } from '../../src/stages.js';
import {
  FakeSource,
  FakeStore,
  Journal,
  failure,
  chunk,
  committed,
  p0,
  p1,
  reportTo,
  stateOf,
  type Scripts,
  handleOf,
} from '../support/fakes.js';
import { errorsAsCodes, marbles, type Marbles } from '../support/marbles.js';

const value = (lastOffset: number, assignment: Assignment = p0) =>
  ({ kind: 'inserted', assignment, lastOffset }) as Inserted<'recorded'>;
/** a ends at offset 9, b at 19; y at 9 of another partition. */
const values = { a: value(9), b: value(19), y: value(9, p1) };
/** What comes out. */
const delivered = Object.fromEntries(
  Object.entries(values).map(([name, { assignment, lastOffset }]) => [
    name,
    { kind: 'delivered', assignment, lastOffset },
  ]),
);
/** Before the insert, and what comes out. */
const taken: Record<string, BufferedBatch> = { a: chunk(-1, 9), b: chunk(9, 19) };
const passed = Object.fromEntries(Object.entries(taken).map(([name, batch]) => [name, committed(batch)]));
/** Of one's own operators, which insert by other means. */
const own: Record<string, Done> = { a: { assignment: p0, lastOffset: 9 }, b: { assignment: p0, lastOffset: 19 } };

interface Setup {
  readonly journal: Journal;
  readonly store: FakeStore;
  readonly source: FakeSource;
  readonly ledger: Ledger;
}

/** A partition that was claimed with two ranges in doubt: 0-9 and 10-19. Scripts: `write`, `commit`. */
function claimed(scripts: Scripts = {}, initial = stateOf(-1, [0, 9], [10, 19])): Setup {
  const journal = new Journal();
  const store = new FakeStore(journal, initial, { ...scripts, claim: 'k' });
  const source = new FakeSource(journal, undefined, scripts);
  const ledger = new Ledger(store, source, { group: 'g1', owner: 'me', retry: { minDelayMs: 10, random: () => 0 } });
  ledger.open(p0).subscribe();
  return { journal, store, source, ledger };
}

const effects = ({ journal }: Setup): string[] => journal.of('write', 'commit');
const passing = (m: Marbles, marbleSource: string, { source, ledger }: Setup, assignment = p0): Observable<unknown> =>
  m
    .hot<Inserted<'recorded'>>(marbleSource, values, failure('KCR_FENCED'))
    .pipe(commit(handleOf(source, assignment), ledger), errorsAsCodes());

describe('commit', () => {
  test(
    'the diagram of its documentation',
    marbles((m) => {
      const setup = claimed({ write: '--k', commit: '--k' });
      m.expect(passing(m, '-a-------b------|', setup)).toBeObservable('-----a-------b--|', delivered);
      m.flush();
      expect(effects(setup)).toEqual([
        '1 write 0: settled 9, in doubt 10-19',
        '3 commit 0:10',
        '9 write 0: settled 19',
        '11 commit 0:20',
      ]);
    }),
  );

  test(
    'never',
    marbles((m) => m.expect(passing(m, '-', claimed())).toBeObservable('-')),
  );

  test(
    'empty',
    marbles((m) => m.expect(passing(m, '--|', claimed())).toBeObservable('--|')),
  );

  test(
    'an error of the source is told',
    marbles((m) => m.expect(passing(m, '-a-#', claimed())).toBeObservable('-a-#', delivered, 'KCR_FENCED')),
  );

  test(
    'an error of the source waits for its turn: what was delivered before it is settled and committed',
    marbles((m) => {
      const setup = claimed({ write: '--k', commit: '--k' });
      m.expect(passing(m, '-a#', setup)).toBeObservable('-----(a#)', delivered, 'KCR_FENCED');
    }),
  );

  test(
    'a source that completes is not an excuse: what is under way is settled and committed',
    marbles((m) =>
      m.expect(passing(m, '-a|', claimed({ write: '--k', commit: '--k' }))).toBeObservable('-----(a|)', delivered),
    ),
  );

  test(
    'I9: an unsubscription (the partition is lost) settles and commits nothing more',
    marbles((m) => {
      const setup = claimed({ write: '---k', commit: '---k' });
      m.expect(passing(m, '-(ab)----', setup), '^--!').toBeObservable('-');
      m.flush();
      expect(effects(setup)).toEqual([
        '1 write 0: settled 9, in doubt 10-19',
        '3 write 0: settled 9, in doubt 10-19 dropped',
      ]);
    }),
  );

  test(
    'I9: an unsubscription between settling and committing makes no commit',
    marbles((m) => {
      const setup = claimed({ write: '---k', commit: '---k' });
      m.expect(passing(m, '-a-----', setup), '^----!').toBeObservable('-');
      m.flush();
      expect(effects(setup)).toEqual([
        '1 write 0: settled 9, in doubt 10-19',
        '4 commit 0:10',
        '5 commit 0:10 dropped',
      ]);
    }),
  );

  test(
    'values pass unchanged, in order, one at a time',
    marbles((m) => {
      const setup = claimed({ commit: '---k' });
      m.expect(passing(m, '-(ab)-------|', setup)).toBeObservable('----a--b----|', delivered);
    }),
  );

  test(
    'a value passes only when its commit has ended: at-most-once inserts behind it',
    marbles((m) => {
      const { source } = claimed({ commit: '----k' });
      m.expect(m.hot('-a----|', own).pipe(commit(handleOf(source)))).toBeObservable('-----a|', own);
    }),
  );

  test(
    'two partitions have two books: one that waits for the store does not hold up the other',
    marbles((m) => {
      const setup = claimed({ write: ['-----k', '-k'] }, stateOf(-1, [0, 9]));
      setup.ledger.open(p1).subscribe();
      m.expect(passing(m, '-a', setup)).toBeObservable('------a', delivered);
      m.expect(passing(m, '--y', setup, p1)).toBeObservable('---y', delivered);
      m.flush();
      expect(setup.journal.of('write')).toEqual(['1 write 0: settled 9', '2 write 1: settled 9']);
    }),
  );
});

describe('I6: what is committed', () => {
  test(
    'is never beyond what is settled: a settle that fails makes no commit',
    marbles((m) => {
      const setup = claimed({ write: '-s' });
      m.expect(passing(m, '-a', setup)).toBeObservable('--#', {}, 'KCR_STORE');
      m.flush();
      expect(setup.journal.of('commit')).toEqual([]);
    }),
  );

  test(
    'waits for as long as the store does not answer',
    marbles((m) => {
      const setup = claimed({ write: ['-u', '-u', '-k'] });
      m.expect(passing(m, '-a', setup)).toBeObservable('34ms a', delivered);
      m.flush();
      expect(setup.journal.of('commit')).toEqual(['34 commit 0:10']);
    }),
  );

  test(
    'is not committed by a former owner: KCR_FENCED ends the stream',
    marbles((m) => {
      const setup = claimed();
      setup.store.seize();
      m.expect(passing(m, '-a', setup)).toBeObservable('-#', {}, 'KCR_FENCED');
      m.flush();
      expect(setup.journal.of('commit')).toEqual([]);
      expect(setup.store.stateOf()).toEqual(stateOf(-1, [0, 9], [10, 19]));
    }),
  );

  test(
    'a range that was settled before is committed without a write: Kafka’s offset lagged behind a crash',
    marbles((m) => {
      const setup = claimed({}, stateOf(19));
      m.expect(passing(m, '-a', setup)).toBeObservable('-a', delivered);
      m.flush();
      expect(effects(setup)).toEqual(['1 commit 0:20']);
    }),
  );

  test(
    'a batch that was never recorded is not settled: it ends the stream',
    marbles((m) => {
      const setup = claimed({}, stateOf(-1, [0, 9]));
      m.expect(passing(m, '-b', setup)).toBeObservable('-#', {}, 'KCR_INTERNAL');
    }),
  );

  test(
    'a ledger that did not claim the partition ends the stream: nothing is committed unsettled',
    marbles((m) => {
      const setup = claimed();
      m.expect(passing(m, '-y', setup, p1)).toBeObservable('-#', {}, 'KCR_INTERNAL');
      m.flush();
      expect(effects(setup)).toEqual([]);
    }),
  );

  test(
    'without a ledger it is the end of the batch',
    marbles((m) => {
      const setup = claimed();
      m.expect(m.hot('-ab|', own).pipe(commit(handleOf(setup.source)))).toBeObservable('-ab|', own);
      m.flush();
      expect(effects(setup)).toEqual(['1 commit 0:10', '2 commit 0:20']);
    }),
  );
});

describe('a commit that fails', () => {
  test(
    'passes with a ledger, and is told: the settled state is what counts',
    marbles((m) => {
      const setup = claimed({ commit: ['-e', '-k'] });
      m.expect(passing(m, '-a--b', setup)).toBeObservable('--a--b', delivered);
      m.flush();
      expect(setup.store.stateOf()).toEqual(stateOf(19));
    }),
  );

  test(
    'passes without a ledger: the records come again, which is what at-least-once means',
    marbles((m) => {
      const { source } = claimed({ commit: '-e' });
      m.expect(m.hot('-a', own).pipe(commit(handleOf(source)))).toBeObservable('--a', own);
    }),
  );

  test(
    'passes when the group has moved on: the loss of the partition is told by the source',
    marbles((m) => {
      const setup = claimed({ commit: '-x' });
      m.expect(passing(m, '-a', setup)).toBeObservable('--a', delivered);
    }),
  );

  test(
    'is reported',
    marbles((m) => {
      const { source, journal } = claimed({ commit: '-e' });
      m.hot('-a', own)
        .pipe(commit(handleOf(source), { onEvent: reportTo(journal) }))
        .subscribe();
      m.flush();
      expect(journal.of('event')).toEqual(['2 event commitFailed']);
    }),
  );

  test(
    'is not waited for with commitOnce where it may be made again: of an unknown outcome that would end the tenure',
    marbles((m) => {
      const setup = claimed();
      m.expect(passing(m, '-a', setup)).toBeObservable('-a', delivered);
      m.expect(m.hot('-a', own).pipe(commit(handleOf(setup.source)))).toBeObservable('-a', own);
      m.flush();
      expect(setup.journal.of('commitOnce')).toEqual([]);
    }),
  );

  test(
    'a source that throws at the call is one that fails',
    marbles((m) => {
      const throwing = handleOf({
        commit: () => {
          throw failure('KCR_KAFKA');
        },
      });
      m.expect(m.hot('-a', own).pipe(commit(throwing))).toBeObservable('-a', own);
      m.expect(m.hot('-a', taken).pipe(commit(throwing), errorsAsCodes())).toBeObservable('-#', {}, 'KCR_KAFKA');
    }),
  );
});

describe('before the insert: at-most-once inserts behind the commit', () => {
  const config = { retry: { minDelayMs: 10, random: () => 0 } };
  const committing = (m: Marbles, scripts: Scripts) => {
    const setup = claimed(scripts);
    return {
      ...setup,
      values$: m
        .hot('-a', taken)
        .pipe(commit(handleOf(setup.source), { ...config, onEvent: reportTo(setup.journal) }), errorsAsCodes()),
    };
  };

  test(
    'a commit that is refused lets nothing pass',
    marbles((m) => {
      m.expect(committing(m, { commitOnce: '-e' }).values$).toBeObservable('--#', {}, 'KCR_KAFKA');
    }),
  );

  test(
    'one whose outcome is not known lets nothing pass, and is not made again: a late copy would set the group back',
    marbles((m) => {
      const { journal, values$ } = committing(m, { commitOnce: ['-x', '-k'] });
      m.expect(values$).toBeObservable('--#', {}, 'KCR_FENCED');
      m.flush();
      expect(journal.of('commitOnce', 'commit')).toEqual(['1 commitOnce 0:10']);
    }),
  );

  test(
    'one that had no effect is made again, and that is told',
    marbles((m) => {
      const { journal, values$ } = committing(m, { commitOnce: ['-b', '-b', '-k'] });
      m.expect(values$).toBeObservable('34ms a', passed);
      m.flush();
      expect(journal.of('commitOnce', 'event')).toEqual([
        '1 commitOnce 0:10',
        '2 event retry',
        '12 commitOnce 0:10',
        '13 event retry',
        '33 commitOnce 0:10',
      ]);
    }),
  );

  test(
    'a source without commitOnce commits as it can, and only a success lets the value pass',
    marbles((m) => {
      const { journal, source } = claimed({ commit: ['-k', '-e'] });
      const plain: Partition = handleOf({ commit: source.commit.bind(source) });
      m.expect(m.hot('-a-b', taken).pipe(commit(plain, config), errorsAsCodes())).toBeObservable(
        '--a-#',
        passed,
        'KCR_KAFKA',
      );
      m.flush();
      expect(journal.of('commit')).toEqual(['1 commit 0:10', '3 commit 0:20']);
    }),
  );
});
