/**
 * What the three pipelines begin with. Imports: events, operators, ports, rxjs, stages.
 */
import type { Observable } from 'rxjs';
import { bufferCountOrTime } from '../../operators/buffer-count-or-time.js';
import { consume } from '../../operators/consume.js';
import { groupByPartition } from '../../operators/group-by-partition.js';
import type { Delivered, Outcome } from '../events.js';
import type { Partition, RecordSource } from '../ports.js';
import type { BufferedBatch, InsertableBatch } from '../stages.js';
import { sharedOf, type PipelineConfig } from './config.js';

/** consume → group → buffer; `deliver` is what follows, for each partition by itself. */
export function consumeBatches<B extends InsertableBatch>(
  source: RecordSource,
  config: PipelineConfig<B>,
  deliver: (batches: Observable<BufferedBatch>, partition: Partition) => Observable<Delivered>,
): Observable<Outcome> {
  const { batch, heal = {} } = config;
  const shared = sharedOf(config);
  return consume(source).pipe(
    groupByPartition(
      source,
      (partition) => deliver(partition.chunks.pipe(bufferCountOrTime({ ...batch, ...shared })), partition),
      { heal, ...shared },
    ),
  );
}
