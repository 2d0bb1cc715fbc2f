import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readRowsOf, refuseOtherCount } from '../../../src/clickhouse/insert/row-count.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../../src/clickhouse/sink.js';
import type { PreparingSink } from '../../../src/ports.js';
import { fakeClickHouse, type FakeOptions, type FakeServer } from '../fake-server.js';
import { batchOf, outcome, record } from '../fixtures.js';

describe('the count in an answer', () => {
  it.each([
    ['{"read_rows":"3","read_bytes":"47"}', 3],
    ['{"read_rows":3}', 3],
    ['{"read_rows":"0"}', 0],
    [undefined, undefined],
    ['', undefined],
    ['oops', undefined],
    ['null', undefined],
    ['[]', undefined],
    ['{}', undefined],
    ['{"read_rows":"-3"}', undefined],
    ['{"read_rows":"3e2"}', undefined],
    ['{"read_rows":""}', undefined],
    ['{"read_rows":1.5}', undefined],
    ['{"read_rows":"99999999999999999999"}', undefined],
    [['{"read_rows":"3"}'], undefined],
  ] as const)('of %j is %s', (summary, count) => expect(readRowsOf(summary)).toBe(count));
});

let server: FakeServer;
let sink: PreparingSink;

async function openWith(fake: FakeOptions = {}, options: Partial<ClickHouseSinkOptions> = {}): Promise<void> {
  server = await fakeClickHouse(fake);
  sink = await openClickHouseSink({ url: server.url, routes: [{ topic: 'orders', table: 't' }], ...options });
}

const says = (summary: string) => {
  server.onInsert = ({ response }) => response.writeHead(200, { 'X-ClickHouse-Summary': summary }).end();
};
const saysRows = (rows: number) => says(JSON.stringify({ read_rows: String(rows), written_rows: String(rows) }));
const batch = batchOf([record(10, { id: 1 }), record(12, { id: 2 }), record(13, { id: 3 })], { partition: 4 });
const insert = () => outcome(sink.prepare(batch).insert());
const looks = () => server.queries.filter((sql) => sql.includes('dependencies_table')).length;

describe('A5: rows that the server read, against those that were sent', () => {
  beforeEach(() => openWith());
  afterEach(async () => {
    await outcome(sink.close());
    await server.close();
  });
  const reopen = async (fake: FakeOptions, options: Partial<ClickHouseSinkOptions> = {}) => {
    await outcome(sink.close());
    await server.close();
    await openWith(fake, options);
  };

  it('as many: the insert is done', async () => {
    saysRows(3);
    await expect(insert()).resolves.toMatchObject({ rows: 3 });
    expect(looks()).toBe(1);
  });

  it.each([1, 2, 4, 6])('%i of three: the partition stops, and is told both numbers and where', async (read) => {
    saysRows(read);
    await expect(insert()).rejects.toMatchObject({
      code: 'KCR_ROW_COUNT',
      retryable: false,
      message: expect.stringContaining(
        `ClickHouse read ${read} rows where 3 were sent (topic orders, partition 4, offsets 10-13, table default.t)`,
      ) as string,
      fields: { topic: 'orders', partition: 4, first: 10, last: 13, table: 'default.t' },
    });
  });

  it.each(['', 'oops', '{}', '{"read_rows":"0"}', '{"read_rows":"many"}'])(
    'a summary that says %j concludes nothing, as from a proxy',
    async (summary) => {
      says(summary);
      await expect(insert()).resolves.toMatchObject({ rows: 3 });
    },
  );

  it('no summary at all neither', async () => {
    await expect(insert()).resolves.toMatchObject({ rows: 3 });
  });

  it('with views more rows prove nothing, and nobody is asked; fewer do', async () => {
    await reopen({ views: ['v'] });
    saysRows(6);
    await expect(insert()).resolves.toMatchObject({ rows: 3 });
    expect(looks()).toBe(1);
    saysRows(2);
    await expect(insert()).rejects.toMatchObject({ code: 'KCR_ROW_COUNT' });
  });

  it('a view that was made meanwhile is found, once', async () => {
    const table = (dependencies: readonly string[]) => [
      {
        engine: 'MergeTree',
        engine_full: 'MergeTree',
        sorting_key: '',
        partition_key: '',
        create_table_query: '',
        dependencies_database: dependencies.map(() => 'default'),
        dependencies_table: dependencies,
      },
    ];
    server.onSelect = (sql) => (sql.includes('dependencies_table') ? table(['made_meanwhile']) : undefined);
    saysRows(6);
    await expect(insert()).resolves.toMatchObject({ rows: 3 });
    await expect(insert()).resolves.toMatchObject({ rows: 3 });
    expect(looks()).toBe(2);
  });

  it('more rows, and the server cannot be asked about views: in doubt, so that the same insert is asked again', async () => {
    server.onSelect = (sql) => (sql.includes('dependencies_table') ? 202 : undefined);
    saysRows(6);
    await expect(insert()).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
  });

  it('an error in the answer is told as that error, whatever it counted', async () => {
    server.onInsert = ({ response }) =>
      response
        .writeHead(400, { 'X-ClickHouse-Summary': '{"read_rows":"1"}', 'x-clickhouse-exception-code': '27' })
        .end('Code: 27. DB::Exception: Cannot parse: (at row 2)');
    await expect(insert()).rejects.toMatchObject({ code: 'KCR_POISON', fields: { offset: 12 } });
  });
});

it('the views of one table say nothing of another', async () => {
  const where = { topic: 't', partition: 0, first: 1, last: 2, table: 'db.t' };
  const [one, other] = [{}, {}];
  await refuseOtherCount(4, 2, where, { table: one, known: [], look: () => Promise.resolve(['v']) });
  await expect(
    refuseOtherCount(4, 2, where, { table: other, known: [], look: () => Promise.resolve([]) }),
  ).rejects.toMatchObject({ code: 'KCR_ROW_COUNT' });
});
