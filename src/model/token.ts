/**
 * Room: the names under which ClickHouse knows a batch again. Pure, imports the model only.
 */
import type { Intent } from './state.js';

export interface TokenParts {
  /** Kafka's cluster id. */
  readonly cluster: string;
  readonly topic: string;
  readonly topicId?: string | undefined;
  readonly incarnation: number;
  readonly partition: number;
  readonly intent: Pick<Intent, 'first' | 'last' | 'excluded' | 'token'>;
}

/**
 * ClickHouse's `insert_deduplication_token` for a range: it is made from the recorded intent, never from the records
 * that were received, since on a replay some of those may be gone. The sink adds the table.
 *
 * The topic's id and the incarnation keep the rows of a topic that was created anew, or read anew, apart from those
 * that ClickHouse remembers under the same offsets.
 */
export function dedupToken({ cluster, topic, topicId, incarnation, partition, intent }: TokenParts): string {
  const without = intent.excluded.length === 0 ? '' : `:without=${intent.excluded.join(',')}`;
  if (intent.token !== undefined) return `${intent.token}${without}`;
  const name = topicId === undefined ? topic : `${topic}@${topicId}`;
  return `kcr1:${cluster}:${name}:${incarnation}:${partition}:${intent.first}-${intent.last}${without}`;
}
