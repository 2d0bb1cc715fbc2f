/**
 * The pipeline of at-most-once. Imports: events, operators, operators/internal, ports, rxjs, stages.
 */
import type { Observable } from 'rxjs';
import { commit } from '../../operators/commit.js';
import { insertDeduped, type InsertSink } from '../../operators/insert-deduped.js';
import { countAbandoned } from '../../operators/internal/count-abandoned.js';
import { ignoreEvents, type Outcome } from '../events.js';
import type { RecordSource } from '../ports.js';
import type { CommittedBatch } from '../stages.js';
import { insertConfigOf, sharedOf, transformOf, type PipelineConfig } from './config.js';
import { consumeBatches } from './consume-batches.js';

/** The transform stands between a committed batch and its insert. */
export type AtMostOnceConfig = PipelineConfig<CommittedBatch>;

/**
 * consume → group → buffer → commit → insert
 *
 * A record is committed before it is inserted: never twice, but lost when the process dies in between. Emits one
 * outcome for each batch. Subscribing joins the group, unsubscribing leaves it at once.
 */
export function atMostOnce(source: RecordSource, sink: InsertSink, config: AtMostOnceConfig = {}): Observable<Outcome> {
  return consumeBatches(source, config, (batches, partition) =>
    batches.pipe(
      commit(partition, sharedOf(config)),
      countAbandoned(
        (onEvent) => (committed) =>
          committed.pipe(
            transformOf(config, partition.topic),
            insertDeduped(sink, { ...insertConfigOf(config), onEvent }),
          ),
        config.onEvent ?? ignoreEvents,
      ),
    ),
  );
}
