/**
 * Room: is a value one JSON object by RFC 8259, and has it no field that is ours? AssemblyScript, made into WebAssembly by
 * `npm run kernel`; strings are passed over sixteen bytes at a time. `../twin.ts` is the same in JavaScript, says more
 * about why, and must give the same answers.
 *
 * The caller owns the memory: it writes values into the window and where they lie into the places. Nothing is allocated.
 */

// Fault kinds, as in `../faults.ts`.
const EMPTY: i32 = 1;
const BLANK: i32 = 2;
const NOT_OBJECT: i32 = 3;
const CUT_OFF: i32 = 4;
const STRING_CUT_OFF: i32 = 5;
const CONTROL_CHARACTER: i32 = 6;
const BAD_ESCAPE: i32 = 7;
const BAD_UNICODE_ESCAPE: i32 = 8;
const BAD_NUMBER: i32 = 9;
const BAD_LITERAL: i32 = 10;
const EXPECTED_NAME: i32 = 11;
const EXPECTED_COLON: i32 = 12;
const EXPECTED_VALUE: i32 = 13;
const EXPECTED_COMMA_OR_BRACE: i32 = 14;
const EXPECTED_COMMA_OR_BRACKET: i32 = 15;
const BEHIND: i32 = 16;
const TOO_DEEP: i32 = 17;
const RESERVED_NAME: i32 = 18;

const MAX_DEPTH: i32 = 1000;

// Memory: a bit for each level (set: an object), a decoded name, the places, the window. No load goes beyond the window's
// end by more than a vector.
const LEVELS: i32 = 0;
const NAME: i32 = 512;
const MAX_NAME_LENGTH: i32 = 10;
const PLACES: i32 = 1024;
const MAX_PLACES: i32 = 16384;
const PLACE_BYTES: i32 = 8;
const WINDOW: i32 = PLACES + MAX_PLACES * PLACE_BYTES;
const VECTOR_BYTES: i32 = 16;
const PAGES: i32 = 8;

/** Where pairs of 32-bit numbers go, where a value begins and where it ends, as addresses. */
export const places: i32 = PLACES;
export const maxPlaces: i32 = MAX_PLACES;
export const window: i32 = WINDOW;
export const windowBytes: i32 = PAGES * 65536 - WINDOW - VECTOR_BYTES;

let faultKind: i32 = 0;
let faultAt: i32 = 0;

/** Of the fault that `check` has found. */
export function kind(): i32 {
  return faultKind;
}

/** Counted from the value's first byte. */
export function position(): i32 {
  return faultAt;
}

/** Index of the first of `count` values that is not one row of its own; -1: every one is. */
export function check(count: i32, names: i32): i32 {
  for (let index = 0; index < count; index++) {
    const start = load<i32>(PLACES + index * PLACE_BYTES);
    const end = load<i32>(PLACES + index * PLACE_BYTES, 4);
    if (isObject(start, end, names)) continue;
    faultAt -= start;
    return index;
  }
  return -1;
}

function isObject(start: i32, end: i32, names: i32): bool {
  let at = space(start, end);
  if (at >= end) return refuse(at == start ? EMPTY : BLANK, at);
  if (load<u8>(at) != 0x7b) return refuse(NOT_OBJECT, at);
  let depth = 1;
  let inObject = true;
  let isFirst = true;
  setLevel(0, true);
  at++;
  while (true) {
    at = space(at, end);
    if (at >= end) return refuse(CUT_OFF, at);
    if (!isFirst || load<u8>(at) != <u8>(inObject ? 0x7d : 0x5d)) {
      if (inObject) {
        at = name(at, end, depth == 1 ? names : 0);
        if (at < 0) return false;
      }
      const byte = load<u8>(at);
      // Only the two opening brackets are so.
      if ((byte & 0xdf) == 0x5b) {
        if (depth == MAX_DEPTH) return refuse(TOO_DEEP, at);
        inObject = byte == 0x7b;
        setLevel(depth, inObject);
        depth++;
        at++;
        isFirst = true;
        continue;
      }
      at = scalar(at, end, byte);
      if (at < 0) return false;
    }
    for (;;) {
      at = space(at, end);
      if (at >= end) return refuse(CUT_OFF, at);
      const byte = load<u8>(at++);
      if (byte == 0x2c) break;
      if (byte != <u8>(inObject ? 0x7d : 0x5d)) return refuse(inObject ? EXPECTED_COMMA_OR_BRACE : EXPECTED_COMMA_OR_BRACKET, at - 1);
      if (--depth == 0) return isOver(at, end);
      inObject = level(depth - 1);
    }
    isFirst = false;
  }
}

// @ts-ignore: decorator
@inline
function setLevel(index: i32, isObject: bool): void {
  const address = LEVELS + (index >> 3);
  const bit: i32 = 1 << (index & 7);
  const others: i32 = <i32>load<u8>(address) & ~bit;
  store<u8>(address, <u8>(isObject ? others | bit : others));
}

// @ts-ignore: decorator
@inline
function level(index: i32): bool {
  return ((<i32>load<u8>(LEVELS + (index >> 3)) >> (index & 7)) & 1) != 0;
}

function refuse(kind: i32, at: i32): bool {
  faultKind = kind;
  faultAt = at;
  return false;
}

function fail(kind: i32, at: i32): i32 {
  faultKind = kind;
  faultAt = at;
  return -1;
}

// @ts-ignore: decorator
@inline
function space(from: i32, end: i32): i32 {
  // A compact text has none: one comparison.
  return from < end && load<u8>(from) <= 32 ? moreSpace(from, end) : from;
}

function moreSpace(from: i32, end: i32): i32 {
  let at = from;
  for (; at < end; at++) {
    const byte = load<u8>(at);
    if (byte != 0x20 && byte != 0x0a && byte != 0x0d && byte != 0x09) break;
  }
  return at;
}

function isOver(from: i32, end: i32): bool {
  const at = space(from, end);
  return at >= end || refuse(BEHIND, at);
}

// @ts-ignore: decorator
@inline
function name(from: i32, end: i32, names: i32): i32 {
  if (load<u8>(from) != 0x22) return fail(EXPECTED_NAME, from);
  let at = string(from, end);
  if (at < 0) return -1;
  if (names != 0 && isReserved(from + 1, at - 1, names)) return fail(RESERVED_NAME, from);
  at = space(at, end);
  if (at >= end) return fail(CUT_OFF, at);
  if (load<u8>(at) != 0x3a) return fail(EXPECTED_COLON, at);
  at = space(at + 1, end);
  return at < end ? at : fail(CUT_OFF, at);
}

// @ts-ignore: decorator
@inline
function scalar(at: i32, end: i32, byte: u8): i32 {
  if (byte == 0x22) return string(at, end);
  if (byte == 0x2d || isDigit(byte)) return number(at, end);
  if (byte == 0x74) return literal(at, end, 0x65757274, 4);
  // Of "false" its last four letters are compared, for its first one was.
  if (byte == 0x66) return literal(at, end, 0x65736c61, 5);
  if (byte == 0x6e) return literal(at, end, 0x6c6c756e, 4);
  return fail(EXPECTED_VALUE, at);
}

function string(open: i32, end: i32): i32 {
  let at = open + 1;
  while (at < end) {
    const bytes = v128.load(at);
    const quote = i8x16.eq(bytes, i8x16.splat(0x22));
    const backslash = i8x16.eq(bytes, i8x16.splat(0x5c));
    const special = i8x16.bitmask(v128.or(v128.or(quote, backslash), i8x16.lt_u(bytes, i8x16.splat(0x20))));
    if (special == 0) {
      at += VECTOR_BYTES;
      continue;
    }
    at += ctz(special);
    // What lies behind the end is another value's.
    if (at >= end) break;
    const byte = load<u8>(at);
    if (byte == 0x22) return at + 1;
    if (byte != 0x5c) return fail(CONTROL_CHARACTER, at);
    at = escape(at, end);
    if (at < 0) return -1;
  }
  return fail(STRING_CUT_OFF, end);
}

/** Gives where it ends. */
function escape(backslash: i32, end: i32): i32 {
  const letter = backslash + 1;
  if (letter >= end) return fail(STRING_CUT_OFF, end);
  switch (load<u8>(letter)) {
    case 0x22:
    case 0x5c:
    case 0x2f:
    case 0x62:
    case 0x66:
    case 0x6e:
    case 0x72:
    case 0x74:
      return letter + 1;
    case 0x75:
      break;
    default:
      return fail(BAD_ESCAPE, backslash);
  }
  for (let at = letter + 1; at <= letter + 4; at++) {
    if (at >= end) return fail(STRING_CUT_OFF, end);
    if (hexDigit(load<u8>(at)) < 0) return fail(BAD_UNICODE_ESCAPE, backslash);
  }
  return letter + 5;
}

function number(from: i32, end: i32): i32 {
  let at = load<u8>(from) == 0x2d ? from + 1 : from;
  if (at < end && load<u8>(at) == 0x30) at++;
  else at = digits(at, end);
  if (at < 0) return -1;
  if (at < end && load<u8>(at) == 0x2e) at = digits(at + 1, end);
  if (at < 0 || at >= end || (load<u8>(at) | 32) != 0x65) return at;
  at++;
  if (at < end && (load<u8>(at) == 0x2b || load<u8>(at) == 0x2d)) at++;
  return digits(at, end);
}

// @ts-ignore: decorator
@inline
function digits(from: i32, end: i32): i32 {
  let at = from;
  while (at < end && isDigit(load<u8>(at))) at++;
  if (at > from) return at;
  return fail(at < end ? BAD_NUMBER : CUT_OFF, at);
}

/** Four letters at once: the whole word, or all of it but its first letter. */
function literal(from: i32, end: i32, letters: u32, length: i32): i32 {
  if (from + length <= end && load<u32>(from + length - 4) == letters) return from + length;
  for (let index = 1; index < length; index++) {
    const at = from + index;
    if (at >= end) return fail(CUT_OFF, at);
    if (load<u8>(at) != <u8>(letters >> (8 * (index - (length - 4))))) return fail(BAD_LITERAL, at);
  }
  return fail(BAD_LITERAL, from);
}

// @ts-ignore: decorator
@inline
function isDigit(byte: u8): bool {
  return byte - 0x30 <= 9;
}

function hexDigit(byte: u8): i32 {
  if (isDigit(byte)) return byte - 0x30;
  const letter = byte | 32;
  return letter >= 0x61 && letter <= 0x66 ? letter - 87 : -1;
}

// @ts-ignore: decorator
@inline
function isReserved(start: i32, end: i32, names: i32): bool {
  const first = load<u8>(start);
  return (first == 0x5f || first == 0x5c) && isReservedName(start, end, names);
}

function isReservedName(start: i32, end: i32, names: i32): bool {
  let length = 0;
  for (let at = start; at < end; at++) {
    let code: i32 = load<u8>(at);
    if (code == 0x5c) {
      if (load<u8>(at + 1) != 0x75) return false;
      code = 0;
      for (let digit = at + 2; digit < at + 6; digit++) code = code * 16 + hexDigit(load<u8>(digit));
      at += 5;
    }
    if (length == MAX_NAME_LENGTH || code == 0 || code >= 128) return false;
    if (code >= 65 && code <= 90) code |= 32;
    store<u8>(NAME + length++, <u8>code);
  }
  // Zeros behind the name, so that it is compared as two numbers.
  memory.fill(NAME + length, 0, 16 - length);
  return (names & bitOf(load<u64>(NAME), load<u64>(NAME, 8))) != 0;
}

/** Names as the numbers that their bytes make, the first byte the lowest; bits as in `../faults.ts`. */
function bitOf(low: u64, high: u64): i32 {
  if (low == 0x6369706f745f && high == 0) return 1; // _topic
  if (low == 0x697469747261705f && high == 0x6e6f) return 2; // _partition
  if (low == 0x74657366666f5f && high == 0) return 4; // _offset
  if (low == 0x617473656d69745f && high == 0x706d) return 8; // _timestamp
  if (low == 0x79656b5f && high == 0) return 16; // _key
  if (low == 0x737265646165685f && high == 0) return 32; // _headers
  return 0;
}
