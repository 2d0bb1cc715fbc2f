/**
 * The bodies of checked batches, unpacked: how many at once, and what each may take. Imports: model.
 */
import { PACKED_RECORD_BYTES } from '../../model/packed-records.js';
import type { BatchHead } from './batch-head.js';
import { decompress } from './codecs.js';
import { BadBatch } from './damage.js';
import { MIN_RECORD_BYTES } from './record-parser.js';
import type { Bytes } from './unpacking.js';

/** A batch that takes more is large: it is read alone, and no other large one of the process is unpacked meanwhile. */
const LARGE_BYTES = 8 * 1024 * 1024;

/** A batch that was checked as far as it can be without unpacking it. */
export interface Checked {
  readonly head: BatchHead;
  /** What lies before it and has been looked at. */
  readonly before: number;
  /** What unpacks, without columns: a bound, or gzip's claim. */
  readonly unpacked: number;
}

export function isLarge(checked: Checked): boolean {
  return costOf(checked) > LARGE_BYTES;
}

/** What decoding it takes beyond the bytes that are there. */
export function costOf({ head, unpacked }: Checked): number {
  return unpacked + head.count * PACKED_RECORD_BYTES;
}

let large: Promise<unknown> = Promise.resolve();

/** The bodies, or why there is none. A large one waits until no other is being unpacked in the whole process. */
export async function unpackAll(group: readonly Checked[]): Promise<readonly unknown[]> {
  if (!group.some(isLarge))
    return group.every(({ head }) => head.codec === 0) ? group.map(checkedBody) : Promise.all(group.map(unpack));
  const unpacked = large.then(() => Promise.all(group.map(unpack)));
  large = unpacked;
  return unpacked;
}

async function unpack({ head, unpacked }: Checked): Promise<unknown> {
  try {
    const body: Bytes = decompress(head.codec, head.body, unpacked);
    return checkedBody({ head, body: Buffer.isBuffer(body) ? body : await body });
  } catch (thrown) {
    return thrown instanceof Error ? thrown : new Error(String(thrown));
  }
}

/** A batch that claims more records than it can hold is not believed before memory is asked for. */
export function checkedBody({ head, body = head.body }: { readonly head: BatchHead; readonly body?: Buffer }): unknown {
  if (head.count * MIN_RECORD_BYTES <= body.length) return body;
  return new BadBatch(`it says it has ${head.count} records, which is more than its ${body.length} bytes can hold`);
}
