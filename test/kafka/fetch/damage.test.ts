// Record batches that lie, and batches that were damaged: never a wrong record, never a loop, never an exception.
import { gzipSync } from 'node:zlib';
import { compress as zstdCompress } from '@bokuweb/zstd-wasm';
import { compressFrameSync } from 'lz4-napi';
import { compressSync as snappyCompressSync } from 'snappy';
import { beforeAll, describe, expect, test } from 'vitest';
import type { AbortedTransaction } from '../../../src/kafka/fetch/aborted.js';
import { decompress } from '../../../src/kafka/fetch/codecs.js';
import type { Damage } from '../../../src/kafka/fetch/damage.js';
import { LogReader, type LogSlice } from '../../../src/kafka/fetch/records.js';
import { encodeBatch, encodeRecord, varint, withCrc, type PlainBatch, type PlainRecord } from '../bytes.js';

// The first use makes zstd ready for both ways; made ready twice it would forget what it is at.
beforeAll(async () => void (await decompress(4, Buffer.from('28b52ffd20084100000000000000000000', 'hex'), 8)));

interface Read {
  readonly offsets: readonly number[];
  readonly values: readonly (string | undefined)[];
  readonly lastOffset: number;
  readonly damage: Damage | undefined;
}

async function readAll(batches: Buffer | readonly Buffer[], more: Partial<LogSlice> = {}): Promise<Read> {
  const data = Buffer.isBuffer(batches) ? batches : Buffer.concat(batches);
  const reader = new LogReader({ data, fromOffset: 0, aborted: [], ...more });
  const offsets: number[] = [];
  const values: (string | undefined)[] = [];
  let lastOffset = (more.fromOffset ?? 0) - 1;
  for (let rounds = 0; !reader.isOver; rounds++) {
    expect(rounds).toBeLessThan(1000);
    const range = await reader.next(1024 * 1024);
    for (const { offset, value, headers } of range.records) {
      offsets.push(offset);
      values.push(value?.toString());
      expect(headers.length).toBeLessThan(10);
    }
    lastOffset = range.lastOffset;
  }
  return { offsets, values, lastOffset, damage: reader.damage };
}

const plain = (base: number, count = 3, more: Partial<PlainBatch> = {}): Buffer =>
  encodeBatch({
    base,
    records: Array.from({ length: count }, (_, delta) => ({ delta, value: Buffer.from(`v${base + delta}`) })),
    ...more,
  });
const withDeltas = (base: number, deltas: readonly number[]): Buffer =>
  encodeBatch({
    base,
    records: deltas.map((delta) => ({ delta, value: Buffer.from('{}') })),
    lastDelta: deltas.length - 1,
  });
const withBody = (body: Buffer, count: number, more: Partial<PlainBatch> = {}): Buffer =>
  encodeBatch({ base: 3, records: [], body, count, lastDelta: count - 1, ...more });
const record = (fields: Partial<PlainRecord> = {}): Buffer =>
  encodeRecord({ delta: 0, value: Buffer.from('v'), ...fields });
/** A record whose fields are given as bytes, with the length that they have. */
const rawRecord = (...fields: readonly Buffer[]): Buffer => {
  const body = Buffer.concat([Buffer.from([0]), varint(0), varint(0), ...fields]);
  return Buffer.concat([varint(body.length), body]);
};

/** Good batches round a bad one: what lies before is read, nothing of it or behind it is. */
async function expectDamage(bad: Buffer, why: RegExp): Promise<Damage> {
  const { offsets, lastOffset, damage } = await readAll([plain(0), bad, plain(100)]);
  expect(offsets).toEqual([0, 1, 2]);
  expect(lastOffset).toBe(2);
  expect(damage?.why).toMatch(why);
  return damage!;
}

describe('D1, D2: offsets that are not those of the batch', () => {
  test.each([
    ['D1: that go down far below it', [0, 1, -100_000]],
    ['D1: all of which lie behind what was asked for', [-150_000, -149_999, -149_998]],
    ['D2: twice the same', [0, 0]],
    ['D2: before the batch', [-2, -1]],
    ['D2: beyond the batch', [0, 2_147_483_647]],
    ['D2: out of order', [0, 2, 1]],
  ])('%s are refused, and give no row', async (_, deltas) => {
    const damage = await expectDamage(withDeltas(3, deltas), /offset delta/);
    expect(damage).toMatchObject({
      code: 'KCR_CORRUPT_BATCH',
      baseOffset: 3,
      bounds: { first: 3, last: 2 + deltas.length, records: deltas.length },
    });
  });

  test('D2: a batch that reaches back into the one before it, and one far behind the end of the log, are refused', async () => {
    expect((await readAll([plain(0, 5), plain(3)])).damage?.why).toMatch(/begins before offset 5/);
    expect((await readAll([plain(0, 5), plain(2 ** 40)], { highWatermark: 100 })).damage?.why).toMatch(
      /ends at offset 1099511627778, and the log at 100/,
    );
    expect((await readAll([plain(-5)])).damage?.why).toMatch(/negative/);
    // What came while the broker answered is no damage.
    expect((await readAll([plain(98, 5)], { highWatermark: 100 })).damage).toBeUndefined();
  });

  test('D2: holes that compaction has left are no damage', async () => {
    const { offsets, damage } = await readAll([
      encodeBatch({ base: 0, records: [{ delta: 2 }, { delta: 7 }], lastDelta: 9 }),
      plain(20),
    ]);
    expect(offsets).toEqual([2, 7, 20, 21, 22]);
    expect(damage).toBeUndefined();
  });
});

describe('D3: a bit that was flipped', () => {
  test('D3: in a value is refused, not ingested, and the batch is told with its offsets', async () => {
    const bad = plain(3);
    bad[bad.length - 3]! ^= 1;
    const damage = await expectDamage(bad, /CRC-32C/);
    expect(damage.bounds).toEqual({ first: 3, last: 5, records: 3 });
  });

  test('D3: in a compressed batch is refused before it is unpacked', async () => {
    const bad = plain(3, 3, { codec: 1, compress: gzipSync });
    bad[70]! ^= 1;
    await expectDamage(bad, /CRC-32C/);
  });

  test('D3: in what says where the batch ends is not believed: skipping it could skip good records', async () => {
    const bad = plain(3);
    bad[25]! ^= 16; // the last offset delta: 4098
    expect((await expectDamage(bad, /CRC-32C/)).bounds).toBeUndefined();
    // Compacted: the count says nothing, but the batch behind begins where this one ends.
    const compacted = encodeBatch({ base: 3, records: [{ delta: 0, value: Buffer.from('v') }], lastDelta: 4 });
    compacted[compacted.length - 2]! ^= 1;
    expect((await readAll([plain(0), compacted, plain(8)])).damage?.bounds).toEqual({ first: 3, last: 7, records: 1 });
    expect((await readAll([plain(0), compacted, plain(9)])).damage?.bounds).toBeUndefined();
    expect((await readAll([plain(0), compacted])).damage?.bounds).toBeUndefined();
  });

  test('D3: in the length, the magic or the base offset, which no checksum covers, is refused or leads to a batch cut short', async () => {
    for (const at of [8, 9, 10, 11, 16]) {
      for (let bit = 0; bit < 8; bit++) {
        const bad = plain(3);
        bad[at]! ^= 1 << bit;
        const { offsets } = await readAll([plain(0), bad, plain(6)], { highWatermark: 9 });
        expect(offsets).toEqual([0, 1, 2]);
      }
    }
    for (let bit = 8; bit < 64; bit++) {
      const bad = plain(3);
      bad[7 - Math.floor(bit / 8)]! ^= 1 << (bit % 8);
      const { offsets, damage } = await readAll([plain(0), bad, plain(6)], { highWatermark: 9 });
      // A jump of less than what may come while a broker answers shows with the batch behind.
      if (bit >= 20) expect(offsets).toEqual([0, 1, 2]);
      expect(damage).toBeDefined();
    }
  });
});

describe('D4: counts and lengths that lie', () => {
  const longTime = Buffer.concat([
    varint(17),
    Buffer.from([0]),
    Buffer.alloc(11, 0x80),
    Buffer.from([0]),
    varint(0),
    varint(-1),
    varint(-1),
    varint(0),
  ]);
  const headers = (count: number) => rawRecord(varint(-1), varint(-1), varint(count));

  test.each([
    [
      'a header count far beyond the record, in the last record',
      withBody(headers(1_000_000_000), 1),
      /1000000000 headers/,
    ],
    ['a negative header count', withBody(headers(-1), 1), /-1 headers/],
    [
      'a header without a name',
      withBody(rawRecord(varint(-1), varint(-1), varint(1), varint(-1), varint(-1)), 1),
      /without a name/,
    ],
    [
      'a header value of -2 bytes',
      withBody(rawRecord(varint(-1), varint(-1), varint(1), varint(0), varint(-2)), 1),
      /-2 bytes/,
    ],
    [
      'a key that reaches beyond its record',
      withBody(rawRecord(varint(500), varint(-1), varint(0)), 1),
      /do not end|headers/,
    ],
    [
      'a value that reaches beyond its record',
      withBody(rawRecord(varint(-1), varint(3), varint(0)), 1),
      /do not end|headers/,
    ],
    ['a key of -2 bytes', withBody(rawRecord(varint(-2), varint(-1), varint(0)), 1), /do not end/],
    ['a value of -2 bytes', withBody(rawRecord(varint(-1), varint(-2), varint(0)), 1), /do not end/],
    [
      'a record whose fields end before it does',
      withBody(Buffer.concat([varint(8), record().subarray(1), record({ delta: 1 })]), 2),
      /do not end/,
    ],
    [
      'a length in more than 32 bits',
      withBody(rawRecord(Buffer.from([0x80, 0x80, 0x80, 0x80, 0x80, 0]), varint(-1), varint(0)), 1),
      /32 bits/,
    ],
    ['a time in more than 64 bits', withBody(longTime, 1), /64 bits/],
    [
      'a million records, in a few bytes',
      plain(3, 1, { count: 1_000_000, lastDelta: 999_999 }),
      /1000000 records, which is more than its/,
    ],
    [
      'a record that is longer than its batch',
      withBody(Buffer.concat([varint(500), record().subarray(1)]), 1),
      /says it has 500 bytes/,
    ],
    ['a record of a negative length', withBody(Buffer.concat([varint(-9), record().subarray(1)]), 1), /-9 bytes/],
    [
      'a number that does not end',
      withBody(Buffer.concat([record().subarray(0, 2), Buffer.alloc(20, 0xff)]), 1),
      /bits|bytes/,
    ],
    ['fewer records than it says', withBody(record(), 2, { lastDelta: 1 }), /more than its|bytes/],
    [
      'more records than it says',
      withBody(Buffer.concat([record(), record({ delta: 1 })]), 1, { lastDelta: 1 }),
      /bytes are left/,
    ],
    ['bytes behind its last record', withBody(Buffer.concat([record(), Buffer.alloc(5)]), 1), /5 bytes are left/],
    ['more records than offsets', plain(3, 3, { lastDelta: 1 }), /3 records in a range of 2/],
    ['a negative count', plain(3, 3, { count: -1 }), /-1 records/],
    [
      'more records than bytes',
      plain(3, 1, { count: 2_000_000_000, lastDelta: 2_147_483_646 }),
      /2000000000 records|unpacks to more/,
    ],
    ['no records, in bytes', plain(3, 3, { count: 0 }), /no records/],
    ['a last offset before its first', plain(3, 3, { lastDelta: -1 }), /delta is -1/],
    ['codec 5, which is none', plain(3, 3, { codec: 5 }), /codec 5/],
    ['a magic that is none', Buffer.from(plain(3)).fill(7, 16, 17), /magic is 7/],
    [
      'a length of less than a head',
      (() => {
        const bad = plain(3);
        bad.writeInt32BE(20, 8);
        return bad;
      })(),
      /20 bytes/,
    ],
    ['a control batch without a key', withBody(record(), 1, { attributes: 0x30 }), /key/],
    [
      'a control batch with a header count that lies',
      withBody(headers(1_000_000_000), 1, { attributes: 0x30 }),
      /headers/,
    ],
    [
      'a control batch with a key of two bytes',
      withBody(record({ key: Buffer.from([0, 0]) }), 1, { attributes: 0x30 }),
      /key/,
    ],
    [
      'a control batch of two records',
      withBody(Buffer.concat([record({ key: Buffer.alloc(4) }), record({ key: Buffer.alloc(4), delta: 1 })]), 2, {
        attributes: 0x30,
      }),
      /control batch of 2/,
    ],
    ['a control batch that is compressed', plain(3, 1, { attributes: 0x31 }), /compressed/],
  ])('D4: %s is refused, and nothing loops', async (_, bad, why) => {
    await expectDamage(bad, why);
  });

  test('D4: what could be read by another version or setting has no bounds, so that no policy skips it', async () => {
    expect((await expectDamage(plain(3, 3, { codec: 5 }), /codec/)).bounds).toBeUndefined();
  });

  test('the records of a transaction that was aborted are looked at as well', async () => {
    const aborted: readonly AbortedTransaction[] = [{ producerId: 7n, firstOffset: 3 }];
    const bad = plain(3, 3, { transactional: true, producerId: 7n });
    expect((await readAll([plain(0), bad, plain(6)], { aborted })).offsets).toEqual([0, 1, 2, 6, 7, 8]);
    bad[bad.length - 3]! ^= 1;
    expect((await readAll([plain(0), bad, plain(6)], { aborted })).damage?.why).toMatch(/CRC/);
  });

  test('what needs no reading before the damage is covered all the same', async () => {
    const bad = plain(4);
    bad[bad.length - 3]! ^= 1;
    const marker = encodeBatch({ base: 3, records: [], control: 'commit', producerId: 7n });
    expect(await readAll([plain(0), marker, bad])).toMatchObject({ offsets: [0, 1, 2], lastOffset: 3 });
    expect(await readAll([marker, bad], { fromOffset: 3 })).toMatchObject({ offsets: [], lastOffset: 3 });
  });
});

describe('D5: what a batch unpacks to', () => {
  const MIB = 1024 * 1024;
  const zeros = (bytes: number): Buffer => encodeRecord({ delta: 0, value: Buffer.alloc(bytes) });
  const codecs: Readonly<Record<number, (data: Buffer) => Buffer>> = {
    1: (data) => gzipSync(data),
    2: (data) => snappyCompressSync(data),
    3: (data) => compressFrameSync(data),
    4: (data) => Buffer.from(zstdCompress(data)),
  };

  test.each([1, 2, 3, 4])('D5: more than the limit is refused, with what to raise (codec %d)', async (codec) => {
    const bomb = encodeBatch({
      base: 3,
      records: [],
      body: zeros(40 * MIB),
      count: 1,
      lastDelta: 0,
      codec,
      compress: codecs[codec]!,
    });
    const { damage, offsets } = await readAll([plain(0), bomb], { maxBatchBytes: 39 * MIB });
    expect(offsets).toEqual([0, 1, 2]);
    expect(damage).toMatchObject({
      code: 'KCR_CORRUPT_BATCH',
      bounds: { first: 3, last: 3, records: 1 },
      why: expect.stringMatching(/unpacks to more than/) as string,
      hint: expect.stringMatching(/budgetBytes/) as string,
    });
    expect((await readAll([plain(0), bomb], { maxBatchBytes: 41 * MIB })).offsets).toEqual([0, 1, 2, 3]);
  });

  test('D5: a frame that says too little of itself, or too much, is held to the limit too', async () => {
    // gzip in two members: only the second one's size stands at the end.
    const body = zeros(20 * MIB);
    const members = Buffer.concat([
      gzipSync(body.subarray(0, body.length - 10)),
      gzipSync(body.subarray(body.length - 10)),
    ]);
    const split = encodeBatch({
      base: 3,
      records: [],
      body,
      count: 1,
      lastDelta: 0,
      codec: 1,
      compress: () => members,
    });
    expect((await readAll([plain(0), split], { maxBatchBytes: 10 * MIB })).damage?.why).toMatch(/unpacks to more/);
    expect((await readAll([plain(0), split, plain(4)], { maxBatchBytes: 30 * MIB })).offsets).toEqual([
      0, 1, 2, 3, 4, 5, 6,
    ]);
    const lying = gzipSync(zeros(100));
    lying.writeUInt32LE(200 * MIB, lying.length - 4);
    await expectDamage(
      encodeBatch({ base: 3, records: [{ delta: 0 }], codec: 1, compress: () => lying }),
      /incorrect|length/,
    );
    const huge = Buffer.concat([varint(0).subarray(1), Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0])]);
    await expectDamage(encodeBatch({ base: 3, records: [{ delta: 0 }], codec: 2, compress: () => huge }), /snappy/);
  });

  test('D5: a large batch comes alone, and says so before it is unpacked', async () => {
    const big = encodeBatch({
      base: 3,
      records: [],
      body: zeros(9 * MIB),
      count: 1,
      lastDelta: 0,
      codec: 1,
      compress: gzipSync,
    });
    const reader = new LogReader({ data: Buffer.concat([plain(0), big, plain(4)]), fromOffset: 0, aborted: [] });
    const lasts: (number | undefined)[] = [];
    const ends: number[] = [];
    while (!reader.isOver) {
      lasts.push(reader.nextLarge?.lastOffset);
      ends.push((await reader.next(1e9)).lastOffset);
    }
    expect(lasts).toEqual([undefined, 3, undefined]);
    expect(ends).toEqual([2, 3, 6]);
  });

  test('D5: records so small that their columns are larger than they are count with their columns', async () => {
    const many = Array.from({ length: 60_000 }, (_, delta) => ({ delta }));
    const bad = encodeBatch({ base: 0, records: many, codec: 1, compress: gzipSync });
    expect((await readAll(bad, { maxBatchBytes: 1_500_000 })).damage?.why).toMatch(/unpacks to more/);
  });
});

describe('a batch of each codec, changed anywhere', () => {
  const codecs: readonly (readonly [string, number, (data: Buffer) => Buffer])[] = [
    ['none', 0, (data) => data],
    ['gzip', 1, (data) => gzipSync(data)],
    ['snappy', 2, (data) => snappyCompressSync(data)],
    ['lz4', 3, (data) => compressFrameSync(data)],
    ['zstd', 4, (data) => Buffer.from(zstdCompress(data))],
  ];
  const records = Array.from({ length: 8 }, (_, delta) => ({
    delta,
    key: Buffer.from(`k${delta}`),
    value: Buffer.from(`{"id":${delta},"text":"aaaaaaaaaaaaaaaaaaaaaaaa"}`),
    headers: [['h', Buffer.from('x')] as const],
  }));
  const isWhole = (read: Read) => read.offsets.every((offset, i) => offset === 3 + i) && read.offsets.length === 8;

  test.each(codecs)(
    '%s: no wrong record, no loop and no exception where the checksum is what it was',
    async (_, codec, compress) => {
      const good = encodeBatch({ base: 3, records, codec, ...(codec === 0 ? {} : { compress }) });
      expect(isWhole(await readAll(good))).toBe(true);
      for (let at = 17; at < good.length; at++) {
        for (const flip of [0x01, 0x80, 0xff]) {
          const bad = Buffer.from(good);
          bad[at]! ^= flip;
          const read = await readAll(bad);
          expect(read.offsets).toEqual([]);
          expect(read.damage).toBeDefined();
        }
      }
      for (let length = 0; length < good.length; length++)
        expect((await readAll(good.subarray(0, length))).offsets).toEqual([]);
    },
  );

  test.each(codecs)(
    '%s: no offset outside of the batch, no loop and no exception where the checksum was made to fit',
    async (_, codec, compress) => {
      const good = encodeBatch({ base: 3, records, codec, ...(codec === 0 ? {} : { compress }) });
      expect(isWhole(await readAll(good))).toBe(true);
      const check = async (bad: Buffer) => {
        const { offsets, damage } = await readAll(withCrc(bad), { maxBatchBytes: 10_000_000 });
        const last = 3 + bad.readInt32BE(23);
        expect(
          offsets.every((offset, i) => offset >= 3 && offset <= last && (i === 0 || offset > offsets[i - 1]!)),
        ).toBe(true);
        expect(damage === undefined || offsets.length === 0).toBe(true);
      };
      for (let at = 21; at < good.length; at++) {
        for (const flip of [0x01, 0x02, 0x80, 0xff]) {
          const bad = Buffer.from(good);
          bad[at]! ^= flip;
          await check(bad);
        }
      }
      for (let cut = 1; cut < good.length - 61; cut++) {
        const shorter = Buffer.from(good.subarray(0, good.length - cut));
        shorter.writeInt32BE(shorter.length - 12, 8);
        await check(shorter);
        const longer = Buffer.concat([good, Buffer.alloc(cut, cut)]);
        longer.writeInt32BE(longer.length - 12, 8);
        await check(longer);
      }
    },
  );
});
