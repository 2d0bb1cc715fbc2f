import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ExactNumber, parseExact, stringifyExact } from '../../src/model/exact-json.js';

describe('H4: numbers that no double holds', () => {
  test('H4: keep their digits on the way through a transform, and JSON.parse would change them', () => {
    const text =
      '{"id":9007199254740993,"max":18446744073709551615,"low":-9223372036854775808,"price":1234567890.123456789,"n":1.5,"e":1e3,"nested":[{"id":9007199254740993}]}';
    expect(stringifyExact(parseExact(text))).toBe(text.replace('1e3', '1000'));
    expect(JSON.stringify(JSON.parse(text))).not.toContain('9007199254740993');
  });

  test('integers become a bigint, others an ExactNumber, which counts as the nearest double', () => {
    const { id, price } = parseExact<{ id: bigint; price: ExactNumber }>(
      '{"id":9007199254740993,"price":0.12345678901234567}',
    )!;
    expect(id).toBe(9007199254740993n);
    expect(price).toBeInstanceOf(ExactNumber);
    expect([String(price), Number(price)]).toEqual(['0.12345678901234567', 0.12345678901234567]);
  });

  test('beyond the range of a double they are no Infinity, and no zero', () => {
    expect(stringifyExact(parseExact('[1e400,-1e-400,1e-320,0e99999,0.0]'))).toBe('[1e400,-1e-400,1e-320,0,0]');
  });

  test('JSON.stringify refuses them instead of rounding', () => {
    expect(() => JSON.stringify(parseExact('{"price":12345678901234567.89}'))).toThrow('use stringifyExact');
  });
});

describe('parseExact', () => {
  test('takes bytes and text; a tombstone stays null', () => {
    expect(parseExact(Buffer.from('{"a":"ü"}'))).toEqual({ a: 'ü' });
    expect(parseExact(new TextEncoder().encode('x{"a":1}').subarray(1))).toEqual({ a: 1 });
    expect(parseExact(null)).toBeNull();
  });

  test('throws as JSON.parse does', () => {
    for (const text of ['{', '{"a":1e}', '[1,]', '{"a":00000000000000001}', ''])
      expect(() => parseExact(text), text).toThrow(SyntaxError);
  });

  test('a field __proto__ is a field', () => {
    const parsed = parseExact('{"__proto__":{"id":9007199254740993}}')!;
    expect(Object.keys(parsed)).toEqual(['__proto__']);
    expect(stringifyExact(parsed)).toBe('{"__proto__":{"id":9007199254740993}}');
  });

  test('gives what JSON.parse gives wherever doubles hold the numbers, however it is written', () => {
    // The first number makes it go the long way.
    const spaced = (text: string) => text.replace(/[[\]{},:]/g, (sign) => ` ${sign}\n\t`);
    fc.assert(
      fc.property(fc.json({ noUnicodeString: false }), (text) => {
        const bare = /"(?:[^"\\]|\\.)*"/.test(text) ? text : spaced(text);
        const long = parseExact<unknown[]>(`[12345678901234567890, ${bare}]`)!;
        const expected = JSON.parse(`[0, ${bare}]`) as unknown[];
        // A double of sixteen or seventeen digits is an ExactNumber, of the very same value.
        const plain = (value: unknown): unknown =>
          JSON.parse(JSON.stringify(value, (_, one: unknown) => one) ?? 'null');
        expect(plain(JSON.parse(stringifyExact(long[1])!))).toEqual(plain(expected[1]));
      }),
    );
  });
});

describe('stringifyExact', () => {
  test('is JSON.stringify but for these numbers', () => {
    const value = {
      a: undefined,
      b: [undefined, () => 1],
      c: new Date(0),
      d: NaN,
      e: 'ü"\\',
      f: { toJSON: (key: string) => key },
      g: null,
      h: true,
    };
    expect(stringifyExact({ ...value, id: 1n })).toBe(JSON.stringify({ ...value, id: 1 }));
    expect(stringifyExact(undefined)).toBeUndefined();
  });

  test('refuses a circle, also beside a bigint', () => {
    const circle: Record<string, unknown> = { id: 1n };
    circle['self'] = circle;
    expect(() => stringifyExact(circle)).toThrow('circular');
  });
});
