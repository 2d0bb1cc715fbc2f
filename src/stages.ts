/**
 * What was done with a batch, in its type: only the stage that does it can make the value that the next one takes.
 *
 * ```
 * Chunk → BufferedBatch → RecordedBatch  → Inserted<'recorded'> → Delivered     exactly-once
 *                       → Inserted<'buffered'> → Delivered                     at-least-once
 *                       → CommittedBatch → Delivered                           at-most-once
 * ```
 * Imports: events, ledger, model, ports.
 */
import type { Delivered } from './events.js';
import type { PartitionLedger } from './ledger.js';
import type { Assignment, Batch } from './model/record.js';
import type { InsertBatch } from './ports.js';

/** The key of what was done last. No public entry has it, so nobody else can make such values. */
export declare const stage: unique symbol;
declare const bound: unique symbol;

/** Bounds of a range as a stage has set them: a number, but no number is one. */
export type AfterOffset = number & { readonly [bound]: 'after' };
export type LastOffset = number & { readonly [bound]: 'last' };

/** How `bufferCountOrTime` cut a batch. */
export interface Cut {
  /** Its limits: batches that wait are joined within them. */
  readonly count: number;
  readonly bytes: number;
  /** Where the batch before it ended; undefined: it is the first. */
  readonly follows: number | undefined;
}

interface Ranged {
  readonly afterOffset: AfterOffset;
  readonly lastOffset: LastOffset;
}

/** Cut by `bufferCountOrTime`. */
export interface BufferedBatch extends Batch, Ranged {
  readonly afterOffset: AfterOffset;
  readonly lastOffset: LastOffset;
  readonly [stage]: 'buffered';
  readonly cut?: Cut;
}

/** Its range is in the state store, or nothing of it is to be inserted: `reconcileWithState` made it. */
export interface RecordedBatch extends InsertBatch, Ranged {
  readonly afterOffset: AfterOffset;
  readonly lastOffset: LastOffset;
  readonly [stage]: 'recorded';
  /** That recorded it: whatever is changed about the range is recorded there first. */
  readonly ledger: PartitionLedger;
}

/** Its offsets are committed: `commit` made it. What becomes of its insert, it is not made again. */
export interface CommittedBatch extends Batch, Ranged {
  readonly afterOffset: AfterOffset;
  readonly lastOffset: LastOffset;
  readonly [stage]: 'committed';
  readonly cut?: Cut;
  readonly isCommitted: true;
}

/** What `insertDeduped` takes. */
export type InsertableBatch = BufferedBatch | RecordedBatch | CommittedBatch;

/** It is in the table, and its range is still to be settled or committed: `insertDeduped` made it of what `S` says. */
export interface Inserted<S extends 'buffered' | 'recorded' = 'buffered' | 'recorded'> extends Omit<Delivered, 'kind'> {
  readonly kind: 'inserted';
  readonly [stage]: 'inserted';
  readonly [bound]: S;
}

/** What `insertDeduped` makes of a batch. */
export type InsertedFrom<B extends InsertableBatch> = B extends RecordedBatch
  ? Inserted<'recorded'>
  : B extends CommittedBatch
    ? Delivered
    : Inserted<'buffered'>;

/** Of one's own operators: how far a partition has got. */
export interface Done {
  readonly assignment: Assignment;
  readonly lastOffset: number;
  readonly [stage]?: never;
}

/** What `commit` takes without a ledger, and what it makes of it. */
export type Committable = BufferedBatch | Inserted<'buffered'> | Done;
export type CommittedFrom<V extends Committable> = V extends Inserted
  ? Delivered
  : V extends BufferedBatch
    ? CommittedBatch
    : V;
