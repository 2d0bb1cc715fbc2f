/**
 * The pipeline of at-most-once. Imports: operators, ports.
 */
import type { Observable } from 'rxjs';
import { bufferCountOrTime } from '../../operators/buffer-count-or-time.js';
import { commit } from '../../operators/commit.js';
import { consume } from '../../operators/consume.js';
import { groupByPartition } from '../../operators/group-by-partition.js';
import { insertDeduped, type InsertSink } from '../../operators/insert-deduped.js';
import { countAbandoned } from '../../operators/internal/count-abandoned.js';
import { noReport, type Outcome } from '../events.js';
import type { RecordSource } from '../ports.js';
import type { CommittedBatch } from '../stages.js';
import { insertConfigOf, sharedOf, transformOf, type PipelineConfig } from './config.js';

export type AtMostOnceConfig = PipelineConfig<CommittedBatch>;

/**
 * consume → group → buffer → commit → insert
 *
 * A record is committed before it is inserted: never twice, but lost when the process dies in between. Emits one outcome
 * for each batch. Subscribing joins the group, unsubscribing leaves it at once.
 */
export function atMostOnce(source: RecordSource, sink: InsertSink, config: AtMostOnceConfig = {}): Observable<Outcome> {
  const shared = sharedOf(config);
  return consume(source).pipe(
    groupByPartition(
      source,
      (partition) =>
        partition.chunks.pipe(
          bufferCountOrTime({ ...config.batch, ...shared }),
          commit(partition, shared),
          countAbandoned(
            (onEvent) => (committed) => committed.pipe(transformOf(config, partition.topic), insertDeduped(sink, { ...insertConfigOf(config), onEvent })),
            config.onEvent ?? noReport,
          ),
        ),
      { heal: config.heal ?? {}, ...shared },
    ),
  );
}
