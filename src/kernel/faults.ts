/**
 * What can be wrong with a value, and how it is said. Pure, imports nothing. Imports: nothing.
 */

/** The numbers are what the WebAssembly module answers: `assembly/value-check.ts` has them, too. */
export const FaultKind = {
  Empty: 1,
  Blank: 2,
  NotObject: 3,
  /** The value ends before its last bracket. */
  CutOff: 4,
  /** The value ends inside of a string. */
  StringCutOff: 5,
  ControlCharacter: 6,
  BadEscape: 7,
  BadUnicodeEscape: 8,
  BadNumber: 9,
  BadLiteral: 10,
  ExpectedName: 11,
  ExpectedColon: 12,
  ExpectedValue: 13,
  /** After a member of an object. */
  ExpectedCommaOrBrace: 14,
  /** After an element of an array. */
  ExpectedCommaOrBracket: 15,
  /** More than whitespace behind the object. */
  Behind: 16,
  TooDeep: 17,
  /** A field of the first level has a reserved name. */
  ReservedName: 18,
  /** A tombstone; told by who goes through the records, not by who looks at bytes. */
  NoValue: 19,
} as const;

export type FaultKind = (typeof FaultKind)[keyof typeof FaultKind];

/** Why a value is not one row of its own. */
export interface ValueFault {
  readonly kind: FaultKind;
  /** The byte of the value that is wrong, counted from 0; of a value that is cut off its length. */
  readonly at: number;
}

/**
 * Objects and arrays within each other, the value itself included. ClickHouse gives up at 1,002 in a field that no
 * column takes, with an error that names no row (code 306; measured, 26.7).
 */
export const MAX_DEPTH = 1000;

/** Names that only this library writes, in the order of the bits of `ReservedNames`. */
export const provenanceNames = ['_topic', '_partition', '_offset', '_timestamp', '_key', '_headers'] as const;

export type ProvenanceName = (typeof provenanceNames)[number];

/**
 * One bit for each name, the first of `provenanceNames` the lowest: fields of the first level that a value must not
 * have.
 */
export type ReservedNames = number;

/** @default none */
export function reservedNames(names: readonly ProvenanceName[]): ReservedNames {
  return names.reduce((bits, name) => bits | (1 << provenanceNames.indexOf(name)), 0);
}

/** To be read after "the value". `data` from `start` up to `end` is the value that `fault` was found in. */
export function faultText({ kind, at }: ValueFault, data: Uint8Array, start = 0, end = data.length): string {
  const value = data.subarray(start, end);
  const found = at < value.length ? byteText(value[at]!) : 'its end';
  switch (kind) {
    case FaultKind.Empty:
      return 'is empty';
    case FaultKind.Blank:
      return 'is nothing but whitespace';
    case FaultKind.NoValue:
      return 'is a tombstone: the message has no value';
    case FaultKind.NotObject:
      return startText(value, at);
    case FaultKind.CutOff:
      return `is cut off at byte ${at}: brackets that it opens are not closed`;
    case FaultKind.StringCutOff:
      return `ends inside of a string, at byte ${at}`;
    case FaultKind.ControlCharacter:
      return `has the control character ${found} in a string, at byte ${at}`;
    case FaultKind.BadEscape:
      return `has an invalid escape in a string, at byte ${at}`;
    case FaultKind.BadUnicodeEscape:
      return `has an invalid \\u escape at byte ${at}`;
    case FaultKind.BadNumber:
      return `has ${found} where a number needs a digit, at byte ${at}`;
    case FaultKind.BadLiteral:
      return `has a word that is not true, false or null, at byte ${at}`;
    case FaultKind.ExpectedName:
      return `has ${found} where a field's name in double quotes is expected, at byte ${at}`;
    case FaultKind.ExpectedColon:
      return `has ${found} where a colon is expected, at byte ${at}`;
    case FaultKind.ExpectedValue:
      return `has ${found} where a JSON value is expected, at byte ${at}`;
    case FaultKind.ExpectedCommaOrBrace:
      return `has ${found} where a comma or a closing brace is expected, at byte ${at}`;
    case FaultKind.ExpectedCommaOrBracket:
      return `has ${found} where a comma or a closing bracket is expected, at byte ${at}`;
    case FaultKind.Behind:
      return value[at] === OPEN_BRACE
        ? `holds more than one object: the next begins at byte ${at}`
        : `goes on after its object, at byte ${at}`;
    case FaultKind.TooDeep:
      return `is nested more than ${MAX_DEPTH} levels deep, at byte ${at}`;
    case FaultKind.ReservedName:
      return (
        `has a field ${nameText(value, at)} of its own, at byte ${at}, which the table's provenance column ` +
        'of that name takes'
      );
  }
}

const OPEN_BRACE = 123;
const QUOTE = 34;
const MAX_NAME_BYTES = 80;

function byteText(byte: number): string {
  return byte > 32 && byte < 127 ? `"${String.fromCharCode(byte)}"` : `0x${byte.toString(16).padStart(2, '0')}`;
}

/** A reserved name as the value writes it, escapes included; it has no quote inside. */
function nameText(value: Uint8Array, at: number): string {
  const close = value.indexOf(QUOTE, at + 1);
  return Buffer.from(value.subarray(at, Math.min(close + 1, at + MAX_NAME_BYTES))).toString('latin1');
}

function startText(value: Uint8Array, at: number): string {
  if (value[at] === 0xef && value[at + 1] === 0xbb && value[at + 2] === 0xbf) return 'begins with a byte order mark';
  const start = String.fromCharCode(value[at] ?? 0);
  if (start === '[') return 'is a JSON array, not an object';
  if (start === '"') return 'is a JSON string, not an object';
  if (/[-0-9]/.test(start)) return 'is a JSON number, not an object';
  const word = Buffer.from(value.subarray(at, at + 5)).toString('latin1');
  if (/^(null|true|false)/.test(word))
    return `is the JSON literal ${word.startsWith('false') ? 'false' : word.slice(0, 4)}, not an object`;
  return `does not begin with an opening brace but with byte 0x${(value[at] ?? 0).toString(16).padStart(2, '0')}`;
}
