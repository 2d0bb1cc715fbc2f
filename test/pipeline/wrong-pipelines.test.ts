// Pipelines that lose or double rows do not compile: `npm run typecheck` fails where one of these does. Nothing of them runs.
import { map, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import {
  bufferCountOrTime,
  commit,
  groupByPartition,
  insertDeduped,
  reconcileWithState,
  transformBatches,
  transformRows,
  type BufferedBatch,
  type CommittedBatch,
  type Inserted,
  type Partition,
  type RecordedBatch,
} from '../../operators/index.js';
import type { Delivered } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import type { BatchSink, RecordSource, SeekableSource, StateStore, VerifiableSink } from '../../src/ports.js';

declare const p: Partition;
declare const ledger: Ledger;
declare const sink: VerifiableSink;
declare const blind: BatchSink;
declare const source: RecordSource;
declare const seekable: SeekableSource;
declare const store: StateStore;

/** Compiled, never called. */
const compiled = (pipeline: () => unknown): void => expect(pipeline).toBeTypeOf('function');
const row = { n: 1 };

describe('right pipelines compile, and their types are inferred', () => {
  test('exactly-once', () => {
    compiled((): Observable<Delivered> =>
      p.chunks.pipe(
        bufferCountOrTime(),
        reconcileWithState(p, ledger, sink),
        transformRows(({ value }) => value),
        insertDeduped(sink),
        commit(p, ledger),
      ),
    );
    compiled((): Observable<Delivered> =>
      p.chunks.pipe(
        bufferCountOrTime(),
        reconcileWithState(p, ledger, sink),
        transformBatches(map((batch) => ({ ...batch, records: [] }))),
        insertDeduped(sink),
        commit(p, ledger),
      ),
    );
    compiled((): Observable<Delivered> =>
      p.chunks.pipe(
        bufferCountOrTime(),
        transformRows(() => row),
        reconcileWithState(p, ledger, sink),
        insertDeduped(sink),
        commit(p, ledger),
      ),
    );
  });

  test('at-least-once', () =>
    compiled((): Observable<Delivered> =>
      p.chunks.pipe(
        bufferCountOrTime(),
        transformRows(() => row),
        insertDeduped(sink),
        commit(p),
      ),
    ));

  test('at-most-once', () =>
    compiled((): Observable<Delivered> =>
      p.chunks.pipe(
        bufferCountOrTime(),
        commit(p),
        transformRows(() => row),
        insertDeduped(sink),
      ),
    ));

  test('each stage makes its own', () => {
    compiled((): Observable<BufferedBatch> => p.chunks.pipe(bufferCountOrTime()));
    compiled((): Observable<RecordedBatch> => p.chunks.pipe(bufferCountOrTime(), reconcileWithState(p, ledger, sink)));
    compiled((): Observable<CommittedBatch> => p.chunks.pipe(bufferCountOrTime(), commit(p)));
    compiled((): Observable<Inserted<'recorded'>> =>
      p.chunks.pipe(bufferCountOrTime(), reconcileWithState(p, ledger, sink), insertDeduped(sink)),
    );
    compiled(() => new Ledger(store, seekable, { group: 'g', owner: 'me' }));
  });
});

describe('H6: wrong pipelines do not compile', () => {
  test('H6: settle before insert', () =>
    compiled(() =>
      // @ts-expect-error nothing of it is in the table
      p.chunks.pipe(bufferCountOrTime(), reconcileWithState(p, ledger, sink), commit(p, ledger)),
    ));

  test('H6: reconcile → commit → insert', () =>
    compiled(() =>
      // @ts-expect-error committed before it is in the table: lost when the process dies in between
      p.chunks.pipe(bufferCountOrTime(), reconcileWithState(p, ledger, sink), commit(p), insertDeduped(sink)),
    ));

  test('H6: insert under a ledger without reconcile', () => {
    // @ts-expect-error the ledger goes along with what reconcileWithState recorded, and is nobody's option
    compiled(() => p.chunks.pipe(bufferCountOrTime(), insertDeduped(sink, { ledger })));
    // @ts-expect-error a ledger is no config
    compiled(() => p.chunks.pipe(bufferCountOrTime(), insertDeduped(sink, ledger)));
  });

  test('H6: commit with a ledger what was not recorded', () =>
    compiled(() =>
      // @ts-expect-error no intent says what would have to be replayed
      p.chunks.pipe(bufferCountOrTime(), insertDeduped(sink), commit(p, ledger)),
    ));

  test('H6: commit without the ledger what was recorded', () =>
    compiled(() =>
      // @ts-expect-error it would stay in doubt for ever
      p.chunks.pipe(bufferCountOrTime(), reconcileWithState(p, ledger, sink), insertDeduped(sink), commit(p)),
    ));

  test('H6: at-most-once that retries what is in doubt', () => {
    // @ts-expect-error what was committed is not sent again, and no option says otherwise
    compiled(() => p.chunks.pipe(bufferCountOrTime(), commit(p), insertDeduped(sink, { whenInDoubt: 'retry' })));
    compiled(() =>
      // @ts-expect-error nor is it committed once more
      p.chunks.pipe(bufferCountOrTime(), commit(p), insertDeduped(sink), commit(p, ledger)),
    );
  });

  test('H6: a transform behind reconcile that changes ranges', () => {
    compiled(() =>
      p.chunks.pipe(
        bufferCountOrTime(),
        reconcileWithState(p, ledger, sink),
        // @ts-expect-error a batch of one's own making was never recorded
        map(({ assignment, records, bytes }) => ({ assignment, records, bytes, afterOffset: 0, lastOffset: 9 })),
        insertDeduped(sink),
        commit(p, ledger),
      ),
    );
    compiled(() =>
      p.chunks.pipe(
        bufferCountOrTime(),
        reconcileWithState(p, ledger, sink),
        // @ts-expect-error a number is no bound of a range
        map((batch) => ({ ...batch, lastOffset: batch.lastOffset - 1 })),
        insertDeduped(sink),
        commit(p, ledger),
      ),
    );
    // @ts-expect-error nor is one bound the other
    compiled(() => transformBatches<RecordedBatch>(map((batch) => ({ ...batch, afterOffset: batch.lastOffset }))));
  });

  test('H6: a transform before reconcile that changes ranges', () =>
    compiled(() =>
      p.chunks.pipe(
        bufferCountOrTime(),
        // @ts-expect-error a number is no bound of a range
        map((batch) => ({ ...batch, afterOffset: 0 })),
        reconcileWithState(p, ledger, sink),
        insertDeduped(sink),
        commit(p, ledger),
      ),
    ));

  test('H6: a batch that was recorded twice, or recorded after its commit', () => {
    compiled(() =>
      // @ts-expect-error recorded already
      p.chunks.pipe(bufferCountOrTime(), reconcileWithState(p, ledger, sink), reconcileWithState(p, ledger, sink)),
    );
    // @ts-expect-error committed already
    compiled(() => p.chunks.pipe(bufferCountOrTime(), commit(p), reconcileWithState(p, ledger, sink)));
  });

  test('H6: batches that nobody has cut: nothing would notice one that is dropped', () => {
    // @ts-expect-error not by bufferCountOrTime
    compiled(() => p.chunks.pipe(reconcileWithState(p, ledger, sink)));
    // @ts-expect-error not by bufferCountOrTime
    compiled(() => p.chunks.pipe(insertDeduped(sink)));
  });

  test('H6: a partition whose pipeline ends before its commit', () => {
    compiled(() =>
      groupByPartition(source, (own) =>
        // @ts-expect-error never settled: it would stand still when as much is in doubt as may be
        own.chunks.pipe(bufferCountOrTime(), reconcileWithState(own, ledger, sink), insertDeduped(sink)),
      ),
    );
    // @ts-expect-error never committed: all of it would come again
    compiled(() => groupByPartition(source, (own) => own.chunks.pipe(bufferCountOrTime(), insertDeduped(sink))));
    // @ts-expect-error never inserted
    compiled(() => groupByPartition(source, (own) => own.chunks.pipe(bufferCountOrTime(), commit(own))));
  });

  test('H6: exactly-once into a sink that cannot look', () => {
    // @ts-expect-error after a lost answer nobody could say what is there
    compiled(() => p.chunks.pipe(bufferCountOrTime(), reconcileWithState(p, ledger, blind)));
    compiled(() => p.chunks.pipe(bufferCountOrTime(), insertDeduped(blind), commit(p)));
  });

  test('H6: exactly-once over a source that cannot say what its log holds', () => {
    // @ts-expect-error it can neither be sent to where the state goes on, nor say whether that is still there
    compiled(() => new Ledger(store, source, { group: 'g', owner: 'me' }));
  });
});

describe('H3: what is no row does not compile', () => {
  test('H3: bytes and objects do, interfaces too', () => {
    interface Flight {
      readonly delay: number;
    }
    const flight: Flight = { delay: 1 };
    compiled(() => [
      transformRows(() => flight),
      transformRows(() => [flight, new Uint8Array()]),
      transformRows(() => Buffer.from('{}')),
      transformRows(() => null),
    ]);
  });

  test('H3: a Map, a Set and a promise do not', () => {
    // @ts-expect-error would become {}
    compiled(() => transformRows(() => new Map([['a', 1]])));
    // @ts-expect-error would become {}
    compiled(() => transformRows(() => [new Set([1])]));
    // @ts-expect-error rows are made at once; transformBatches and transformThrough wait
    compiled(() => transformRows(async () => Promise.resolve(row)));
    // @ts-expect-error would become {}
    compiled(() => transformRows(() => new ArrayBuffer(8)));
  });
});
