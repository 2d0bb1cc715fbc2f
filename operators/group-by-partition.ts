/**
 * Stage 2 of 6: groupByPartition. The lifetimes: one inner stream for each assignment of a partition.
 * Imports: events, operators/internal, ports, rxjs.
 */
import { Observable, type ObservableInput, type OperatorFunction } from 'rxjs';
import { ignoreEvents, type Halted } from '../src/events.js';
import type { Partition, SourceEvent } from '../src/ports.js';
import { OpenPartitions, type Covered, type GroupByPartitionConfig } from './internal/open-partitions.js';
import type { PartitionSource } from './internal/partition.js';

export { healDefaults } from './internal/open-partitions.js';
export type { Covered, GroupByPartitionConfig, HealConfig } from './internal/open-partitions.js';

/**
 * Runs `project` once for each assignment of a partition and merges what comes of them. There is no limit on how many
 * run at once, since a limit would starve partitions; inserts are limited in the sink.
 *
 * In plain words: every partition gets a pipeline of its own, which lives as long as the partition is ours.
 *
 * ```
 * events:  -A-B-a-x-b-R---y-L-|     A, B: partitions 1 and 2 are assigned; a, b: chunks of 1; x, y: chunks of 2
 *          groupByPartition(source, p => p.chunks.pipe(concatMap(insert)))      an insert takes four frames
 *          ---------a-x-b-----|     R: 1 is revoked, b is finished, then the source is released
 *                                   L: 2 is lost, y is discarded
 * ```
 *
 * - **revoked**: `chunks` completes; when the inner stream has completed too, the source is released.
 * - **lost**: the inner stream is unsubscribed at once, before any later assignment of the partition begins.
 * - **error** of an inner stream: its partition halts. `{ kind: 'halted', assignment, error }` is emitted, no more of
 *   the partition is fetched, the others go on. Nothing was skipped: the next owner begins at the same record. For what
 *   can be mended from outside it is started again after a while (`heal`), told by `healsInMs`.
 *   An error that says the partition is somebody else's (`KCR_FENCED`) only discards the assignment, and the source is
 *   asked to assign it again, should the group still say it is ours. What is no `IngestError` was thrown by an operator
 *   of yours: it becomes `KCR_TRANSFORM`, with the range that was taken and not delivered.
 * - **failed**: the source cannot go on with the partition; it halts likewise.
 * - every value `project` emits returns its bytes to the source's budget, so emit one for each batch.
 */
export function groupByPartition<T extends Covered>(
  source: PartitionSource,
  project: (partition: Partition) => ObservableInput<T>,
  config: GroupByPartitionConfig = {},
): OperatorFunction<SourceEvent, T | Halted> {
  const { onEvent = ignoreEvents, heal = {} } = config;
  return (events) =>
    new Observable<T | Halted>((subscriber) => {
      const openPartitions = new OpenPartitions(source, project, { onEvent, heal }, subscriber);
      const outer = events.subscribe({
        next: (event) => openPartitions.on(event),
        error: (error: unknown) => subscriber.error(error),
        complete: () => openPartitions.completeAll(),
      });
      return () => {
        outer.unsubscribe();
        openPartitions.discardAll();
      };
    });
}
