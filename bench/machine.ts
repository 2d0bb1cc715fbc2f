/**
 * What a benchmark of several processes needs to say and to be told: the machine and how busy it is, whole numbers,
 * medians.
 */
import { readFileSync } from 'node:fs';
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

/** Of the C library: what /proc counts processor time in. */
const ticksPerSecond = 100;

export interface Busy {
  /** Of all processors, by whomever. Near 1 they are what is waited for. */
  readonly all: number;
  /** By processes that have nothing to do with the benchmark: what disturbs it. */
  readonly others: number;
}

/** Begins to look how busy the processors are; undefined where the system does not tell. */
export function watchProcessors(pids: readonly (number | undefined)[]): () => Busy | undefined {
  const before = look(pids);
  return () => {
    const after = look(pids);
    if (before === undefined || after === undefined) return undefined;
    const total = after.total - before.total;
    return {
      all: (after.busy - before.busy) / total,
      others: Math.max(0, (after.busy - before.busy - (after.own - before.own)) / total),
    };
  };
}

/** In ticks since the start of the system, and of the processes. */
function look(
  pids: readonly (number | undefined)[],
): { readonly busy: number; readonly total: number; readonly own: number } | undefined {
  try {
    const [user = 0, nice = 0, system = 0, idle = 0, ioWait = 0, ...rest] = readFileSync('/proc/stat', 'utf8')
      .split('\n')[0]!
      .trim()
      .split(/\s+/)
      .slice(1, 9)
      .map(Number);
    const busy = user + nice + system + rest.reduce((a, b) => a + b, 0);
    const own = pids.filter((pid) => pid !== undefined).reduce((sum, pid) => sum + cpuSeconds(pid) * ticksPerSecond, 0);
    return { busy, total: busy + idle + ioWait, own };
  } catch {
    return undefined;
  }
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}
