/**
 * Stage 6 of 6: commit. What is in the table is settled in the state store, then committed to Kafka. Only ports and the
 * model may enter.
 */
import {
  EMPTY, asyncScheduler, catchError, concat, concatAll, concatMap, defer, from, ignoreElements, map, of, throwError,
  type MonoTypeOperatorFunction, type Observable, type SchedulerLike,
} from 'rxjs';
import { asIngestError } from '../src/errors.js';
import { noReport, type Report } from '../src/events.js';
import type { Ledger } from '../src/ledger.js';
import type { Assignment } from '../src/model/record.js';
import type { RecordSource } from '../src/ports.js';
import { retryRetryable, type RetryConfig } from '../src/retry.js';

/** A value that says how far its partition has got. */
export interface Committable {
  readonly assignment: Assignment;
  readonly lastOffset: number;
}

export interface CommitConfig {
  /**
   * At-most-once: a value passes only after its commit took hold, made by the source's `commitOnce` where it has one. Of
   * an unknown outcome the tenure ends with `KCR_FENCED`: the group's committed offset then says what comes next.
   * @default false
   */
  readonly mustCommit?: boolean;
  /** With `mustCommit`: for commits that had no effect and will have none. */
  readonly retry?: RetryConfig;
  readonly report?: Report;
}

/**
 * Commits each value's range to the consumer group, in order, and lets the value pass unchanged. With a ledger the
 * range is settled first, and the committed offset is never beyond what is settled.
 *
 * In plain words: the receipt. First into our own book, then to Kafka.
 *
 * ```
 * source:  -a-------b------|     a ends at offset 9, b at 19
 * settle:   --s      --s         only with a ledger
 * commit:     --10     --20
 *          commit(source, ledger)
 *          -----a-------b--|
 * ```
 *
 * A commit that fails is reported (`commitFailed`) and passes: with a ledger the settled state is what counts, without
 * one the records will be delivered again, which is what at-least-once means. Set `mustCommit` for at-most-once, where
 * a record may be inserted only after its commit took hold, and no older commit may come after a newer one: it would set
 * the group back, and records that were inserted be inserted again.
 *
 * An error of the source takes its turn: the values before it are settled and committed first.
 *
 * @throws Into the stream: `KCR_FENCED` when another owner has claimed the partition.
 */
export function commit<T extends Committable>(
  source: Pick<RecordSource, 'commit' | 'commitOnce'>,
  ledger?: Ledger,
  config: CommitConfig = {},
  scheduler: SchedulerLike = asyncScheduler,
): MonoTypeOperatorFunction<T> {
  const { report = noReport, mustCommit = false, retry = {} } = config;
  const call = (assignment: Assignment, nextOffset: number): Observable<void> => {
    if (!mustCommit || source.commitOnce === undefined) return defer(() => from(source.commit(assignment, nextOffset)));
    return defer(() => from(source.commitOnce!(assignment, nextOffset))).pipe(
      retryRetryable(retry, scheduler, (notice) => report({ kind: 'retry', call: 'commit', assignment, ...notice })),
    );
  };
  const settleAndCommit = (value: T): Observable<T> => {
    const { assignment, lastOffset } = value;
    const settled$ = ledger === undefined ? of(lastOffset) : defer(() => ledger.of(assignment).settle(lastOffset));
    const committed$ = (offset: number): Observable<never> =>
      call(assignment, offset + 1).pipe(
        ignoreElements(),
        catchError((thrown: unknown) => {
          const error = asIngestError(thrown, 'KCR_KAFKA', 'the offset could not be committed', { ...assignment, offset });
          if (mustCommit) return throwError(() => error);
          report({ kind: 'commitFailed', assignment, error });
          return EMPTY;
        }),
      );
    return settled$.pipe(concatMap((settled) => concat(committed$(settled), of(value))));
  };
  return (values) =>
    values.pipe(
      map((value) => defer(() => settleAndCommit(value))),
      // An error takes its turn: what was delivered before it would otherwise be inserted again at each restart.
      catchError((error: unknown) => of(throwError(() => error))),
      concatAll(),
    );
}
