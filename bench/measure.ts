/**
 * One contender, measured from outside: the table is looked at while it works, so that all are judged alike.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { command, query } from '../test/stack/clients.js';
import type { Stack } from '../test/stack/stack.js';
import type { Parameters, Used } from './contender.js';

const contenderFile = fileURLToPath(new URL('./contender.ts', import.meta.url));
const lookEveryMs = 25;
const limitMs = 180_000;

export interface Sample {
  readonly rowsPerSecond: number;
  readonly cpuSecondsPerMillionRows: number | undefined;
  readonly serverCpuSecondsPerMillionRows: number | undefined;
  readonly peakRssMb: number | undefined;
  readonly inserts: number;
}

/** None of them outlives the benchmark. */
const children = new Set<ChildProcess>();
process.once('exit', () => children.forEach((child) => child.kill('SIGKILL')));

export interface Running {
  readonly used: Promise<Used>;
  stop(): void;
}

export function start(name: string, parameters: Parameters): Running {
  const child = spawn(process.execPath, ['--import', 'tsx', contenderFile, name, JSON.stringify(parameters)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.add(child);
  let last: unknown;
  createInterface({ input: child.stdout }).on('line', (line) => (last = JSON.parse(line) as unknown));
  const used = once(child, 'close').then(([code]: unknown[]) => {
    children.delete(child);
    if (code !== 0) throw new Error(`${name} ended with ${String(code)}`);
    return last as Used;
  });
  used.catch(() => undefined);
  return { used, stop: () => void child.kill('SIGTERM') };
}

export async function rowsOf(url: string, table: string): Promise<number> {
  const [row] = await query<{ n: number }>(url, `SELECT count() AS n FROM ${table}`);
  return row?.n ?? 0;
}

/** Rows a second between the first rows that were seen in the table and the last ones. */
export async function watchTable(url: string, table: string, rows: number, isOver: () => boolean): Promise<number> {
  let first: { readonly atMs: number; readonly rows: number } | undefined;
  const endMs = performance.now() + limitMs;
  for (;;) {
    const seen = await rowsOf(url, table);
    const atMs = performance.now();
    if (seen > 0) first ??= { atMs, rows: seen };
    if (seen >= rows && first !== undefined)
      return seen === first.rows ? NaN : ((seen - first.rows) / (atMs - first.atMs)) * 1000;
    if (atMs > endMs || isOver())
      throw new Error(`${seen} of ${rows} rows were in ${table} when ${isOver() ? 'it ended' : 'time was up'}`);
    await sleep(lookEveryMs);
  }
}

export async function measure(stack: Stack, name: string, parameters: Parameters): Promise<Sample> {
  const cpuBefore = serverCpuSeconds(stack);
  let isOver = false;
  const running = start(name, { ...parameters, endsByItself: true });
  const over = running.used.finally(() => (isOver = true)).catch(() => undefined);
  const hasTable = name !== 'consumer-only';
  const seenRate = hasTable
    ? await watchTable(stack.clickhouseUrl, parameters.table, parameters.rows, () => isOver && false)
    : undefined;
  await over;
  const used = await running.used;
  const cpuAfter = serverCpuSeconds(stack);
  const millions = used.rows / 1e6;
  return {
    rowsPerSecond: seenRate ?? used.rows / (used.seconds ?? NaN),
    cpuSecondsPerMillionRows: used.cpuSeconds / millions,
    serverCpuSecondsPerMillionRows:
      cpuBefore === undefined || cpuAfter === undefined ? undefined : (cpuAfter - cpuBefore) / millions,
    peakRssMb: used.peakRssMb,
    inserts: used.inserts,
  };
}

/** ClickHouse's own Kafka table engine, with a materialized view into the same table. */
export async function measureKafkaEngine(
  stack: Stack,
  columns: string,
  { topic, table, group, rows, brokers }: Parameters,
): Promise<Sample> {
  const url = stack.clickhouseUrl;
  const cpuBefore = serverCpuSeconds(stack);
  const names = columns
    .split(', ')
    .map((column) => column.split(' ')[0])
    .join(', ');
  await command(
    url,
    `CREATE TABLE queue_${table} (${columns}) ENGINE = Kafka SETTINGS kafka_broker_list = '${brokers.join(',')}', kafka_topic_list = '${topic}',
     kafka_group_name = '${group}', kafka_format = 'JSONEachRow', kafka_num_consumers = 2, kafka_thread_per_consumer = 1`,
  );
  try {
    await command(
      url,
      `CREATE MATERIALIZED VIEW view_${table} TO ${table} AS SELECT ${names}, _topic, _partition, _offset FROM queue_${table}`,
    );
    const rowsPerSecond = await watchTable(url, table, rows, () => false);
    const cpuAfter = serverCpuSeconds(stack);
    const [parts] = await query<{ n: number }>(
      url,
      `SELECT count() AS n FROM system.parts WHERE table = '${table}' AND level = 0`,
    ).catch(() => [{ n: NaN }]);
    return {
      rowsPerSecond,
      cpuSecondsPerMillionRows: undefined,
      peakRssMb: undefined,
      inserts: parts?.n ?? NaN,
      serverCpuSecondsPerMillionRows:
        cpuBefore === undefined || cpuAfter === undefined ? undefined : (cpuAfter - cpuBefore) / (rows / 1e6),
    };
  } finally {
    await command(url, `DROP TABLE IF EXISTS view_${table} SYNC`);
    await command(url, `DROP TABLE IF EXISTS queue_${table} SYNC`);
  }
}

/** What ClickHouse's process has used so far; undefined where it is not ours or the system does not tell. */
function serverCpuSeconds({ clickhouse }: Stack): number | undefined {
  try {
    const fields = readFileSync(`/proc/${clickhouse?.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return undefined;
  }
}
