// What a look may conclude, case by case.
import { describe, expect, test } from 'vitest';
import {
  type Evidence,
  evidenceOf,
  isSameTable,
  tableDoubt,
  type TableNow,
  withoutEvidence,
  witnessRange,
} from '../../../src/clickhouse/verify/evidence.js';
import type { TableRecord } from '../../../src/model/state.js';

const written: TableRecord = { id: 'a', columns: 'tpo-1', shape: 's', alteredS: 100, mutation: 3 };
const now: TableNow = { ...written, family: 'plain', keepsTokens: true };
const kindOf = (record: TableRecord | undefined, table: TableNow): Evidence['kind'] =>
  evidenceOf(record === undefined ? {} : { written: record }, table).kind;

/** A record, or a table, that lacks a field. */
function without<T extends object>(from: T, field: keyof T): T {
  return Object.fromEntries(Object.entries(from).filter(([name]) => name !== field)) as T;
}

describe('I15: what is not seen', () => {
  test('is missing where nothing was altered since the range was recorded', () => {
    expect(kindOf(written, now)).toBe('full');
    expect(
      kindOf(without(without(written, 'alteredS'), 'mutation'), without(without(now, 'alteredS'), 'mutation')),
    ).toBe('full');
  });

  test('says nothing of another table that stands under the name', () =>
    expect(kindOf(written, { ...now, id: 'b' })).toBe('elsewhere'));

  test.each([
    ['no column at all', ''],
    ['no offset', 'tp-1'],
    ['no partition', 'to-1'],
    ['no topic, so that rows of another one may stand for them', 'po-1'],
    ['only columns by which nothing is looked for', 'skh-1'],
  ])('says nothing where the rows were sent with %s', (_, columns) => {
    expect(kindOf({ ...written, columns }, now)).toBe('none');
  });

  test.each([
    ['dropped or renamed', 'tp-1'],
    ['given another type', 'tpo-2'],
  ])('says nothing where a column was %s', (_, columns) => {
    expect(kindOf(written, { ...now, columns, alteredS: 200 })).toBe('none');
  });

  test.each<[string, TableRecord, TableNow]>([
    ['was altered', written, { ...now, alteredS: 101 }],
    ['had a column emptied', written, { ...now, mutation: 4 }],
    ['may have been altered: when, it said then', written, without(now, 'alteredS')],
    ['may have been altered: when, it says only now', without(written, 'alteredS'), now],
    ['may be another one: the database says so only now', without(written, 'id'), now],
  ])('is missing only with a witness where the table %s', (_, record, table) =>
    expect(kindOf(record, table)).toBe('witness'),
  );

  test('is missing only with a witness where the range says nothing of its table', () =>
    expect(kindOf(undefined, now)).toBe('witness'));

  test('is missing where nothing was promised', () =>
    expect(evidenceOf(undefined, { ...now, columns: '' }).kind).toBe('full'));
});

describe('I15: a witness', () => {
  const range = { first: 500_000, last: 500_099, written };

  test('is a row below everything that was not settled when the range was recorded: what was in doubt beside it may be younger than the alteration', () => {
    expect(witnessRange({ ...range, floor: 499_000 })).toEqual({ first: 399_000, last: 498_999 });
    expect(witnessRange(range)).toEqual({ first: 400_000, last: 499_999 });
  });

  test('is never the offset 0, which rows have that were there before the column; nor is one offset enough', () => {
    expect(witnessRange({ first: 3, last: 9, written })).toEqual({ first: 1, last: 2 });
    expect(witnessRange({ first: 2, last: 9, written })).toBeUndefined();
    expect(witnessRange({ first: 0, last: 9, written })).toBeUndefined();
  });

  test('of a range that says nothing of its table is one of the batch before it', () => {
    expect(witnessRange({ first: 500_000, last: 500_999, floor: 499_000 })).toEqual({ first: 498_000, last: 498_999 });
    expect(witnessRange({ first: 500_000, last: 500_000 })).toEqual({ first: 499_900, last: 499_999 });
  });
});

describe('I15: a token', () => {
  const range = { written, atMs: 1_000 };

  test('is relied on while nothing was altered', () => expect(tableDoubt(range, now)).toBeUndefined());

  test('of a replicated table is relied on where a look shows nothing: each replica has a time of its own', () => {
    expect(tableDoubt(range, { ...now, family: 'replicated', alteredS: 101 })).toMatchObject({ mayTrust: true });
    expect(
      tableDoubt({ ...range, written: { ...written, columns: '' } }, { ...now, family: 'replicated', alteredS: 101 }),
    ).toBeUndefined();
  });

  test('is not relied on where the table keeps none, or was seen without since', () => {
    expect(tableDoubt(range, { ...now, keepsTokens: false })).toMatchObject({
      mayTrust: false,
      why: expect.stringContaining('dedup window is 0') as string,
    });
    expect(tableDoubt(range, { ...now, forgotMs: 1_000 })).toMatchObject({ mayTrust: false });
    expect(tableDoubt(range, { ...now, forgotMs: 999 })).toBeUndefined();
  });

  test('is not relied on in another table', () =>
    expect(tableDoubt(range, { ...now, id: 'b' })).toMatchObject({ mayTrust: false }));

  test('is not relied on where the table was altered and has the same columns: its window may have been 0 meanwhile', () => {
    expect(tableDoubt(range, { ...now, alteredS: 101 })).toMatchObject({ mayTrust: false });
  });

  test('is relied on where other columns explain the alteration, but not before a look that can show something', () => {
    expect(tableDoubt(range, { ...now, alteredS: 101, shape: 'other' })).toMatchObject({ mayTrust: true });
    expect(
      tableDoubt({ ...range, written: { ...written, columns: '' } }, { ...now, alteredS: 101, shape: 'other' }),
    ).toBeUndefined();
  });

  test('comes after a look where the database does not tell when a table was altered: its window may have been 0 meanwhile', () => {
    const { alteredS: _, ...untold } = now;
    const { alteredS: __, ...unrecorded } = written;
    expect(tableDoubt(range, untold)).toMatchObject({ mayTrust: true });
    expect(tableDoubt({ ...range, written: unrecorded }, now)).toMatchObject({ mayTrust: true });
    expect(tableDoubt({ ...range, written: { ...unrecorded, columns: '' } }, untold)).toBeUndefined();
  });

  test('of a version that said nothing is relied on as that version did', () =>
    expect(tableDoubt({ atMs: 1_000 }, { ...now, alteredS: 101 })).toBeUndefined());
});

test('I15: where a look shows nothing, only a trusted token or an unbroken run of the server lets the range go on', () => {
  expect(withoutEvidence('before', { mayTrust: true, isSameRun: false })).toBe('send');
  expect(withoutEvidence('before', { mayTrust: false, isSameRun: true })).toBe('halt');
  expect(withoutEvidence('after', { mayTrust: true, isSameRun: true })).toBe('settle');
  expect(withoutEvidence('after', { mayTrust: true, isSameRun: false })).toBe('halt');
});

test.each<[string, TableNow]>([
  ['exchanged', { ...now, id: 'b' }],
  ['altered', { ...now, alteredS: 101 }],
  ['changed by a mutation', { ...now, mutation: 4 }],
  ['given other columns', { ...now, columns: 'tp-1' }],
  ['given other columns', { ...now, shape: 'x' }],
  ['left without a window', { ...now, keepsTokens: false }],
  ['seen without a window', { ...now, forgotMs: 5 }],
])('a table is not the same when it was %s', (_, other) => {
  expect(isSameTable(now, { ...now })).toBe(true);
  expect(isSameTable(now, other)).toBe(false);
});
