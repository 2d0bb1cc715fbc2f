// What is refused before a record is taken, against a real ClickHouse with users of different rights.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkClickHouse, type Finding, type Needs, refusalOf } from '../../src/clickhouse/preflight.js';
import type { ClickHouseSinkOptions } from '../../src/clickhouse/sink.js';
import { command } from '../stack/clients.js';
import { freePort } from '../stack/process.js';
import { type Stack, startStack } from '../stack/stack.js';

const user = (name: string, inside: string): string =>
  `<${name}><password>secret</password><networks><ip>127.0.0.1</ip></networks><quota>default</quota>${inside}</${name}>`;
const grants = (...queries: string[]): string =>
  `<grants>${queries.map((query) => `<query>${query}</query>`).join('')}</grants>`;

const users = [
  user('reader', '<profile>readonly</profile>'),
  user('narrow', `<profile>default</profile>${grants('GRANT INSERT, SELECT ON default.*')}`),
  user('writer', `<profile>default</profile>${grants('GRANT INSERT, SHOW TABLES, SHOW COLUMNS ON default.*')}`),
  user('watcher', `<profile>default</profile>${grants('GRANT SELECT ON default.*')}`),
  user('fixed', '<profile>fixed</profile>'),
].join('');
// Goes inside of the profile `default`: ends it, and begins another one.
const settings = `</default>
  <fixed>
    <deduplicate_insert>disable</deduplicate_insert>
    <constraints><deduplicate_insert><const/></deduplicate_insert></constraints>
  </fixed>
  <default>`;

let stack: Stack;
let url: string;
const run = (sql: string) => command(url, sql);
const exactlyOnce: Needs = { delivery: 'exactly-once', maxPending: 2 };

beforeAll(async () => {
  stack = await startStack({ kafka: false, keeper: false, useEnvironment: false, clickhouse: { users, settings } });
  url = stack.clickhouseUrl;
});
afterAll(() => stack.stop());

function check(
  tables: readonly string[],
  options: Partial<ClickHouseSinkOptions> = {},
  needs: Partial<Needs> = {},
): Promise<readonly Finding[]> {
  const routes = tables.map((table, index) => ({ topic: `topic${index}`, table }));
  return checkClickHouse({ url, routes, ...options }, { ...exactlyOnce, ...needs });
}

const bad = (findings: readonly Finding[]) =>
  findings.filter(({ level }) => level !== 'ok').map(({ level, what }) => `${level}: ${what}`);

describe('the server', () => {
  it('that is not there is said with its url and what to look for', async () => {
    const port = await freePort();
    const findings = await check(['t'], { url: `http://127.0.0.1:${port}` });
    expect(findings).toEqual([
      {
        level: 'refusal',
        what: 'server',
        code: 'KCR_CLICKHOUSE_UNREACHABLE',
        detail: expect.stringContaining(`http://127.0.0.1:${port}`) as string,
        todo: expect.stringContaining('8123') as string,
      },
    ]);
    expect(refusalOf(findings)).toMatchObject({ code: 'KCR_CLICKHOUSE_UNREACHABLE', retryable: true });
  });

  it('that does not know the user', async () => {
    const findings = await check(['t'], { username: 'reader', password: 'wrong' });
    expect(findings).toMatchObject([
      { level: 'refusal', what: 'user', code: 'KCR_PREFLIGHT', todo: 'check username and password' },
    ]);
    expect(refusalOf(findings)?.message).not.toContain('wrong');
  });

  it('with a setting it does not know', async () => {
    await run(
      'CREATE TABLE some (k UInt64) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 10000',
    );
    expect(refusalOf(await check(['some'], { clickhouseSettings: { no_such_setting: 1 } }))).toMatchObject({
      code: 'KCR_CONFIG',
      message: expect.stringContaining('no_such_setting') as string,
    });
  });

  it.each(['reader', 'fixed'])('whose profile forbids what every insert is pinned to: %s', async (username) => {
    const findings = await check(['some'], { username, password: 'secret' });
    expect(findings).toContainEqual(
      expect.objectContaining({ level: 'refusal', what: 'insert settings', code: 'KCR_PREFLIGHT' }),
    );
  });
});

describe('a table', () => {
  it('that is missing, or its database', async () => {
    expect(refusalOf(await check(['soem']))).toMatchObject({
      code: 'KCR_TABLE_MISSING',
      fields: { hint: expect.stringContaining('some') as string },
    });
    expect(refusalOf(await check(['some'], { database: 'nowhere' }))).toMatchObject({
      code: 'KCR_TABLE_MISSING',
      message: expect.stringContaining('nowhere') as string,
    });
  });

  it.each([
    ['Null', 'ENGINE = Null'],
    ['Log', 'ENGINE = Log'],
    ['Memory', 'ENGINE = Memory'],
    ['Buffer', 'ENGINE = Buffer(default, some, 1, 1, 1, 1, 1, 1, 1)'],
  ])('of engine %s cannot keep exactly-once, but takes inserts at least once', async (name, engine) => {
    const table = `engine_${name}`;
    await run(`CREATE TABLE ${table} (k UInt64) ${engine}`);
    expect(refusalOf(await check([table]))).toMatchObject({
      code: 'KCR_TABLE_UNSUITABLE',
      message: expect.stringContaining(name) as string,
    });
    expect(refusalOf(await check([table], {}, { delivery: 'at-least-once' }))).toBeUndefined();
    expect(refusalOf(await check([table], {}, { delivery: 'at-most-once' }))).toBeUndefined();
  });

  it('whose dedup window is 0 would double every repeated insert; the statement is there to copy', async () => {
    await run('CREATE TABLE windowless (k UInt64) ENGINE = MergeTree ORDER BY k');
    const refused = refusalOf(await check(['windowless']));
    const statement = 'ALTER TABLE default.windowless MODIFY SETTING non_replicated_deduplication_window = 10000';
    expect(refused).toMatchObject({
      code: 'KCR_DEDUP_WINDOW',
      fields: { hint: statement },
      message: expect.stringContaining('it is 0: the table forgets every token') as string,
    });
    expect(refusalOf(await check(['windowless'], {}, { delivery: 'at-least-once' }))).toBeUndefined();
    await run(statement);
    expect(refusalOf(await check(['windowless']))).toBeUndefined();
    await run('ALTER TABLE windowless MODIFY SETTING non_replicated_deduplication_window = 0');
    expect(refusalOf(await check(['windowless']))).toMatchObject({ code: 'KCR_DEDUP_WINDOW' });
  });

  it('whose dedup window is smaller than what may be in doubt', async () => {
    await run(
      'CREATE TABLE narrow_window (k UInt64) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 5',
    );
    expect(bad(await check(['narrow_window']))).toContain('warning: dedup window of default.narrow_window');
    expect(refusalOf(await check(['narrow_window'], {}, { maxPending: 6 }))).toMatchObject({
      code: 'KCR_DEDUP_WINDOW',
    });
    expect(refusalOf(await check(['narrow_window'], {}, { partitionsPerBatch: 3 }))).toMatchObject({
      code: 'KCR_DEDUP_WINDOW',
    });
  });

  it('without provenance columns is warned of, with the statement that adds them', async () => {
    const statement =
      'ALTER TABLE default.some ADD COLUMN _topic LowCardinality(String), ADD COLUMN _partition Int32, ADD COLUMN _offset Int64';
    expect(await check(['some'])).toContainEqual(
      expect.objectContaining({ level: 'warning', what: 'provenance columns of default.some', todo: statement }),
    );
    await run(statement);
    expect(bad(await check(['some']))).toEqual([]);
  });

  it('whose provenance columns cannot be filled', async () => {
    await run(
      'CREATE TABLE wrong_types (k UInt64, _topic String, _partition Int32, _offset UInt32) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 10000',
    );
    expect(await check(['wrong_types'])).toContainEqual(
      expect.objectContaining({
        level: 'warning',
        detail: expect.stringContaining('_offset is UInt32, expected Int64') as string,
      }),
    );
  });

  it('I5: needs _topic to be read back, whoever else writes into it', async () => {
    await run(
      'CREATE TABLE shared_table (k UInt64, _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 10000',
    );
    for (const tables of [['shared_table'], ['shared_table', 'shared_table']]) {
      expect(bad(await check(tables))).toEqual(['warning: provenance columns of default.shared_table']);
    }
  });

  it('that is in order gives no reason to stop', async () => {
    const findings = await check(['some']);
    expect(bad(findings)).toEqual([]);
    expect(findings.map(({ what }) => what)).toEqual([
      'server',
      'insert settings',
      'limits of the user',
      'table default.some',
      'dedup window of default.some',
      'provenance columns of default.some',
    ]);
  });
});

describe('volatile defaults', () => {
  const SETTINGS = 'ORDER BY k SETTINGS non_replicated_deduplication_window = 10000';
  const columns = 'k UInt64, _topic String, _partition Int32, _offset Int64';
  const twice = async (table: string) => {
    for (let attempt = 0; attempt < 2; attempt++) {
      await command(url, `INSERT INTO ${table} FORMAT JSONEachRow`, {
        data: '{"k":1}\n{"k":2}\n{"k":3}\n{"k":4}',
        settings: { async_insert: 0, insert_deduplication_token: 'x' },
      });
    }
    return Number((await command(url, `SELECT count() FROM ${table}`)).trim());
  };

  it('in the PARTITION BY double a repeated insert, so the table is refused, with the statement that mends it', async () => {
    await run(
      `CREATE TABLE by_chance (${columns}, r UInt64 DEFAULT rand64()) ENGINE = MergeTree PARTITION BY r % 50 ${SETTINGS}`,
    );
    expect(await twice('by_chance')).toBeGreaterThan(4);
    const refused = refusalOf(await check(['by_chance']));
    expect(refused).toMatchObject({
      code: 'KCR_TABLE_UNSUITABLE',
      message: expect.stringContaining('PARTITION BY depends on r, which is DEFAULT by rand64()') as string,
    });
    const statement = String(refused?.fields.hint).split(',')[0] ?? '';
    expect(statement).toBe('ALTER TABLE default.by_chance MODIFY COLUMN r REMOVE DEFAULT');
    await run(statement);
    expect(refusalOf(await check(['by_chance']))).toBeUndefined();
  });

  it('also through another column, or materialized', async () => {
    await run(
      `CREATE TABLE by_day (${columns}, at DateTime MATERIALIZED now(), day Date DEFAULT toDate(at)) ENGINE = MergeTree PARTITION BY day ${SETTINGS}`,
    );
    expect(refusalOf(await check(['by_day']))).toMatchObject({
      code: 'KCR_TABLE_UNSUITABLE',
      message: expect.stringContaining('which is DEFAULT by now() through at') as string,
    });
    await run(
      `CREATE TABLE by_minute (${columns}, at DateTime MATERIALIZED now()) ENGINE = MergeTree PARTITION BY toStartOfMinute(at) ${SETTINGS}`,
    );
    expect(refusalOf(await check(['by_minute']))).toMatchObject({
      fields: { hint: expect.stringContaining('MODIFY COLUMN at REMOVE MATERIALIZED') as string },
    });
  });

  it('in other columns are told, and harmless; those of a provenance column are never used', async () => {
    await run(
      `CREATE TABLE stamped (${columns}, _timestamp DateTime DEFAULT now(), at DateTime DEFAULT now(), id UUID DEFAULT generateUUIDv4()) ENGINE = MergeTree PARTITION BY toYYYYMM(_timestamp) ${SETTINGS}`,
    );
    expect(await twice('stamped')).toBe(4);
    const findings = await check(['stamped']);
    expect(bad(findings)).toEqual([]);
    expect(findings).toContainEqual({
      level: 'ok',
      what: 'defaults of default.stamped',
      detail:
        'at by now(), id by generateUUIDv4(): rows that are inserted again by a fill get new values; harmless for which rows there are',
    });
  });

  it('of a view’s target, and of its query', async () => {
    await run(`CREATE TABLE fed (${columns}) ENGINE = MergeTree ${SETTINGS}`);
    await run(
      `CREATE TABLE fed_target (k UInt64, at DateTime DEFAULT now()) ENGINE = MergeTree PARTITION BY toDate(at) ${SETTINGS}`,
    );
    await run(`CREATE TABLE fed_other (k UInt64, day Date) ENGINE = MergeTree PARTITION BY day ${SETTINGS}`);
    await run('CREATE MATERIALIZED VIEW fed_view TO fed_target AS SELECT k FROM fed');
    await run('CREATE MATERIALIZED VIEW fed_today TO fed_other AS SELECT k, today() AS day FROM fed');
    expect(bad(await check(['fed'])).sort()).toEqual([
      'refusal: defaults of default.fed_target',
      'warning: view default.fed_today',
      'warning: views of default.fed',
    ]);
  });
});

describe('materialized views', () => {
  const WINDOW = 'SETTINGS non_replicated_deduplication_window = 10000';

  it('whose target has no dedup window double every repeated insert, also further down the chain', async () => {
    await run(
      `CREATE TABLE chain (k UInt64, _topic String, _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY k ${WINDOW}`,
    );
    await run(`CREATE TABLE chain_first (k UInt64) ENGINE = MergeTree ORDER BY k ${WINDOW}`);
    await run('CREATE TABLE chain_second (k UInt64) ENGINE = MergeTree ORDER BY k');
    await run('CREATE TABLE chain_null (k UInt64) ENGINE = Null');
    await run('CREATE TABLE chain_third (k UInt64) ENGINE = SummingMergeTree ORDER BY k');
    await run('CREATE MATERIALIZED VIEW chain_a TO chain_first AS SELECT k FROM chain');
    await run('CREATE MATERIALIZED VIEW chain_b TO chain_second AS SELECT k FROM chain_first');
    await run('CREATE MATERIALIZED VIEW chain_c TO chain_null AS SELECT k FROM chain_second');
    await run('CREATE MATERIALIZED VIEW chain_d TO chain_third AS SELECT k FROM chain_null');
    expect(bad(await check(['chain']))).toEqual([
      'refusal: dedup window of default.chain_second',
      'refusal: dedup window of default.chain_third',
      'warning: views of default.chain',
    ]);
    expect(refusalOf(await check(['chain']))).toMatchObject({
      code: 'KCR_DEDUP_WINDOW',
      message: expect.stringContaining(
        'ALTER TABLE default.chain_third MODIFY SETTING non_replicated_deduplication_window = 10000',
      ) as string,
    });
    for (const table of ['chain_second', 'chain_third'])
      await run(`ALTER TABLE ${table} MODIFY SETTING non_replicated_deduplication_window = 10000`);
    expect(bad(await check(['chain']))).toEqual(['warning: views of default.chain']);
  });

  it('with an inner table are looked into', async () => {
    await run(`CREATE TABLE with_inner (k UInt64) ENGINE = MergeTree ORDER BY k ${WINDOW}`);
    await run('CREATE MATERIALIZED VIEW inner_bare ENGINE = MergeTree ORDER BY k AS SELECT k FROM with_inner');
    await run(
      `CREATE MATERIALIZED VIEW inner_good ENGINE = MergeTree ORDER BY k ${WINDOW} AS SELECT k FROM with_inner`,
    );
    const refused = (await check(['with_inner'])).filter(({ level }) => level === 'refusal');
    expect(refused).toHaveLength(1);
    expect(refused[0]?.todo).toMatch(/^ALTER TABLE default\.`\.inner.*` MODIFY SETTING/);
    await run(refused[0]?.todo ?? '');
    expect(refusalOf(await check(['with_inner']))).toBeUndefined();
  });

  it('into a table that keeps no tokens', async () => {
    await run(`CREATE TABLE to_log (k UInt64) ENGINE = MergeTree ORDER BY k ${WINDOW}`);
    await run('CREATE TABLE the_log (k UInt64) ENGINE = Log');
    await run('CREATE MATERIALIZED VIEW log_view TO the_log AS SELECT k FROM to_log');
    expect(refusalOf(await check(['to_log']))).toMatchObject({
      code: 'KCR_TABLE_UNSUITABLE',
      message: expect.stringContaining('the_log') as string,
    });
  });

  it('that lead in a circle are looked at once', async () => {
    for (const name of ['circle_a', 'circle_b'])
      await run(`CREATE TABLE ${name} (k UInt64) ENGINE = MergeTree ORDER BY k ${WINDOW}`);
    await run('CREATE MATERIALIZED VIEW circle_ab TO circle_b AS SELECT k FROM circle_a');
    await run('CREATE MATERIALIZED VIEW circle_ba TO circle_a AS SELECT k FROM circle_b');
    expect(refusalOf(await check(['circle_a']))).toBeUndefined();
  });
});

describe('a user with narrow grants', () => {
  it('is told what could not be looked at, and goes on', async () => {
    const findings = await check(['some'], { username: 'narrow', password: 'secret' });
    expect(refusalOf(findings)).toBeUndefined();
    expect(findings).toContainEqual(
      expect.objectContaining({
        level: 'warning',
        what: 'server defaults',
        todo: expect.stringContaining('GRANT SELECT ON system.merge_tree_settings') as string,
      }),
    );
    // The window is stated by the table itself, so that nothing is in doubt there.
    expect(findings).toContainEqual(expect.objectContaining({ level: 'ok', what: 'dedup window of default.some' }));
  });

  it('is warned where the window is the server’s own', async () => {
    await run('CREATE TABLE defaulted (k UInt64) ENGINE = MergeTree ORDER BY k');
    expect(bad(await check(['defaulted'], { username: 'narrow', password: 'secret' }))).toContain(
      'warning: dedup window of default.defaulted',
    );
  });

  it('who may not insert is refused, who may not select is warned', async () => {
    expect(refusalOf(await check(['some'], { username: 'watcher', password: 'secret' }))).toMatchObject({
      code: 'KCR_PREFLIGHT',
      message: expect.stringContaining('INSERT') as string,
    });
    const findings = await check(['some'], { username: 'writer', password: 'secret' });
    expect(refusalOf(findings)).toBeUndefined();
    expect(bad(findings)).toContain('warning: grants on default.some');
  });
});
