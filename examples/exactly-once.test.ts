// Exactly-once as a marble test: a process dies in the middle of an insert, the next one reads the topic in other cuts,
// and still inserts the very range, under the very token, that the first one wrote down.
import {
  Ledger,
  memoryStore,
  type Assignment,
  type PreparingSink,
  type Chunk,
  type Delivered,
  type StateStore,
} from 'kafka-clickhouse-rx';
import {
  bufferCountOrTime,
  commit,
  insertDeduped,
  partitionOf,
  reconcileWithState,
} from 'kafka-clickhouse-rx/operators';
import { NEVER, of, type Observable } from 'rxjs';
import { configure } from 'rxjs-marbles';
import { expect, test } from 'vitest';

const { marbles } = configure({
  run: true,
  frameworkMatcher: true,
  assertDeepEqual: (a: unknown, e: unknown) => expect(a).toStrictEqual(e),
});

const assignment: Assignment = { topic: 'clicks', partition: 0, assignmentId: 1, generation: 1, startOffset: 0 };
const chunk = (first: number, last: number): Chunk => ({
  assignment,
  afterOffset: first - 1,
  lastOffset: last,
  highWatermark: last + 1,
  bytes: 0,
  records: Array.from({ length: last - first + 1 }, (_, i) => ({
    offset: first + i,
    timestampMs: 0,
    key: null,
    value: Buffer.from('{}'),
    headers: [],
  })),
});

/** A life of a process: its pipeline over the store that outlives it. `sent` is what it sends to the table. */
function life(store: StateStore, chunks: Observable<Chunk>, sent: string[], isAnswered: boolean) {
  const source = {
    cluster: () => of('c1'),
    log: () => of({ start: 0, end: 100 }),
    seek: () => of(undefined),
    commit: () => of(undefined),
  };
  const sink: Pick<PreparingSink, 'prepare' | 'describe'> = {
    describe: () => ({ tables: ['clicks'], settings: 's1' }),
    prepare: ({ token, records }) => ({
      insert: () => (
        sent.push(`${token}: ${records.length} rows`),
        isAnswered ? of({ rows: records.length, bytes: 0 }) : NEVER
      ),
      tokenDoubt: () => undefined,
      readBackWhenInDoubt: false,
      insertMissing: () => NEVER,
      readBack: () => NEVER,
      fill: () => NEVER,
      release: () => undefined,
    }),
  };
  const ledger = new Ledger(store, source, { group: 'g', owner: 'me' });
  const partition = partitionOf(source, assignment, chunks);
  return partition.chunks.pipe(
    bufferCountOrTime({ maxWaitMs: 3 }),
    reconcileWithState(partition, ledger, sink),
    insertDeduped(sink),
    commit(partition, ledger),
  );
}

test(
  'what was in doubt when the process died is inserted again just as it was recorded',
  marbles((m) => {
    const store = memoryStore();
    const sent: string[] = [];
    const dying = life(store, m.hot<Chunk>('-a--------------|', { a: chunk(0, 4) }), sent, false);
    const next = life(store, m.hot<Chunk>('--------b-c-----|', { b: chunk(0, 2), c: chunk(3, 7) }), sent, true);
    m.expect(dying, '                       ^-----!           ').toBeObservable('-');
    m.expect(next, '                       ------^           ').toBeObservable('-----------(xy)-|', {
      x: expect.objectContaining({ afterOffset: -1, lastOffset: 4, rows: 5, replay: true }) as Delivered,
      y: expect.objectContaining({ afterOffset: 4, lastOffset: 7, rows: 3, replay: false }) as Delivered,
    });
    m.flush();
    expect(sent).toEqual([
      'kcr2:c1:g:clicks:0:0:0-4: 5 rows',
      'kcr2:c1:g:clicks:0:0:0-4: 5 rows',
      'kcr2:c1:g:clicks:0:0:5-7: 3 rows',
    ]);
  }),
);
