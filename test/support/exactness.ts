// The oracle of runs without transactions: what Kafka has of each partition, and what the table has of it. It asks the
// servers, none of our own counters.
import { setTimeout as sleep } from 'node:timers/promises';
import { query, topicEnd } from '../stack/clients.js';

export interface Exactness {
  readonly produced: number;
  readonly missing: number;
  readonly doubled: number;
  /** The partitions, as `partition: …`, at which the table differs from the topic; empty when all is right. */
  readonly differences: readonly string[];
}

interface PartitionRows {
  readonly partition: number;
  readonly rows: number;
  readonly offsets: number;
  readonly last: number;
}

async function rowsByPartition(url: string, table: string): Promise<readonly PartitionRows[]> {
  return query<PartitionRows>(
    url,
    `SELECT toUInt32(_partition) AS partition, count() AS rows, uniqExact(_offset) AS offsets, max(_offset) AS last FROM ${table} GROUP BY _partition ORDER BY _partition`,
    // Counting the offsets of millions of rows exactly is the largest thing that is asked of the server.
    { timeoutMs: 120_000 },
  );
}

export interface ExactnessConfig {
  /** @default named like the topic */
  readonly table?: string;
  /** What the producer was told of each partition. @default not compared */
  readonly acknowledged?: readonly number[];
}

/** Offsets begin at 0 and have no holes: nobody produces in transactions. */
export async function exactness(
  brokers: readonly string[],
  url: string,
  topic: string,
  { table: name = topic, acknowledged }: ExactnessConfig = {},
): Promise<Exactness> {
  const [ends, table] = await Promise.all([topicEnd(brokers, topic), rowsByPartition(url, name)]);
  let [produced, missing, doubled] = [0, 0, 0];
  const differences: string[] = [];
  for (const [partition, high] of ends) {
    const end = Number(high);
    const { rows = 0, offsets = 0, last = -1 } = table.find((each) => each.partition === partition) ?? {};
    produced += end;
    missing += Math.max(0, end - offsets);
    doubled += rows - offsets;
    if (rows !== end || offsets !== end || last !== end - 1)
      differences.push(`${partition}: ${end} records, ${rows} rows of ${offsets} offsets up to ${last}`);
    const sent = acknowledged?.[partition];
    if (sent !== undefined && sent !== end)
      differences.push(`${partition}: ${sent} records were acknowledged, the log has ${end}`);
  }
  return { produced, missing, doubled, differences };
}

/** Waits until the table has a row for each record, however many it has too many. */
export async function untilComplete(
  brokers: readonly string[],
  url: string,
  name: string,
  limitMs: number,
): Promise<void> {
  const goal = [...(await topicEnd(brokers, name)).values()].reduce((sum, end) => sum + Number(end), 0);
  for (const endMs = performance.now() + limitMs; ; await sleep(200)) {
    const [row] = await query<{ rows: number }>(url, `SELECT count() AS rows FROM ${name}`);
    if ((row?.rows ?? 0) >= goal) return;
    if (performance.now() > endMs) throw new Error(`${row?.rows} of ${goal} rows were in ${name} after ${limitMs} ms`);
  }
}
