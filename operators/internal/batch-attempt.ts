/**
 * A helper of insertDeduped: what its helpers share of one batch on its way. Imports: ledger, ports, rxjs.
 */
import { defer, last, tap, using, type Observable } from 'rxjs';
import type { PartitionLedger } from '../../src/ledger.js';
import type { InsertBatch, InsertResult, PreparedInsert } from '../../src/ports.js';
import type { Doubt } from './doubt-steps.js';
import type { Effects } from './insert-verified.js';
import type { Preparing } from './preparing.js';

export interface Stage extends Effects {
  readonly sink: Preparing;
  readonly onPoison: 'halt' | 'exclude';
  /** That recorded the batch; undefined: nothing is recorded of it. */
  readonly ledger: PartitionLedger | undefined;
}

/** How far one batch has come; its records become fewer, and with them its intent and token others. */
export interface BatchAttempt {
  readonly batch: InsertBatch;
  readonly doubt: Doubt;
  /** Records that may still be left out. */
  readonly exclusions: { left: number };
  /** How often its intent was recorded again, one time after another, before anything of it was tried. */
  readonly renewals: number;
  /** Tried again and again, whatever is answered: to look for a record at fault was in vain. */
  readonly isPatient: boolean;
}

/** A part of a batch that is in the table: a range of its own. */
export interface Part {
  readonly batch: InsertBatch;
  readonly result: InsertResult;
}

/** Of a token under which nothing was ever sent. */
export const noDoubt: Doubt = { isInDoubt: false, isUnanswered: false };

export function rangeOf({ afterOffset, lastOffset }: InsertBatch): string {
  return `${afterOffset + 1}-${lastOffset}`;
}

/** Prepares, and gives the bytes back once what is done with them has ended, or nobody waits for it any more. */
export function whilePrepared<T>(
  batch: InsertBatch,
  { sink }: Stage,
  use: (preparedInsert: PreparedInsert) => Observable<T>,
): Observable<T> {
  return defer(() => {
    const preparedInsert = sink.prepare(batch);
    let isReleased = false;
    const release = (): void => {
      if (!isReleased) preparedInsert.release();
      isReleased = true;
    };
    return using(
      () => ({ unsubscribe: release }),
      () => use(preparedInsert).pipe(last(), tap(release)),
    );
  });
}
