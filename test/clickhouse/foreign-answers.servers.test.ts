// What answers 200 in ClickHouse's place, and what does not pass its answers on: the sink against a real ClickHouse behind it.
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { checkClickHouse } from '../../src/clickhouse/preflight.js';
import { openProvenanceScan } from '../../src/clickhouse/verify/provenance-scan.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../src/clickhouse/sink.js';
import { command, query } from '../stack/clients.js';
import { coalescingFaultHere } from '../stack/clickhouse.js';
import { sharedStack } from '../stack/shared.js';
import { type Stack, startStack } from '../stack/stack.js';
import { familiesAt } from '../support/engines.js';
import { httpProxy, type HttpProxy } from '../support/http-proxy.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

const { clickhouseUrl: url } = sharedStack();
const families = await familiesAt(url);
const database = `foreign_${process.pid}`;
const COLUMNS = 'k UInt64, _topic LowCardinality(String), _partition Int32, _offset Int64';
const batch = batchOf(numbers(0, 5).map((offset) => record(offset, { k: offset })));
const count = async (table: string) =>
  (await query(url, `SELECT count() AS rows, uniqExact(_offset) AS known FROM ${database}.${table}`))[0];

let proxy: HttpProxy;
let made = 0;
beforeAll(async () => {
  await command(url, `CREATE DATABASE ${database}`);
  proxy = await httpProxy(url);
});
afterEach(() => {
  proxy.onRequest = () => 'pass';
  proxy.onAnswer = () => Promise.resolve('pass');
});
afterAll(async () => {
  await command(url, `DROP DATABASE ${database}`);
  await proxy.stop();
});

async function optionsFor(
  engine = families[0]!.engine('ORDER BY k', { window: 1000 }),
  at = url,
): Promise<ClickHouseSinkOptions> {
  const table = `t${made++}`;
  await command(at, `CREATE TABLE ${database}.${table} (${COLUMNS}) ENGINE = ${engine}`);
  return { url: proxy.url, database, routes: [{ topic: 'orders', table }] };
}
const tableOf = ({ routes }: ClickHouseSinkOptions): string => routes[0]!.table;

it.each(families)(
  'I7: an insert into a $name table that a load balancer answers 200 without a body is in doubt, and lands when it is made again',
  async (family) => {
    const options = await optionsFor(family.engine('ORDER BY k', { window: 1000 }));
    const sink = await openClickHouseSink(options);
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch) });
    proxy.onRequest = ({ isInsert }) => (isInsert ? { status: 200, text: '' } : 'pass');
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      message: expect.stringContaining('X-ClickHouse-Query-Id') as string,
      fields: { first: 0, last: 4 },
    });
    expect(await count(tableOf(options))).toEqual({ rows: 0, known: 0 });
    proxy.onRequest = () => 'pass';
    await expect(outcome(preparedInsert.insert())).resolves.toMatchObject({ rows: 5 });
    expect(await count(tableOf(options))).toEqual({ rows: 5, known: 5 });
    await outcome(sink.close());
  },
);

it('I7: nor does one that names another query, as a proxy gives queries ids of its own', async () => {
  const options = await optionsFor();
  const sink = await openClickHouseSink(options);
  proxy.onRequest = ({ isInsert }) =>
    isInsert ? { status: 200, headers: { 'X-ClickHouse-Query-Id': randomUUID() }, text: '' } : 'pass';
  await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({
    code: 'KCR_INSERT_IN_DOUBT',
    message: expect.stringContaining('another query') as string,
  });
  await outcome(sink.close());
});

it('I7: a look that something else answers is no look: it is made again, and nothing is filled or settled by it', async () => {
  const options = await optionsFor();
  const sink = await openClickHouseSink(options);
  await outcome(sink.prepare(batch).insert());
  const replayed = sink.prepare({ ...batch, replay: true, intent: intentOf(sink, batch) });
  const empty = JSON.stringify({ meta: [], data: [], rows: 0 });
  proxy.onRequest = ({ sql }) => (sql.includes('groupArray') ? { status: 200, text: empty } : 'pass');
  await expect(outcome(replayed.readBack('a test'))).rejects.toMatchObject({
    code: 'KCR_CLICKHOUSE_UNREACHABLE',
    retryable: true,
  });
  proxy.onRequest = () => 'pass';
  await expect(outcome(replayed.readBack('a test'))).resolves.toEqual({ missing: [], doubled: [] });
  await outcome(sink.close());
});

it('I7: nor is what a table is believed of anybody else, at the start, before a replay, or by verify', async () => {
  const options = await optionsFor();
  const sink = await openClickHouseSink(options);
  await outcome(sink.prepare(batch).insert());
  const scan = await openProvenanceScan(options, 'orders');
  const empty = JSON.stringify({ meta: [], data: [], rows: 0 });
  proxy.onRequest = ({ isInsert }) => (isInsert ? 'pass' : { status: 200, text: empty });
  const replayed = sink.prepare({ ...batch, replay: true, intent: intentOf(sink, batch) });
  await expect(outcome(replayed.insert())).rejects.toMatchObject({
    code: 'KCR_CLICKHOUSE_UNREACHABLE',
    retryable: true,
  });
  await expect(scan.extent(0)).rejects.toMatchObject({ code: 'KCR_CLICKHOUSE_UNREACHABLE' });
  await expect(openClickHouseSink(options)).rejects.toMatchObject({ code: 'KCR_CLICKHOUSE_UNREACHABLE' });
  scan.close();
  await outcome(sink.close());
});

it('I7: a proxy that takes the header out of every answer is refused before the start, with what to do', async () => {
  const options = await optionsFor();
  const without = await httpProxy(proxy.url, { drops: ['x-clickhouse-query-id'] });
  const findings = await checkClickHouse({ ...options, url: without.url }, { delivery: 'exactly-once', maxPending: 1 });
  expect(findings).toEqual([
    {
      level: 'refusal',
      code: 'KCR_CLICKHOUSE_UNREACHABLE',
      what: 'server',
      detail: expect.stringContaining('X-ClickHouse-Query-Id') as string,
      todo: expect.stringContaining('let the proxies on the way pass it on') as string,
    },
  ]);
  await without.stop();
});

it.skipIf(coalescingFaultHere() !== undefined)(
  'I7: inserts that wait for others are answered by name too, and not delivered when they are not',
  async () => {
    const stack: Stack = await startStack({ kafka: false, useEnvironment: false, clickhouse: { asyncInserts: true } });
    const before = await httpProxy(stack.clickhouseUrl);
    try {
      await command(stack.clickhouseUrl, `CREATE DATABASE ${database}`);
      const options = await optionsFor(undefined, stack.clickhouseUrl);
      const sink = await openClickHouseSink({ ...options, url: before.url, insertMode: 'coalesced', coalesceMs: 50 });
      await expect(outcome(sink.prepare(batch).insert())).resolves.toMatchObject({ rows: 5 });
      before.onRequest = ({ isInsert }) => (isInsert ? { status: 200, text: '' } : 'pass');
      await expect(outcome(sink.prepare(batch).insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
      await outcome(sink.close());
    } finally {
      await before.stop();
      await stack.stop();
    }
  },
);
