// The insert mode `coalesced`, on a server that answers what the test says. What a real one does: coalesced.servers.test.ts.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { asyncInsertFault } from '../../../src/clickhouse/insert/async-insert.js';
import { insertSettings, parseFingerprint } from '../../../src/clickhouse/insert/settings.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../../src/clickhouse/sink.js';
import type { IngestError } from '../../../src/errors.js';
import type { PreparingSink } from '../../../src/ports.js';
import { fakeClickHouse, type FakeInsert, type FakeOptions, type FakeServer } from '../fake-server.js';
import { batchOf, intentOf, numbers, outcome, record } from '../fixtures.js';

let server: FakeServer;
const open: PreparingSink[] = [];

async function openSink(options: Partial<ClickHouseSinkOptions> = {}, fake: FakeOptions = {}): Promise<PreparingSink> {
  await server.close();
  server = await fakeClickHouse(fake);
  const sink = await openClickHouseSink({
    url: server.url,
    routes: [{ topic: 'orders', table: 't' }],
    insertMode: 'coalesced',
    ...options,
  });
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
const isWaiting = ({ params }: FakeInsert) => params.get('async_insert') === '1';
const modes = () => server.inserts.map((insert) => (isWaiting(insert) ? 'coalesced' : 'direct'));
const answer = (response: FakeInsert['response'], code: number, text: string) =>
  response.writeHead(500, { 'x-clickhouse-exception-code': String(code) }).end(text);
/** What a flush fails with, told to each of its inserts; by itself an insert fares as `alone` says. */
const flushFails =
  (code: number, text: string, alone?: readonly [code: number, text: string]) => (insert: FakeInsert) => {
    if (isWaiting(insert)) return answer(insert.response, code, text);
    return alone === undefined ? insert.response.end() : answer(insert.response, ...alone);
  };

describe('an insert that waits for others', () => {
  it('says so in its settings, is answered when it is written, and is otherwise the same insert', async () => {
    const sink = await openSink({ coalesceMs: 150 });
    await outcome(sink.prepare(batch).insert());
    const { params } = server.inserts[0] as FakeInsert;
    expect(Object.fromEntries(params)).toMatchObject({
      async_insert: '1',
      wait_for_async_insert: '1',
      wait_for_async_insert_timeout: '86400',
      async_insert_deduplicate: '1',
      async_insert_use_adaptive_busy_timeout: '0',
      async_insert_busy_timeout_min_ms: '150',
      async_insert_busy_timeout_max_ms: '150',
      max_insert_block_size: '10000000',
      input_format_parallel_parsing: '0',
      deduplicate_insert: 'enable',
      insert_deduplication_token: 'kcr1:test:orders:0:0:10-13:default.t',
    });
  });

  it('has the settings of every other, but for its token and its query: else the server would not write them together', async () => {
    const sink = await openSink();
    for (const partition of [0, 1]) await outcome(sink.prepare(batchOf([...batch.records], { partition })).insert());
    const shared = server.inserts.map(({ params }) => {
      params.delete('insert_deduplication_token');
      params.delete('query_id');
      return params.toString();
    });
    expect(new Set(shared).size).toBe(1);
  });

  it('does not keep others from being sent: hundreds wait at once, and no more than that', async () => {
    const sink = await openSink();
    const held: FakeInsert[] = [];
    server.onInsert = (insert) => held.push(insert);
    const inserting = numbers(0, 420).map((partition) =>
      outcome(sink.prepare(batchOf([...batch.records], { partition })).insert()),
    );
    for (let tries = 0; held.length < 400 && tries < 200; tries++) await sleep(20);
    await sleep(100);
    expect(held).toHaveLength(400);
    server.onInsert = ({ response }) => response.end();
    for (const { response } of held) response.end();
    await Promise.all(inserting);
    expect(server.inserts).toHaveLength(420);
  }, 20_000);

  it('is what a small batch is; a larger one goes by itself, and so does one without a token', async () => {
    const sink = await openSink({ coalesceBytes: 1000 });
    await outcome(sink.prepare(batch).insert());
    await outcome(sink.prepare(batchOf([record(20, { text: 'x'.repeat(1000) })])).insert());
    await outcome(sink.prepare({ ...batch, token: undefined }).insert());
    expect(modes()).toEqual(['coalesced', 'direct', 'direct']);
  });

  it('stays the same insert when the connection breaks: the attempt may be waiting still', async () => {
    const sink = await openSink();
    server.onInsert = ({ socket }) => socket.destroy();
    const preparedInsert = sink.prepare(batch);
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
    server.onInsert = ({ response }) => response.end();
    await outcome(preparedInsert.insert());
    const [first, second] = server.inserts.map(({ params, body }) => `${params.toString()}\n${body.toString()}`);
    expect(second).toBe(first);
  });
});

describe('what several inserts were refused for together', () => {
  const constraint =
    'Code: 469. DB::Exception: Constraint `c` for table default.t (uuid) is violated at row 2. Expression: (id != 13). Column values: id = 13: While executing WaitForAsyncInsert. (VIOLATED_CONSTRAINT)';

  it('is not blamed on a record of ours: by itself the insert goes through, and nothing is lost', async () => {
    const sink = await openSink();
    server.onInsert = flushFails(469, constraint);
    await expect(outcome(sink.prepare(batch).insert())).resolves.toMatchObject({ rows: 3 });
    expect(modes()).toEqual(['coalesced', 'direct']);
    const [waited, alone] = server.inserts as [FakeInsert, FakeInsert];
    expect(alone.body.equals(waited.body)).toBe(true);
    expect(alone.params.get('insert_deduplication_token')).toBe(waited.params.get('insert_deduplication_token'));
  });

  it('names the record at fault as the server names it to that insert alone', async () => {
    const sink = await openSink();
    server.onInsert = flushFails(469, constraint, [469, constraint.replace('row 2', 'row 3')]);
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      code: 'KCR_POISON',
      fields: { offset: 13 },
    });
  });

  it.each([
    [
      'rows of too many ClickHouse partitions, all of them together',
      252,
      'Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100)',
    ],
    ['a column that is gone', 16, 'Code: 16. DB::Exception: No such column'],
    ['a row that cannot be read', 27, 'Code: 27. DB::Exception: Cannot parse input (at row 1)'],
  ])('%s: asked again alone, at once', async (_what, code, text) => {
    const sink = await openSink();
    server.onInsert = flushFails(code, text);
    await outcome(sink.prepare(batch).insert());
    expect(modes()).toEqual(['coalesced', 'direct']);
  });

  it('and may have landed in part is in doubt, and made again alone, so that another’s view does not hold it up for ever', async () => {
    const sink = await openSink();
    server.onInsert = flushFails(
      395,
      'Code: 395. DB::Exception: Value passed to throwIf: while pushing to view default.v',
    );
    const preparedInsert = sink.prepare(batch);
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
    await outcome(preparedInsert.insert());
    expect(modes()).toEqual(['coalesced', 'direct']);
  });

  it('is not asked alone by a process that was frozen meanwhile: the server may have forgotten the token', async () => {
    let nowMs = Date.now();
    await server.close();
    server = await fakeClickHouse();
    const sink = await openClickHouseSink(
      { url: server.url, routes: [{ topic: 'orders', table: 't' }], insertMode: 'coalesced' },
      () => nowMs,
    );
    open.push(sink);
    server.onInsert = (insert) => {
      nowMs += 3_600_000;
      flushFails(469, constraint)(insert);
    };
    await expect(outcome(sink.prepare({ ...batch, intent: intentOf(sink, batch) }).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
    });
    expect(modes()).toEqual(['coalesced']);
  });

  it('I15: and has left rows of other ClickHouse partitions is told so, though the attempt alone was not even taken', async () => {
    const nested =
      'Code: 190. DB::Exception: Elements of Nested data structure should have equal array sizes. (SIZES_OF_ARRAYS_DONT_MATCH)';
    const busy = [202, 'Code: 202. DB::Exception: Too many simultaneous queries. Maximum: 100'] as const;
    const sink = await openSink({}, { partitionKey: 'id' });
    server.onInsert = flushFails(190, nested, busy);
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      fields: { mayHaveLanded: true, serverCode: 202 },
    });
    await openSink();
    server.onInsert = flushFails(190, nested, busy);
    const error: unknown = await outcome((open.at(-1) as PreparingSink).prepare(batch).insert()).catch(
      (thrown: unknown) => thrown,
    );
    expect((error as IngestError).fields.mayHaveLanded).toBeUndefined();
  });

  it('because an earlier attempt still waits is waited for', async () => {
    const sink = await openSink();
    server.onInsert = flushFails(216, 'Code: 216. DB::Exception: Query with id = x is already running');
    const preparedInsert = sink.prepare(batch);
    for (const _ of [1, 2])
      await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
    expect(modes()).toEqual(['coalesced', 'coalesced']);
  });
});

describe('a range in doubt', () => {
  it('is not looked up while an insert of it waits in the server’s queue, whose query was killed', async () => {
    const sink = await openSink();
    const queued: string[] = [];
    server.onSelect = (sql) =>
      sql.includes('system.asynchronous_inserts') ? (queued.push(sql), [{ n: 1 }]) : undefined;
    await expect(outcome(sink.prepare(batch).readBack())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      message: expect.stringContaining('still running') as string,
    });
    expect(queued[0]).toContain('entries.query_id');
  });

  it('that was recorded in the other mode has the same token there: it is sent again without asking the table', async () => {
    const nowMs = Date.now();
    const asyncInsert = await openSink();
    const recordedCoalesced = intentOf(asyncInsert, batch);
    expect(recordedCoalesced.settings).toMatch(/ insert=coalesced$/);
    const direct = await openClickHouseSink({ url: server.url, routes: [{ topic: 'orders', table: 't' }] });
    open.push(direct);
    const recordedDirect = intentOf(direct, batch);
    expect(recordedDirect.settings).not.toBe(recordedCoalesced.settings);
    expect(direct.prepare({ ...batch, intent: recordedCoalesced, replay: true }).tokenDoubt(nowMs)).toBeUndefined();
    expect(asyncInsert.prepare({ ...batch, intent: recordedDirect, replay: true }).tokenDoubt(nowMs)).toBeUndefined();
    await outcome(direct.prepare({ ...batch, intent: recordedCoalesced, replay: true }).insert());
    await outcome(asyncInsert.prepare({ ...batch, intent: recordedDirect, replay: true }).insert());
    const tokens = server.inserts.map(({ params }) => params.get('insert_deduplication_token'));
    expect(tokens[1]).toBe(tokens[0]);
  });

  it('is asked about when its server was another version', async () => {
    const sink = await openSink();
    const old = intentOf(sink, batch).settings.replace('26.7.2.1', '26.7.3.9');
    expect(parseFingerprint(old)).toMatchObject({ version: '26.7.3.9' });
    expect(
      sink.prepare({ ...batch, intent: { ...intentOf(sink, batch), settings: old } }).tokenDoubt(Date.now()),
    ).toContain('26.7.3.9');
  });
});

describe('a server whose tokens of such inserts are not to be trusted', () => {
  it.each(['26.7.1.1068', '26.6.2.98', '26.2.19.43', '25.10.2.65', '23.8.1.1', 'unknown'])(
    '%s is refused, with what to do',
    async (version) => {
      await expect(openSink({}, { version })).rejects.toMatchObject({
        code: 'KCR_PREFLIGHT',
        message: expect.stringContaining(version) as string,
        fields: { hint: expect.stringContaining('26.7.2') as string },
      });
    },
  );

  it.each(['26.7.2.1', '26.7.3.1', '26.8.1.922', '27.1.1.1'])('%s is not', (version) =>
    expect(asyncInsertFault(version)).toBeUndefined(),
  );

  it('that takes the place of a newer one while we run gets inserts that wait for nothing', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch), replay: true });
    server.onSelect = (sql) =>
      sql.includes('version()')
        ? [{ version: '26.6.1.1', timezone: 'UTC', now: String(Date.now()), uptime: 1000 }]
        : undefined;
    await outcome(preparedInsert.readBack('the server is another one'));
    await outcome(preparedInsert.insert());
    expect(modes()).toEqual(['direct']);
  });

  it('is no matter to inserts that do not wait', async () => {
    await expect(openSink({ insertMode: 'direct' }, { version: '24.8.1.1' })).resolves.toBeDefined();
  });
});

describe('the settings of the mode', () => {
  it.each([
    'async_insert',
    'wait_for_async_insert',
    'wait_for_async_insert_timeout',
    'async_insert_busy_timeout_ms',
    'async_insert_busy_timeout_max_ms',
    'async_insert_max_data_size',
    'async_insert_deduplicate',
  ])('refuse a user’s %s', (name) => {
    expect(() => insertSettings({ [name]: 1 }, new Set(), 200)).toThrow(
      expect.objectContaining({ code: 'KCR_CONFIG' }),
    );
  });

  it('do not change the fingerprint of what tokens depend on', () => {
    expect(insertSettings({}, new Set(), 200).fingerprint).toBe(insertSettings({}, new Set()).fingerprint);
    expect(insertSettings({}, new Set()).asyncInsert).toBeUndefined();
  });

  it.each([
    [{ insertMode: 'async' as never }, '`insertMode`'],
    [{ coalesceMs: 0 }, '`coalesceMs`'],
    [{ coalesceMs: 10_001 }, '`coalesceMs`'],
    [{ coalesceMs: 600, requestTimeoutMs: 1000 }, 'half of `requestTimeoutMs`'],
    [{ coalesceBytes: 5_000_000 }, '`coalesceBytes`'],
  ])('%j is refused', async (options, message) => {
    await expect(openSink(options)).rejects.toMatchObject({
      code: 'KCR_CONFIG',
      message: expect.stringContaining(message) as string,
    });
  });
});
