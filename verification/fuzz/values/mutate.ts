// Damages bytes in the ways that a scanner which looks for too little falls for.
import type { Random } from '../random.js';

/** Bytes that mean something in JSON, or that look as if they did. */
const telling = Buffer.from('{}[]",:\\/\'0123456789-+.eEtfnul \t\n\r\0\b\f\v\u0007\u001f', 'latin1');
const texts = [
  '}',
  '{',
  ']',
  '[',
  '"',
  '\\',
  ',',
  ':',
  '},{',
  '[}',
  '{]',
  '\\"',
  '\\u',
  '\\u00',
  '\\u12G4',
  '\\x41',
  '\\\n',
  'NaN',
  'Infinity',
  '-Infinity',
  'nan',
  'tru',
  'nulll',
  'True',
  '01',
  '1.',
  '.5',
  '-',
  '+1',
  '1e',
  '1e+',
  '0x10',
  '1_000',
  "'a'",
  '/**/',
  '//',
  '{}',
  '[]',
  '""',
  '\u00a0',
  '\u2028',
  '\ufeff',
].map((text) => Buffer.from(text));
/** No UTF-8: lone continuation, overlong, a surrogate's encoding, cut off, beyond the last code point. */
const notUtf8 = [
  [0x80],
  [0xc0, 0xaf],
  [0xed, 0xa0, 0x80],
  [0xe2, 0x82],
  [0xf0, 0x9f, 0x98],
  [0xff],
  [0xfe, 0xff],
  [0xf4, 0x90, 0x80, 0x80],
  [0xc3, 0x22],
].map((bytes) => Buffer.from(bytes));
const brackets = '{}[]';

/** `other` is cut into the bytes now and then. */
export function mutated(random: Random, bytes: Buffer, other: Buffer): Buffer {
  const at = random.int(bytes.length + 1);
  const splice = (from: number, to: number, ...middle: readonly Buffer[]): Buffer =>
    Buffer.concat([bytes.subarray(0, from), ...middle, bytes.subarray(to)]);
  switch (random.int(11)) {
    case 0:
      return splice(at, at + 1, Buffer.from([(bytes[at] ?? 0) ^ (1 << random.int(8))]));
    case 1:
      return splice(at, at, Buffer.from([random.pick(telling)]));
    case 2:
      return splice(at, at, random.pick(texts));
    case 3:
      return splice(at, at + 1 + random.small(4));
    case 4:
      return bytes.subarray(0, at);
    case 5:
      return splice(at, at, random.pick(notUtf8));
    case 6: {
      const to = Math.min(bytes.length, at + random.small(12));
      return splice(at, at, bytes.subarray(at, to));
    }
    case 7: {
      const from = random.int(other.length + 1);
      return splice(at, at + random.small(3), other.subarray(from, from + random.small(20)));
    }
    case 8:
      return otherBracket(random, bytes);
    case 9:
      return splice(at, at + 1, Buffer.from([random.pick(telling)]));
    default:
      return splice(at, at, Buffer.from([random.int(256)]));
  }
}

/** The spread operator of buffers gives bytes; a bracket becomes another one. */
function otherBracket(random: Random, bytes: Buffer): Buffer {
  const places: number[] = [];
  for (let at = 0; at < bytes.length; at++) if (brackets.includes(String.fromCharCode(bytes[at]!))) places.push(at);
  if (places.length === 0) return bytes;
  const copy = Buffer.from(bytes);
  copy[random.pick(places)] = random.pick([123, 125, 91, 93]);
  return copy;
}
