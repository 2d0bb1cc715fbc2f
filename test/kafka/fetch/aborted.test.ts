import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { abortedFilter, type AbortedTransaction, type TransactionalBatch } from '../../../src/kafka/fetch/aborted.js';

/** A log as producers write it, and what a reader should see of it, found by looking at each transaction's end. */
interface Written {
  readonly batches: (TransactionalBatch & { readonly marker: boolean; visible: boolean })[];
  readonly aborted: (AbortedTransaction & { readonly lastOffset: number })[];
  /** Nothing at or behind it is readable yet. */
  readonly stableOffset: number;
}

type Step = {
  readonly producer: number;
  readonly act: 'append' | 'commit' | 'abort' | 'plain';
  readonly count: number;
};

function write(steps: readonly Step[]): Written {
  const batches: Written['batches'] = [];
  const aborted: Written['aborted'] = [];
  const open = new Map<bigint, { firstOffset: number; batches: { visible: boolean }[] }>();
  let next = 0;
  for (const { producer, act, count } of steps) {
    const producerId = BigInt(producer);
    const firstOffset = next;
    if (act === 'plain' || act === 'append') {
      next += count;
      const batch = {
        producerId,
        lastOffset: next - 1,
        transactional: act === 'append',
        abortMarker: false,
        marker: false,
        visible: true,
      };
      batches.push(batch);
      if (act === 'plain') continue;
      const transaction = open.get(producerId) ?? { firstOffset, batches: [] };
      transaction.batches.push(batch);
      open.set(producerId, transaction);
    } else {
      const transaction = open.get(producerId);
      if (transaction === undefined) continue;
      open.delete(producerId);
      batches.push({
        producerId,
        lastOffset: next,
        transactional: true,
        abortMarker: act === 'abort',
        marker: true,
        visible: false,
      });
      if (act === 'abort') {
        for (const batch of transaction.batches) batch.visible = false;
        aborted.push({ producerId, firstOffset: transaction.firstOffset, lastOffset: next });
      }
      next++;
    }
  }
  return {
    batches,
    aborted,
    stableOffset: Math.min(next, ...[...open.values()].map(({ firstOffset }) => firstOffset)),
  };
}

const step: fc.Arbitrary<Step> = fc.record({
  producer: fc.integer({ min: 1, max: 4 }),
  act: fc.constantFrom('append', 'append', 'append', 'commit', 'abort', 'plain'),
  count: fc.integer({ min: 1, max: 3 }),
});

const end = fc.constantFrom('commit' as const, 'abort' as const);

describe('records of aborted transactions', () => {
  test('none is delivered and none of another transaction is lost, however transactions interleave', () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 60 }),
        fc.array(end, { minLength: 3, maxLength: 4 }),
        fc.nat({ max: 20 }),
        (steps, ends, from) => {
          // Most end in the end: what is behind an open transaction is not readable yet.
          const { batches, aborted, stableOffset } = write([
            ...steps,
            ...ends.map((act, i) => ({ producer: i + 1, act, count: 1 })),
          ]);
          // The broker lists what overlaps the fetched range, in the order in which the transactions ended.
          const fetched = batches.filter(({ lastOffset }) => lastOffset >= from && lastOffset < stableOffset);
          const listed = aborted.filter(
            ({ lastOffset, firstOffset }) => lastOffset >= from && firstOffset < stableOffset,
          );
          const isAborted = abortedFilter(listed);
          for (const batch of fetched) {
            const verdict = isAborted(batch);
            // What is said of a marker is without consequence: it is no record.
            if (!batch.marker) expect(verdict).toBe(!batch.visible);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('the outer of two nested aborted transactions does not leak', () => {
    // The inner one ended first, so the broker lists it first.
    const isAborted = abortedFilter([
      { producerId: 2n, firstOffset: 1 },
      { producerId: 1n, firstOffset: 0 },
    ]);
    const batch = (producerId: bigint, offset: number, abortMarker = false) => ({
      producerId,
      lastOffset: offset,
      transactional: true,
      abortMarker,
    });
    const verdicts = [
      batch(1n, 0),
      batch(2n, 1),
      batch(2n, 2, true),
      batch(1n, 3),
      batch(1n, 4, true),
      batch(1n, 5),
    ].map(isAborted);
    expect(verdicts).toEqual([true, true, false, true, false, false]);
  });

  test('a producer whose transaction was aborted may commit the next one', () => {
    const isAborted = abortedFilter([{ producerId: 1n, firstOffset: 0 }]);
    const batch = (lastOffset: number, abortMarker = false) => ({
      producerId: 1n,
      lastOffset,
      transactional: true,
      abortMarker,
    });
    expect([batch(0), batch(1, true), batch(2)].map(isAborted)).toEqual([true, false, false]);
  });

  test('records outside of transactions are never taken for aborted ones', () => {
    const isAborted = abortedFilter([{ producerId: 1n, firstOffset: 0 }]);
    expect(isAborted({ producerId: 1n, lastOffset: 0, transactional: false, abortMarker: false })).toBe(false);
  });
});
