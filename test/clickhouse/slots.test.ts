import { describe, expect, it } from 'vitest';
import { InsertSlots, type Slot } from '../../src/clickhouse/slots.js';

const never = new AbortController().signal;

describe('slots', () => {
  it('no more inserts are in flight than there are slots; the longest waiting comes next', async () => {
    const slots = new InsertSlots(2, 1e6);
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
    const slots = new InsertSlots(1, 1e6);
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

  it('a buffer is used again, and grows by doubling', async () => {
    const slots = new InsertSlots(1, 1e6);
    const first = await slots.take(never);
    const buffer = first.buffer(100_000);
    expect(buffer.length).toBe(131_072);
    first.free();
    const second = await slots.take(never);
    expect(second.buffer(50_000)).toBe(buffer);
    expect(second.buffer(140_000).length).toBe(262_144);
    second.free();
  });

  it('a buffer that was needed for one huge batch is not kept', async () => {
    const slots = new InsertSlots(1, 100_000);
    const first = await slots.take(never);
    const huge = first.buffer(200_000);
    first.free();
    const second = await slots.take(never);
    expect(second.buffer(10)).not.toBe(huge);
    expect(second.buffer(10).length).toBe(65_536);
    second.free();
  });

  it('freeing twice is a defect, not a second permit', async () => {
    const slot = await new InsertSlots(1, 1).take(never);
    slot.free();
    expect(() => slot.free()).toThrow(expect.objectContaining({ code: 'KCR_INTERNAL' }));
  });
});
