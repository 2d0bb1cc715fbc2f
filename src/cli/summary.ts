/**
 * An ingestion's status in one line, for a terminal and for the log. Pure. Imports: observe.
 */
import type { IngestStatus, Limit } from '../observe/status.js';

const limits: Partial<Readonly<Record<Limit, string>>> = {
  kafka: 'Kafka limits',
  clickhouse: 'ClickHouse limits',
  state: 'the state store limits',
  ours: 'this process limits',
};

/** "12.3k rows/s · 1.2M behind, 2 min left · in doubt for 12 s · ClickHouse limits · 2 of 8 partitions halted" */
export function statusLine(status: IngestStatus): string {
  const { phase, partitions, rowsPerSecond, lagRecords, etaSeconds, inDoubtSinceMs, atMs, limit, totals } = status;
  if (phase !== 'running') return `${phase} · ${count(totals.rows)} rows`;
  const halted = partitions.filter((each) => each.halted !== undefined).length;
  const paused = partitions.filter((each) => each.isPaused).length;
  const left = etaSeconds === undefined ? '' : `, ${duration(etaSeconds)} left`;
  return [
    `${count(rowsPerSecond)} rows/s`,
    lagRecords === 0 ? 'up to date' : `${count(lagRecords)} behind${left}`,
    inDoubtSinceMs === undefined ? '' : `in doubt for ${duration((atMs - inDoubtSinceMs) / 1000)}`,
    lagRecords === 0 ? '' : (limits[limit] ?? ''),
    status.isPaused ? 'paused' : paused === 0 ? '' : `${paused} of ${partitions.length} partitions paused`,
    halted === 0 ? '' : `${halted} of ${partitions.length} partitions halted`,
    `${count(totals.rows)} rows`,
  ]
    .filter((part) => part !== '')
    .join(' · ');
}

/** As fields of a log line. */
export function statusFields(status: IngestStatus): Readonly<Record<string, unknown>> {
  const { phase, partitions, inDoubtSinceMs, atMs, totals, limit } = status;
  return {
    phase,
    rowsPerSecond: Math.round(status.rowsPerSecond),
    lagRecords: status.lagRecords,
    lagSeconds: rounded(status.lagSeconds),
    etaSeconds: rounded(status.etaSeconds),
    inDoubtSeconds: inDoubtSinceMs === undefined ? undefined : rounded((atMs - inDoubtSinceMs) / 1000),
    limit,
    partitions: partitions.length,
    halted: partitions.filter((each) => each.halted !== undefined).length,
    paused: partitions.filter((each) => each.isPaused).length,
    rows: totals.rows,
    retries: totals.retries,
  };
}

function rounded(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.round(seconds * 10) / 10;
}

const UNITS = ['', 'k', 'M', 'G', 'T'] as const;

/** 999, "1.2k", "34M". */
export function count(value: number): string {
  const power = value < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(value) / 3));
  const scaled = value / 1000 ** power;
  return `${power === 0 || scaled >= 100 ? Math.round(scaled) : Number(scaled.toFixed(1))}${UNITS[power]}`;
}

/** "850 ms", "12 s", "3 min", "5 h". */
export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
