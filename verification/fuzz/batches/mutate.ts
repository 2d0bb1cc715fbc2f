// Damages a piece of a log: fields that lie, bytes that flip, pieces that are missing, with and without a checksum that
// fits.
import type { Random } from '../random.js';
import { compress, zstdBomb } from './compress.js';
import {
  encodeBatch,
  encodeRecord,
  HEAD_BYTES,
  recordNumbers,
  unsignedVarint,
  varint,
  withCrc,
  type BatchFields,
  type RecordFields,
} from './encode.js';
import { encodePlan, type BatchPlan, type LogPlan } from './generate.js';

export interface Damaged {
  readonly data: Buffer;
  readonly isPackingDamaged: boolean;
  /** A few hundred bytes that unpack to very many: the oracle leaves it alone, the product must refuse it or stay within its memory. */
  readonly isBomb: boolean;
  /** The one batch that is damaged, by its index in the plan; undefined: any of them may be. */
  readonly target?: number;
}

const whole = { isPackingDamaged: false, isBomb: false } as const;

export function damagedLog(random: Random, plan: LogPlan): Damaged {
  const encode = (batches: readonly BatchPlan[]): Buffer[] => batches.map((batch) => encodePlan(batch, random));
  const at = random.int(plan.batches.length);
  const replaced = (batch: Buffer): Buffer =>
    Buffer.concat(encode(plan.batches).map((bytes, index) => (index === at ? batch : bytes)));
  const target = plan.batches[at]!;
  const shape = random.int(100);
  if (shape < 12) return { ...whole, data: Buffer.concat(encode(plan.batches)) };
  if (shape < 32) return { ...whole, target: at, data: replaced(encodePlan(lyingFields(random, target), random)) };
  if (shape < 52) return { ...whole, target: at, data: replaced(encodePlan(lyingRecord(random, target), random)) };
  if (shape < 60) return { ...whole, target: at, data: replaced(damagedBody(random, target)) };
  if (shape < 66) return { ...whole, target: at, data: replaced(flipped(random, encodePlan(target, random))) };
  if (shape < 74)
    return { ...whole, isPackingDamaged: true, target: at, data: replaced(damagedPacking(random, target)) };
  if (shape < 92) return { ...whole, data: damagedBytes(random, Buffer.concat(encode(plan.batches))) };
  if (shape < 99) return { ...whole, data: Buffer.concat(otherOrder(random, encode(plan.batches))) };
  return random.chance(0.02)
    ? { ...whole, isBomb: true, data: replaced(bomb(random, target)) }
    : { ...whole, data: replaced(damagedBody(random, target)) };
}

const lies32 = [-2147483648, -1, 0, 1, 2, 3, 7, 100, 65_536, 100_000_000, 2147483647];

/** The head says another thing than the records. */
function lyingFields(random: Random, { fields, records }: BatchPlan): BatchPlan {
  const near = (value: number): number =>
    (random.chance(0.5) ? value + random.pick([-2, -1, 1, 2]) : random.pick(lies32)) | 0;
  const lie = random.pick([
    'count',
    'lastDelta',
    'attributes',
    'magic',
    'base',
    'firstTimestamp',
    'maxTimestamp',
    'producerId',
    'count',
    'lastDelta',
    'attributes',
  ] as const);
  const changed: Partial<Record<keyof BatchFields, number | bigint>> = {
    count: near(fields.count),
    lastDelta: near(fields.lastDelta),
    attributes: fields.attributes ^ (1 << random.int(16)),
    magic: random.pick([0, 1, 3, -1, 127]),
    base: random.chance(0.5)
      ? fields.base + BigInt(random.pick([-3, -1, 1, 1000]))
      : random.pick([-1n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, -(2n ** 63n)]),
    firstTimestamp: random.bigint(64),
    maxTimestamp: random.bigint(64),
    producerId: random.bigint(64),
  };
  return { fields: { ...fields, [lie]: changed[lie] }, records };
}

/** One record's number is another one, or is written in another way. */
function lyingRecord(random: Random, { fields, records }: BatchPlan): BatchPlan {
  if (records.length === 0) return lyingFields(random, { fields, records });
  const at = random.int(records.length);
  const record = records[at]!;
  const changed = random.chance(0.4)
    ? otherDelta(random, record)
    : { ...record, lies: { [random.pick(recordNumbers)]: lyingVarint(random) } };
  return { fields, records: records.map((each, index) => (index === at ? changed : each)) };
}

function otherDelta(random: Random, record: RecordFields): RecordFields {
  return {
    ...record,
    delta: random.chance(0.6)
      ? record.delta + BigInt(random.pick([-3, -2, -1, 1, 2, 3]))
      : BigInt(random.pick([...lies32, -100_000, 150_000])),
  };
}

function lyingVarint(random: Random): Buffer {
  if (random.chance(0.4)) return varint(BigInt(random.pick([...lies32, -2, -5, 10, 63, 64, 127, 128])));
  if (random.chance(0.5)) return unsignedVarint(BigInt(random.int(20)), random.between(2, 12));
  return random.pick([
    Buffer.alloc(5, 0xff),
    Buffer.alloc(10, 0xff),
    Buffer.alloc(11, 0x80),
    Buffer.from([0xff, 0xff, 0xff, 0xff, 0x7f]),
    Buffer.from([0x80, 0x80, 0x80, 0x80, 0x10]),
    random.bytes(4),
  ]);
}

function damagedBody(random: Random, { fields, records }: BatchPlan): Buffer {
  const plain = damagedBytes(random, Buffer.concat(records.map(encodeRecord)));
  return encodeBatch(fields, compress(fields.attributes & 7, plain, random));
}

/** One to three bits, none of them in the length: the batch ends where it did, and its checksum does not fit. */
function flipped(random: Random, batch: Buffer): Buffer {
  const copy = Buffer.from(batch);
  for (let left = 1 + random.small(2); left > 0; left--) {
    const at = random.chance(0.5) ? random.between(12, HEAD_BYTES - 1) : random.between(12, batch.length - 1);
    copy[at] = copy[at]! ^ (1 << random.int(8));
  }
  return copy;
}

/** Compressed bytes are changed; without any codec this is a damaged body. */
function damagedPacking(random: Random, plan: BatchPlan): Buffer {
  const bytes = encodePlan(plan, random);
  return encodeBatch(plan.fields, damagedBytes(random, bytes.subarray(HEAD_BYTES)));
}

/** Somewhere, in any way, one to three times; the checksum stays what it was, or now and then is made to fit again. */
function damagedBytes(random: Random, bytes: Buffer): Buffer {
  let data = bytes;
  for (let left = 1 + random.small(2); left > 0; left--) data = damage(random, data);
  return data;
}

function damage(random: Random, data: Buffer): Buffer {
  const at = random.chance(0.4) ? random.int(Math.min(data.length, HEAD_BYTES) + 1) : random.int(data.length + 1);
  const splice = (from: number, to: number, middle: Buffer): Buffer =>
    Buffer.concat([data.subarray(0, from), middle, data.subarray(to)]);
  switch (random.int(7)) {
    case 0:
    case 1:
      return splice(at, at + 1, Buffer.from([(data[at] ?? 0) ^ (1 << random.int(8))]));
    case 2:
      return data.subarray(0, at);
    case 3:
      return splice(at, at + 1 + random.small(8), Buffer.alloc(0));
    case 4:
      return splice(at, at, random.bytes(1 + random.small(8)));
    case 5:
      return splice(at, at + 1, Buffer.from([random.pick([0, 1, 0x7f, 0x80, 0xff])]));
    default:
      return splice(at, at, data.subarray(at, at + random.small(40)));
  }
}

function otherOrder(random: Random, batches: readonly Buffer[]): Buffer[] {
  const at = random.int(batches.length);
  const [one, rest] = [batches[at]!, batches.filter((_, index) => index !== at)];
  switch (random.int(4)) {
    case 0:
      return [...batches, one];
    case 1:
      return [...rest, one];
    case 2:
      return [one, ...batches];
    default:
      // Only the last one is short, as brokers cut it.
      return [...batches.slice(0, -1), batches.at(-1)!.subarray(0, random.int(batches.at(-1)!.length))];
  }
}

/** Between 16 MB and 512 MB of spaces, from less than 20 KB. */
function bomb(random: Random, { fields, records }: BatchPlan): Buffer {
  const attributes = (fields.attributes & ~7) | 4;
  return withCrc(
    encodeBatch(
      { ...fields, attributes },
      zstdBomb(Buffer.concat(records.map(encodeRecord)), random.pick([128, 1024, 4096])),
    ),
  );
}
