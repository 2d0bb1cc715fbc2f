// The product's reader of record batches. The only file of this kind that knows where it is.
import { IngestError } from '../../../src/errors.js';
import { damageError } from '../../../src/kafka/fetch/damage.js';
import { LogReader } from '../../../src/kafka/fetch/records.js';
import { attributeBits, withCrc } from './encode.js';
import type { OracleAborted, OracleRecord } from './oracle.js';

export interface ReadLog {
  readonly records: readonly OracleRecord[];
  /** Undefined: nothing was read. */
  readonly lastOffset: number | undefined;
  readonly bytes: number;
  /** What ended it. */
  readonly error: { readonly isOurs: boolean; readonly text: string } | undefined;
  /** Offsets that are passed over where damaged batches may be; undefined: nothing may be passed over. */
  readonly skippable?: { readonly first: number; readonly last: number } | undefined;
}

export interface LogPiece {
  readonly data: Buffer;
  readonly fromOffset: number;
  readonly aborted: readonly OracleAborted[];
  readonly limitBytes: number;
}

export type LogSubject = (piece: LogPiece) => Promise<ReadLog>;

/** Of one batch, unpacked: far more than any that is no bomb. */
const MAX_BATCH_BYTES = 64 * 1024 * 1024;

export const readAsShipped: LogSubject = async ({ data, fromOffset, aborted, limitBytes }) => {
  const records: OracleRecord[] = [];
  let [lastOffset, bytes]: [number | undefined, number] = [undefined, 0];
  try {
    const reader = new LogReader({ data, fromOffset, aborted, maxBatchBytes: MAX_BATCH_BYTES });
    while (!reader.isOver) {
      const range = await reader.next(limitBytes);
      for (const { offset, timestampMs, key, value, headers } of range.records)
        records.push({ offset, timestampMs, key, value, headers });
      lastOffset = range.lastOffset;
      bytes += range.bytes;
    }
    const { damage } = reader;
    if (damage === undefined) return { records, lastOffset, bytes, error: undefined };
    const error = damageError(damage, { topic: 'orders', partition: 0 });
    return {
      records,
      lastOffset,
      bytes,
      error: { isOurs: true, text: `${error.code} ${error.detail}` },
      skippable: damage.bounds,
    };
  } catch (thrown) {
    const isOurs = thrown instanceof IngestError;
    const text =
      thrown instanceof Error
        ? `${thrown.constructor.name} ${isOurs ? thrown.code : ''} ${thrown.message}`
        : String(thrown);
    return { records, lastOffset, bytes, error: { isOurs, text } };
  }
};

/** Broken on purpose: believes whatever the checksum says, since it gives every batch the one that fits. */
export const readWithoutChecksum: LogSubject = (piece) => {
  const data = Buffer.from(piece.data);
  for (let at = 0; at + 61 <= data.length;) {
    const length = 12 + data.readInt32BE(at + 8);
    if (length < 61 || at + length > data.length) break;
    withCrc(data.subarray(at, at + length));
    at += length;
  }
  return readAsShipped({ ...piece, data });
};

/** Broken on purpose: goes round for ever where a marker stands. For the watchdog's own test. */
export const readForEver: LogSubject = async (piece) => {
  const isMarker = piece.data.length > 23 && (piece.data.readInt16BE(21) & attributeBits.control) !== 0;
  while (isMarker);
  return readAsShipped(piece);
};
