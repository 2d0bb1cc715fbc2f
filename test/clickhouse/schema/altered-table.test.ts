// A table that is altered so that it takes nothing any more: nobody's record is to blame, and the partition may heal.
import { afterEach, describe, expect, it } from 'vitest';
import { openClickHouseSink } from '../../../src/clickhouse/sink.js';
import type { PreparingSink } from '../../../src/ports.js';
import { fakeClickHouse, type FakeInsert, type FakeOptions, type FakeServer } from '../fake-server.js';
import { batchOf, intentOf, outcome, record } from '../fixtures.js';

let server: FakeServer;
let sink: PreparingSink;

afterEach(async () => {
  await outcome(sink.close());
  await server.close();
});

const batch = batchOf([record(10, { v: 1 }), record(12, { v: 2 }), record(13, { v: 3 })]);
const ours = { _topic: 'String', _partition: 'Int32', _offset: 'Int64' };

async function open(options: FakeOptions = {}): Promise<void> {
  server = await fakeClickHouse({ columns: { v: 'UInt32', ...ours }, ...options });
  sink = await openClickHouseSink({ url: server.url, routes: [{ topic: 'orders', table: 't' }] });
}

const isTrial = (sql: string): boolean => sql.includes('FROM format(');
const trials = (): readonly string[] => server.queries.filter(isTrial);
const insert = () => outcome(sink.prepare({ ...batch, intent: intentOf(sink, batch) }).insert());
/** The second attempt: the first one finds the alteration, and is tried again whatever was said. */
const refused = async (found: object, attempts = 2): Promise<void> => {
  for (let attempt = 1; attempt < attempts; attempt++)
    await expect(insert()).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' });
  await expect(insert()).rejects.toMatchObject(found);
};

/** As ClickHouse says it of the second row, or, behind its parser, of none. */
function refuse(named = true): void {
  const text = named
    ? "Code: 27. DB::Exception: Cannot parse input: expected '[' before: '2': (while reading the value of key v): (at row 2)\n: While executing JSONEachRowRowInputFormat. (CANNOT_PARSE_INPUT_ASSERTION_FAILED) (version 26.7.2.1)"
    : 'Code: 190. DB::Exception: Elements differ. (SIZES_OF_ARRAYS_DONT_MATCH) (version 26.7.2.1)';
  server.onInsert = ({ response }: FakeInsert) =>
    void response.writeHead(400, { 'x-clickhouse-exception-code': named ? '27' : '190' }).end(text);
}

function alter(): void {
  Object.assign(server.table, { columns: { v: 'Array(UInt32)', ...ours }, alteredS: 101 });
}

/** How many of the rows can be read as the table is, and as it was; a code where the server refuses to say. */
function readable(now: number, before: number | 'refused'): void {
  server.onSelect = (sql) => {
    if (!isTrial(sql)) return undefined;
    const n = sql.includes('`v` Array') ? now : before;
    return n === 'refused' ? 497 : [{ n: String(n) }];
  };
}

describe('a refused row, after the table was altered', () => {
  it('is nobody’s fault when the table takes none any more that it took before: the partition may heal', async () => {
    await open();
    alter();
    refuse();
    readable(0, 1);
    await refused({ code: 'KCR_SCHEMA', fields: { first: 10, last: 13, table: 'default.t', serverCode: 27 } });
    expect(server.inserts, 'nothing is sent to find out').toHaveLength(2);
    const [now, before] = trials();
    expect(
      [now!.split('\n').length, before!.split('\n').length],
      'all of the batch as the table is, the record alone as it was',
    ).toEqual([6, 3]);
    server.onInsert = ({ response }) => void response.end();
    await expect(insert()).resolves.toMatchObject({ rows: 3 });
  });

  it('is the record’s fault when the table would not have taken it before: whoever produces it stops nobody for good', async () => {
    await open();
    alter();
    refuse();
    readable(0, 0);
    await refused({ code: 'KCR_POISON', fields: { offset: 12 } });
  });

  it('is the record’s fault when the table takes others of the batch now', async () => {
    await open();
    alter();
    refuse();
    readable(2, 1);
    await refused({ code: 'KCR_POISON', fields: { offset: 12 } });
  });

  it('is the record’s fault, without a question, when the table was not altered', async () => {
    await open();
    refuse();
    await refused({ code: 'KCR_POISON', fields: { offset: 12 } }, 1);
    expect(trials()).toEqual([]);
  });

  it('is the record’s fault, without a question, once the table as it is has taken rows', async () => {
    await open();
    alter();
    refuse();
    readable(0, 1);
    await refused({ code: 'KCR_SCHEMA' });
    server.onInsert = ({ response }) => void response.end();
    await insert();
    const asked = trials().length;
    refuse();
    await refused({ code: 'KCR_POISON' }, 1);
    expect(trials()).toHaveLength(asked);
  });

  it('is nobody’s fault when the table was altered back before anybody looked', async () => {
    await open();
    refuse();
    server.table.alteredS = 102;
    await expect(insert()).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE', retryable: true });
    expect(trials()).toEqual([]);
  });

  it('is judged at once where replicas tell different times of the same table', async () => {
    await open({ engine: 'ReplicatedMergeTree' });
    refuse();
    server.table.alteredS = 102;
    await refused({ code: 'KCR_POISON', fields: { offset: 12 } }, 1);
  });

  it('is as before where the user may not ask', async () => {
    await open();
    alter();
    refuse();
    readable(0, 'refused');
    await refused({ code: 'KCR_POISON', fields: { offset: 12 } });
  });

  it.each(['a table that is away', 'a server that cannot answer now'])(
    'is tried again with %s: nothing is decided for good that could not be asked',
    async (what) => {
      await open();
      alter();
      refuse();
      if (what === 'a table that is away') server.table.isGone = true;
      else server.onSelect = (sql) => (isTrial(sql) ? 202 : undefined);
      await refused({ code: 'KCR_INSERT_RETRIABLE', retryable: true });
    },
  );

  it.each([
    ['KCR_SCHEMA', [{ n: '0' }], [{ n: '3' }]],
    ['KCR_INSERT_RETRIABLE', 202, 202],
  ] as const)(
    'of several ClickHouse partitions may have landed in part, and that is kept: %s',
    async (code, now, before) => {
      await open({ partitionKey: 'v' });
      alter();
      refuse(false);
      server.onSelect = (sql) => (!isTrial(sql) ? undefined : sql.includes('`v` Array') ? now : before);
      await refused({ code, fields: { mayHaveLanded: true } });
    },
  );
});
