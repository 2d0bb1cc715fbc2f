/**
 * Is a value one JSON object by RFC 8259, and has it no field that is ours? AssemblyScript, made into WebAssembly by
 * `npm run kernel`; strings are passed over sixteen bytes at a time. `../twin.ts` is the same in JavaScript, says more
 * about why, and must give the same answers.
 *
 * The caller owns the memory: it writes values into the window and where they lie into the places. Nothing is
 * allocated.
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

// Memory: a bit for each level (set: an object), a decoded name, the places, the window. No load goes beyond the
// window's end by more than a vector.
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
/**
 * Where the value ends that is being checked. A zero stands there meanwhile, which stops every loop: none looks for the
 * end.
 */
let valueEnd: i32 = 0;

/** Of the fault that `check` has found. */
export function kind(): i32 {
  return faultKind;
}

/** Counted from the value's first byte. */
export function position(): i32 {
  return faultAt;
}

/**
 * Index of the first of `count` values that is not one row of its own; -1: every one is. The window is left as it was.
 */
export function check(count: i32, names: i32): i32 {
  for (let index = 0; index < count; index++) {
    const start = load<i32>(PLACES + index * PLACE_BYTES);
    const end = load<i32>(PLACES + index * PLACE_BYTES, 4);
    const behind = load<u8>(end);
    store<u8>(end, 0);
    valueEnd = end;
    const isGood = isObject(start, names);
    store<u8>(end, behind);
    if (isGood) continue;
    faultAt -= start;
    return index;
  }
  return -1;
}

function isObject(start: i32, names: i32): bool {
  let at = space(start);
  if (byteAt(at) != 0x7b) {
    if (at < valueEnd) return refuse(NOT_OBJECT, at);
    faultKind = at == start ? EMPTY : BLANK;
    faultAt = at;
    return false;
  }
  let depth = 1;
  let closer: i32 = 0x7d;
  setLevel(0, true);
  at = space(at + 1);
  let isFirst = true;
  while (true) {
    let byte = byteAt(at);
    if (!isFirst || byte != closer) {
      if (closer == 0x7d) {
        if (byte != 0x22) return refuse(EXPECTED_NAME, at);
        at = name(at, depth == 1 ? names : 0);
        if (at < 0) return false;
        byte = byteAt(at);
      }
      if (byte == 0x22) at = string(at);
      // Only the two opening brackets are so.
      else if ((byte & 0xdf) == 0x5b) {
        if (depth == MAX_DEPTH) return refuse(TOO_DEEP, at);
        setLevel(depth++, byte == 0x7b);
        closer = byte + 2;
        at = space(at + 1);
        isFirst = true;
        continue;
      } else at = word(at, byte);
      if (at < 0) return false;
      at = space(at);
    }
    for (byte = byteAt(at); byte != 0x2c; byte = byteAt(at)) {
      if (byte != closer) return refuse(closer == 0x7d ? EXPECTED_COMMA_OR_BRACE : EXPECTED_COMMA_OR_BRACKET, at);
      at = space(at + 1);
      if (--depth == 0) return at == valueEnd || refuse(BEHIND, at);
      closer = closerOf(depth - 1);
    }
    at = space(at + 1);
    isFirst = false;
  }
}

// @ts-ignore: decorator
@inline
function byteAt(at: i32): i32 {
  return <i32>load<u8>(at);
}

// @ts-ignore: decorator
@inline
function setLevel(index: i32, isObject: bool): void {
  const address = LEVELS + (index >> 3);
  const bit: i32 = 1 << (index & 7);
  const others = byteAt(address) & ~bit;
  store<u8>(address, <u8>(isObject ? others | bit : others));
}

// @ts-ignore: decorator
@inline
function closerOf(index: i32): i32 {
  return ((byteAt(LEVELS + (index >> 3)) >> (index & 7)) & 1) != 0 ? 0x7d : 0x5d;
}

function refuse(kind: i32, at: i32): bool {
  fail(kind, at);
  return false;
}

/** Whatever was expected: at the end the value is cut off. */
function fail(kind: i32, at: i32): i32 {
  faultKind = at >= valueEnd ? CUT_OFF : kind;
  faultAt = at;
  return -1;
}

function failInString(kind: i32, at: i32, foundAt: i32): i32 {
  faultKind = foundAt >= valueEnd ? STRING_CUT_OFF : kind;
  faultAt = foundAt >= valueEnd ? valueEnd : at;
  return -1;
}

// @ts-ignore: decorator
@inline
function space(from: i32): i32 {
  // A compact text has none: one comparison.
  return byteAt(from) <= 0x20 ? moreSpace(from) : from;
}

function moreSpace(from: i32): i32 {
  let at = from;
  while (true) {
    const byte = byteAt(at);
    if (byte != 0x20 && byte != 0x0a && byte != 0x0d && byte != 0x09) return at;
    at++;
  }
}

// @ts-ignore: decorator
@inline
function name(from: i32, names: i32): i32 {
  let at = string(from);
  if (at < 0) return -1;
  if (names != 0 && isReserved(from + 1, at - 1, names)) return fail(RESERVED_NAME, from);
  at = space(at);
  if (byteAt(at) != 0x3a) return fail(EXPECTED_COLON, at);
  return space(at + 1);
}

/** What is no string and opens nothing. */
function word(at: i32, byte: i32): i32 {
  if (byte == 0x2d || isDigit(byte)) return number(at, byte);
  if (byte == 0x74) return literal(at, 0x65757274, 4);
  // Of "false" its last four letters are compared, for its first one was.
  if (byte == 0x66) return literal(at, 0x65736c61, 5);
  if (byte == 0x6e) return literal(at, 0x6c6c756e, 4);
  return fail(EXPECTED_VALUE, at);
}

function string(open: i32): i32 {
  let at = open + 1;
  while (true) {
    const bytes = v128.load(at);
    const quote = i8x16.eq(bytes, i8x16.splat(0x22));
    const backslash = i8x16.eq(bytes, i8x16.splat(0x5c));
    const special = i8x16.bitmask(v128.or(v128.or(quote, backslash), i8x16.lt_u(bytes, i8x16.splat(0x20))));
    if (special == 0) {
      at += VECTOR_BYTES;
      continue;
    }
    at += ctz(special);
    const byte = byteAt(at);
    if (byte == 0x22) return at + 1;
    if (byte != 0x5c) return failInString(CONTROL_CHARACTER, at, at);
    at = escape(at);
    if (at < 0) return -1;
  }
}

/** Gives where it ends. */
function escape(backslash: i32): i32 {
  const letter = backslash + 1;
  switch (byteAt(letter)) {
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
      return failInString(BAD_ESCAPE, backslash, letter);
  }
  for (let at = letter + 1; at <= letter + 4; at++) {
    if (hexDigit(byteAt(at)) < 0) return failInString(BAD_UNICODE_ESCAPE, backslash, at);
  }
  return letter + 5;
}

// @ts-ignore: decorator
@inline
function number(from: i32, byte: i32): i32 {
  let at = byte == 0x2d ? from + 1 : from;
  if (byteAt(at) == 0x30) at++;
  else at = digits(at);
  if (at < 0) return -1;
  if (byteAt(at) == 0x2e) {
    at = digits(at + 1);
    if (at < 0) return -1;
  }
  if ((byteAt(at) | 0x20) != 0x65) return at;
  const sign = byteAt(++at);
  return digits(sign == 0x2b || sign == 0x2d ? at + 1 : at);
}

/** One or more. */
function digits(from: i32): i32 {
  let at = from;
  while (true) {
    const values = i8x16.sub(v128.load(at), i8x16.splat(0x30));
    const others = i8x16.bitmask(i8x16.gt_u(values, i8x16.splat(9)));
    if (others != 0) {
      at += ctz(others);
      return at > from ? at : fail(BAD_NUMBER, at);
    }
    at += VECTOR_BYTES;
  }
}

/** Four letters at once: the whole word, or all of it but its first letter. */
function literal(from: i32, letters: u32, length: i32): i32 {
  const last = from + length - 4;
  if (load<u32>(last) == letters) return from + length;
  for (let index = 1; index < length; index++) {
    const at = from + index;
    if (byteAt(at) != <i32>((letters >> (8 * (at - last))) & 0xff)) return fail(BAD_LITERAL, at);
  }
  return fail(BAD_LITERAL, from);
}

// @ts-ignore: decorator
@inline
function isDigit(byte: i32): bool {
  return <u32>(byte - 0x30) <= 9;
}

function hexDigit(byte: i32): i32 {
  if (isDigit(byte)) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 87 : -1;
}

// @ts-ignore: decorator
@inline
function isReserved(start: i32, end: i32, names: i32): bool {
  const first = byteAt(start);
  return (first == 0x5f || first == 0x5c) && isReservedName(start, end, names);
}

function isReservedName(start: i32, end: i32, names: i32): bool {
  let length = 0;
  for (let at = start; at < end; at++) {
    let code = byteAt(at);
    if (code == 0x5c) {
      if (byteAt(at + 1) != 0x75) return false;
      code = 0;
      for (let digit = at + 2; digit < at + 6; digit++) code = code * 16 + hexDigit(byteAt(digit));
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
