// Kafka's record batches (magic 2), written field by field from
// https://kafka.apache.org/documentation/#recordbatch so that every field can be made to lie.

export interface RecordFields {
  /** Difference to the batch's first offset. */
  readonly delta: bigint;
  readonly timestampDelta: bigint;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly (readonly [Buffer | null, Buffer | null])[];
  readonly attributes?: number;
  /** Written in place of what is true. */
  readonly lies?: Partial<Record<RecordNumber, Buffer>>;
}

/** Numbers of a record that can be written otherwise, as varints. */
export const recordNumbers = [
  'length',
  'timestamp',
  'delta',
  'keyLength',
  'valueLength',
  'headerCount',
  'headerKeyLength',
  'headerValueLength',
] as const;
export type RecordNumber = (typeof recordNumbers)[number];

export interface BatchFields {
  readonly base: bigint;
  readonly leaderEpoch: number;
  readonly magic: number;
  readonly attributes: number;
  readonly lastDelta: number;
  readonly firstTimestamp: bigint;
  readonly maxTimestamp: bigint;
  readonly producerId: bigint;
  readonly producerEpoch: number;
  readonly baseSequence: number;
  readonly count: number;
}

export const attributeBits = { appendTime: 0x08, transactional: 0x10, control: 0x20, deleteHorizon: 0x40 } as const;
export const HEAD_BYTES = 61;
/** Where the bytes begin that the checksum covers. */
const CRC_FROM = 21;
const LENGTH_END = 12;

/** `body`: the records, compressed already. */
export function encodeBatch(fields: BatchFields, body: Buffer): Buffer {
  const data = Buffer.alloc(HEAD_BYTES + body.length);
  data.writeBigInt64BE(BigInt.asIntN(64, fields.base), 0);
  data.writeInt32BE(data.length - LENGTH_END, 8);
  data.writeInt32BE(fields.leaderEpoch, 12);
  data.writeInt8(fields.magic, 16);
  data.writeInt16BE((fields.attributes << 16) >> 16, CRC_FROM);
  data.writeInt32BE(fields.lastDelta, 23);
  data.writeBigInt64BE(BigInt.asIntN(64, fields.firstTimestamp), 27);
  data.writeBigInt64BE(BigInt.asIntN(64, fields.maxTimestamp), 35);
  data.writeBigInt64BE(BigInt.asIntN(64, fields.producerId), 43);
  data.writeInt16BE(fields.producerEpoch, 51);
  data.writeInt32BE(fields.baseSequence, 53);
  data.writeInt32BE(fields.count, 57);
  body.copy(data, HEAD_BYTES);
  return withCrc(data);
}

/** Gives the batch the checksum of what it holds. Changes it in place. */
export function withCrc(batch: Buffer): Buffer {
  if (batch.length >= CRC_FROM) batch.writeUInt32BE(crc32c(batch.subarray(CRC_FROM)), 17);
  return batch;
}

export function encodeRecord({
  delta,
  timestampDelta,
  key,
  value,
  headers,
  attributes = 0,
  lies = {},
}: RecordFields): Buffer {
  const text = (bytes: Buffer | null, lie: Buffer | undefined): Buffer[] => [
    lie ?? varint(BigInt(bytes === null ? -1 : bytes.length)),
    bytes ?? Buffer.alloc(0),
  ];
  const inner = Buffer.concat([
    Buffer.from([attributes]),
    lies.timestamp ?? varint(timestampDelta),
    lies.delta ?? varint(delta),
    ...text(key, lies.keyLength),
    ...text(value, lies.valueLength),
    lies.headerCount ?? varint(BigInt(headers.length)),
    ...headers.flatMap(([name, content]) => [
      ...text(name, lies.headerKeyLength),
      ...text(content, lies.headerValueLength),
    ]),
  ]);
  return Buffer.concat([lies.length ?? varint(BigInt(inner.length)), inner]);
}

/** Zigzag, of up to 64 bits. */
export function varint(value: bigint): Buffer {
  return unsignedVarint(BigInt.asUintN(64, (value << 1n) ^ (value >> 63n)));
}

/** With at least `leastBytes` bytes: those beyond what is needed are empty. */
export function unsignedVarint(value: bigint, leastBytes = 1): Buffer {
  const out: number[] = [];
  for (let left = value; left > 0n || out.length < leastBytes; left >>= 7n) out.push(Number(left & 0x7fn) | 0x80);
  out[out.length - 1] = (out.at(-1) as number) & 0x7f;
  return Buffer.from(out);
}

const table = Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value >>> 0;
});

/** Castagnoli's polynomial, byte by byte (RFC 3720, appendix B.4). */
export function crc32c(data: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of data) value = (table[(value ^ byte) & 0xff] as number) ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
