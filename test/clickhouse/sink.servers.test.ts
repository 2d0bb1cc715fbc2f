// The sink against a real ClickHouse.
import { setTimeout as sleep } from 'node:timers/promises';
import { from } from 'rxjs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { RowBody } from '../../src/clickhouse/insert/body.js';
import { noProvenance, RowEncoder } from '../../src/clickhouse/insert/encode.js';
import { ClickHouseHttp } from '../../src/clickhouse/client/http.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../src/clickhouse/sink.js';
import type { PreparingSink } from '../../src/ports.js';
import { command, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { type EngineFamily, familiesAt, plain } from '../support/engines.js';
import { batchOf, intentOf, numbers, outcome, record, TIMESTAMP_MS } from './fixtures.js';

const { clickhouseUrl: url } = sharedStack();
const families = await familiesAt(url);
const databaseOf = ({ name }: EngineFamily): string => `sink_${name}_${process.pid}`;
/** What the tests run on at present: each family has a database of its own. */
let family = plain;
let database = databaseOf(plain);
const on = (each: EngineFamily) =>
  beforeAll(() => {
    family = each;
    database = databaseOf(each);
  });
const sql = <Row = Record<string, unknown>>(text: string) => query<Row>(url, text, { database });
const run = (text: string) => command(url, text, { database });
const offsets = async (table: string) =>
  (await sql<{ _offset: number }>(`SELECT _offset FROM ${table} ORDER BY _offset`)).map(({ _offset }) => _offset);
const open: PreparingSink[] = [];

const PROVENANCE = '_topic LowCardinality(String), _partition Int32, _offset Int64';

/** A table of its own for each test, with its sink. */
async function sinkFor(
  table: string,
  columns: string,
  options: Partial<ClickHouseSinkOptions> & { readonly engine?: string } = {},
): Promise<PreparingSink> {
  const { engine = family.engine('ORDER BY tuple()', { window: 1000 }), ...rest } = options;
  await run(`CREATE TABLE ${table} (${columns}) ENGINE = ${engine}`);
  const sink = await openClickHouseSink({ url, database, routes: [{ topic: 'orders', table }], ...rest });
  open.push(sink);
  return sink;
}

beforeAll(async () => {
  for (const each of families) await command(url, `CREATE DATABASE ${databaseOf(each)}`);
});
afterAll(async () => {
  for (const sink of open) await outcome(sink.close());
  for (const each of families) await command(url, `DROP DATABASE ${databaseOf(each)}`);
});

describe.each(families)('a batch for a $name table', (each) => {
  on(each);
  const batch = batchOf(numbers(10, 5).map((offset) => record(offset, { k: offset })));

  it('that is inserted twice lands once', async () => {
    const sink = await sinkFor('twice', `k UInt64, ${PROVENANCE}`);
    const preparedInsert = sink.prepare(batch);
    await outcome(preparedInsert.insert());
    await expect(outcome(preparedInsert.insert())).resolves.toMatchObject({ rows: 5 });
    await outcome(sink.prepare(batch).insert());
    expect(await offsets('twice')).toEqual([10, 11, 12, 13, 14]);
  });

  it('that is inserted by several at once lands once', async () => {
    const sink = await sinkFor('at_once', `k UInt64, ${PROVENANCE}`);
    const tries = await Promise.allSettled(numbers(0, 8).map(() => outcome(sink.prepare(batch).insert())));
    // The server refuses to run the same query id twice at a time: that is in doubt, and settled by the next attempt.
    for (const one of tries)
      if (one.status === 'rejected')
        expect(one.reason).toMatchObject({ code: 'KCR_INSERT_IN_DOUBT', fields: { serverCode: 216 } });
    await outcome(sink.prepare(batch).insert());
    expect(await offsets('at_once')).toEqual([10, 11, 12, 13, 14]);
  });

  it('is one block for each ClickHouse partition, however many rows it has', async () => {
    // Made first: while it is being made no timer runs that would give up an idle connection.
    const large = batchOf(numbers(0, 300_000).map((offset) => record(offset, { k: offset })));
    const sink = await sinkFor('one_block', 'k UInt64', {
      clickhouseSettings: { max_insert_threads: 8, max_threads: 8 },
    });
    await outcome(sink.prepare(large).insert());
    expect(
      await sql(`SELECT rows FROM system.parts WHERE database = '${database}' AND table = 'one_block' AND level = 0`),
    ).toEqual([{ rows: 300_000 }]);
  });

  it('of the same values as another one lands beside it', async () => {
    const sink = await sinkFor('same_values', 'k UInt64');
    await outcome(sink.prepare(batchOf([record(1, { k: 1 })])).insert());
    await outcome(sink.prepare(batchOf([record(2, { k: 1 })])).insert());
    expect(await sql('SELECT count() AS n FROM same_values')).toEqual([{ n: 2 }]);
  });

  it('without a token lands as often as it is inserted, in the table and in its views', async () => {
    await run(`CREATE TABLE no_token_target (k UInt64) ENGINE = ${family.engine('ORDER BY k')}`);
    const sink = await sinkFor('no_token', 'k UInt64');
    await run('CREATE MATERIALIZED VIEW no_token_view TO no_token_target AS SELECT k FROM no_token');
    for (const offset of [1, 2])
      await outcome(sink.prepare(batchOf([record(offset, { k: 1 })], { token: undefined })).insert());
    expect(
      await sql('SELECT (SELECT count() FROM no_token) AS source, (SELECT count() FROM no_token_target) AS target'),
    ).toEqual([{ source: 2, target: 2 }]);
  });

  it('reaches views once, also when the insert is repeated', async () => {
    await run(`CREATE TABLE view_target (k UInt64) ENGINE = ${family.engine('ORDER BY k')}`);
    const sink = await sinkFor('view_source', `k UInt64, ${PROVENANCE}`);
    await run('CREATE MATERIALIZED VIEW view_between TO view_target AS SELECT k FROM view_source');
    await outcome(sink.prepare(batch).insert());
    await outcome(sink.prepare(batch).insert());
    expect(await sql('SELECT count() AS n FROM view_target')).toEqual([{ n: 5 }]);
  });

  it('goes through compressed, too', async () => {
    const sink = await sinkFor('compressed', `k UInt64, ${PROVENANCE}`, { compression: 'gzip' });
    await outcome(sink.prepare(batch).insert());
    await outcome(sink.prepare(batch).insert());
    expect(await offsets('compressed')).toEqual([10, 11, 12, 13, 14]);
  });

  it('that the server is still at is refused a second time, and completes later', async () => {
    const sink = await sinkFor('slow', `k UInt64, slept UInt8 DEFAULT sleepEachRow(1), ${PROVENANCE}`, {
      requestTimeoutMs: 1000,
      clickhouseSettings: { function_sleep_max_microseconds_per_block: 60_000_000 },
    });
    const four = batchOf(numbers(10, 4).map((offset) => record(offset, { k: offset })));
    const preparedInsert = sink.prepare(four);
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      message: expect.stringContaining('no answer within') as string,
    });
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      fields: { serverCode: 216 },
    });
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      message: expect.stringContaining('still running') as string,
    });
    await vi.waitFor(async () => expect(await offsets('slow')).toEqual([10, 11, 12, 13]), {
      timeout: 30_000,
      interval: 100,
    });
    await vi.waitFor(() => expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] }), {
      timeout: 30_000,
      interval: 100,
    });
  });

  it('whose insert is unsubscribed may land all the same, but never twice', async () => {
    const sink = await sinkFor('unsubscribed', `k UInt64, slept UInt8 DEFAULT sleepEachRow(0.2), ${PROVENANCE}`, {
      clickhouseSettings: { function_sleep_max_microseconds_per_block: 60_000_000 },
    });
    const three = batchOf(numbers(10, 3).map((offset) => record(offset, { k: offset })));
    const subscription = from(sink.prepare(three).insert()).subscribe();
    await sleep(200);
    subscription.unsubscribe();
    await vi.waitFor(() => outcome(sink.prepare(three).insert()), { timeout: 30_000, interval: 200 });
    expect(await offsets('unsubscribed')).toEqual([10, 11, 12]);
  });
});

describe.each(families)('a body of many pieces for a $name table', (each) => {
  on(each);
  const large = batchOf(numbers(0, 20_000).map((offset) => record(offset, { k: offset, v: 'x'.repeat(60) })));

  it('that is cut off leaves no row behind, wherever it is cut, and lands whole when it is sent again', async () => {
    const sink = await sinkFor('cut_off', `k UInt64, v String, ${PROVENANCE}`);
    for (const afterPieces of [1, 2, 5]) {
      const http = new ClickHouseHttp({ url });
      const rows = new RowEncoder({ ...noProvenance, offset: true }, 'orders', 0).rows(large.records);
      const pieces = new RowBody(rows, [Buffer.alloc(200_000), Buffer.alloc(200_000)]);
      let made = 0;
      const body = {
        get isOver() {
          return pieces.isOver;
        },
        next: () => {
          if (made++ === afterPieces) throw new Error('cut');
          return pieces.next();
        },
      };
      const exchange = http.send({
        params: {
          query: `INSERT INTO ${database}.cut_off FORMAT JSONEachRow`,
          query_id: `cut-${afterPieces}-${database}`,
          min_insert_block_size_rows: '10000000',
        },
        body,
      });
      await expect(exchange.answer).rejects.toThrow('cut');
      await exchange.bodyFree;
      await vi.waitFor(
        async () =>
          expect(await sql(`SELECT 1 FROM system.processes WHERE query_id = 'cut-${afterPieces}-${database}'`)).toEqual(
            [],
          ),
        { timeout: 30_000 },
      );
      http.close();
      expect(await offsets('cut_off')).toEqual([]);
    }
    await outcome(sink.prepare(large).insert());
    expect(await offsets('cut_off')).toEqual(numbers(0, 20_000));
  });
});

describe('a record the table cannot take', () => {
  on(plain);
  const rows = (bad: string) =>
    batchOf(
      [record(20, { k: 1 }), record(21, '{\n "k":\n 2 }'), record(25, '{}'), record(27, bad), record(28, { k: 3 })],
      { token: `poison:${bad}` },
    );

  it.each([
    ['broken JSON', '{"k":5,"v":oops}', undefined],
    ['a string for a number', '{"k":"x"}', 27],
    ['a negative number', '{"k":-1}', 72],
    ['a string for an array', '{"a":"x"}', 130],
    ['a bad date', '{"d":"yesterday"}', 41],
    ['a constraint', '{"k":666}', 469],
    ['a field twice', '{"k":1,"k":2}', 117],
    ['half a surrogate pair', '{"v":"\\ud83d"}', 25],
    ['an unbalanced bracket', '{"a":[1}', undefined],
    ['a text that quotes another row', '{"k":"(at row 1)"}', 27],
  ])('is named by its offset: %s', async (name, bad, serverCode) => {
    const table = `poison_${name.replaceAll(/\W/g, '_')}`;
    const sink = await sinkFor(
      table,
      `k UInt64, v String, a Array(UInt8), d DateTime, ${PROVENANCE}, CONSTRAINT devil CHECK k != 666`,
    );
    // What is no JSON is found before anything is sent, the rest by the server.
    const insert = async () => outcome(sink.prepare(rows(bad)).insert());
    await expect(insert()).rejects.toMatchObject({
      code: 'KCR_POISON',
      fields: { topic: 'orders', partition: 0, offset: 27, ...(serverCode === undefined ? {} : { serverCode }) },
    });
    // One block: nothing of the batch has landed, so that it can go on without the record under another token.
    expect(await offsets(table)).toEqual([]);
  });

  it('says so when it has a field that a provenance column takes', async () => {
    const sink = await sinkFor('own_offset', `k UInt64, ${PROVENANCE}`);
    expect(() => sink.prepare(rows('{"_offset":1}'))).toThrow(
      expect.objectContaining({
        code: 'KCR_POISON',
        detail: expect.stringContaining('field "_offset" of its own') as string,
        fields: expect.objectContaining({ offset: 27 }) as object,
      }),
    );
  });

  it('is named by its offset in a batch of many', async () => {
    const sink = await sinkFor('poison_many', `k UInt64, ${PROVENANCE}`);
    const many = batchOf(
      numbers(1000, 100_000).map((offset) => record(offset, offset === 88_888 ? '{"k":"x"}' : { k: offset })),
    );
    await expect(outcome(sink.prepare(many).insert())).rejects.toMatchObject({
      code: 'KCR_POISON',
      fields: { offset: 88_888 },
    });
    expect(await offsets('poison_many')).toEqual([]);
  });

  it('a view that throws is no poison: the table’s rows are there, and the same insert completes the view', async () => {
    await run(
      'CREATE TABLE thrown_target (k UInt64) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 1000',
    );
    const sink = await sinkFor('thrower', `k UInt64, ${PROVENANCE}`);
    await run('CREATE MATERIALIZED VIEW thrower_view TO thrown_target AS SELECT k + throwIf(k = 3) AS k FROM thrower');
    const batch = batchOf(numbers(1, 5).map((offset) => record(offset, { k: offset })));
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      fields: { serverCode: 395 },
    });
    await run('ALTER TABLE thrower_view MODIFY QUERY SELECT k FROM thrower');
    await outcome(sink.prepare(batch).insert());
    expect(
      await sql('SELECT (SELECT count() FROM thrower) AS source, (SELECT count() FROM thrown_target) AS target'),
    ).toEqual([{ source: 5, target: 5 }]);
  });
});

describe('what is wrong with the table', () => {
  it('a table that was dropped meanwhile', async () => {
    const sink = await sinkFor('dropped', 'k UInt64');
    await run('DROP TABLE dropped SYNC');
    await expect(outcome(sink.prepare(batchOf([record(1, {})])).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      fields: { serverCode: 60 },
    });
  });

  it('a batch over too many ClickHouse partitions', async () => {
    const sink = await sinkFor('partitions', 'k UInt64', { engine: 'MergeTree PARTITION BY k ORDER BY k' });
    await expect(
      outcome(sink.prepare(batchOf(numbers(0, 101).map((k) => record(k, { k })))).insert()),
    ).rejects.toMatchObject({ code: 'KCR_INSERT_FATAL', fields: { serverCode: 252 } });
  });

  it('too many parts passes by itself', async () => {
    const sink = await sinkFor('parts', 'k UInt64', {
      engine: 'MergeTree ORDER BY k SETTINGS parts_to_throw_insert = 1, parts_to_delay_insert = 0',
    });
    await run('SYSTEM STOP MERGES parts');
    await outcome(sink.prepare(batchOf([record(1, { k: 1 })])).insert());
    await expect(outcome(sink.prepare(batchOf([record(2, { k: 2 })])).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      fields: { serverCode: 252 },
    });
  });

  it('a table that is not there, with those that are', async () => {
    await run('CREATE TABLE flights (k UInt64) ENGINE = MergeTree ORDER BY k');
    const opening = (table: string, db = database) =>
      openClickHouseSink({ url, database: db, routes: [{ topic: 'orders', table }] });
    await expect(opening('flihgts')).rejects.toMatchObject({
      code: 'KCR_TABLE_MISSING',
      message: expect.stringContaining('flights') as string,
    });
    await expect(opening('flights', 'nowhere')).rejects.toMatchObject({
      code: 'KCR_TABLE_MISSING',
      message: expect.stringContaining('database nowhere') as string,
    });
  });
});

describe('provenance columns', () => {
  const one = record(
    4_503_599_627_370_497,
    { k: 1 },
    {
      key: 'a"\\\n\u0001é',
      headers: [
        ['h', Buffer.from('1')],
        ['h', Buffer.from('2')],
        ['n', null],
      ],
    },
  );

  it.each([
    ['_timestamp', 'DateTime', '2025-11-22 08:30:00'],
    ['_timestamp', "DateTime('Asia/Tokyo')", '2025-11-22 17:30:00'],
    ['_timestamp', 'DateTime64(3)', '2025-11-22 08:30:00.123'],
    ['_timestamp', "DateTime64(6, 'America/New_York')", '2025-11-22 03:30:00.123000'],
    ['_timestamp', 'DateTime64(1)', '2025-11-22 08:30:00.1'],
    ['_timestamp', 'Int64', TIMESTAMP_MS],
    ['_timestamp', 'Nullable(UInt64)', TIMESTAMP_MS],
    ['_key', 'String', 'a"\\\n\u0001é'],
    ['_key', 'LowCardinality(Nullable(String))', 'a"\\\n\u0001é'],
    ['_headers', 'Map(String, String)', '{"h":"1","h":"2","n":""}'],
    ['_headers', 'Map(LowCardinality(String), Nullable(String))', '{"h":"1","h":"2","n":null}'],
    ['_headers', 'String', '{"h":"1","h":"2","n":null}'],
    [
      '_headers',
      'Array(Tuple(String, Nullable(String)))',
      [
        ['h', '1'],
        ['h', '2'],
        ['n', null],
      ],
    ],
    ['_offset', 'Int64', 4_503_599_627_370_497],
    ['_offset', 'UInt64', 4_503_599_627_370_497],
    ['_partition', 'UInt16', 0],
    ['_topic', 'LowCardinality(String)', 'orders'],
    ['_topic', "Enum8('orders' = 1)", 'orders'],
    ['_topic', 'FixedString(6)', 'orders'],
  ])('%s %s', async (column, type, expected) => {
    const table = `column_${column}_${type.replaceAll(/\W/g, '_')}`;
    const sink = await sinkFor(table, `k UInt64, ${column} ${type}`);
    await outcome(sink.prepare(batchOf([one])).insert());
    const rows = await query<Record<string, unknown>>(
      url,
      `SELECT ${type.startsWith('Map') ? `toJSONString(${column})` : column} AS v FROM ${table}`,
      {
        database,
        settings: { session_timezone: 'UTC' },
      },
    );
    // A DateTime without a zone of its own is shown in the server's.
    expect(rows).toEqual([{ v: expected }]);
  });

  it('a message without key or timestamp', async () => {
    const sink = await sinkFor('nothing', "k UInt64, _key Nullable(String), _timestamp DateTime64(3, 'UTC')");
    await outcome(sink.prepare(batchOf([record(1, {}, { timestampMs: -1 })])).insert());
    expect(await sql('SELECT _key, _timestamp FROM nothing')).toEqual([
      { _key: null, _timestamp: '1970-01-01 00:00:00.000' },
    ]);
  });
});

describe.each(families)('reading back and filling a $name table', (each) => {
  on(each);
  it('finds exactly the rows that are gone, and fill restores exactly them', async () => {
    const sink = await sinkFor('holes', `k UInt64, ${PROVENANCE}`);
    const batch = batchOf(
      numbers(100, 50)
        .filter((offset) => offset % 7 !== 0)
        .map((offset) => record(offset, { k: offset })),
    );
    const preparedInsert = sink.prepare(batch);
    await outcome(preparedInsert.insert());
    await outcome(sink.prepare(batchOf(numbers(150, 5).map((offset) => record(offset, { k: offset })))).insert());
    await outcome(sink.prepare(batchOf([record(120, { k: 1 })], { partition: 1 })).insert());
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
    await run(
      'ALTER TABLE holes DELETE WHERE _partition = 0 AND _offset IN (100, 111, 149) SETTINGS mutations_sync = 2',
    );
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [100, 111, 149], doubled: [] });
    // Just what a kill between token and rename leaves behind: the repeated insert answers well, and nothing comes.
    await outcome(preparedInsert.insert());
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [100, 111, 149], doubled: [] });
    await expect(outcome(preparedInsert.fill([100, 111, 149]))).resolves.toMatchObject({ rows: 3 });
    await expect(outcome(preparedInsert.fill([100, 111, 149]))).resolves.toMatchObject({ rows: 3 });
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
    expect(await sql('SELECT count() AS n, uniqExact(_partition, _offset) AS u FROM holes')).toEqual([
      { n: 49, u: 49 },
    ]);
  });

  it('sees rows that are there twice', async () => {
    const sink = await sinkFor('doubles', `k UInt64, ${PROVENANCE}`);
    const preparedInsert = sink.prepare(batchOf(numbers(1, 5).map((offset) => record(offset, { k: offset }))));
    await outcome(preparedInsert.insert());
    await run("INSERT INTO doubles VALUES (1, 'orders', 0, 3)");
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [3] });
  });

  it('keeps topics apart that share a table', async () => {
    await sinkFor('sharing', `k UInt64, ${PROVENANCE}`);
    const sink = await openClickHouseSink({
      url,
      database,
      routes: [
        { topic: 'orders', table: 'sharing' },
        { topic: 'other', table: 'sharing' },
      ],
    });
    open.push(sink);
    const records = numbers(1, 3).map((offset) => record(offset, { k: offset }));
    await outcome(sink.prepare(batchOf(records, { topic: 'other' })).insert());
    await expect(outcome(sink.prepare(batchOf(records)).readBack())).resolves.toEqual({
      missing: [1, 2, 3],
      doubled: [],
    });
  });

  it('without provenance columns a range is trusted as long as the server runs', async () => {
    const sink = await sinkFor('bare', 'k UInt64');
    const batch = batchOf([record(1, { k: 1 })]);
    await vi.waitFor(
      async () => {
        await outcome(sink.prepare(batch).insert());
        expect(sink.describe('orders').settings).not.toContain('unknown');
      },
      { timeout: 30_000, interval: 500 },
    );
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch) });
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
  });
});

describe('what an intent records', () => {
  on(plain);

  it('describes a topic by its table, the server and the settings', async () => {
    const sink = await sinkFor('described', 'k UInt64');
    expect(sink.describe('orders')).toEqual({
      tables: [`${database}.described`],
      written: {
        id: expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/) as string,
        columns: '',
        shape: expect.stringMatching(/^[0-9a-f]{8}$/) as string,
        alteredS: expect.toSatisfy((seconds: number) => Math.abs(Date.now() / 1000 - seconds) < 60) as number,
        mutation: 0,
      },
      settings: expect.stringMatching(
        /^kcr1 clickhouse=\d+\.\d+\.\S+ started=(\d{4}-\d\d-\d\dT[\d:.]+Z|unknown) settings=[0-9a-f]{8}$/,
      ) as string,
    });
  });
});
