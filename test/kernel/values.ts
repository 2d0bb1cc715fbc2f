// Seeded values for the check: objects, objects spoiled by a byte or two, and texts out of JSON's own marks.

export type Random = () => number;

/** mulberry32: the same numbers for the same seed, from 0 up to 1. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function below(random: Random, limit: number): number {
  return Math.floor(random() * limit);
}

function pick<T>(random: Random, from: readonly T[]): T {
  return from[below(random, from.length)]!;
}

const spaces = ['', '', '', '', ' ', '\n', '\t', '\r', '  \n', ' '.repeat(17)];
const numbers = [
  '0',
  '-0',
  '1',
  '12',
  '-7',
  '3.25',
  '0.5',
  '1e5',
  '1E+5',
  '-1.5e-10',
  '123456789012345678901234567890',
  '1e400',
  '18446744073709551616',
];
const badNumbers = [
  '01',
  '+1',
  '.5',
  '5.',
  '1e',
  '1e+',
  '-',
  '--1',
  '0x1',
  'NaN',
  'Infinity',
  '-Infinity',
  '1.e3',
  '00',
  '1_0',
];
const words = ['true', 'false', 'null'];
const badWords = ['True', 'nul', 'truer', 'fals', 'nil', 'undefined', 't', 'n', 'f', 'falsy', 'trie'];
const pieces = [
  'a',
  'xyz',
  '"',
  '\\"',
  '\\\\',
  '\\/',
  '\\n',
  '\\u00e9',
  '\\uD83D\\uDE00',
  '\\ud800',
  '\\udc00',
  'é',
  '日本',
  '😀',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '\u007f',
  '\u2028',
  'a long text of more than sixteen bytes ',
  '\\u005f',
  '_offset',
  'x'.repeat(33),
];
const badPieces = ['\n', '\t', '\u0000', '\u001f', '\\x', '\\u12', '\\u12g4', '\\', '\\a', "\\'", '\\u'];
const names = [
  '_topic',
  '_partition',
  '_offset',
  '_timestamp',
  '_key',
  '_headers',
  '_OFFSET',
  '\\u005foffset',
  '\\u005Foffset',
  '_\\u006Fffset',
  '\\u005f\\u004b\\u0065\\u0079',
  '_offsets',
  '_offse',
  '_',
  '\\u005f',
  '_key\\u0000',
  '_of\\u017fset',
  '_ke\\/y',
  '_headers2',
  '_timestampx',
  '__key',
  '',
  'offset',
  '_\\u212aey',
  '\\\\_offset',
  '_\\u0000',
  '_partition_',
  '_Partition',
];

/** A valid JSON value, or with `spoil` one in ten thousand places that is not. */
export function jsonText(random: Random, depth: number, spoil: number): string {
  const space = (): string => (random() < 0.85 ? '' : pick(random, spaces));
  const text = (): string => {
    let made = '';
    for (let left = below(random, 5); left > 0; left--) {
      const piece = pick(random, random() < spoil ? badPieces : pieces);
      made += piece === '"' ? '\\"' : piece;
    }
    return made;
  };
  const name = (): string => (random() < 0.2 ? pick(random, names) : text());
  const kind = depth <= 0 ? below(random, 3) : below(random, 5);
  if (kind === 0) return random() < spoil ? pick(random, badNumbers) : pick(random, numbers);
  if (kind === 1) return random() < spoil ? pick(random, badWords) : pick(random, words);
  if (kind === 2) return `"${text()}"`;
  const count = below(random, 4);
  const items = Array.from({ length: count }, () => {
    const value = jsonText(random, depth - 1, spoil);
    return space() + (kind === 3 ? `"${name()}"${space()}:${space()}${value}` : value) + space();
  });
  return kind === 3 ? `{${items.join(',')}${space()}}` : `[${items.join(',')}${space()}]`;
}

function objectText(random: Random, spoil: number): string {
  for (;;) {
    const text = jsonText(random, 4, spoil);
    if (text.startsWith('{')) return pick(random, spaces) + text + pick(random, spaces);
  }
}

const marks = Buffer.from('{}[]",:\\ \n01-.eEtrufalsn_x\u0000\u001f\u007f');

/** Changes, drops, doubles or cuts a few bytes; bytes that are not UTF-8 among them. */
function mutated(random: Random, value: Buffer): Buffer {
  let bytes: Buffer = Buffer.from(value);
  for (let times = 1 + below(random, 3); times > 0 && bytes.length > 0; times--) {
    const at = below(random, bytes.length);
    const byte = random() < 0.8 ? marks[below(random, marks.length)]! : below(random, 256);
    switch (below(random, 5)) {
      case 0:
        bytes[at] = byte;
        break;
      case 1:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]);
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([byte]), bytes.subarray(at)]);
        break;
      case 3:
        bytes = bytes.subarray(0, at);
        break;
      default: {
        const to = at + below(random, Math.min(20, bytes.length - at) + 1);
        bytes = Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)]);
      }
    }
  }
  return bytes;
}

const soup = [
  '{',
  '}',
  '[',
  ']',
  '"',
  '\\',
  ':',
  ',',
  ' ',
  '\n',
  'a',
  '1',
  'u',
  'null',
  '"a":',
  '{}',
  '-',
  '0',
  '.',
  'e',
  'true',
  '[]',
  '"_offset":',
  '\u0001',
  'é',
];

/** A value of any kind: about two in five are objects by JSON. */
export function anyValue(random: Random): Buffer {
  switch (below(random, 5)) {
    case 0:
      return Buffer.from(objectText(random, 0));
    case 1:
      return Buffer.from(objectText(random, 0.02));
    case 2:
      return mutated(random, Buffer.from(objectText(random, 0)));
    case 3: {
      let text = random() < 0.7 ? '{' : '';
      for (let left = below(random, 14); left > 0; left--) text += pick(random, soup);
      return Buffer.from(text);
    }
    default:
      return flatEvent(random);
  }
}

/** As most topics have them; a string may be of any length. */
function flatEvent(random: Random): Buffer {
  const fields = Array.from(
    { length: 1 + below(random, 8) },
    (_, index) => `"field_${index}":${random() < 0.5 ? `"${'x'.repeat(below(random, 40))}"` : below(random, 1e9)}`,
  );
  return Buffer.from(`{${fields.join(',')}}`);
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** What JSON.parse says: is it an object? */
export function isParsedObject(value: Uint8Array): boolean {
  try {
    const parsed = JSON.parse(decoder.decode(value)) as unknown;
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
  } catch {
    return false;
  }
}

/** Names of the first level that JSON.parse has read, an inherited one and the last of equal ones too. */
export function namesOf(value: Uint8Array): string[] {
  return Object.keys(JSON.parse(decoder.decode(value)) as object);
}
