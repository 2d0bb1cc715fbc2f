import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareRuns, joinDifferences, noDifference, RunBuilder, type Run } from '../../src/tools/offset-runs.js';

const run = (first: number, last: number, rows = 1): Run => ({ first, last, rows });
const none = { count: 0, first: [] };

describe('expected runs against found ones', () => {
  test.each<[string, Run[], Run[], Partial<ReturnType<typeof compareRuns>>]>([
    ['nothing against nothing', [], [], {}],
    ['the same', [run(0, 9)], [run(0, 9)], {}],
    ['the same, cut otherwise', [run(0, 9)], [run(0, 3), run(4, 9)], {}],
    ['a hole in the log is no record', [run(0, 3), run(6, 9)], [run(0, 3), run(6, 9)], {}],
    ['all missing', [run(3, 5)], [], { missing: { count: 3, first: [3, 4] } }],
    ['missing at both ends', [run(0, 9)], [run(1, 8)], { missing: { count: 2, first: [0, 9] } }],
    ['missing in between', [run(0, 9)], [run(0, 3), run(5, 9)], { missing: { count: 1, first: [4] } }],
    ['doubled', [run(0, 9)], [run(0, 3), run(4, 5, 2), run(6, 9)], { doubled: { count: 2, first: [4, 5] } }],
    ['a row in a hole', [run(0, 3), run(6, 9)], [run(0, 9)], { unexpected: { count: 2, first: [4, 5] } }],
    ['rows beyond', [run(0, 3)], [run(0, 5)], { unexpected: { count: 2, first: [4, 5] } }],
    ['rows before', [run(4, 5)], [run(0, 5)], { unexpected: { count: 4, first: [0, 1] } }],
    [
      'of several rows of a record one is missing',
      [run(0, 9, 3)],
      [run(0, 4, 3), run(5, 5, 2), run(6, 9, 3)],
      { missing: { count: 1, first: [5] } },
    ],
    [
      'of several rows of a record one is too many',
      [run(0, 1, 3)],
      [run(0, 0, 3), run(1, 1, 4)],
      { doubled: { count: 1, first: [1] } },
    ],
    [
      'all kinds at once',
      [run(0, 2), run(5, 8)],
      [run(1, 1), run(2, 2, 2), run(3, 3), run(5, 8)],
      { missing: { count: 1, first: [0] }, doubled: { count: 1, first: [2] }, unexpected: { count: 1, first: [3] } },
    ],
  ])('%s', (_name, expected, found, difference) => {
    expect(compareRuns(expected, found, 2)).toEqual({ missing: none, doubled: none, unexpected: none, ...difference });
  });

  test('is what counting offset by offset gives, for any rows', () => {
    const counts = fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 40 });
    const runsOf = (rows: readonly number[]) => {
      const builder = new RunBuilder();
      rows.forEach((count, offset) => builder.add(offset, count));
      return builder.take();
    };
    fc.assert(
      fc.property(counts, counts, (expected, found) => {
        const offsets = Array.from({ length: Math.max(expected.length, found.length) }, (_, offset) => ({
          offset,
          should: expected[offset] ?? 0,
          has: found[offset] ?? 0,
        }));
        const found_ = (kind: (each: (typeof offsets)[number]) => boolean) => {
          const all = offsets.filter(kind).map(({ offset }) => offset);
          return { count: all.length, first: all.slice(0, 3) };
        };
        expect(compareRuns(runsOf(expected), runsOf(found), 3)).toEqual({
          missing: found_(({ should, has }) => has < should),
          doubled: found_(({ should, has }) => should > 0 && has > should),
          unexpected: found_(({ should, has }) => should === 0 && has > 0),
        });
      }),
    );
  });

  test('a long run is not unfolded', () => {
    expect(compareRuns([run(0, 2 ** 52)], [], 1).missing).toEqual({ count: 2 ** 52 + 1, first: [0] });
  });

  test('differences of two windows are joined, and no more offsets are kept than are shown', () => {
    const [a, b] = [compareRuns([run(0, 2)], [], 2), compareRuns([run(5, 5)], [run(5, 5, 2)], 2)];
    expect(joinDifferences(joinDifferences(a, b, 2), a, 2)).toEqual({
      missing: { count: 6, first: [0, 1] },
      doubled: { count: 1, first: [5] },
      unexpected: none,
    });
    expect(joinDifferences(noDifference, noDifference, 2)).toEqual(noDifference);
  });
});

test('the builder makes as few runs as there can be, and leaves out what has no row', () => {
  const builder = new RunBuilder();
  for (const [offset, rows] of [
    [0, 1],
    [1, 1],
    [2, 0],
    [3, 1],
    [4, 2],
    [5, 2],
    [9, 2],
  ] as const)
    builder.add(offset, rows);
  expect(builder.take()).toEqual([run(0, 1), run(3, 3), run(4, 5, 2), run(9, 9, 2)]);
  expect(builder.take()).toEqual([]);
});
