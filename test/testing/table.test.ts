// The simulated table against what was measured of the real one: `docs/guarantees.md` and the dedup notes it rests on.
import { describe, expect, test } from 'vitest';
import { SimulatedTable, type Row, type TableConfig } from '../../src/testing/index.js';

const row = (offset: number): Row => ({ topic: 't', partition: 0, offset, timestampMs: offset, value: null });
const rows = (...offsets: readonly number[]) => offsets.map(row);
const found = (table: SimulatedTable) => table.rows.map(({ offset }) => offset).sort((a, b) => a - b);
const table = (config: TableConfig = {}) => new SimulatedTable(config);
const now = { nowMs: 0 };
const byParity = { partitionBy: ({ offset }: Row) => String(offset % 2) };

describe('tokens', () => {
  test('the same token again: nothing is added, be the rows others', () => {
    const t = table();
    t.insert(rows(1, 2), 'T', now);
    t.insert(rows(1, 2), 'T', now);
    t.insert(rows(3), 'T', now);
    expect(found(t)).toEqual([1, 2]);
  });

  test('no token: nothing protects', () => {
    const t = table();
    t.insert(rows(1), undefined, now);
    t.insert(rows(1), undefined, now);
    expect(found(t)).toEqual([1, 1]);
  });

  test('are of a ClickHouse partition: what is missing in one is added, what is there in another is not', () => {
    const t = table(byParity);
    t.insert(rows(2), 'T', now);
    t.insert(rows(1, 2, 4), 'T', now);
    expect(found(t)).toEqual([1, 2]);
  });

  test('are of a block: other blocks on a retry double rows (first many, then one)', () => {
    const t = table();
    t.insert(rows(1, 2, 3, 4), 'T', { nowMs: 0, blockRows: 4 });
    t.insert(rows(1, 2, 3, 4), 'T', { nowMs: 0, blockRows: 2 });
    expect(found(t)).toEqual([1, 2, 3, 3, 4, 4]);
  });
});

describe('the window', () => {
  test('forgets the oldest first, and a hit makes no entry younger', () => {
    const t = table({ dedupWindow: 3 });
    for (const n of [1, 2, 3, 4, 5]) t.insert(rows(n), `w${n}`, now);
    for (const n of [5, 4, 3]) t.insert(rows(n), `w${n}`, now);
    expect(found(t)).toEqual([1, 2, 3, 4, 5]);
    t.insert(rows(2), 'w2', now);
    expect(found(t)).toEqual([1, 2, 2, 3, 4, 5]);
  });

  test('counts blocks, not inserts', () => {
    const t = table({ dedupWindow: 4, partitionBy: ({ offset }) => String(offset) });
    const ten = rows(1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    t.insert(ten, 'T', now);
    t.insert(ten, 'T', now);
    expect(t.rows).toHaveLength(20);
  });

  test('forgets by age', () => {
    const t = table({ dedupWindowMs: 1000 });
    t.insert(rows(1), 'T', { nowMs: 0 });
    t.insert(rows(1), 'T', { nowMs: 1000 });
    expect(found(t)).toEqual([1]);
    t.insert(rows(1), 'T', { nowMs: 1001 });
    expect(found(t)).toEqual([1, 1]);
  });

  test('is filled by other writers too', () => {
    const t = table({ dedupWindow: 3 });
    t.insert(rows(1), 'T', now);
    t.fillWindow(3, 0);
    t.insert(rows(1), 'T', now);
    expect(found(t)).toEqual([1, 1]);
    expect(t.knownBlocks()).toHaveLength(3);
  });
});

describe('a kill between token and part', () => {
  test('leaves the token without the rows: the retry is answered with success and adds nothing', () => {
    const t = table();
    expect(() => t.insert(rows(1, 2), 'T', { nowMs: 0, dieAtBlock: 0 })).toThrow('died');
    t.insert(rows(1, 2), 'T', now);
    expect(found(t)).toEqual([]);
    t.insert(rows(1, 2), 'T:fill1', now);
    expect(found(t)).toEqual([1, 2]);
  });

  test('loses the ClickHouse partition that was being written; the retry brings those behind it', () => {
    const t = table(byParity);
    expect(() => t.insert(rows(1, 2, 3), 'T', { nowMs: 0, dieAtBlock: 0 })).toThrow('died');
    t.insert(rows(1, 2, 3), 'T', now);
    expect(found(t)).toEqual([2]);
  });
});

describe('views and poison', () => {
  test('a view is given the block again, and its own window takes it only once', () => {
    const t = table({ views: ['v'] });
    t.insert(rows(1), 'T', now);
    t.insert(rows(1), 'T', now);
    expect(t.views.get('v')).toHaveLength(1);
  });

  test('a row that is refused refuses the whole insert, and takes no token', () => {
    const t = table({ isPoison: ({ offset }) => offset === 2 });
    expect(() => t.insert(rows(1, 2, 3), 'T', now)).toThrow('refused');
    t.insert(rows(1, 3), 'T', now);
    expect(found(t)).toEqual([1, 3]);
    t.mend();
    t.insert(rows(2), 'T2', now);
    expect(found(t)).toEqual([1, 2, 3]);
  });
});
