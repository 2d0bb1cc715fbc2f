import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  checkByTwin,
  checkValues,
  faultText,
  hasKernel,
  MAX_DEPTH,
  provenanceNames,
  reservedNames,
  twinFault,
  type ValueCursor,
  valueFault,
} from '../../src/kernel/index.js';
import { compareAll } from './differential.js';
import { anyValue, isParsedObject, jsonText, seeded } from './values.js';

const offsetOnly = reservedNames(['_offset']);

/** What both ways say; they must say the same. */
function faultOf(value: string | Buffer, names = 0): string | undefined {
  const data = Buffer.from(value as string);
  const fault = valueFault(data, 0, data.length, names);
  expect(twinFault(data, 0, data.length, names)).toEqual(fault);
  return fault === undefined ? undefined : faultText(fault, data);
}

it('this machine checks with WebAssembly, so both ways are tried below', () => expect(hasKernel()).toBe(true));

describe('a value that is one JSON object passes', () => {
  it.each([
    ['an empty one', '{}'],
    ['whitespace around and inside', ' \t\r\n{ } \n'],
    ['nested ones', '{"a":{"b":{}},"c":[{},{"d":1}],"e":[],"f":[[],[ ]]}'],
    ['brackets in strings', '{"a":"}{][","b":"{"}'],
    ['escapes', '{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00","b\\\\":"\\\\"}'],
    ['half of a surrogate pair: the server keeps it, or names the row', '{"a":"\\ud800","b":"\\udc00"}'],
    ['newlines of a pretty-printed one', '{\n  "a": 1,\n  "b": [\n    2\n  ]\n}'],
    ['text outside of ASCII', '{"é":"日本 😀\u007f\u2028"}'],
    ['every form of number', '{"a":[0,-0,1.5,-2e3,1E+10,1e-7,123456789012345678901234567890,1e400]}'],
    ['literals', '{"a":[true,false,null]}'],
    ['a name twice, and an empty one', '{"a":1,"a":2,"":3}'],
    ['a long string with escapes anywhere', `{"a":"${'x'.repeat(100)}\\n${'y'.repeat(37)}\\u0041"}`],
  ])('%s', (_, text) => expect(faultOf(text)).toBeUndefined());

  it('bytes that are no UTF-8 inside of a string', () => {
    expect(faultOf(Buffer.from([...Buffer.from('{"a":"'), 0xff, 0xc0, 0x80, ...Buffer.from('"}')]))).toBeUndefined();
  });
});

describe('a value that ClickHouse could read as anything but one row is refused, with the byte', () => {
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
    ['\u00a0{}', 'does not begin with an opening brace but with byte 0xc2'],
    ['{"a":1', 'is cut off at byte 6: brackets that it opens are not closed'],
    ['{"a":{"b":[', 'is cut off at byte 11: brackets that it opens are not closed'],
    ['{"a', 'ends inside of a string, at byte 3'],
    ['{"a":"\\', 'ends inside of a string, at byte 7'],
    ['{"a":"\\u12', 'ends inside of a string, at byte 10'],
    ['{"a":"\\"}', 'ends inside of a string, at byte 9'],
    ['{"a":1}{"b":2}', 'holds more than one object: the next begins at byte 7'],
    ['{"a":1}\n{"b":2}\n', 'holds more than one object: the next begins at byte 8'],
    ['{"a":1},', 'goes on after its object, at byte 7'],
    ['{"a":1}}', 'goes on after its object, at byte 7'],
    ['{"a":1}\u0000', 'goes on after its object, at byte 7'],
    ['{"a":[}', 'has "}" where a JSON value is expected, at byte 6'],
    ['{]}', 'has "]" where a field\'s name in double quotes is expected, at byte 1'],
    ['{"s":[1}', 'has "}" where a comma or a closing bracket is expected, at byte 7'],
    ['{"s":{"a":1]}', 'has "]" where a comma or a closing brace is expected, at byte 11'],
    ['{"n":1,"s":[\\"x"]}', 'has "\\" where a JSON value is expected, at byte 12'],
    ['{"n"\\:1}', 'has "\\" where a colon is expected, at byte 4'],
    ['{"a":1,}', 'has "}" where a field\'s name in double quotes is expected, at byte 7'],
    ['{"a":[1,]}', 'has "]" where a JSON value is expected, at byte 8'],
    ['{a:1}', 'has "a" where a field\'s name in double quotes is expected, at byte 1'],
    ["{'a':1}", 'has "\'" where a field\'s name in double quotes is expected, at byte 1'],
    ['{"a" 1}', 'has "1" where a colon is expected, at byte 5'],
    ['{"a":1 "b":2}', 'has """ where a comma or a closing brace is expected, at byte 7'],
    ['{"a":oops}', 'has "o" where a JSON value is expected, at byte 5'],
    ['{"a":NaN}', 'has "N" where a JSON value is expected, at byte 5'],
    ['{"a":-Infinity}', 'has "I" where a number needs a digit, at byte 6'],
    ['{"a":+1}', 'has "+" where a JSON value is expected, at byte 5'],
    ['{"a":01}', 'has "1" where a comma or a closing brace is expected, at byte 6'],
    ['{"a":.5}', 'has "." where a JSON value is expected, at byte 5'],
    ['{"a":5.}', 'has "}" where a number needs a digit, at byte 7'],
    ['{"a":1e}', 'has "}" where a number needs a digit, at byte 7'],
    ['{"a":nulL}', 'has a word that is not true, false or null, at byte 8'],
    ['{"a":fa1se}', 'has a word that is not true, false or null, at byte 7'],
    ['{"a":"\t"}', 'has the control character 0x09 in a string, at byte 6'],
    ['{"a\n":1}', 'has the control character 0x0a in a string, at byte 3'],
    ['{"a":"\\x"}', 'has an invalid escape in a string, at byte 6'],
    ['{"a":"\\u"}', 'has an invalid \\u escape at byte 6'],
    ['{"a":"\\u12g4"}', 'has an invalid \\u escape at byte 6'],
    ['{"a":/* no */1}', 'has "/" where a JSON value is expected, at byte 5'],
    ['{\u0001}', "has 0x01 where a field's name in double quotes is expected, at byte 1"],
  ])('%j %s', (text, fault) => expect(faultOf(text)).toBe(fault));

  it('one nested deeper than the server reads in a field without a column', () => {
    const nested = (depth: number) => `{"a":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`;
    expect(faultOf(nested(MAX_DEPTH))).toBeUndefined();
    expect(faultOf(nested(MAX_DEPTH + 1))).toBe(`is nested more than 1000 levels deep, at byte ${5 + MAX_DEPTH - 1}`);
  });
});

describe('a field that a provenance column takes is refused, however its name is written', () => {
  it.each([
    ['{"n":1,"_offset":7}', '"_offset"', 7],
    ['{"_offset":7,"n":1}', '"_offset"', 1],
    ['{"n":1,"_OFFSET":7}', '"_OFFSET"', 7],
    ['{"n":1,"\\u005foffset":7}', '"\\u005foffset"', 7],
    ['{"n":1,"_\\u004Fff\\u0073et" : null}', '"_\\u004Fff\\u0073et"', 7],
  ])('%s', (text, name, at) => {
    expect(faultOf(text, offsetOnly)).toBe(
      `has a field ${name} of its own, at byte ${at}, which the table's provenance column of that name takes`,
    );
    expect(faultOf(text)).toBeUndefined();
  });

  it.each(provenanceNames)('%s, and only where it is reserved', (name) => {
    const value = `{"n":1,${JSON.stringify(name.toUpperCase())}:7}`;
    expect(faultOf(value, reservedNames([name]))).toMatch(/^has a field/);
    expect(faultOf(value, reservedNames(provenanceNames.filter((other) => other !== name)))).toBeUndefined();
  });

  it.each([
    '{"n":{"_offset":7}}',
    '{"n":[{"_offset":7}]}',
    '{"n":"_offset"}',
    '{"_offsets":7}',
    '{"_offse":7}',
    '{"offset":7}',
    '{"_of\u017fset":7}',
    '{"_offset\\u0000":7}',
    '{"\\\\_offset":7}',
    '{"_":7}',
    '{"":7}',
    '{"\\u005f":7}',
    '{"_off\\/set":7}',
  ])('%s is another field', (text) => expect(faultOf(text, 63)).toBeUndefined());
});

describe('held against JSON.parse', () => {
  it('twenty thousand seeded values are judged alike by module, twin and JSON.parse, byte positions too', () => {
    const { values, accepted, faults } = compareAll(20_261_130, 20_000);
    expect(values).toBe(20_000);
    expect(accepted).toBeGreaterThan(5_000);
    // Every kind of fault but depth, which has a test of its own, and absence, which is no matter of bytes.
    expect([...faults.keys()].sort((a, b) => a - b)).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18,
    ]);
  }, 60_000);

  it('every object that JSON.stringify writes passes, and no other value does', () => {
    fc.assert(
      fc.property(fc.jsonValue({ stringUnit: 'binary' }), fc.nat(4), (value, indent) => {
        const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
        expect(faultOf(JSON.stringify(value, null, indent)) === undefined).toBe(isObject);
      }),
    );
  });

  it('every beginning of an object is refused', () => {
    const random = seeded(7);
    for (let round = 0; round < 20; round++) {
      const value = Buffer.from(`{"a":${jsonText(random, 3, 0)},"é":"\\u00e9"}`);
      expect(faultOf(value)).toBeUndefined();
      for (let length = 0; length < value.length; length++) expect(faultOf(value.subarray(0, length))).toBeDefined();
    }
  });
});

function cursorOf(
  values: readonly { readonly data: Buffer; readonly start: number; readonly length: number }[],
): ValueCursor {
  let index = -1;
  return {
    next: () => ++index < values.length,
    get data() {
      return values[index]!.data;
    },
    get valueStart() {
      return values[index]!.start;
    },
    get valueLength() {
      return values[index]!.length;
    },
  };
}

describe('many values at a time', () => {
  const good = Buffer.from('{"id":1,"name":"some text"}');
  const bad = Buffer.from('{"id":[1}');
  const own = (data: Buffer) => ({ data, start: 0, length: data.length });

  /** Whatever lies between them and in however many buffers they lie. */
  it('the first wrong one is found wherever values lie', () => {
    const random = seeded(11);
    for (let round = 0; round < 300; round++) {
      const values: { data: Buffer; start: number; length: number }[] = [];
      let expected = -1;
      for (let buffers = 1 + Math.floor(random() * 4); buffers > 0; buffers--) {
        const parts = Array.from({ length: Math.floor(random() * 6) }, () => ({
          gap: Buffer.alloc(Math.floor(random() * (random() < 0.1 ? 3000 : 12)), '"{[\\'),
          value: random() < 0.9 ? Buffer.from(jsonObject(random)) : anyValue(random),
        }));
        const data = Buffer.concat(parts.flatMap(({ gap, value }) => [gap, value]));
        let at = 0;
        for (const { gap, value } of parts) {
          if (expected < 0 && !isParsedObject(value)) expected = values.length;
          values.push({ data, start: at + gap.length, length: value.length });
          at += gap.length + value.length;
        }
      }
      const found = checkValues(cursorOf(values));
      expect(found.fault?.index ?? -1).toBe(expected);
      const byTwin = checkByTwin(cursorOf(values));
      expect(byTwin.fault).toEqual(found.fault);
      const bytes = values.reduce((sum, { length }) => sum + length, 0);
      if (expected < 0) expect([found.bytes, byTwin.bytes]).toEqual([bytes, bytes]);
    }
  });

  it.each([16_384, 16_385, 40_000])('of %i values the last is looked at, too', (count) => {
    const values = Array.from({ length: count }, () => own(good));
    expect(checkValues(cursorOf(values)).fault).toBeUndefined();
    values[count - 1] = own(bad);
    expect(checkValues(cursorOf(values)).fault).toMatchObject({ index: count - 1, at: 8 });
  });

  it.each([100_000, 131_072, 200_000, 392_176, 392_177, 3_000_000])(
    'a value of %i bytes is checked whole, and so are its neighbours',
    (size) => {
      const large = Buffer.from(`{"a":"${'x'.repeat(size - 8)}"}`);
      const spoiled = Buffer.from(large);
      spoiled[size - 3] = 10;
      const before = own(good);
      expect(large.length).toBe(size);
      expect(checkValues(cursorOf([before, own(large), before, own(large), before])).fault).toBeUndefined();
      expect(checkValues(cursorOf([before, own(large), own(spoiled), before])).fault).toMatchObject({
        index: 2,
        at: size - 3,
      });
      expect(checkValues(cursorOf([before, own(bad), own(spoiled)])).fault).toMatchObject({ index: 1 });
      expect(checkValues(cursorOf([own(large), before, own(bad)])).fault).toMatchObject({ index: 2 });
    },
  );

  it('a tombstone is told at its place, unless a value before it is wrong', () => {
    const none = { data: good, start: 0, length: -1 };
    expect(checkValues(cursorOf([own(good), none, own(bad)])).fault).toMatchObject({ index: 1 });
    expect(checkValues(cursorOf([own(bad), none])).fault).toMatchObject({ index: 0 });
    const { fault } = checkByTwin(cursorOf([none]));
    expect(faultText(fault!, good)).toBe('is a tombstone: the message has no value');
  });

  it('values whose cursor threw leave nothing behind for the next ones', () => {
    const broken: ValueCursor = {
      ...own(bad),
      valueStart: 0,
      valueLength: bad.length,
      next: vi
        .fn()
        .mockReturnValueOnce(true)
        .mockImplementation(() => {
          throw new Error('gone');
        }),
    };
    expect(() => checkValues(broken)).toThrow('gone');
    expect(checkValues(cursorOf([own(good)])).fault).toBeUndefined();
  });
});

describe('where WebAssembly cannot be had', () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.resetModules();
  });

  it.each([
    ['at all', undefined],
    ['with SIMD', { validate: () => false }],
  ])('%s, the twin does it', async (_, engine) => {
    vi.stubGlobal('WebAssembly', engine);
    vi.resetModules();
    const kernel = await import('../../src/kernel/index.js');
    expect(kernel.hasKernel()).toBe(false);
    expect(kernel.valueFault(Buffer.from('{"a":1}'))).toBeUndefined();
    expect(kernel.valueFault(Buffer.from('{"a":[}'))).toEqual({ kind: kernel.FaultKind.ExpectedValue, at: 6 });
  });
});

function jsonObject(random: () => number): string {
  return `{"a":${jsonText(random, 2, 0)}}`;
}
