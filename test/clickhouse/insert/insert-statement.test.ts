import { expect, it } from 'vitest';
import { insertParams } from '../../../src/clickhouse/insert/insert-statement.js';
import { noProvenance } from '../../../src/clickhouse/insert/encode.js';
import type { Column, Table } from '../../../src/clickhouse/schema/table.js';

const column = (name: string, type: string, defaultKind = ''): Column => ({
  name,
  type,
  defaultKind,
  defaultExpression: '',
  inPartitionKey: false,
});
const tableOf = (...columns: readonly Column[]): Table => ({
  database: 'd',
  table: 't',
  engine: 'MergeTree',
  family: 'plain',
  collapses: false,
  sortingKey: '',
  partitionKey: '',
  engineFull: '',
  createQuery: '',
  columns,
  views: [],
  provenance: noProvenance,
  unusable: [],
});

it('what an insert says of its table is made once for what was seen of the table', () => {
  const table = tableOf(column('id', 'UInt64'));
  expect(insertParams(table)).toBe(insertParams(table));
});

it('and made again for a table that was altered', () => {
  expect(insertParams(tableOf(column('id', 'UInt64')))).toEqual({ query: 'INSERT INTO `d`.`t` FORMAT JSONEachRow' });
  expect(insertParams(tableOf(column('raw', 'String', 'EPHEMERAL')))).toEqual({
    query: 'INSERT INTO `d`.`t` (*, `raw`) FORMAT JSONEachRow',
  });
  expect(insertParams(tableOf(column('kind', "Enum8('a' = 1)")))).toMatchObject({ input_format_null_as_default: '0' });
});
