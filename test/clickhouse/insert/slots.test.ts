import { describe, expect, it } from 'vitest';
import { InsertSlots, type Slot } from '../../../src/clickhouse/insert/slots.js';

const never = new AbortController().signal;

describe('slots', () => {
  it('no more inserts are in flight than there are slots; the longest waiting comes next', async () => {
    const slots = new InsertSlots(2);
    const got: number[] = [];
    const taken: Slot[] = [];
    const asked = [1, 2, 3, 4].map(async (who) => {
      const slot = await slots.take(never);
      got.push(who);
      taken.push(slot);
    });
    await Promise.all(asked.slice(0, 2));
    expect(got).toEqual([1, 2]);
    taken[0]?.free();
    await asked[2];
    expect(got).toEqual([1, 2, 3]);
    taken[1]?.free();
    await asked[3];
    expect(got).toEqual([1, 2, 3, 4]);
  });

  it('whoever is not waiting any more does not keep the slot from the next', async () => {
    const slots = new InsertSlots(1);
    const first = await slots.take(never);
    const gone = new AbortController();
    const waiting = slots.take(gone.signal);
    const next = slots.take(never);
    gone.abort();
    await expect(waiting).rejects.toThrow();
    first.free();
    (await next).free();
    await expect(slots.take(gone.signal)).rejects.toThrow();
    (await slots.take(never)).free();
  });

  it('the memory of an insert that is over is used again, and never by two at once', async () => {
    const slots = new InsertSlots(2, 1000);
    const [first, second] = [await slots.take(never), await slots.take(never)];
    const { pieces } = first;
    expect(new Set([...pieces, ...second.pieces]).size).toBe(4);
    expect(pieces.map(({ length }) => length)).toEqual([1000, 1000]);
    first.free();
    const third = await slots.take(never);
    expect(third.pieces).toBe(pieces);
    second.free();
    third.free();
  });

  it('freeing twice is a defect, not a second permit', async () => {
    const slot = await new InsertSlots(1).take(never);
    slot.free();
    expect(() => slot.free()).toThrow(expect.objectContaining({ code: 'KCR_INTERNAL' }));
  });
});
