import {
  NEVER,
  Observable,
  Subject,
  concatMap,
  delay,
  from,
  ignoreElements,
  map,
  merge,
  of,
  take,
  tap,
  throwError,
  timer,
  type ObservableInput,
} from 'rxjs';
import { describe, expect, test } from 'vitest';
import { partitionOf } from '../../operators/internal/partition.js';
import { groupByPartition, type GroupByPartitionConfig } from '../../operators/group-by-partition.js';
import type { ErrorCode, IngestError } from '../../src/errors.js';
import type { Halted } from '../../src/events.js';
import type { Assignment, Chunk } from '../../src/model/record.js';
import type { Partition, SourceEvent } from '../../src/ports.js';
import {
  FakeSource,
  Journal,
  assigned,
  chunk,
  failed,
  failure,
  fetched,
  lost,
  reportTo,
  revoked,
  tenure,
} from '../support/fakes.js';
import { asText, marbles, type Marbles } from '../support/marbles.js';

const one = tenure(1, 1);
const two = tenure(2, 2);
const oneAgain = tenure(1, 3);

const chunks = {
  a: chunk(-1, 4, { of: one }),
  b: chunk(4, 9, { of: one }),
  c: chunk(9, 14, { of: oneAgain }),
  x: chunk(-1, 0, { of: two }),
  y: chunk(0, 1, { of: two }),
};

/** `a`, `b`, `c` are chunks of partition 1, `x` and `y` of partition 2; capitals begin and end their tenures. */
function eventsOf(journal: Journal): Record<string, SourceEvent> {
  const revoking = (assignment: Assignment) =>
    revoked(assignment, () => journal.note(`released ${assignment.partition}`));
  return {
    A: assigned(one),
    B: assigned(two),
    C: assigned(oneAgain),
    F: failed(one, failure('KCR_OFFSET_RANGE')),
    R: revoking(one),
    S: revoking(two),
    L: lost(two),
    K: lost(one),
    ...Object.fromEntries(Object.entries(chunks).map(([letter, value]) => [letter, fetched(value)])),
  };
}

interface Value {
  readonly lastOffset: number;
  readonly of: Assignment;
}

/** A stand-in for the stages behind: each chunk takes four frames, in order. */
const inserting = ({ assignment, chunks: chunks$ }: Partition): Observable<Value> =>
  chunks$.pipe(concatMap(({ lastOffset }) => of({ lastOffset, of: assignment }).pipe(delay(4))));

/** `x` for what comes of the chunk x, `H…` for a partition that halted. */
function text(value: Value | Halted): string {
  if ('kind' in value) return `${value.assignment.partition} halted: ${value.error.code}`;
  return Object.entries(chunks).find(
    ([, each]) => each.assignment === value.of && each.lastOffset === value.lastOffset,
  )![0];
}

interface Run {
  readonly journal: Journal;
  readonly grouped: Observable<string>;
  readonly events: ReturnType<Marbles['hot']>;
}

type Project = (partition: Partition) => ObservableInput<Value>;

function run(m: Marbles, marbleEvents: string, project: Project = inserting, config: GroupByPartitionConfig = {}): Run {
  const journal = new Journal();
  const events = m.hot<SourceEvent>(marbleEvents, eventsOf(journal), 'broken');
  const source = new FakeSource(journal, events);
  return { journal, events, grouped: events.pipe(groupByPartition(source, project, config), asText(text)) };
}

/** What was subscribed to and dropped of the inner streams. */
const watched =
  (journal: Journal, project: Project): Project =>
  (partition) =>
    journal.call(`pipeline ${partition.assignment.partition}`, merge(project(partition), NEVER.pipe(ignoreElements())));

describe('groupByPartition', () => {
  test(
    'the diagram of its documentation',
    marbles((m) => {
      const { grouped, journal } = run(m, '-A-B-a-x-b-R---y-L-|');
      m.expect(grouped).toBeObservable('   ---------a-x-b-----|');
      m.flush();
      expect(journal.lines).toEqual(['9 done 1:4', '11 done 2:0', '13 done 1:9', '13 released 1']);
    }),
  );

  test(
    'never',
    marbles((m) => {
      const { grouped, events } = run(m, '-');
      m.expect(grouped).toBeObservable('-');
      m.expect(events).toHaveSubscriptions('^');
    }),
  );

  test(
    'empty',
    marbles((m) => {
      const { grouped, events } = run(m, '--|');
      m.expect(grouped).toBeObservable('--|');
      m.expect(events).toHaveSubscriptions('^-!');
    }),
  );

  test(
    'a partition without a chunk',
    marbles((m) => {
      const { grouped } = run(m, '-A-R-|');
      m.expect(grouped).toBeObservable('-----|');
    }),
  );

  test(
    'one chunk of one partition',
    marbles((m) => {
      const { grouped } = run(m, '-A-a-|');
      m.expect(grouped).toBeObservable('-------(a|)');
    }),
  );

  test(
    'an error of the source is told, and what was under way is discarded',
    marbles((m) => {
      const { grouped, journal, events } = run(m, '-A-a-#');
      m.expect(grouped).toBeObservable('-----#', {}, 'broken');
      m.expect(events).toHaveSubscriptions('^----!');
      m.flush();
      expect(journal.of('done')).toEqual([]);
    }),
  );

  test(
    'an early unsubscription leaves the source and discards every partition',
    marbles((m) => {
      const journal = new Journal();
      const { grouped, events } = run(m, '-A-B-a-x-', watched(journal, inserting));
      m.expect(grouped, '^-------!').toBeObservable('-');
      m.expect(events).toHaveSubscriptions('^-------!');
      m.flush();
      expect(journal.lines).toEqual(['1 pipeline 1', '3 pipeline 2', '8 pipeline 1 dropped', '8 pipeline 2 dropped']);
    }),
  );

  test(
    'taking enough leaves the source',
    marbles((m) => {
      const { grouped, events } = run(m, '-A-a---b---');
      m.expect(grouped.pipe(take(1))).toBeObservable('-------(a|)');
      m.expect(events).toHaveSubscriptions('^------!');
    }),
  );
});

describe('two partitions', () => {
  test(
    'a slow insert on one does not delay the other',
    marbles((m) => {
      const slow: Project = (partition) => inserting(partition).pipe(delay(partition.assignment === one ? 20 : 0));
      const { grouped } = run(m, '-A-B-a-x-y-|', slow);
      m.expect(grouped).toBeObservable('-----------x---y 13ms (a|)');
    }),
  );

  test(
    'there is no limit on how many run at once: none is starved',
    marbles((m) => {
      const journal = new Journal();
      const tenures = Array.from({ length: 50 }, (_, i) => tenure(i, i + 1));
      const events = new Subject<SourceEvent>();
      const values: number[] = [];
      events
        .pipe(groupByPartition(new FakeSource(journal, events), inserting))
        .subscribe((value) => values.push((value as Value).of.partition));
      for (const each of tenures) events.next(assigned(each));
      for (const each of tenures) events.next(fetched(chunk(-1, 0, { of: each })));
      m.flush();
      expect(values).toHaveLength(50);
      expect(new Set(journal.of('done').map((line) => line.split(' ')[0]))).toEqual(new Set(['4']));
    }),
  );

  test(
    'each value returns its bytes to the source, so that it fetches on',
    marbles((m) => {
      const { grouped, journal } = run(m, '-A-B-a-x-b-y-|');
      grouped.subscribe();
      m.flush();
      expect(journal.of('done')).toEqual(['9 done 1:4', '11 done 2:0', '13 done 1:9', '15 done 2:1']);
    }),
  );
});

describe('a revoked partition', () => {
  test(
    'finishes what is under way, and is released only then',
    marbles((m) => {
      const { grouped, journal } = run(m, '-A-a-R----------|');
      m.expect(grouped).toBeObservable('  -------a--------|');
      m.flush();
      expect(journal.lines).toEqual(['7 done 1:4', '7 released 1']);
    }),
  );

  test(
    'flushes: the inner stream sees its chunks complete',
    marbles((m) => {
      const last: Project = ({ chunks: chunks$, assignment }) =>
        new Observable<Value>((subscriber) => {
          let latest: Chunk | undefined;
          return chunks$.subscribe({
            next: (value) => (latest = value),
            complete: () => {
              if (latest !== undefined) subscriber.next({ lastOffset: latest.lastOffset, of: assignment });
              subscriber.complete();
            },
          });
        });
      const { grouped } = run(m, '-A-a-b-R--|', last);
      m.expect(grouped).toBeObservable('-------b--|');
    }),
  );

  test(
    'takes no further chunk',
    marbles((m) => {
      const { grouped } = run(m, '-A-a-R-b-------|');
      m.expect(grouped).toBeObservable('-------a-------|');
    }),
  );

  test(
    'is released though its pipeline fails, and the failure is told first',
    marbles((m) => {
      const failing: Project = ({ chunks: chunks$ }) =>
        chunks$.pipe(concatMap(() => timer(6).pipe(concatMap(() => throwError(() => failure('KCR_POISON'))))));
      const { grouped, journal } = run(m, '-A-a-R-------|', failing);
      m.expect(grouped.pipe(tap((each) => journal.note(each)))).toBeObservable('---------h---|', {
        h: '1 halted: KCR_POISON',
      });
      m.flush();
      expect(journal.lines).toEqual(['9 halt 1', '9 1 halted: KCR_POISON', '9 released 1']);
    }),
  );

  test(
    'is released though the source completes meanwhile',
    marbles((m) => {
      const { grouped, journal } = run(m, '-A-a-R|');
      m.expect(grouped).toBeObservable('-------(a|)');
      m.flush();
      expect(journal.of('released')).toEqual(['7 released 1']);
    }),
  );

  test(
    'is discarded when the drain takes too long and the source says that it is lost',
    marbles((m) => {
      const { grouped, journal } = run(m, '-B-x-S-L------|');
      m.expect(grouped).toBeObservable('--------------|');
      m.flush();
      expect(journal.lines).toEqual([]);
    }),
  );

  test(
    'comes back as a new tenure with a pipeline of its own',
    marbles((m) => {
      const { grouped } = run(m, '-A-a-R---C-c-------|');
      m.expect(grouped).toBeObservable('-------a-------c---|');
    }),
  );
});

describe('a lost partition', () => {
  test(
    'I9: is discarded at once, before its next tenure begins',
    marbles((m) => {
      const journal = new Journal();
      const { grouped } = run(m, '-A-a-(KC)-c-----', watched(journal, inserting));
      m.expect(grouped).toBeObservable('--------------c-', { c: 'c' });
      m.flush();
      expect(journal.lines).toEqual(['1 pipeline 1', '5 pipeline 1 dropped', '5 pipeline 1']);
    }),
  );

  test(
    'does not disturb the other',
    marbles((m) => {
      const { grouped } = run(m, '-A-B-a-x-L----|');
      m.expect(grouped).toBeObservable('---------a----|');
    }),
  );

  test(
    'emits nothing more, even what its pipeline emits while it is being torn down',
    marbles((m) => {
      const last: Project = (partition) =>
        new Observable<Value>((subscriber) => {
          const inner = partition.chunks.subscribe();
          return () => {
            subscriber.next({ lastOffset: 0, of: two });
            inner.unsubscribe();
          };
        });
      const { grouped, journal } = run(m, '-B-x-L-|', last);
      m.expect(grouped).toBeObservable('-------|');
      m.flush();
      expect(journal.of('done')).toEqual([]);
    }),
  );
});

test(
  'a pipeline that completes by itself is told as finished, one that was revoked is not: a drain waits for it',
  marbles((m) => {
    const first: Project = (partition) =>
      inserting(partition.assignment === one ? { ...partition, chunks: partition.chunks.pipe(take(1)) } : partition);
    const told: string[] = [];
    const { grouped } = run(m, '-A-B-a-x-S---|', first, {
      onEvent: ({ kind, ...event }) =>
        void ('assignment' in event && told.push(`${kind} ${event.assignment.partition}`)),
    });
    m.expect(grouped).toBeObservable('---------a-x-|');
    m.flush();
    expect(told.filter((line) => line.startsWith('finished') || line.startsWith('released'))).toEqual([
      'finished 1',
      'released 2',
    ]);
  }),
);

describe('a partition whose pipeline fails', () => {
  const poisonOn =
    (assignment: Assignment): Project =>
    (partition) =>
      partition.assignment === assignment
        ? partition.chunks.pipe(
            map(() => {
              throw failure('KCR_POISON');
            }),
          )
        : inserting(partition);

  test(
    'halts: it is told, no more of it is fetched, nothing of it is done; the other goes on',
    marbles((m) => {
      const { grouped, journal } = run(m, '-A-B-a-x-b-y-------|', poisonOn(one));
      m.expect(grouped).toBeObservable('-----h-----x---y---|', { h: '1 halted: KCR_POISON', x: 'x', y: 'y' });
      m.flush();
      expect(journal.lines).toEqual(['5 halt 1', '11 done 2:0', '15 done 2:1']);
    }),
  );

  test(
    'is released at once when it is revoked later: a rebalance does not wait for it',
    marbles((m) => {
      const { grouped, journal } = run(m, '-A-a---R-|', poisonOn(one));
      grouped.subscribe();
      m.flush();
      expect(journal.lines).toEqual(['3 halt 1', '7 released 1']);
    }),
  );

  test(
    'KCR_FENCED only discards it: it is somebody else’s, nothing is wrong',
    marbles((m) => {
      const fenced: Project = (partition) =>
        partition.assignment === one ? throwError(() => failure('KCR_FENCED')) : inserting(partition);
      const { grouped, journal } = run(m, '-A-B-a-x---------|', fenced);
      m.expect(grouped).toBeObservable('-----------x-----|');
      m.flush();
      expect(journal.of('halt')).toEqual(['1 halt 1']);
    }),
  );

  test(
    'KCR_FENCED has the source renew it: a claim that came late must not leave it idle until the next rebalance',
    marbles((m) => {
      const fenced: Project = (partition) =>
        partition.assignment === one ? throwError(() => failure('KCR_FENCED')) : inserting(partition);
      const { grouped, journal } = run(m, '-A----K-C-c------|', fenced);
      m.expect(grouped).toBeObservable('--------------c--|');
      m.flush();
      expect(journal.of('halt', 'reassign', 'done')).toEqual(['1 halt 1', '1 reassign 1', '14 done 1:14']);
    }),
  );

  test(
    'KCR_FENCED while it is being revoked releases it, and nothing is renewed',
    marbles((m) => {
      const fenced: Project = ({ chunks: chunks$ }) => chunks$.pipe(ignoreElements(), failingAtTheEnd('KCR_FENCED'));
      const { grouped, journal } = run(m, '-A-a-R-|', fenced);
      m.expect(grouped).toBeObservable('-------|');
      m.flush();
      expect(journal.of('released', 'reassign')).toEqual(['5 released 1']);
    }),
  );

  test(
    'a partition that the source cannot go on with halts like one whose pipeline fails; the other goes on',
    marbles((m) => {
      const { grouped, journal } = run(m, '-A-B-a-x-b-F-y-------|');
      m.expect(grouped).toBeObservable('   ---------a-(hx)--y---|', {
        h: '1 halted: KCR_OFFSET_RANGE',
        a: 'a',
        x: 'x',
        y: 'y',
      });
      m.flush();
      expect(journal.of('halt')).toEqual(['11 halt 1']);
    }),
  );

  test(
    'the failure is told though the source has completed already: a drain does not swallow poison',
    marbles((m) => {
      const late: Project = (partition) =>
        inserting(partition).pipe(
          tap(() => {
            throw failure('KCR_POISON');
          }),
        );
      const { grouped } = run(m, '-A-a-|', late);
      m.expect(grouped).toBeObservable('-------(h|)', { h: '1 halted: KCR_POISON' });
    }),
  );

  test('the failure is told though the source completes as soon as the partition is released', () => {
    const journal = new Journal();
    const events = new Subject<SourceEvent>();
    const told: string[] = [];
    const grouped = events.pipe(
      groupByPartition(new FakeSource(journal, events), ({ chunks: chunks$ }) =>
        chunks$.pipe(ignoreElements(), failingAtTheEnd()),
      ),
    );
    grouped.pipe(asText(text)).subscribe({ next: (each) => told.push(each), complete: () => told.push('complete') });
    events.next(assigned(one));
    events.next(revoked(one, () => events.complete()));
    expect(told).toEqual(['1 halted: KCR_POISON', 'complete']);
  });

  test(
    'a project that throws halts its partition',
    marbles((m) => {
      const throwing: Project = (partition) => {
        if (partition.assignment === one) throw new Error('no route');
        return inserting(partition);
      };
      const { grouped } = run(m, '-A-B-x---|', throwing);
      m.expect(grouped).toBeObservable('-h-------(x|)', { h: '1 halted: KCR_TRANSFORM', x: 'x' });
    }),
  );

  test(
    'a project that does not listen to its chunks halts its partition instead of dropping them',
    marbles((m) => {
      const deaf: Project = () => NEVER;
      const { grouped, journal } = run(m, '-A-a-b-|', deaf);
      m.expect(grouped).toBeObservable('---h---|', { h: '1 halted: KCR_INTERNAL' });
      m.flush();
      expect(journal.lines).toEqual(['3 halt 1']);
    }),
  );

  test(
    'what is told of an operator that threw, or never listened, says what happened and what to do',
    marbles((m) => {
      const errorOf = (project: Project): IngestError | undefined => {
        let error: IngestError | undefined;
        const events$ = m.cold('-A-a', eventsOf(new Journal()));
        events$.pipe(groupByPartition(new FakeSource(new Journal()), project)).subscribe((one) => {
          if ('kind' in one) error = one.error;
        });
        m.flush();
        return error;
      };
      expect(errorOf(() => NEVER)).toMatchObject({
        reason: 'the project has not subscribed to its chunks',
        fields: { hint: expect.stringContaining('subscribe to partition.chunks when the project is called') as string },
      });
      const throwing: Project = (partition) =>
        partition.chunks.pipe(
          map(() => {
            throw new Error('no field');
          }),
        );
      expect(errorOf(throwing)).toMatchObject({
        code: 'KCR_TRANSFORM',
        fields: { first: 0, last: 4, hint: expect.stringContaining('mend the operator and start again') as string },
      });
    }),
  );
});

describe('a partition that goes while its pipeline gives values at once', () => {
  test('gives nothing more, and is not released once it is lost', () => {
    const events = new Subject<SourceEvent>();
    const released: string[] = [];
    const told: number[] = [];
    const twoAtOnce: Project = ({ assignment }) =>
      of({ lastOffset: 1, of: assignment }, { lastOffset: 2, of: assignment });
    events.pipe(groupByPartition(new FakeSource(new Journal()), twoAtOnce)).subscribe((value) => {
      if ('lastOffset' in value) told.push(value.lastOffset);
      events.next(revoked(one, () => released.push('released')));
      events.next(lost(one));
    });
    events.next(assigned(one));
    expect([told, released]).toEqual([[1], []]);
  });
});

test(
  'nobody waits for the note of a halt once nobody listens: a store that is away holds up no shutdown',
  marbles((m) => {
    const journal = new Journal();
    const halting: Project = (partition) => {
      partition.onHalt(() => journal.call('note', NEVER));
      throw new Error('no route');
    };
    const { grouped } = run(m, '-A--------', halting);
    m.expect(grouped, '^---!').toBeObservable('-h', { h: '1 halted: KCR_TRANSFORM' });
    m.flush();
    expect(journal.lines).toEqual(['1 note', '4 note dropped']);
  }),
);

test('a source that cannot seek is named where the state says where to go on', () => {
  const errors: unknown[] = [];
  const partition = partitionOf({ commit: () => of(undefined) }, one, NEVER);
  from(partition.seek(5)).subscribe({ error: (error: unknown) => errors.push(error) });
  expect(errors).toMatchObject([
    { code: 'KCR_CONFIG', fields: { partition: 1, hint: expect.stringContaining('`seek`') as string } },
  ]);
});

describe('a project that ends by itself', () => {
  test(
    'leaves its partition: no more of it is fetched, and a later revoke is released',
    marbles((m) => {
      const { grouped, journal } = run(m, '-A-B-a-b-x---R-|', (partition) =>
        inserting(partition).pipe(take(partition.assignment === one ? 1 : 9)),
      );
      m.expect(grouped).toBeObservable('---------a---x-|');
      m.flush();
      expect(journal.of('halt', 'released')).toEqual(['9 halt 1', '13 released 1']);
    }),
  );

  test(
    'may leave its chunks and finish what it took: a further chunk does not disturb it',
    marbles((m) => {
      const slow: Project = ({ assignment, chunks: chunks$ }) =>
        chunks$.pipe(
          take(1),
          concatMap(({ lastOffset }) => of({ lastOffset, of: assignment }).pipe(delay(8))),
        );
      const { grouped, journal } = run(m, '-A-a-b-R------|', slow);
      m.expect(grouped).toBeObservable('-----------a--|');
      m.flush();
      expect(journal.lines).toEqual(['5 halt 1', '11 done 1:4', '11 released 1']);
    }),
  );

  test(
    'may be anything that can be observed, such as a list',
    marbles((m) => {
      const { grouped } = run(m, '-A--|', () => [{ lastOffset: 4, of: one }]);
      m.expect(grouped).toBeObservable('-a--|');
    }),
  );
});

test(
  'lifetimes are reported in their order, for logs and metrics',
  marbles((m) => {
    const journal = new Journal();
    const { grouped } = run(m, '-A-B-a-R-----L-|', inserting, { onEvent: reportTo(journal) });
    grouped.subscribe();
    m.flush();
    expect(journal.lines).toEqual([
      '1 event assigned',
      '3 event assigned',
      '7 event revoked',
      '9 event released',
      '13 event lost',
    ]);
  }),
);

function failingAtTheEnd<T>(code: ErrorCode = 'KCR_POISON'): (source: Observable<T>) => Observable<T> {
  return (source) =>
    new Observable((subscriber) => source.subscribe({ complete: () => subscriber.error(failure(code)) }));
}
