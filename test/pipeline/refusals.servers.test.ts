// Records that ClickHouse refuses without naming them, through the whole pipeline on real servers.
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { IngestError } from '../../src/errors.js';
import type { IngestEvent } from '../../src/events.js';
import { ingest } from '../../src/pipeline/ingest.js';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { httpProxy } from '../support/http-proxy.js';

const PROVENANCE = '_topic LowCardinality(String), _partition UInt32, _offset UInt64';

interface Run {
  readonly error: IngestError | undefined;
  readonly excluded: readonly number[];
  readonly offsets: readonly number[];
  readonly events: readonly IngestEvent[];
  /** Of `_timestamp`. */
  readonly times: readonly string[];
}

interface RunOptions {
  readonly onPoison?: 'halt' | 'exclude';
  /** Behind the columns. */
  readonly table?: string;
  readonly settings?: string;
  readonly insertMode?: 'direct' | 'coalesced';
  readonly delivery?: 'exactly-once' | 'at-least-once' | 'at-most-once';
  readonly provenance?: string;
  readonly url?: string;
  readonly timestamps?: readonly string[];
}

/** One partition, until it halts or every record was delivered or left out. */
async function run(columns: string, values: readonly (string | null)[], options: RunOptions = {}): Promise<Run> {
  const {
    onPoison = 'exclude',
    table = 'ORDER BY tuple()',
    settings = '',
    insertMode = 'direct',
    delivery = 'exactly-once',
    provenance = PROVENANCE,
    url,
    timestamps,
  } = options;
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  const topic = `refused_${randomUUID().slice(0, 8)}`;
  const anyTime = {
    'message.timestamp.after.max.ms': '9223372036854775807',
    'message.timestamp.before.max.ms': '9223372036854775807',
  };
  await createTopic(brokers, topic, timestamps === undefined ? {} : { config: anyTime });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${topic} (${columns}${provenance === '' ? '' : `, ${provenance}`}) ENGINE = MergeTree ${table} SETTINGS non_replicated_deduplication_window = 10000${settings}`,
  );
  await produce(
    brokers,
    topic,
    values.map((value, n) => ({ value, ...(timestamps === undefined ? {} : { timestamp: timestamps[n] }) })),
  );
  const [excluded, events]: [number[], IngestEvent[]] = [[], []];
  const error = await new Promise<IngestError | undefined>((resolve, reject) => {
    const running = ingest(
      {
        kafka: { brokers, groupId: topic, fromBeginning: true },
        clickhouse: { url: url ?? clickhouseUrl, insertMode },
        state: { store: 'keeper', connect: keeperConnect },
        delivery,
        onPoison,
        routes: [{ topic, table: topic }],
        batch: { count: values.length, maxWaitMs: 1000 },
      },
      {
        onEvent: (event) => {
          events.push(event);
          if (event.kind === 'excluded' && event.record !== undefined) excluded.push(event.record.offset);
        },
      },
    ).subscribe({
      next: (outcome) => {
        if (outcome.kind !== 'halted' && outcome.lastOffset < values.length - 1) return;
        running.unsubscribe();
        resolve(outcome.kind === 'halted' ? outcome.error : undefined);
      },
      error: reject,
    });
  });
  const key = provenance === '' ? 'n' : '_offset';
  const rows = await query<{ o: number }>(clickhouseUrl, `SELECT ${key} AS o FROM ${topic} ORDER BY o`);
  const times =
    timestamps === undefined
      ? []
      : await query<{ t: string }>(
          clickhouseUrl,
          `SELECT toString(_timestamp) AS t FROM ${topic} ORDER BY ${key} SETTINGS session_timezone = 'UTC'`,
        );
  return { error, excluded, offsets: rows.map(({ o }) => o), events, times: times.map(({ t }) => t) };
}

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);
const COUNT = 40;
/** The whole, without some. */
const except = (...bad: readonly number[]) => numbers(COUNT).filter((n) => !bad.includes(n));
/** Record n holds a date; those of `bad` none. */
const dates = (...bad: readonly number[]) =>
  numbers(COUNT).map((n) => JSON.stringify({ n, s: bad.includes(n) ? 'none' : '2026-11-30' }));

describe('a record that the server refuses without naming it is found, and treated like any poison record', () => {
  const nested = (...bad: readonly number[]) =>
    numbers(COUNT).map((n) => JSON.stringify({ n, 'a.x': [1, 2], 'a.y': bad.includes(n) ? [1] : [1, 2] }));
  const byNumber = numbers(COUNT).map((n) => JSON.stringify({ n }));

  test.each([
    ['E1: arrays of a Nested of two lengths', 'n UInt32, a Nested(x UInt8, y UInt8)', {}, nested(7, 31), [7, 31]],
    ['E1: a DEFAULT that throws', 'n UInt32, s String, d Date DEFAULT toDate(s)', {}, dates(0), [0]],
    [
      'E1: a DEFAULT that throws for the last, and for neighbours',
      'n UInt32, s String, d Date DEFAULT toDate(s)',
      {},
      dates(20, 21, 39),
      [20, 21, 39],
    ],
    [
      'E1: a PARTITION BY that throws',
      'n UInt32, s String',
      { table: 'PARTITION BY toYear(toDate(s)) ORDER BY n' },
      dates(13),
      [13],
    ],
    [
      'E1: an ORDER BY that throws, over several ClickHouse partitions',
      'n UInt32, s String',
      { table: 'PARTITION BY n % 3 ORDER BY toDate(s)' },
      dates(13, 14),
      [13, 14],
    ],
    [
      'E1: a CONSTRAINT whose expression throws',
      'n UInt32, CONSTRAINT c CHECK intDiv(1, n - 11) != 99',
      {},
      byNumber,
      [11],
    ],
    [
      'E1: an operation on a Dynamic',
      'n UInt32, d Dynamic, x UInt64 DEFAULT assumeNotNull(d + 1)',
      {},
      numbers(COUNT).map((n) => JSON.stringify({ n, d: n === 5 ? 'text' : n })),
      [5],
    ],
    ['E2: MATERIALIZED throwIf', 'n UInt32, chk UInt8 MATERIALIZED throwIf(n = 7)', {}, byNumber, [7]],
    [
      'E2: inserts that wait for others',
      'n UInt32, chk UInt8 MATERIALIZED throwIf(n = 7)',
      { insertMode: 'coalesced' as const },
      byNumber,
      [7],
    ],
    [
      'E2: at-least-once',
      'n UInt32, chk UInt8 MATERIALIZED throwIf(n = 7)',
      { delivery: 'at-least-once' as const },
      byNumber,
      [7],
    ],
    [
      'E2: at-most-once',
      'n UInt32, chk UInt8 MATERIALIZED throwIf(n = 7)',
      { delivery: 'at-most-once' as const },
      byNumber,
      [7],
    ],
    [
      'E2: a table without provenance columns',
      'n UInt32, chk UInt8 MATERIALIZED throwIf(n = 7)',
      { provenance: '' },
      byNumber,
      [7],
    ],
  ] as const)('%s', async (_title, columns, options, values, bad) => {
    const found = await run(columns, values, options);
    expect(found.error).toBeUndefined();
    expect(found.excluded).toEqual(bad);
    expect(found.offsets).toEqual(except(...bad));
    expect(found.events.some(({ kind }) => kind === 'divided')).toBe(true);
  });

  test('E1: under "halt" the partition halts at the record, names it, and what stands before it is in the table', async () => {
    const found = await run('n UInt32, s String, d Date DEFAULT toDate(s)', dates(23), { onPoison: 'halt' });
    expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { partition: 0, offset: 23, serverCode: 38 } });
    expect(found.error?.message).toContain('Cannot parse date');
    expect(found.offsets).toEqual(numbers(23));
  });

  test('E1: more ClickHouse partitions than one insert may have: it goes in parts', async () => {
    const values = numbers(150).map((n) => JSON.stringify({ n }));
    const found = await run('n UInt32', values, { table: 'PARTITION BY n ORDER BY n' });
    expect(found.error).toBeUndefined();
    expect(found.excluded).toEqual([]);
    expect(found.offsets).toEqual(numbers(150));
  });

  test('E1: of a batch of which rows have landed no part is sent under another token: it halts, and says so', async () => {
    // So many columns and ClickHouse partitions that the server writes parts before it has made all of them.
    const many = numbers(60)
      .map((n) => `c${n} UInt8`)
      .join(', ');
    const values = numbers(100).map((n) => JSON.stringify({ n, s: n === 97 ? 'none' : '2026-11-30' }));
    const found = await run(`n UInt32, ${many}, s String, INDEX i toDate(s) TYPE minmax`, values, {
      table: 'PARTITION BY n % 50 ORDER BY n',
    });
    expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { first: 0, last: 99 } });
    expect(found.error?.message).toContain('rows of its range are in the table');
    expect(new Set(found.offsets).size).toBe(found.offsets.length);
    expect(found.offsets.length).toBeGreaterThan(0);
  });

  test('a table that refuses every record halts as before, and no more than the allowed are left out', async () => {
    const found = await run('n UInt32, s String, d Date DEFAULT toDate(s)', dates(...numbers(COUNT)));
    expect(found.error).toMatchObject({ code: 'KCR_POISON' });
    expect(found.error?.message).toContain('too many others');
    expect(found.offsets).toEqual([]);
  });
}, 120_000);

describe('records that are no fault of the table', () => {
  test('E7: more tombstones than records that may be left out are skipped, counted and told', async () => {
    const values = numbers(300).map((n) => (n % 2 === 0 ? null : JSON.stringify({ n })));
    const found = await run('n UInt32', values, { onPoison: 'exclude' });
    expect(found.error).toBeUndefined();
    expect(found.offsets).toEqual(numbers(300).filter((n) => n % 2 === 1));
    expect(
      found.events.filter((event) => event.kind === 'tombstones').reduce((sum, event) => sum + event.records, 0),
    ).toBe(150);
  });

  test('E7: under "halt" a tombstone halts its partition, whatever is left out otherwise', async () => {
    const found = await run('n UInt32', ['{"n":0}', null], { onPoison: 'halt' });
    expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { offset: 1 } });
  });

  test.each([
    ['DateTime', ['1970-01-01 00:00:00', '1970-01-01 00:00:00', '2106-02-07 06:28:15', '2106-02-07 06:28:15']],
    [
      'DateTime64(3)',
      ['1970-01-01 00:00:00.000', '1970-01-01 00:00:00.000', '2262-04-11 23:47:16.000', '2262-04-11 23:47:16.000'],
    ],
    [
      'DateTime64(9)',
      [
        '1970-01-01 00:00:00.000000000',
        '1970-01-01 00:00:00.000000000',
        '2262-04-11 23:47:16.000000000',
        '2262-04-11 23:47:16.000000000',
      ],
    ],
    ['UInt64', ['0', '0', '1764536400000000', '1764536400000000000']],
    ['Int64', ['-1', '0', '1764536400000000', '1764536400000000000']],
  ] as const)('E4: a timestamp of -1, of micro- and nanoseconds into _timestamp %s', async (type, expected) => {
    const values = numbers(4).map((n) => JSON.stringify({ n }));
    const found = await run(`n UInt32, _timestamp ${type}`, values, {
      timestamps: ['-1', '0', '1764536400000000', '1764536400000000000'],
    });
    expect(found.error).toBeUndefined();
    expect(found.times).toEqual(expected);
  });

  test('E8: at-most-once says which records a halt has lost', async () => {
    const values = numbers(30).map((n) => (n === 11 ? '{"n":"x"}' : JSON.stringify({ n })));
    const found = await run('n UInt32', values, { delivery: 'at-most-once', onPoison: 'halt' });
    expect(found.error?.message).toContain('the 30 records of the offsets 0-29 are lost to the table');
    expect(found.events.find(({ kind }) => kind === 'abandoned')).toMatchObject({ first: 0, last: 29, rows: 30 });
  });

  test('E9: at-least-once, a lost reply doubles nothing', async () => {
    const proxy = await httpProxy(sharedStack().clickhouseUrl);
    let lost = 0;
    proxy.onAnswer = ({ isInsert }) => Promise.resolve(isInsert && lost++ === 0 ? 'lose' : 'pass');
    try {
      const found = await run(
        'n UInt32',
        numbers(100).map((n) => JSON.stringify({ n })),
        { delivery: 'at-least-once', url: proxy.url },
      );
      expect(lost).toBeGreaterThan(1);
      expect(found.offsets).toEqual(numbers(100));
    } finally {
      await proxy.stop();
    }
  });

  test('a null for an Enum that has no 0 is poison: stored, it would make the column unreadable', async () => {
    const found = await run("n UInt32, e Enum8('a' = 1)", ['{"n":0,"e":"a"}', '{"n":1,"e":null}', '{"n":2}']);
    expect(found.excluded).toEqual([1]);
    expect(found.offsets).toEqual([0, 2]);
  });
}, 120_000);
