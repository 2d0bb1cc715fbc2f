// What is in doubt when its table was altered, exchanged, or does not show what was written: on the real servers, with the
// program or the whole pipeline.
import { randomUUID } from 'node:crypto';
import type { Subscription } from 'rxjs';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { IngestEvent, Outcome } from '../../src/events.js';
import type { IngestConfig } from '../../src/config/config.js';
import { ingest } from '../../src/pipeline/ingest.js';
import type { IngestError } from '../../src/errors.js';
import { events, Place } from '../cli/place.js';
import { program } from '../cli/program.js';
import { createTopic, produce } from '../stack/clients.js';
import { httpProxy, type HttpProxy } from '../support/http-proxy.js';

const provenance = '_topic LowCardinality(String), _partition UInt32, _offset UInt64';
const tableOf = (columns: string, window = 10_000) =>
  `CREATE TABLE {table} (${columns}) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = ${window}`;
const bare = tableOf('id UInt64, text String');
const whole = tableOf(`id UInt64, text String, ${provenance}`);

interface Count {
  readonly rows: number;
  readonly records: number;
}

/** By the id in the record's value: it does not depend on what is tested. */
const counted = async (at: Place, table = '{table}'): Promise<Count> =>
  (await at.rows<Count>(`SELECT count() AS rows, uniqExact(id) AS records FROM ${table}`))[0]!;

/** The statement that `check` prints. */
async function alterFromCheck(at: Place): Promise<void> {
  const { stdout, stderr } = await at.run('check');
  const statement = /ALTER TABLE \S+ ADD COLUMN .*/.exec(stdout + stderr)?.[0];
  if (statement === undefined) throw new Error(`check printed no ALTER TABLE\n${stdout}\n${stderr}`);
  await at.sql(statement.split(';')[0]!);
}

const inDoubt = async (at: Place): Promise<number> =>
  (await at.json<{ totals: { inDoubt: number } }>('state show')).totals.inDoubt;

test('C1: a range that was written before the table had provenance columns is not doubled once they are added', async () => {
  const records = 150_000;
  const at = await Place.make({ table: bare, config: { batch: { count: 1000, maxWaitMs: 50 } } });
  for (let from = 0; from < records; from += 10_000) await produce(at.stack.brokers, at.name, events(from, 10_000));
  // A kill that met nothing in doubt is made again.
  for (let killAt = 30_000; ; killAt += 20_000) {
    const running = program(['run', at.file]);
    await running.until(async () => (await counted(at)).rows >= killAt, `${killAt} rows were there`);
    running.signal('SIGKILL');
    await running.ended;
    if ((await inDoubt(at)) > 0) break;
  }
  await alterFromCheck(at);
  const again = program(['run', at.file]);
  await again.until(async () => (await at.settled()) === records - 1, 'everything was settled');
  again.signal('SIGTERM');
  expect((await again.ended).code).toBe(0);
  expect(await counted(at)).toEqual({ rows: records, records });
}, 240_000);

test('C2: a range whose view threw is not doubled once the table has provenance columns', async () => {
  const at = await Place.make({ table: bare });
  await at.sql(
    `CREATE MATERIALIZED VIEW {table}_view ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000 AS SELECT id, throwIf(id >= 0, 'the view throws') AS x FROM {table}`,
  );
  const impatient = { ...at.config, kafka: { ...(at.config as { kafka: object }).kafka, drainTimeoutMs: 1_000 } };
  await produce(at.stack.brokers, at.name, events(0, 30));
  const first = running(impatient);
  await first.until(() =>
    first.events.some(
      (event) => event.kind === 'retry' && event.call === 'insert' && event.error.code === 'KCR_INSERT_IN_DOUBT',
    ),
  );
  await first.drain();
  expect(await inDoubt(at)).toBe(1);
  await at.sql('DROP VIEW {table}_view');
  await alterFromCheck(at);
  const again = running(at.config);
  await again.until(async () => (await at.settled()) === 29);
  await again.drain();
  expect(await counted(at)).toEqual({ rows: 30, records: 30 });
}, 120_000);

interface Running {
  readonly events: IngestEvent[];
  readonly outcomes: Outcome[];
  halted(): IngestError | undefined;
  until(isSo: () => boolean | Promise<boolean>): Promise<void>;
  drain(): Promise<void>;
}

/** The pipeline in this process. */
function running(config: object): Running {
  const seen: IngestEvent[] = [];
  const outcomes: Outcome[] = [];
  const failures: unknown[] = [];
  const stopping = new AbortController();
  let subscription: Subscription | undefined;
  const over = new Promise<void>((resolve) => {
    subscription = ingest(config as IngestConfig, {
      onEvent: (event) => seen.push(event),
      signal: stopping.signal,
    }).subscribe({
      next: (outcome) => outcomes.push(outcome),
      error: (error: unknown) => (failures.push(error), resolve()),
      complete: resolve,
    });
  });
  onTestFinished(() => subscription?.unsubscribe());
  return {
    events: seen,
    outcomes,
    halted: () => outcomes.flatMap((outcome) => (outcome.kind === 'halted' ? [outcome.error] : []))[0],
    until: async (isSo) => {
      await expect
        .poll(async () => failures.length > 0 || (await isSo()), { timeout: 60_000, interval: 100 })
        .toBe(true);
      expect(failures).toEqual([]);
    },
    drain: async () => {
      stopping.abort();
      await over;
    },
  };
}

/** A place whose inserts go through a proxy, in batches of a hundred, one at a time. */
async function proxied(table: string): Promise<{ readonly at: Place; readonly proxy: HttpProxy }> {
  const at = await Place.make({ table });
  const proxy = await httpProxy(at.stack.clickhouseUrl);
  onTestFinished(() => proxy.stop());
  at.config = { ...at.config, clickhouse: { url: proxy.url }, batch: { count: 100, maxWaitMs: 200 }, maxPending: 1 };
  await produce(at.stack.brokers, at.name, events(0, 300));
  return { at, proxy };
}

/** After the first insert has landed `alter` is done; its reply and those of the next inserts, three in all, are lost. */
function loseReplies(proxy: HttpProxy, alter: () => Promise<unknown>): void {
  let lost = 0;
  proxy.onAnswer = async ({ isInsert }) => {
    if (!isInsert || lost === 3) return 'pass';
    lost += 1;
    if (lost === 1) await alter();
    return 'lose';
  };
}

describe('C3: nothing is sent a second time into a table that forgot its tokens', () => {
  const noWindow = 'ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 0';

  test('C3: a window taken away: what is there is seen, and told', async () => {
    const { at, proxy } = await proxied(whole);
    loseReplies(proxy, () => at.sql(noWindow));
    const run = running(at.config);
    await run.until(async () => run.halted() !== undefined || (await at.settled()) === 299);
    await run.drain();
    expect(run.halted()).toBeUndefined();
    expect(await counted(at)).toEqual({ rows: 300, records: 300 });
    expect(run.events).toContainEqual(
      expect.objectContaining({ kind: 'tableChanged', change: 'window', level: 'warn' }),
    );
  }, 90_000);

  test('C3: without provenance columns the partition halts, and says what to do', async () => {
    const { at, proxy } = await proxied(bare);
    loseReplies(proxy, () => at.sql(noWindow));
    const run = running(at.config);
    await run.until(() => run.halted() !== undefined);
    expect(run.halted()).toMatchObject({
      code: 'KCR_READ_BACK',
      message: expect.stringContaining('dedup window is 0') as string,
      fields: { first: 0, last: 99, hint: expect.stringContaining('ADD COLUMN _topic') as string },
    });
    expect(await counted(at)).toEqual({ rows: 100, records: 100 });
  }, 90_000);

  test.each([
    ['with', whole, provenance],
    ['without', bare, ''],
  ])(
    'C3: exchanged with a table that has no window, %s provenance columns: the partition halts, and names the tables',
    async (_, table, columns) => {
      const { at, proxy } = await proxied(table);
      await at.sql(
        tableOf(`id UInt64, text String${columns === '' ? '' : `, ${columns}`}`, 0).replace('{table}', '{table}_other'),
      );
      loseReplies(proxy, () => at.sql('EXCHANGE TABLES {table} AND {table}_other'));
      const run = running(at.config);
      await run.until(() => run.halted() !== undefined);
      expect(run.halted()).toMatchObject({
        code: 'KCR_READ_BACK',
        message: expect.stringMatching(/recorded for the table [0-9a-f-]{36}.*EXCHANGE TABLES/) as string,
      });
      expect(await counted(at, '{table}_other')).toEqual({ rows: 100, records: 100 });
      expect(await counted(at)).toEqual({ rows: 0, records: 0 });
      expect(run.events).toContainEqual(
        expect.objectContaining({ kind: 'tableChanged', change: 'replaced', level: 'warn' }),
      );
    },
    90_000,
  );

  test('C3: exchanged back, what was in doubt is resolved', async () => {
    const { at, proxy } = await proxied(whole);
    await at.sql(tableOf(`id UInt64, text String, ${provenance}`, 0).replace('{table}', '{table}_other'));
    loseReplies(proxy, () => at.sql('EXCHANGE TABLES {table} AND {table}_other'));
    const run = running(at.config);
    await run.until(() => run.halted() !== undefined);
    await run.drain();
    await at.sql('EXCHANGE TABLES {table} AND {table}_other');
    const again = running(at.config);
    await again.until(async () => (await at.settled()) === 299);
    await again.drain();
    expect(await counted(at)).toEqual({ rows: 300, records: 300 });
  }, 120_000);
});

test('C4: a table that is altered while it is used is told of within seconds', async () => {
  const names = ['dropped', 'renamed', 'recreated'].map((what) => `${what}_${randomUUID().slice(0, 8)}`);
  const at = await Place.make({ table: whole });
  for (const name of names) {
    await createTopic(at.stack.brokers, name, { partitions: 1 });
    await at.sql(whole.replace('{table}', name));
  }
  const [dropped, renamed, recreated] = names as [string, string, string];
  const run = running({ ...at.config, routes: names.map((name) => ({ topic: name, table: name })) });
  for (const name of names) await produce(at.stack.brokers, name, events(0, 10));
  await run.until(() => run.outcomes.length >= 3);
  await at.sql(`ALTER TABLE ${dropped} DROP COLUMN _offset`);
  await at.sql(`ALTER TABLE ${renamed} RENAME COLUMN _offset TO offset`);
  await at.sql(`DROP TABLE ${recreated} SYNC`);
  await at.sql(whole.replace('{table}', recreated));
  const told = (table: string) =>
    run.events.flatMap((event) => (event.kind === 'tableChanged' && event.table.endsWith(table) ? [event.change] : []));
  await run.until(() => names.every((name) => told(name).length > 0));
  expect(names.map(told)).toEqual([['columns'], ['columns'], ['replaced']]);
  await run.drain();
}, 120_000);

test('C4: a column that was dropped and added again is no evidence: what landed is not doubled', async () => {
  const { at, proxy } = await proxied(whole);
  loseReplies(proxy, async () => {
    await at.sql('ALTER TABLE {table} DROP COLUMN _offset');
    await at.sql('ALTER TABLE {table} ADD COLUMN _offset UInt64');
  });
  const run = running(at.config);
  await run.until(async () => run.halted() !== undefined || (await at.settled()) === 299);
  await run.drain();
  expect(run.halted()).toBeUndefined();
  expect(await counted(at)).toEqual({ rows: 300, records: 300 });
}, 90_000);

test('C5: fills that are not seen: one copy too many at most, and the offsets are named', async () => {
  const { at, proxy } = await proxied(whole);
  let lost = 0;
  proxy.onAnswer = ({ sql, isInsert }) => {
    if (isInsert && lost++ === 0) return Promise.resolve('lose');
    if (sql.includes('groupArray(o)')) return Promise.resolve({ text: '{"data":[{"offsets":[],"counts":[]}]}' });
    return Promise.resolve('pass');
  };
  const run = running(at.config);
  await run.until(() => run.halted() !== undefined);
  expect(run.halted()).toMatchObject({
    code: 'KCR_READ_BACK',
    message: expect.stringMatching(
      /A fill of offsets 0, 1, .* and 80 more, up to 99 was answered.*one copy too many/,
    ) as string,
    fields: { table: `default.${at.name}` },
  });
  expect(await counted(at)).toEqual({ rows: 200, records: 100 });
}, 90_000);

test('C6: another group that reads the topic from its beginning inserts rows of its own', async () => {
  const at = await Place.make({ table: whole, config: { batch: { count: 100, maxWaitMs: 200 } } });
  await produce(at.stack.brokers, at.name, events(0, 2000));
  const one = running(at.config);
  await one.until(async () => (await at.settled()) === 1999);
  await one.drain();
  await at.sql('ALTER TABLE {table} DELETE WHERE 1 SETTINGS mutations_sync = 2');
  expect(await counted(at)).toEqual({ rows: 0, records: 0 });
  const kafka = { ...(at.config as { kafka: object }).kafka, groupId: `${at.name}:again` };
  const two = running({ ...at.config, kafka });
  await two.until(
    () => two.outcomes.reduce((sum, outcome) => sum + (outcome.kind === 'delivered' ? outcome.rows : 0), 0) === 2000,
  );
  await two.drain();
  expect(await counted(at)).toEqual({ rows: 2000, records: 2000 });
}, 120_000);
