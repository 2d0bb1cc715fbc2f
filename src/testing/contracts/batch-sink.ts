/**
 * The contract of a sink. Imports: model, operators/internal, ports.
 */
import { preparing, type InsertSink } from '../../../operators/internal/preparing.js';
import type { KafkaRecord } from '../../model/record.js';
import { dedupToken } from '../../model/token.js';
import type { InsertBatch } from '../../ports.js';
import { expectSame, expectThat, valueOf, type ContractCheck } from './check.js';

/** Where a row came from. */
export interface RowOrigin {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

/** Your sink, and what it has written. */
export interface SinkUnderTest {
  readonly sink: InsertSink;
  /** All rows that are there now, each with where it came from, in any order. */
  rows(): Promise<readonly RowOrigin[]>;
}

/** The records that the contract sends. */
export interface SinkContractConfig {
  /** The topic of the records. @default 'events' */
  readonly topic?: string;
  /** The value of a record. @default {"n":offset} */
  readonly value?: (offset: number) => string;
}

/** Checks for `open`, which gives a sink over a place without rows. */
export function batchSinkContract(
  open: () => SinkUnderTest | Promise<SinkUnderTest>,
  config: SinkContractConfig = {},
): readonly ContractCheck[] {
  const make = batches(config);
  const check = (name: string, run: (under: SinkUnderTest) => Promise<void>): ContractCheck => ({
    name,
    run: async () => run(await open()),
  });
  return [
    check('each record of a batch is one row once the insert has ended, and the result counts them', async (under) => {
      const result = await insert(under, make(0, 10, 14));
      expectSame(result.rows, 5, 'rows of the result');
      expectThat(
        Number.isFinite(result.bytes) && result.bytes >= 0,
        `expected bytes to be a number, got ${result.bytes}`,
      );
      await expectOffsets(under, 0, [10, 11, 12, 13, 14]);
    }),
    check('offsets without a record make no row', async (under) => {
      const { records, ...batch } = make(0, 0, 4);
      await insert(under, { ...batch, records: records.filter(({ offset }) => offset % 2 === 0) });
      await expectOffsets(under, 0, [0, 2, 4]);
    }),
    check('batches of several partitions, and one behind the other, are kept apart', async (under) => {
      await Promise.all([insert(under, make(0, 0, 4)), insert(under, make(1, 0, 4))]);
      await insert(under, make(0, 5, 9));
      await expectOffsets(under, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      await expectOffsets(under, 1, [0, 1, 2, 3, 4]);
    }),
    ...looking(make, check),
  ];
}

type Make = ReturnType<typeof batches>;

function looking(
  make: Make,
  check: (name: string, run: (under: SinkUnderTest) => Promise<void>) => ContractCheck,
): readonly ContractCheck[] {
  const ifItLooks = (name: string, run: (under: SinkUnderTest) => Promise<void>): ContractCheck =>
    check(name, async (under) =>
      'prepare' in under.sink || under.sink.verification !== undefined ? run(under) : undefined,
    );
  return [
    ifItLooks('a look finds nothing of a batch that was not inserted, and all of one that was', async (under) => {
      await insert(under, make(0, 0, 4));
      expectSame(await look(under, make(0, 0, 4)), { missing: [], doubled: [] }, 'a look for what is there');
      expectSame(
        await look(under, make(0, 5, 9)),
        { missing: [5, 6, 7, 8, 9], doubled: [] },
        'a look for another range',
      );
      expectSame(
        await look(under, make(1, 0, 4)),
        { missing: [0, 1, 2, 3, 4], doubled: [] },
        'a look for another partition',
      );
    }),
    ifItLooks(
      'a batch that is inserted once more under its token adds nothing, or a look sees that it is there',
      async (under) => {
        await insert(under, make(0, 0, 4));
        const replay = { ...make(0, 0, 4), replay: true };
        const { missing } = await look(under, replay);
        if (missing.length > 0) await insert(under, replay);
        await expectOffsets(under, 0, [0, 1, 2, 3, 4]);
      },
    ),
  ];
}

/** With an intent that says where its rows go, as the sink tells it. */
function prepared({ sink }: SinkUnderTest, batch: InsertBatch) {
  const prepares = preparing(sink);
  const intent = batch.intent && { ...batch.intent, ...prepares.describe?.(batch.assignment.topic) };
  return prepares.prepare({ ...batch, intent });
}

async function insert(under: SinkUnderTest, batch: InsertBatch) {
  const preparedInsert = prepared(under, batch);
  try {
    return await valueOf(preparedInsert.insert());
  } finally {
    preparedInsert.release();
  }
}

async function look(under: SinkUnderTest, batch: InsertBatch) {
  const preparedInsert = prepared(under, batch);
  try {
    const { missing, doubled } = await valueOf(preparedInsert.readBack('the contract asks'));
    return { missing, doubled };
  } finally {
    preparedInsert.release();
  }
}

async function expectOffsets(under: SinkUnderTest, partition: number, expected: readonly number[]): Promise<void> {
  const rows = (await under.rows()).filter((row) => row.partition === partition);
  expectSame(
    rows.map(({ offset }) => offset).sort((a, b) => a - b),
    expected,
    `offsets in partition ${partition}`,
  );
}

/** As they are recorded by reconcileWithState. */
function batches({ topic = 'events', value = (offset) => `{"n":${offset}}` }: SinkContractConfig) {
  return (partition: number, first: number, last: number): InsertBatch => {
    const records = Array.from({ length: last - first + 1 }, (_, i): KafkaRecord => ({
      offset: first + i,
      timestampMs: 1_700_000_000_000,
      key: null,
      value: Buffer.from(value(first + i)),
      headers: [],
    }));
    const bytes = records.reduce((sum, record) => sum + (record.value?.length ?? 0), 0);
    const assignment = { topic, partition, assignmentId: 1, generation: 1, startOffset: 0 };
    const intent = {
      first,
      last,
      rows: records.length,
      atMs: Date.now(),
      settings: '',
      tables: [topic],
      excluded: [],
      tokenForm: 2 as const,
    };
    const token = dedupToken({
      cluster: 'contract',
      group: 'contract',
      topic,
      topicId: undefined,
      partition,
      incarnation: 0,
      intent,
    });
    return { assignment, afterOffset: first - 1, lastOffset: last, records, bytes, intent, token, replay: false };
  };
}
