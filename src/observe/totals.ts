/**
 * What an ingestion has come to since it began, in numbers that only grow. Pure. Imports: events.
 */
import type { IngestEvent, Outcome } from '../events.js';

/** Counts since the start, over all partitions. */
export interface Totals {
  batches: number;
  rows: number;
  bytes: number;
  replayed: number;
  retries: number;
  stateWrites: number;
  filtered: number;
  /** Offsets that were gone before they were read. */
  gone: number;
  abandoned: number;
  /** Record batches that could not be believed and were left out, as the policy for them says. */
  corruptBatches: number;
  /** Records left out of their batches, as the policy for poison says. */
  excluded: number;
  /** Records whose timestamp `_timestamp` could not hold. */
  timesOutside: number;
  /** Records without a value that were skipped. */
  tombstones: number;
  /** Partitions that started again because their topic was recreated or truncated. */
  restarted: number;
  halted: number;
  /** Partitions that had halted and went on. */
  healed: number;
}

export function noTotals(): Totals {
  return {
    batches: 0,
    rows: 0,
    bytes: 0,
    replayed: 0,
    retries: 0,
    stateWrites: 0,
    filtered: 0,
    gone: 0,
    corruptBatches: 0,
    abandoned: 0,
    excluded: 0,
    tombstones: 0,
    timesOutside: 0,
    restarted: 0,
    halted: 0,
    healed: 0,
  };
}

export function countOutcome(totals: Totals, outcome: Outcome): void {
  if (outcome.kind === 'halted') {
    totals.halted += 1;
    return;
  }
  totals.batches += 1;
  totals.rows += outcome.rows;
  totals.bytes += outcome.bytes;
  if (outcome.replay) totals.replayed += 1;
}

export function countEvent(totals: Totals, event: IngestEvent): void {
  switch (event.kind) {
    case 'healed':
      totals.healed += 1;
      return;
    case 'retry':
      totals.retries += 1;
      return;
    case 'stateWritten':
      totals.stateWrites += 1;
      return;
    case 'filtered':
      totals.filtered += event.records;
      return;
    case 'gap':
      totals.gone += event.found - event.expected;
      return;
    case 'tombstones':
      if (!event.replay) totals.tombstones += event.records;
      return;
    case 'timesOutside':
      totals.timesOutside += event.records;
      return;
    case 'corruptBatch':
      totals.corruptBatches += 1;
      return;
    case 'abandoned':
      totals.abandoned += event.rows;
      return;
    case 'excluded':
      totals.excluded += 1;
      return;
    case 'restarted':
      totals.restarted += 1;
      return;
    default:
  }
}
