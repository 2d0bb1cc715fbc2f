/**
 * The head of one record batch (magic 2), and which of its claims hold before a record is looked at. Pure.
 * https://kafka.apache.org/documentation/#recordbatch Imports: nothing.
 */
import { crc32c } from './crc32c.js';
import { BadBatch } from './damage.js';

export interface BatchHead {
  readonly baseOffset: number;
  readonly lastOffset: number;
  readonly codec: number;
  readonly control: boolean;
  readonly transactional: boolean;
  readonly producerId: bigint;
  /** For log-append time the one time of all records, else undefined. */
  readonly appendTimeMs: number | undefined;
  readonly firstTimestampMs: number;
  readonly count: number;
  /** What the head says of everything from its attributes on. */
  readonly crc: number;
  /** What the checksum is over. */
  readonly covered: Buffer;
  /** The records, as they are compressed. */
  readonly body: Buffer;
}

/** From the batch's beginning to its first record. */
export const HEAD_BYTES = 61;
/** From the batch's beginning to what its length counts. */
export const LENGTH_END = 12;
const MAGIC_AT = 16;
const CRC_AT = 17;
/** The checksum covers everything from here on: not the base offset, the length, the leader's epoch and the magic. */
const ATTRIBUTES_AT = 21;
/** The codecs that Kafka has: none, gzip, snappy, lz4, zstd. */
const LAST_CODEC = 4;
const TWO_32 = 2 ** 32;
/** The high watermark is read a moment before the log: what came in between may be in the answer. */
const WATERMARK_SLACK = 1_000_000;

/** Where the batch that begins at `at` ends, as it says. Needs `HEAD_BYTES`. @throws BadBatch when it cannot be one. */
export function endOfBatch(data: Buffer, at: number): number {
  const magic = data.readInt8(at + MAGIC_AT);
  if (magic === 0 || magic === 1) {
    throw new BadBatch(`it is in message format v${magic}`, {
      code: 'KCR_KAFKA',
      hint: 'formats v0 and v1 are older than Kafka 0.11: write the topic again, or begin behind those records',
    });
  }
  if (magic !== 2) throw new BadBatch(`its magic is ${magic}, which no version of Kafka writes`);
  const length = data.readInt32BE(at + LENGTH_END - 4);
  if (length < HEAD_BYTES - LENGTH_END)
    throw new BadBatch(`it says it has ${length} bytes, which is less than its own head`);
  return at + LENGTH_END + length;
}

export function baseOffsetAt(data: Buffer, at: number): number {
  return readInt64(data, at);
}

/** `end`: from `endOfBatch`. Checks nothing but that offsets are exact. */
export function readHead(data: Buffer, at: number, end: number): BatchHead {
  const attributes = data.readInt16BE(at + ATTRIBUTES_AT);
  const baseOffset = readInt64(data, at);
  const lastOffset = baseOffset + data.readInt32BE(at + 23);
  if (!Number.isSafeInteger(baseOffset) || !Number.isSafeInteger(lastOffset)) {
    throw new BadBatch(`offset ${data.readBigInt64BE(at)} is larger than a number can hold exactly`, {
      code: 'KCR_OFFSET_RANGE',
    });
  }
  return {
    baseOffset,
    lastOffset,
    codec: attributes & 0x07,
    transactional: (attributes & 0x10) !== 0,
    control: (attributes & 0x20) !== 0,
    appendTimeMs: (attributes & 0x08) === 0 ? undefined : readInt64(data, at + 35),
    firstTimestampMs: readInt64(data, at + 27),
    producerId: data.readBigInt64BE(at + 43),
    count: data.readInt32BE(at + 57),
    crc: data.readUInt32BE(at + CRC_AT),
    covered: data.subarray(at + ATTRIBUTES_AT, end),
    body: data.subarray(at + HEAD_BYTES, end),
  };
}

export interface Surroundings {
  /** The first offset behind the batch before it in the same answer. */
  readonly nextOffset: number;
  /** Undefined: not known. */
  readonly highWatermark: number | undefined;
}

/** @throws BadBatch when the offsets or the count cannot be. */
export function checkHead(
  { baseOffset, lastOffset, count, codec, control, body }: BatchHead,
  { nextOffset, highWatermark }: Surroundings,
): void {
  const span = lastOffset - baseOffset + 1;
  if (span < 1) throw new BadBatch(`its last offset delta is ${span - 1}`);
  if (count < 0 || count > span) throw new BadBatch(`it says it has ${count} records in a range of ${span} offsets`);
  if (baseOffset < nextOffset)
    throw new BadBatch(
      nextOffset === 0
        ? 'its base offset is negative'
        : `it begins before offset ${nextOffset}, to where the batch before it reaches`,
    );
  if (highWatermark !== undefined && highWatermark >= 0 && lastOffset >= highWatermark + WATERMARK_SLACK) {
    throw new BadBatch(`it ends at offset ${lastOffset}, and the log at ${highWatermark}`);
  }
  if (codec > LAST_CODEC)
    throw new BadBatch(`it is compressed with codec ${codec}, which is not known`, { code: 'KCR_KAFKA' });
  if (control && codec !== 0) throw new BadBatch('it is a control batch, and compressed');
  if (control && count > 1) throw new BadBatch(`it is a control batch of ${count} records`);
  if (count === 0 && body.length > 0) throw new BadBatch(`it says it has no records, in ${body.length} bytes`);
}

export function hasRightCrc({ crc, covered }: BatchHead): boolean {
  return crc32c(covered) === crc;
}

/** Beyond 2^53 it is rounded: the caller checks. */
function readInt64(data: Buffer, at: number): number {
  return data.readInt32BE(at) * TWO_32 + data.readUInt32BE(at + 4);
}
