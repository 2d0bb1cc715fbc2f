// What RxJS asks of each of its own operators, asked of each of ours: never, empty, one, many, an error in the source, an
// early unsubscription, subscriptions of the source, a state of its own for each subscription. The ports answer at once.
import { concatMap, defer, filter, map, type Observable } from 'rxjs';
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
import { Ledger } from '../../src/ledger.js';
import type { Chunk } from '../../src/model/record.js';
import type { InsertBatch, SourceEvent } from '../../src/ports.js';
import type { BufferedBatch } from '../../src/stages.js';
import {
  FakeSink,
  FakeSource,
  FakeStore,
  Journal,
  assigned,
  chunk,
  fetched,
  insertBatch,
  p0,
  range,
  tenure,
  type Scripts,
  handleOf,
} from '../support/fakes.js';
import { asText, marbles } from '../support/marbles.js';

const chunks = { a: chunk(-1, 0), b: chunk(0, 1), c: chunk(1, 2) };
const texts = { a: '0', b: '1', c: '2' };

const asEvents = concatMap((one: Chunk, index: number): SourceEvent[] =>
  index === 0 ? [assigned(p0), fetched(one)] : [fetched(one)],
);
const asInserts = map(({ afterOffset, lastOffset }: Chunk) => insertBatch(afterOffset, lastOffset));
const asBuffered = map((one: Chunk) => one as Chunk & BufferedBatch);

/** A source, store and sink that answer as the scripts say, and a ledger over them. */
function ports(scripts: Scripts = {}) {
  const journal = new Journal();
  const source = new FakeSource(journal, undefined, scripts);
  const store = new FakeStore(journal, undefined, scripts);
  return {
    journal,
    source,
    store,
    sink: new FakeSink(journal, scripts),
    ledger: new Ledger(store, source, { group: 'g', owner: 'me', maxPending: 4 }),
  };
}

/** Each operator between chunks and the text of the range that comes out. */
const operators: Readonly<Record<string, (source: Observable<Chunk>) => Observable<string>>> = {
  consume: (source) => {
    const events = source.pipe(asEvents);
    return consume(new FakeSource(new Journal(), events)).pipe(
      filter((event) => event.kind === 'fetched'),
      map((event) => range(event.chunk)),
    );
  },
  groupByPartition: (source) =>
    source.pipe(
      asEvents,
      groupByPartition(ports().source, ({ chunks: own }) => own),
      map((out) => ('kind' in out ? out.kind : range(out))),
    ),
  bufferCountOrTime: (source) => source.pipe(bufferCountOrTime({ count: 1 }), map(range)),
  // A second subscription to the same ports is a second owner; here each has its own.
  reconcileWithState: (source) =>
    defer(() => {
      const { source: own, ledger, sink } = ports();
      return source.pipe(asBuffered, reconcileWithState(handleOf(own), ledger, sink), map(range));
    }),
  insertDeduped: (source) => source.pipe(asInserts, insertDeduped(ports().sink), map(range)),
  commit: (source) => source.pipe(asBuffered, commit(handleOf(ports().source)), map(range)),
  transformRows: (source) =>
    source.pipe(
      transformRows(({ value }) => value),
      map(range),
    ),
};

for (const [name, through] of Object.entries(operators)) {
  describe(name, () => {
    const law = (
      what: string,
      [marble, subscription = '^']: readonly [string, string?],
      expected: string,
      subscribed: string,
    ) =>
      test(
        what,
        marbles((m) => {
          const source = m.hot<Chunk>(marble, chunks, 'broken');
          m.expect(through(source), subscription).toBeObservable(expected, texts, 'broken');
          m.expect(source).toHaveSubscriptions(subscribed);
        }),
      );

    law('never', ['-'], '-', '^');
    law('empty', ['--|'], '--|', '^-!');
    law('one', ['-a-|'], '-a-|', '^--!');
    law('many, the last with the end', ['-a-b-(c|)'], '-a-b-(c|)', '^----!');
    law('several at once', ['-(abc)-|'], '-(abc)-|', '^------!');
    law('an error in the source, after a value', ['-a-#'], '-a-#', '^--!');
    law('an error at once', ['#'], '#', '(^!)');
    law('an early unsubscription leaves the source', ['-a-b-c-', '^--!'], '-a-', '^--!');

    test(
      'each subscription has a state of its own',
      marbles((m) => {
        const source = m.cold<Chunk>('-a-b-|', chunks);
        const out = through(source);
        m.expect(out).toBeObservable('-a-b-|', texts);
        m.expect(out, '--^').toBeObservable('---a-b-|', texts);
        m.expect(source).toHaveSubscriptions(['^----!', '--^----!']);
      }),
    );
  });
}

describe('two partitions, interleaved', () => {
  const p1 = tenure(1, 2);
  const events = {
    A: assigned(p0),
    B: assigned(p1),
    a: fetched(chunk(-1, 0)),
    b: fetched(chunk(0, 1)),
    x: fetched(chunk(-1, 0, { of: p1 })),
    y: fetched(chunk(0, 1, { of: p1 })),
  };
  const legend = { a: '0:0', b: '0:1', x: '1:0', y: '1:1' };

  test(
    'a slow insert on one does not hold up the other, and each keeps its order',
    marbles((m) => {
      const { source, sink, ledger, journal } = ports({ 'insert 0': '------k' });
      const pipeline = m.hot<SourceEvent>('(AB)-a-x-b-y-------', events).pipe(
        groupByPartition(source, (partition) =>
          partition.chunks.pipe(
            bufferCountOrTime({ count: 1 }),
            reconcileWithState(partition, ledger, sink),
            insertDeduped(sink),
            commit(partition, ledger),
          ),
        ),
        map((out) => (out.kind === 'halted' ? out.error.code : `${out.assignment.partition}:${range(out)}`)),
      );
      m.expect(pipeline).toBeObservable('-------x---(yab)', legend);
      m.flush();
      expect(journal.of('insert')).toEqual(['5 insert 0', '7 insert p1:0', '9 insert 1', '11 insert p1:1']);
    }),
  );

  test(
    'one in its back-off, the other goes on: waits are in virtual time and double',
    marbles((m) => {
      const { source, sink, journal } = ports({ 'insert 0': ['t', 't', 't', 'k'] });
      const retry = { minDelayMs: 2, jitter: 0 };
      const pipeline = m.hot<SourceEvent>('(AB)-a-x-----------', events).pipe(
        groupByPartition(source, (partition) =>
          partition.chunks.pipe(bufferCountOrTime({ count: 1 }), insertDeduped(sink, { retry }), commit(partition)),
        ),
        map((out) => (out.kind === 'halted' ? out.error.code : `${out.assignment.partition}:${range(out)}`)),
      );
      m.expect(pipeline).toBeObservable('-------x-----------a', legend);
      m.flush();
      expect(journal.of('insert')).toEqual(['5 insert 0', '7 insert p1:0', '7 insert 0', '11 insert 0', '19 insert 0']);
    }),
  );
});

describe('bufferCountOrTime, limits that strike at the very same instant', () => {
  const buffered = (limits: Parameters<typeof bufferCountOrTime>[0]) => (source: Observable<Chunk>) =>
    source.pipe(bufferCountOrTime(limits), asText(range));

  test(
    'count and bytes: one batch',
    marbles((m) => {
      const bytes = chunks.a.bytes + chunks.b.bytes;
      m.expect(m.hot('-a-b-c-|', chunks).pipe(buffered({ count: 2, bytes, maxWaitMs: 100 }))).toBeObservable(
        '---B---(c|)',
        { B: '0-1', c: '2' },
      );
    }),
  );

  test(
    'count and time: one batch, and none that is empty',
    marbles((m) =>
      m
        .expect(m.hot('-a-b------', chunks).pipe(buffered({ count: 2, maxWaitMs: 2 })))
        .toBeObservable('---B------', { B: '0-1' }),
    ),
  );

  test(
    'time and the next chunk: the chunk that comes at that instant belongs to the one or the other, never to both',
    marbles((m) =>
      m
        .expect(m.hot('-a--b--c|', chunks).pipe(buffered({ count: 9, maxWaitMs: 3 })))
        .toBeObservable('----A---(c|)', { A: '0-1', c: '2' }),
    ),
  );

  test(
    'time and the end: one batch',
    marbles((m) => m.expect(m.hot('-a--|', chunks).pipe(buffered({ maxWaitMs: 3 }))).toBeObservable('----(a|)', texts)),
  );
});

describe('a user function that throws', () => {
  test(
    'a project: its partition halts, the source is left alone',
    marbles((m) => {
      const source = m.hot<Chunk>('-a-|', chunks);
      const out = source.pipe(
        asEvents,
        groupByPartition(ports().source, () => {
          throw new Error('no route');
        }),
        map((one) => ('kind' in one ? one.kind : 'value')),
      );
      m.expect(out).toBeObservable('-h-|', { h: 'halted' });
      m.expect(source).toHaveSubscriptions('^--!');
    }),
  );

  test(
    'a transform: the source is left',
    marbles((m) => {
      const source = m.hot<Chunk>('-a-b-|', chunks);
      const out = source.pipe(
        transformRows(({ offset, value }) => {
          if (offset === 1) throw new Error('no field');
          return value;
        }),
        asText(range),
      );
      m.expect(out).toBeObservable('-a-#', texts, 'KCR_TRANSFORM');
      m.expect(source).toHaveSubscriptions('^--!');
    }),
  );

  test(
    'a sink that throws when it is given a batch: what was before it is delivered first',
    marbles((m) => {
      const source = m.hot<Chunk>('-a-b-|', chunks);
      const { sink } = ports({ 'insert 0': '----k' });
      const throwing = {
        prepare: (batch: InsertBatch) => {
          if (batch.lastOffset === 1) throw new Error('no');
          return sink.prepare(batch);
        },
      };
      m.expect(
        source.pipe(
          asInserts,
          insertDeduped(throwing),
          map(range),
          filter((text) => text !== ''),
        ),
      ).toBeObservable('-----(a#)', texts, new Error('no'));
    }),
  );

  test(
    'what is below in the chain: the source is left, whatever stage is between',
    marbles((m) => {
      for (const through of Object.values(operators)) {
        const source = m.hot<Chunk>('-a-b-|', chunks);
        m.expect(
          through(source).pipe(
            map((text) => {
              if (text === '1') throw new Error('below');
              return text;
            }),
          ),
        ).toBeObservable('-a-#', texts, new Error('below'));
        m.expect(source).toHaveSubscriptions('^--!');
      }
    }),
  );
});
