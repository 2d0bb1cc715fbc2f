import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { from } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { fingerprintOf } from '../../src/clickhouse/insert/settings.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../src/clickhouse/sink.js';
import type { KafkaRecord } from '../../src/model/record.js';
import type { PreparingSink } from '../../src/ports.js';
import { fakeClickHouse, type FakeInsert, type FakeOptions, type FakeServer } from './fake-server.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

let server: FakeServer;
const open: PreparingSink[] = [];

async function openSink(
  options: Partial<ClickHouseSinkOptions> = {},
  fake: FakeOptions = {},
  now?: () => number,
): Promise<PreparingSink> {
  if (Object.keys(fake).length > 0) {
    await server.close();
    server = await fakeClickHouse(fake);
  }
  const sink = await openClickHouseSink(
    { url: server.url, routes: [{ topic: 'orders', table: 't' }], ...options },
    now,
  );
  open.push(sink);
  return sink;
}

beforeEach(async () => {
  server = await fakeClickHouse();
});

afterEach(async () => {
  for (const sink of open.splice(0)) await outcome(sink.close());
  await server.close();
});

const batch = batchOf([record(10, { id: 1 }), record(12, { id: 2 }), record(13, { id: 3 })]);
const WITHIN = { timeout: 20_000 };
/** Turns of the event loop, in each of which what has come in is taken: on a busy machine they last longer, and are as many. */
const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 50; turn++) await sleep(1);
};
const inDoubt = { code: 'KCR_INSERT_IN_DOUBT', retryable: true };
const refuse =
  (status: number, code: number | undefined, text: string) =>
  ({ response }: FakeInsert) => {
    response.writeHead(status, code === undefined ? {} : { 'x-clickhouse-exception-code': String(code) }).end(text);
  };

describe('an insert', () => {
  it('is one request with its length, its token for this table, a query id and the pinned settings', async () => {
    const sink = await openSink();
    const result = await outcome(sink.prepare(batch).insert());
    const { params, headers, body } = server.inserts[0] as FakeInsert;
    expect(result).toEqual({ rows: 3, bytes: body.length });
    expect(params.get('query')).toBe('INSERT INTO `default`.`t` FORMAT JSONEachRow');
    expect(params.get('insert_deduplication_token')).toBe('kcr1:test:orders:0:0:10-13:default.t');
    expect(params.get('query_id')).toMatch(/^kcr-[0-9a-f]{32}$/);
    expect(params.get('async_insert')).toBe('0');
    expect(params.get('deduplicate_insert')).toBe('enable');
    expect(headers['content-length']).toBe(String(body.length));
    expect(body.toString()).toBe(
      '{"id":1,"_topic":"orders","_partition":0,"_offset":10}\n{"id":2,"_topic":"orders","_partition":0,"_offset":12}\n{"id":3,"_topic":"orders","_partition":0,"_offset":13}\n',
    );
  });

  it('is cold: nothing is sent before it is subscribed to, and every subscription is an attempt', async () => {
    const sink = await openSink();
    const inserting = sink.prepare(batch).insert();
    await sleep(20);
    expect(server.inserts).toHaveLength(0);
    await outcome(inserting);
    await outcome(inserting);
    expect(server.inserts).toHaveLength(2);
  });

  it('repeats bytes, token, query id and settings exactly: the token stands for these bytes', async () => {
    const sink = await openSink();
    await outcome(sink.prepare(batch).insert());
    const preparedInsert = sink.prepare(batch);
    await outcome(preparedInsert.insert());
    await outcome(preparedInsert.insert());
    const sent = server.inserts.map(({ params, body }) => `${params.toString()}\n${body.toString()}`);
    expect(new Set(sent).size).toBe(1);
  });

  it('E9: without an intent each batch has a token of its own: an identical batch is meant, a second attempt is not', async () => {
    const sink = await openSink();
    const tokens = () => server.inserts.map(({ params }) => params.get('insert_deduplication_token'));
    await outcome(sink.prepare({ ...batch, token: undefined }).insert());
    await outcome(sink.prepare({ ...batch, token: undefined }).insert());
    expect(new Set(tokens()).size).toBe(2);
    expect(tokens()[0]).toMatch(/^kcr-own:/);
    const preparedInsert = sink.prepare({ ...batch, token: undefined });
    server.onInsert = ({ response }) => void response.destroy();
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
    server.onInsert = ({ response }) => void response.end();
    await outcome(preparedInsert.insert()).catch(() => undefined);
    expect(tokens().at(-1)).toBe(tokens().at(-2));
  });

  it('does not send a setting the server does not know', async () => {
    const sink = await openSink({}, { settings: [] });
    await outcome(sink.prepare(batch).insert());
    expect(server.inserts[0]?.params.has('deduplicate_insert')).toBe(false);
  });

  it('without records asks nothing of the server', async () => {
    const sink = await openSink();
    await expect(outcome(sink.prepare({ ...batch, records: [] }).insert())).resolves.toEqual({ rows: 0, bytes: 0 });
    expect(server.inserts).toHaveLength(0);
  });

  it('compresses its body when asked to', async () => {
    const sink = await openSink({ compression: 'gzip' });
    await outcome(sink.prepare(batch).insert());
    const { headers, body } = server.inserts[0] as FakeInsert;
    expect(headers['content-encoding']).toBe('gzip');
    expect(gunzipSync(body).toString()).toContain('"_offset":13}\n');
  });

  it('sends user, password and extra headers', async () => {
    const sink = await openSink({ username: 'me', password: 'pä:ss', headers: { 'X-Gateway': 'yes' } });
    await outcome(sink.prepare(batch).insert());
    const { headers } = server.inserts[0] as FakeInsert;
    expect(Buffer.from(String(headers.authorization).slice(6), 'base64').toString()).toBe('me:pä:ss');
    expect(headers['x-gateway']).toBe('yes');
  });
});

describe('what does not count as success', () => {
  it('an exception under a status of 200', async () => {
    const sink = await openSink();
    server.onInsert = refuse(200, 241, 'Code: 241. DB::Exception: Memory limit exceeded');
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject(inDoubt);
  });

  it('a status of 200 with a text in it: an insert that went through says nothing', async () => {
    const sink = await openSink();
    server.onInsert = refuse(200, undefined, '<html>welcome to the proxy</html>');
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject(inDoubt);
  });

  it('an answer that is cut off', async () => {
    const sink = await openSink();
    server.onInsert = ({ socket }) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc');
      socket.end();
    };
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject(inDoubt);
  });

  it('a chunked answer without its end', async () => {
    const sink = await openSink();
    server.onInsert = ({ socket }) => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
      socket.end();
    };
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject(inDoubt);
  });

  it.each(['destroy', 'resetAndDestroy'] as const)('a connection that ends without an answer (%s)', async (how) => {
    const sink = await openSink();
    server.onInsert = ({ socket }) => socket[how]();
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject(inDoubt);
  });

  it('no answer in time', async () => {
    const sink = await openSink({ requestTimeoutMs: 100 });
    server.onInsert = () => undefined;
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      ...inDoubt,
      message: expect.stringContaining('no answer within 100 ms') as string,
    });
  });

  it('a kept-alive connection that had died: what was sent on it is in doubt, the next attempt takes a new one', async () => {
    const sink = await openSink();
    await outcome(sink.prepare(batch).insert());
    const before = server.connections;
    // The server hangs up just when the next request is under way.
    server.onInsert = ({ socket }) => socket.resetAndDestroy();
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      ...inDoubt,
      message: expect.stringContaining('kept-alive') as string,
    });
    server.onInsert = ({ response }) => response.end();
    await outcome(sink.prepare(batch).insert());
    expect(server.connections).toBe(before + 1);
  });

  it('an idle connection is given up before the server does: a request on its way then would be in doubt', async () => {
    const sink = await openSink();
    let closed = false;
    server.onInsert = ({ socket, response }) => {
      // By the client: the server, which gives it up after five seconds, would see no end.
      socket.once('end', () => (closed = true));
      // Without the hint of how long it waits, which Node would heed by itself.
      response.setHeader('connection', 'keep-alive').end();
    };
    await outcome(sink.prepare(batch).insert());
    await vi.waitFor(() => expect(closed).toBe(true), WITHIN);
  });

  it('a server that is not there: nothing was sent, so nothing is in doubt', async () => {
    const sink = await openSink();
    const { url } = server;
    await server.close();
    await turns();
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      message: expect.stringContaining(url) as string,
    });
    server = await fakeClickHouse();
  });

  it('a server that takes no connection', async () => {
    // Accepted by the system, never by a process: TLS waits for a handshake that does not come.
    const mute = createServer().listen(0, '127.0.0.1');
    await once(mute, 'listening');
    const url = `https://127.0.0.1:${(mute.address() as AddressInfo).port}`;
    const opening = openClickHouseSink({ url, connectTimeoutMs: 100, routes: [{ topic: 'orders', table: 't' }] });
    await expect(opening).rejects.toMatchObject({
      code: 'KCR_CLICKHOUSE_UNREACHABLE',
      message: expect.stringContaining('no connection within 100 ms') as string,
    });
    mute.close();
  });
});

describe('what the server refuses', () => {
  const poison =
    "Code: 27. DB::Exception: Cannot parse input: expected '\"' before: 'x': (at row 2)\n: While executing JSONEachRow (version 26.7.2.1)";

  it('names the record by its offset, not by its row', async () => {
    const sink = await openSink();
    server.onInsert = refuse(400, 27, poison);
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      code: 'KCR_POISON',
      fields: { topic: 'orders', partition: 0, offset: 12, table: 'default.t', serverCode: 27 },
      message:
        "Cannot parse input: expected '\"' before: 'x' (topic orders, partition 0, offset 12, table default.t, server code 27)",
    });
  });

  it('names the range where the server does not tell the row', async () => {
    const sink = await openSink();
    server.onInsert = refuse(400, 27, 'Code: 27. DB::Exception: Cannot parse input');
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      code: 'KCR_POISON',
      fields: { first: 10, last: 13 },
    });
    server.onInsert = refuse(400, 27, 'Code: 27. DB::Exception: Cannot parse input: (at row 9)');
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      code: 'KCR_POISON',
      fields: { first: 10, last: 13 },
    });
  });

  it.each([
    ['KCR_POISON', 395, 'Value passed to throwIf is non-zero'],
    ['KCR_SCHEMA', 53, 'Type mismatch'],
  ])(
    'says that rows of other ClickHouse partitions may have landed, where there is a partition key (%s)',
    async (code, serverCode, reason) => {
      for (const [partitionKey, mayHaveLanded] of [
        ['toYYYYMM(t)', true],
        ['', false],
      ] as const) {
        const sink = await openSink({}, { partitionKey });
        server.onInsert = refuse(500, serverCode, `Code: ${serverCode}. DB::Exception: ${reason}`);
        await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({ code, fields: { mayHaveLanded } });
      }
    },
  );

  it.each([
    ["Enum8('a' = 1, 'b' = 2)", '0'],
    ["Array(Enum8('a = 0' = 1))", '0'],
    ["Enum16('a' = 0, 'b' = 2)", null],
    ["Nullable(Enum8('a' = 1))", null],
    ['String', null],
  ])('lets no null into %s as a default that no SELECT can read', async (type, sent) => {
    const sink = await openSink(
      {},
      { columns: { id: 'UInt64', kind: type, _topic: 'String', _partition: 'Int32', _offset: 'Int64' } },
    );
    await outcome(sink.prepare(batch).insert());
    expect(server.inserts[0]?.params.get('input_format_null_as_default') ?? null).toBe(sent);
  });

  it('names the record of a fill by its offset too', async () => {
    const sink = await openSink();
    server.onInsert = refuse(400, 27, poison);
    await expect(outcome(sink.prepare(batch).fill([10, 13]))).rejects.toMatchObject({
      code: 'KCR_POISON',
      fields: { offset: 13 },
    });
  });

  it.each([
    [404, 60, 'KCR_INSERT_RETRIABLE'],
    [404, 16, 'KCR_SCHEMA'],
    [400, undefined, 'KCR_INSERT_IN_DOUBT'],
    [404, undefined, 'KCR_INSERT_IN_DOUBT'],
    [500, 4711, 'KCR_INSERT_IN_DOUBT'],
    [403, 497, 'KCR_INSERT_FATAL'],
    [500, 252, 'KCR_INSERT_RETRIABLE'],
    [500, 216, 'KCR_INSERT_IN_DOUBT'],
    [500, 319, 'KCR_INSERT_IN_DOUBT'],
    [502, undefined, 'KCR_INSERT_IN_DOUBT'],
  ] as const)('%i with code %s is %s, with its place and reason', async (status, code, expected) => {
    const sink = await openSink();
    server.onInsert = refuse(status, code, 'Code: 1. DB::Exception: because (version 1)');
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      code: expected,
      message: expect.stringMatching(
        /^because \(topic orders, partition 0, offsets 10-13, table default.t, server code/,
      ) as string,
    });
  });
});

describe('giving up', () => {
  it('unsubscribing ends the connection at once, and the next insert gets the slot', async () => {
    const sink = await openSink({ maxInFlight: 1 });
    let hungUp = false;
    server.onInsert = ({ socket }) => socket.once('close', () => (hungUp = true));
    const first = from(sink.prepare(batch).insert()).subscribe({
      error: () => expect.unreachable('an unsubscribed insert says nothing'),
    });
    await vi.waitFor(() => expect(server.inserts).toHaveLength(1), WITHIN);
    const second = outcome(sink.prepare(batch).insert());
    await sleep(30);
    expect(server.inserts).toHaveLength(1);
    server.onInsert = ({ response }) => response.end();
    first.unsubscribe();
    await expect(second).resolves.toMatchObject({ rows: 3 });
    await vi.waitFor(() => expect(hungUp).toBe(true), WITHIN);
  });

  it('unsubscribing while waiting for a slot sends nothing', async () => {
    const sink = await openSink({ maxInFlight: 1 });
    server.onInsert = () => undefined;
    const first = from(sink.prepare(batch).insert()).subscribe();
    await vi.waitFor(() => expect(server.inserts).toHaveLength(1), WITHIN);
    const second = from(sink.prepare(batch).insert()).subscribe();
    second.unsubscribe();
    first.unsubscribe();
    await sleep(30);
    expect(server.inserts).toHaveLength(1);
  });

  it('inserts of different batches that overlap keep their own bytes', async () => {
    const sink = await openSink({ maxInFlight: 3 });
    const batches = numbers(0, 20).map((n) =>
      batchOf(numbers(n * 10, 10).map((offset) => record(offset, { id: offset, pad: 'x'.repeat(n * 500) }))),
    );
    await Promise.all(batches.map((one) => outcome(sink.prepare(one).insert())));
    const offsets = server.inserts.flatMap(({ body }) =>
      body
        .toString()
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { _offset: number })._offset),
    );
    expect(offsets.sort((a, b) => a - b)).toEqual(numbers(0, 200));
  });
});

describe('a record that is not one JSON object', () => {
  it.each([
    [Buffer.from('{"a":1}{"b":2}'), 'holds more than one object'],
    [Buffer.from(''), 'is empty'],
  ])('is named before anything is sent', async (value, why) => {
    const sink = await openSink();
    const bad = batchOf([record(1, {}), record(7, value)], { partition: 4 });
    expect(() => sink.prepare(bad)).toThrow(
      expect.objectContaining({
        code: 'KCR_POISON',
        fields: expect.objectContaining({ topic: 'orders', partition: 4, offset: 7 }) as object,
        message: expect.stringContaining(why) as string,
      }),
    );
  });

  it('nor is a tombstone', async () => {
    const sink = await openSink();
    const bad = batchOf([{ ...record(7, {}), value: null }]);
    expect(() => sink.prepare(bad)).toThrow(
      expect.objectContaining({ code: 'KCR_POISON', message: expect.stringContaining('tombstone') as string }),
    );
  });
});

it('I8: a batch of more than one block is not sent, since its second block would be taken for another batch’s: it is told where to cut it', async () => {
  const sink = await openSink();
  const rows = new Array<KafkaRecord>(5_000_001).fill(record(10, '{}')).fill(record(12, '{}'), 2_000_000);
  const told = (mayLandForMs: number | undefined) => ({
    code: 'KCR_CONFIG',
    fields: expect.objectContaining({ oversized: { cuts: [10], mayLandForMs } }) as object,
  });
  expect(() => sink.prepare({ ...batch, records: rows })).toThrow(expect.objectContaining(told(undefined)));
  const replay = { ...batch, records: rows, replay: true, intent: intentOf(sink, batch) };
  expect(() => sink.prepare(replay)).toThrow(expect.objectContaining(told(600_000)));
  expect(() => sink.prepare({ ...replay, intent: { ...replay.intent, transformVersion: 'v1' } })).toThrow(
    expect.objectContaining(told(undefined)),
  );
});

describe('reading back', () => {
  const found = (rows: Readonly<Record<number, number>>) => (sql: string) =>
    sql.includes('_offset AS o')
      ? [{ offsets: Object.keys(rows), counts: Object.values(rows).map(String) }]
      : undefined;

  it('tells what is missing and what is there twice', async () => {
    const sink = await openSink();
    server.onSelect = found({ 10: 1, 12: 2 });
    await expect(outcome(sink.prepare(batch).readBack())).resolves.toEqual({ missing: [13], doubled: [12] });
  });

  it('counts the rows a transform made of one record', async () => {
    const sink = await openSink();
    const several = batchOf([record(1, { id: 1 }), record(1, { id: 2 }), record(2, { id: 3 })]);
    server.onSelect = found({ 1: 2, 2: 1 });
    await expect(outcome(sink.prepare(several).readBack())).resolves.toEqual({ missing: [], doubled: [] });
    server.onSelect = found({ 1: 3 });
    await expect(outcome(sink.prepare(several).readBack())).resolves.toEqual({ missing: [2], doubled: [1] });
    // Which of the two is missing cannot be told: filling both would double one.
    server.onSelect = found({ 1: 1, 2: 1 });
    await expect(outcome(sink.prepare(several).readBack())).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      fields: { offset: 1 },
    });
  });

  it('rows of the range that the log does not have any more are none of its business', async () => {
    const sink = await openSink();
    server.onSelect = found({ 10: 1, 11: 1, 12: 1, 13: 1 });
    await expect(outcome(sink.prepare(batch).readBack())).resolves.toEqual({ missing: [], doubled: [] });
  });

  it('that is not allowed says what to grant; one that fails for the moment may be tried again', async () => {
    const sink = await openSink();
    server.onSelect = (sql) => (sql.includes('_offset AS o') ? 497 : undefined);
    await expect(outcome(sink.prepare(batch).readBack())).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      fields: { first: 10, last: 13, serverCode: 497, hint: expect.stringContaining('GRANT SELECT') as string },
    });
    server.onSelect = (sql) => (sql.includes('_offset AS o') ? 241 : undefined);
    await expect(outcome(sink.prepare(batch).readBack())).rejects.toMatchObject({ retryable: true });
  });

  it('goes on without a look at what is running where that is not allowed', async () => {
    const sink = await openSink();
    server.onSelect = (sql) => (sql.includes('system.processes') ? 497 : found({ 10: 1, 12: 1, 13: 1 })(sql));
    await expect(outcome(sink.prepare(batch).readBack())).resolves.toEqual({ missing: [], doubled: [] });
  });

  it('waits for an attempt that the server is still at: it would land after the look', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(batch);
    server.onSelect = (sql) => (sql.includes('system.processes') ? [{ id: 'kcr-1' }] : undefined);
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject(inDoubt);
  });

  it('a fill sends just those offsets, under a token and query id of its own; made again, under the same ones', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(batch);
    await outcome(preparedInsert.insert());
    await expect(outcome(preparedInsert.fill([10, 13]))).resolves.toMatchObject({ rows: 2 });
    await outcome(preparedInsert.fill([10, 13]));
    const [insert, one, two] = server.inserts as [FakeInsert, FakeInsert, FakeInsert];
    expect(one.body.toString().match(/"_offset":\d+/g)).toEqual(['"_offset":10', '"_offset":13']);
    const tokens = [insert, one, two].map(({ params }) => params.get('insert_deduplication_token'));
    expect(tokens).toEqual([
      'kcr1:test:orders:0:0:10-13:default.t',
      'kcr1:test:orders:0:0:10-13:fill1:default.t',
      'kcr1:test:orders:0:0:10-13:fill1:default.t',
    ]);
    const ids = [insert, one, two].map(({ params }) => params.get('query_id') ?? '');
    expect(new Set(ids).size).toBe(2);
    for (const id of ids) expect(id.startsWith(ids[0] ?? '-')).toBe(true);
  });

  it('a table that feeds materialized views is not filled: the repeated insert has brought them every row already', async () => {
    const sink = await openSink({}, { views: ['totals'] });
    await expect(outcome(sink.prepare(batch).fill([10]))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      message: expect.stringContaining('default.totals') as string,
    });
    expect(server.inserts).toHaveLength(0);
  });

  it.each([
    ['MergeTree', true, '26.7.2.1', true],
    ['MergeTree', false, '26.7.2.1', false],
    ['ReplicatedMergeTree', true, '26.7.2.1', false],
    ['SharedMergeTree', true, '26.7.2.1', false],
    ['ReplicatedMergeTree', true, '26.6.1.1', true],
  ])('on a %s, token %s, intent of %s: needed when in doubt is %s', async (engine, token, version, needed) => {
    const sink = await openSink({}, { engine });
    const intent = { ...intentOf(sink, batch), settings: fingerprintOf({ version, startedMs: 1 }, 'x') };
    const preparedInsert = sink.prepare({ ...batch, intent, token: token ? batch.token : undefined });
    expect(preparedInsert.readBackWhenInDoubt).toBe(needed);
  });
});

describe('a table without provenance columns', () => {
  const bare = { columns: { id: 'UInt64' } };

  it('is trusted while the server has not been restarted: only a killed one can lose what it answered for', async () => {
    const sink = await openSink({}, bare);
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch) });
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
  });

  it('is not trusted after a restart, and says how to make it readable', async () => {
    const sink = await openSink({}, bare);
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch) });
    server.onSelect = (sql) =>
      sql.includes('version()')
        ? [{ version: '26.7.2.1', timezone: 'UTC', now: '1763800203000', uptime: 1000 }]
        : undefined;
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      fields: {
        hint: expect.stringContaining(
          'ALTER TABLE default.t ADD COLUMN _topic LowCardinality(String), ADD COLUMN _partition Int32, ADD COLUMN _offset Int64',
        ) as string,
      },
    });
  });

  it('is not trusted when the start of the server was too recent to tell it from another', async () => {
    await server.close();
    server = await fakeClickHouse(bare);
    server.onSelect = (sql) =>
      sql.includes('version()')
        ? [{ version: '26.7.2.1', timezone: 'UTC', now: '1763800200000', uptime: 3 }]
        : undefined;
    const sink = await openSink();
    expect(sink.describe('orders').settings).toContain('started=unknown');
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch) });
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject({ code: 'KCR_READ_BACK' });
  });

  it('learns the start of a young server with the first insert that comes late enough', async () => {
    await server.close();
    server = await fakeClickHouse(bare);
    server.onSelect = (sql) =>
      sql.includes('version()')
        ? [{ version: '26.7.2.1', timezone: 'UTC', now: '1763800200000', uptime: 3 }]
        : undefined;
    const sink = await openSink();
    server.onSelect = () => undefined;
    await outcome(sink.prepare(batch).insert());
    await vi.waitFor(() => expect(sink.describe('orders').settings).toContain('started=2025-'), WITHIN);
  });

  it('after a broken connection the sink learns of the restart, so that new intents do not look older than they are', async () => {
    const sink = await openSink({}, bare);
    const before = sink.describe('orders').settings;
    server.onInsert = ({ socket }) => socket.destroy();
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject(inDoubt);
    server.onInsert = ({ response }) => response.end();
    server.onSelect = (sql) =>
      sql.includes('version()')
        ? [{ version: '26.7.2.1', timezone: 'UTC', now: '1763800300000', uptime: 10 }]
        : undefined;
    await outcome(sink.prepare(batch).insert());
    await vi.waitFor(() => expect(sink.describe('orders').settings).not.toBe(before), WITHIN);
  });
});

it('a new connection is the occasion to look whether the server was restarted while nothing was under way', async () => {
  const sink = await openSink();
  await outcome(sink.prepare(batch).insert()); // over the first connection, which is a new one too
  await turns();
  const before = sink.describe('orders').settings;
  server.onSelect = (sql) =>
    sql.includes('version()')
      ? [{ version: '26.7.2.1', timezone: 'UTC', now: '1763800300000', uptime: 10 }]
      : undefined;
  await outcome(sink.prepare(batch).insert());
  await turns();
  expect(sink.describe('orders').settings).toBe(before);
  server.dropIdle();
  await turns();
  await outcome(sink.prepare(batch).insert());
  await vi.waitFor(() => expect(sink.describe('orders').settings).not.toBe(before), WITHIN);
});

describe('opening', () => {
  const routes = [{ topic: 'orders', table: 't' }];

  it.each([
    ['url', { url: 'localhost:8123', routes }],
    ['url', { url: 'ftp://host', routes }],
    ['url', { url: 'http://host/?database=x', routes }],
    ['routes', { url: 'http://host', routes: [] }],
    ['routes', { url: 'http://host', routes: [...routes, ...routes] }],
    ['route', { url: 'http://host', routes: [{ topic: 'orders', table: '' }] }],
    ['maxInFlight', { url: 'http://host', routes, maxInFlight: 0 }],
    ['requestTimeoutMs', { url: 'http://host', routes, requestTimeoutMs: 1.5 }],
    ['compression', { url: 'http://host', routes, compression: 'lz4' as 'gzip' }],
    ['async_insert', { url: 'http://host', routes, clickhouseSettings: { async_insert: 1 } }],
  ])('refuses a %s that cannot be meant', async (name, options) => {
    await expect(openClickHouseSink(options)).rejects.toMatchObject({
      code: 'KCR_CONFIG',
      message: expect.stringContaining(name) as string,
    });
  });

  it('keeps a password out of what it says', async () => {
    const failed = await openClickHouseSink({ url: 'http://me:secret@127.0.0.1:1', routes }).catch(
      (error: unknown) => error as Error,
    );
    expect(failed).toMatchObject({
      code: 'KCR_CLICKHOUSE_UNREACHABLE',
      message: expect.not.stringContaining('secret') as string,
    });
    await expect(openClickHouseSink({ url: 'me:secret@host', routes })).rejects.toMatchObject({
      message: expect.not.stringContaining('secret') as string,
    });
  });

  it('says when what answers is not ClickHouse', async () => {
    const other = createServer((socket) =>
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi')),
    ).listen(0, '127.0.0.1');
    await once(other, 'listening');
    await expect(
      openClickHouseSink({ url: `http://127.0.0.1:${(other.address() as AddressInfo).port}`, routes }),
    ).rejects.toMatchObject({ code: 'KCR_CLICKHOUSE_UNREACHABLE' });
    other.close();
  });

  it('a topic without a route is a mistake of the configuration', async () => {
    const sink = await openSink();
    expect(() => sink.prepare(batchOf([record(1, {})], { topic: 'other' }))).toThrow(
      expect.objectContaining({ code: 'KCR_CONFIG' }),
    );
    expect(() => sink.describe('other')).toThrow(expect.objectContaining({ code: 'KCR_CONFIG' }));
  });
});
