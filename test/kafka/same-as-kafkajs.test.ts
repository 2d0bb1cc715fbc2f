import { createRequire } from 'node:module';
import { gzipSync } from 'node:zlib';
import { compress as zstdCompress } from '@bokuweb/zstd-wasm';
import fc from 'fast-check';
import { compressFrameSync } from 'lz4-napi';
import { compressSync as snappyCompressSync } from 'snappy';
import { beforeAll, expect, test } from 'vitest';
import { decompress, registerCodecs } from '../../src/kafka/fetch/codecs.js';
import { LogReader } from '../../src/kafka/fetch/records.js';
import { encodeBatch, type PlainBatch, type PlainRecord } from './bytes.js';

// Where kafkajs's own decoder is right, ours must be it: what it loses (the order and the double names of headers, batches
// that compaction has emptied, interleaved aborted transactions) has tests of its own, in records, aborted and the broker's.

interface TheirRecord {
  readonly offset: string;
  readonly timestamp: string;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
  readonly isControlRecord: boolean;
}

const from = createRequire(import.meta.url);
const Decoder = from('kafkajs/src/protocol/decoder.js') as new (data: Buffer) => object;
const decodeMessages = from('kafkajs/src/protocol/requests/fetch/v4/decodeMessages.js') as (
  decoder: object,
) => Promise<readonly TheirRecord[]>;

const codecs: Readonly<Record<number, (data: Buffer) => Buffer>> = {
  1: (data) => gzipSync(data),
  2: (data) => snappyCompressSync(data),
  3: (data) => compressFrameSync(data),
  4: (data) => Buffer.from(zstdCompress(data)),
};

const bytes = (maxLength: number) => fc.option(fc.uint8Array({ maxLength }).map((data) => Buffer.from(data)));
const record = fc.record({
  gap: fc.integer({ min: 1, max: 5 }),
  key: bytes(40),
  value: bytes(400),
  timestampDelta: fc.integer({ min: -5000, max: 2 ** 40 }),
  headers: fc.uniqueArray(
    fc.tuple(
      fc.stringMatching(/^[a-z]{1,8}$/),
      fc.uint8Array({ maxLength: 20 }).map((data) => Buffer.from(data)),
    ),
    { maxLength: 3, selector: ([name]) => name },
  ),
});
const batch = fc.record({
  records: fc.array(record, { minLength: 1, maxLength: 12 }),
  codec: fc.integer({ min: 0, max: 4 }),
  behind: fc.nat({ max: 4 }),
  kind: fc.constantFrom('plain', 'plain', 'appendTime', 'transaction' as const),
});

/** The log as compaction and transactions leave it: offsets with holes, the ends of batches empty, markers between. */
function logOf(shape: readonly (typeof batch extends fc.Arbitrary<infer T> ? T : never)[]): Buffer {
  let base = 0;
  const batches: Buffer[] = [];
  const append = (more: PlainBatch, covered: number): void => {
    batches.push(encodeBatch(more));
    base += covered;
  };
  for (const { records, codec, behind, kind } of shape) {
    let delta = -1;
    const plain = records.map(({ gap, ...fields }): PlainRecord => ({ ...fields, delta: (delta += gap) }));
    const isTransactional = kind === 'transaction';
    append(
      {
        base,
        records: plain,
        lastDelta: delta + behind,
        codec,
        ...(codec === 0 ? {} : { compress: codecs[codec]! }),
        ...(kind === 'appendTime' ? { appendTimeMs: 1_800_000_000_000n } : {}),
        ...(isTransactional ? { transactional: true, producerId: 7n } : {}),
      },
      delta + behind + 1,
    );
    if (isTransactional) append({ base, records: [], control: 'commit', producerId: 7n }, 1);
  }
  return Buffer.concat(batches);
}

beforeAll(async () => {
  registerCodecs();
  // The first use makes zstd ready for both ways; made ready twice it would forget what it is at.
  await decompress(4, Buffer.from('28b52ffd20084100000000000000000000', 'hex'), 8);
});

test("random batches of every codec, with holes and transactions, are to ours what they are to kafkajs's decoder", async () => {
  const property = fc.asyncProperty(
    fc.array(batch, { minLength: 1, maxLength: 5 }),
    fc.nat({ max: 60 }),
    async (shape, fromOffset) => {
      const data = logOf(shape);
      const length = Buffer.alloc(4);
      length.writeInt32BE(data.length);
      const theirs = (await decodeMessages(new Decoder(Buffer.concat([length, data])))).filter(
        ({ offset, isControlRecord }) => !isControlRecord && Number(offset) >= fromOffset,
      );
      const reader = new LogReader({ data, fromOffset, aborted: [] });
      const ours = [];
      while (!reader.isOver) ours.push(...(await reader.next(1024)).records);
      const plain = ours.map(({ offset, timestampMs, key, value, headers }) => ({
        offset: String(offset),
        timestamp: String(timestampMs),
        key,
        value,
        headers: Object.fromEntries(headers),
      }));
      expect(plain).toEqual(
        theirs.map(({ offset, timestamp, key, value, headers }) => ({
          offset,
          timestamp,
          key,
          value,
          headers: { ...headers },
        })),
      );
    },
  );
  await fc.assert(property, { numRuns: 300 });
}, 60_000);
