// Which settings of a profile change what a query says? All are tried.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { truthfulLooks, unlimitedLooks } from '../../src/clickhouse/client/look-settings.js';
import { openProvenanceScan } from '../../src/clickhouse/verify/provenance-scan.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../src/clickhouse/sink.js';
import { command } from '../stack/clients.js';
import { type Stack, startStack } from '../stack/stack.js';
import { atOnce, type Sent, sendAgain, settingsToTry, type Tried } from '../support/every-setting.js';
import { httpProxy } from '../support/http-proxy.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

const database = `every_setting_${process.pid}`;
const COLUMNS = 'k UInt64, _topic LowCardinality(String), _partition Int32, _offset Int64';
const AT_ONCE = 3;
const ROWS = 5;
const GROUP = 32;
let stack: Stack;
let url: string;
const run = (text: string) => command(url, text, { database });

// Of its own: limits of a user, as of memory, would reach other tests.
beforeAll(async () => {
  stack = await startStack({ kafka: false, keeper: false, useEnvironment: false });
  url = stack.clickhouseUrl;
  await command(url, `CREATE DATABASE ${database}`);
  await run(
    `CREATE TABLE t (${COLUMNS}) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 100000`,
  );
  await run(
    `CREATE TABLE sums (_partition Int32, n UInt64, k UInt64) ENGINE = SummingMergeTree ORDER BY _partition SETTINGS non_replicated_deduplication_window = 100000`,
  );
  await run(
    'CREATE MATERIALIZED VIEW v TO sums AS SELECT _partition, count() AS n, sum(k) AS k FROM t GROUP BY _partition',
  );
  await run(`SYSTEM STOP MERGES ${database}.t`);
});
afterAll(() => stack?.stop());

/** What the adapter sends while a batch is inserted, and looked for, and the table compared with the topic. */
async function statements(): Promise<readonly Sent[]> {
  const seen: Sent[] = [];
  const proxy = await httpProxy(url);
  proxy.onRequest = ({ path, body }) => (seen.push({ path, body }), 'pass');
  const options: ClickHouseSinkOptions = { url: proxy.url, database, routes: [{ topic: 'orders', table: 't' }] };
  const sink = await openClickHouseSink(options);
  const before = batchOf(
    numbers(1, 40).map((offset) => record(offset, { k: offset })),
    { partition: 1_000_000 },
  );
  const batch = batchOf(
    numbers(41, ROWS).map((offset) => record(offset, { k: offset })),
    { partition: 1_000_000 },
  );
  for (const each of [before, batch]) await outcome(sink.prepare({ ...each, intent: intentOf(sink, each) }).insert());
  const older = { ...intentOf(sink, batch), floor: 41 };
  const missing = batchOf(
    numbers(46, ROWS).map((offset) => record(offset, { k: offset })),
    { partition: 1_000_000 },
  );
  await outcome(sink.prepare({ ...batch, replay: true, intent: older }).readBack());
  // Without what its table was: older rows of the partition are asked for.
  await outcome(
    sink
      .prepare({
        ...missing,
        replay: true,
        intent: { ...intentOf(sink, missing), written: undefined as never, floor: 41 },
      })
      .readBack(),
  );
  const scan = await openProvenanceScan(options, 'orders');
  await scan.extent(1_000_000);
  await scan.runs(1_000_000, 0, 100);
  scan.close();
  await outcome(sink.close());
  await proxy.stop();
  const isStable = ({ body }: Sent): boolean => !/uptime\(\)|system\.processes|system\.settings/.test(body.toString());
  const looks = new Map(
    seen
      .filter(({ path }) => !path.includes('query=INSERT'))
      .filter(isStable)
      .map((sent) => [sent.body.toString(), sent]),
  );
  return [...looks.values()];
}

const dataOf = (text: string): string => {
  try {
    const { data } = JSON.parse(text) as { data: { readonly explain?: string }[] };
    // Of a plan only the filters of row policies are looked at.
    if (data[0]?.explain !== undefined)
      return `${data.filter(({ explain }) => /row[- ]level/i.test(explain ?? '')).length} filters`;
    // Numbers may stand in quotes, and time goes on.
    return JSON.stringify(data)
      .replaceAll(/"(-?\d+)"/g, '$1')
      .replaceAll(/"now":\d+/g, '');
  } catch {
    return text;
  }
};

/**
 * Those under which one of the queries is answered 200 and otherwise. Many are set at once; where that fails or differs,
 * each half is tried by itself, down to one.
 */
async function settingsThatChangeAnswers(looks: readonly Sent[], tried: readonly Tried[]): Promise<readonly string[]> {
  const [id, found] = [{ query_id: '' }, new Set<string>()];
  for (const look of looks) {
    const right = dataOf((await sendAgain(url, look, id)).text);
    const search = async (group: readonly Tried[]): Promise<void> => {
      const { status, code, text } = await sendAgain(url, look, {
        ...id,
        ...Object.fromEntries(group.map(({ name, value }) => [name, value])),
      });
      const isGood = status === 200 && code === undefined;
      if (isGood && dataOf(text) === right) return;
      if (group.length > 1)
        for (const half of [group.slice(0, group.length / 2), group.slice(group.length / 2)]) await search(half);
      else if (isGood) found.add(`${group[0]!.name}=${group[0]!.value}`);
    };
    await atOnce(groupsOf(tried), AT_ONCE, search);
  }
  return [...found].sort();
}

/** Of different settings each. */
function groupsOf(tried: readonly Tried[]): readonly (readonly Tried[])[] {
  const groups: Tried[][] = [];
  for (const one of tried) {
    const free = groups.find((group) => group.length < GROUP && group.at(-1)!.name !== one.name);
    if (free === undefined) groups.push([one]);
    else free.push(one);
  }
  return groups;
}

it('I2: no setting of a profile changes what a look, a table or verify says', async () => {
  const looks = await statements();
  expect(looks.length).toBeGreaterThan(5);
  const pins = { ...unlimitedLooks, ...truthfulLooks };
  const tried = await settingsToTry(url, pins);
  console.log(`${tried.length} values of settings, on ${looks.length} queries`);
  expect(tried.length).toBeGreaterThan(500);
  const found = await settingsThatChangeAnswers(looks, tried);
  expect(found).toEqual([]);
}, 900_000);
