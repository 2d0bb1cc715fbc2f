/**
 * Numbers, texts and headers as JSON, into a buffer that is given. By hand, since nothing is to be allocated for a
 * record. Imports: model.
 */
import type { RecordHeaders } from '../../model/record.js';

const QUOTE = 34;
const BACKSLASH = 92;
const ZERO = 48;
const SPLIT = 1_000_000_000;
/** The most bytes one byte of text takes as a JSON string: six, and one more backslash each when escaped again. */
export const ESCAPED = 7;

export const nullText = Buffer.from('null');
export const noBytes = Buffer.alloc(0);
const hexDigits = Buffer.from('0123456789abcdef');

export function put(target: Buffer, at: number, bytes: Uint8Array): number {
  target.set(bytes, at);
  return at + bytes.length;
}

/** A safe integer in decimal. By hand, since `toString` allocates for every row. */
export function writeInteger(target: Buffer, from: number, value: number): number {
  let at = from;
  if (value < 0) target[at++] = 45;
  const size = Math.abs(value);
  if (size < SPLIT) return writeSmall(target, at, size, 0);
  const high = Math.floor(size / SPLIT);
  at = writeSmall(target, at, high, 0);
  return writeSmall(target, at, size - high * SPLIT, 9);
}

function writeSmall(target: Buffer, from: number, value: number, width: number): number {
  let digits = 1;
  for (let limit = 10; value >= limit; limit *= 10) digits++;
  if (digits < width) digits = width;
  let rest = value;
  for (let at = from + digits - 1; at >= from; at--) {
    const next = (rest / 10) | 0;
    target[at] = ZERO + (rest - next * 10);
    rest = next;
  }
  return from + digits;
}

/** Any bytes as a JSON string, byte for byte: what is no UTF-8 stays as it is, as ClickHouse's String does. */
export function writeString(target: Buffer, from: number, bytes: Uint8Array): number {
  let at = from;
  target[at++] = QUOTE;
  at = writeEscaped(target, at, bytes);
  target[at++] = QUOTE;
  return at;
}

function writeEscaped(target: Buffer, from: number, bytes: Uint8Array): number {
  let at = from;
  for (const byte of bytes) {
    if (byte === QUOTE || byte === BACKSLASH) {
      target[at++] = BACKSLASH;
      target[at++] = byte;
    } else if (byte < 32) {
      target[at++] = BACKSLASH;
      target[at++] = 117; // u
      target[at++] = ZERO;
      target[at++] = ZERO;
      target[at++] = ZERO + (byte >> 4);
      target[at++] = hexDigits[byte & 15] ?? ZERO;
    } else {
      target[at++] = byte;
    }
  }
  return at;
}

export function headerBound(headers: RecordHeaders): number {
  let bytes = 0;
  // A name takes at most three bytes a UTF-16 unit; the text of an object is escaped twice.
  for (const [name, value] of headers) bytes += ESCAPED * (3 * name.length + (value?.length ?? 4)) + 16;
  return bytes;
}

/** Headers are rare, short and few: readable rather than fast. */
export function writeHeaders(
  target: Buffer,
  from: number,
  headers: RecordHeaders,
  form: 'object' | 'text' | 'pairs',
  whenNull: 'null' | 'empty',
): number {
  const pairs = headers.map(([name, value]) => {
    const text = value === null && whenNull === 'null' ? nullText : jsonString(value ?? noBytes);
    const left = jsonString(Buffer.from(name));
    return form === 'pairs'
      ? Buffer.concat([openBracket, left, commaText, text, closeBracket])
      : Buffer.concat([left, colon, text]);
  });
  const [open, close] = form === 'pairs' ? [openBracket, closeBracket] : [openBrace, closeBrace];
  const whole = Buffer.concat([
    open,
    ...pairs.flatMap((pair, index) => (index === 0 ? [pair] : [commaText, pair])),
    close,
  ]);
  return form === 'text' ? writeString(target, from, whole) : put(target, from, whole);
}

const openBracket = Buffer.from('[');
const closeBracket = Buffer.from(']');
const openBrace = Buffer.from('{');
const closeBrace = Buffer.from('}');
const commaText = Buffer.from(',');
const colon = Buffer.from(':');

function jsonString(bytes: Uint8Array): Buffer {
  const room = Buffer.alloc(2 + 6 * bytes.length);
  return room.subarray(0, writeString(room, 0, bytes));
}
