/**
 * Stage 6 of 6: commit. What is in the table is settled in the state store, then committed to Kafka.
 * Imports: errors, events, ledger, ports, retry, rxjs, stages.
 */
import {
  EMPTY,
  asyncScheduler,
  catchError,
  concat,
  concatAll,
  concatMap,
  defer,
  from,
  ignoreElements,
  map,
  of,
  throwError,
  type Observable,
  type OperatorFunction,
  type SchedulerLike,
} from 'rxjs';
import { asIngestError } from '../src/errors.js';
import { ignoreEvents, type Delivered, type OnEvent } from '../src/events.js';
import type { Ledger } from '../src/ledger.js';
import type { Partition } from '../src/ports.js';
import { retryRetryable, type RetryConfig } from '../src/retry.js';
import type { Committable, CommittedFrom, Inserted } from '../src/stages.js';

/** How commits are retried, and who is told of them. */
export interface CommitConfig {
  /** Of commits before the insert: for those that had no effect and will have none. */
  readonly retry?: RetryConfig;
  readonly onEvent?: OnEvent;
  /** @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

/**
 * Commits each value's range to the consumer group, in order, and lets it pass. What was recorded is settled first, by
 * the ledger that recorded it, and the committed offset is never beyond what is settled.
 *
 * In plain words: the receipt. First into our own book, then to Kafka.
 *
 * ```
 * source:  -a-------b------|     a ends at offset 9, b at 19
 * settle:   --s      --s         only with a ledger
 * commit:     --10     --20
 *          commit(partition, ledger)
 *          -----a-------b--|
 * ```
 *
 * Where it stands decides what it means:
 *
 * - behind `insertDeduped` a commit that fails is told (`commitFailed`) and passes: with a ledger the settled state is
 *   what counts, without one the records will be delivered again, which is what at-least-once means.
 * - before it a batch passes only after its commit took hold, made by the source's `commitOnce` where it has one: no
 *   older commit may come after a newer one, since it would set the group back, and records that were inserted be
 *   inserted again. Of an unknown outcome the assignment ends with `KCR_FENCED`: the group's committed offset then says
 *   what comes next.
 *
 * An error of the source takes its turn: the values before it are settled and committed first.
 *
 * @throws Into the stream: `KCR_FENCED` when another owner has claimed the partition.
 */
export function commit(
  partition: Partition,
  ledger: Ledger,
  config?: CommitConfig,
): OperatorFunction<Inserted<'recorded'>, Delivered>;
export function commit<V extends Committable>(
  partition: Partition,
  config?: CommitConfig,
): OperatorFunction<V, CommittedFrom<V>>;
export function commit(partition: Partition, ...rest: readonly [(Ledger | CommitConfig)?, CommitConfig?]): unknown {
  return isLedger(rest[0]) ? committing(partition, rest[0], rest[1]) : committing(partition, undefined, rest[0]);
}

function committing(
  partition: Partition,
  ledger: Ledger | undefined,
  config: CommitConfig = {},
): OperatorFunction<Committed, unknown> {
  const { onEvent = ignoreEvents, retry = {}, scheduler = asyncScheduler } = config;
  const { assignment } = partition;
  const first = (batch: Committed): Observable<unknown> =>
    concat(committed$(batch.lastOffset, true), of({ ...batch, isCommitted: true }));
  const settled = (value: Committed): Observable<unknown> =>
    (ledger === undefined ? of(value.lastOffset) : defer(() => ledger.of(assignment).settle(value.lastOffset))).pipe(
      concatMap((offset) =>
        concat(committed$(offset, false), of(value.kind === 'inserted' ? { ...value, kind: 'delivered' } : value)),
      ),
    );
  const call = (nextOffset: number, isFirst: boolean): Observable<void> => {
    if (!isFirst || partition.commitOnce === undefined) return defer(() => from(partition.commit(nextOffset)));
    return defer(() => from(partition.commitOnce!(nextOffset))).pipe(
      retryRetryable(retry, scheduler, (notice) => onEvent({ kind: 'retry', call: 'commit', assignment, ...notice })),
    );
  };
  const committed$ = (offset: number, isFirst: boolean): Observable<never> =>
    call(offset + 1, isFirst).pipe(
      ignoreElements(),
      catchError((thrown: unknown) => {
        const error = asIngestError(thrown, 'KCR_KAFKA', 'the offset could not be committed', {
          ...assignment,
          offset,
        });
        if (isFirst) return throwError(() => error);
        onEvent({ kind: 'commitFailed', assignment, error });
        return EMPTY;
      }),
    );
  return (values) =>
    values.pipe(
      map((value) => defer(() => (value.records === undefined ? settled(value) : first(value)))),
      // An error takes its turn: what was delivered before it would otherwise be inserted again at each restart.
      catchError((error: unknown) => of(throwError(() => error))),
      concatAll(),
    );
}

/** Any of them, as it comes: what has records is not inserted yet. */
interface Committed {
  readonly lastOffset: number;
  readonly kind?: string;
  readonly records?: unknown;
}

function isLedger(given: Ledger | CommitConfig | undefined): given is Ledger {
  return given !== undefined && 'of' in given;
}
