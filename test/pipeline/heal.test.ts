// When a partition that has halted is started again, and what is stored of its halt: in virtual time.
import { Observable, Subject, concatMap, delay, map, of, throwError, timer } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { groupByPartition, type GroupByPartitionConfig } from '../../operators/group-by-partition.js';
import type { ErrorCode } from '../../src/errors.js';
import type { Halted } from '../../src/events.js';
import type { Assignment } from '../../src/model/record.js';
import type { OnHalt, Partition, SourceEvent } from '../../src/ports.js';
import { FakeSource, Journal, assigned, chunk, failure, fetched, lost, revoked, tenure } from '../support/fakes.js';
import { marbles } from '../support/marbles.js';

interface Value {
  readonly lastOffset: number;
}

const halting =
  (code: ErrorCode) =>
  ({ chunks }: Partition): Observable<Value> =>
    chunks.pipe(
      map(() => {
        throw failure(code);
      }),
    );

/** A source that a partition is started again of as often as it asks, and the waits that it was asked for. */
function healing(lives: readonly ((partition: Partition) => Observable<Value>)[], config: GroupByPartitionConfig = {}) {
  const journal = new Journal();
  const events = new Subject<SourceEvent>();
  const source = new FakeSource(journal, events);
  const waits: (number | undefined)[] = [];
  const halts: Halted[] = [];
  let life = 0;
  const begin = () => {
    const assignment = tenure(1, 10 + life);
    events.next(assigned(assignment));
    events.next(fetched(chunk(-1, 4, { of: assignment })));
  };
  source.reassign = (assignment: Assignment, afterMs?: number) => {
    waits.push(afterMs);
    events.next(lost(assignment));
    if (life < lives.length) begin();
  };
  events
    .pipe(groupByPartition(source, (partition) => lives[life++]!(partition), config))
    .subscribe((out) => 'kind' in out && halts.push(out));
  begin();
  return { waits, halts };
}

describe('a partition that halts for what may be mended from outside', () => {
  test('is started again after 10 s, then later and later up to 5 minutes: a table that is mended overnight needs nobody', () => {
    const { waits, halts } = healing(Array.from({ length: 8 }, () => halting('KCR_INSERT_FATAL')));
    expect(waits).toEqual([10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000]);
    expect(halts.map(({ healsInMs }) => healsInMs)).toEqual(waits);
  });

  test('is started again soon again once a batch was delivered: an old outage does not make the next one longer', () => {
    const bad = halting('KCR_SCHEMA');
    const onceThenBad = ({ chunks }: Partition): Observable<Value> =>
      chunks.pipe(
        concatMap(
          ({ lastOffset }) =>
            new Observable<Value>((subscriber) => {
              subscriber.next({ lastOffset });
              subscriber.error(failure('KCR_SCHEMA'));
            }),
        ),
      );
    const healed: number[] = [];
    const { waits } = healing([bad, bad, onceThenBad, bad], {
      onEvent: (event) => event.kind === 'healed' && healed.push(event.attempts),
    });
    expect(waits).toEqual([10_000, 20_000, 10_000, 20_000]);
    expect(healed).toEqual([2]);
  });

  test('waits as long as it was told to', () => {
    expect(
      healing(
        Array.from({ length: 4 }, () => halting('KCR_STORE')),
        { heal: { minDelayMs: 7, maxDelayMs: 20 } },
      ).waits,
    ).toEqual([7, 14, 20, 20]);
  });

  test('stays halted where nobody wants it started again, and so does one that halts for a record', () => {
    for (const { waits, halts } of [
      healing([halting('KCR_SCHEMA')], { heal: false }),
      healing([halting('KCR_POISON')]),
    ]) {
      expect(waits).toEqual([]);
      expect(halts).toHaveLength(1);
      expect(halts[0]).not.toHaveProperty('healsInMs');
    }
  });

  test('that is revoked meanwhile is left to its next owner at once: a rebalance does not wait for it', () => {
    const journal = new Journal();
    const events = new Subject<SourceEvent>();
    const halts: Halted[] = [];
    const atTheEnd = ({ chunks }: Partition): Observable<Value> =>
      new Observable((subscriber) => chunks.subscribe({ complete: () => subscriber.error(failure('KCR_SCHEMA')) }));
    events
      .pipe(groupByPartition(new FakeSource(journal, events), atTheEnd))
      .subscribe((out) => 'kind' in out && halts.push(out));
    const one = tenure(1, 1);
    events.next(assigned(one));
    events.next(revoked(one, () => journal.note('released')));
    expect(halts).toMatchObject([{ healsInMs: 0 }]);
    expect(journal.of('released', 'reassign')).toEqual([expect.stringMatching(/ released$/u)]);
  });

  test(
    'does not hold up a drain while it waits: the source completes, and so does the ingestion',
    marbles((m) => {
      const one = tenure(1, 1);
      const journal = new Journal();
      const events = m.hot<SourceEvent>('-A-a-R-|', {
        A: assigned(one),
        a: fetched(chunk(-1, 4, { of: one })),
        R: revoked(one, () => journal.note('released')),
      });
      const out = events.pipe(
        groupByPartition(new FakeSource(journal, events), halting('KCR_SCHEMA')),
        map(() => 'h'),
      );
      m.expect(out).toBeObservable('---h---|');
      m.flush();
      expect(journal.of('released', 'reassign')).toEqual(['3 reassign 1 after 10000', '5 released']);
    }),
  );
});

describe('while it is stored that a partition has halted', () => {
  const one = tenure(1, 1);
  const run = (
    m: Parameters<Parameters<typeof marbles>[0]>[0],
    text: string,
    note: OnHalt,
    code: ErrorCode = 'KCR_SCHEMA',
  ) => {
    const journal = new Journal();
    const events = m.hot<SourceEvent>(text, {
      A: assigned(one),
      a: fetched(chunk(-1, 4, { of: one })),
      R: revoked(one, () => journal.note('released')),
      L: lost(one),
    });
    const out = events.pipe(
      groupByPartition(
        new FakeSource(journal, events),
        (partition) => (partition.onHalt(note), halting(code)(partition)),
      ),
      map(() => 'h'),
    );
    return { journal, out };
  };
  const slow =
    (journal: () => Journal): OnHalt =>
    ({ error }, heals) =>
      journal().call(`note ${error.code} ${heals}`, timer(5));

  test(
    'its halt is told at once, and it is started again only then: the note would be fenced',
    marbles((m) => {
      const { out, journal } = run(
        m,
        '-A-a-------',
        slow(() => journal),
      );
      m.expect(out).toBeObservable('---h-------');
      m.flush();
      expect(journal.of('note', 'reassign')).toEqual(['3 note KCR_SCHEMA true', '8 reassign 1 after 10000']);
    }),
  );

  test(
    'it is neither released nor is the ingestion over: the process would end before it is stored',
    marbles((m) => {
      const { out, journal } = run(
        m,
        '-A-a-R|',
        slow(() => journal),
        'KCR_POISON',
      );
      m.expect(out).toBeObservable('---h----|');
      m.flush();
      expect(journal.of('note', 'released', 'reassign')).toEqual(['3 note KCR_POISON false', '8 released']);
    }),
  );

  test(
    'I9: it is given up when the partition is lost',
    marbles((m) => {
      const { out, journal } = run(
        m,
        '-A-a-L--------|',
        slow(() => journal),
      );
      m.expect(out).toBeObservable('---h----------|');
      m.flush();
      expect(journal.of('note', 'reassign')).toEqual(['3 note KCR_SCHEMA true', '5 note KCR_SCHEMA true dropped']);
    }),
  );

  test(
    'a note that fails changes nothing',
    marbles((m) => {
      const { out, journal } = run(m, '-A-a-R|', () => throwError(() => new Error('no store')).pipe(delay(1)));
      m.expect(out).toBeObservable('---h--|');
      m.flush();
      expect(journal.of('released', 'reassign')).toEqual(['3 reassign 1 after 10000', '5 released']);
    }),
  );

  test(
    'KCR_FENCED is not stored: the partition is another’s',
    marbles((m) => {
      const { out, journal } = run(m, '-A-a-|', () => (journal.note('note'), of(1)), 'KCR_FENCED');
      m.expect(out).toBeObservable('-----|');
      m.flush();
      expect(journal.of('note')).toEqual([]);
    }),
  );
});
