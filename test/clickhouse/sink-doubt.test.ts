// What the sink does about ranges whose token the server may have forgotten, on a server that misbehaves on purpose.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fingerprintOf } from '../../src/clickhouse/insert/settings.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../src/clickhouse/sink.js';
import type { Intent } from '../../src/model/state.js';
import type { PreparingSink, InsertBatch } from '../../src/ports.js';
import { fakeClickHouse, type FakeInsert, type FakeOptions, type FakeServer } from './fake-server.js';
import { batchOf, intentOf, outcome, record } from './fixtures.js';

let server: FakeServer;
let nowMs = 0;
const open: PreparingSink[] = [];

beforeEach(() => (nowMs = 1_800_000_000_000));
afterEach(async () => {
  for (const sink of open.splice(0)) await outcome(sink.close());
  await server.close();
});

async function openSink(fake: FakeOptions = {}, options: Partial<ClickHouseSinkOptions> = {}): Promise<PreparingSink> {
  server = await fakeClickHouse(fake);
  const sink = await openClickHouseSink(
    { url: server.url, routes: [{ topic: 'orders', table: 't' }], ...options },
    () => nowMs,
  );
  open.push(sink);
  return sink;
}

const plain = batchOf([record(10, { id: 1 }), record(12, { id: 2 }), record(13, { id: 3 })]);

/** The batch with the intent that was recorded for it now. */
function recordedBatch(sink: PreparingSink, fields: Partial<Intent> = {}): InsertBatch {
  return { ...plain, replay: true, intent: { ...intentOf(sink, plain), atMs: nowMs, ...fields } };
}

const found = (rows: Readonly<Record<number, number>>) => (sql: string) =>
  sql.includes('_offset AS o') ? [{ offsets: Object.keys(rows), counts: Object.values(rows).map(String) }] : undefined;
const refuse =
  (code: number) =>
  ({ response }: FakeInsert) =>
    void response
      .writeHead(500, { 'x-clickhouse-exception-code': String(code) })
      .end(`Code: ${code}. DB::Exception: because (version 26)`);
const MINUTE = 60_000;

describe('the dedup budget', () => {
  const ages = async (sink: PreparingSink): Promise<(minutes: number) => boolean> => {
    const preparedInsert = sink.prepare(recordedBatch(sink));
    const then = nowMs;
    return Promise.resolve((minutes) => preparedInsert.tokenDoubt(then + minutes * MINUTE) !== undefined);
  };

  it('is ten minutes, or what the user says', async () => {
    const isOld = await ages(await openSink());
    expect([10, 10.1].map(isOld)).toEqual([false, true]);
    await server.close();
    const isOlder = await ages(await openSink({}, { dedupBudgetMs: 30 * MINUTE }));
    expect([30, 30.1].map(isOlder)).toEqual([false, true]);
  });

  it.each([
    ['of the server', { windowSeconds: 600 }, 5],
    ['of the table itself', { windowSeconds: 3600, tableSettings: 'replicated_deduplication_window_seconds = 240' }, 2],
    ['that the user may not see', {}, 10],
  ] as const)('is at most half of the window of a replicated table: %s', async (_, fake, minutes) => {
    const isOld = await ages(await openSink({ engine: 'ReplicatedMergeTree', ...fake }));
    expect([minutes, minutes + 0.1].map(isOld)).toEqual([false, true]);
  });

  it('on a plain table does not depend on that', async () => {
    const isOld = await ages(await openSink({ windowSeconds: 60 }));
    expect(isOld(10)).toBe(false);
  });

  it.each([0, -1, 1.5])('of %s is refused', async (dedupBudgetMs) => {
    await expect(openSink({}, { dedupBudgetMs })).rejects.toMatchObject({
      code: 'KCR_CONFIG',
      message: expect.stringContaining('dedupBudgetMs') as string,
    });
  });

  it('is not asked about where nothing was promised', async () => {
    const sink = await openSink();
    expect(sink.prepare({ ...plain, token: undefined, intent: undefined }).tokenDoubt(nowMs + 1e9)).toBeUndefined();
  });
});

describe('a doubtful token', () => {
  it('is not sent by a process that was frozen since it asked: the table comes first', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(recordedBatch(sink));
    expect(preparedInsert.tokenDoubt(nowMs)).toBeUndefined();
    nowMs += 11 * MINUTE;
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      message: expect.stringContaining('11 minutes ago') as string,
    });
    await expect(outcome(preparedInsert.fill([10]))).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' });
    expect(server.inserts).toHaveLength(0);
    await expect(outcome(preparedInsert.readBack(preparedInsert.tokenDoubt(nowMs)))).resolves.toEqual({
      missing: [10, 12, 13],
      doubled: [],
    });
    await outcome(preparedInsert.insert());
    expect(server.inserts[0]?.params.get('insert_deduplication_token')).toBe('kcr1:test:orders:0:0:10-13:default.t');
  });

  it('nor a while after the look: what was seen grows old, too', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(recordedBatch(sink));
    nowMs += 11 * MINUTE;
    await outcome(preparedInsert.readBack('it is old'));
    nowMs += 11 * MINUTE;
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' });
    expect(server.inserts).toHaveLength(0);
  });

  it('on a table without provenance columns halts with what is to be done', async () => {
    const sink = await openSink({ columns: { id: 'UInt64' } });
    const preparedInsert = sink.prepare(recordedBatch(sink));
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
    await expect(outcome(preparedInsert.readBack('it is old'))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      fields: {
        topic: 'orders',
        partition: 0,
        first: 10,
        last: 13,
        table: 'default.t',
        hint: expect.stringMatching(/state reset.*ALTER TABLE default\.t ADD COLUMN _topic/) as string,
      },
      message: expect.stringContaining(
        'could double: it is old; whether it is in the table cannot be verified',
      ) as string,
    });
  });

  it.each([
    ['all', { 10: 1, 12: 1, 13: 1 }],
    ['some', { 10: 1 }],
  ])('with materialized views behind the table halts when %s of the range is there', async (_, rows) => {
    const sink = await openSink({ views: ['totals'] });
    server.onSelect = found(rows);
    await expect(outcome(sink.prepare(recordedBatch(sink)).readBack('it is old'))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      message: expect.stringMatching(
        /of its 3 offsets \d are in the table, and whether the materialized views default\.totals have them cannot be verified/,
      ) as string,
    });
  });

  it('the table is looked at before and after the question, and not once more for its views', async () => {
    const sink = await openSink({ views: ['totals'] });
    const preparedInsert = sink.prepare(recordedBatch(sink));
    server.onSelect = found({ 10: 1 });
    nowMs += 11 * MINUTE;
    const before = server.queries.length;
    await outcome(preparedInsert.readBack(preparedInsert.tokenDoubt(nowMs))).catch(() => undefined);
    expect(server.queries.slice(before).filter((sql) => sql.includes('FROM system.columns'))).toHaveLength(2);
  });

  it('with materialized views goes on when nothing is there: the table’s block is written before its views are fed', async () => {
    const sink = await openSink({ views: ['totals'] });
    await expect(outcome(sink.prepare(recordedBatch(sink)).readBack('it is old'))).resolves.toEqual({
      missing: [10, 12, 13],
      doubled: [],
    });
  });

  it('without one the views are no matter: the token tells', async () => {
    const sink = await openSink({ views: ['totals'] });
    server.onSelect = found({ 10: 1, 12: 1, 13: 1 });
    await expect(outcome(sink.prepare(recordedBatch(sink)).readBack())).resolves.toEqual({ missing: [], doubled: [] });
  });
});

describe('what came into the table while a slot was waited for', () => {
  const SECOND = 1_000;
  /** A replay that waits for the slot of another insert, which is answered `ms` later; meanwhile the window is filled. */
  async function waitedFor(ms: number): Promise<{ readonly replay: Promise<unknown>; readonly reaches: number }> {
    const sink = await openSink({}, { maxInFlight: 1 });
    const intended = recordedBatch(sink, { atMs: nowMs - 30 * SECOND });
    let isFull = false;
    server.onSelect = (sql) =>
      sql.includes('system.parts')
        ? [{ now: nowMs, full: isFull ? Math.floor(nowMs / 1000) : 0, moved: 0 }]
        : undefined;
    let answered = (): void => undefined;
    server.onInsert = ({ response }) => void (answered = () => void response.end());
    const other = outcome(sink.prepare({ ...plain, token: undefined, intent: undefined }).insert());
    await expect.poll(() => server.inserts.length).toBe(1);
    const before = server.queries.length;
    const replay = outcome(sink.prepare(intended).insert());
    // It has asked what the table is, and waits; or will, for what it was told of a time before.
    await expect.poll(() => server.queries.slice(before).some((sql) => sql.includes('system.parts'))).toBe(true);
    server.onInsert = ({ response }) => void response.end();
    isFull = true;
    nowMs += ms;
    answered();
    await other;
    await replay.catch(() => undefined);
    return { replay, reaches: server.queries.slice(before).filter((sql) => sql.includes('system.parts')).length };
  }

  it('I6: is asked for again before anything is sent a second time', async () => {
    const { replay, reaches } = await waitedFor(6 * SECOND);
    await expect(replay).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      message: expect.stringContaining('so many blocks came') as string,
    });
    expect([server.inserts.length, reaches]).toEqual([1, 2]);
  });

  it('is not where the wait was short', async () => {
    const { replay, reaches } = await waitedFor(4 * SECOND);
    await expect(replay).resolves.toMatchObject({ rows: 3 });
    expect([server.inserts.length, reaches]).toEqual([2, 1]);
  });
});

describe('another version of the server', () => {
  const upgraded = (sql: string) =>
    sql.includes('version()')
      ? [{ version: '26.8.1.1', timezone: 'UTC', now: '1763800300000', uptime: 10 }]
      : undefined;

  it('is noticed before a replay is sent, though the sink was opened on the one before', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(recordedBatch(sink));
    expect(preparedInsert.tokenDoubt(nowMs)).toBeUndefined();
    server.onSelect = upgraded;
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      message: expect.stringContaining('26.8.1.1') as string,
    });
    expect(server.inserts).toHaveLength(0);
    expect(preparedInsert.tokenDoubt(nowMs)).toContain('26.8.1.1');
  });

  it('and after an attempt whose connection broke: that may have been the upgrade', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare({ ...recordedBatch(sink), replay: false });
    server.onInsert = ({ socket }) => void socket.destroy();
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
    server.onInsert = ({ response }) => void response.end();
    server.onSelect = upgraded;
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' });
    expect(server.inserts).toHaveLength(1);
  });

  it('costs a first attempt no question', async () => {
    const sink = await openSink();
    const before = server.queries.length;
    await outcome(sink.prepare({ ...recordedBatch(sink), replay: false }).insert());
    expect(server.queries.slice(before).filter((sql) => sql.includes('version()'))).toHaveLength(0);
  });

  it('recorded with the range is a doubt, and so are other settings', async () => {
    const sink = await openSink();
    const old = { version: '26.6.1.1', startedMs: 0 };
    expect(sink.prepare(recordedBatch(sink, { settings: fingerprintOf(old, 'x') })).tokenDoubt(nowMs)).toContain(
      '26.6.1.1',
    );
    expect(
      sink
        .prepare(recordedBatch(sink, { settings: fingerprintOf({ ...old, version: '26.7.2.1' }, 'x') }))
        .tokenDoubt(nowMs),
    ).toContain('settings');
  });
});

describe('a range that was recorded for another table', () => {
  it('is refused before anything is asked or sent, and says both names and what to do', async () => {
    const sink = await openSink();
    const before = server.queries.length;
    expect(() => sink.prepare(recordedBatch(sink, { tables: ['default.old'] }))).toThrow(
      expect.objectContaining({
        code: 'KCR_READ_BACK',
        message: expect.stringMatching(
          /recorded for the table default\.old, but the route of its topic names default\.t now \(topic orders, partition 0, offsets 10-13, table default\.t\).*state reset/,
        ) as string,
      }),
    );
    expect(server.queries).toHaveLength(before);
    expect(server.inserts).toHaveLength(0);
  });

  it('is not refused when its table was not recorded', async () => {
    const sink = await openSink();
    expect(() => sink.prepare(recordedBatch(sink, { tables: [] }))).not.toThrow();
  });
});

describe('a range that another program has inserted', () => {
  it('is sent under that program’s token as it stands, its fills under one of their own', async () => {
    const sink = await openSink();
    const foreign = recordedBatch(sink, { token: 'orders-0-10-13', settings: 'imported' });
    const preparedInsert = sink.prepare({ ...foreign, token: 'orders-0-10-13' });
    expect(preparedInsert.tokenDoubt(nowMs)).toBeUndefined();
    expect(preparedInsert.tokenDoubt(nowMs + 11 * MINUTE)).toContain('11 minutes ago');
    await outcome(preparedInsert.insert());
    await outcome(preparedInsert.fill([10]));
    expect(server.inserts.map(({ params }) => params.get('insert_deduplication_token'))).toEqual([
      'orders-0-10-13',
      'orders-0-10-13:fill1',
    ]);
  });
});

describe('after code 319 the server itself does not know for about 300 s whether it keeps a part', () => {
  const unknown = {
    code: 'KCR_INSERT_IN_DOUBT',
    retryable: true,
    message: expect.stringContaining('code 319') as string,
  };

  async function afterUnknown(): Promise<{
    sink: PreparingSink;
    batch: InsertBatch;
    preparedInsert: ReturnType<PreparingSink['prepare']>;
  }> {
    const sink = await openSink({ engine: 'ReplicatedMergeTree' });
    const batch = recordedBatch(sink);
    const preparedInsert = sink.prepare(batch);
    server.onInsert = refuse(319);
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      fields: { serverCode: 319 },
    });
    server.onInsert = ({ response }) => void response.end();
    return { sink, batch, preparedInsert };
  }

  it.each([
    ['missing', { 10: 1, 12: 1 }, { missing: [13], doubled: [] }],
    ['doubled', { 10: 2, 12: 1, 13: 1 }, { missing: [], doubled: [10] }],
  ])('what looks %s is not believed before, and says until when', async (_, rows, verdict) => {
    const { preparedInsert } = await afterUnknown();
    server.onSelect = found(rows);
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject({
      ...unknown,
      message: expect.stringContaining(new Date(nowMs + 330_000).toISOString()) as string,
    });
    nowMs += 329_999;
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject(unknown);
    nowMs += 1;
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual(verdict);
  });

  it('the last such answer counts', async () => {
    const { preparedInsert } = await afterUnknown();
    nowMs += 200_000;
    server.onInsert = refuse(319);
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ fields: { serverCode: 319 } });
    nowMs += 200_000;
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject(unknown);
    nowMs += 130_000;
    await expect(outcome(preparedInsert.readBack())).resolves.toMatchObject({ missing: [10, 12, 13] });
  });

  it('I9: the answer says for how long, and the next process waits for what the range says of it', async () => {
    const sink = await openSink({ engine: 'ReplicatedMergeTree' });
    const batch = recordedBatch(sink);
    server.onInsert = refuse(319);
    await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({ fields: { unknownForMs: 330_000 } });
    const noted = { ...batch, replay: true, intent: { ...batch.intent!, unknownUntilMs: nowMs + 100_000 } };
    const next = await openSink({ engine: 'ReplicatedMergeTree' });
    server.onSelect = found({ 10: 1, 12: 1 });
    nowMs += 99_999;
    await expect(outcome(next.prepare(noted).readBack())).rejects.toMatchObject(unknown);
    nowMs += 1;
    await expect(outcome(next.prepare(noted).readBack())).resolves.toMatchObject({ missing: [13] });
  });

  it('I9: a clock that is far ahead does not make it wait for longer than a server needs', async () => {
    const sink = await openSink({ engine: 'ReplicatedMergeTree' });
    const batch = recordedBatch(sink);
    const preparedInsert = sink.prepare({
      ...batch,
      replay: true,
      intent: { ...batch.intent!, unknownUntilMs: nowMs + 86_400_000 },
    });
    server.onSelect = found({ 10: 1, 12: 1 });
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject(unknown);
    nowMs += 330_000;
    await expect(outcome(preparedInsert.readBack())).resolves.toMatchObject({ missing: [13] });
  });

  it('also by whoever freezes the range again', async () => {
    const { sink, batch } = await afterUnknown();
    await expect(outcome(sink.prepare(batch).readBack())).rejects.toMatchObject(unknown);
  });

  it('a retry with the token is right at once, and what is whole after it is believed', async () => {
    const { preparedInsert } = await afterUnknown();
    await outcome(preparedInsert.insert());
    server.onSelect = found({ 10: 1, 12: 1, 13: 1 });
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
  });

  it('but not what is whole before a token is trusted: the part may yet be dropped', async () => {
    const { preparedInsert } = await afterUnknown();
    server.onSelect = found({ 10: 1, 12: 1, 13: 1 });
    await expect(outcome(preparedInsert.readBack('it is old'))).rejects.toMatchObject(unknown);
  });
});

describe('parts of which a replicated table does not know whether it keeps them, told to somebody else or to nobody', () => {
  const unsure =
    (rows: Readonly<Record<number, number>>, parts = 2) =>
    (sql: string) =>
      sql.includes('parts_to_check') ? [{ parts: String(parts) }] : found(rows)(sql);
  const unknown = {
    code: 'KCR_INSERT_IN_DOUBT',
    retryable: true,
    message: expect.stringContaining('2 parts of the table') as string,
  };

  it.each([
    ['doubled, which would halt the partition', { 10: 2, 12: 1, 13: 1 }],
    ['missing', { 10: 1, 12: 1 }],
    ['whole, which would settle rows that go', { 10: 1, 12: 1, 13: 1 }],
  ])('what looks %s is looked at again when it does', async (_, rows) => {
    const sink = await openSink({ engine: 'ReplicatedMergeTree' });
    const preparedInsert = sink.prepare(recordedBatch(sink));
    server.onSelect = unsure(rows);
    await expect(outcome(preparedInsert.readBack('it is old'))).rejects.toMatchObject(unknown);
    server.onSelect = unsure({ 10: 1, 12: 1, 13: 1 }, 0);
    await expect(outcome(preparedInsert.readBack('it is old'))).resolves.toEqual({ missing: [], doubled: [] });
  });

  it('do not hold up what was answered well and is whole', async () => {
    const sink = await openSink({ engine: 'ReplicatedMergeTree' });
    const preparedInsert = sink.prepare(recordedBatch(sink));
    await outcome(preparedInsert.insert());
    server.onSelect = unsure({ 10: 1, 12: 1, 13: 1 });
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
  });

  it('are not asked for of a plain table, and not insisted on where the user may not see them', async () => {
    const asked: string[] = [];
    for (const engine of ['MergeTree', 'ReplicatedMergeTree']) {
      const sink = await openSink({ engine });
      server.onSelect = (sql) => {
        if (!sql.includes('parts_to_check')) return found({ 10: 1, 12: 1, 13: 1 })(sql);
        asked.push(engine);
        return 497;
      };
      await expect(outcome(sink.prepare(recordedBatch(sink)).readBack('it is old'))).resolves.toEqual({
        missing: [],
        doubled: [],
      });
    }
    expect(asked).toEqual(['ReplicatedMergeTree']);
  });
});

describe('a partition that was started again', () => {
  it('has no range read back: rows of the topic as it was would be taken for its own, and its own be lost', async () => {
    const sink = await openSink();
    server.onSelect = found({ 10: 1, 12: 1, 13: 1 });
    const preparedInsert = sink.prepare({ ...recordedBatch(sink), isOffsetReused: true });
    nowMs += 11 * MINUTE;
    const why = preparedInsert.tokenDoubt(nowMs);
    await expect(outcome(preparedInsert.readBack(why))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      message: expect.stringContaining('started again') as string,
    });
  });

  it('is still known by its tokens while the server is the one it was recorded for', async () => {
    const sink = await openSink();
    server.onSelect = found({ 10: 1 });
    const preparedInsert = sink.prepare({ ...recordedBatch(sink), isOffsetReused: true });
    expect(await outcome(preparedInsert.readBack())).toEqual({ missing: [], doubled: [] });
  });
});
