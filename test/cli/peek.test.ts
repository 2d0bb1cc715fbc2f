// What `peek` shows of a record: never bytes that move the cursor, never half of a character, and what it looks like.
import { describe, expect, test } from 'vitest';
import { fromOf, textOf } from '../../src/cli/peek.js';
import { looksLike } from '../../src/sample/looks-like.js';
import type { Peeked } from '../../src/tools/peek.js';

function peeked(value: Buffer | null, fields: Partial<NonNullable<Peeked['record']>> = {}): Peeked {
  const record = { offset: 7, timestampMs: 0, key: null, value, headers: [], ...fields };
  return { topic: 't', partition: 1, offset: 7, record, looksLike: looksLike(value) };
}

describe('a record is shown', () => {
  test('with its place, its time, its key, its headers and what it looks like', () => {
    const record = peeked(Buffer.from('{"id":1}'), {
      key: Buffer.from('k'),
      headers: [['trace', Buffer.from('00-1')]],
    });
    expect(textOf(record, false).split('\n')).toEqual([
      't/1 @ 7  1970-01-01T00:00:00.000Z  a JSON object',
      '  key    k',
      '  header trace: 00-1',
      '  value  {"id":1}',
    ]);
  });

  test('without moving the cursor or the colour of the terminal', () => {
    const text = textOf(peeked(Buffer.from('\x1b[2J\x9b'), { key: Buffer.from('\r') }), true);
    expect(text).toContain('\\x1b[2J\\x9b');
    expect(text).toContain('key    \\x0d');
  });

  test('as bytes where it is no text', () => {
    expect(textOf(peeked(Buffer.from([0, 0, 0, 0, 42, 0xff])), false)).toContain('00 00 00 00 2a ff (6 bytes)');
  });

  test('cut where it is long, between characters, and whole when that is asked for', () => {
    const value = Buffer.from(`{"a":"${'🙂'.repeat(400)}"}`);
    expect(textOf(peeked(value), false)).toMatch(/🙂…\s\(1,?\d{3} bytes\)$/);
    expect(textOf(peeked(value), true)).toContain(value.toString());
  });

  test('where its timestamp is no time', () => {
    expect(textOf(peeked(null, { timestampMs: 8.64e15 + 1 }), false)).toContain('time 8640000000000001');
  });

  test('as what cannot be read, with the reason', () => {
    const unreadable = { topic: 't', partition: 1, offset: 7, record: undefined, looksLike: 'a damaged batch' };
    expect(textOf(unreadable, false)).toBe('t/1 @ 7  cannot be read: a damaged batch');
  });
});

test.each([
  [null, 'a tombstone: no value'],
  [
    Buffer.from('{"op":"c","before":null,"after":{"id":1}}'),
    "a JSON object in Debezium's envelope {before, after, op, …}",
  ],
  [Buffer.from([0, 0, 0, 0, 42, 2, 4]), 'schema id 42'],
  [Buffer.from('[1]'), 'a JSON array'],
  [Buffer.from('a,b'), 'text that is not JSON'],
])('%s looks like what it is', (value, expected) => {
  expect(looksLike(value)).toContain(expected);
});

describe('where to look', () => {
  test.each([
    ['end', { kind: 'end' }],
    ['12', { kind: 'offset', offset: 12 }],
    ['2026-11-30T12:00:00Z', { kind: 'time', timeMs: Date.UTC(2026, 10, 30, 12) }],
    ['2026-11-30T12:00:00+02:00', { kind: 'time', timeMs: Date.UTC(2026, 10, 30, 10) }],
    ['2026-11-30', { kind: 'time', timeMs: Date.UTC(2026, 10, 30) }],
  ])('%s', (text, from) => {
    expect(fromOf(text)).toEqual(from);
  });

  test.each([
    '',
    '-1',
    'yesterday',
    '1e3',
    '99999999999999999999',
    '2026-13-45',
    '2026-02-31',
    '2026-02-31T10:00:00Z',
    '2026-11-30T12:00',
    '1969-12-31',
  ])('%j is refused', (text) => {
    expect(() => fromOf(text)).toThrow(/is no place in a log\. What to do: give beginning, end, an offset/);
  });
});
