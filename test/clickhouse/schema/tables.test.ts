import { describe, expect, it } from 'vitest';
import { provenanceOf, provenanceStatement, readBackFault } from '../../../src/clickhouse/schema/provenance-columns.js';
import type { Column, Table } from '../../../src/clickhouse/schema/table.js';
import { statedTarget } from '../../../src/clickhouse/schema/tables.js';

const columns = (types: Readonly<Record<string, string>>, defaultKind = ''): Column[] =>
  Object.entries(types).map(([name, type]) => ({
    name,
    type,
    defaultKind,
    defaultExpression: '',
    inPartitionKey: false,
  }));

const provenance = (types: Readonly<Record<string, string>>) => provenanceOf(columns(types)).provenance;

describe('provenance columns', () => {
  it('are filled when the table has them, each for itself', () => {
    expect(provenance({ id: 'UInt64' })).toEqual({
      topic: false,
      partition: false,
      offset: false,
      timestamp: undefined,
      key: undefined,
      headers: undefined,
      headerNull: 'empty',
    });
    expect(
      provenance({ _topic: 'LowCardinality(String)', _partition: 'UInt16', _offset: 'Nullable(Int64)' }),
    ).toMatchObject({
      topic: true,
      partition: true,
      offset: true,
    });
  });

  it.each([
    ['_timestamp', 'DateTime', { timestamp: 'time' }],
    ['_timestamp', "DateTime('Europe/Berlin')", { timestamp: 'time' }],
    ['_timestamp', "Nullable(DateTime64(6, 'UTC'))", { timestamp: 'time' }],
    ['_timestamp', 'Int64', { timestamp: 'milliseconds' }],
    ['_key', 'String', { key: 'empty' }],
    ['_key', 'LowCardinality(Nullable(String))', { key: 'null' }],
    ['_headers', 'Map(String, String)', { headers: 'object', headerNull: 'empty' }],
    ['_headers', 'Map(LowCardinality(String), Nullable(String))', { headers: 'object', headerNull: 'null' }],
    ['_headers', 'String', { headers: 'text' }],
    ['_headers', 'Array(Tuple(String, Nullable(String)))', { headers: 'pairs', headerNull: 'null' }],
    ['_headers', 'Array(Tuple(String, String))', { headers: 'pairs', headerNull: 'empty' }],
  ] as const)('%s %s', (name, type, expected) => expect(provenance({ [name]: type })).toMatchObject(expected));

  it.each([
    ['_offset', 'Int32'],
    ['_offset', 'UInt32'],
    ['_offset', 'String'],
    ['_partition', 'UInt8'],
    ['_timestamp', 'Int32'],
    ['_timestamp', 'Date'],
    ['_key', 'UInt64'],
    ['_headers', 'Map(String, UInt64)'],
    ['_headers', 'JSON'],
    ['_headers', 'Array(Tuple(name String, value String))'],
  ])('%s %s is left alone and reported: ClickHouse would wrap or refuse the value', (name, type) => {
    const { provenance: filled, unusable } = provenanceOf(columns({ [name]: type }));
    expect(filled).toEqual(provenance({}));
    expect(unusable).toEqual([expect.stringContaining(`${name} is ${type}, expected `)]);
  });

  it.each(['MATERIALIZED', 'ALIAS'])('a column that is %s cannot be filled', (kind) => {
    expect(provenanceOf(columns({ _offset: 'Int64' }, kind))).toMatchObject({
      provenance: { offset: false },
      unusable: [expect.stringContaining(kind)],
    });
    expect(provenanceOf(columns({ _offset: 'Int64' }, 'DEFAULT')).provenance.offset).toBe(true);
  });
});

const table = (types: Readonly<Record<string, string>>, more: Partial<Table> = {}): Table => ({
  database: 'db',
  table: 't',
  engine: 'MergeTree',
  family: 'plain',
  collapses: false,
  sortingKey: 'id',
  partitionKey: '',
  engineFull: '',
  createQuery: '',
  views: [],
  columns: columns(types),
  ...provenanceOf(columns(types)),
  ...more,
});
const full = { id: 'UInt64', _topic: 'String', _partition: 'Int32', _offset: 'Int64' };

describe('reading a range back', () => {
  it('I5: needs partition, offset and topic: rows of another topic would pass for its own', () => {
    expect(readBackFault(table(full))).toBeUndefined();
    expect(readBackFault(table({ _partition: 'Int32', _offset: 'Int64' }))).toContain('_topic');
    expect(readBackFault(table({ _topic: 'String', _offset: 'Int64' }))).toContain('_partition');
    expect(readBackFault(table({ _topic: 'String', _partition: 'Int32', _offset: 'Int32' }))).toContain('_offset');
  });

  it('cannot be done where rows are merged away: a row replaced by a newer one would be taken for a lost one', () => {
    const replacing = { engine: 'ReplacingMergeTree', collapses: true };
    expect(readBackFault(table(full, replacing))).toContain('ReplacingMergeTree');
    expect(readBackFault(table(full, { ...replacing, sortingKey: 'id, my_offset' }))).toBeDefined();
    expect(readBackFault(table(full, { ...replacing, sortingKey: '_partition, _offset' }))).toBeUndefined();
  });

  it('the statement that makes it possible names only what is missing', () => {
    expect(provenanceStatement(table({ _offset: 'Int64' }))).toBe(
      'ALTER TABLE db.t ADD COLUMN _topic LowCardinality(String), ADD COLUMN _partition Int32',
    );
    expect(provenanceStatement(table(full))).toBeUndefined();
  });
});

describe('the target of a materialized view', () => {
  it.each([
    [
      'CREATE MATERIALIZED VIEW default.mv TO default.tgt (`k` UInt64) AS SELECT k FROM default.src',
      { database: 'default', table: 'tgt' },
    ],
    [
      'CREATE MATERIALIZED VIEW `a b`.`m.v` TO `c d`.`e.\\`f` (`k` UInt64) AS SELECT 1',
      { database: 'c d', table: 'e.`f' },
    ],
    [
      'CREATE MATERIALIZED VIEW default.mv (`k` UInt64) ENGINE = MergeTree ORDER BY k AS SELECT k FROM default.src',
      undefined,
    ],
  ])('%s', (query, target) => expect(statedTarget(query)).toEqual(target));
});
