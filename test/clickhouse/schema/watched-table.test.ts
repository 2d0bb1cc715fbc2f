// A table that is altered while the sink is open: what is told, and what is sent.
import { afterEach, describe, expect, it } from 'vitest';
import { openClickHouseSink, type ClickHouseSinkOptions } from '../../../src/clickhouse/sink.js';
import type { IngestEvent } from '../../../src/events.js';
import type { Intent } from '../../../src/model/state.js';
import type { PreparingSink, InsertBatch } from '../../../src/ports.js';
import { fakeClickHouse, type FakeOptions, type FakeServer } from '../fake-server.js';
import { batchOf, intentOf, outcome, record } from '../fixtures.js';

let server: FakeServer;
let looks: (() => void)[] = [];
let events: IngestEvent[] = [];
const open: PreparingSink[] = [];

afterEach(async () => {
  for (const sink of open.splice(0)) await outcome(sink.close());
  await server.close();
});

async function openSink(fake: FakeOptions = {}, options: Partial<ClickHouseSinkOptions> = {}): Promise<PreparingSink> {
  server = await fakeClickHouse(fake);
  Object.assign(server.table, { uuid: A, alteredS: 100, mutation: 0 });
  looks = [];
  events = [];
  const every = (_everyMs: number, run: () => void) => {
    looks.push(run);
    return () => (looks = looks.filter((one) => one !== run));
  };
  const onEvent = (event: IngestEvent) => void events.push(event);
  const sink = await openClickHouseSink(
    { url: server.url, routes: [{ topic: 'orders', table: 't' }], onEvent, ...options },
    Date.now,
    every,
  );
  open.push(sink);
  return sink;
}

const A = '2057c3d3-b2a4-43fb-bc9b-b39db421d703';
const B = 'bc266c7f-dca1-4347-93fc-bd42eb2e77d2';
const plain = batchOf([record(1010, { id: 1 }), record(1012, { id: 2 }), record(1013, { id: 3 })]);
const told = () => events.flatMap((event) => (event.kind === 'tableChanged' ? [[event.change, event.level]] : []));
const lostReply = () => (server.onInsert = ({ socket }) => void socket.destroy());
const answered = () => (server.onInsert = ({ response }) => void response.end());

/** As the pipeline records it now. */
function recordedBatch(sink: PreparingSink, fields: Partial<Intent> = {}, replay = false): InsertBatch {
  return { ...plain, replay, intent: { ...intentOf(sink, plain), ...fields } };
}

/** Rows of the range, and offsets of older rows that are seen. */
const found =
  (rows: Readonly<Record<number, number>>, older = 0) =>
  (sql: string) =>
    sql.includes('uniqExact')
      ? [{ offsets: String(older) }]
      : sql.includes('_offset AS o')
        ? [{ offsets: Object.keys(rows), counts: Object.values(rows).map(String) }]
        : undefined;

/** One look in the background, to its end. */
async function look(): Promise<void> {
  const before = server.queries.length;
  for (const run of looks) run();
  await expect
    .poll(() => server.queries.slice(before).some((sql) => sql.includes('system.mutations')) || server.table.isGone)
    .toBe(true);
  await expect.poll(() => server.queries.length).toBeGreaterThan(before);
  await new Promise((resolve) => setImmediate(resolve));
  await outcome(open[0]!.prepare(plain).readBack()).catch(() => undefined);
}

it('I15: who asks while a look is under way is told of the table as it is from then on, not as that look has read it', async () => {
  const sink = await openSink();
  const before = server.queries.length;
  const asked: Promise<unknown>[] = [];
  server.onSelect = (sql) => {
    if (!sql.includes('FROM system.columns') || asked.length > 0) return undefined;
    // The look in the background has read the table, and is at its columns.
    Object.assign(server.table, { uuid: B });
    for (let count = 0; count < 3; count++)
      asked.push(outcome(sink.prepare(recordedBatch(sink)).readBack()).catch((error: unknown) => error));
    return undefined;
  };
  for (const run of looks) run();
  await expect.poll(() => asked.length).toBe(3);
  for (const one of await Promise.all(asked))
    expect(one).toMatchObject({ code: 'KCR_READ_BACK', message: expect.stringContaining(B) as string });
  expect(
    server.queries.slice(before).filter((sql) => sql.includes('FROM system.tables')),
    'they share one',
  ).toHaveLength(2);
});

describe('a look in the background', () => {
  it('ends with the sink', async () => {
    const sink = await openSink();
    expect(looks).toHaveLength(1);
    await outcome(sink.close());
    expect(looks).toHaveLength(0);
  });

  it.each<[string, Partial<FakeServer['table']>, [string, string][]]>([
    [
      'C3: a window that was taken away',
      { settings: 'non_replicated_deduplication_window = 0', alteredS: 101 },
      [['window', 'warn']],
    ],
    [
      'C3: a table that was exchanged with one without a window',
      { uuid: B, settings: 'non_replicated_deduplication_window = 0', alteredS: 90 },
      [
        ['replaced', 'warn'],
        ['window', 'warn'],
      ],
    ],
    ['C4: a table that was dropped and created again', { uuid: B, alteredS: 200 }, [['replaced', 'warn']]],
    [
      'C4: _offset dropped',
      { columns: { id: 'UInt64', _topic: 'String', _partition: 'Int32' }, alteredS: 101 },
      [['columns', 'warn']],
    ],
    [
      'C4: _offset renamed',
      { columns: { id: 'UInt64', _topic: 'String', _partition: 'Int32', offset_: 'Int64' }, alteredS: 101 },
      [['columns', 'warn']],
    ],
    ['C4: a table that is gone', { isGone: true }, [['gone', 'error']]],
    [
      'another column',
      {
        columns: { id: 'UInt64', more: 'String', _topic: 'String', _partition: 'Int32', _offset: 'Int64' },
        alteredS: 101,
      },
      [['altered', 'info']],
    ],
    ['nothing', {}, []],
  ])('tells of %s', async (_, change, expected) => {
    await openSink();
    Object.assign(server.table, change);
    await look();
    expect(told()).toEqual(expected);
  });

  it('C4: says what to do, and names the table', async () => {
    await openSink();
    server.table.columns = { id: 'UInt64', _topic: 'String', _partition: 'Int32' };
    await look();
    expect(events).toContainEqual(
      expect.objectContaining({
        kind: 'tableChanged',
        table: 'default.t',
        hint: expect.stringContaining('ALTER TABLE default.t ADD COLUMN _offset Int64') as string,
      }),
    );
  });

  it('C4: provenance that was added is recorded, and written, from then on', async () => {
    const sink = await openSink({ columns: { id: 'UInt64' } });
    const before = recordedBatch(sink);
    server.table.columns = { id: 'UInt64', _topic: 'String', _partition: 'Int32', _offset: 'Int64' };
    await look();
    expect(told()).toEqual([['columns', 'info']]);
    await outcome(sink.prepare(before).insert());
    await outcome(sink.prepare(recordedBatch(sink)).insert());
    const [one, two] = server.inserts.map(({ body }) => body.toString());
    expect(one).not.toContain('_offset');
    expect(two).toContain('"_offset":1010');
    expect(sink.describe('orders').written?.columns).toMatch(/^tpo-/);
  });

  it('costs a first attempt no question', async () => {
    const sink = await openSink();
    const before = server.queries.length;
    await outcome(sink.prepare(recordedBatch(sink)).insert());
    expect(server.queries).toHaveLength(before);
  });
});

describe('nothing is sent a second time', () => {
  async function afterLostReply(change: Partial<FakeServer['table']>, fake: FakeOptions = {}) {
    const sink = await openSink(fake);
    const preparedInsert = sink.prepare(recordedBatch(sink));
    lostReply();
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
    answered();
    Object.assign(server.table, change);
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' });
    expect(server.inserts).toHaveLength(1);
    const why = preparedInsert.tokenDoubt(Date.now());
    return { sink, preparedInsert, why };
  }
  const windowless = { settings: 'non_replicated_deduplication_window = 0', alteredS: 101 };
  const noProvenance = { columns: { id: 'UInt64' } };

  it('C3: into a table whose window is gone, before its rows were looked for', async () => {
    const { preparedInsert, why } = await afterLostReply(windowless);
    expect(why).toContain('dedup window is 0');
    server.onSelect = found({ 1010: 1, 1012: 1, 1013: 1 });
    await expect(outcome(preparedInsert.readBack(why))).resolves.toEqual({ missing: [], doubled: [] });
  });

  it('C3: into a table whose window is gone and that has no provenance columns: it halts with words', async () => {
    const { preparedInsert, why } = await afterLostReply(windowless, noProvenance);
    await expect(outcome(preparedInsert.readBack(why))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      fields: { table: 'default.t', hint: expect.stringContaining('state reset') as string },
    });
  });

  it('C3: into a table whose window may have been gone for a while', async () => {
    const { preparedInsert, why } = await afterLostReply({ alteredS: 101 }, noProvenance);
    expect(why).toContain('may have been 0 meanwhile');
    await expect(outcome(preparedInsert.readBack(why))).rejects.toMatchObject({ code: 'KCR_READ_BACK' });
  });

  it('C4: into another table under the same name: it halts, and says which table to bring back', async () => {
    const { preparedInsert, why } = await afterLostReply({ uuid: B });
    server.onSelect = found({});
    await expect(outcome(preparedInsert.readBack(why))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      message: expect.stringMatching(new RegExp(`${A}.*${B}.*EXCHANGE TABLES`)) as string,
    });
  });

  it('C4: while the table is gone; when it is back, everything goes on', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(recordedBatch(sink, {}, true));
    server.table.isGone = true;
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      message: expect.stringContaining('no table default.t') as string,
    });
    server.table.isGone = false;
    await outcome(preparedInsert.insert());
    expect(told()).toEqual([
      ['gone', 'error'],
      ['back', 'info'],
    ]);
  });

  it('C3: nor one that was recorded while the window was away, which came back before the next look', async () => {
    const sink = await openSink();
    Object.assign(server.table, { settings: 'non_replicated_deduplication_window = 0', alteredS: 101 });
    await look();
    await new Promise((resolve) => setTimeout(resolve, 5));
    const batch = recordedBatch(sink, { atMs: Date.now() });
    // Back within the same second: the time of the alteration says nothing.
    Object.assign(server.table, { settings: 'non_replicated_deduplication_window = 1000', alteredS: 101 });
    await new Promise((resolve) => setTimeout(resolve, 5));
    await look();
    const preparedInsert = sink.prepare({ ...batch, replay: true });
    expect(preparedInsert.tokenDoubt(Date.now())).toContain('was 0 since the range was recorded');
  });

  it('nor when the table was altered between the look and the attempt', async () => {
    const { preparedInsert, why } = await afterLostReply(windowless);
    server.onSelect = found({}, 5);
    await expect(outcome(preparedInsert.readBack(why))).resolves.toMatchObject({ missing: [1010, 1012, 1013] });
    server.table.alteredS = 102;
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' });
    expect(server.inserts).toHaveLength(1);
  });

  it('what was altered while it was looked at is looked at again', async () => {
    const sink = await openSink();
    server.onSelect = (sql) =>
      sql.includes('_offset AS o') ? (Object.assign(server.table, { uuid: B }), []) : undefined;
    await expect(outcome(sink.prepare(recordedBatch(sink)).readBack())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
    });
  });
});

describe('I15: a range whose rows are not seen', () => {
  const restarted = (sql: string) =>
    sql.includes('version()')
      ? [{ version: '26.7.2.1', timezone: 'UTC', now: '1763900200000', uptime: 1000 }]
      : undefined;
  const halted = {
    code: 'KCR_READ_BACK',
    message: expect.stringContaining('was restarted since the range was recorded') as string,
  };

  it('C1: and were sent without the columns is not filled, and is settled while the server is the same', async () => {
    const sink = await openSink({ columns: { id: 'UInt64' } });
    const preparedInsert = sink.prepare(recordedBatch(sink, {}, true));
    Object.assign(server.table, {
      columns: { id: 'UInt64', _topic: 'String', _partition: 'Int32', _offset: 'Int64' },
      alteredS: 101,
    });
    server.onSelect = found({}, 5);
    await outcome(preparedInsert.insert());
    expect(server.inserts).toHaveLength(1);
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
    server.onSelect = (sql) => restarted(sql) ?? found({}, 5)(sql);
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject(halted);
  });

  it.each([
    ['with older rows that are seen is filled', 2, true],
    ['without is not: the column may have been dropped and added again', 1, false],
  ])('in a table that was altered since, %s', async (_, older, isBelieved) => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(recordedBatch(sink, {}, true));
    Object.assign(server.table, { mutation: 4 });
    server.onSelect = (sql) => restarted(sql) ?? found({ 1010: 1 }, older)(sql);
    const looked = outcome(preparedInsert.readBack());
    if (isBelieved) await expect(looked).resolves.toEqual({ missing: [1012, 1013], doubled: [] });
    else await expect(looked).rejects.toMatchObject(halted);
    const asked = server.queries.find((sql) => sql.includes('uniqExact'));
    expect(asked).toContain('_topic = ');
  });

  it('in a table that was altered since, but all of them are: settled', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(recordedBatch(sink, {}, true));
    Object.assign(server.table, { mutation: 4 });
    server.onSelect = (sql) => restarted(sql) ?? found({ 1010: 1, 1012: 1, 1013: 1 })(sql);
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
  });

  it('and says nothing of its table (an older version recorded it) is filled only with older rows that are seen', async () => {
    const sink = await openSink();
    const { written: _, ...older } = recordedBatch(sink).intent!;
    const preparedInsert = sink.prepare({ ...plain, replay: true, intent: older });
    server.onSelect = found({}, 2);
    await expect(outcome(preparedInsert.readBack())).resolves.toMatchObject({ missing: [1010, 1012, 1013] });
    server.onSelect = (sql) => restarted(sql) ?? found({}, 0)(sql);
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject(halted);
  });

  it('I5: is not looked for by partition and offset alone: rows of another topic would pass for them', async () => {
    const sink = await openSink({ columns: { id: 'UInt64', _partition: 'Int32', _offset: 'Int64' } });
    server.onSelect = found({ 1010: 1, 1012: 1, 1013: 1 });
    const why = 'it is old';
    await expect(outcome(sink.prepare(recordedBatch(sink, {}, true)).readBack(why))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      message: expect.stringContaining('_topic') as string,
    });
  });

  it('in a table with other columns since: the token is relied on, and everything is sent under it', async () => {
    const sink = await openSink();
    const preparedInsert = sink.prepare(recordedBatch(sink, {}, true));
    Object.assign(server.table, { columns: { ...server.table.columns, more: 'String' }, alteredS: 101 });
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' });
    const why = preparedInsert.tokenDoubt(Date.now());
    server.onSelect = found({ 1010: 1 });
    await expect(outcome(preparedInsert.readBack(why))).resolves.toEqual({
      missing: [1010, 1012, 1013],
      doubled: [],
      isUnproven: true,
    });
    await outcome(preparedInsert.insert());
    // Who asks for another reason is not told that it is missing.
    await expect(outcome(preparedInsert.readBack('a record of it is refused now'))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
    });
  });
});

it('I15: rows have the columns that the table has when they are sent, not those it had when their batch was frozen', async () => {
  const sink = await openSink({ columns: { id: 'UInt64', _topic: 'String', _partition: 'Int32', _offset: 'Int64' } });
  const recorded = recordedBatch(sink, {}, true);
  const { columns } = server.table;
  server.table.columns = { id: 'UInt64' };
  await look();
  const preparedInsert = sink.prepare(recorded);
  server.table.columns = columns;
  server.onSelect = found({});
  await outcome(preparedInsert.readBack('it is asked'));
  answered();
  await outcome(preparedInsert.insert());
  expect(server.inserts.at(-1)?.body.toString()).toContain('"_offset":1010');
});
