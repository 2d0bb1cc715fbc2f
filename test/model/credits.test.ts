import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Credits } from '../../src/model/credits.js';

const MIB = 1024 * 1024;
/** Beyond whatever may be needed. */
const further = Number.MAX_SAFE_INTEGER;
const delivery = (lastOffset: number, held: number, fetched = held) => ({ lastOffset, held, fetched });

describe('byte credits', () => {
  test('a partition stops being fetched at its share and goes on at half of it', () => {
    const credits = new Credits(8 * MIB);
    credits.open(1);
    credits.open(2);
    for (let i = 0; i < 4; i++) {
      expect(credits.mayFetch(1, further)).toBe(true);
      credits.delivered(1, delivery(i, MIB));
    }
    expect(credits.mayFetch(1, further)).toBe(false);
    expect(credits.mayFetch(2, further)).toBe(true);
    expect(credits.done(1, 0)).toBe(false);
    expect(credits.mayFetch(1, further)).toBe(false);
    expect(credits.done(1, 1)).toBe(true);
    expect(credits.mayFetch(1, further)).toBe(true);
  });

  test('a chunk that is done in part is still held in memory', () => {
    const credits = new Credits(2 * MIB);
    credits.open(1);
    credits.delivered(1, delivery(99, 2 * MIB));
    expect(credits.done(1, 98)).toBe(false);
    expect(credits.outstanding).toBe(2 * MIB);
    expect(credits.done(1, 99)).toBe(true);
    expect(credits.outstanding).toBe(0);
  });

  test('partitions whose inserts hang do not starve the others', () => {
    const credits = new Credits(8 * MIB);
    for (const assignmentId of [1, 2, 3, 4]) credits.open(assignmentId);
    // Far more came than was asked for: it was compressed well.
    for (const assignmentId of [1, 2, 3]) credits.delivered(assignmentId, delivery(0, 10 * MIB));
    for (let i = 0; i < 10; i++) {
      expect(credits.mayFetch(4, further)).toBe(true);
      credits.delivered(4, delivery(i, MIB));
      credits.done(4, i);
    }
  });

  test('all of it comes back when a partition is given up', () => {
    const credits = new Credits(4 * MIB);
    credits.open(1);
    credits.open(2);
    credits.delivered(1, delivery(0, 4 * MIB));
    credits.delivered(2, delivery(0, MIB));
    credits.close(1);
    expect(credits.outstanding).toBe(MIB);
    expect(credits.mayFetch(1, further)).toBe(false);
    expect(credits.mayFetch(2, further)).toBe(true);
    credits.forget(2);
    expect(credits.outstanding).toBe(0);
    credits.delivered(1, delivery(1, MIB));
    expect(credits.done(1, 1)).toBe(false);
    expect(credits.outstanding).toBe(0);
  });

  test('when partitions leave, the share of the others grows, and a paused one goes on', () => {
    const credits = new Credits(8 * MIB);
    credits.open(1);
    credits.open(2);
    credits.delivered(1, delivery(0, 4 * MIB));
    expect(credits.mayFetch(1, further)).toBe(false);
    credits.close(2);
    expect(credits.mayFetch(1, further)).toBe(true);
  });

  test('no more is asked for than there is room for, as it turned out to grow when unpacked', () => {
    const credits = new Credits(16 * MIB);
    credits.open(1);
    expect(credits.fetchBytes(1, 4 * MIB)).toBe(4 * MIB);
    expect(credits.fetchBytes(1, 8 * MIB)).toBeLessThan(8 * MIB);
    for (let i = 0; i < 20; i++) {
      credits.delivered(1, delivery(i, 2 * MIB, 0.1 * MIB));
      credits.done(1, i);
    }
    expect(credits.fetchBytes(1, 4 * MIB)).toBeLessThan(MIB);
    credits.delivered(1, delivery(99, 16 * MIB));
    expect(credits.fetchBytes(1, 4 * MIB)).toBe(64 * 1024);
  });

  test('a range in doubt that is larger than the share is fetched to its end, one partition at a time: else it could never be resolved', () => {
    const credits = new Credits(4 * MIB);
    for (const assignmentId of [1, 2]) credits.open(assignmentId);
    for (const assignmentId of [1, 2]) {
      credits.delivered(assignmentId, delivery(9, 2 * MIB));
      expect(credits.mayFetch(assignmentId, 10)).toBe(false);
      credits.need(assignmentId, 29);
    }
    expect(credits.mayFetch(1, 10)).toBe(true);
    expect(credits.fetchBytes(1, 4 * MIB)).toBe(4 * MIB);
    expect(credits.mayFetch(2, 10)).toBe(false);
    credits.delivered(1, delivery(29, 4 * MIB));
    expect(credits.mayFetch(1, 30)).toBe(false);
    expect(credits.done(1, 9)).toBe(false);
    expect(credits.mayFetch(2, 10)).toBe(false);
    // Its range is in the table: it is the next one's turn.
    expect(credits.done(1, 29)).toBe(true);
    expect(credits.mayFetch(2, 10)).toBe(true);
    // Or it was given away in the middle.
    credits.open(3);
    credits.delivered(3, delivery(0, 2 * MIB));
    credits.need(3, 5);
    expect(credits.mayFetch(3, 1)).toBe(false);
    credits.close(2);
    expect(credits.mayFetch(3, 1)).toBe(true);
  });

  test('memory stays below the budget and one delivery for each partition, whatever happens', () => {
    const act = fc.record({
      assignmentId: fc.integer({ min: 1, max: 5 }),
      what: fc.constantFrom('deliver', 'deliver', 'deliver', 'done', 'forget', 'reopen'),
      size: fc.integer({ min: 1, max: MIB }),
    });
    fc.assert(
      fc.property(fc.array(act, { maxLength: 300 }), (acts) => {
        const credits = new Credits(2 * MIB);
        for (let assignmentId = 1; assignmentId <= 5; assignmentId++) credits.open(assignmentId);
        let offset = 0;
        for (const { assignmentId, what, size } of acts) {
          if (what === 'deliver' && credits.mayFetch(assignmentId, further))
            credits.delivered(assignmentId, delivery(offset++, size));
          if (what === 'done') credits.done(assignmentId, offset - 2);
          if (what === 'forget') credits.forget(assignmentId);
          if (what === 'reopen') {
            credits.close(assignmentId);
            credits.open(assignmentId);
          }
          expect(credits.outstanding).toBeGreaterThanOrEqual(0);
          expect(credits.outstanding).toBeLessThan(2 * MIB + 5 * MIB);
        }
        for (let assignmentId = 1; assignmentId <= 5; assignmentId++) credits.done(assignmentId, offset);
        expect(credits.outstanding).toBe(0);
        for (let assignmentId = 1; assignmentId <= 5; assignmentId++)
          expect(credits.mayFetch(assignmentId, further)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});

describe('large batches', () => {
  const delivered = (credits: Credits, assignmentId: number, lastOffset: number, held: number) =>
    credits.delivered(assignmentId, { lastOffset, held, fetched: held });

  test('that wait for room are told of any that is made, else they would wait for ever', () => {
    const credits = new Credits(100);
    credits.open(1);
    credits.open(2);
    for (const [lastOffset, held] of [
      [1, 20],
      [2, 10],
    ] as const)
      delivered(credits, 1, lastOffset, held);
    delivered(credits, 2, 1, 10);
    expect(credits.mayUnpack(2, 70, 2)).toBe(false);
    expect(credits.done(1, 1)).toBe(true);
    expect(credits.mayUnpack(2, 70, 2)).toBe(true);
  });

  test('within the share of a partition are never held up by another one, whose inserts may hang', () => {
    const credits = new Credits(100);
    credits.open(1);
    credits.open(2);
    delivered(credits, 1, 1, 95);
    expect(credits.mayUnpack(2, 50, 0)).toBe(true);
  });

  test('beyond the budget are one at a time, and one that came to nothing holds up no other', () => {
    const credits = new Credits(100);
    for (const assignmentId of [1, 2, 3]) credits.open(assignmentId);
    delivered(credits, 1, 1, 80);
    expect(credits.mayUnpack(2, 90, 0)).toBe(true);
    credits.unpacks(2, 90, 0);
    expect(credits.mayUnpack(3, 90, 0)).toBe(false);
    credits.unpacked(2);
    expect(credits.mayUnpack(3, 90, 0)).toBe(true);
    credits.unpacks(3, 90, 0);
    delivered(credits, 3, 0, 90);
    credits.unpacked(3);
    expect(credits.mayUnpack(2, 90, 0)).toBe(false);
    expect(credits.done(3, 0)).toBe(true);
    expect(credits.mayUnpack(2, 90, 0)).toBe(true);
  });
});

describe('whether there is room before some is done', () => {
  test('a partition beyond its share is full until half of it is done; the other one is not', () => {
    const credits = new Credits(8 * MIB);
    for (const id of [1, 2]) credits.open(id);
    expect(credits.isFull(1)).toBe(false);
    for (let i = 0; i < 4; i++) credits.delivered(1, delivery(i, MIB));
    expect([credits.isFull(1), credits.isFull(2), credits.isFull(9)]).toEqual([true, false, false]);
    credits.done(1, 1);
    expect(credits.isFull(1)).toBe(false);
  });

  test('when all is held at once, whoever holds some of it is full, and who holds nothing is not', () => {
    const credits = new Credits(4 * MIB);
    for (const id of [1, 2, 3, 4, 5]) credits.open(id);
    credits.delivered(1, delivery(0, 4 * MIB));
    credits.delivered(2, delivery(0, 1));
    expect([credits.isFull(1), credits.isFull(2), credits.isFull(3)]).toEqual([true, true, false]);
  });
});
