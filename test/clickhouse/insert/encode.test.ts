import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RowBody } from '../../../src/clickhouse/insert/body.js';
import { noProvenance, type Provenance, RowEncoder } from '../../../src/clickhouse/insert/encode.js';
import { writeInteger } from '../../../src/clickhouse/insert/json-text.js';
import type { KafkaRecord } from '../../../src/model/record.js';
import { record, TIMESTAMP_MS } from '../fixtures.js';

const everything: Provenance = {
  topic: true,
  partition: true,
  offset: true,
  timestamp: 'time',
  key: 'null',
  headers: 'object',
  headerNull: 'empty',
};

function encoded(columns: Provenance, records: readonly KafkaRecord[], topic = 'orders', partition = 3): string {
  return allOf(new RowEncoder(columns, topic, partition), records).toString('utf8');
}

/** Row by row into no more room than its bound: one that is too low throws. */
function allOf(encoder: RowEncoder, records: readonly KafkaRecord[]): Buffer {
  const rows = encoder.rows(records);
  const written: Buffer[] = [];
  while (!rows.isOver) {
    const target = Buffer.alloc(rows.nextBound, '#');
    written.push(target.subarray(0, rows.fill(target)));
  }
  return Buffer.concat(written);
}

function rows(columns: Provenance, records: readonly KafkaRecord[]): unknown[] {
  return encoded(columns, records)
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as unknown);
}

describe('values', () => {
  it('go through byte for byte when the table has no provenance columns', () => {
    const values = ['{"a":1}', ' { "b" : "\\u00e9}" }\r\n', '{}'];
    expect(
      encoded(
        noProvenance,
        values.map((value, index) => record(index, value)),
      ),
    ).toBe(values.map((value) => `${value}\n`).join(''));
  });

  it('keep bytes that are no UTF-8', () => {
    const value = Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]);
    const encoder = new RowEncoder({ ...noProvenance, offset: true }, 'orders', 0);
    expect(allOf(encoder, [record(7, value)]).toString('latin1')).toBe('{"a":"\u00ff\u00fe","_offset":7}\n');
  });
});

describe('provenance', () => {
  it('stands behind the value’s own fields', () => {
    const [row] = rows(everything, [
      record(42, { id: 1, text: '}' }, { key: 'k', headers: [['h', Buffer.from('v')]] }),
    ]);
    expect(row).toEqual({
      id: 1,
      text: '}',
      _topic: 'orders',
      _partition: 3,
      _offset: 42,
      _timestamp: new Date(TIMESTAMP_MS).toISOString(),
      _key: 'k',
      _headers: { h: 'v' },
    });
  });

  it.each(['{}', '{ }', ' {\n\t} \n'])('of an empty object %j needs no comma', (value) => {
    expect(Object.keys(JSON.parse(encoded(everything, [record(1, value)])) as object)).toHaveLength(6);
    for (const columns of [
      { offset: true },
      { topic: true },
      { timestamp: 'milliseconds' },
      { key: 'empty' },
      { headers: 'object' },
    ] as const) {
      expect(
        Object.keys(JSON.parse(encoded({ ...noProvenance, ...columns }, [record(1, value)])) as object),
      ).toHaveLength(1);
    }
  });

  it('goes before the last brace, also when whitespace follows it', () => {
    expect(encoded({ ...noProvenance, offset: true }, [record(5, '{"a":{}} \r\n')])).toBe('{"a":{},"_offset":5}\n');
  });

  it.each([
    ['milliseconds', TIMESTAMP_MS, TIMESTAMP_MS],
    ['time', TIMESTAMP_MS, '2025-11-22T08:30:00.123Z'],
    ['time', -1, '1970-01-01T00:00:00.000Z'],
    ['time', 1_000_000_000_009, '2001-09-09T01:46:40.009Z'],
    ['milliseconds', -1, -1],
  ] as const)('a timestamp as %s of %i', (timestamp, timestampMs, expected) => {
    expect(rows({ ...noProvenance, timestamp }, [record(1, {}, { timestampMs })])).toEqual([{ _timestamp: expected }]);
  });

  it('a missing key is null or empty, as the column can hold it', () => {
    expect(rows({ ...noProvenance, key: 'null' }, [record(1, {}), record(2, {}, { key: '' })])).toEqual([
      { _key: null },
      { _key: '' },
    ]);
    expect(rows({ ...noProvenance, key: 'empty' }, [record(1, {})])).toEqual([{ _key: '' }]);
  });

  it('headers of a name that stands twice are all there', () => {
    const headers = [
      ['h', Buffer.from('1')],
      ['h', Buffer.from('2')],
      ['none', null],
    ] as const;
    const one = [record(1, {}, { headers })];
    expect(encoded({ ...noProvenance, headers: 'object' }, one)).toBe('{"_headers":{"h":"1","h":"2","none":""}}\n');
    expect(encoded({ ...noProvenance, headers: 'object', headerNull: 'null' }, one)).toBe(
      '{"_headers":{"h":"1","h":"2","none":null}}\n',
    );
    expect(encoded({ ...noProvenance, headers: 'pairs' }, one)).toBe(
      '{"_headers":[["h","1"],["h","2"],["none",""]]}\n',
    );
    expect(rows({ ...noProvenance, headers: 'text', headerNull: 'null' }, one)).toEqual([
      { _headers: '{"h":"1","h":"2","none":null}' },
    ]);
  });
});

const anyBytes = fc.uint8Array({ maxLength: 200, size: 'max' }).map((bytes) => Buffer.from(bytes));
/** Every code unit but lone surrogates, which UTF-8 cannot hold. */
const anyText = fc.string({ unit: 'binary', maxLength: 8 });
const anyRecord = fc.record({
  offset: fc.maxSafeNat(),
  timestampMs: fc.integer({ min: -1, max: 4_102_444_800_000 }),
  key: fc.option(
    anyText.map((text) => Buffer.from(text)),
    { nil: null },
  ),
  value: fc
    .dictionary(
      anyText.filter((name) => !name.startsWith('_')),
      fc.jsonValue({ stringUnit: 'binary' }),
      { noNullPrototype: true },
    )
    .chain((value) => fc.nat(2).map((indent) => Buffer.from(JSON.stringify(value, null, indent)))),
  headers: fc.array(
    fc.tuple(
      anyText,
      fc.option(
        anyText.map((text) => Buffer.from(text)),
        { nil: null },
      ),
    ),
    { maxLength: 3 },
  ),
});
const anyColumns: fc.Arbitrary<Provenance> = fc.record({
  topic: fc.boolean(),
  partition: fc.boolean(),
  offset: fc.boolean(),
  timestamp: fc.constantFrom('time' as const, 'milliseconds' as const, undefined),
  key: fc.constantFrom('null' as const, 'empty' as const, undefined),
  headers: fc.constantFrom('object' as const, 'text' as const, 'pairs' as const, undefined),
  headerNull: fc.constantFrom('null' as const, 'empty' as const),
});

function expectation(
  columns: Provenance,
  topic: string,
  partition: number,
  { offset, timestampMs, key, value, headers }: KafkaRecord,
): unknown {
  const text = (bytes: Buffer | null, whenNull: 'null' | 'empty') =>
    bytes?.toString() ?? (whenNull === 'null' ? null : '');
  const pairs = headers.map(([name, bytes]) => [name, text(bytes, columns.headerNull)] as const);
  const object = Object.fromEntries(pairs);
  return {
    ...(JSON.parse(String(value)) as object),
    ...(columns.topic ? { _topic: topic } : {}),
    ...(columns.partition ? { _partition: partition } : {}),
    ...(columns.offset ? { _offset: offset } : {}),
    ...(columns.timestamp === 'time' ? { _timestamp: new Date(Math.max(0, timestampMs)).toISOString() } : {}),
    ...(columns.timestamp === 'milliseconds' ? { _timestamp: timestampMs } : {}),
    ...(columns.key === undefined ? {} : { _key: text(key, columns.key) }),
    ...(columns.headers === undefined ? {} : { _headers: columns.headers === 'pairs' ? pairs : object }),
  };
}

it('any record reads back as its value and its provenance, within the bound', () => {
  fc.assert(
    fc.property(
      anyColumns,
      anyText,
      fc.nat(2 ** 31 - 1),
      fc.array(anyRecord, { maxLength: 4 }),
      fc.nat(1000),
      (columns, topic, partition, records, pieceBytes) => {
        const encoder = new RowEncoder(columns, topic, partition);
        for (const one of records) {
          const written = allOf(encoder, [one]);
          expect(written.at(-1)).toBe(10);
          const row = JSON.parse(written.toString('utf8')) as Record<string, unknown>;
          if (columns.headers === 'text') row['_headers'] = JSON.parse(row['_headers'] as string);
          expect(row).toEqual(expectation(columns, topic, partition, one));
        }
        const single = Buffer.concat(records.map((one) => allOf(encoder, [one])));
        expect(allOf(encoder, records).equals(single)).toBe(true);
        // In pieces of any size the body is the same, and a row is never cut.
        const body = new RowBody(encoder.rows(records), [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)]);
        const pieces: Buffer[] = [];
        while (!body.isOver) pieces.push(Buffer.from(body.next()));
        expect(Buffer.concat(pieces).equals(single)).toBe(true);
        for (const piece of pieces) expect(piece.at(-1)).toBe(10);
      },
    ),
    { numRuns: 200 },
  );
});

it('a key of any bytes stays within the bound and keeps what is no control character', () => {
  fc.assert(
    fc.property(anyBytes, (key) => {
      const one = [record(1, {}, { key, headers: [['h', key]] })];
      const encoder = new RowEncoder({ ...everything, headers: 'text' }, 'orders', 0);
      const text = allOf(encoder, one).toString('latin1');
      expect((JSON.parse(text) as { _key: string })._key).toBe(key.toString('latin1'));
    }),
  );
});

it('the bound holds where every byte has to be escaped', () => {
  const key = Buffer.alloc(300, 1);
  for (const columns of [{ key: 'empty' }, { headers: 'object' }, { headers: 'text' }, { headers: 'pairs' }] as const) {
    expect(() =>
      rows({ ...noProvenance, ...columns }, [record(1, {}, { key, headers: [[key.toString(), key]] })]),
    ).not.toThrow();
  }
});

it('every retry of a batch has the same bytes: the token stands for them', () => {
  const records = [record(1, { a: 1 }, { key: 'k' }), record(2, {}, { headers: [['h', null]] })];
  expect(encoded(everything, records)).toBe(encoded(everything, records));
});

it('integers come out as toString has them', () => {
  const target = Buffer.alloc(20);
  const check = (value: number): void => {
    expect(target.toString('latin1', 0, writeInteger(target, 0, value))).toBe(String(value));
  };
  [
    0,
    9,
    10,
    99,
    999_999_999,
    1_000_000_000,
    1_000_000_001,
    4_294_967_296,
    10 ** 15,
    Number.MAX_SAFE_INTEGER,
    -1,
  ].forEach(check);
  fc.assert(fc.property(fc.maxSafeInteger(), check));
});
