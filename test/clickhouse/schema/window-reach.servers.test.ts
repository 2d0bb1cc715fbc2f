// How far the dedup window of a real table reaches back, by what came into it, and what becomes of a replay beyond that.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../../src/clickhouse/sink.js';
import type { InsertBatch } from '../../../src/ports.js';
import { command, query } from '../../stack/clients.js';
import { sharedStack } from '../../stack/shared.js';
import { familiesAt } from '../../support/engines.js';
import { batchOf, intentOf, numbers, outcome, record } from '../fixtures.js';

const { clickhouseUrl: url } = sharedStack();
const families = await familiesAt(url);
const database = `reach_${process.pid}`;
const WITH = 'k UInt64, _topic LowCardinality(String), _partition Int32, _offset Int64';
const MINUTE = 60_000;
const run = (text: string, settings: Record<string, number | string> = {}) =>
  command(url, text, { database, settings });
const batch = batchOf(numbers(0, 5).map((offset) => record(offset, { k: offset })));

beforeAll(async () => void (await command(url, `CREATE DATABASE ${database}`)));
afterAll(async () => void (await command(url, `DROP DATABASE ${database}`)));

describe.each(families)('the window of a $name table', (family) => {
  /** Inserted, recorded a minute ago, and then so many blocks of somebody else came. */
  async function replayAfter(name: string, columns: string, blocks: number, more: Partial<ClickHouseSinkOptions> = {}) {
    const table = `${name}_${family.name}`;
    await run(`CREATE TABLE ${table} (${columns}) ENGINE = ${family.engine('ORDER BY k', { window: 20 })}`);
    await run(`SYSTEM STOP MERGES ${database}.${table}`);
    const sink = await openClickHouseSink({ url, database, routes: [{ topic: 'orders', table }], ...more });
    await outcome(sink.prepare({ ...batch, intent: intentOf(sink, batch) }).insert());
    for (const k of numbers(100, blocks)) await run(`INSERT INTO ${table} (k) VALUES (${k})`, { async_insert: 0 });
    const replay: InsertBatch = {
      ...batch,
      replay: true,
      intent: { ...intentOf(sink, batch), atMs: Date.now() - MINUTE },
    };
    return {
      sink,
      preparedInsert: sink.prepare(replay),
      rows: async () => (await query(url, `SELECT count() AS n FROM ${database}.${table} WHERE k < 5`))[0],
    };
  }

  it('I6: is not relied on when other writers have filled it since, though the range was recorded a minute ago: its rows are looked for', async () => {
    const { sink, preparedInsert, rows } = await replayAfter('filled', WITH, 21);
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      message: expect.stringContaining('so many blocks came into the table') as string,
    });
    const doubt = preparedInsert.tokenDoubt(Date.now());
    expect(doubt).toContain('of whatever writer');
    await expect(outcome(preparedInsert.readBack(doubt))).resolves.toEqual({ missing: [], doubled: [] });
    expect(await rows()).toEqual({ n: 5 });
    await outcome(sink.close());
  });

  it('I6: halts what cannot be looked for, and would be doubled', async () => {
    const { sink, preparedInsert, rows } = await replayAfter('blind', 'k UInt64', 21);
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' });
    await expect(outcome(preparedInsert.readBack(preparedInsert.tokenDoubt(Date.now())))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      message: expect.stringContaining('could double') as string,
    });
    expect(await rows()).toEqual({ n: 5 });
    await outcome(sink.close());
  });

  it('I6: may have taken as many tokens as rows came, of inserts that were written together', async () => {
    const { sink, rows } = await replayAfter('together', WITH, 0);
    const table = `together_${family.name}`;
    await run(`INSERT INTO ${table} (k) SELECT 100 + number FROM numbers(21)`, { async_insert: 0 });
    const asyncInsert = await openClickHouseSink({
      url,
      database,
      routes: [{ topic: 'orders', table }],
      insertMode: 'coalesced',
    });
    const replay: InsertBatch = {
      ...batch,
      replay: true,
      intent: { ...intentOf(asyncInsert, batch), atMs: Date.now() - MINUTE },
    };
    await expect(outcome(asyncInsert.prepare(replay).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
      message: expect.stringContaining('so many blocks came') as string,
    });
    // Where no insert waits for others a replicated table counts blocks: a look would be a cost of its own.
    const direct = outcome(sink.prepare(replay).insert());
    await (family.name === 'plain'
      ? expect(direct).rejects.toMatchObject({ code: 'KCR_INSERT_RETRIABLE' })
      : expect(direct).resolves.toMatchObject({ rows: 5 }));
    expect(await rows()).toEqual({ n: 5 });
    for (const one of [sink, asyncInsert]) await outcome(one.close());
  });

  it('I6: is relied on while it certainly has the token', async () => {
    const { sink, preparedInsert, rows } = await replayAfter('held', 'k UInt64', 5);
    await expect(outcome(preparedInsert.insert())).resolves.toMatchObject({ rows: 5 });
    expect(await rows()).toEqual({ n: 5 });
    await outcome(sink.close());
  });
});

it.skipIf(families.length < 2)('I6: a window in time that is made shorter counts from the next look on', async () => {
  const table = 'shorter';
  await run(
    `CREATE TABLE ${table} (${WITH}) ENGINE = ${families[1]!.engine('ORDER BY k', { settings: 'replicated_deduplication_window_seconds = 3600' })}`,
  );
  const sink = await openClickHouseSink({ url, database, routes: [{ topic: 'orders', table }] });
  await outcome(sink.prepare({ ...batch, intent: intentOf(sink, batch) }).insert());
  const preparedInsert = sink.prepare({
    ...batch,
    replay: true,
    intent: { ...intentOf(sink, batch), atMs: Date.now() - MINUTE },
  });
  await outcome(preparedInsert.insert());
  await run(`ALTER TABLE ${table} MODIFY SETTING replicated_deduplication_window_seconds = 60`);
  await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
    code: 'KCR_INSERT_RETRIABLE',
    message: expect.stringContaining('relied on for 30 s') as string,
  });
  await outcome(sink.close());
});
