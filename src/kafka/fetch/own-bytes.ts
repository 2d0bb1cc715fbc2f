/**
 * Who keeps an answer's memory: all partitions that share it, or each one a copy of its part. Pure. Imports: nothing.
 */

/** An answer is held on to by so many partitions that had an equal part of it; with more of them each makes a copy. */
const MOST_PARTITIONS_SHARED = 4.5;

/**
 * Slices hold on to the whole answer, with what it brought of every other partition. Where that is most of it a copy is
 * cheaper than the memory.
 */
export function ownBytes(data: Buffer): Buffer {
  if (data.length * MOST_PARTITIONS_SHARED >= data.buffer.byteLength) return data;
  const copy = Buffer.allocUnsafeSlow(data.length);
  data.copy(copy);
  return copy;
}
