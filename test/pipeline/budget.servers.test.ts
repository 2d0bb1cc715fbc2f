// The budget of memory on the real broker with the whole pipeline: what does not fit into it is slower, never stuck.
import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test } from 'vitest';
import { ingest } from '../../src/pipeline/ingest.js';
import type { IngestConfig } from '../../src/config/config.js';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';

const count = 3000;
const partitions = 3;

test('a range in doubt that is larger than the share, since it was recorded when a process had fewer partitions, is resolved all the same', async () => {
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  const name = `budget_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, name, { partitions });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name} (id UInt64, text String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`,
  );
  // Small batches of the log: each of them fits.
  for (let at = 0; at < count; at += 100) {
    const values = Array.from({ length: 100 * partitions }, (_, i) => ({
      value: JSON.stringify({ id: at + i, text: 'x'.repeat(1000) }),
      partition: i % partitions,
    }));
    await produce(brokers, name, values);
  }
  const config = (budgetBytes: number): IngestConfig => ({
    kafka: { brokers, groupId: name, fromBeginning: true, budgetBytes, maxBytesPerPartition: 200_000 },
    clickhouse: { url: clickhouseUrl },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { count, maxWaitMs: 60_000 },
  });
  // Recorded, then refused: the table is not what the values are. So the ranges stay in doubt, 3 MB each.
  await command(clickhouseUrl, `ALTER TABLE ${name} ADD CONSTRAINT never CHECK id = 1e9`);
  const halted = new Set<number>();
  await new Promise<void>((resolve, reject) => {
    const subscription = ingest(config(256 * 1024 * 1024)).subscribe({
      next: (outcome) => {
        if (outcome.kind === 'halted') halted.add(outcome.assignment.partition);
        if (halted.size < partitions) return;
        subscription.unsubscribe();
        resolve();
      },
      error: reject,
    });
  });
  await command(clickhouseUrl, `ALTER TABLE ${name} DROP CONSTRAINT never`);
  const replayed: number[] = [];
  await new Promise<void>((resolve, reject) => {
    const subscription = ingest(config(1024 * 1024)).subscribe({
      next: (outcome) => {
        if (outcome.kind === 'halted') return reject(outcome.error);
        if (outcome.replay) replayed.push(outcome.rows);
        if (replayed.length === partitions) resolve();
      },
      error: reject,
    });
    onTestFinished(() => subscription.unsubscribe());
  });
  expect(replayed).toEqual([count, count, count]);
  const [found] = await query<{ n: number; u: number }>(
    clickhouseUrl,
    `SELECT count() AS n, uniqExact(_partition, _offset) AS u FROM ${name}`,
  );
  expect(found).toEqual({ n: partitions * count, u: partitions * count });
});
