/**
 * A pipeline looked at from outside: each partition's stored state beside what Kafka says of the group and the
 * log. Nothing is joined, claimed or changed here. Imports: config, errors, kafka, model, ports, stores.
 */
import type { CheckedConfig } from '../config/config.js';
import { IngestError } from '../errors.js';
import { groupNow, type GroupPartition } from '../kafka/group-admin.js';
import type { OpenTransaction } from '../kafka/open-transactions.js';
import { lastKnownOffset, type PartitionState } from '../model/state.js';
import type { StateKey, Stored } from '../ports.js';
import { topicsOf } from '../config/adapter-options.js';
import type { StateAccess } from '../stores/stores.js';

export interface PartitionStatus extends Omit<GroupPartition, 'metadata'> {
  readonly key: StateKey;
  /** Undefined: no process ever claimed the partition. */
  readonly stored: (Stored & { readonly owner: string }) | undefined;
}

export interface PipelineStatus {
  readonly cluster: string;
  readonly group: string;
  /** Members of the group at this moment. */
  readonly members: readonly string[];
  /** The oldest open transaction of each partition that cannot be read to its log's end, as far as the brokers tell. */
  readonly transactions: readonly OpenTransaction[];
  readonly partitions: readonly PartitionStatus[];
}

/** Which partitions a person means. */
export interface Selection {
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
}

export async function look(
  config: CheckedConfig,
  access: StateAccess,
  selection: Selection = {},
): Promise<PipelineStatus> {
  const topics = selectTopics(config, selection);
  const { groupId: group } = config.kafka;
  const { cluster, members, transactions, partitions: all } = await groupNow({ ...config.kafka, topics });
  const chosen = selectPartitions(all, selection);
  const partitions = await Promise.all(
    chosen.map(async (found): Promise<PartitionStatus> => {
      const { metadata: _metadata, ...place } = found;
      const key = { cluster, group, topic: place.topic, partition: place.partition };
      const { state, owner } = await access.read(key, found);
      return { ...place, key, stored: owner === undefined ? undefined : { state, owner } };
    }),
  );
  return { cluster, group, members, transactions, partitions };
}

export function selectTopics(config: CheckedConfig, { topic }: Selection): readonly string[] {
  const topics = topicsOf(config);
  if (topic === undefined) return topics;
  if (topics.includes(topic)) return [topic];
  throw new IngestError('KCR_CONFIG', `The configuration has no route for the topic ${topic}`, {
    hint: `topics with a route: ${topics.join(', ')}`,
  });
}

export function selectPartitions<P extends { readonly topic: string; readonly partition: number }>(
  all: readonly P[],
  { partition }: Selection,
): readonly P[] {
  if (partition === undefined) return all;
  const chosen = all.filter((each) => each.partition === partition);
  if (chosen.length > 0) return chosen;
  throw new IngestError('KCR_CONFIG', `There is no partition ${partition}`, {
    hint: `${all[0]?.topic ?? 'the topic'} has partitions 0 to ${all.length - 1}`,
  });
}

/**
 * Offsets that are neither settled nor, without a state, committed; from the log's beginning where nothing is known.
 */
export function lagOf({ stored, committed, logStart, logEnd }: PartitionStatus): number {
  const settled = stored?.state.settled;
  const next = settled === undefined ? (stored?.state.pending[0]?.first ?? committed ?? logStart) : settled + 1;
  return Math.max(0, logEnd - Math.max(next, logStart));
}

/** Offsets that no reader of committed records gets to yet, since a transaction before them is open. */
export function heldBackOf({ stableEnd, logEnd }: PartitionStatus): number {
  return Math.max(0, logEnd - stableEnd);
}

/** Is something known of the partition that a new beginning would write over? */
export function isKnown(state: PartitionState): boolean {
  return lastKnownOffset(state) !== undefined;
}
