// An open transaction is told of though a fetch session says nothing of a partition that stands still.
import { expect, test } from 'vitest';
import type { IngestEvent } from '../../src/events.js';
import { HELD_NOTICE_MS, HeldBack } from '../../src/kafka/held-back.js';
import { newTenure } from '../../src/kafka/tenure.js';
import type { Wire } from '../../src/kafka/wire.js';

test('what was seen once counts until another thing is seen', async () => {
  let nowMs = 1000;
  const told: IngestEvent[] = [];
  const heldBack = new HeldBack({ wire: {} as Wire, report: (event) => told.push(event), now: () => nowMs });
  const session = { memberId: 'm', generation: 1, leader: true, partitions: [] };
  const tenure = newTenure({ topic: 't', topicId: 'id', partition: 0, epoch: 1, generation: 1, startOffset: 0 }, session, 0);
  heldBack.seeAgain(tenure);
  heldBack.see(tenure, { stableEnd: 5, highWatermark: 9 });
  nowMs += HELD_NOTICE_MS;
  heldBack.seeAgain(tenure);
  await Promise.resolve();
  await new Promise((resolve) => setImmediate(resolve));
  expect(told).toMatchObject([{ kind: 'heldBack', stableEnd: 5, logEnd: 9, sinceMs: 1000 }]);
  heldBack.see(tenure, { stableEnd: 9, highWatermark: 9 });
  nowMs += 10 * HELD_NOTICE_MS;
  heldBack.seeAgain(tenure);
  expect(told).toHaveLength(1);
});
