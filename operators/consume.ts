/**
 * Stage 1 of 6: consume. What a record source tells, made safe to build on. Imports: errors, model, ports, rxjs.
 */
import { concatMap, defer, type Observable } from 'rxjs';
import { IngestError } from '../src/errors.js';
import { partitionName } from '../src/model/partition-name.js';
import type { Assignment } from '../src/model/record.js';
import type { RecordSource, SourceEvent } from '../src/ports.js';

/**
 * Joins the consumer group when subscribed to, leaves it when unsubscribed, and tells of every assignment:
 * `assigned`, chunks, then `revoked` or `lost`.
 *
 * In plain words: the tap. It keeps three promises whatever the source does: a partition has one assignment at a time
 * (a second `assigned` discards the first one with `lost` before it begins), chunks of an assignment that is over never
 * pass, and nothing of an assignment passes before its `assigned`.
 *
 * ```
 * source:  -A-a-B---b-c-S-|     A, a, b: an assignment and its chunks; B, c, S: the next one, its chunk, its revoke
 *          consume(source)
 *          -A-a-(LB)--c-S-|     L = the first assignment is lost; b came of it after it was over
 * ```
 *
 * @param source An adapter such as `kafkaSource`, or a fake one in tests.
 * @returns Cold. Completes after `source.drain()`; errors when the source cannot go on.
 */
export function consume(source: RecordSource): Observable<SourceEvent> {
  return defer(() => {
    const openPartitions: OpenPartitions = { current: new Map(), lastEpoch: -Infinity };
    // concatMap keeps the order even when passing an event makes the source emit the next one.
    return source.events.pipe(concatMap((event) => guard(openPartitions, event)));
  });
}

interface OpenPartitions {
  readonly current: Map<string, Assignment>;
  lastEpoch: number;
}

/** What may pass of an event, given the assignments that are under way; keeps those up to date. */
function guard(openPartitions: OpenPartitions, event: SourceEvent): readonly SourceEvent[] {
  const { current } = openPartitions;
  const { assignment } = event;
  const key = partitionName(assignment);
  const opened = current.get(key);
  const isCurrent = opened?.assignmentId === assignment.assignmentId;
  switch (event.kind) {
    case 'assigned':
      if (assignment.assignmentId <= openPartitions.lastEpoch) {
        throw new IngestError(
          'KCR_INTERNAL',
          `the source used epoch ${assignment.assignmentId} after ${openPartitions.lastEpoch}`,
          assignment,
        );
      }
      openPartitions.lastEpoch = assignment.assignmentId;
      current.set(key, assignment);
      return opened === undefined ? [event] : [{ kind: 'lost', assignment: opened }, event];
    case 'lost':
      if (!isCurrent) return [];
      current.delete(key);
      return [event];
    case 'fetched':
    case 'failed':
      return isCurrent ? [event] : [];
    case 'revoked': {
      const release = () => {
        if (current.get(key)?.assignmentId === assignment.assignmentId) current.delete(key);
        event.release();
      };
      if (isCurrent) return [{ ...event, release }];
      // An assignment that is over must still be released, or the source would wait for it.
      event.release();
      return [];
    }
  }
}
