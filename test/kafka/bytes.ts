// Record batches as a broker would send them, made byte by byte: the tests' own encoder, written from the protocol.

export interface PlainRecord {
  /** Difference to the batch's first offset. */
  readonly delta: number;
  readonly key?: Buffer | null;
  readonly value?: Buffer | null;
  readonly headers?: readonly (readonly [string, Buffer | null])[];
  readonly timestampDelta?: number;
}

export interface PlainBatch {
  readonly base: number | bigint;
  readonly records: readonly PlainRecord[];
  /** By default that of the last record. */
  readonly lastDelta?: number;
  readonly producerId?: bigint;
  readonly transactional?: boolean;
  readonly control?: 'commit' | 'abort';
  readonly codec?: number;
  readonly compress?: (data: Buffer) => Buffer;
  readonly firstTimestampMs?: bigint;
  readonly appendTimeMs?: bigint;
  /** What the head says, where that is not so. */
  readonly count?: number;
  readonly attributes?: number;
  /** The records as bytes, instead of `records`. */
  readonly body?: Buffer;
}

export function encodeBatch(batch: PlainBatch): Buffer {
  const records =
    batch.control === undefined
      ? batch.records
      : [{ delta: 0, key: controlKey(batch.control), value: Buffer.alloc(6) }];
  const plain = batch.body ?? Buffer.concat(records.map(encodeRecord));
  const body = batch.compress?.(plain) ?? plain;
  const head = Buffer.alloc(61);
  const attributes =
    (batch.codec ?? 0) |
    (batch.appendTimeMs === undefined ? 0 : 0x08) |
    (batch.transactional === true || batch.control !== undefined ? 0x10 : 0) |
    (batch.control === undefined ? 0 : 0x20);
  head.writeBigInt64BE(BigInt(batch.base), 0);
  head.writeInt32BE(49 + body.length, 8);
  head.writeInt8(2, 16);
  head.writeInt16BE(batch.attributes ?? attributes, 21);
  head.writeInt32BE(batch.lastDelta ?? records.at(-1)?.delta ?? 0, 23);
  head.writeBigInt64BE(batch.firstTimestampMs ?? 1_790_000_000_000n, 27);
  head.writeBigInt64BE(batch.appendTimeMs ?? batch.firstTimestampMs ?? 1_790_000_000_000n, 35);
  head.writeBigInt64BE(batch.producerId ?? -1n, 43);
  head.writeInt32BE(batch.count ?? records.length, 57);
  return withCrc(Buffer.concat([head, body]));
}

/** The batch with the checksum that its bytes have. */
export function withCrc(batch: Buffer): Buffer {
  batch.writeUInt32BE(crc32cOf(batch.subarray(21)), 17);
  return batch;
}

const crcOfByte = Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** A byte at a time: slow and plainly right. */
export function crc32cOf(data: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crc >>> 8) ^ (crcOfByte[(crc ^ byte) & 0xff] as number);
  return (crc ^ 0xffffffff) >>> 0;
}

function controlKey(kind: 'commit' | 'abort'): Buffer {
  return Buffer.from([0, 0, 0, kind === 'abort' ? 0 : 1]);
}

export function encodeRecord({
  delta,
  key = null,
  value = null,
  headers = [],
  timestampDelta = 0,
}: PlainRecord): Buffer {
  const body = Buffer.concat([
    Buffer.from([0]),
    varint(timestampDelta),
    varint(delta),
    bytes(key),
    bytes(value),
    varint(headers.length),
    ...headers.map(([name, header]) => Buffer.concat([bytes(Buffer.from(name)), bytes(header)])),
  ]);
  return Buffer.concat([varint(body.length), body]);
}

function bytes(data: Buffer | null): Buffer {
  return data === null ? varint(-1) : Buffer.concat([varint(data.length), data]);
}

/** Zigzag, by big integers: slow and plainly right. */
export function varint(value: number): Buffer {
  let left = value >= 0 ? BigInt(value) * 2n : BigInt(-value) * 2n - 1n;
  const out: number[] = [];
  for (; left >= 128n; left /= 128n) out.push(Number(left % 128n) | 0x80);
  out.push(Number(left));
  return Buffer.from(out);
}
