import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BackslashSearch, objectFault } from '../../src/clickhouse/json-object.js';

const faultOf = (text: string): string | undefined => objectFault(Buffer.from(text));

describe('a value that is exactly one object passes', () => {
  it.each([
    ['an empty one', '{}'],
    ['whitespace around and inside', ' \t\r\n{ } \n'],
    ['nested ones', '{"a":{"b":{}},"c":[{},{"d":1}]}'],
    ['braces in strings', '{"a":"}{","b":"{"}'],
    ['escaped quotes', '{"a":"\\"}","b\\\\":"\\\\"}'],
    ['escaped code units', '{"a":"\\u00e9\\uD83D\\uDE00"}'],
    ['newlines of a pretty-printed one', '{\n  "a": 1,\n  "b": [\n    2\n  ]\n}'],
    ['text outside of ASCII', '{"é":"日本 😀"}'],
    ['what only the server can judge', '{"a":oops}'],
  ])('%s', (_, text) => expect(faultOf(text)).toBeUndefined());
});

describe('a value that would shift the row numbers of its neighbours is refused', () => {
  it.each([
    ['', 'is empty'],
    [' \n', 'is nothing but whitespace'],
    ['null', 'is the JSON literal null, not an object'],
    ['true', 'is the JSON literal true, not an object'],
    ['false', 'is the JSON literal false, not an object'],
    ['[{"a":1}]', 'is a JSON array, not an object'],
    ['"text"', 'is a JSON string, not an object'],
    ['-1', 'is a JSON number, not an object'],
    ['oops', 'does not begin with an opening brace but with byte 0x6f'],
    ['}', 'does not begin with an opening brace but with byte 0x7d'],
    ['\u{feff}{}', 'begins with a byte order mark'],
    ['{"a":1', 'is cut off: 1 closing brace is missing'],
    ['{"a":{"b":[', 'is cut off: 2 closing braces are missing'],
    ['{"a', 'ends inside of a string'],
    ['{"a":"\\', 'ends inside of a string'],
    ['{"a":"\\"}', 'ends inside of a string'],
    ['{"a":1}{"b":2}', 'holds more than one object'],
    ['{"a":1}\n{"b":2}\n', 'holds more than one object'],
    ['{"a":1},', 'goes on after its object, at byte 7'],
    ['{"a":1}}', 'goes on after its object, at byte 7'],
    ['{"a":"\\u"}', 'has an invalid \\u escape at byte 6'],
    ['{"a":"\\u12g4"}', 'has an invalid \\u escape at byte 6'],
    ['\u00a0{}', 'does not begin with an opening brace but with byte 0xc2'],
  ])('%j %s', (text, fault) => expect(faultOf(text)).toBe(fault));
});

const object = fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue({ stringUnit: 'binary' }), { noNullPrototype: true });
const space = fc.string({ unit: fc.constantFrom(' ', '\n', '\r', '\t'), maxLength: 3 });
/** Short texts out of what matters to the scan, so that about every way to be wrong comes up. */
const soup = fc.string({ unit: fc.constantFrom('{', '}', '[', ']', '"', '\\', ':', ',', ' ', '\n', 'a', '1', 'u', 'null', '"a":', '{}'), maxLength: 14 });

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

describe('held against JSON.parse', () => {
  it('every object passes, also pretty-printed and with whitespace around it', () => {
    fc.assert(
      fc.property(object, fc.nat(4), space, space, (value, indent, before, after) => {
        expect(faultOf(before + JSON.stringify(value, null, indent) + after)).toBeUndefined();
      }),
    );
  });

  it('every other JSON value is refused', () => {
    fc.assert(
      fc.property(fc.jsonValue({ stringUnit: 'binary' }), space, (value, around) => {
        fc.pre(value === null || typeof value !== 'object' || Array.isArray(value));
        expect(faultOf(around + JSON.stringify(value) + around)).toBeTypeOf('string');
      }),
    );
  });

  it('two objects, a part of one, and one with something around it are refused', () => {
    const junk = fc.string({ minLength: 1 }).filter((text) => text.trim() !== '');
    fc.assert(
      fc.property(object, object, junk, fc.nat(), (one, other, extra, cut) => {
        const text = JSON.stringify(one);
        expect(faultOf(text + JSON.stringify(other))).toBeTypeOf('string');
        expect(faultOf(text.slice(0, cut % text.length))).toBeTypeOf('string');
        expect(faultOf(text + extra)).toBeTypeOf('string');
        if (!extra.trim().startsWith('{')) expect(faultOf(extra + text)).toBeTypeOf('string');
      }),
    );
  });

  it('of any text made of JSON’s own marks, what passes is one object or nothing JSON.parse would take', () => {
    fc.assert(
      fc.property(soup, (text) => {
        const value = parsed(text);
        const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
        if (value !== undefined) expect(faultOf(text) === undefined).toBe(isObject);
        // What passes is never two values to a parser that stops where an object ends.
        if (faultOf(text) === undefined) expect(text.trim().at(-1)).toBe('}');
      }),
      { numRuns: 5_000 },
    );
  });
});

/** As plain as it gets: a byte at a time. */
function isOneObject(value: Buffer): boolean {
  const text = value.toString('latin1').replace(/^[ \n\r\t]+|[ \n\r\t]+$/g, '');
  if (!text.startsWith('{')) return false;
  let [depth, inString] = [0, false];
  for (let at = 0; at < text.length; at++) {
    const char = text[at]!;
    if (inString && char === '\\') {
      if (text[at + 1] === 'u' && !/^[0-9a-fA-F]{4}$/.test(text.slice(at + 2, at + 6))) return false;
      at++;
    } else if (char === '"') inString = !inString;
    else if (!inString && char === '{') depth++;
    else if (!inString && char === '}' && --depth === 0) return at === text.length - 1;
  }
  return false;
}

it('values of any length are judged alike, also among others, whose quotes and backslashes are not theirs', () => {
  const run = fc.tuple(fc.constantFrom('x', ' ', 'a"', '\\"', '\\\\', '\\u00e9', '\\u00', '{', '}'), fc.nat(150)).map(([text, times]) => text.repeat(text.length > 1 ? times % 3 : times));
  const long = fc.array(run, { maxLength: 8 }).map((runs) => `{"a":"${runs.join('')}"}`);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.oneof(long, soup), fc.constantFrom('', '"', '\\', '}', '{"')), { minLength: 1, maxLength: 5 }), (values) => {
      const data = Buffer.from(values.map(([value, between]) => between + value).join(''));
      const search = new BackslashSearch();
      let at = 0;
      for (const [value, between] of values) {
        at += between.length;
        const bytes = Buffer.from(value);
        expect(objectFault(data, at, at + bytes.length, search) === undefined, value).toBe(isOneObject(bytes));
        at += bytes.length;
      }
    }),
    { numRuns: 2000 },
  );
});
