/**
 * CRC-32C (Castagnoli), the checksum of Kafka's record batches. Pure. Node's `zlib.crc32` is another polynomial.
 * Imports: Node.
 */
import { createRequire } from 'node:module';

type Crc32c = (data: Uint8Array) => number;

const POLYNOMIAL_REVERSED = 0x82f63b78;
/** Every implementation must give this for the digits 1 to 9: the check value that is published with the polynomial. */
const CHECK_VALUE = 0xe3069283;

/**
 * The processor's own instruction by an optional package, 3 to 4 GB/s; our tables, 0.9 GB/s, where it does not load.
 */
export const crc32c: Crc32c = nativeCrc32c() ?? tableCrc32c;

function nativeCrc32c(): Crc32c | undefined {
  try {
    const { crc32c: native } = createRequire(import.meta.url)('@node-rs/crc32') as { crc32c: Crc32c };
    return native(Buffer.from('123456789')) === CHECK_VALUE ? native : undefined;
  } catch {
    return undefined; // optional: there is no build of it for every platform
  }
}

/** Row k: what a byte becomes when k further bytes have followed it. */
const tables: readonly Int32Array[] = makeTables();

function makeTables(): Int32Array[] {
  const first = Int32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ POLYNOMIAL_REVERSED;
    return crc;
  });
  const all = [first];
  for (let row = 1; row < 8; row++) all.push(all[row - 1]!.map((crc) => (crc >>> 8) ^ first[crc & 0xff]!));
  return all;
}

/** Eight bytes at a time ("slicing by 8"). */
export function tableCrc32c(data: Uint8Array): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
    Int32Array,
  ];
  let crc = -1;
  let at = 0;
  for (const end = data.length - 7; at < end; at += 8) {
    crc ^= data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
    crc =
      t7[crc & 0xff]! ^
      t6[(crc >>> 8) & 0xff]! ^
      t5[(crc >>> 16) & 0xff]! ^
      t4[crc >>> 24]! ^
      t3[data[at + 4]!]! ^
      t2[data[at + 5]!]! ^
      t1[data[at + 6]!]! ^
      t0[data[at + 7]!]!;
  }
  for (; at < data.length; at++) crc = (crc >>> 8) ^ t0[(crc ^ data[at]!) & 0xff]!;
  return ~crc >>> 0;
}
