/**
 * Cutting and joining offset ranges. Pure functions, imports the model only. Imports: nothing.
 */
import { PackedRecords, cursorOver, type RecordCursor } from './packed-records.js';
import type { Batch, KafkaRecord, Records } from './record.js';

/** Where a batch is, as the fields of an error about it. */
export function placeOf({
  assignment: { topic, partition },
  afterOffset,
  lastOffset,
}: Pick<Batch, 'assignment' | 'afterOffset' | 'lastOffset'>) {
  return { topic, partition, first: afterOffset + 1, last: lastOffset };
}

/** Bytes a record counts for, in batch limits and in back-pressure: key and value. */
export function recordBytes({ valueLength, keyLength }: RecordCursor): number {
  return Math.max(0, valueLength) + Math.max(0, keyLength);
}

export function bytesOf(records: Records): number {
  let bytes = 0;
  for (const cursor = cursorOver(records); cursor.next();) bytes += recordBytes(cursor);
  return bytes;
}

/** How many different offsets they have: a transform may have made several of one record. */
export function countOffsets(records: Records): number {
  let count = 0;
  let last = -1;
  for (const cursor = cursorOver(records); cursor.next(); last = cursor.offset) if (cursor.offset !== last) count += 1;
  return count;
}

function offsetAt(records: Records, index: number): number {
  return records instanceof PackedRecords ? records.offsetAt(index) : records.at(index)!.offset;
}

/** Index of the first record whose offset is greater than `offset`; `records.length` if none is. They must ascend. */
export function indexAfter(records: Records, offset: number): number {
  let low = 0;
  let high = records.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (offsetAt(records, middle) <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * What Kafka sent was checked when it was read. Of records that somebody else made a search by halves could skip good
 * ones.
 */
function expectAscending(records: Records): void {
  if (records instanceof PackedRecords) return;
  let last = -1;
  for (const { offset } of records) {
    if (!(offset >= last))
      throw new RangeError(`Expected records in the order of their offsets, got ${offset} behind ${last}`);
    last = offset;
  }
}

/**
 * Cuts a batch in two: up to and including `lastOffset`, and what is beyond. A side that would cover no offset is
 * undefined. Every offset of the batch is covered by exactly one side.
 */
export function splitBatch<B extends Batch>(batch: B, lastOffset: number): [B | undefined, B | undefined] {
  if (lastOffset >= batch.lastOffset) return [batch, undefined];
  if (lastOffset <= batch.afterOffset) return [undefined, batch];
  expectAscending(batch.records);
  const at = indexAfter(batch.records, lastOffset);
  const head = batch.records.slice(0, at);
  const headBytes = bytesOf(head);
  return [
    { ...batch, lastOffset, records: head, bytes: headBytes },
    { ...batch, afterOffset: lastOffset, records: batch.records.slice(at), bytes: batch.bytes - headBytes },
  ];
}

/** One batch over adjacent ones. They must be contiguous, of one assignment, and at least one. */
export function joinBatches(parts: readonly Batch[]): Batch {
  const first = parts[0];
  const last = parts.at(-1);
  if (first === undefined || last === undefined)
    throw new RangeError('joinBatches expects at least one batch, got none');
  if (parts.length === 1) return first;
  for (let i = 1; i < parts.length; i++) {
    if (parts[i]!.afterOffset !== parts[i - 1]!.lastOffset) {
      throw new RangeError(
        `joinBatches expects adjacent ranges, got one that ends at ${parts[i - 1]!.lastOffset} ` +
          `before one that begins after ${parts[i]!.afterOffset}`,
      );
    }
  }
  return {
    assignment: first.assignment,
    afterOffset: first.afterOffset,
    lastOffset: last.lastOffset,
    records: joined(parts.map(({ records }) => records)),
    bytes: parts.reduce((sum, part) => sum + part.bytes, 0),
  };
}

function joined(all: readonly Records[]): Records {
  const packed = all.filter((records) => records instanceof PackedRecords);
  if (packed.length === all.length) return PackedRecords.join(packed);
  const made: KafkaRecord[] = [];
  for (const records of all) for (const record of records) made.push(record);
  return made;
}
