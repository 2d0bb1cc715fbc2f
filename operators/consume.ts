/**
 * Stage 1 of 6: consume. What a record source tells, made safe to build on. Only ports and the model may enter.
 */
import { Observable, defer } from 'rxjs';
import { IngestError } from '../src/errors.js';
import type { Assignment } from '../src/model/record.js';
import type { RecordSource, SourceEvent } from '../src/ports.js';

/**
 * Joins the consumer group when subscribed to, leaves it when unsubscribed, and tells of every assignment:
 * `assigned`, chunks, then `revoked` or `lost`.
 *
 * In plain words: the tap. It keeps three promises whatever the source does: a partition has one tenure at a time
 * (a second `assigned` discards the first tenure with `lost` before it begins), chunks of a tenure that is over never
 * pass, and nothing of a tenure passes before its `assigned`.
 *
 * ```
 * source:  -A1--c1--c2--A1'--c2--c3--R1'--|
 *          consume(source)
 *          -A1--c1--c2--(L1 A1')--c3--R1'--|       c2 came of the first tenure, after it was over
 * ```
 *
 * @param source An adapter such as `kafkaSource`, or a fake one in tests.
 * @returns Cold. Completes after `source.drain()`; errors when the source cannot go on.
 */
export function consume(source: RecordSource): Observable<SourceEvent> {
  return defer(() => {
    const current = new Map<string, Assignment>();
    return new Observable<SourceEvent>((subscriber) =>
      source.events.subscribe({
        next: (event) => {
          for (const safe of guard(current, event)) subscriber.next(safe);
        },
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    );
  });
}

/** What may pass of an event, given the tenures that are under way; keeps those up to date. */
function guard(current: Map<string, Assignment>, event: SourceEvent): readonly SourceEvent[] {
  const { assignment } = event;
  const key = `${assignment.partition}@${assignment.topic}`;
  const tenure = current.get(key);
  switch (event.kind) {
    case 'assigned':
      if (tenure !== undefined && tenure.epoch >= assignment.epoch) {
        throw new IngestError('KCR_INTERNAL', `the source used epoch ${assignment.epoch} after ${tenure.epoch}`, assignment);
      }
      current.set(key, assignment);
      return tenure === undefined ? [event] : [{ kind: 'lost', assignment: tenure }, event];
    case 'lost':
      if (tenure?.epoch !== assignment.epoch) return [];
      current.delete(key);
      return [event];
    case 'fetched':
    case 'revoked':
      return tenure?.epoch === assignment.epoch ? [event] : released(event);
  }
}

/** A revoke of a tenure that is over must still be released, or the source would wait for it. */
function released(event: SourceEvent): readonly SourceEvent[] {
  if (event.kind === 'revoked') event.release();
  return [];
}
