/**
 * From produced to visible: a steady producer of 20,000 rows a second into one partition, and a look at the table's
 * count every few milliseconds. One partition keeps the order, so that a count says which records are there.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Partitioners } from 'kafkajs';
import { kafkaClient } from '../test/stack/clients.js';
import type { Stack } from '../test/stack/stack.js';
import { rowsOf } from './measure.js';
import { event, type Workload } from './workloads.js';

const rowsPerSecond = 20_000;
const sendEveryMs = 10;
const warmUpSeconds = 3;

export interface Latency {
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
}

/** Produces for `seconds` while something else ingests; resolves when all is visible. */
export async function measureLatency(
  stack: Stack,
  topic: string,
  table: string,
  seconds: number,
  name: Workload['name'] = 'event244',
): Promise<Latency> {
  const producer = kafkaClient(stack.brokers).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  const total = rowsPerSecond * (warmUpSeconds + seconds);
  const perSend = (rowsPerSecond * sendEveryMs) / 1000;
  const acknowledgedMs: number[] = [];
  const visibleMs: number[] = [];
  let isWatching = true;
  const watching = (async () => {
    while (isWatching && visibleMs.length < total) {
      const seen = await rowsOf(stack.clickhouseUrl, table);
      const nowMs = performance.now();
      while (visibleMs.length < seen) visibleMs.push(nowMs);
      await sleep(5);
    }
  })();
  const startMs = performance.now();
  for (let sent = 0; sent < total;) {
    const due = Math.min(
      total,
      Math.floor((((performance.now() - startMs) / 1000) * rowsPerSecond) / perSend) * perSend,
    );
    if (due <= sent) {
      await sleep(1);
      continue;
    }
    const producedMs = performance.now();
    const messages = Array.from({ length: due - sent }, (_, i) => ({ value: event(sent + i, name), partition: 0 }));
    await producer.send({ topic, messages, acks: -1 });
    for (let i = sent; i < due; i++) acknowledgedMs.push(producedMs);
    sent = due;
  }
  await producer.disconnect();
  const endMs = performance.now() + 30_000;
  while (visibleMs.length < total && performance.now() < endMs) await sleep(20);
  isWatching = false;
  await watching;
  if (visibleMs.length < total)
    throw new Error(`${visibleMs.length} of ${total} rows were visible in ${table} at the end`);
  const warm = rowsPerSecond * warmUpSeconds;
  const sorted = visibleMs
    .slice(warm)
    .map((atMs, i) => atMs - acknowledgedMs[warm + i]!)
    .sort((a, b) => a - b);
  const at = (q: number): number => Math.round(sorted[Math.floor(sorted.length * q)] ?? NaN);
  return { p50Ms: at(0.5), p95Ms: at(0.95), p99Ms: at(0.99) };
}
