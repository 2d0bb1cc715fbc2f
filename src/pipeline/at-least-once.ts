/**
 * The pipeline of at-least-once. Imports: operators, ports.
 */
import type { Observable } from 'rxjs';
import { bufferCountOrTime } from '../../operators/buffer-count-or-time.js';
import { commit } from '../../operators/commit.js';
import { consume } from '../../operators/consume.js';
import { groupByPartition } from '../../operators/group-by-partition.js';
import { insertDeduped, type InsertSink } from '../../operators/insert-deduped.js';
import type { Outcome } from '../events.js';
import type { RecordSource } from '../ports.js';
import type { BufferedBatch } from '../stages.js';
import { insertConfigOf, sharedOf, transformOf, type PipelineConfig } from './config.js';

export type AtLeastOnceConfig = PipelineConfig<BufferedBatch>;

/**
 * consume → group → buffer → insert → commit
 *
 * A record is committed after it was inserted: never lost, but twice when the process dies in between. Emits one outcome
 * for each batch. Subscribing joins the group, unsubscribing leaves it at once.
 */
export function atLeastOnce(source: RecordSource, sink: InsertSink, config: AtLeastOnceConfig = {}): Observable<Outcome> {
  const shared = sharedOf(config);
  return consume(source).pipe(
    groupByPartition(
      source,
      (partition) =>
        partition.chunks.pipe(
          bufferCountOrTime({ ...config.batch, ...shared }),
          transformOf(config, partition.topic),
          insertDeduped(sink, insertConfigOf(config)),
          commit(partition, shared),
        ),
      { heal: config.heal ?? {}, ...shared },
    ),
  );
}
