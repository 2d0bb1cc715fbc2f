import { describe, expect, it } from 'vitest';
import type { Column } from '../../../src/clickhouse/schema/table.js';
import { volatileColumns, volatileIn } from '../../../src/clickhouse/schema/volatile.js';

const column = (name: string, defaultExpression: string, defaultKind = 'DEFAULT'): Column => ({
  name,
  type: 'String',
  defaultKind,
  defaultExpression,
  inPartitionKey: false,
});
const brief = (columns: readonly Column[], filled: readonly string[] = []) =>
  volatileColumns(columns, new Set(filled)).map(
    ({ column: { name }, because, always }) => `${name} by ${because}${always ? '' : ', perhaps'}`,
  );

describe('an expression is volatile', () => {
  it.each([
    'now()',
    'toDate(now())',
    'NOW()',
    'now64(3)',
    'now64 (3)',
    'nowInBlock()',
    'today()',
    'yesterday()',
    'CURRENT_TIMESTAMP()',
    'UTCTimestamp()',
    'rand()',
    'rand64() % 8',
    'randCanonical()',
    'randUniform(0, 1)',
    'randomString(8)',
    'generateUUIDv4()',
    'generateUUIDv7()',
    'generateULID()',
    'generateSnowflakeID()',
    'queryID()',
    'initial_query_id()',
    'hostName()',
    'fullHostName()',
    'serverUUID()',
    'rowNumberInBlock()',
    'rowNumberInAllBlocks()',
    'blockNumber()',
    'arrayShuffle([1, 2])',
    "concat('a', toString(today()))",
    'fuzzBits(k, 0.1)',
  ])('%s', (expression) => expect(volatileIn(expression)).toBeDefined());

  it.each([
    "'now()'",
    "concat('it\\'s now()', k)",
    "concat('it''s now()', k)",
    'toDate(at)',
    'toYYYYMM(_timestamp)',
    'brand(k)',
    'now',
    'todays(k)',
    'rounded(k)',
    'knows(k)',
    'sipHash64(k) % 8',
    'version_number(k)',
    '',
  ])('not %s', (expression) => expect(volatileIn(expression)).toBeUndefined());
});

describe('the columns that a repeated insert fills with other values', () => {
  it('are those with a default or materialized expression that is', () => {
    expect(
      brief([
        column('a', 'now()'),
        column('b', 'rand()', 'MATERIALIZED'),
        column('c', 'today()', 'ALIAS'),
        column('d', "'now()'"),
        column('e', '', ''),
      ]),
    ).toEqual(['a by now()', 'b by rand()']);
  });

  it('and those that take their value from one, in whatever order', () => {
    expect(
      brief([
        column('day', 'toDate(at)'),
        column('month', 'toYYYYMM(`day`)'),
        column('at', 'now()'),
        column('at_all', 'format(k)'),
        column('k', 'at_all'),
      ]),
    ).toEqual(['at by now()', 'day by now() through at', 'month by now() through at through day']);
  });

  it('but not those that every row brings', () => {
    expect(brief([column('_timestamp', 'now()'), column('day', 'toDate(_timestamp)')], ['_timestamp'])).toEqual([]);
  });

  it('and perhaps those that ask a dictionary', () => {
    expect(brief([column('region', "dictGet('tenants', 'region', k)"), column('hash', 'sipHash64(region)')])).toEqual([
      'region by dictGet(), perhaps',
      'hash by dictGet() through region, perhaps',
    ]);
  });
});
