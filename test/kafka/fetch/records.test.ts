import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LogReader, type DecodedRange } from '../../../src/kafka/fetch/records.js';
import { encodeBatch, type PlainBatch } from '../bytes.js';

const KIB = 1024;

async function readAll(batches: readonly Buffer[], fromOffset = 0, limitBytes = 1024 * KIB): Promise<DecodedRange[]> {
  const reader = new LogReader({ data: Buffer.concat(batches), fromOffset, aborted: [] });
  const ranges: DecodedRange[] = [];
  while (!reader.isOver) ranges.push(await reader.next(limitBytes));
  return ranges;
}

const offsetsOf = (ranges: readonly DecodedRange[]) =>
  ranges.flatMap(({ records }) => records.map(({ offset }) => offset));
const plain = (base: number, count: number, more: Partial<PlainBatch> = {}): Buffer =>
  encodeBatch({
    base,
    records: Array.from({ length: count }, (_, delta) => ({ delta, value: Buffer.from(`v${base + delta}`) })),
    ...more,
  });

describe('record batches', () => {
  test('no field of a record is lost or changed', async () => {
    const record = fc.record({
      key: fc.option(fc.uint8Array({ maxLength: 300 }).map((data) => Buffer.from(data))),
      value: fc.option(fc.uint8Array({ maxLength: 300 }).map((data) => Buffer.from(data))),
      timestampDelta: fc.integer({ min: -(2 ** 45), max: 2 ** 45 }),
      headers: fc.array(
        fc.tuple(
          fc.string({ maxLength: 20 }),
          fc.option(fc.uint8Array({ maxLength: 20 }).map((data) => Buffer.from(data))),
        ),
        { maxLength: 4 },
      ),
    });
    const property = fc.asyncProperty(
      fc.nat({ max: 2 ** 40 }),
      fc.array(record, { minLength: 1, maxLength: 20 }),
      fc.boolean(),
      async (base, fields, zipped) => {
        const records = fields.map((each, i) => ({ ...each, delta: i * 3 }));
        const [range] = await readAll(
          [encodeBatch({ base, records, ...(zipped ? { codec: 1, compress: gzipSync } : {}) })],
          base,
        );
        expect([...range!.records]).toEqual(
          records.map(({ key, value, headers, delta, timestampDelta }) => ({
            offset: base + delta,
            timestampMs: 1_790_000_000_000 + timestampDelta,
            key,
            value,
            headers,
          })),
        );
        expect(range?.bytes).toBe(
          records.reduce((sum, { key, value }) => sum + (key?.length ?? 0) + (value?.length ?? 0), 0),
        );
      },
    );
    await fc.assert(property, { numRuns: 200 });
  });

  test('headers keep their order, and a name may stand twice', async () => {
    const headers = [
      ['b', Buffer.from('1')],
      ['10', Buffer.from('2')],
      ['a', null],
      ['b', Buffer.from('3')],
    ] as const;
    const [range] = await readAll([encodeBatch({ base: 0, records: [{ delta: 0, headers }] })]);
    expect(range?.records.at(0)?.headers).toEqual(headers);
  });

  test('records before the wanted offset are not delivered again', async () => {
    const ranges = await readAll([plain(0, 10), plain(10, 10)], 7);
    expect(offsetsOf(ranges)).toEqual(Array.from({ length: 13 }, (_, i) => i + 7));
  });

  test('offsets that compaction has emptied are covered, also when a whole batch or the tail of one is gone', async () => {
    const emptied = encodeBatch({ base: 20, records: [], lastDelta: 9 });
    const tail = encodeBatch({ base: 30, records: [{ delta: 0 }], lastDelta: 9 });
    expect((await readAll([plain(0, 10), emptied])).at(-1)?.lastOffset).toBe(29);
    expect((await readAll([plain(0, 10), tail])).at(-1)?.lastOffset).toBe(39);
    expect(await readAll([emptied], 20)).toMatchObject([{ records: { length: 0 }, lastOffset: 29 }]);
  });

  test('the marker of a transaction is no record, but its offset is covered', async () => {
    const ranges = await readAll([
      plain(0, 2, { transactional: true, producerId: 7n }),
      encodeBatch({ base: 2, records: [], control: 'commit', producerId: 7n }),
    ]);
    expect(offsetsOf(ranges)).toEqual([0, 1]);
    expect(ranges.at(-1)?.lastOffset).toBe(2);
  });

  test('a batch that the broker cut short is left for the next fetch', async () => {
    const second = plain(10, 10);
    for (const length of [1, 12, 60, 61, second.length - 1]) {
      const ranges = await readAll([plain(0, 10), second.subarray(0, length)]);
      expect(ranges.at(-1)?.lastOffset).toBe(9);
    }
  });

  test('a large fetch comes in pieces that follow one another, so that it need not be in memory at once', async () => {
    const batches = Array.from({ length: 50 }, (_, i) =>
      encodeBatch({ base: i, records: [{ delta: 0, value: Buffer.alloc(200 * KIB) }], codec: 1, compress: gzipSync }),
    );
    const ranges = await readAll(batches, 0, 1000 * KIB);
    expect(ranges.length).toBeGreaterThan(1);
    expect(offsetsOf(ranges)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(ranges.reduce((sum, { takenBytes }) => sum + takenBytes, 0)).toBe(Buffer.concat(batches).length);
  });

  test('records do not hold on to what the same answer brought of other partitions', async () => {
    const answer = Buffer.concat([plain(0, 1), Buffer.alloc(1024 * KIB)]);
    const [range] = await readAll([answer.subarray(0, plain(0, 1).length)]);
    expect(range?.records.at(0)?.value?.buffer.byteLength).toBeLessThan(KIB);
  });

  test("the broker's time stands where the topic says so", async () => {
    const [range] = await readAll([plain(0, 2, { appendTimeMs: 1_800_000_000_000n })]);
    expect(range?.records.map(({ timestampMs }) => timestampMs)).toEqual([1_800_000_000_000, 1_800_000_000_000]);
  });

  test('an offset that a number cannot hold is refused, not rounded', async () => {
    const beyond = encodeBatch({ base: 2n ** 53n, records: [{ delta: 0 }] });
    expect(new LogReader({ data: beyond, fromOffset: 0, aborted: [] }).damage).toMatchObject({
      code: 'KCR_OFFSET_RANGE',
      bounds: undefined,
      why: expect.stringMatching(/9007199254740992 is larger/) as string,
    });
    const across = encodeBatch({ base: 2n ** 53n - 2n, records: [{ delta: 0 }, { delta: 2 }] });
    expect(new LogReader({ data: across, fromOffset: 0, aborted: [] }).damage).toMatchObject({
      code: 'KCR_OFFSET_RANGE',
    });
    const last = encodeBatch({ base: 2n ** 53n - 2n, records: [{ delta: 1 }] });
    expect(offsetsOf(await readAll([last]))).toEqual([Number.MAX_SAFE_INTEGER]);
  });
});
