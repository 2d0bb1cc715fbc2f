/**
 * A handle: one assignment of one partition, as the stages have it. Imports: events, model, rxjs.
 */
import type { Observable, ObservableInput } from 'rxjs';
import type { Halted } from '../events.js';
import type { Assignment, Chunk } from '../model/record.js';

/** Called when a partition halts; `heals`: it is started again by itself, here or by its next owner. */
export type OnHalt = (halted: Halted, heals: boolean) => ObservableInput<unknown>;

/**
 * One partition, from being assigned to this process until it is revoked or lost: its chunks, and what one may ask of
 * it.
 * `groupByPartition` makes them; `partitionOf` does for a pipeline that is tested by itself.
 */
export interface Partition {
  readonly topic: string;
  readonly partition: number;
  readonly assignment: Assignment;
  /** Hot: subscribe to it when the project is called. Completes when the partition is revoked. */
  readonly chunks: Observable<Chunk>;
  /** Commits `nextOffset`, one past the last that is done. */
  commit(nextOffset: number): ObservableInput<void>;
  /** Commits in one attempt, where the source can: see `RecordSource.commitOnce`. */
  commitOnce?(nextOffset: number): ObservableInput<void>;
  /** Errors with `KCR_CONFIG` where the source cannot seek. */
  seek(offset: number): ObservableInput<void>;
  /** Its state was claimed: see `RecordSource.claimed`. */
  claimed(inDoubtUpTo: number | undefined): void;
  /**
   * Everything up to `lastOffset` has left the pipeline. `groupByPartition` says so of each value that comes out of it.
   */
  done(lastOffset: number): void;
  /** No more chunks are wanted; it stays assigned. */
  halt(): void;
  /** It is to be lost and assigned again: see `RecordSource.reassign`. */
  reassign(afterMs?: number): void;
  /**
   * `note` is called when the partition halts, before what it has under way is discarded. Until its result ends the
   * partition is neither released nor started again, so it must end soon; what it emits and its error are ignored. It
   * is unsubscribed when the partition is lost.
   */
  onHalt(note: OnHalt): void;
}
