/**
 * A port: where the state of partitions is kept. Imports: model, rxjs.
 */
import type { ObservableInput } from 'rxjs';
import type { PartitionState } from '../model/state.js';

/** The name of one partition's state. */
export interface StateKey {
  readonly cluster: string;
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
}

/** The right to write one partition's state, until somebody else claims it. Opaque to everyone but its store. */
export interface Claim {
  readonly key: StateKey;
  /** Who holds it: unique to a process and assignment; told to people who look for a zombie. */
  readonly owner: string;
  readonly state: PartitionState;
  /** The store's own mark of this very value: a node's version, a nonce. */
  readonly version: unknown;
}

/** What a store keeps of one partition. */
export interface Stored {
  readonly state: PartitionState;
  /** Who wrote it last; undefined: nobody ever did. */
  readonly owner: string | undefined;
}

/** Where the state of partitions is kept. One contract, one contract test for all: `test/state/contract.ts`. */
export interface StateStore {
  readonly name: string;
  /**
   * Takes the partition over: reads its state (or the empty one) and makes every later write under an earlier claim
   * fail. Of two that claim at once, the later one wins and the earlier one's next write fails.
   * Errors: `KCR_STORE_UNREACHABLE` (retryable), `KCR_STATE_INVALID`.
   */
  claim(key: StateKey, owner: string): ObservableInput<Claim>;
  /**
   * Replaces the state by compare-and-set on the claim; gives the claim for the next write. A reply that got lost is
   * read back, never guessed. Errors: `KCR_FENCED`, `KCR_STORE_UNREACHABLE` (retryable, with the same claim).
   */
  write(claim: Claim, state: PartitionState): ObservableInput<Claim>;
  /** Reads without claiming. */
  read(key: StateKey): ObservableInput<Stored>;
  /** Gives connections back. A promise, not cold: calling it is enough. */
  close(): Promise<void>;
}
