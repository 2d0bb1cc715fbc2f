// Users whose profiles end queries early, or take rows out of what they see, against a real ClickHouse.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkClickHouse, type Finding } from '../../src/clickhouse/preflight.js';
import { openProvenanceScan } from '../../src/clickhouse/verify/provenance-scan.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../src/clickhouse/sink.js';
import { coalescingFaultHere } from '../stack/clickhouse.js';
import { command, query } from '../stack/clients.js';
import { type Stack, startStack } from '../stack/stack.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

const COLUMNS = 'k UInt64, _topic LowCardinality(String), _partition UInt32, _offset UInt64';
const ROWS = 3_000;
const asyncInserts = coalescingFaultHere() === undefined;

/** Each in a profile of its own, by the name of its user. */
const profiles = {
  groups:
    '<max_rows_to_group_by>100</max_rows_to_group_by><group_by_overflow_mode>any</group_by_overflow_mode><max_block_size>64</max_block_size><max_threads>1</max_threads>',
  reads:
    '<max_rows_to_read>100</max_rows_to_read><read_overflow_mode>break</read_overflow_mode><max_block_size>64</max_block_size>',
  bytes:
    '<max_bytes_to_read>2000</max_bytes_to_read><read_overflow_mode>break</read_overflow_mode><max_block_size>64</max_block_size>',
  results:
    '<max_result_rows>1</max_result_rows><result_overflow_mode>break</result_overflow_mode><max_block_size>1</max_block_size>',
  offsets: '<offset>1</offset>',
  limits: '<limit>1</limit>',
  filters: "<additional_table_filters>{'default.t_filters': '_offset &lt; 1000'}</additional_table_filters>",
  nothing: '<additional_result_filter>0</additional_result_filter>',
  late: '<max_execution_time>1</max_execution_time><timeout_overflow_mode>break</timeout_overflow_mode><function_sleep_max_microseconds_per_block>60000000</function_sleep_max_microseconds_per_block>',
  fixed:
    '<max_rows_to_group_by>100000</max_rows_to_group_by><constraints><max_rows_to_group_by><readonly/></max_rows_to_group_by><max_execution_time><readonly/></max_execution_time></constraints>',
  stubborn:
    '<group_by_overflow_mode>any</group_by_overflow_mode><constraints><group_by_overflow_mode><readonly/></group_by_overflow_mode></constraints>',
  readers: '<readonly>1</readonly>',
} as const;
type Name = keyof typeof profiles;
const hiding: readonly Name[] = ['groups', 'reads', 'bytes', 'results', 'offsets', 'limits', 'filters', 'nothing'];

let stack: Stack;
let url: string;
beforeAll(async () => {
  const names = Object.keys(profiles) as Name[];
  const users = names
    .map(
      (name) =>
        `<${name}><password></password><networks><ip>127.0.0.1</ip></networks><profile>${name}</profile><quota>default</quota></${name}>`,
    )
    .join('');
  const settings = `</default>${names.map((name) => `<${name}>${profiles[name]}</${name}>`).join('')}<default>`;
  stack = await startStack({
    kafka: false,
    keeper: false,
    useEnvironment: false,
    clickhouse: { users, settings, asyncInserts },
  });
  url = stack.clickhouseUrl;
});
afterAll(() => stack?.stop());

const run = (text: string) => command(url, text);
const large = batchOf(numbers(0, ROWS).map((offset) => record(offset, { k: offset })));

async function tableFor(name: string, more = ''): Promise<ClickHouseSinkOptions> {
  await run(
    `CREATE TABLE t_${name} (${COLUMNS}${more}) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 64`,
  );
  return { url, username: name, routes: [{ topic: 'orders', table: `t_${name}` }] };
}
const count = async (name: string) =>
  (await query(url, `SELECT count() AS rows, uniqExact(_offset) AS known FROM t_${name}`))[0];

describe.each(hiding)('the profile of "%s"', (name) => {
  it('I2: does not change what a look sees: a batch that is there is not filled again, and verify counts all of it', async () => {
    const options = await tableFor(name);
    const sink = await openClickHouseSink(options);
    await outcome(sink.prepare(large).insert());
    const replayed = sink.prepare({ ...large, replay: true, intent: intentOf(sink, large) });
    await expect(outcome(replayed.readBack())).resolves.toEqual({ missing: [], doubled: [] });
    const scan = await openProvenanceScan(options, 'orders');
    expect(await scan.extent(0)).toEqual({ rows: ROWS, first: 0, last: ROWS - 1 });
    expect(await scan.runs(0, 0, ROWS)).toEqual([{ first: 0, last: ROWS - 1, rows: 1 }]);
    scan.close();
    expect(await count(name)).toEqual({ rows: ROWS, known: ROWS });
    await outcome(sink.close());
  });

  it('I1: takes no rows from what a view makes of an insert', async () => {
    const options = await tableFor(`${name}_fed`);
    await run(
      `CREATE TABLE of_${name} (k UInt64, n UInt64) ENGINE = SummingMergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 10000`,
    );
    await run(
      `CREATE MATERIALIZED VIEW view_${name} TO of_${name} AS SELECT k, count() AS n FROM t_${name}_fed GROUP BY k`,
    );
    const sink = await openClickHouseSink({ ...options, username: name });
    await outcome(sink.prepare(large).insert());
    expect(await query(url, `SELECT count() AS keys, sum(n) AS n FROM of_${name}`)).toEqual([{ keys: ROWS, n: ROWS }]);
    await outcome(sink.close());
  });
});

it.each(asyncInserts ? (['direct', 'coalesced'] as const) : (['direct'] as const))(
  'I1: an insert (%s) that takes longer than the max_execution_time of its profile is written whole, or is not answered well',
  async (insertMode) => {
    const options = await tableFor(`late_${insertMode}`, ', slow UInt8 MATERIALIZED sleepEachRow(0.5)');
    const sink = await openClickHouseSink({
      ...options,
      username: 'late',
      insertMode,
      ...(insertMode === 'coalesced' ? { coalesceMs: 50 } : {}),
    });
    await expect(
      outcome(sink.prepare(batchOf(numbers(0, 6).map((offset) => record(offset, { k: offset })))).insert()),
    ).resolves.toMatchObject({ rows: 6 });
    expect(await count(`late_${insertMode}`)).toEqual({ rows: 6, known: 6 });
    await outcome(sink.close());
  },
);

const refusals = (findings: readonly Finding[]) => findings.filter(({ level }) => level === 'refusal');
const needs = { delivery: 'exactly-once', maxPending: 1 } as const;

it('I2: a limit that the user may not change is left alone, where reaching it is an error', async () => {
  const options = await tableFor('fixed');
  expect(refusals(await checkClickHouse(options, needs))).toEqual([]);
  const sink = await openClickHouseSink(options);
  await outcome(sink.prepare(large).insert());
  await expect(
    outcome(sink.prepare({ ...large, replay: true, intent: intentOf(sink, large) }).readBack()),
  ).resolves.toEqual({ missing: [], doubled: [] });
  await outcome(sink.close());
});

it('I2: a setting that hides rows and that the user may not change is refused with its name', async () => {
  const options = await tableFor('stubborn');
  expect(refusals(await checkClickHouse(options, needs))).toEqual([
    expect.objectContaining({
      code: 'KCR_PREFLIGHT',
      detail: expect.stringContaining('group_by_overflow_mode') as string,
      todo: expect.stringContaining('allow the user to change them') as string,
    }),
  ]);
});

it('I2: a user who may only read can still verify', async () => {
  const options = await tableFor('readers');
  await run(`INSERT INTO t_readers SELECT number, 'orders', 0, number FROM numbers(10)`);
  const scan = await openProvenanceScan(options, 'orders');
  expect(await scan.extent(0)).toEqual({ rows: 10, first: 0, last: 9 });
  scan.close();
});
