import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bytesOf, countOffsets, indexAfter, joinBatches, splitBatch } from '../../src/model/batch.js';
import { PackedRecords, PartBuilder, cursorOver } from '../../src/model/packed-records.js';
import type { Batch, KafkaRecord, RecordHeaders, Records } from '../../src/model/record.js';
import { chunk } from '../support/fakes.js';

const bytes = fc.option(fc.uint8Array({ maxLength: 12 }).map((data) => Buffer.from(data)));
const field = fc.record({
  step: fc.integer({ min: 1, max: 4 }),
  timestampMs: fc.nat({ max: 2 ** 45 }),
  key: bytes,
  value: bytes,
  headers: fc.integer({ min: 0, max: 2 }),
});
/** Records in parts of one or two buffers each, offsets with holes. */
const parts = fc.array(fc.tuple(fc.array(field, { maxLength: 6 }), fc.array(field, { maxLength: 6 })), {
  maxLength: 4,
});

const headersOf = (count: number): RecordHeaders =>
  Array.from({ length: count }, (_, i) => [`h${i}`, Buffer.from([i])] as const);

interface Field {
  readonly step: number;
  readonly timestampMs: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: number;
}

/** The same records twice: packed, and each by itself. */
function both(layout: readonly (readonly (readonly Field[])[])[]): { packed: PackedRecords; plain: KafkaRecord[] } {
  const plain: KafkaRecord[] = [];
  let offset = 9;
  const packed = layout.map((buffers) => {
    // A header's count stands behind the value here: what is read there is the reader's own affair.
    const builder = new PartBuilder(buffers.flat().length, (data, at) => headersOf(data[at]!));
    for (const fields of buffers) {
      const data = Buffer.concat(
        fields.flatMap(({ key, value, headers }) => [
          key ?? Buffer.alloc(0),
          value ?? Buffer.alloc(0),
          Buffer.from([headers]),
        ]),
      );
      builder.open(data);
      let at = 0;
      for (const { step, timestampMs, key, value, headers } of fields) {
        offset += step;
        const valueStart = at + (key?.length ?? 0);
        builder.add(offset, timestampMs, at, key?.length ?? -1, valueStart, value?.length ?? -1);
        at = valueStart + (value?.length ?? 0) + 1;
        plain.push({ offset, timestampMs, key, value, headers: headersOf(headers) });
      }
    }
    return builder.build();
  });
  return { packed: PackedRecords.of(packed), plain };
}

function walked(records: Records): KafkaRecord[] {
  const found: KafkaRecord[] = [];
  for (const cursor = cursorOver(records); cursor.next();) {
    const { offset, timestampMs, data, valueStart, valueLength } = cursor;
    found.push({
      offset,
      timestampMs,
      key: cursor.key(),
      value: valueLength < 0 ? null : Buffer.from(data.subarray(valueStart, valueStart + valueLength)),
      headers: cursor.headers(),
    });
  }
  return found;
}

describe('packed records', () => {
  test('are the records they were made of, however they are looked at', () => {
    const property = fc.property(parts, (layout) => {
      const { packed, plain } = both(layout);
      expect(packed.length).toBe(plain.length);
      expect([...packed]).toEqual(plain);
      expect(walked(packed)).toEqual(plain);
      expect(walked(plain)).toEqual(plain);
      expect(packed.map(({ offset }, i) => [offset, i])).toEqual(plain.map(({ offset }, i) => [offset, i]));
      plain.forEach((record, i) => {
        expect(packed.at(i)).toEqual(record);
        expect(packed.at(i - plain.length)).toEqual(record);
        expect(packed.offsetAt(i)).toBe(record.offset);
        expect(packed.find(({ offset }) => offset === record.offset)).toEqual(record);
      });
      for (const beyond of [plain.length, -plain.length - 1, NaN]) expect(packed.at(beyond)).toBeUndefined();
      expect(bytesOf(packed)).toBe(bytesOf(plain));
      expect(countOffsets(packed)).toBe(plain.length);
    });
    fc.assert(property, { numRuns: 300 });
  });

  test('a slice has the same records as that of an array, from either end, also a slice of a slice', () => {
    const index = fc.option(fc.integer({ min: -30, max: 30 }), { nil: undefined });
    const property = fc.property(
      parts,
      fc.array(fc.tuple(index, index), { maxLength: 3 }),
      fc.integer({ min: 0, max: 60 }),
      (layout, cuts, offset) => {
        let { packed, plain } = both(layout);
        for (const [start, end] of cuts) [packed, plain] = [packed.slice(start, end), plain.slice(start, end)];
        expect([...packed]).toEqual(plain);
        expect(walked(packed)).toEqual(plain);
        expect(packed.filter((_, i) => i % 2 === 0)).toEqual(plain.filter((_, i) => i % 2 === 0));
        expect(indexAfter(packed, offset)).toBe(indexAfter(plain, offset));
      },
    );
    fc.assert(property, { numRuns: 500 });
  });

  test('a batch that is cut and joined again has every record once, in order, beside arrays too', () => {
    const property = fc.property(parts, fc.integer({ min: 0, max: 300 }), fc.boolean(), (layout, cut, isMixed) => {
      const { packed, plain } = both(layout);
      const whole: Batch = { ...chunk(8, 300), records: packed, bytes: bytesOf(packed) };
      const [head, tail] = splitBatch(whole, cut);
      expect([...(head?.records ?? [])]).toEqual(plain.filter(({ offset }) => offset <= cut));
      const sides = [head, tail].filter((side) => side !== undefined);
      const joined = joinBatches(
        isMixed ? sides.map((side, i) => (i === 0 ? { ...side, records: [...side.records] } : side)) : sides,
      );
      expect([...joined.records]).toEqual(plain);
      expect(joined.bytes).toBe(bytesOf(plain));
      expect(joined.records instanceof PackedRecords).toBe(!isMixed);
    });
    fc.assert(property, { numRuns: 300 });
  });

  test('a walk that has come to its end stays there', () => {
    const cursor = cursorOver(both([[[{ step: 1, timestampMs: 1, key: null, value: null, headers: 0 }], []]]).packed);
    expect([cursor.next(), cursor.next(), cursor.next()]).toEqual([true, false, false]);
  });
});
