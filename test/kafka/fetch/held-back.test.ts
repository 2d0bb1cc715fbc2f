// Open transactions that hold readers back: what is asked, and what is told.
import { expect, test } from 'vitest';
import type { IngestEvent } from '../../../src/events.js';
import { newAssignedPartition } from '../../../src/kafka/group/assigned-partition.js';
import { Generation } from '../../../src/kafka/group/generation.js';
import { HELD_NOTICE_MS, HeldBack } from '../../../src/kafka/fetch/held-back.js';

const generation = new Generation({ memberId: 'm', generationId: 1, isLeader: false, partitions: [] });
const assigned = Array.from({ length: 250 }, (_, partition) =>
  newAssignedPartition(
    { topic: 't', partition, assignmentId: partition, generation: 1, startOffset: 0 },
    generation,
    0,
  ),
);

test('partitions that are held back at the same time are asked for together, and each is told its own', async () => {
  const asked: number[] = [];
  const told: IngestEvent[] = [];
  let nowMs = 0;
  const heldBack = new HeldBack({
    ask: async (positions) => {
      asked.push(positions.length);
      return positions
        .filter(({ partition }) => partition !== 7)
        .map(({ topic, partition }) => ({
          topic,
          partition,
          startOffset: 5,
          producerId: `p${partition}`,
          transactionalId: undefined,
          sinceMs: undefined,
        }));
    },
    onEvent: (event) => told.push(event),
    now: () => nowMs,
  });
  for (const each of assigned) heldBack.see(each, { stableEnd: 5, highWatermark: 9 });
  expect(asked).toEqual([]);
  nowMs = HELD_NOTICE_MS;
  for (const each of assigned) heldBack.see(each, { stableEnd: 5, highWatermark: 9 });
  await expect.poll(() => told.length).toBe(250);
  expect(asked).toEqual([100, 100, 50]);
  const producers = told.map((event) => (event.kind === 'heldBack' ? event.producerId : 'another event'));
  expect(producers).toEqual(assigned.map((_, partition) => (partition === 7 ? undefined : `p${partition}`)));
});

test('what was seen once counts until another thing is seen: a fetch session says nothing of what stands still', async () => {
  const told: IngestEvent[] = [];
  let nowMs = 1000;
  const heldBack = new HeldBack({ ask: async () => [], onEvent: (event) => told.push(event), now: () => nowMs });
  const [first] = assigned;
  heldBack.seeAgain(first!);
  heldBack.see(first!, { stableEnd: 5, highWatermark: 9 });
  nowMs += HELD_NOTICE_MS;
  heldBack.seeAgain(first!);
  await expect.poll(() => told).toMatchObject([{ kind: 'heldBack', stableEnd: 5, logEnd: 9, sinceMs: 1000 }]);
  heldBack.see(first!, { stableEnd: 9, highWatermark: 9 });
  nowMs += 10 * HELD_NOTICE_MS;
  heldBack.seeAgain(first!);
  expect(told).toHaveLength(1);
});
