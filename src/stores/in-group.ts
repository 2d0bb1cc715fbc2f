/**
 * The state beside the committed offsets of the consumer group: opened with the source that is a member of it, checked
 * and replaced from outside. Imports: Node, config, errors, kafka, kafka/connection, model, ports, state.
 */
import { randomUUID } from 'node:crypto';
import { topicsOf } from '../config/adapter-options.js';
import type { CheckedConfig } from '../config/config.js';
import { IngestError } from '../errors.js';
import { withAdmin } from '../kafka/admin.js';
import { insist } from '../kafka/connection/until-coordinator.js';
import { commitToEmptyGroup, groupNow, type GroupPartition } from '../kafka/group-admin.js';
import { clientSettings } from '../kafka/options.js';
import { encodeState } from '../model/state-codec.js';
import { resumeOffset } from '../model/state.js';
import type { SeekableSource, StateKey } from '../ports.js';
import {
  checkKafkaStore,
  kafkaStore,
  stateFromOffset,
  type KafkaStoreCheck,
  type OffsetSource,
} from '../state/kafka.js';
import type { StateAccess, StoreCheck, StoreKind } from './kind.js';

/** How long the check waits for one answer, or for the group's coordinator. */
const CHECK_LIMIT_MS = 30_000;

export const inGroup: StoreKind<'kafka'> = {
  open: (_, { config, source, onEvent }) => {
    if (!isOffsetSource(source)) throw notInGroup();
    return kafkaStore(source, { group: config.kafka.groupId, onEvent });
  },
  check: async (_, config, committing) => {
    await committing;
    return findingOf(config, await lookAtOffsets(config));
  },
  access: (_, config) => accessThroughGroup(config),
};

function isOffsetSource(source: SeekableSource): source is SeekableSource & OffsetSource {
  return 'commitOnce' in source && 'committed' in source && 'assignmentOf' in source;
}

/** A source of one's own is in no group. */
export function notInGroup(): IngestError {
  return new IngestError(
    'KCR_CONFIG',
    'state.store: "kafka" keeps the state beside the offsets of a group, and the source is in none of ours',
    { hint: 'choose another state.store, or give a store' },
  );
}

function lookAtOffsets(config: CheckedConfig): Promise<KafkaStoreCheck> {
  const topics = topicsOf(config);
  return withAdmin(
    clientSettings(config.kafka),
    'Reading the offsets of the group',
    async (admin, cluster) => {
      // All at once: kafkajs would ask for the metadata of one topic after the other.
      await cluster.addMultipleTargetTopics(topics);
      return checkKafkaStore(
        {
          describeCluster: () => admin.describeCluster(),
          // A coordinator that loads, as the first of a cluster does, is waited for.
          fetchOffsets: (of) => insist(() => admin.fetchOffsets(of), CHECK_LIMIT_MS),
          describeConfigs: (of) => admin.describeConfigs(of),
        },
        { group: config.kafka.groupId, topics },
      );
    },
    CHECK_LIMIT_MS,
  );
}

function findingOf(
  { kafka }: CheckedConfig,
  { partitions, kept, metadataMaxBytes, retentionMinutes }: KafkaStoreCheck,
): StoreCheck {
  const days =
    retentionMinutes === undefined ? '' : `; forgotten ${retentionMinutes / 1440} days after the last member has left`;
  const detail = `beside the offsets of the group ${kafka.groupId}, ${kept} of ${partitions} partitions have a state${days}`;
  if (metadataMaxBytes !== undefined) return { level: 'ok', detail };
  return {
    level: 'warning',
    detail: `${detail}; the brokers do not tell how much they keep`,
    todo: 'see that offset.metadata.max.bytes is at least 4096, and allow DESCRIBE_CONFIGS on the cluster',
  };
}

/**
 * The state beside the group's committed offset. Nobody can be fenced from outside of the group, so it must be empty:
 * the broker refuses otherwise.
 */
function accessThroughGroup({ kafka }: Pick<CheckedConfig, 'kafka'>): StateAccess {
  const stateOf = (key: StateKey, { committed, metadata }: GroupPartition) =>
    stateFromOffset(committed, metadata, key, Date.now());
  return {
    name: 'kafka',
    read: async (key, found) => {
      const { state, owner } = stateOf(key, found);
      return { state, owner: owner === '' ? undefined : owner };
    },
    replace: async ({ key }, owner, next) => {
      const options = { ...kafka, topics: [key.topic] };
      const { partitions } = await groupNow(options);
      const found = partitions.find(({ partition }) => partition === key.partition);
      if (found === undefined)
        throw new IngestError('KCR_TOPIC_MISSING', 'The partition is not there any more', {
          topic: key.topic,
          partition: key.partition,
        });
      const state = next(stateOf(key, found).state);
      const resume = resumeOffset(state);
      if (resume === undefined)
        throw new IngestError('KCR_INTERNAL', 'A state without an offset was to be committed', {
          topic: key.topic,
          partition: key.partition,
        });
      await commitToEmptyGroup(options, {
        topic: key.topic,
        partition: key.partition,
        next: resume,
        metadata: encodeState({ state, owner, write: randomUUID() }, key),
      });
    },
    close: () => Promise.resolve(),
  };
}
