// Rows of a range in doubt that a look shows to be missing: under which token they go out, and what is stored before.
import { concatMap, defer, type ObservableInput } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { insertDeduped } from '../../operators/insert-deduped.js';
import { Ledger } from '../../src/ledger.js';
import { emptyState, type Intent } from '../../src/model/state.js';
import type { PreparedInsert, InsertBatch } from '../../src/ports.js';
import {
  FakeSink,
  FakeSource,
  FakeStore,
  Journal,
  briefDelivered,
  failure,
  insertBatch,
  intent,
  type FakeSinkConfig,
  type Scripts,
  recordedBy,
} from '../support/fakes.js';
import { asText, marbles, type Marbles } from '../support/marbles.js';

const retry = { minDelayMs: 3, random: () => 0 };
const legend = { R: 'delivered 10-14 again' };
const old = { tokenDoubt: 'it is old' };
const all = [10, 11, 12, 13, 14];

/** A replay of 10-14, or its first attempt, over a ledger that holds it in doubt. */
function replaying(
  m: Marbles,
  config: FakeSinkConfig,
  scripts: Scripts = {},
  fields: Partial<Intent> = {},
  replay = true,
) {
  const journal = new Journal();
  const recorded = intent(10, 14, fields);
  const batch: InsertBatch = insertBatch(9, 14, { intent: recorded, token: 't:10-14', replay });
  const store = new FakeStore(journal, { ...emptyState, settled: 9, pending: [recorded] }, scripts);
  const ledger = new Ledger(store, new FakeSource(journal), { group: 'g1', owner: 'me', retry });
  const sink = new FakeSink(journal, scripts, config);
  const delivered = ledger.open(batch.assignment).pipe(
    concatMap((opened) => m.cold('-r', { r: recordedBy(opened, batch) }).pipe(insertDeduped(sink, { retry }))),
    asText(briefDelivered),
  );
  return { journal, store, sink, delivered, calls: () => journal.of('write', 'insert', 'readBack', 'fill') };
}

/** A write that changes nothing, and is fenced. */
const isOwner = (atMs: number): string => `${atMs} write 0: settled 9, in doubt 10-14`;

describe('I4: rows that are missing', () => {
  test(
    'are not sent by one that was frozen while another owner decided of the range',
    marbles((m) => {
      const setup = replaying(m, { ...old, readBacks: [{ missing: [11, 13] }] });
      m.cold('-s').subscribe(() => setup.store.seize());
      m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_FENCED');
      m.flush();
      expect(setup.journal.of('insert')).toEqual([]);
    }),
  );

  test(
    'go out under the recorded token: an attempt under it that hangs somewhere is dropped when it lands',
    marbles((m) => {
      const setup = replaying(m, { ...old, readBacks: [{ missing: [11, 13] }, {}] });
      m.expect(setup.delivered).toBeObservable('-R', legend);
      m.flush();
      expect(setup.calls()).toEqual([
        '1 readBack 10-14 since it is old',
        isOwner(1),
        '1 insert 10-14 with 11,13',
        '1 readBack 10-14',
      ]);
      expect(setup.sink.tokens).toEqual(['t:10-14']);
    }),
  );

  test(
    'are looked for once more after that, also where a replay is not read back: only an answer under the token allows a fill',
    marbles((m) => {
      const setup = replaying(
        m,
        { ...old, readBackWhenInDoubt: false, readBacks: [{ missing: [11, 13] }, { missing: [13] }, {}] },
        { write: '--k' },
      );
      m.expect(setup.delivered).toBeObservable('-----R', legend);
      m.flush();
      expect(setup.calls()).toEqual([
        '1 readBack 10-14 since it is old',
        isOwner(1),
        '3 insert 10-14 with 11,13',
        '3 readBack 10-14',
        '3 write 0: settled 9, in doubt 10-14',
        '5 fill 10-14 with 13',
        '5 readBack 10-14',
      ]);
    }),
  );

  test(
    'are looked for again before they are sent again, when the answer was lost',
    marbles((m) => {
      const setup = replaying(
        m,
        { ...old, readBacks: [{ missing: [11, 13] }, { missing: [13] }, {}] },
        { 'insert 10-14': ['-d', '-k'] },
      );
      m.expect(setup.delivered).toBeObservable('------R', legend);
      m.flush();
      expect(setup.calls()).toEqual([
        '1 readBack 10-14 since it is old',
        isOwner(1),
        '1 insert 10-14 with 11,13',
        '5 readBack 10-14 since it is old',
        isOwner(5),
        '5 insert 10-14 with 13',
        '6 readBack 10-14',
      ]);
    }),
  );

  test(
    'that are there twice stop the partition before anything is sent',
    marbles((m) => {
      const setup = replaying(m, { ...old, readBacks: [{ missing: [11], doubled: [13] }] });
      m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_READ_BACK');
      m.flush();
      expect(setup.calls()).toEqual(['1 readBack 10-14 since it is old']);
    }),
  );
});

describe('I4: that a range is filled', () => {
  test(
    'is stored before the fill is sent',
    marbles((m) => {
      const setup = replaying(m, { readBackWhenInDoubt: true, readBacks: [{ missing: [11] }, {}] }, { write: '---k' });
      m.expect(setup.delivered).toBeObservable('----R', legend);
      m.flush();
      expect(setup.calls()).toEqual([
        '1 insert 10-14',
        '1 readBack 10-14',
        '1 write 0: settled 9, in doubt 10-14',
        '4 fill 10-14 with 11',
        '4 readBack 10-14',
      ]);
      expect(setup.store.stateOf().pending).toMatchObject([{ first: 10, last: 14, isFilling: true }]);
    }),
  );

  test(
    'is not begun by a former owner',
    marbles((m) => {
      const setup = replaying(m, { readBackWhenInDoubt: true, readBacks: [{ missing: [11] }, {}] }, { write: '--x' });
      m.expect(setup.delivered).toBeObservable('---#', {}, 'KCR_FENCED');
      m.flush();
      expect(setup.journal.of('fill')).toEqual([]);
    }),
  );

  for (const missing of [[11], all]) {
    test(
      `is gone on with by the next owner, of which ${missing.length} rows are missing: by then the server may have forgotten the recorded token`,
      marbles((m) => {
        const setup = replaying(m, { ...old, readBacks: [{ missing }, {}] }, {}, { isFilling: true });
        m.expect(setup.delivered).toBeObservable('-R', legend);
        m.flush();
        expect(setup.calls()).toEqual([
          '1 readBack 10-14 since it is old',
          `1 fill 10-14 with ${missing.join(',')}`,
          '1 readBack 10-14',
        ]);
      }),
    );
  }
});

describe('I15: a batch that was refused when some of it may have landed', () => {
  test(
    'is looked for before it goes out again, and not recorded as one that was never sent',
    marbles((m) => {
      const tokenDoubt = (_: unknown, nowMs: number) => (nowMs < 2 ? undefined : 'another table has its name');
      const refusal = (_: unknown, attempt: number) =>
        attempt === 1 ? failure('KCR_SCHEMA', { mayHaveLanded: true }) : undefined;
      const setup = replaying(m, { tokenDoubt, refusal, readBacks: [{ missing: all }] }, {}, {}, false);
      setup.delivered.subscribe();
      m.flush();
      expect(setup.calls()).toEqual([
        '1 insert 10-14',
        '4 readBack 10-14 since another table has its name',
        isOwner(4),
        '4 insert 10-14',
      ]);
    }),
  );
});

describe('I15: a fill that was begun, where a look proves nothing', () => {
  for (const missing of [[11], all]) {
    test(
      `stops the partition: ${missing.length} of its rows may be there under either token`,
      marbles((m) => {
        const setup = replaying(m, { ...old, readBacks: [{ missing, isUnproven: true }] }, {}, { isFilling: true });
        m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_READ_BACK');
        m.flush();
        expect(setup.journal.of('insert', 'fill')).toEqual([]);
      }),
    );
  }

  test(
    'is not made again when its answer was lost',
    marbles((m) => {
      const tokenDoubt = (_: unknown, nowMs: number) => (nowMs < 4 ? undefined : 'it is old');
      const setup = replaying(
        m,
        { tokenDoubt, readBackWhenInDoubt: true, readBacks: [{ missing: [11] }, { missing: all, isUnproven: true }] },
        { 'fill 10-14': '-d' },
      );
      m.expect(setup.delivered).toBeObservable('-----#', {}, 'KCR_READ_BACK');
      m.flush();
      expect(setup.journal.of('fill')).toEqual(['1 fill 10-14 with 11']);
    }),
  );

  test(
    'leaves a range that was not filled to its own token',
    marbles((m) => {
      const setup = replaying(m, { ...old, readBacks: [{ missing: all, isUnproven: true }] });
      m.expect(setup.delivered).toBeObservable('-R', legend);
      m.flush();
      expect(setup.calls()).toEqual(['1 readBack 10-14 since it is old', isOwner(1), '1 insert 10-14']);
    }),
  );
});

describe('I15: a fill that was answered and is not seen', () => {
  test(
    'is stored as such before it is told',
    marbles((m) => {
      const setup = replaying(
        m,
        { readBackWhenInDoubt: true, readBacks: [{ missing: [11] }, { missing: [11] }] },
        { write: '--k' },
      );
      m.expect(setup.delivered).toBeObservable('-----#', {}, 'KCR_READ_BACK');
      m.flush();
      expect(setup.store.stateOf().pending).toMatchObject([{ first: 10, last: 14, isFilling: true, isUnseen: true }]);
    }),
  );

  for (const config of [old, {}]) {
    test(
      `is not made again by the next owner, whose token is ${'tokenDoubt' in config ? 'old' : 'young'}: each would add a copy of the rows`,
      marbles((m) => {
        const setup = replaying(
          m,
          { ...config, readBackWhenInDoubt: true, readBacks: [{ missing: [11] }] },
          {},
          { isFilling: true, isUnseen: true },
        );
        m.expect(setup.delivered).toBeObservable('-#', {}, 'KCR_READ_BACK');
        m.flush();
        expect(setup.journal.of('insert', 'fill')).toEqual([]);
      }),
    );
  }

  test(
    'is settled by who sees it',
    marbles((m) => {
      const setup = replaying(
        m,
        { readBackWhenInDoubt: true, readBacks: [{}] },
        {},
        { isFilling: true, isUnseen: true },
      );
      m.expect(setup.delivered).toBeObservable('-R', legend);
      m.flush();
      expect(setup.journal.of('insert', 'fill')).toEqual([]);
    }),
  );
});

describe('I9: until when the server does not know what becomes of an attempt', () => {
  /** A sink whose first insert, or fill, is answered that nothing is known for 330 s. */
  function unknowing(m: Marbles, call: 'insert' | 'fill', scripts: Scripts = {}) {
    const setup = replaying(
      m,
      call === 'fill' ? { readBackWhenInDoubt: true, readBacks: [{ missing: [11] }, {}] } : {},
      scripts,
    );
    const prepare = setup.sink.prepare.bind(setup.sink);
    let isTold = false;
    setup.sink.prepare = (batch) => {
      const preparedInsert = prepare(batch);
      const answer = <T>(real: () => ObservableInput<T>) =>
        defer((): ObservableInput<T> => {
          if (isTold) return real();
          isTold = true;
          setup.journal.note('told that it is not known');
          throw failure('KCR_INSERT_IN_DOUBT', { unknownForMs: 330_000 });
        });
      return Object.assign(
        Object.create(preparedInsert) as PreparedInsert,
        call === 'insert'
          ? { insert: () => answer(() => preparedInsert.insert()) }
          : { fill: (missing: readonly number[]) => answer(() => preparedInsert.fill(missing)) },
      );
    };
    return { ...setup, notes: () => setup.store.stateOf().pending.map(({ unknownUntilMs }) => unknownUntilMs) };
  }

  for (const call of ['insert', 'fill'] as const) {
    test(
      `is stored before the ${call} is made again: who comes next waits, too`,
      marbles((m) => {
        const setup = unknowing(m, call, { write: call === 'insert' ? '--k' : ['k', '--k'] });
        setup.delivered.subscribe();
        m.flush();
        expect(setup.journal.of('told', 'write', call).slice(-3)).toEqual([
          '1 told that it is not known',
          '1 write 0: settled 9, in doubt 10-14',
          call === 'insert' ? '6 insert 10-14' : '6 fill 10-14 with 11',
        ]);
        expect(setup.notes()).toEqual([330_001]);
      }),
    );
  }

  test(
    'is not stored by a former owner, and nothing more is sent',
    marbles((m) => {
      const setup = unknowing(m, 'insert', { write: '--x' });
      m.expect(setup.delivered).toBeObservable('---#', {}, 'KCR_FENCED');
      m.flush();
      expect(setup.journal.of('insert')).toEqual([]);
    }),
  );
});
