import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { bytesOf, countOffsets, indexAfter, joinBatches, placeOf, splitBatch } from '../../src/model/batch.js';
import type { Batch } from '../../src/model/record.js';
import { chunk, record } from '../support/fakes.js';

vi.setConfig({ testTimeout: 60_000 });

/** A batch with holes anywhere, at its boundaries too. */
const batches: fc.Arbitrary<Batch> = fc
  .record({
    afterOffset: fc.integer({ min: -1, max: 50 }),
    size: fc.integer({ min: 1, max: 30 }),
    holes: fc.array(fc.integer({ min: 0, max: 80 })),
  })
  .map(({ afterOffset, size, holes }) => chunk(afterOffset, afterOffset + size, { holes }));

const offsets = (batch: Batch | undefined): number[] => (batch?.records ?? []).map(({ offset }) => offset);

describe('splitBatch', () => {
  test('D2: records out of order are refused: a search by halves would take good ones for settled', () => {
    const records = [5, 6, 1, 2, 7].map((offset) => record(offset));
    expect(() => splitBatch({ ...chunk(-1, 9), records }, 4)).toThrow(/order of their offsets, got 1 behind 6/);
  });

  test('a cut loses no offset and gives none to both sides', () => {
    fc.assert(
      fc.property(batches, fc.integer({ min: -3, max: 90 }), (batch, cut) => {
        const [head, tail] = splitBatch(batch, cut);
        expect(head?.afterOffset ?? tail?.afterOffset).toBe(batch.afterOffset);
        expect(tail?.lastOffset ?? head?.lastOffset).toBe(batch.lastOffset);
        if (head !== undefined && tail !== undefined) expect([head.lastOffset, tail.afterOffset]).toEqual([cut, cut]);
        for (const side of [head, tail])
          if (side !== undefined) expect(side.lastOffset).toBeGreaterThan(side.afterOffset);
      }),
    );
  });

  test('a cut keeps every record, on the side that covers its offset', () => {
    fc.assert(
      fc.property(batches, fc.integer({ min: -3, max: 90 }), (batch, cut) => {
        const [head, tail] = splitBatch(batch, cut);
        expect([...offsets(head), ...offsets(tail)]).toEqual(offsets(batch));
        expect(offsets(head).every((offset) => offset <= cut)).toBe(true);
        expect(offsets(tail).every((offset) => offset > cut)).toBe(true);
      }),
    );
  });

  test('the bytes of both sides add up, so that limits and back-pressure stay true', () => {
    fc.assert(
      fc.property(batches, fc.integer({ min: -3, max: 90 }), (batch, cut) => {
        for (const side of splitBatch(batch, cut))
          if (side !== undefined) expect(side.bytes).toBe(bytesOf(side.records));
      }),
    );
  });

  test('a cut in a hole gives the hole to both sides as they cover it', () => {
    const [head, tail] = splitBatch(chunk(9, 19, { holes: [12, 13, 14] }), 13);
    expect([head?.lastOffset, offsets(head)]).toEqual([13, [10, 11]]);
    expect([tail?.afterOffset, offsets(tail)]).toEqual([13, [15, 16, 17, 18, 19]]);
  });

  test('a side that covers no offset is none', () => {
    const batch = chunk(9, 19);
    expect(splitBatch(batch, 9)).toEqual([undefined, batch]);
    expect(splitBatch(batch, 19)).toEqual([batch, undefined]);
  });

  test('rows that a transform made of one record stay together', () => {
    const batch: Batch = { ...chunk(9, 12), records: [record(10), record(11), record(11), record(12)] };
    const [head, tail] = splitBatch(batch, 11);
    expect([offsets(head), offsets(tail)]).toEqual([[10, 11, 11], [12]]);
  });
});

describe('joinBatches', () => {
  test('joining what was cut gives the batch again, however it was cut', () => {
    fc.assert(
      fc.property(batches, fc.array(fc.integer({ min: 0, max: 80 }), { maxLength: 6 }), (batch, cuts) => {
        const parts: Batch[] = [];
        let rest: Batch | undefined = batch;
        for (const cut of [...cuts].sort((a, b) => a - b)) {
          const [head, tail]: [Batch | undefined, Batch | undefined] =
            rest === undefined ? [undefined, undefined] : splitBatch(rest, cut);
          if (head !== undefined) parts.push(head);
          rest = tail;
        }
        if (rest !== undefined) parts.push(rest);
        expect(joinBatches(parts)).toMatchObject({
          afterOffset: batch.afterOffset,
          lastOffset: batch.lastOffset,
          records: batch.records,
          bytes: batch.bytes,
        });
      }),
    );
  });

  test('batches with a gap between them are refused, not joined over it', () => {
    expect(() => joinBatches([chunk(9, 12), chunk(14, 19)])).toThrow('ends at 12 before one that begins after 14');
  });

  test('batches that overlap are refused, not doubled', () => {
    expect(() => joinBatches([chunk(9, 12), chunk(11, 19)])).toThrow(RangeError);
  });

  test('no batch at all is refused', () => {
    expect(() => joinBatches([])).toThrow('at least one batch, got none');
  });
});

describe('sizes and places', () => {
  test('a record counts for the bytes of its key and its value; a tombstone for its key', () => {
    expect(bytesOf([{ ...record(1, 'four'), key: Buffer.from('key') }])).toBe(7);
    expect(bytesOf([{ ...record(1), value: null, key: Buffer.from('key') }])).toBe(3);
  });

  test('indexAfter finds the first record beyond an offset', () => {
    fc.assert(
      fc.property(batches, fc.integer({ min: -3, max: 90 }), ({ records }, offset) => {
        const linear = [...records].findIndex((each) => each.offset > offset);
        expect(indexAfter(records, offset)).toBe(linear === -1 ? records.length : linear);
      }),
    );
  });
});

test('several records that a transform made of one count as one offset', () => {
  expect(countOffsets([4, 4, 4, 7, 9, 9].map((offset) => record(offset)))).toBe(3);
  expect(countOffsets([0, 1].map((offset) => record(offset)))).toBe(2);
  expect(countOffsets([1, 1].map((offset) => record(offset)))).toBe(1);
  expect(countOffsets([])).toBe(0);
});

test('an error names the first and the last offset of its batch, holes included', () => {
  const { topic, partition } = chunk(4, 9).assignment;
  expect(placeOf(chunk(4, 9, { holes: [5, 9] }))).toEqual({ topic, partition, first: 5, last: 9 });
});
