/**
 * Can the states of a group be kept beside its offsets? Asked before a start. Imports: errors.
 */
import { IngestError } from '../errors.js';
import { isNoState, stateFromOffset } from './kafka-offset.js';

/** What is asked of a cluster to find out whether states can be kept in it; kafkajs's admin client is one. */
export interface OffsetsAdmin {
  /** The id of the cluster, and its brokers. */
  describeCluster(): Promise<{ readonly clusterId: string; readonly brokers: readonly { readonly nodeId: number }[] }>;
  /** What the group has committed, with the metadata beside each offset. */
  fetchOffsets(of: { groupId: string; topics: string[] }): Promise<
    readonly {
      readonly topic: string;
      readonly partitions: readonly {
        readonly partition: number;
        readonly offset: string;
        readonly metadata: string | null;
      }[];
    }[]
  >;
  /** Settings of the brokers; needs DESCRIBE_CONFIGS. */
  describeConfigs(of: {
    resources: { type: number; name: string; configNames: string[] }[];
    includeSynonyms: boolean;
  }): Promise<{
    readonly resources: readonly {
      readonly configEntries: readonly { readonly configName: string; readonly configValue: string }[];
    }[];
  }>;
}

/** What `checkKafkaStore` found. */
export interface KafkaStoreCheck {
  readonly partitions: number;
  /** Partitions that have a state. */
  readonly kept: number;
  /** Characters that the brokers keep beside an offset; undefined: they do not say. */
  readonly metadataMaxBytes: number | undefined;
  /** How long offsets, and states with them, are kept after the last member has left, minutes; undefined as above. */
  readonly retentionMinutes: number | undefined;
}

/** The broker's default. */
const metadataLimit = 4096;
const brokerResource = 4;

/**
 * Can states be kept in the group's offsets? Changes nothing. Errors: `KCR_STATE_INVALID` where something else stands
 * beside an offset, `KCR_PREFLIGHT` where the brokers keep too little, and whatever Kafka refuses.
 */
export async function checkKafkaStore(
  admin: OffsetsAdmin,
  { group, topics }: { readonly group: string; readonly topics: readonly string[] },
): Promise<KafkaStoreCheck> {
  const { clusterId: cluster, brokers } = await admin.describeCluster();
  const offsets = await admin.fetchOffsets({ groupId: group, topics: [...topics] });
  const all = offsets.flatMap(({ topic, partitions }) =>
    partitions.map((each) => ({ topic, ...each, metadata: each.metadata ?? '' })),
  );
  for (const { topic, partition, offset, metadata } of all) {
    if (!isNoState(metadata)) stateFromOffset(Number(offset), metadata, { cluster, group, topic, partition }, 0);
  }
  const limits = await limitsOf(admin, brokers[0]?.nodeId).catch(() => new Map<string, number>());
  const metadataMaxBytes = limits.get('offset.metadata.max.bytes');
  if (metadataMaxBytes !== undefined && metadataMaxBytes < metadataLimit) {
    throw new IngestError(
      'KCR_PREFLIGHT',
      `The brokers keep ${metadataMaxBytes} characters beside an offset; a state may take ${metadataLimit}`,
      {
        hint:
          `set offset.metadata.max.bytes=${metadataLimit}, its default, in the configuration of each broker ` +
          'and restart it',
      },
    );
  }
  const kept = all.filter(({ metadata }) => !isNoState(metadata)).length;
  return { partitions: all.length, kept, metadataMaxBytes, retentionMinutes: limits.get('offsets.retention.minutes') };
}

async function limitsOf(admin: OffsetsAdmin, nodeId = 0): Promise<ReadonlyMap<string, number>> {
  const configNames = ['offset.metadata.max.bytes', 'offsets.retention.minutes'];
  const { resources } = await admin.describeConfigs({
    resources: [{ type: brokerResource, name: String(nodeId), configNames }],
    includeSynonyms: false,
  });
  return new Map(
    resources.flatMap(({ configEntries }) =>
      configEntries.map(({ configName, configValue }) => [configName, Number(configValue)] as const),
    ),
  );
}
