/**
 * Room: is a value exactly one JSON object? Pure, imports nothing.
 *
 * A body of an insert is joined from values nobody has parsed. ClickHouse numbers the rows it has parsed, not the
 * values: an empty value makes it silently skip a row, a value with two objects adds one. Both would shift every row
 * number after it, so that an error names the wrong record. No parser: what is wrong inside of the braces is for the
 * server to find.
 */

const TAB = 9;
const LINE_FEED = 10;
const RETURN = 13;
const SPACE = 32;
const QUOTE = 34;
const BACKSLASH = 92;
const OPEN = 123;
const CLOSE = 125;
const LOWER_U = 117;
const UNICODE_DIGITS = 4;
/** Values from this size on have strings that are worth a native search; shorter ones are faster byte by byte. */
const LONG_BYTES = 192;
/** Bytes of a string that are looked at before it is searched. */
const NEAR_BYTES = 8;

/** Why the value, which lies in `data` from `start` up to `end`, is not exactly one JSON object, to be read after "the value"; undefined when it is one. */
export function objectFault(data: Uint8Array, start = 0, end = data.length, search = new BackslashSearch()): string | undefined {
  let at = start;
  while (at < end && isSpace(data[at])) at++;
  if (at === end) return end === start ? 'is empty' : 'is nothing but whitespace';
  if (data[at] !== OPEN) return wrongStart(data.subarray(start, end), at - start);

  const isLong = end - start >= LONG_BYTES;
  let depth = 0;
  for (; at < end; at++) {
    const byte = data[at];
    if (byte === QUOTE) {
      if (isLong) at = behindPlain(data, at + 1, end, search) - 1;
      for (at++; at < end && data[at] !== QUOTE; at++) {
        if (data[at] !== BACKSLASH) continue;
        at++;
        // ClickHouse takes the four bytes after \u whatever they are, the closing quote too.
        if (at < end && data[at] === LOWER_U && !isHex(data, at + 1, end)) return `has an invalid \\u escape at byte ${at - 1 - start}`;
      }
      if (at >= end) return 'ends inside of a string';
    } else if (byte === OPEN) {
      depth++;
    } else if (byte === CLOSE && --depth === 0) {
      return afterObject(data, at + 1, start, end);
    }
  }
  return `is cut off: ${depth} closing ${depth === 1 ? 'brace is' : 'braces are'} missing`;
}

/** Where the next backslash is: one look serves the values of many records. For one batch, since it keeps the bytes. */
export class BackslashSearch {
  #data: Uint8Array | undefined;
  #from = 0;
  #at = 0;

  behind(data: Uint8Array, from: number): number {
    if (data === this.#data && from >= this.#from && from <= this.#at) return this.#at;
    const at = data.indexOf(BACKSLASH, from);
    [this.#data, this.#from, this.#at] = [data, from, at < 0 ? Infinity : at];
    return this.#at;
  }
}

/**
 * Of a long string the bytes that mean nothing are passed over by a native search, which is several times faster than to
 * look at each. Gives where the string ends, or where there is more to look at.
 */
function behindPlain(data: Uint8Array, from: number, end: number, search: BackslashSearch): number {
  const near = Math.min(end, from + NEAR_BYTES);
  let at = from;
  while (at < near && data[at] !== QUOTE && data[at] !== BACKSLASH) at++;
  if (at < near || at === end) return at;
  const quote = data.indexOf(QUOTE, at);
  if (quote < 0 || quote >= end) return at;
  return search.behind(data, at) > quote ? quote : at;
}

/** JSON's own whitespace, and nothing else. */
export function isSpace(byte: number | undefined): boolean {
  return byte === SPACE || byte === LINE_FEED || byte === RETURN || byte === TAB;
}

function afterObject(data: Uint8Array, from: number, start: number, end: number): string | undefined {
  let at = from;
  while (at < end && isSpace(data[at])) at++;
  if (at === end) return undefined;
  return data[at] === OPEN ? 'holds more than one object' : `goes on after its object, at byte ${at - start}`;
}

function wrongStart(value: Uint8Array, at: number): string {
  if (value[at] === 0xef && value[at + 1] === 0xbb && value[at + 2] === 0xbf) return 'begins with a byte order mark';
  const start = String.fromCharCode(value[at] ?? 0);
  if (start === '[') return 'is a JSON array, not an object';
  if (start === '"') return 'is a JSON string, not an object';
  if (/[-0-9]/.test(start)) return 'is a JSON number, not an object';
  const word = Buffer.from(value.buffer, value.byteOffset + at, Math.min(5, value.length - at)).toString('latin1');
  if (/^(null|true|false)/.test(word)) return `is the JSON literal ${word.startsWith('false') ? 'false' : word.slice(0, 4)}, not an object`;
  return `does not begin with an opening brace but with byte 0x${(value[at] ?? 0).toString(16).padStart(2, '0')}`;
}

function isHex(data: Uint8Array, from: number, end: number): boolean {
  for (let at = from; at < from + UNICODE_DIGITS; at++) {
    const byte = at < end ? data[at]! : 0;
    const digit = byte >= 48 && byte <= 57;
    const letter = (byte | 32) >= 97 && (byte | 32) <= 102;
    if (!digit && !letter) return false;
  }
  return true;
}
