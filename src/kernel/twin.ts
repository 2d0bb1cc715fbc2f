/**
 * Is a value one JSON object by RFC 8259, and has it no field that is ours? In JavaScript, a byte at a time. It
 * stands in where WebAssembly has no SIMD and for values larger than the module's memory, and is what the module is
 * held against: both give the same answers and the same positions. Pure.
 *
 * What JSON.parse takes as an object, from the bytes decoded as UTF-8, is accepted, and nothing else; except for
 * - objects and arrays nested deeper than `MAX_DEPTH`;
 * - a field of the first level with a reserved name, if any are reserved.
 * Bytes that are not UTF-8 are left alone inside of strings, as JSON.parse sees U+FFFD in their place.
 * Imports: nothing.
 */
import { FaultKind, MAX_DEPTH, provenanceNames, type ReservedNames, type ValueFault } from './faults.js';

const TAB = 9;
const LINE_FEED = 10;
const RETURN = 13;
const SPACE = 32;
const QUOTE = 34;
const PLUS = 43;
const COMMA = 44;
const MINUS = 45;
const DOT = 46;
const ZERO = 48;
const NINE = 57;
const COLON = 58;
const OPEN_BRACKET = 91;
const BACKSLASH = 92;
const CLOSE_BRACKET = 93;
const UNDERSCORE = 95;
const LOWER_E = 101;
const LOWER_U = 117;
const OPEN_BRACE = 123;
const CLOSE_BRACE = 125;
const HEX_DIGITS = 4;

/** Bytes that may stand behind a backslash, but for `u`. */
const escapes = new Set(Buffer.from('"\\/bfnrt'));
const literals = [Buffer.from('true'), Buffer.from('false'), Buffer.from('null')] as const;

/** JSON's own whitespace, and nothing else. */
export function isSpace(byte: number | undefined): boolean {
  return byte === SPACE || byte === LINE_FEED || byte === RETURN || byte === TAB;
}

/** Why the value, which lies in `data` from `start` up to `end`, is not one row of its own; undefined when it is. */
export function twinFault(
  data: Uint8Array,
  start = 0,
  end = data.length,
  names: ReservedNames = 0,
): ValueFault | undefined {
  const scan = new Scan(data, end);
  if (scan.isObject(start, names)) return undefined;
  return { kind: scan.kind, at: scan.faultAt - start };
}

/** What a step gives when it has found a fault. */
const FAULT = -1;

/** One look at one value. Each step gives where the next one begins, or `FAULT`. */
class Scan {
  kind: FaultKind = FaultKind.Empty;
  faultAt = 0;
  readonly #data: Uint8Array;
  readonly #end: number;
  /** For each level from the outermost on the bracket that closes it. */
  readonly #closers: number[] = [];

  constructor(data: Uint8Array, end: number) {
    this.#data = data;
    this.#end = end;
  }

  isObject(start: number, names: ReservedNames): boolean {
    let at = this.#space(start);
    if (at >= this.#end) return this.#refuse(at === start ? FaultKind.Empty : FaultKind.Blank, at);
    if (this.#data[at] !== OPEN_BRACE) return this.#refuse(FaultKind.NotObject, at);
    at = this.#open(at);
    for (let isFirst = true; ;) {
      at = this.#space(at);
      if (at >= this.#end) return this.#refuse(FaultKind.CutOff, at);
      const closer = this.#closers.at(-1);
      if (!isFirst || this.#data[at] !== closer) {
        if (closer === CLOSE_BRACE) at = this.#name(at, names);
        if (at === FAULT) return false;
        isFirst = this.#data[at] === OPEN_BRACE || this.#data[at] === OPEN_BRACKET;
        at = isFirst ? this.#open(at) : this.#scalar(at);
        if (at === FAULT) return false;
        if (isFirst) continue;
      }
      at = this.#closings(at);
      if (at === FAULT) return false;
      if (this.#closers.length === 0) return this.#isOver(at);
      isFirst = false;
    }
  }

  #refuse(kind: FaultKind, at: number): false {
    this.#fail(kind, at);
    return false;
  }

  #fail(kind: FaultKind, at: number): typeof FAULT {
    this.kind = kind;
    this.faultAt = at;
    return FAULT;
  }

  #space(from: number): number {
    let at = from;
    while (at < this.#end && isSpace(this.#data[at])) at++;
    return at;
  }

  #open(at: number): number {
    if (this.#closers.length === MAX_DEPTH) return this.#fail(FaultKind.TooDeep, at);
    this.#closers.push(this.#data[at] === OPEN_BRACE ? CLOSE_BRACE : CLOSE_BRACKET);
    return at + 1;
  }

  /** A field's name and its colon; gives where the value begins. */
  #name(from: number, names: ReservedNames): number {
    if (this.#data[from] !== QUOTE) return this.#fail(FaultKind.ExpectedName, from);
    const end = this.#string(from);
    if (end === FAULT) return FAULT;
    if (this.#closers.length === 1 && isReserved(this.#data, from + 1, end - 1, names))
      return this.#fail(FaultKind.ReservedName, from);
    const colon = this.#space(end);
    if (colon >= this.#end) return this.#fail(FaultKind.CutOff, colon);
    if (this.#data[colon] !== COLON) return this.#fail(FaultKind.ExpectedColon, colon);
    const value = this.#space(colon + 1);
    return value < this.#end ? value : this.#fail(FaultKind.CutOff, value);
  }

  /** A string, a number or a literal. */
  #scalar(at: number): number {
    const byte = this.#data[at]!;
    if (byte === QUOTE) return this.#string(at);
    if (byte === MINUS || isDigit(byte)) return this.#number(at);
    const literal = literals.find(([first]) => first === byte);
    return literal === undefined ? this.#fail(FaultKind.ExpectedValue, at) : this.#literal(at, literal);
  }

  #string(open: number): number {
    for (let at = open + 1; at < this.#end; at++) {
      const byte = this.#data[at]!;
      if (byte === QUOTE) return at + 1;
      if (byte < SPACE) return this.#fail(FaultKind.ControlCharacter, at);
      if (byte !== BACKSLASH) continue;
      at = this.#escape(at);
      if (at === FAULT) return FAULT;
    }
    return this.#fail(FaultKind.StringCutOff, this.#end);
  }

  /** Gives its last byte. */
  #escape(backslash: number): number {
    const letter = backslash + 1;
    if (letter >= this.#end) return this.#fail(FaultKind.StringCutOff, this.#end);
    if (escapes.has(this.#data[letter]!)) return letter;
    if (this.#data[letter] !== LOWER_U) return this.#fail(FaultKind.BadEscape, backslash);
    for (let at = letter + 1; at <= letter + HEX_DIGITS; at++) {
      if (at >= this.#end) return this.#fail(FaultKind.StringCutOff, this.#end);
      if (hexDigit(this.#data[at]!) < 0) return this.#fail(FaultKind.BadUnicodeEscape, backslash);
    }
    return letter + HEX_DIGITS;
  }

  #number(from: number): number {
    let at = this.#data[from] === MINUS ? from + 1 : from;
    // A zero in front stands alone: what follows it is no part of the number.
    if (this.#data[at] === ZERO && at < this.#end) at++;
    else at = this.#digits(at);
    if (at === FAULT) return FAULT;
    if (at < this.#end && this.#data[at] === DOT) at = this.#digits(at + 1);
    if (at === FAULT || at >= this.#end || (this.#data[at]! | 32) !== LOWER_E) return at;
    const sign = at + 1;
    const isSigned = sign < this.#end && (this.#data[sign] === PLUS || this.#data[sign] === MINUS);
    return this.#digits(isSigned ? sign + 1 : sign);
  }

  /** One or more. */
  #digits(from: number): number {
    let at = from;
    while (at < this.#end && isDigit(this.#data[at]!)) at++;
    if (at > from) return at;
    return this.#fail(at < this.#end ? FaultKind.BadNumber : FaultKind.CutOff, at);
  }

  #literal(from: number, word: Uint8Array): number {
    for (let index = 1; index < word.length; index++) {
      const at = from + index;
      if (at >= this.#end) return this.#fail(FaultKind.CutOff, at);
      if (this.#data[at] !== word[index]) return this.#fail(FaultKind.BadLiteral, at);
    }
    return from + word.length;
  }

  /** What closes behind a value, up to the next comma, or to the end of the outermost object. */
  #closings(from: number): number {
    for (let at = from; ;) {
      at = this.#space(at);
      if (at >= this.#end) return this.#fail(FaultKind.CutOff, at);
      if (this.#data[at] === COMMA) return at + 1;
      const closer = this.#closers.at(-1);
      if (this.#data[at] !== closer)
        return this.#fail(
          closer === CLOSE_BRACE ? FaultKind.ExpectedCommaOrBrace : FaultKind.ExpectedCommaOrBracket,
          at,
        );
      this.#closers.pop();
      at++;
      if (this.#closers.length === 0) return at;
    }
  }

  #isOver(from: number): boolean {
    const at = this.#space(from);
    return at >= this.#end || this.#refuse(FaultKind.Behind, at);
  }
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= NINE;
}

/** -1: it is none. */
function hexDigit(byte: number): number {
  if (isDigit(byte)) return byte - ZERO;
  const letter = byte | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

/**
 * Is it one of the reserved names, as ClickHouse compares them: escapes decoded, letters without case? The name lies
 * between its quotes and is a valid JSON string. All of them begin with an underscore, so most names are told apart by
 * their first byte.
 */
function isReserved(data: Uint8Array, start: number, end: number, names: ReservedNames): boolean {
  const first = start < end ? data[start] : undefined;
  if (first !== UNDERSCORE && first !== BACKSLASH) return false;
  let name = '';
  for (let at = start; at < end; at++) {
    let code = data[at]!;
    if (code === BACKSLASH) {
      if (data[at + 1] !== LOWER_U) return false;
      code = 0;
      for (let digit = at + 2; digit < at + 2 + HEX_DIGITS; digit++) code = code * 16 + hexDigit(data[digit]!);
      at += 1 + HEX_DIGITS;
    }
    // No reserved name is longer, and none has anything but ASCII.
    if (name.length === MAX_NAME_LENGTH || code >= 128) return false;
    name += String.fromCharCode(code >= 65 && code <= 90 ? code | 32 : code);
  }
  const index = (provenanceNames as readonly string[]).indexOf(name);
  return index >= 0 && (names & (1 << index)) !== 0;
}

const MAX_NAME_LENGTH = Math.max(...provenanceNames.map((name) => name.length));
