// Makes a failing input shorter for as long as it still fails.

/** Tries that one input is worth. */
const MOST_TRIES = 3000;

/** Takes pieces of the bytes out, large ones first. `fails` must be true of what is given. */
export async function shrinkBytes(
  bytes: Buffer,
  fails: (bytes: Buffer) => boolean | Promise<boolean>,
): Promise<Buffer> {
  let best = bytes;
  let tries = 0;
  for (let size = Math.ceil(best.length / 2); size >= 1 && tries < MOST_TRIES;) {
    let isShorter = false;
    for (let at = 0; at < best.length && tries < MOST_TRIES; tries++) {
      const candidate = Buffer.concat([best.subarray(0, at), best.subarray(at + size)]);
      if (await fails(candidate)) [best, isShorter] = [candidate, true];
      else at += size;
    }
    if (!isShorter || size > best.length) size = size === 1 ? 0 : Math.ceil(size / 2);
  }
  return best;
}

/** Leaves items out for as long as it still fails. */
export async function shrinkList<T>(
  items: readonly T[],
  fails: (items: readonly T[]) => Promise<boolean>,
): Promise<readonly T[]> {
  let best = items;
  for (let at = best.length - 1; at >= 0; at--) {
    const candidate = best.filter((_, index) => index !== at);
    if (candidate.length > 0 && (await fails(candidate))) best = candidate;
  }
  return best;
}

/** Printable ASCII as it is, all other bytes as \xNN, a backslash doubled: unambiguous, and pasteable into a test. */
export function escaped(bytes: Uint8Array, mostBytes = 400): string {
  let text = '';
  for (const byte of bytes.subarray(0, mostBytes)) {
    if (byte === 92) text += '\\\\';
    else text += byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return bytes.length > mostBytes ? `${text}… (${bytes.length} bytes)` : text;
}
