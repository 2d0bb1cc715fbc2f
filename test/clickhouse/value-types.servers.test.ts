// What the check lets through is one row to ClickHouse in a column of any type, or an error that names its record; also
// under a profile that sets everything that concerns JSON to something else.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openClickHouseSink } from '../../src/clickhouse/sink.js';
import type { IngestError } from '../../src/errors.js';
import { MAX_DEPTH } from '../../src/kernel/index.js';
import { jsonText, seeded } from '../kernel/values.js';
import { command, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { type Stack, startStack } from '../stack/stack.js';
import { batchOf, outcome, record } from './fixtures.js';

const types = [
  'String',
  'LowCardinality(String)',
  'Nullable(String)',
  'FixedString(8)',
  'Map(String, String)',
  'Map(String, Array(UInt8))',
  'Array(String)',
  'Array(Array(Nullable(Int32)))',
  'Tuple(a String, b UInt8)',
  'Tuple(String, Array(String))',
  'Nested(a String, b UInt8)',
  'JSON',
  'Dynamic',
  'Variant(String, UInt64, Array(UInt8))',
  'UInt8',
  'Int256',
  'Float64',
  'Decimal(18, 4)',
  'Bool',
  'UUID',
  'IPv4',
  'IPv6',
  'Date',
  'DateTime',
  'DateTime64(3)',
  "Enum8('a' = 1, 'b' = 2)",
  'Nullable(Float32)',
  'Point',
  'Array(JSON)',
  'LowCardinality(Nullable(String))',
] as const;

const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;
/** Of a field: what concerns one type or another, and what has been read beyond its row somewhere. */
const cases = [
  '1',
  '-0',
  '1e400',
  '18446744073709551616',
  '""',
  '"1"',
  '"2024"',
  '"2024-01-01"',
  '"20240101"',
  '"12345678-"',
  '"1.2.3"',
  '"::"',
  'true',
  'null',
  '[]',
  '{}',
  '[[]]',
  '{"a":{"b":[1]}}',
  '["a",1,null]',
  '"\\ud800"',
  '"\\udc00"',
  '"\\u0000"',
  '"}\\n{"',
  '"],["',
  '{"":{"_offset":5}}',
  '[{"a":1},{"a":2}]',
  '{"a":["x"],"b":[1]}',
  '{"a":1,"a":2}',
  '{"a":1,"a":{"b":2}}',
  '{"_offset":7,"_topic":"x"}',
  deep(900),
];

const PROVENANCE = '_topic LowCardinality(String), _partition UInt32, _offset UInt64';
const random = seeded(4);
const fields = [
  ...cases.map((value) => `"v":${value}`),
  ...Array.from({ length: 20 }, () => `"v":${jsonText(random, 3, 0)}`),
  '"v":1,"v":2',
  '"V":1',
  `"unknown":${deep(MAX_DEPTH - 2)}`,
  '"v.a":["x"],"v.b":[1,2]',
  '"id":7,"x":{"id":8}',
  '"":1',
  '"unknown":"\\ud800"',
];

/** Good records at even offsets, one of the fields at each odd one. */
const records = fields.flatMap((field, index) => [
  record(2 * index, `{"id":${2 * index}}`),
  record(2 * index + 1, `{"id":${2 * index + 1},${field}}`),
]);

/** Leaves out what ClickHouse refuses, one at a time, as `exclude` does; gives the offsets. */
async function refusedIn(url: string, table: string, settings: Record<string, string>): Promise<readonly number[]> {
  const sink = await openClickHouseSink({ url, routes: [{ topic: 'orders', table }], clickhouseSettings: settings });
  const insert = (some: typeof records, token: string) =>
    outcome(sink.prepare(batchOf(some, { token })).insert()).then(
      () => undefined,
      (error: unknown) => error as IngestError,
    );
  const refused = new Set<number>();
  const rest = () => records.filter(({ offset }) => !refused.has(offset));
  try {
    for (;;) {
      const error = await insert(rest(), `${table}:${refused.size}`);
      if (error === undefined) return [...refused];
      const { offset } = error.fields;
      // Some errors name no row; then nothing has landed, and each is asked alone.
      const culprit = offset ?? (await onlyWithoutName(url, table, settings, rest()));
      // A good record is never blamed.
      expect([culprit % 2, refused.has(culprit)], String(error)).toEqual([1, false]);
      if (offset !== undefined) expect(error.code).toBe('KCR_POISON');
      refused.add(culprit);
    }
  } finally {
    await outcome(sink.close());
  }
}

/** The first that is refused alone. */
async function onlyWithoutName(
  url: string,
  table: string,
  settings: Record<string, string>,
  some: typeof records,
): Promise<number> {
  await command(url, `CREATE TABLE IF NOT EXISTS ${table}_alone AS ${table}`);
  const sink = await openClickHouseSink({
    url,
    routes: [{ topic: 'orders', table: `${table}_alone` }],
    clickhouseSettings: settings,
  });
  try {
    for (const one of some) {
      const error = await outcome(sink.prepare(batchOf([one], { token: undefined })).insert()).then(
        () => undefined,
        (thrown: unknown) => thrown as IngestError,
      );
      if (error !== undefined && error.fields.offset === undefined) return one.offset;
    }
    return -1;
  } finally {
    await outcome(sink.close());
  }
}

let made = 0;

async function judge(url: string, type: string, settings: Record<string, string> = {}): Promise<void> {
  const table = `types_${process.pid}_${made++}`;
  await command(
    url,
    `CREATE TABLE ${table} (id UInt64, v ${type}, ${PROVENANCE}) ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 10000`,
  );
  const refused = await refusedIn(url, table, settings);
  const rows = await query(url, `SELECT id, _topic, _partition, _offset FROM ${table} ORDER BY _offset, id`);
  const there = records.filter(({ offset }) => !refused.includes(offset)).map(({ offset }) => offset);
  // `id` says which record it was, wherever the row says it comes from.
  expect(rows).toEqual(there.map((offset) => ({ id: offset, _topic: 'orders', _partition: 0, _offset: offset })));
  await command(url, `DROP TABLE ${table}`);
}

describe('one row, or an error that names the record', () => {
  it.each(types)('in a column of %s', (type) => judge(sharedStack().clickhouseUrl, type));
  it.each(['input_format_import_nested_json', 'input_format_json_empty_as_default'])(
    'with %s, which a user may set',
    (name) => judge(sharedStack().clickhouseUrl, 'Nested(a String, b UInt8)', { [name]: '1' }),
  );
});

describe('the same under a profile that sets everything that concerns JSON', () => {
  /** What is pinned, to what it must not be; and all the others, to what they are not by default. */
  const profile: Readonly<Record<string, string>> = {
    input_format_json_ignore_unnecessary_fields: '1',
    input_format_json_max_depth: '5',
    input_format_allow_errors_num: '100',
    input_format_parallel_parsing: '1',
    timeout_overflow_mode: 'break',
    input_format_import_nested_json: '1',
    input_format_column_name_matching_mode: 'ignore_case',
    input_format_json_throw_on_bad_escape_sequence: '0',
    input_format_json_read_numbers_as_strings: '0',
    input_format_json_read_bools_as_numbers: '0',
    input_format_json_read_bools_as_strings: '0',
    input_format_json_read_arrays_as_strings: '0',
    input_format_json_read_objects_as_strings: '0',
    input_format_json_named_tuples_as_objects: '0',
    input_format_json_map_as_array_of_tuples: '1',
    input_format_json_ignore_unknown_keys_in_named_tuple: '0',
    input_format_json_defaults_for_missing_elements_in_named_tuple: '0',
    input_format_json_empty_as_default: '1',
    input_format_json_infer_array_of_dynamic_from_array_of_different_types: '0',
    input_format_json_infer_incomplete_types_as_strings: '0',
    input_format_json_try_infer_named_tuples_from_objects: '0',
    input_format_json_try_infer_numbers_from_strings: '1',
    input_format_json_use_string_type_for_ambiguous_paths_in_named_tuples_inference_from_objects: '1',
    input_format_json_validate_types_from_metadata: '0',
    input_format_json_compact_allow_variable_number_of_columns: '1',
    input_format_null_as_default: '0',
    input_format_defaults_for_omitted_fields: '0',
    input_format_ipv4_default_on_conversion_error: '1',
    input_format_ipv6_default_on_conversion_error: '1',
    input_format_try_infer_dates: '0',
    input_format_try_infer_datetimes: '0',
    input_format_try_infer_integers: '0',
    input_format_try_infer_exponent_floats: '1',
    input_format_try_infer_variants: '1',
    input_format_with_names_use_header: '0',
    type_json_skip_duplicated_paths: '1',
    type_json_allow_duplicated_key_with_literal_and_nested_object: '0',
    json_type_escape_dots_in_keys: '1',
    allow_simdjson: '0',
    insert_allow_materialized_columns: '1',
  };
  let stack: Stack;

  beforeAll(async () => {
    const settings = Object.entries(profile)
      .map(([name, value]) => `<${name}>${value}</${name}>`)
      .join('');
    stack = await startStack({ kafka: false, keeper: false, useEnvironment: false, clickhouse: { settings } });
    const found = await query<{ name: string; value: string }>(
      stack.clickhouseUrl,
      `SELECT name, value FROM system.settings WHERE name IN (${Object.keys(profile)
        .map((name) => `'${name}'`)
        .join(', ')})`,
    );
    expect(Object.fromEntries(found.map(({ name, value }) => [name, value]))).toEqual(profile);
  });
  afterAll(() => stack.stop());

  it.each(types)('in a column of %s', (type) => judge(stack.clickhouseUrl, type));
  it.each(['match_case', 'auto'])('and with names compared by %s', (mode) =>
    judge(stack.clickhouseUrl, 'String', { input_format_column_name_matching_mode: mode }),
  );

  it('an insert that is given up at max_execution_time is no success', async () => {
    const table = `given_up_${process.pid}`;
    await command(
      stack.clickhouseUrl,
      `CREATE TABLE ${table} (id UInt64, slow UInt8 DEFAULT sleepEachRow(0.3)) ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 10000`,
    );
    const sink = await openClickHouseSink({
      url: stack.clickhouseUrl,
      routes: [{ topic: 'orders', table }],
      clickhouseSettings: {
        max_execution_time: 1,
        input_format_defaults_for_omitted_fields: 1,
        function_sleep_max_microseconds_per_block: 60_000_000,
      },
    });
    const slow = batchOf(Array.from({ length: 10 }, (_, offset) => record(offset, { id: offset })));
    await expect(outcome(sink.prepare(slow).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_IN_DOUBT',
      fields: { serverCode: 159 },
    });
    await outcome(sink.close());
  });
});

describe('A5: what the server counts', () => {
  it('is what was sent, also of a duplicate; with a view more, which says nothing', async () => {
    const url = sharedStack().clickhouseUrl;
    const table = `counted_${process.pid}`;
    await command(
      url,
      `CREATE TABLE ${table} (id UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000`,
    );
    const sink = await openClickHouseSink({ url, routes: [{ topic: 'orders', table }] });
    const batch = batchOf(Array.from({ length: 5 }, (_, offset) => record(offset, { id: offset })));
    for (const _ of [1, 2]) await expect(outcome(sink.prepare(batch).insert())).resolves.toMatchObject({ rows: 5 });
    // Made while the sink is open: it is looked for when there are more.
    await command(
      url,
      `CREATE MATERIALIZED VIEW ${table}_view ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000 AS SELECT id FROM ${table}`,
    );
    await expect(outcome(sink.prepare(batchOf([record(5, { id: 5 })])).insert())).resolves.toMatchObject({ rows: 1 });
    await outcome(sink.close());
    expect(
      await query(url, `SELECT (SELECT count() FROM ${table}) AS own, (SELECT count() FROM ${table}_view) AS fed`),
    ).toEqual([{ own: 6, fed: 1 }]);
  });

  it('stops a partition whose value was read as two rows, had the check let it through', async () => {
    const url = sharedStack().clickhouseUrl;
    const table = `two_rows_${process.pid}`;
    await command(
      url,
      `CREATE TABLE ${table} (id UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000`,
    );
    const sink = await openClickHouseSink({ url, routes: [{ topic: 'orders', table }] });
    const value = Buffer.from('{"id":1     }');
    const preparedInsert = sink.prepare(batchOf([record(0, value)]));
    // After the check and before the sending: what a defect of the check would be.
    value.write('{"id":1}{   }');
    await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({
      code: 'KCR_ROW_COUNT',
      message: expect.stringContaining('read 2 rows where 1 were sent') as string,
    });
    await outcome(sink.close());
  });
});
