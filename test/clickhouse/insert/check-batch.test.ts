import { describe, expect, it } from 'vitest';
import type { BlockLimits } from '../../../src/clickhouse/insert/block-limits.js';
import { checkRecords, reservedBy } from '../../../src/clickhouse/insert/check-batch.js';
import { noProvenance, type Provenance } from '../../../src/clickhouse/insert/encode.js';
import { provenanceOf } from '../../../src/clickhouse/schema/provenance-columns.js';
import { provenanceNames, reservedNames } from '../../../src/kernel/index.js';
import type { KafkaRecord } from '../../../src/model/record.js';
import { batchOf, record } from '../fixtures.js';

const columns: Provenance = { ...noProvenance, topic: true, partition: true, offset: true };
const sent = { budgetMs: 600_000, settings: 'pinned' };
const check = (records: readonly KafkaRecord[], provenance = columns, limits?: BlockLimits) =>
  checkRecords(
    batchOf(records, { topic: 'orders', partition: 3 }),
    { database: 'default', table: 't', provenance },
    sent,
    limits,
  );
const tombstone = (offset: number): KafkaRecord => ({ ...record(offset, '{}'), value: null });

describe('a batch is sent only when each of its records is one row', () => {
  it('passes when they are', () => expect(() => check([record(7, { n: 1 }), record(9, ' {} ')])).not.toThrow());

  it.each([
    [
      'an open bracket',
      record(9, '{"a":[}'),
      'the value has "}" where a JSON value is expected, at byte 6 (topic orders, partition 3, offset 9, table default.t)',
    ],
    [
      'no value',
      tombstone(9),
      'the value is a tombstone: the message has no value (topic orders, partition 3, offset 9, table default.t)',
    ],
    ['nothing', record(9, ''), 'the value is empty (topic orders, partition 3, offset 9, table default.t)'],
    [
      'a field that is ours',
      record(9, { n: 1, _offset: 5 }),
      'the value has a field "_offset" of its own, at byte 7, which the table\'s provenance column of that name takes (topic orders, partition 3, offset 9, table default.t)',
    ],
  ])('names the record with %s', (_, bad, message) => {
    expect(() => check([record(7, { n: 1 }), bad, record(11, '{"a":[}')])).toThrow(
      expect.objectContaining({ code: 'KCR_POISON', detail: message }),
    );
  });

  it('of a record that a transform made two rows of the second is looked at, too', () => {
    expect(() => check([record(7, { n: 1 }), record(7, { _topic: 'x' })])).toThrow(
      expect.objectContaining({ code: 'KCR_POISON', fields: expect.objectContaining({ offset: 7 }) as object }),
    );
  });
});

describe('I8: a batch of more rows than one insert may have', () => {
  const rows = (offset: number, count: number) => Array.from({ length: count }, () => record(offset, '{}'));
  const limits: BlockLimits = { rows: 4, bytes: 100 };

  it('passes as long as it is one block', () =>
    expect(() => check([...rows(1, 2), ...rows(2, 2)], columns, limits)).not.toThrow());

  it('is told with where to cut it', () => {
    const told = {
      code: 'KCR_CONFIG',
      fields: expect.objectContaining({
        first: 1,
        last: 4,
        table: 'default.t',
        oversized: { cuts: [2, 3], mayLandForMs: undefined },
      }) as object,
    };
    expect(() => check([...rows(1, 2), ...rows(2, 2), ...rows(3, 3), ...rows(4, 3)], columns, limits)).toThrow(
      expect.objectContaining(told),
    );
  });

  it('of one record names the record', () => {
    const told =
      'the 5 rows of one record, of 10 bytes, are more than one insert may have: at most 4 rows and 100 bytes, which is half a block of ClickHouse (topic orders, partition 3, offset 9, table default.t)';
    expect(() => check([...rows(7, 1), ...rows(9, 5)], columns, limits)).toThrow(
      expect.objectContaining({ code: 'KCR_POISON', detail: told }),
    );
    expect(() => check([record(7, { text: 'x'.repeat(100) })], columns, limits)).toThrow(
      expect.objectContaining({ code: 'KCR_POISON' }),
    );
  });
});

describe('the names that a value may not have', () => {
  it('are those of the columns that are spliced', () => {
    expect(reservedBy(noProvenance)).toBe(0);
    expect(reservedBy(columns)).toBe(reservedNames(['_topic', '_partition', '_offset']));
    expect(reservedBy({ ...columns, timestamp: 'time', key: 'null', headers: 'text' })).toBe(
      reservedNames(provenanceNames),
    );
  });

  it.each([
    ['UInt64', '', true],
    ['UInt64', 'DEFAULT', true],
    ['UInt64', 'MATERIALIZED', false],
    ['UInt64', 'ALIAS', false],
    ['String', '', false],
  ])('a column _offset %s %s: %s', (type, defaultKind, isReserved) => {
    const { provenance } = provenanceOf([
      { name: '_offset', type, defaultKind, defaultExpression: '', inPartitionKey: false },
    ]);
    expect(reservedBy(provenance) !== 0).toBe(isReserved);
    const told = () => check([record(1, { _offset: 5 })], provenance);
    if (isReserved) expect(told).toThrow(expect.objectContaining({ code: 'KCR_POISON' }));
    else expect(told).not.toThrow();
  });
});
