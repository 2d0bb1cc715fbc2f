// Users from whom a row policy hides rows of the table that they insert into, against a real ClickHouse.
import { firstValueFrom, of } from 'rxjs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { insertDeduped } from '../../../operators/insert-deduped.js';
import { checkClickHouse } from '../../../src/clickhouse/preflight.js';
import { openProvenanceScan } from '../../../src/clickhouse/verify/provenance-scan.js';
import { MIN_UPTIME_S } from '../../../src/clickhouse/insert/settings.js';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../../src/clickhouse/sink.js';
import type { IngestError } from '../../../src/errors.js';
import type { Inserted } from '../../../src/stages.js';
import type { InsertBatch } from '../../../src/ports.js';
import { command, query } from '../../stack/clients.js';
import { type Stack, startStack } from '../../stack/stack.js';
import { asRecorded } from '../../support/fakes.js';
import { batchOf, intentOf, record } from '../fixtures.js';

/** What each table lets its user see. */
const filters = {
  none: '0',
  later: '_offset >= 12',
  pruned: '_partition = 7',
  even: 'k % 2 = 0',
  all: '1',
  empty: '0',
} as const;
type TableName = keyof typeof filters;
const names = Object.keys(filters) as TableName[];
/** The second may see no more than its table, as far as ClickHouse lets anybody see less. */
const users = { limited: '', granted: '<grants><query>GRANT SELECT, INSERT ON default.*</query></grants>' } as const;

let stack: Stack;
let url: string;
beforeAll(async () => {
  const policies = names
    .map((name) => `<t_${name}><filter>${filters[name].replace('>', '&gt;')}</filter></t_${name}>`)
    .join('');
  const all = Object.entries(users).map(
    ([name, grants]) =>
      `<${name}><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>${grants}<databases><default>${policies}</default></databases></${name}>`,
  );
  stack = await startStack({ kafka: false, keeper: false, useEnvironment: false, clickhouse: { users: all.join('') } });
  url = stack.clickhouseUrl;
  // A server that has just begun cannot be told from one that was restarted.
  await vi.waitFor(
    async () =>
      expect(Number((await query<{ s: number }>(url, 'SELECT uptime() AS s'))[0]?.s)).toBeGreaterThanOrEqual(
        MIN_UPTIME_S,
      ),
    { timeout: 60_000, interval: 200 },
  );
  for (const name of names) {
    const partition = name === 'pruned' ? 'PARTITION BY _partition ' : '';
    await command(
      url,
      `CREATE TABLE t_${name} (k UInt64, _topic LowCardinality(String), _partition UInt32, _offset UInt64) ENGINE = MergeTree ${partition}ORDER BY _offset SETTINGS non_replicated_deduplication_window = 10000`,
    );
  }
});
afterAll(() => stack?.stop());

const needs = { delivery: 'exactly-once', maxPending: 1 } as const;
const HOUR_MS = 3_600_000;

function optionsOf(table: TableName, topic: string, username: keyof typeof users = 'limited'): ClickHouseSinkOptions {
  return { url, username, routes: [{ topic, table: `t_${table}` }] };
}
const offsetsIn = async (table: TableName, topic: string) =>
  (await query<{ o: number }>(url, `SELECT _offset AS o FROM t_${table} WHERE _topic = '${topic}' ORDER BY k`)).map(
    ({ o }) => Number(o),
  );

/** Of two rows of one record and one of each other. */
const rowsOf = (topic: string): InsertBatch =>
  batchOf([record(10, { k: 0 }), record(10, { k: 1 }), record(11, { k: 2 }), record(12, { k: 3 })], { topic });

/** Inserts, then replays what was recorded so long ago. */
async function insertAndReplay(
  table: TableName,
  topic: string,
  agoMs: number,
  username: keyof typeof users = 'limited',
): Promise<Inserted<'recorded'> | IngestError> {
  const sink = await openClickHouseSink(optionsOf(table, topic, username));
  const batch = rowsOf(topic);
  const intent = { ...intentOf(sink, batch), atMs: Date.now() - agoMs };
  await firstValueFrom(of(asRecorded({ ...batch, intent: { ...intent, atMs: Date.now() } })).pipe(insertDeduped(sink)));
  const replayed = await firstValueFrom(
    of(asRecorded({ ...batch, intent, replay: true })).pipe(insertDeduped(sink, { retry: { maxAttempts: 3 } })),
  ).catch((error: unknown) => error as IngestError);
  await sink.close();
  return replayed;
}

describe.each(['none', 'later', 'pruned', 'even'] as const)('rows that a row policy hides (t_%s)', (table) => {
  it.each(Object.keys(users) as (keyof typeof users)[])(
    'I2: are not filled in twice where the token is too old to be relied on: the partition halts, and says so (%s)',
    async (username) => {
      const topic = `old_${username}`;
      expect(await insertAndReplay(table, topic, HOUR_MS, username)).toMatchObject({
        code: 'KCR_READ_BACK',
        detail: expect.stringContaining('a row policy hides rows of the table from the user') as string,
        fields: {
          first: 10,
          last: 12,
          table: `default.t_${table}`,
          hint: expect.stringContaining('let the user see every row') as string,
        },
      });
      expect(await offsetsIn(table, topic)).toEqual([10, 10, 11, 12]);
    },
  );

  it('I2: are not looked for where the token tells: nothing halts, and nothing is filled in twice', async () => {
    expect(await insertAndReplay(table, 'young', 0)).toMatchObject({ kind: 'inserted', lastOffset: 12 });
    expect(await offsetsIn(table, 'young')).toEqual([10, 10, 11, 12]);
  });

  it('I2: do not pass for lost: verify refuses', async () => {
    await expect(openProvenanceScan(optionsOf(table, 'young', 'granted'), 'young')).rejects.toMatchObject({
      code: 'KCR_TABLE_UNSUITABLE',
      fields: { hint: expect.stringContaining('let the user see every row') as string },
    });
  });

  it('I2: are warned of before the start', async () => {
    const warnings = async (username: keyof typeof users) =>
      (await checkClickHouse(optionsOf(table, 'young', username), needs)).filter(({ what }) =>
        what.startsWith('row policies'),
      );
    expect(await warnings('limited')).toMatchObject([
      {
        level: 'warning',
        what: `row policies of default.t_${table}`,
        detail: expect.stringContaining('from the user (limited)') as string,
      },
    ]);
    expect(await warnings('granted')).toMatchObject([
      { level: 'warning', detail: expect.stringContaining('a row policy hides rows') as string },
    ]);
  });
});

it('I2: a policy on a table without rows is warned of where the user may see policies', async () => {
  expect(await checkClickHouse(optionsOf('empty', 'orders'), needs)).toContainEqual(
    expect.objectContaining({ level: 'warning', what: 'row policies of default.t_empty' }),
  );
});

it('I2: a policy that hides nothing costs nothing: what is missing is filled in, verify compares, and nobody is warned', async () => {
  const sink = await openClickHouseSink(optionsOf('all', 'orders'));
  const batch = rowsOf('orders');
  const replay = { ...batch, intent: { ...intentOf(sink, batch), atMs: Date.now() - HOUR_MS }, replay: true };
  expect(await firstValueFrom(of(asRecorded(replay)).pipe(insertDeduped(sink)))).toMatchObject({ kind: 'inserted' });
  expect(await offsetsIn('all', 'orders')).toEqual([10, 10, 11, 12]);
  await sink.close();
  const scan = await openProvenanceScan(optionsOf('all', 'orders'), 'orders');
  expect(await scan.extent(0)).toEqual({ rows: 4, first: 10, last: 12 });
  scan.close();
  expect(
    (await checkClickHouse(optionsOf('all', 'orders'), needs)).filter(({ what }) => what.startsWith('row policies')),
  ).toEqual([]);
});
