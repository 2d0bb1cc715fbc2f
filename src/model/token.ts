/**
 * The names under which ClickHouse knows a batch again. Pure, imports the model only. Imports: nothing.
 */
import type { Intent } from './state.js';

export interface TokenParts {
  /** Kafka's cluster id. */
  readonly cluster: string;
  /** The consumer group. */
  readonly group: string;
  readonly topic: string;
  readonly topicId?: string | undefined;
  readonly incarnation: number;
  readonly partition: number;
  readonly intent: Pick<Intent, 'first' | 'last' | 'excluded' | 'token' | 'tokenForm'>;
}

/**
 * ClickHouse's `insert_deduplication_token` for a range: it is made from the recorded intent, never from the records
 * that were received, since on a replay some of those may be gone. The sink adds the table.
 *
 * The group keeps the rows of one reading of a topic apart from another group's; the topic's id and the incarnation
 * those of a topic that was created again, or read again, from those that ClickHouse remembers under the same offsets.
 *
 * ```
 * form 1   kcr1:<cluster>:<topic>[@<id>]:<incarnation>:<partition>:<first>-<last>[:without=…]
 * form 2   kcr2:<cluster>:<group>:<topic>[@<id>]:<incarnation>:<partition>:<first>-<last>[:without=…]
 * ```
 *
 * A range keeps the form it was recorded with until it is settled: sent under another one it would be inserted again.
 */
export function dedupToken({ cluster, group, topic, topicId, incarnation, partition, intent }: TokenParts): string {
  const without = intent.excluded.length === 0 ? '' : `:without=${intent.excluded.join(',')}`;
  if (intent.token !== undefined) return `${intent.token}${without}`;
  const name = topicId === undefined ? topic : `${topic}@${topicId}`;
  const range = `${name}:${incarnation}:${partition}:${intent.first}-${intent.last}${without}`;
  return intent.tokenForm === 2 ? `kcr2:${escaped(cluster)}:${escaped(group)}:${range}` : `kcr1:${cluster}:${range}`;
}

/** A group's name may hold anything; a colon in it must not look like one between two parts. */
function escaped(text: string): string {
  return text.replaceAll('%', '%25').replaceAll(':', '%3A');
}
