/**
 * `npm run bench:decode`: what it takes to find the records in Kafka's record batches, 244-byte events, for each codec. `--against
 * DIRECTORY`: another checkout's decoder, in the same process by turns (but for zstd). The last line of the output is one JSON object.
 */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { compress as zstdCompress } from '@bokuweb/zstd-wasm';
import { compressFrameSync } from 'lz4-napi';
import { compressSync as snappyCompressSync } from 'snappy';
import { decompress } from '../src/kafka/fetch/codecs.js';
import { LogReader } from '../src/kafka/fetch/records.js';
import { encodeBatch } from '../test/kafka/bytes.js';

const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, against: { type: 'string' }, json: { type: 'boolean' } },
});
/** 67 events of 244 bytes are a producer's batch of 16 KiB. */
const BATCH_RECORDS = 67;
const BATCHES = 1500;
/** One fetch of a partition, about 4 MiB. */
const FETCH_BATCHES = 250;
const LIMIT_BYTES = 4 * 1024 * 1024;

type Reader = Pick<LogReader, 'isOver' | 'next'>;
type ReaderClass = new (slice: { data: Buffer; fromOffset: number; aborted: readonly never[] }) => Reader;

const codecs: readonly (readonly [name: string, codec: number, compress: (data: Buffer) => Buffer])[] = [
  ['none', 0, (data) => data],
  ['gzip', 1, (data) => gzipSync(data)],
  ['snappy', 2, (data) => snappyCompressSync(data)],
  ['lz4', 3, (data) => compressFrameSync(data)],
  ['zstd', 4, (data) => Buffer.from(zstdCompress(data))],
];

function event(id: number): Buffer {
  const text = JSON.stringify({
    id,
    user: `user-${(id * 7919) % 100_000}`,
    amount: (id * 31) % 9973,
    currency: 'EUR',
    at: '2026-11-30T12:00:00.000Z',
    note: '',
  });
  return Buffer.from(
    text.replace(
      '"note":""',
      `"note":"${'lorem ipsum dolor sit amet, consetetur sadipscing elitr '.repeat(5).slice(0, 244 - text.length)}"`,
    ),
  );
}

function fetches(codec: number, compress: (data: Buffer) => Buffer): Buffer[] {
  const all: Buffer[] = [];
  for (let first = 0; first < BATCHES; first += FETCH_BATCHES) {
    const batches = Array.from({ length: FETCH_BATCHES }, (_, i) => {
      const base = (first + i) * BATCH_RECORDS;
      const records = Array.from({ length: BATCH_RECORDS }, (_each, delta) => ({ delta, value: event(base + delta) }));
      return encodeBatch({ base, records, ...(codec === 0 ? {} : { codec, compress }) });
    });
    all.push(Buffer.concat(batches));
  }
  return all;
}

async function cpuSecondsPerMillion(reader: ReaderClass, data: readonly Buffer[]): Promise<number> {
  const before = process.cpuUsage();
  let records = 0;
  for (const [i, slice] of data.entries()) {
    const log = new reader({ data: slice, fromOffset: i * FETCH_BATCHES * BATCH_RECORDS, aborted: [] });
    while (!log.isOver) records += (await log.next(LIMIT_BYTES)).records.length;
  }
  const { user, system } = process.cpuUsage(before);
  if (records !== BATCHES * BATCH_RECORDS)
    throw new Error(`${records} records were read of ${BATCHES * BATCH_RECORDS}`);
  return (user + system) / records;
}

const contenders: (readonly [string, ReaderClass])[] = [['here', LogReader]];
if (options.against !== undefined) {
  const other = (await import(pathToFileURL(resolve(options.against, 'src/kafka/fetch/records.ts')).href)) as {
    LogReader: ReaderClass;
  };
  contenders.push(['there', other.LogReader]);
}
// The first use makes zstd ready, for both ways; made ready once more, by another decoder, it would forget what it is at.
await decompress(4, Buffer.from('28b52ffd20084100000000000000000000', 'hex'), 8);
const results: Record<string, Record<string, number>> = {};
for (const [name, codec, compress] of codecs) {
  const data = fetches(codec, compress);
  const samples = new Map<string, number[]>(contenders.map(([who]) => [who, []]));
  for (let round = 0; round <= Number(options.rounds); round++) {
    for (const [who, reader] of name === 'zstd' ? contenders.slice(0, 1) : contenders) {
      const seconds = await cpuSecondsPerMillion(reader, data);
      if (round > 0) samples.get(who)!.push(seconds); // the first is for the compiler
    }
  }
  results[name] = Object.fromEntries(
    [...samples]
      .filter(([, list]) => list.length > 0)
      .map(([who, list]) => [who, [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]!]),
  );
  if (options.json !== true)
    console.log(
      `${name}: ${Object.entries(results[name])
        .map(([who, seconds]) => `${who} ${seconds.toFixed(3)}`)
        .join(', ')} CPU seconds per million records`,
    );
}
console.log(
  JSON.stringify({
    eventBytes: event(1).length,
    batchRecords: BATCH_RECORDS,
    medianOf: Number(options.rounds),
    cpuSecondsPerMillionRecords: results,
  }),
);
