/**
 * What a benchmark of several processes needs to say and to be told: the machine, whole numbers, medians.
 */
import { cpus, totalmem } from 'node:os';
import { InvalidArgumentError } from 'commander';
import { query } from '../test/stack/clients.js';
import type { Stack } from '../test/stack/stack.js';

export async function machine({ clickhouseUrl }: Stack): Promise<string> {
  const [row] = await query<{ v: string }>(clickhouseUrl, 'SELECT version() AS v');
  const [cpu] = cpus();
  return `${cpus().length} × ${cpu?.model.trim() ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.versions.node}, ClickHouse ${row?.v ?? ''}; Kafka, ZooKeeper, ClickHouse, the producer and the workers share these cores`;
}

/** An option's value. */
export function whole(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer');
  return value;
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? NaN;
}
