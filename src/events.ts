/**
 * What the pipeline tells about itself while it runs, as plain values. For logs, metrics and tests; nothing in
 * the pipeline depends on who listens. Imports: errors, model.
 */
import type { IngestError } from './errors.js';
import type { Assignment, KafkaRecord } from './model/record.js';

/** What left the pipeline: one value for each batch, in the order of its partition. */
export type Outcome = Delivered | Halted;

/** A batch whose whole way is behind it. */
export interface Delivered {
  readonly kind: 'delivered';
  readonly assignment: Assignment;
  /** The range `(afterOffset, lastOffset]`. */
  readonly afterOffset: number;
  readonly lastOffset: number;
  /** Rows inserted by this process for the range; 0 for one that was settled already or had no records. */
  readonly rows: number;
  /** Bytes sent to ClickHouse. */
  readonly bytes: number;
  /** It was in doubt when this process took over, and was inserted again under its recorded token. */
  readonly replay: boolean;
}

/** A partition that takes nothing any more. The others go on. */
export interface Halted {
  readonly kind: 'halted';
  readonly assignment: Assignment;
  readonly error: IngestError;
  /**
   * After so many milliseconds the partition is started again, since the error may be mended by then; 0: it was being
   * given back, and its next owner begins it; undefined: it stays halted.
   */
  readonly healsInMs?: number;
}

/** What happens on the way, by `kind`. Outcomes are told apart from these. */
export type IngestEvent =
  | { readonly kind: 'assigned' | 'failed' | 'revoked' | 'lost' | 'released'; readonly assignment: Assignment }
  | {
      /** The pipeline of the partition completed by itself: nothing more of it is taken, and it stays assigned. */
      readonly kind: 'finished';
      readonly assignment: Assignment;
    }
  | {
      /** The state was claimed. */
      readonly kind: 'claimed';
      readonly assignment: Assignment;
      readonly settled: number | undefined;
      readonly inDoubt: number;
    }
  | {
      /**
       * The topic was recreated or truncated, and the policy says `restart`: the partition goes on at `startOffset`.
       */
      readonly kind: 'restarted';
      readonly assignment: Assignment;
      readonly reason: 'recreated' | 'truncated';
      /** What the state told of the log that is gone; ranges in doubt of it are given up. */
      readonly settled: number | undefined;
      readonly inDoubt: readonly { readonly first: number; readonly last: number }[];
      readonly startOffset: number;
    }
  | {
      /** The group's committed offset is beyond what the state says is next, or was set back: the state decides. */
      readonly kind: 'resumed';
      readonly assignment: Assignment;
      readonly committed: number;
      readonly resume: number;
    }
  | {
      /**
       * A record is left out of its batch for good, as the policy for poison says. `replay`: it was recorded as left
       * out before, by a process that may have died before it could tell; of one record there may be several such
       * events.
       * `record` is undefined when the log does not hold it any more.
       */
      readonly kind: 'excluded';
      readonly assignment: Assignment;
      readonly record: KafkaRecord | undefined;
      readonly error: IngestError;
      readonly replay: boolean;
    }
  | {
      /**
       * A batch is inserted in parts: the server refuses it and names no record, until the record is found; or a
       * transform made more rows of it than one insert may have.
       */
      readonly kind: 'divided';
      readonly assignment: Assignment;
      readonly first: number;
      readonly last: number;
      readonly error: IngestError;
    }
  | {
      /**
       * ClickHouse goes on refusing a range, or a single record, by a code that nobody knows, and it cannot be told
       * whether a record, the table or the moment is at fault: it is tried until it is taken, and what is behind it in
       * its partition waits. Told after five attempts, then with every thirtieth. `first` and `last`: of the records
       * that are sent.
       */
      readonly kind: 'stuck';
      readonly assignment: Assignment;
      readonly first: number;
      readonly last: number;
      readonly attempts: number;
      readonly error: IngestError;
    }
  | {
      /** A partition that had halted goes on: a batch of it was delivered, after `attempts` new beginnings. */
      readonly kind: 'healed';
      readonly assignment: Assignment;
      readonly attempts: number;
    }
  | { readonly kind: 'fenced'; readonly assignment: Assignment; readonly error: IngestError }
  | { readonly kind: 'skipped'; readonly assignment: Assignment; readonly first: number; readonly last: number }
  | {
      /** A port call failed and will be made again. */
      readonly kind: 'retry';
      readonly call: 'insert' | 'readBack' | 'fill' | 'claim' | 'log' | 'write' | 'commit';
      readonly assignment: Assignment;
      readonly attempt: number;
      readonly delayMs: number;
      readonly error: IngestError;
    }
  | {
      /** A range in doubt was read back. */
      readonly kind: 'verified';
      readonly assignment: Assignment;
      readonly first: number;
      readonly last: number;
      readonly missing: number;
    }
  | {
      /** Offsets from `expected` up to `found` (not included) are not in the log any more. */
      readonly kind: 'gap';
      readonly assignment: Assignment;
      readonly expected: number;
      readonly found: number;
    }
  | {
      /** A record batch that cannot be believed was left out, with all its records, as `kafka.onCorruptBatch` says. */
      readonly kind: 'corruptBatch';
      readonly assignment: Assignment;
      /** Both ends are included. */
      readonly first: number;
      readonly last: number;
      /** As the batch says it. */
      readonly records: number;
      readonly error: IngestError;
    }
  | {
      /**
       * An open transaction holds back what is in the log: offsets from `stableEnd` up to `logEnd` (not included). Told
       * when that has stood still for ten seconds, then once a minute.
       */
      readonly kind: 'heldBack';
      readonly assignment: Assignment;
      readonly stableEnd: number;
      readonly logEnd: number;
      /** Since the transaction began, or else since this process sees it, milliseconds since the epoch. */
      readonly sinceMs: number;
      /** Of the producer; undefined: no broker tells. */
      readonly producerId: string | undefined;
      readonly transactionalId: string | undefined;
    }
  | { readonly kind: 'commitFailed'; readonly assignment: Assignment; readonly error: IngestError }
  | {
      /**
       * At-most-once: committed records whose insert failed, was given up, or has an outcome that is not known. It is
       * not made again. `rows`: as the batches say it.
       */
      readonly kind: 'abandoned';
      readonly assignment: Assignment;
      readonly first: number;
      readonly last: number;
      readonly rows: number;
      readonly error: IngestError;
    }
  | { readonly kind: 'stateWritten'; readonly assignment: Assignment; readonly pending: number }
  | {
      /** Records without a value were skipped, as the policy for them says. `replay`: perhaps told before. */
      readonly kind: 'tombstones';
      readonly assignment: Assignment;
      readonly first: number;
      readonly last: number;
      readonly records: number;
      readonly replay: boolean;
    }
  | {
      /**
       * Records have a timestamp that `_timestamp` cannot hold, such as microseconds: the nearest that it can is
       * stored.
       */
      readonly kind: 'timesOutside';
      readonly assignment: Assignment;
      readonly first: number;
      readonly last: number;
      readonly records: number;
    }
  | { readonly kind: 'filtered'; readonly assignment: Assignment; readonly records: number }
  | {
      /**
       * A table was altered while it is in use: it is `gone` or `back`, `replaced` by another one under its name, its
       * dedup
       * `window` was removed or given back, its provenance `columns` changed, or something else was `altered`.
       */
      readonly kind: 'tableChanged';
      /** `database.table` */
      readonly table: string;
      readonly change: 'gone' | 'back' | 'replaced' | 'window' | 'columns' | 'altered';
      readonly level: 'error' | 'warn' | 'info';
      readonly message: string;
      /** What to do about it. */
      readonly hint: string | undefined;
    }
  | {
      /** What the Kafka client tells: connections lost and found again, rebalances. */
      readonly kind: 'kafka';
      readonly level: 'error' | 'warn' | 'info';
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    };

/** Called synchronously; must not throw. */
export type OnEvent = (event: IngestEvent) => void;

export const ignoreEvents: OnEvent = () => undefined;
