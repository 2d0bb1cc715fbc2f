/**
 * How many bytes of records may be on their way by default: as much as suits the memory that
 * this process may use. The arithmetic is pure; what it goes by is read from the system once. Imports: Node, preflight.
 */
import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { getHeapStatistics } from 'node:v8';
import type { Finding } from '../preflight/finding.js';

const MIB = 1_048_576;
/** Where there is memory enough: more does not make it faster. */
const MOST_BYTES = 256 * MIB;
/** Below it a fetch hardly fits. */
const LEAST_BYTES = 8 * MIB;
/** Node, its modules and heap, the requests' own buffers: measured, with a budget of 32 MiB the peak is 174 MB. */
const PROCESS_BYTES = 144 * MIB;
/** Of what is left above that, and of the heap: the collector runs behind what is released. */
const SHARE = 1 / 2;

export interface Memory {
  /** The lowest limit of the control groups that the process is in, bytes. Undefined: none. */
  readonly cgroupBytes: number | undefined;
  /** Of the machine. */
  readonly machineBytes: number;
  /** What V8 lets the heap grow to: `--max-old-space-size` and what it adds. */
  readonly heapBytes: number;
}

export interface Budget {
  readonly bytes: number;
  /** What it goes by, for people. */
  readonly why: string;
}

/** The default of `kafka.budgetBytes`. Pure. */
export function defaultBudget({ cgroupBytes = Infinity, machineBytes, heapBytes }: Memory): Budget {
  const allowed = Math.min(cgroupBytes, machineBytes);
  const byMemory = (allowed - PROCESS_BYTES) * SHARE;
  const byHeap = heapBytes * SHARE;
  const bytes = Math.floor(Math.max(LEAST_BYTES, Math.min(MOST_BYTES, byMemory, byHeap)) / MIB) * MIB;
  const of = cgroupBytes < machineBytes ? 'the container' : 'the machine';
  if (Math.min(byMemory, byHeap) >= MOST_BYTES) return { bytes, why: 'the usual budget: there is memory enough' };
  return { bytes, why: byHeap < byMemory ? `the heap may have ${mib(heapBytes)}` : `${of} has ${mib(allowed)}` };
}

/** Of what this process may use, as the system tells it. */
export function budgetHere(configured: number | undefined): Budget {
  if (configured !== undefined) return { bytes: configured, why: 'as kafka.budgetBytes says' };
  return defaultBudget({
    cgroupBytes: cgroupLimit(readOrNothing),
    machineBytes: totalmem(),
    heapBytes: getHeapStatistics().heap_size_limit,
  });
}

export const mib = (bytes: number): string => `${Math.round(bytes / MIB)} MiB`;

/**
 * The lowest memory limit of the groups the process is in, of version 2 or 1: each group is bound by those it lies in.
 * A container often sees its own group as the root, and one of version 1 under the host's path, which is not there.
 *
 * @param read The text of a file, or undefined.
 */
export function cgroupLimit(read: (path: string) => string | undefined): number | undefined {
  const lines = (read('/proc/self/cgroup') ?? '').split('\n').map((line) => line.split(':'));
  const limits = lines.flatMap(([, controllers = '', ...path]) => {
    const isOne = controllers.split(',').includes('memory');
    if (!isOne && controllers !== '') return [];
    const root = isOne ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup';
    const names = isOne ? ['memory.limit_in_bytes'] : ['memory.max', 'memory.high'];
    return ancestors(path.join(':')).flatMap((group) => names.map((name) => limitIn(read(`${root}${group}/${name}`))));
  });
  const known = limits.filter((limit) => limit !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

/** "/a/b": "", "/a", "/a/b". */
function ancestors(path: string): readonly string[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '..');
  return Array.from({ length: parts.length + 1 }, (_, count) =>
    parts
      .slice(0, count)
      .map((part) => `/${part}`)
      .join(''),
  );
}

/** "max", or in version 1 a number near 2^63, is no limit. */
function limitIn(text: string | undefined): number | undefined {
  const bytes = Number(text?.trim() || NaN);
  return bytes > 0 && bytes < 2 ** 60 ? bytes : undefined;
}

function readOrNothing(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** More than so often the budget that suits the memory is told as doubtful: the process may be killed for it. */
const MOST_TIMES = 2;

/** What the process may hold of records, and whether that suits its memory. */
export function memoryFinding(budgetBytes: number | undefined): Finding {
  const { bytes, why } = budgetHere(budgetBytes);
  const suits = budgetHere(undefined);
  const detail = `up to ${mib(bytes)} of records on their way through the process: ${why}`;
  if (bytes <= suits.bytes * MOST_TIMES) return { level: 'ok', what: 'memory', detail };
  return {
    level: 'warning',
    what: 'memory',
    detail: `${detail}; but ${suits.why}`,
    todo: `take out kafka.budgetBytes, which makes it ${mib(suits.bytes)}, or give the process more memory`,
  };
}
