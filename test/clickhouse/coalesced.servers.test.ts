// The insert mode `coalesced` against a real ClickHouse: what is written together, and what becomes of each.
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { checkClickHouse } from '../../src/clickhouse/preflight.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../src/clickhouse/sink.js';
import type { PreparingSink, InsertBatch } from '../../src/ports.js';
import { coalescingFaultHere } from '../stack/clickhouse.js';
import { command, query } from '../stack/clients.js';
import { type Stack, startStack } from '../stack/stack.js';
import { familiesHere, plain } from '../support/engines.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

const fault = process.env['CLICKHOUSE_URL'] ? undefined : coalescingFaultHere();
if (fault !== undefined) console.log(`skipped, since inserts cannot wait for others here: ${fault}`);

const database = `coalesced_${process.pid}_${Date.now()}`;
const COLUMNS = 'k UInt64, _topic LowCardinality(String), _partition Int32, _offset Int64';
const ENGINE = plain.engine('ORDER BY k');
const families = fault === undefined ? familiesHere() : [plain];
const coalesceMs = 400;

let stack: Stack;
let url: string;
const open: PreparingSink[] = [];
const run = (text: string) => command(url, text, { database });
const sql = <Row = Record<string, unknown>>(text: string) => query<Row>(url, text, { database });
const count = async (table: string) =>
  (
    await sql<{ rows: number; known: number }>(
      `SELECT count() AS rows, uniqExact(_partition, _offset) AS known FROM ${table}`,
    )
  )[0];
const partsOf = (table: string) =>
  sql(
    `SELECT rows FROM system.parts WHERE database = '${database}' AND table = '${table}' AND level = 0 ORDER BY rows`,
  );

async function sinkFor(table: string, options: Partial<ClickHouseSinkOptions> = {}): Promise<PreparingSink> {
  const sink = await openClickHouseSink({
    url,
    database,
    routes: [{ topic: 'orders', table }],
    insertMode: 'coalesced',
    coalesceMs,
    ...options,
  });
  open.push(sink);
  return sink;
}

async function tableWith(
  table: string,
  { columns = COLUMNS, engine = ENGINE } = {},
  options: Partial<ClickHouseSinkOptions> = {},
): Promise<PreparingSink> {
  await run(`CREATE TABLE ${table} (${columns}) ENGINE = ${engine}`);
  return sinkFor(table, options);
}

/** Three records of each of so many Kafka partitions. */
const batches = (first: number, many: number, value = (k: number): object => ({ k })): InsertBatch[] =>
  numbers(first, many).map((partition) =>
    batchOf(
      numbers(0, 3).map((offset) => record(offset, value(partition * 10 + offset))),
      { partition },
    ),
  );
/** Waits until the server has so many inserts into the table that it has not answered. */
const untilThere = (table: string, many: number, at = url) =>
  vi.waitFor(
    async () =>
      expect(
        await query(at, `SELECT count() AS n FROM system.processes WHERE query LIKE 'INSERT INTO %${table}%'`),
      ).toEqual([{ n: many }]),
    { timeout: 30_000, interval: 20 },
  );
const insertAll = (sink: PreparingSink, all: readonly InsertBatch[]) =>
  Promise.all(all.map((batch) => outcome(sink.prepare(batch).insert())));

describe.skipIf(fault !== undefined)('inserts that wait for others', () => {
  beforeAll(async () => {
    stack = await startStack({ kafka: false, clickhouse: { asyncInserts: true } });
    url = stack.clickhouseUrl;
    await command(url, `CREATE DATABASE ${database}`);
  });
  afterEach(async () => {
    for (const sink of open.splice(0)) await outcome(sink.close());
  });
  afterAll(async () => {
    await command(url, `DROP DATABASE ${database}`);
    await stack.stop();
  });

  it.each(families)(
    'make one part, however many partitions they come from, and land once however often they are repeated; $name table',
    async (family) => {
      const table = `together_${family.name}`;
      // Long enough for a busy machine to send them all.
      const sink = await tableWith(table, { engine: family.engine('ORDER BY k') }, { coalesceMs: 2000 });
      await insertAll(sink, batches(0, 50));
      expect(await partsOf(table)).toEqual([{ rows: 150 }]);
      await insertAll(sink, batches(0, 50));
      expect(await count(table)).toEqual({ rows: 150, known: 150 });
    },
  );

  it.each(families)(
    'are each known by its own token: of known and new ones together only the new ones land; $name table',
    async (family) => {
      const table = `mixed_${family.name}`;
      const sink = await tableWith(table, { engine: family.engine('ORDER BY k') });
      await insertAll(sink, batches(0, 5));
      await insertAll(sink, batches(3, 5));
      expect(await count(table)).toEqual({ rows: 24, known: 24 });
      await insertAll(sink, batches(0, 8));
      expect(await count(table)).toEqual({ rows: 24, known: 24 });
    },
  );

  it.each(families)(
    'are known in each ClickHouse partition by itself, also where others of the flush have rows there and they have none; $name table',
    async (family) => {
      const table = `spread_${family.name}`;
      const engine = family.engine('PARTITION BY k % 3 ORDER BY k');
      const sink = await tableWith(table, { engine });
      const one = batchOf([record(0, { k: 0 })], { partition: 90, token: 'shared' });
      const other = batchOf([record(0, { k: 1 })], { partition: 91 });
      await insertAll(sink, [one, other]);
      // The token of the one was not noted where only the other has rows (ClickHouse issue 111031).
      await outcome(
        sink.prepare(batchOf([record(0, { k: 0 }), record(1, { k: 1 })], { partition: 90, token: 'shared' })).insert(),
      );
      expect(await count(table)).toEqual({ rows: 3, known: 3 });
      // Some known and some new in each (ClickHouse issue 110604).
      await insertAll(sink, batches(0, 6));
      await insertAll(sink, batches(3, 6));
      expect(await count(table)).toEqual({ rows: 30, known: 30 });
    },
  );

  it.each(families)('reach materialized views once; $name table', async (family) => {
    const table = `viewed_${family.name}`;
    const sink = await tableWith(table, { engine: family.engine('ORDER BY k') });
    await run(`CREATE TABLE ${table}_target (k UInt64) ENGINE = ${family.engine('ORDER BY k')}`);
    await run(`CREATE MATERIALIZED VIEW ${table}_between TO ${table}_target AS SELECT k FROM ${table}`);
    await insertAll(sink, batches(0, 4));
    await insertAll(sink, batches(2, 4));
    expect(
      await sql(
        `SELECT (SELECT count() FROM ${table}) AS source, (SELECT count() FROM ${table}_target) AS target, (SELECT uniqExact(k) FROM ${table}_target) AS known`,
      ),
    ).toEqual([{ source: 18, target: 18, known: 18 }]);
  });

  it('one of which breaks a constraint: that record is named, and not one of the others; they land', async () => {
    const sink = await tableWith('poisoned', { columns: `${COLUMNS}, CONSTRAINT c CHECK k != 21` });
    const tries = await Promise.allSettled(batches(0, 5).map((batch) => outcome(sink.prepare(batch).insert())));
    expect(tries.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
    expect(tries[2]).toMatchObject({ reason: { code: 'KCR_POISON', fields: { partition: 2, offset: 1 } } });
    expect(await count('poisoned')).toEqual({ rows: 12, known: 12 });
  });

  it('one of which cannot be parsed: the same', async () => {
    const sink = await tableWith('unparsable');
    const [first, , third] = batches(0, 3) as [InsertBatch, InsertBatch, InsertBatch];
    const bad = batchOf([record(0, { k: 10 }), record(1, '{"k":"x"}')], { partition: 1 });
    const tries = await Promise.allSettled([first, bad, third].map((batch) => outcome(sink.prepare(batch).insert())));
    expect(tries[1]).toMatchObject({ reason: { code: 'KCR_POISON', fields: { partition: 1, offset: 1 } } });
    expect(await count('unparsable')).toEqual({ rows: 6, known: 6 });
  });

  it('that spread over more ClickHouse partitions than one insert may, but only together, land', async () => {
    const engine = 'MergeTree PARTITION BY k ORDER BY k SETTINGS non_replicated_deduplication_window = 1000';
    const sink = await tableWith('wide', { engine });
    await insertAll(
      sink,
      numbers(0, 3).map((partition) =>
        batchOf(
          numbers(0, 40).map((offset) => record(offset, { k: partition * 40 + offset })),
          { partition },
        ),
      ),
    );
    expect(await count('wide')).toEqual({ rows: 120, known: 120 });
  });

  it.each(families)(
    'have the same tokens as direct ones: a mode that was changed doubles nothing, either way; $name table',
    async (family) => {
      const table = `changed_${family.name}`;
      const asyncInsert = await tableWith(table, { engine: family.engine('ORDER BY k') });
      const direct = await sinkFor(table, { insertMode: 'direct' });
      await insertAll(asyncInsert, batches(0, 3));
      await insertAll(direct, batches(0, 5));
      await insertAll(asyncInsert, [...batches(0, 5), ...batches(5, 1)]);
      expect(await count(table)).toEqual({ rows: 18, known: 18 });
    },
  );

  it('that nobody waits for any more land all the same; meanwhile the range is not looked up, and repeated they land once', async () => {
    const sink = await tableWith('given_up', {}, { coalesceMs: 3000, requestTimeoutMs: 6000 });
    const [batch] = batches(0, 1) as [InsertBatch];
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch) });
    void outcome(preparedInsert.insert()).catch(() => undefined);
    await untilThere('given_up', 1);
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      message: expect.stringContaining('still running') as string,
    });
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      fields: { serverCode: 216 },
    });
    await vi.waitFor(() => expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] }), {
      timeout: 30_000,
      interval: 100,
    });
    await outcome(preparedInsert.insert());
    expect(await count('given_up')).toEqual({ rows: 3, known: 3 });
  });

  it('whose query was killed while they waited land all the same, and are not looked up before', async () => {
    const sink = await tableWith('query_killed', {}, { coalesceMs: 3000 });
    const [batch] = batches(0, 1) as [InsertBatch];
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch) });
    const inserting = outcome(preparedInsert.insert()).catch((error: unknown) => error);
    await untilThere('query_killed', 1);
    await command(url, "KILL QUERY WHERE query LIKE 'INSERT INTO %query_killed%' ASYNC");
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
    await inserting;
    await vi.waitFor(() => expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] }), {
      timeout: 30_000,
      interval: 100,
    });
    await outcome(preparedInsert.insert());
    expect(await count('query_killed')).toEqual({ rows: 3, known: 3 });
  });

  it('of more bytes than may wait make a part each, and so does one of several megabytes: one block, whatever its size', async () => {
    const sink = await tableWith('large', {}, { coalesceBytes: 300, coalesceMs: 2000 });
    const large = batchOf(
      numbers(0, 200_000).map((offset) => record(offset, { k: offset })),
      { partition: 7 },
    );
    await insertAll(sink, [...batches(0, 2), large]);
    expect(await partsOf('large')).toEqual([{ rows: 6 }, { rows: 200_000 }]);
    await insertAll(sink, [...batches(0, 2), large]);
    expect(await count('large')).toEqual({ rows: 200_006, known: 200_006 });
  });

  it('are told of before the start: the mode, and a window that forgets their tokens too soon', async () => {
    await tableWith('checked');
    const options = {
      url,
      database,
      routes: [{ topic: 'orders', table: 'checked' }],
      insertMode: 'coalesced' as const,
    };
    const findings = await checkClickHouse(options, { delivery: 'exactly-once', maxPending: 2, kafkaPartitions: 200 });
    expect(findings.filter(({ level }) => level === 'refusal')).toEqual([]);
    expect(findings.find(({ what }) => what === 'insert mode')).toMatchObject({
      level: 'ok',
      detail: expect.stringContaining('262144 bytes wait 200 ms') as string,
    });
    expect(findings.find(({ what }) => what.startsWith('dedup window'))).toMatchObject({ level: 'warning' });
    const few = await checkClickHouse(options, { delivery: 'exactly-once', maxPending: 2, kafkaPartitions: 3 });
    expect(few.find(({ what }) => what === 'insert mode')).toMatchObject({
      level: 'warning',
      todo: expect.stringContaining('maxWaitMs') as string,
    });
  });

  it.each(families)(
    'are gone when the server is killed while they wait, and repeated they land; what had landed is known still; $name table',
    async (family) => {
      const table = `killed_${family.name}`;
      const own = await startStack({ kafka: false, useEnvironment: false, clickhouse: { asyncInserts: true } });
      try {
        const server = own.clickhouse!;
        await command(own.clickhouseUrl, `CREATE TABLE ${table} (${COLUMNS}) ENGINE = ${family.engine('ORDER BY k')}`);
        const sink = await openClickHouseSink({
          url: own.clickhouseUrl,
          routes: [{ topic: 'orders', table }],
          insertMode: 'coalesced',
          coalesceMs,
        });
        open.push(sink);
        await insertAll(sink, batches(0, 3));
        const patient = await openClickHouseSink({
          url: own.clickhouseUrl,
          routes: [{ topic: 'orders', table }],
          insertMode: 'coalesced',
          coalesceMs: 10_000,
        });
        open.push(patient);
        const waiting = batches(3, 3).map((batch) => outcome(patient.prepare(batch).insert()));
        const answers = Promise.allSettled(waiting);
        await untilThere(table, 3, own.clickhouseUrl);
        await server.kill();
        for (const answer of await answers)
          expect(answer).toMatchObject({ status: 'rejected', reason: { code: 'KCR_INSERT_IN_DOUBT' } });
        await server.start();
        const rows = () => query(own.clickhouseUrl, `SELECT count() AS rows FROM ${table}`);
        expect(await rows()).toEqual([{ rows: 9 }]);
        await insertAll(sink, batches(0, 6));
        expect(await rows()).toEqual([{ rows: 18 }]);
      } finally {
        await own.stop();
      }
    },
  );
});
