/**
 * Room: the names under which ClickHouse knows a batch again. Pure, imports the model only.
 */
import type { Intent } from './state.js';

export interface TokenParts {
  /** Kafka's cluster id. */
  readonly cluster: string;
  readonly topic: string;
  readonly incarnation: number;
  readonly partition: number;
  readonly intent: Pick<Intent, 'first' | 'last' | 'excluded'>;
}

/**
 * ClickHouse's `insert_deduplication_token` for a range: it is made from the recorded intent, never from the records
 * that were received, since on a replay some of those may be gone. The sink adds the table.
 */
export function dedupToken({ cluster, topic, incarnation, partition, intent }: TokenParts): string {
  const without = intent.excluded.length === 0 ? '' : `:without=${intent.excluded.join(',')}`;
  return `kcr1:${cluster}:${topic}:${incarnation}:${partition}:${intent.first}-${intent.last}${without}`;
}
