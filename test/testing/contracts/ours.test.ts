// Our own ports keep the contracts that ship for others', and the contracts see what is broken.
import { of } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { fromRecords } from '../../../src/from-records.js';
import type { BatchSink, InsertBatch, RecordSource, StateStore } from '../../../src/ports.js';
import { memoryStore, type MemoryNodes } from '../../../src/state/memory.js';
import {
  SimulatedWorld,
  batchSinkContract,
  recordSourceContract,
  stateStoreContract,
  type ContractCheck,
  type SinkUnderTest,
} from '../../../src/testing/index.js';

function holds(name: string, checks: readonly ContractCheck[]): void {
  describe(name, () => {
    for (const check of checks) test(check.name, check.run);
  });
}

/** The checks that fail. */
async function broken(checks: readonly ContractCheck[]): Promise<readonly string[]> {
  const failed: string[] = [];
  for (const { name, run } of checks) await run().catch(() => failed.push(name));
  return failed;
}

const stores = () => {
  const nodes: MemoryNodes = new Map();
  return () => memoryStore(nodes);
};

holds('the memory store', stateStoreContract(stores()));

const simulatedSink = (): SinkUnderTest => {
  const world = new SimulatedWorld({ partitions: [20, 20] });
  const rows = () =>
    Promise.resolve(world.table.rows.map(({ partition, offset }) => ({ topic: 'simulated', partition, offset })));
  return { sink: world.process().process.sink, rows };
};
holds('the simulated sink', batchSinkContract(simulatedSink, { topic: 'simulated' }));

holds(
  'the simulated source',
  recordSourceContract(() => {
    const world = new SimulatedWorld({ partitions: [10, 10] });
    return { open: () => world.process().process.source };
  }),
);

const values = Array.from({ length: 10 }, (_, n) => ({ value: `{"n":${n}}` }));
holds(
  'fromRecords',
  recordSourceContract(() => {
    const source = fromRecords(of(...values), { topic: 'clicks' });
    return { open: () => source };
  }),
);

describe('the contracts see what is broken', () => {
  const open = stores();
  const changed = (change: (store: StateStore) => Partial<StateStore>) => () => {
    const store = open();
    return { ...store, ...change(store) };
  };

  test('a store that forgets excluded offsets', async () =>
    expect(
      await broken(
        stateStoreContract(
          changed((store) => ({
            write: (claim, state) =>
              store.write(claim, { ...state, pending: state.pending.map((intent) => ({ ...intent, excluded: [] })) }),
          })),
        ),
      ),
    ).toEqual(['what was written is read by the next claim and by a plain read, with all its fields']));

  test('a store with one key for all', async () => {
    const one = { cluster: 'c', group: 'g', topic: 't', partition: 0 };
    expect(await broken(stateStoreContract(changed((store) => ({ read: () => store.read(one) }))))).toContain(
      'keys that differ in anything are kept apart',
    );
  });

  test('a store that takes whatever is written', async () => {
    const kept = new Map<string, unknown>();
    const blind = (): StateStore => {
      const store = open();
      const nameOf = (key: object) => JSON.stringify(key);
      return {
        ...store,
        write: (claim, state) => (kept.set(nameOf(claim.key), state), of({ ...claim, state })),
        read: (key) =>
          of({
            state: (kept.get(nameOf(key)) ?? {
              settled: undefined,
              pending: [],
              incarnation: 0,
              topicId: undefined,
            }) as never,
            owner: undefined,
          }),
      };
    };
    const failed = await broken(stateStoreContract(blind));
    expect(failed).toContain(
      'a claim fences its predecessor: every later write of it fails with KCR_FENCED and leaves no trace',
    );
    expect(failed).toContain('a claim or a write that nobody subscribes to has no effect');
  });

  function sinkOf(
    insert: (batch: InsertBatch, rows: { topic: string; partition: number; offset: number }[]) => void,
    isSighted = true,
  ): () => SinkUnderTest {
    return () => {
      const rows: { topic: string; partition: number; offset: number }[] = [];
      const sink: BatchSink = {
        insert: (batch) => (insert(batch, rows), of({ rows: batch.records.length, bytes: 0 })),
        verification: {
          look: ({ assignment: { partition }, records }) =>
            of({
              missing: isSighted
                ? [...records]
                    .map(({ offset }) => offset)
                    .filter((offset) => !rows.some((row) => row.partition === partition && row.offset === offset))
                : [],
              doubled: [],
            }),
        },
      };
      return { sink, rows: () => Promise.resolve(rows) };
    };
  }
  const keep = (
    { assignment: { topic, partition }, records }: InsertBatch,
    rows: { topic: string; partition: number; offset: number }[],
  ) => void rows.push(...[...records].map(({ offset }) => ({ topic, partition, offset })));

  test('a sink that keeps rows and looks is in order', async () =>
    expect(await broken(batchSinkContract(sinkOf(keep)))).toEqual([]));
  test('a sink that keeps half of a batch', async () =>
    expect(
      await broken(
        batchSinkContract(sinkOf((batch, rows) => keep({ ...batch, records: batch.records.slice(1) }, rows))),
      ),
    ).toContain('each record of a batch is one row once the insert has ended, and the result counts them'));
  test('a sink that sees everything there', async () =>
    expect(await broken(batchSinkContract(sinkOf(keep, false)))).toEqual([
      'a look finds nothing of a batch that was not inserted, and all of one that was',
    ]));
  test('a sink that does not know partitions apart', async () =>
    expect(
      await broken(
        batchSinkContract(
          sinkOf((batch, rows) => keep({ ...batch, assignment: { ...batch.assignment, partition: 0 } }, rows)),
        ),
      ),
    ).toContain('batches of several partitions, and one behind the other, are kept apart'));

  const sources = (change: (source: RecordSource) => Partial<RecordSource>) => () => {
    const source = fromRecords(of(...values), { topic: 'clicks' });
    return { open: () => ({ ...source, ...change(source) }) };
  };
  test('a source that forgets what was committed', async () =>
    expect(await broken(recordSourceContract(sources(() => ({ commit: () => of(undefined) }))))).toEqual([
      'the next one begins where was committed',
      'a commit under an assignment that is over fails with KCR_FENCED',
    ]));
  test('a source that does not go where it is sent', async () =>
    expect(await broken(recordSourceContract(sources(() => ({ seek: () => of(undefined) }))))).toEqual([
      'where it can seek, the next chunk begins there',
    ]));
});
