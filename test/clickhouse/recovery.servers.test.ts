// insertDeduped over the real sink: ranges whose token ClickHouse has forgotten, and records it cannot take.
import { concatMap, EMPTY, firstValueFrom, lastValueFrom, of, toArray } from 'rxjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { insertDeduped } from '../../operators/insert-deduped.js';
import { reconcileWithState } from '../../operators/reconcile-with-state.js';
import { openClickHouseSink } from '../../src/clickhouse/sink.js';
import type { IngestEvent } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import type { Batch } from '../../src/model/record.js';
import type { PreparingSink, InsertBatch, StateStore } from '../../src/ports.js';
import { memoryStore } from '../../src/state/memory.js';
import { command, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { type EngineFamily, familiesAt, plain } from '../support/engines.js';
import type { BufferedBatch } from '../../src/stages.js';
import { asRecorded, handleOf } from '../support/fakes.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

const database = `recovery_${process.pid}_${Date.now()}`;
const { clickhouseUrl: url } = sharedStack();
const families = await familiesAt(url);
const run = (text: string) => command(url, text, { database });
const counted = async (table: string) =>
  (
    await query<{ n: number; u: number }>(url, `SELECT count() AS n, uniqExact(_offset) AS u FROM ${table}`, {
      database,
    })
  )[0];
const open: PreparingSink[] = [];

const COLUMNS = 'k UInt64, _topic LowCardinality(String), _partition Int32, _offset Int64';

async function sinkFor(
  table: string,
  { family = plain, columns = COLUMNS, key = '', window = 1000 } = {},
): Promise<PreparingSink> {
  await run(`CREATE TABLE ${table} (${columns}) ENGINE = ${family.engine(`${key} ORDER BY k`, { window })}`);
  return openSink(table);
}

async function openSink(table: string): Promise<PreparingSink> {
  const sink = await openClickHouseSink({ url, database, routes: [{ topic: 'orders', table }] });
  open.push(sink);
  return sink;
}

beforeAll(() => command(url, `CREATE DATABASE ${database}`));
afterAll(async () => {
  for (const sink of open) await sink.close();
  await command(url, `DROP DATABASE ${database}`);
});

const HOUR = 3_600_000;
const ten = batchOf(numbers(0, 10).map((offset) => record(offset, { k: offset })));
/** The range as a process that comes an hour later finds it recorded. */
const later = (sink: PreparingSink, batch: InsertBatch = ten): InsertBatch => ({
  ...batch,
  replay: true,
  intent: { ...intentOf(sink, batch), atMs: Date.now() - HOUR },
});
const deliver = (sink: PreparingSink, batch: InsertBatch) =>
  firstValueFrom(of(asRecorded(batch)).pipe(insertDeduped(sink, { retry: { minDelayMs: 20 } })));

/** A plain table with a window of 1 forgets when another token comes; a replicated one does in its own time, but without a window at once. */
const forget = async (family: EngineFamily, table: string): Promise<void> => {
  if (family !== plain) await run(`ALTER TABLE ${table} MODIFY SETTING ${family.window} = 0`);
};

describe.each(families)('a range whose token the server has forgotten, in a $name table', (family) => {
  it('would double when it is sent blindly; looked for first, it is left alone', async () => {
    const table = `forgotten_${family.name}`;
    const sink = await sinkFor(table, { family, window: 1 });
    const other = batchOf([record(100, { k: 1 })], { partition: 1 });
    for (const batch of [ten, other]) await outcome(sink.prepare(batch).insert());
    await forget(family, table);
    await expect(deliver(sink, later(sink))).resolves.toMatchObject({ rows: 0 });
    expect(await counted(table)).toEqual({ n: 11, u: 11 });
    // The control: it was forgotten indeed.
    await outcome(sink.prepare(ten).insert());
    expect(await counted(table)).toEqual({ n: 21, u: 11 });
  });

  it('is inserted when nothing of it is there, and a late attempt under its token changes nothing', async () => {
    const table = `absent_${family.name}`;
    const sink = await sinkFor(table, { family });
    await expect(deliver(sink, later(sink))).resolves.toMatchObject({ rows: 10 });
    await outcome(sink.prepare(ten).insert());
    expect(await counted(table)).toEqual({ n: 10, u: 10 });
  });

  it('of which one ClickHouse partition is there gets the others', async () => {
    const table = `partly_${family.name}`;
    const sink = await sinkFor(table, { family, key: 'PARTITION BY k % 3', window: 3 });
    await outcome(sink.prepare(ten).insert());
    await run(`ALTER TABLE ${table} DROP PARTITION 1`);
    await expect(deliver(sink, later(sink))).resolves.toMatchObject({ rows: 3 });
    expect(await counted(table)).toEqual({ n: 10, u: 10 });
  });
});

describe('materialized views', () => {
  const SLOW = { clickhouseSettings: { function_sleep_max_microseconds_per_block: 60_000_000 } };

  it.each([0, 1])(
    'are fed after the table’s block is written (parallel_view_processing = %i): of a range that is absent they have nothing',
    async (parallel) => {
      const table = `order_${parallel}`;
      await sinkFor(table, { key: 'PARTITION BY k % 2' });
      for (const target of ['quick', 'slow'])
        await run(
          `CREATE TABLE ${table}_${target} (k UInt64) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 1000`,
        );
      await run(`CREATE MATERIALIZED VIEW ${table}_a TO ${table}_quick AS SELECT k FROM ${table}`);
      await run(
        `CREATE MATERIALIZED VIEW ${table}_b TO ${table}_slow AS SELECT k + sleepEachRow(0.1) AS k FROM ${table}`,
      );
      const sink = await openClickHouseSink({
        url,
        database,
        routes: [{ topic: 'orders', table }],
        clickhouseSettings: { ...SLOW.clickhouseSettings, parallel_view_processing: parallel },
      });
      open.push(sink);
      let isDone = false;
      const inserting = outcome(sink.prepare(ten).insert()).finally(() => (isDone = true));
      const rowsOf = async (name: string) =>
        (await query<{ n: number }>(url, `SELECT count() AS n FROM ${name}`, { database }))[0]?.n ?? 0;
      const early: number[] = [];
      let seen = 0;
      while (!isDone) {
        // The views before the table, each in a query of its own: rows that come between the two reads are in the table then.
        const fed = (await rowsOf(`${table}_quick`)) + (await rowsOf(`${table}_slow`));
        const written = await rowsOf(table);
        if (fed > 0 && written < 10) early.push(fed);
        if (written === 10 && (await rowsOf(`${table}_slow`)) === 0) seen++;
      }
      await inserting;
      expect(early).toEqual([]);
      expect(seen).toBeGreaterThan(0);
    },
  );

  it('behind a doubtful range that is there: whether they have it cannot be told, so nothing is sent', async () => {
    const sink = await sinkFor('feeding', { window: 1 });
    await run(
      'CREATE TABLE fed (k UInt64) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 1',
    );
    await run('CREATE MATERIALIZED VIEW feeding_view TO fed AS SELECT k FROM feeding');
    await expect(deliver(sink, later(sink))).resolves.toMatchObject({ rows: 10 });
    await expect(deliver(sink, later(sink))).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      message: expect.stringContaining(`${database}.feeding_view`) as string,
    });
    expect(await counted('feeding')).toEqual({ n: 10, u: 10 });
  });
});

describe.each(families)('one record among a thousand that a $name table cannot take, left out', (family) => {
  const thousand = numbers(0, 1000).map((offset) =>
    record(offset, offset === 789 ? '{"k":"seven hundred"}' : { k: offset }),
  );
  const { assignment } = batchOf(thousand);
  const source = {
    commit: () => EMPTY,
    cluster: () => of('test'),
    log: () => of({ start: 0, end: 1000 }),
    seek: () => EMPTY,
  };

  /** A process over the same store, which reads the thousand. */
  async function live(store: StateStore, sink: PreparingSink) {
    const events: IngestEvent[] = [];
    const onEvent = (event: IngestEvent) => void events.push(event);
    const ledger = new Ledger(store, source, { group: 'g', owner: 'me' });
    const batch = {
      assignment,
      afterOffset: -1,
      lastOffset: 999,
      records: thousand,
      bytes: 0,
    } as Batch as BufferedBatch;
    const delivered = of(batch).pipe(
      reconcileWithState(handleOf(source, assignment), ledger, sink),
      insertDeduped(sink, { onPoison: 'exclude', onEvent, retry: { minDelayMs: 20 } }),
    );
    const all = await lastValueFrom(delivered.pipe(toArray()));
    return {
      rows: all.map((one) => one.rows),
      excluded: events.flatMap((event) => (event.kind === 'excluded' ? [event] : [])),
    };
  }

  it('999 rows, and it is told once with its offset, its value and the reason', async () => {
    const table = `left_out_${family.name}`;
    const sink = await sinkFor(table, { family });
    const { rows, excluded } = await live(memoryStore(), sink);
    expect(rows).toEqual([999]);
    expect(excluded).toMatchObject([
      {
        record: { offset: 789, value: Buffer.from('{"k":"seven hundred"}') },
        error: { code: 'KCR_POISON', fields: { offset: 789, serverCode: 27 } },
      },
    ]);
    expect(await counted(table)).toEqual({ n: 999, u: 999 });
  });

  it.each(['before the exclusion is stored', 'after it', 'after the rest was inserted'])(
    'the same when the process dies %s',
    async (when) => {
      const table = `dies_${when.replaceAll(' ', '_')}_${family.name}`;
      // As many rows as fit in half of it: by the token, without a look.
      const sink = await sinkFor(table, { family, window: 2_000 });
      const store = memoryStore();
      let isDead = false;
      const dead = () => {
        isDead = true;
        return EMPTY;
      };
      let writes = 0;
      const dying: StateStore = {
        ...store,
        claim: (key, owner) => store.claim(key, owner),
        write: (claim, state) => {
          writes++;
          // The first write is the intent.
          if (writes === 2 && when === 'before the exclusion is stored') return dead();
          return of(undefined).pipe(
            concatMap(() => store.write(claim, state)),
            concatMap((written) => (writes === 2 && when === 'after it' ? dead() : of(written))),
          );
        },
      };
      const one = await live(dying, sink).catch((error: unknown) => error);
      if (when !== 'after the rest was inserted') {
        expect(isDead).toBe(true);
        expect(one).toBeInstanceOf(Error);
        expect((await counted(table))?.n).toBe(0);
      }
      const two = await live(store, sink);
      expect(await counted(table)).toEqual({ n: 999, u: 999 });
      expect(two.rows).toEqual([999]);
      expect(two.excluded).toHaveLength(when === 'before the exclusion is stored' ? 1 : 0);
    },
  );
});
