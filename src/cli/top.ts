/**
 * The command `top`: a running process at a glance, from its `/api/status`. Imports: errors, model, observe.
 */
import { IngestError } from '../errors.js';
import type { IngestStatus, PartitionProgress } from '../observe/status.js';
import { DEFAULT_LISTEN } from '../observe/listen.js';
import { partitionName } from '../model/partition-name.js';
import { count, duration, statusLine } from './summary.js';
import { absent, table, type Column } from './text.js';

export const sortings = ['urgency', 'lag', 'rate', 'name'] as const;

export interface TopOptions {
  readonly once?: boolean;
  readonly json?: boolean;
  readonly sort: (typeof sortings)[number];
}

const ANSWER_LIMIT_MS = 5000;
const AGAIN_MS = 1000;

/**
 * Until it is interrupted; with `once` it prints one look and ends. Exit code 0, or 3 when the process does not answer.
 */
export async function top(url = `http://${DEFAULT_LISTEN}`, options: TopOptions): Promise<number> {
  if (options.once === true) {
    process.stdout.write(textOf(await statusAt(url), options, Infinity));
    return 0;
  }
  const stopped = new Promise<void>((resolve) => process.once('SIGINT', () => resolve()));
  for (let isOver = false; !isOver;) {
    const text = await statusAt(url).then(
      (status) => textOf(status, options, (process.stdout.rows ?? 25) - 1),
      (thrown: unknown) => `${thrown instanceof Error ? thrown.message : String(thrown)}\n`,
    );
    process.stdout.write(options.json === true ? text : `\u001b[H\u001b[J${text}`);
    isOver = await Promise.race([
      stopped.then(() => true),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), AGAIN_MS)),
    ]);
  }
  return 0;
}

async function statusAt(url: string): Promise<IngestStatus> {
  const address = url.includes('://') ? url : `http://${url}`;
  try {
    const answer = await fetch(new URL('/api/status', address), { signal: AbortSignal.timeout(ANSWER_LIMIT_MS) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return (await answer.json()) as IngestStatus;
  } catch (cause) {
    const why = cause instanceof Error ? (cause.cause instanceof Error ? cause.cause.message : cause.message) : '';
    throw new IngestError('KCR_PREFLIGHT', `nothing answers at ${address}: ${why}`, {
      hint:
        'give the address that `run` has written as "status is served"; it serves one where the configuration ' +
        'has "http"',
      cause,
    });
  }
}

/** At most so many lines. */
export function textOf(status: IngestStatus, { json, sort }: Pick<TopOptions, 'json' | 'sort'>, lines: number): string {
  if (json === true) return `${JSON.stringify(status)}\n`;
  const rows = [...status.partitions].sort(orders[sort]).map((each) => cells(each, status.atMs));
  const shown = rows.slice(0, Math.max(1, lines - 3));
  const hidden = rows.length - shown.length;
  return [statusLine(status), '', table(columns, shown), ...(hidden > 0 ? [`… and ${hidden} more`] : []), ''].join(
    '\n',
  );
}

const columns: readonly Column[] = [
  { title: 'PARTITION' },
  { title: 'SETTLED', align: 'right' },
  { title: 'LOG END', align: 'right' },
  { title: 'LAG', align: 'right' },
  { title: 'BEHIND', align: 'right' },
  { title: 'ROWS/S', align: 'right' },
  { title: 'STATE' },
];

function cells(each: PartitionProgress, nowMs: number): string[] {
  return [
    partitionName(each),
    each.settled === undefined ? absent : String(each.settled),
    each.logEnd === undefined ? absent : String(each.logEnd),
    each.lagRecords === undefined ? absent : count(each.lagRecords),
    each.lagSeconds === undefined ? absent : duration(each.lagSeconds),
    count(each.rowsPerSecond),
    stateOf(each, nowMs),
  ];
}

function stateOf(
  { halted, inDoubtSinceMs, isDraining, isPaused, lagRecords, limit }: PartitionProgress,
  nowMs: number,
): string {
  if (halted !== undefined) return `halted ${halted.code}: ${halted.hint ?? halted.message}`;
  if (inDoubtSinceMs !== undefined) return `in doubt for ${duration((nowMs - inDoubtSinceMs) / 1000)}`;
  if (isDraining) return 'draining';
  if (isPaused) return 'paused';
  return lagRecords === 0 ? 'up to date' : limit === 'none' ? 'running' : `waits for ${limit}`;
}

type Order = (a: PartitionProgress, b: PartitionProgress) => number;

const byLag: Order = (a, b) => (b.lagRecords ?? -1) - (a.lagRecords ?? -1);
const isUrgent = ({ halted, inDoubtSinceMs }: PartitionProgress): number =>
  halted === undefined ? (inDoubtSinceMs === undefined ? 0 : 1) : 2;

const orders: Readonly<Record<TopOptions['sort'], Order>> = {
  urgency: (a, b) => isUrgent(b) - isUrgent(a) || byLag(a, b),
  lag: byLag,
  rate: (a, b) => b.rowsPerSecond - a.rowsPerSecond,
  name: (a, b) => (a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1),
};
