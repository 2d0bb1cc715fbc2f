// What a piece of a log holds: a decoder written from Kafka's description of record batches, with big integers and a
// look at every bound. It shares nothing with the product's.
import { attributeBits, crc32c, HEAD_BYTES } from './encode.js';
import { unpack } from './unpack.js';

export interface OracleRecord {
  readonly offset: number;
  /** Undefined: not a number that can be told exactly. */
  readonly timestampMs: number | undefined;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly (readonly [string, Buffer | null])[];
}

/** One batch of the piece, in its order. */
export type OracleBatch =
  | {
      readonly kind: 'records';
      readonly lastOffset: number;
      readonly records: readonly OracleRecord[];
      readonly mayBeRefused: boolean;
    }
  /** Must be refused, with nothing of it delivered; nothing behind it is looked at, unless it lies before what was asked for. */
  | { readonly kind: 'invalid'; readonly why: string; readonly mayBePassedOver?: boolean }
  /** The broker cut it short: the next fetch brings it. */
  | { readonly kind: 'partial'; readonly mayBeRefused: boolean };

export interface OracleAborted {
  readonly producerId: bigint;
  readonly firstOffset: number;
}

/** A length beyond it may be refused at once instead of waited for. */
const LARGEST_PARTIAL_BYTES = 50 * 1024 * 1024;

class Invalid extends Error {}
const demand = (holds: boolean, why: string): void => {
  if (!holds) throw new Invalid(why);
};

export interface OracleSlice {
  readonly data: Buffer;
  readonly fromOffset: number;
  readonly aborted: readonly OracleAborted[];
  /** Compressed bytes were damaged and given a checksum that fits: readers may differ, and refusing it is always right. */
  readonly isPackingDamaged: boolean;
}

export function readLog({ data, fromOffset, aborted, isPackingDamaged }: OracleSlice): readonly OracleBatch[] {
  const batches: OracleBatch[] = [];
  const abortMarkers: { producerId: bigint; lastOffset: number }[] = [];
  let before = -1n;
  for (let at = 0; at < data.length;) {
    const rest = data.subarray(at);
    if (rest.length < HEAD_BYTES)
      return [...batches, { kind: 'partial', mayBeRefused: rest.length >= 17 && rest[16] !== 2 }];
    const length = 12 + rest.readInt32BE(8);
    const isOdd = rest[16] !== 2 || length > LARGEST_PARTIAL_BYTES;
    if (length >= HEAD_BYTES && length > rest.length) return [...batches, { kind: 'partial', mayBeRefused: isOdd }];
    try {
      demand(rest[16] === 2, 'its magic is not 2');
      demand(length >= HEAD_BYTES, 'it is shorter than its head');
      const batch = new BatchReader(rest.subarray(0, length), before);
      const isAborted =
        batch.isTransactional &&
        !batch.isControl &&
        aborted.some(({ producerId, firstOffset }) => {
          const isEnded = abortMarkers.some(
            (marker) => marker.producerId === producerId && marker.lastOffset >= firstOffset,
          );
          return producerId === batch.producerId && firstOffset <= batch.lastOffset && !isEnded;
        });
      const { records, isAbortMarker, mayBeRefused } = batch.read(fromOffset, isAborted, isPackingDamaged);
      // A broker lists what is aborted from the wanted offset on: a marker before it ends none of that.
      if (isAbortMarker && batch.lastOffset >= fromOffset)
        abortMarkers.push({ producerId: batch.producerId, lastOffset: batch.lastOffset });
      batches.push({ kind: 'records', lastOffset: batch.lastOffset, records, mayBeRefused });
      before = BigInt(batch.lastOffset);
    } catch (thrown) {
      if (!(thrown instanceof Invalid)) throw thrown;
      const mayBePassedOver = endsBefore(rest, fromOffset);
      batches.push({ kind: 'invalid', why: thrown.message, mayBePassedOver });
      if (!mayBePassedOver || length < HEAD_BYTES) return batches;
    }
    at += length;
  }
  return batches;
}

/** A batch that lies before what was asked for need not be looked at. */
function endsBefore(batch: Buffer, fromOffset: number): boolean {
  return batch.readBigInt64BE(0) + BigInt(batch.readInt32BE(23)) < BigInt(fromOffset);
}

class BatchReader {
  readonly isTransactional: boolean;
  readonly isControl: boolean;
  readonly producerId: bigint;
  readonly lastOffset: number;
  readonly #data: Buffer;
  readonly #attributes: number;
  readonly #base: bigint;
  readonly #lastDelta: number;
  readonly #count: number;

  constructor(data: Buffer, before: bigint) {
    this.#data = data;
    demand(data.readUInt32BE(17) === crc32c(data.subarray(21)), 'its checksum is wrong');
    this.#attributes = data.readInt16BE(21);
    this.#base = data.readBigInt64BE(0);
    this.#lastDelta = data.readInt32BE(23);
    this.#count = data.readInt32BE(57);
    this.producerId = data.readBigInt64BE(43);
    this.isTransactional = (this.#attributes & attributeBits.transactional) !== 0;
    this.isControl = (this.#attributes & attributeBits.control) !== 0;
    const last = this.#base + BigInt(this.#lastDelta);
    demand(this.#base >= 0n && last <= BigInt(Number.MAX_SAFE_INTEGER), 'its offsets are no offsets');
    demand(this.#lastDelta >= 0, 'its last offset lies before its first');
    demand(this.#base > before, 'it begins before the end of the batch ahead of it');
    demand(this.#count >= 0 && this.#count <= this.#lastDelta + 1, 'it has more records than offsets');
    this.lastOffset = Number(last);
  }

  read(
    fromOffset: number,
    isAborted: boolean,
    isPackingDamaged: boolean,
  ): { records: OracleRecord[]; isAbortMarker: boolean; mayBeRefused: boolean } {
    const codec = this.#attributes & 0x07;
    const body = this.#data.subarray(HEAD_BYTES);
    const none = { records: [], isAbortMarker: false };
    // What is not delivered need not be unpacked.
    if (isAborted) return { ...none, mayBeRefused: true };
    // Compaction leaves empty batches, of markers too.
    if (this.#count === 0) {
      demand(codec !== 0 || body.length === 0, 'it has bytes but no records');
      return { ...none, mayBeRefused: codec !== 0 || body.length > 0 };
    }
    if (this.isControl) {
      demand(this.#count === 1 && codec === 0, 'it is a marker of more than one record, or compressed');
    }
    const reader = new RecordsReader(unpacked(codec, body));
    const records = reader.all(this.#count, this.#base, this.#lastDelta, (timestampDelta) =>
      this.#timestamp(timestampDelta),
    );
    const mayBeRefused = reader.isLoose || (isPackingDamaged && codec !== 0);
    if (!this.isControl)
      return { records: records.filter(({ offset }) => offset >= fromOffset), isAbortMarker: false, mayBeRefused };
    const key = records[0]?.key ?? null;
    demand(key !== null && key.length >= 4, 'its marker has no type');
    // A version below 0 is none; a type that is not known yet ends nothing.
    const isKnown = key!.readInt16BE(0) === 0 && key!.readInt16BE(2) <= 1;
    return { records: [], isAbortMarker: key!.readInt16BE(2) === 0, mayBeRefused: mayBeRefused || !isKnown };
  }

  #timestamp(delta: bigint): number | undefined {
    const isAppendTime = (this.#attributes & attributeBits.appendTime) !== 0;
    const time = isAppendTime ? this.#data.readBigInt64BE(35) : this.#data.readBigInt64BE(27) + delta;
    const number = Number(time);
    return Number.isSafeInteger(number) &&
      Number.isSafeInteger(Number(this.#data.readBigInt64BE(27))) &&
      Number.isSafeInteger(Number(delta))
      ? number
      : undefined;
  }
}

function unpacked(codec: number, body: Buffer): Buffer {
  try {
    return unpack(codec, body);
  } catch (thrown) {
    throw new Invalid(`it cannot be unpacked: ${(thrown as Error).message}`);
  }
}

class RecordsReader {
  /** Something in it may be read in one way or refused. */
  isLoose = false;
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  all(count: number, base: bigint, lastDelta: number, timeOf: (delta: bigint) => number | undefined): OracleRecord[] {
    const records: OracleRecord[] = [];
    let before = -1n;
    for (let i = 0; i < count; i++) {
      const length = this.#varint(5);
      const end = this.#at + Number(length);
      demand(length >= 0n && end <= this.#data.length, 'a record is longer than its batch');
      this.#take(1); // attributes, of which none is in use
      const timestampMs = timeOf(this.#varint(10));
      if (timestampMs === undefined) this.isLoose = true;
      const delta = this.#varint(5);
      demand(delta > before && delta <= BigInt(lastDelta), 'an offset is out of order or out of its batch');
      const [key, value, headers] = [this.#bytes(), this.#bytes(), this.#headers()];
      demand(this.#at === end, 'a record does not end where it says');
      before = delta;
      records.push({ offset: Number(base + delta), timestampMs, key, value, headers });
    }
    demand(this.#at === this.#data.length, 'bytes are left behind the last record');
    return records;
  }

  #headers(): (readonly [string, Buffer | null])[] {
    const count = this.#varint(5);
    demand(count >= 0n && count <= BigInt(this.#data.length), 'it has an impossible number of headers');
    return Array.from({ length: Number(count) }, () => {
      const name = this.#bytes();
      demand(name !== null, 'a header has no name');
      return [name!.toString('utf8'), this.#bytes()] as const;
    });
  }

  #bytes(): Buffer | null {
    const length = this.#varint(5);
    // Java takes every negative length for null.
    if (length < -1n) this.isLoose = true;
    return length < 0n ? null : this.#take(Number(length));
  }

  #take(length: number): Buffer {
    demand(this.#at + length <= this.#data.length, 'it is cut off');
    this.#at += length;
    return this.#data.subarray(this.#at - length, this.#at);
  }

  /** Zigzag. More bytes than needed, and bits beyond the type, are taken by Java; refusing them is right, too. */
  #varint(mostBytes: 5 | 10): bigint {
    let value = 0n;
    const bits = mostBytes === 5 ? 32 : 64;
    for (let i = 0; i < mostBytes; i++) {
      const byte = this.#take(1)[0]!;
      value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte >= 0x80) continue;
      if ((byte === 0 && i > 0) || value >> BigInt(bits) !== 0n) this.isLoose = true;
      const cut = BigInt.asUintN(bits, value);
      return (cut >> 1n) ^ -(cut & 1n);
    }
    throw new Invalid('a number does not end');
  }
}
