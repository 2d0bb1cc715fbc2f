/**
 * Which batches are one block of the server, and where one is cut that is not. Pure; the simulated sink
 * cuts by it, too. Imports: errors, model, ports.
 */
import type { Oversized } from '../../errors.js';
import { cursorOver } from '../../model/packed-records.js';
import type { Records } from '../../model/record.js';
import type { InsertBatch } from '../../ports.js';
import { BLOCK_BYTES, BLOCK_ROWS, parseFingerprint } from './settings.js';

export interface BlockLimits {
  readonly rows: number;
  /** Of the values. */
  readonly bytes: number;
}

/** Half of the block's limits leaves room for what a row grows to in memory. */
export const batchLimits: BlockLimits = { rows: BLOCK_ROWS / 2, bytes: BLOCK_BYTES / 2 };

/** A partition's state is short of space, and each part is a range in it: the last one is cut again in its turn. */
export const MOST_PARTS = 4;

export type Fit =
  /** Offsets behind which the batch is cut; none: it fits as it is. */
  | { readonly kind: 'parts'; readonly cuts: readonly number[] }
  /** The rows of one record are more than a block. */
  | { readonly kind: 'record'; readonly offset: number; readonly rows: number; readonly bytes: number };

/** Rows of one offset stay together: a part is a range of offsets. */
export function fitOf(records: Records, limits: BlockLimits): Fit {
  const cuts: number[] = [];
  let part = { rows: 0, bytes: 0 };
  let before: number | undefined;
  const cursor = cursorOver(records);
  for (let isMore = cursor.next(); isMore;) {
    const { offset } = cursor;
    let [rows, bytes] = [0, 0];
    for (; isMore && cursor.offset === offset; isMore = cursor.next()) {
      rows += 1;
      bytes += Math.max(0, cursor.valueLength);
    }
    if (rows > limits.rows || bytes > limits.bytes) return { kind: 'record', offset, rows, bytes };
    if (before !== undefined && (part.rows + rows > limits.rows || part.bytes + bytes > limits.bytes)) {
      cuts.push(before);
      part = { rows: 0, bytes: 0 };
    }
    part = { rows: part.rows + rows, bytes: part.bytes + bytes };
    before = offset;
  }
  return { kind: 'parts', cuts };
}

/** What the sink relies on. */
export interface Sent {
  readonly budgetMs: number;
  /** Fingerprint of the pinned settings, the limits of a block among them. */
  readonly settings: string;
}

/**
 * For how long an attempt of an earlier process may still land; undefined: none was ever sent. Of a batch that cannot
 * be sent as it is, this process has sent nothing, and no other has that made the same rows under the same limits. Only
 * a version of the transform says that they were the same: a replay under another one never comes as far as here.
 */
export function mayLandForMs(
  { replay, intent }: Pick<InsertBatch, 'replay' | 'intent'>,
  { budgetMs, settings }: Sent,
): number | undefined {
  if (!replay || intent === undefined) return undefined;
  const wasSent = intent.isFilling === true || intent.unknownUntilMs !== undefined || intent.token !== undefined;
  const isSameBatch = intent.transformVersion !== undefined && parseFingerprint(intent.settings)?.settings === settings;
  return isSameBatch && !wasSent ? undefined : budgetMs;
}

export function oversized(
  batch: Pick<InsertBatch, 'replay' | 'intent'>,
  cuts: readonly number[],
  sent: Sent,
): Oversized {
  return { cuts: cuts.slice(0, MOST_PARTS - 1), mayLandForMs: mayLandForMs(batch, sent) };
}
