/**
 * The pipeline of at-least-once. Imports: events, operators, ports, rxjs, stages.
 */
import type { Observable } from 'rxjs';
import { commit } from '../../operators/commit.js';
import { insertDeduped, type InsertSink } from '../../operators/insert-deduped.js';
import type { Outcome } from '../events.js';
import type { RecordSource } from '../ports.js';
import type { BufferedBatch } from '../stages.js';
import { insertConfigOf, sharedOf, transformOf, type PipelineConfig } from './config.js';
import { consumeBatches } from './consume-batches.js';

/** The transform stands between a buffered batch and its insert. */
export type AtLeastOnceConfig = PipelineConfig<BufferedBatch>;

/**
 * consume → group → buffer → insert → commit
 *
 * A record is committed after it was inserted: never lost, but twice when the process dies in between. Emits one
 * outcome for each batch. Subscribing joins the group, unsubscribing leaves it at once.
 */
export function atLeastOnce(
  source: RecordSource,
  sink: InsertSink,
  config: AtLeastOnceConfig = {},
): Observable<Outcome> {
  return consumeBatches(source, config, (batches, partition) =>
    batches.pipe(
      transformOf(config, partition.topic),
      insertDeduped(sink, insertConfigOf(config)),
      commit(partition, sharedOf(config)),
    ),
  );
}
