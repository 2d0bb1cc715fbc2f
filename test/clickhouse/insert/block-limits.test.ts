import { describe, expect, it, test } from 'vitest';
import { fitOf, mayLandForMs, MOST_PARTS, oversized } from '../../../src/clickhouse/insert/block-limits.js';
import { fingerprintOf } from '../../../src/clickhouse/insert/settings.js';
import type { Intent } from '../../../src/model/state.js';
import { record } from '../fixtures.js';

const rows = (...counts: readonly number[]) =>
  counts.flatMap((count, at) => Array.from({ length: count }, () => record(10 + at, '{"a":1}')));
const limits = { rows: 10, bytes: 1_000 };

describe('where a batch is cut', () => {
  it.each([
    ['nothing', [], []],
    ['what fits', [3, 3, 4], []],
    ['one row more', [3, 3, 5], [11]],
    ['records that are a block each', [10, 10, 10], [10, 11]],
    ['many small ones', [4, 4, 4, 4, 4], [11, 13]],
  ])('%s', (_, counts, cuts) => expect(fitOf(rows(...counts), limits)).toEqual({ kind: 'parts', cuts }));

  it('by bytes as well', () =>
    expect(fitOf(rows(1, 1, 1), { rows: 10, bytes: 14 })).toEqual({ kind: 'parts', cuts: [11] }));

  it('nowhere within a record: one that is too large is named, wherever it stands', () => {
    expect(fitOf(rows(1, 11, 1), limits)).toEqual({ kind: 'record', offset: 11, rows: 11, bytes: 77 });
    expect(fitOf(rows(1, 1, 2), { rows: 10, bytes: 13 })).toEqual({ kind: 'record', offset: 12, rows: 2, bytes: 14 });
  });
});

test('a partition whose state has no space for all the parts would halt: only so many are recorded at once', () => {
  const { cuts } = oversized({ replay: false, intent: undefined }, [1, 2, 3, 4, 5, 6, 7], {
    budgetMs: 1,
    settings: '',
  });
  expect(cuts).toEqual([1, 2, 3]);
  expect(cuts.length + 1).toBe(MOST_PARTS);
});

describe('I8: rows that an earlier process may have sent under the whole range are not sent again in parts', () => {
  const sent = { budgetMs: 600_000, settings: 'pinned' };
  const settings = fingerprintOf({ version: '26.7', startedMs: undefined }, 'pinned');
  const recorded: Intent = {
    first: 1,
    last: 9,
    rows: 9,
    atMs: 0,
    settings,
    tables: ['d.t'],
    excluded: [],
    transformVersion: 'v1',
  };
  const told = (fields: Partial<Intent>, replay = true) =>
    mayLandForMs({ replay, intent: { ...recorded, ...fields } }, sent);

  it('none was sent by this process, nor where nothing is recorded', () => {
    expect(told({ transformVersion: undefined as never }, false)).toBeUndefined();
    expect(mayLandForMs({ replay: false, intent: undefined }, sent)).toBeUndefined();
  });

  it('nor by one with the same transform and the same limits', () => expect(told({})).toBeUndefined());

  it.each<[string, Partial<Intent>]>([
    ['the transform has no version', { transformVersion: undefined as never }],
    ['the limits were others', { settings: fingerprintOf({ version: '26.7', startedMs: undefined }, 'others') }],
    ['nothing says what they were', { settings: '' }],
    ['a fill was begun', { isFilling: true }],
    ['the server did not know whether it keeps an attempt', { unknownUntilMs: 5 }],
    ['another program sent it', { token: 'connect' }],
  ])('perhaps, where %s', (_, fields) => expect(told(fields)).toBe(600_000));
});
