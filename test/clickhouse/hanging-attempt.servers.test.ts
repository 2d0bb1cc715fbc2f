// An attempt that something on the way holds until the range was mended without it.
import { firstValueFrom, of } from 'rxjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { insertDeduped } from '../../operators/insert-deduped.js';
import { openClickHouseSink } from '../../src/clickhouse/sink.js';
import type { PreparingSink, InsertBatch } from '../../src/ports.js';
import { command, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { familiesAt } from '../support/engines.js';
import { httpProxy, type HttpProxy } from '../support/http-proxy.js';
import { asRecorded } from '../support/fakes.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

const database = `hanging_${process.pid}_${Date.now()}`;
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
let proxy: HttpProxy;

beforeAll(async () => {
  await command(url, `CREATE DATABASE ${database}`);
  proxy = await httpProxy(url);
});
afterAll(async () => {
  for (const sink of open) await sink.close();
  await proxy.stop();
  await command(url, `DROP DATABASE ${database}`);
});

const HOUR = 3_600_000;
const ten = batchOf(numbers(0, 10).map((offset) => record(offset, { k: offset })));

async function openSink(table: string, through: string): Promise<PreparingSink> {
  const sink = await openClickHouseSink({ url: through, database, routes: [{ topic: 'orders', table }] });
  open.push(sink);
  return sink;
}

/** A range of which one ClickHouse partition is there, and a further attempt that is held on its way. */
async function halfThere(family: (typeof families)[number], table: string): Promise<PreparingSink> {
  await run(
    `CREATE TABLE ${table} (k UInt64, _topic LowCardinality(String), _partition Int32, _offset Int64) ENGINE = ${family.engine('PARTITION BY k % 2 ORDER BY k', { window: 1000 })}`,
  );
  const sink = await openSink(table, url);
  await outcome(sink.prepare(ten).insert());
  // Rows and token of the other are gone: as if the server had died before it.
  await run(`ALTER TABLE ${table} DROP PARTITION 1`);
  const held = await openSink(table, proxy.url);
  proxy.holds = ({ isInsert }) => isInsert;
  await expect(outcome(held.prepare(ten).insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
  proxy.holds = () => false;
  return sink;
}

describe.each(families)(
  'I4: an attempt that hangs while the range is mended without it, in a $name table',
  (family) => {
    it('adds nothing when it lands', async () => {
      const table = `mended_${family.name}`;
      const sink = await halfThere(family, table);
      const later: InsertBatch = { ...ten, replay: true, intent: { ...intentOf(sink, ten), atMs: Date.now() - HOUR } };
      await expect(
        firstValueFrom(of(asRecorded(later)).pipe(insertDeduped(sink, { retry: { minDelayMs: 20 } }))),
      ).resolves.toMatchObject({ rows: 5 });
      expect(await counted(table)).toEqual({ n: 10, u: 10 });
      expect(await proxy.release()).toEqual([200]);
      expect(await counted(table)).toEqual({ n: 10, u: 10 });
    });

    it('would add a copy of what had been filled under another token: the control', async () => {
      const table = `filled_${family.name}`;
      const sink = await halfThere(family, table);
      await outcome(sink.prepare(ten).fill([1, 3, 5, 7, 9]));
      expect(await counted(table)).toEqual({ n: 10, u: 10 });
      expect(await proxy.release()).toEqual([200]);
      expect(await counted(table)).toEqual({ n: 15, u: 10 });
    });
  },
);
