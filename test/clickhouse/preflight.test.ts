// Checks before the start, on servers that there is no real one of: old versions, other limits.
import { afterEach, describe, expect, it } from 'vitest';
import { checkClickHouse, type Finding, type Needs, refusalOf } from '../../src/clickhouse/preflight.js';
import type { ClickHouseSinkOptions } from '../../src/clickhouse/sink.js';
import { fakeClickHouse, type FakeOptions, type FakeServer } from './fake-server.js';

let server: FakeServer;
afterEach(() => server.close());

interface Given {
  readonly fake?: FakeOptions;
  readonly limits?: Readonly<Record<string, number>>;
  /** The user may not change the limits. */
  readonly areFixed?: boolean;
  readonly needs?: Partial<Needs>;
  readonly options?: Partial<ClickHouseSinkOptions>;
}

async function check({
  fake = {},
  limits = {},
  areFixed = false,
  needs = {},
  options = {},
}: Given): Promise<readonly Finding[]> {
  server = await fakeClickHouse(fake);
  server.onSelect = (sql) => {
    if (sql.startsWith('SELECT name, value, readonly'))
      return Object.entries(limits).map(([name, value]) => ({
        name,
        value: String(value),
        readonly: Number(areFixed),
      }));
    if (sql.includes('AS SELECT')) return undefined;
    return sql.includes('target_table')
      ? [{ uuid: 'u', create_table_query: '', target_database: 'default', target_table: 'target' }]
      : undefined;
  };
  return checkClickHouse(
    { url: server.url, routes: [{ topic: 'orders', table: 't' }], ...options },
    { delivery: 'exactly-once', maxPending: 2, ...needs },
  );
}

const of = (findings: readonly Finding[], what: string) => findings.filter((finding) => finding.what === what);

describe('the version of the server', () => {
  it.each([
    ['26.7.2.1', 'ok'],
    ['24.8.1.1', 'ok'],
    ['24.7.9.9', 'warning'],
    ['22.1.1.1', 'warning'],
    ['21.12.1.1', 'refusal'],
    ['9.1.1', 'refusal'],
  ] as const)('%s: %s', async (version, level) => {
    const [found] = of(await check({ fake: { version } }), 'server');
    expect(found).toMatchObject({ level, detail: expect.stringContaining(version) as string });
    if (level === 'warning') expect(found?.detail).toContain('tested with 26.7 only');
  });

  it('is no matter where nothing is promised', async () => {
    expect(
      of(await check({ fake: { version: '21.3.1.1' }, needs: { delivery: 'at-least-once' } }), 'server'),
    ).toMatchObject([{ level: 'ok' }]);
  });

  it.each([
    ['24.7.1.1', []],
    ['24.6.9.9', ['refusal']],
  ] as const)('%s with materialized views behind the table', async (version, levels) => {
    const findings = of(
      await check({ fake: { version, views: ['view'], engine: 'ReplicatedMergeTree' } }),
      'views of default.t',
    );
    expect(findings.map(({ level }) => level)).toEqual(levels);
  });
});

describe('the limits of the user', () => {
  const usual = {
    max_execution_time: 0,
    max_partitions_per_insert_block: 100,
    throw_on_max_partitions_per_insert_block: 1,
  };
  const found = async (given: Given) => of(await check(given), 'limits of the user');

  it('that are the usual ones are in order', async () => {
    expect(await found({ limits: usual })).toEqual([
      {
        level: 'ok',
        what: 'limits of the user',
        detail: 'inserts of any length, over up to 100 ClickHouse partitions each',
      },
    ]);
  });

  it('end an insert before it could be through', async () => {
    expect(await found({ limits: { ...usual, max_execution_time: 60 }, areFixed: true })).toMatchObject([
      {
        level: 'warning',
        detail: expect.stringContaining('max_execution_time is 60 s') as string,
        todo: expect.stringContaining('max_execution_time to 0') as string,
      },
    ]);
    expect(
      await found({
        limits: { ...usual, max_execution_time: 60 },
        options: { clickhouseSettings: { max_execution_time: 60 } },
      }),
    ).toMatchObject([{ level: 'warning' }]);
    // The profile's own is lifted for inserts.
    expect(await found({ limits: { ...usual, max_execution_time: 60 } })).toMatchObject([
      { level: 'ok', detail: expect.stringContaining('inserts of any length') as string },
    ]);
    expect(
      await found({
        limits: { ...usual, max_execution_time: 60 },
        areFixed: true,
        options: { requestTimeoutMs: 60_000 },
      }),
    ).toMatchObject([{ level: 'ok' }]);
    expect(
      await found({
        limits: { ...usual, max_execution_time: 60 },
        options: { clickhouseSettings: { max_execution_time: 0 } },
      }),
    ).toMatchObject([{ level: 'ok' }]);
  });

  it('refuse a batch that spreads over more ClickHouse partitions', async () => {
    const limits = { ...usual, max_partitions_per_insert_block: 20 };
    expect(await found({ limits })).toMatchObject([
      { level: 'warning', detail: expect.stringContaining('max_partitions_per_insert_block is 20') as string },
    ]);
    expect(await found({ limits, needs: { partitionsPerBatch: 21 } })).toMatchObject([
      { level: 'refusal', todo: 'set max_partitions_per_insert_block to 21 in the settings of the inserts' },
    ]);
    expect(await found({ limits: { ...limits, throw_on_max_partitions_per_insert_block: 0 } })).toMatchObject([
      { level: 'ok', detail: expect.stringContaining('any number of') as string },
    ]);
    expect(
      await found({ limits: { ...limits, max_partitions_per_insert_block: 0 }, needs: { partitionsPerBatch: 21 } }),
    ).toMatchObject([{ level: 'ok' }]);
  });
});

describe('the dedup window', () => {
  const window = async (entries: number, needs: Partial<Needs>) => {
    const findings = await check({
      fake: { tableSettings: `non_replicated_deduplication_window = ${entries}` },
      needs,
    });
    return { found: of(findings, 'dedup window of default.t')[0], refusal: refusalOf(findings) };
  };

  it.each([
    [199, { kafkaPartitions: 100 }, 'refusal'],
    [200, { kafkaPartitions: 100 }, 'warning'],
    [1999, { kafkaPartitions: 100 }, 'warning'],
    [59_999, { kafkaPartitions: 100 }, 'warning'],
    [60_000, { kafkaPartitions: 100 }, 'ok'],
    [119_999, { kafkaPartitions: 100, maxPending: 3, partitionsPerBatch: 2 }, 'warning'],
    [120_000, { kafkaPartitions: 100, maxPending: 3, partitionsPerBatch: 2 }, 'ok'],
    // What may be in doubt at once has room, however seldom batches are made.
    [1999, { kafkaPartitions: 100, batchMaxWaitMs: 60_000 }, 'warning'],
    [2000, { kafkaPartitions: 100, batchMaxWaitMs: 60_000 }, 'ok'],
    [999, {}, 'warning'],
    [1000, {}, 'ok'],
  ] as const)('of %i entries for %o: %s', async (entries, needs, level) => {
    expect((await window(entries, needs)).found).toMatchObject({ level, what: 'dedup window of default.t' });
  });

  it('says what it is counted from, and the statement that makes it large enough', async () => {
    const { refusal } = await window(1000, { kafkaPartitions: 600 });
    expect(refusal).toMatchObject({
      code: 'KCR_DEDUP_WINDOW',
      message: expect.stringContaining(
        'it is 1000 entries, less than the 1200 that may be needed at once (2 batches in doubt of each of 600 Kafka partitions, over 1 ClickHouse partitions each)',
      ) as string,
      fields: { hint: 'ALTER TABLE default.t MODIFY SETTING non_replicated_deduplication_window = 12000' },
    });
  });
});

describe('the insert mode', () => {
  const asyncInsert = { insertMode: 'coalesced' } as const;
  const many = { kafkaPartitions: 200 };
  const threads = async (value: number) => {
    server = await fakeClickHouse();
    server.onSelect = (sql) => (sql.includes('async_insert_threads') ? [{ value: String(value) }] : undefined);
    return of(
      await checkClickHouse(
        { url: server.url, routes: [{ topic: 'orders', table: 't' }], ...asyncInsert },
        { delivery: 'exactly-once', maxPending: 2, ...many },
      ),
      'insert mode',
    );
  };

  it('direct needs nothing of its own', async () => {
    expect(of(await check({}), 'insert mode')).toEqual([]);
  });

  it.each(['26.7.1.1068', '26.6.2.98', '24.8.1.1'])(
    'coalesced is refused on %s, where rows of inserts that are written together may be lost',
    async (version) => {
      const findings = await check({ fake: { version }, options: asyncInsert, needs: many });
      expect(of(findings, 'insert mode')).toMatchObject([
        {
          level: 'refusal',
          code: 'KCR_PREFLIGHT',
          detail: expect.stringContaining('111031') as string,
          todo: expect.stringContaining('26.7.2') as string,
        },
      ]);
      expect(refusalOf(findings)?.code).toBe('KCR_PREFLIGHT');
    },
  );

  it('coalesced is for many Kafka partitions, and of no use where the server lets nothing wait', async () => {
    expect(of(await check({ options: asyncInsert, needs: many }), 'insert mode')).toMatchObject([
      { level: 'ok', detail: expect.stringContaining('many Kafka partitions with little traffic') as string },
    ]);
    await server.close();
    expect(of(await check({ options: asyncInsert, needs: { kafkaPartitions: 19 } }), 'insert mode')).toMatchObject([
      { level: 'warning', detail: expect.stringContaining('here there are 19') as string },
    ]);
    await server.close();
    expect(await threads(16)).toMatchObject([{ level: 'ok' }]);
    await server.close();
    expect(await threads(0)).toMatchObject([
      { level: 'warning', todo: expect.stringContaining('async_insert_threads') as string },
    ]);
  });

  it.each([
    [119_999, {}, 'warning'],
    [120_000, {}, 'ok'],
    [60_000, { batchMaxWaitMs: 2000 }, 'ok'],
    [239_999, { partitionsPerBatch: 2 }, 'warning'],
  ] as const)(
    'both modes need a window for the tokens of ten minutes, not for the parts: %i entries with %o: %s',
    async (entries, needs, level) => {
      const fake = { tableSettings: `non_replicated_deduplication_window = ${entries}` };
      expect(
        of(await check({ fake, options: asyncInsert, needs: { ...many, ...needs } }), 'dedup window of default.t'),
      ).toMatchObject([{ level }]);
      await server.close();
      expect(of(await check({ fake, needs: { ...many, ...needs } }), 'dedup window of default.t')).toMatchObject([
        { level },
      ]);
    },
  );

  it.each([
    [16, 'MergeTree', 'ok'],
    [17, 'MergeTree', 'warning'],
    [17, 'ReplicatedMergeTree', 'warning'],
  ] as const)(
    'I6: direct needs it as well, on every engine: %i partitions with a batch a second into a %s: %s',
    async (kafkaPartitions, engine, level) => {
      const name = engine === 'MergeTree' ? 'non_replicated_deduplication_window' : 'replicated_deduplication_window';
      const fake = { engine, tableSettings: `${name} = 10000` };
      const found = of(
        await check({ fake, needs: { kafkaPartitions, batchMaxWaitMs: 1000 } }),
        'dedup window of default.t',
      );
      expect(found).toMatchObject([
        level === 'ok' ? { level } : { level, todo: expect.stringContaining(`${name} = 10200`) as string },
      ]);
    },
  );

  it('coalesced says how long the window holds, and what would be enough', async () => {
    const fake = { tableSettings: 'non_replicated_deduplication_window = 10000' };
    expect(of(await check({ fake, options: asyncInsert, needs: many }), 'dedup window of default.t')).toMatchObject([
      {
        level: 'warning',
        detail: expect.stringContaining('may hold the tokens of 50 s, and they are relied on for 600 s') as string,
        todo: expect.stringContaining('= 120000, or set dedupBudgetMs to 50000') as string,
      },
    ]);
    await server.close();
    expect(
      of(
        await check({ fake, options: { ...asyncInsert, dedupBudgetMs: 50_000 }, needs: many }),
        'dedup window of default.t',
      ),
    ).toMatchObject([{ level: 'ok' }]);
  });
});
