/**
 * An ingestion at one moment, as plain values: what `status()` gives, and what the program's page, `top`, metrics and
 * summary lines show. Pure. Imports: model, ports.
 */
import type { Call, HaltFacts, Meter, MeterListener, PartitionFacts, Phase } from './meter.js';
import type { Pauses } from '../model/pauses.js';
import { partitionName } from '../model/partition-name.js';
import type { Notice } from './notice.js';
import type { SourceFacts, SourceProgress } from '../ports.js';
import { publicText } from './public-text.js';
import type { Totals } from './totals.js';

/** What holds a partition up, or all of them. `ours`: this process is busy; `none`: nothing is waiting. */
export type Limit = 'none' | 'kafka' | 'clickhouse' | 'state' | 'ours' | 'paused' | 'halted';

export interface PartitionProgress {
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  /** The last offset that is in the table for sure; undefined: none of this log. */
  readonly settled: number | undefined;
  /** The next offset, as the group has committed it; undefined: nothing. */
  readonly committed: number | undefined;
  /** The offset that the next record will get; undefined: not known yet. */
  readonly logEnd: number | undefined;
  /** Offsets from here on belong to transactions that are open; undefined: not known, or not asked for. */
  readonly stableEnd: number | undefined;
  /** Records (offsets, strictly) up to the log's end that are not settled. */
  readonly lagRecords: number | undefined;
  /** Between the last settled record's time and now; 0 without a lag. */
  readonly lagSeconds: number | undefined;
  /** Ranges that are recorded, or on their way, and not settled. */
  readonly open: number;
  /** Since when the oldest range is in doubt, milliseconds since the epoch; undefined: none is. */
  readonly inDoubtSinceMs: number | undefined;
  readonly rowsPerSecond: number;
  readonly limit: Limit;
  /** The byte budget has no room for more of it. */
  readonly isFull: boolean;
  readonly isDraining: boolean;
  /** Nothing more of it is fetched until it is resumed. */
  readonly isPaused: boolean;
  readonly halted: Halt | undefined;
}

export interface Halt {
  readonly code: string;
  readonly message: string;
  /** What to do about it. */
  readonly hint: string | undefined;
  readonly sinceMs: number;
  /** It starts again by itself after so many milliseconds; undefined: it waits for a person. */
  readonly healsInMs: number | undefined;
}

export interface IngestStatus {
  readonly atMs: number;
  readonly startedAtMs: number;
  readonly phase: Phase;
  /** All partitions are paused, those that may be assigned later included. */
  readonly isPaused: boolean;
  readonly rowsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Of the partitions whose lag is known. */
  readonly lagRecords: number;
  /** The largest. */
  readonly lagSeconds: number;
  /** When the lag is gone at the present pace, seconds; undefined: it grows, or nothing moves. */
  readonly etaSeconds: number | undefined;
  readonly inDoubtSinceMs: number | undefined;
  /** 95 of 100 inserts of the last ten seconds took at most so long; undefined: there was none. */
  readonly insertSeconds: number | undefined;
  readonly limit: Limit;
  readonly budget: { readonly bytes: number; readonly usedBytes: number } | undefined;
  readonly totals: Readonly<Totals>;
  /** Ascending by topic and partition. */
  readonly partitions: readonly PartitionProgress[];
}

/** An ingestion that can be looked at: what metrics, the page and one's own code read. */
export interface Observed {
  /** What it does at this moment. Cheap: it reads what is known, and asks no server. */
  status(): IngestStatus;
  /** The last hundred things that people should see, oldest first. */
  noted(): readonly Notice[];
  /** Gives what ends it. */
  listen(listener: MeterListener): () => void;
}

export interface StatusInput {
  readonly meter: Meter;
  readonly source: SourceFacts;
  readonly pauses: Pick<Pauses, 'has' | 'isAll'>;
}

export function ingestStatus({ meter, source, pauses }: StatusInput): IngestStatus {
  const { nowMs } = meter;
  const isPaused = pauses.isAll;
  const known = new Map(source.partitions.map((each) => [partitionName(each), each]));
  const partitions = [...meter.partitions]
    .map((facts) => {
      return partitionProgress(facts, known.get(partitionName(facts.assignment)), {
        nowMs,
        isPaused: pauses.has(facts.assignment),
      });
    })
    .sort((a, b) => (a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1));
  const rowsPerSecond = meter.rows.perSecond(nowMs);
  const lagRecords = sum(partitions.map((each) => each.lagRecords ?? 0));
  return {
    atMs: nowMs,
    startedAtMs: meter.startedAtMs,
    phase: meter.phase,
    isPaused,
    rowsPerSecond,
    bytesPerSecond: meter.bytes.perSecond(nowMs),
    lagRecords,
    lagSeconds: Math.max(0, ...partitions.map((each) => each.lagSeconds ?? 0)),
    etaSeconds: lagRecords > 0 && rowsPerSecond > 0 ? lagRecords / rowsPerSecond : undefined,
    inDoubtSinceMs: least(partitions.map((each) => each.inDoubtSinceMs)),
    insertSeconds: meter.inserts.percentile(0.95, nowMs),
    limit: overall(partitions, isPaused),
    budget: source.budget,
    totals: { ...meter.totals },
    partitions,
  };
}

function partitionProgress(
  facts: PartitionFacts,
  source: SourceProgress | undefined,
  { nowMs, isPaused }: { readonly nowMs: number; readonly isPaused: boolean },
): PartitionProgress {
  const { assignment, doneUpTo, open, pending } = facts;
  const lagRecords =
    source?.logEnd === undefined || doneUpTo === undefined ? undefined : Math.max(0, source.logEnd - doneUpTo - 1);
  const { lastTimestampMs } = facts;
  const isCaughtUp = lagRecords === 0;
  const lagSeconds = isCaughtUp
    ? 0
    : lastTimestampMs === undefined
      ? undefined
      : Math.max(0, (nowMs - lastTimestampMs) / 1000);
  const doubts = [...open.values()].filter(({ isInDoubt }) => isInDoubt).map(({ sinceMs }) => sinceMs);
  return {
    topic: assignment.topic,
    partition: assignment.partition,
    generation: assignment.generation,
    settled: doneUpTo !== undefined && doneUpTo < 0 ? undefined : doneUpTo,
    committed: facts.committed,
    logEnd: source?.logEnd,
    stableEnd: source?.stableEnd,
    lagRecords,
    lagSeconds,
    open: Math.max(pending, open.size),
    inDoubtSinceMs: least(doubts),
    rowsPerSecond: facts.rows.perSecond(nowMs),
    limit: limitOf(facts, source, lagRecords, isPaused),
    isFull: source?.isFull === true,
    isDraining: facts.isDraining,
    isPaused,
    halted: facts.halted && haltOf(facts.halted),
  };
}

/** What the partition waits for at this moment. */
function limitOf(
  { halted, calls }: PartitionFacts,
  source: SourceProgress | undefined,
  lagRecords: number | undefined,
  isPaused: boolean,
): Limit {
  const isUnderWay = (call: Call): boolean => (calls.get(call) ?? 0) > 0;
  if (halted !== undefined) return 'halted';
  if (isUnderWay('insert') || isUnderWay('readBack') || isUnderWay('fill')) return 'clickhouse';
  if (isUnderWay('write') || isUnderWay('claim')) return 'state';
  if (isPaused) return 'paused';
  if (lagRecords === undefined || lagRecords === 0) return 'none';
  return source?.isFull === true ? 'ours' : 'kafka';
}

/** What most partitions with something to do wait for. */
function overall(partitions: readonly PartitionProgress[], isPaused: boolean): Limit {
  if (partitions.length > 0 && partitions.every(({ halted }) => halted !== undefined)) return 'halted';
  if (isPaused) return 'paused';
  const counts = new Map<Limit, number>();
  for (const { limit, lagRecords, inDoubtSinceMs } of partitions) {
    // An insert under way with nothing behind it limits nothing.
    const isBehind = lagRecords === undefined || lagRecords > 0 || inDoubtSinceMs !== undefined;
    if (limit !== 'none' && limit !== 'halted' && isBehind) counts.set(limit, (counts.get(limit) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 'none';
}

function haltOf({ error, sinceMs, healsInMs }: HaltFacts): Halt {
  return { code: error.code, message: publicText(error), hint: error.fields.hint, sinceMs, healsInMs };
}

function least(times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
