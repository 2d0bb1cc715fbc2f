/**
 * The pipeline of exactly-once. Imports: events, ledger, operators, ports, rxjs, stages.
 */
import type { Observable } from 'rxjs';
import { commit } from '../../operators/commit.js';
import { insertDeduped, type InsertSink } from '../../operators/insert-deduped.js';
import { reconcileWithState, type ReconcileConfig, type ReconcileSink } from '../../operators/reconcile-with-state.js';
import type { Outcome } from '../events.js';
import { Ledger, MAX_PENDING_DEFAULT, type LedgerConfig } from '../ledger.js';
import type { SeekableSource, StateStore } from '../ports.js';
import type { RecordedBatch } from '../stages.js';
import { insertConfigOf, sharedOf, transformOf, type PipelineConfig } from './config.js';
import { consumeBatches } from './consume-batches.js';

export interface ExactlyOnceConfig
  extends
    PipelineConfig<RecordedBatch>,
    Pick<LedgerConfig, 'group' | 'owner' | 'onReset'>,
    Pick<ReconcileConfig, 'onGap' | 'onlyInDoubt'> {
  /** Names the transform of a topic, and changes with its rows: see `reconcileWithState`. @default none */
  readonly transformVersion?: (topic: string) => string | undefined;
}

/**
 * consume → group → buffer → reconcile → insert → commit
 *
 * The range is written down before it is inserted and settled after: never lost, never twice. Emits one outcome for
 * each batch. Subscribing joins the group, unsubscribing leaves it at once.
 */
export function exactlyOnce(
  source: SeekableSource,
  sink: InsertSink & ReconcileSink,
  store: StateStore,
  config: ExactlyOnceConfig,
): Observable<Outcome> {
  const {
    group,
    owner,
    maxPending = MAX_PENDING_DEFAULT,
    onReset = 'halt',
    onGap = 'halt',
    onlyInDoubt = false,
    transformVersion,
  } = config;
  const shared = sharedOf(config);
  const ledger = new Ledger(store, source, { group, owner, maxPending, onReset, ...shared });
  return consumeBatches(source, config, (batches, partition) =>
    batches.pipe(
      reconcileWithState(partition, ledger, sink, {
        onGap,
        onlyInDoubt,
        transformVersion: transformVersion?.(partition.topic),
        ...shared,
      }),
      transformOf(config, partition.topic),
      insertDeduped(sink, insertConfigOf(config)),
      commit(partition, ledger, shared),
    ),
  );
}
