/**
 * Room: opens the part of kafkajs that broker.ts describes, with the hook in its metadata. Group, heartbeats and
 * fetching are ours (membership.ts, fetcher.ts); kafkajs's consumer is never run.
 */
import { createRequire } from 'node:module';
import { PartitionAssigners, type Cluster } from 'kafkajs';
import { IngestError } from '../errors.js';
import { checkedCluster, KAFKAJS_VERSION, type WireCluster } from './broker.js';
import { createClient, type KafkaClient } from './client.js';
import type { SourceSettings } from './options.js';
import { demandTopics, hookMetadata } from './topic-ids.js';

export { checkedBroker } from './broker.js';

export interface Wire extends KafkaClient {
  readonly cluster: WireCluster;
}

/**
 * Opens nothing yet. The cluster is the one that kafkajs hands to a partition assigner while it makes a consumer; the
 * consumer itself is never run.
 */
export function openWire(settings: SourceSettings): Wire {
  checkVersion(installedVersion());
  const client = createClient(settings);
  let seen: Cluster | undefined;
  client.kafka.consumer({
    groupId: settings.groupId,
    allowAutoTopicCreation: false,
    metadataMaxAge: settings.metadataMaxAgeMs,
    readUncommitted: settings.isolation === 'read_uncommitted',
    partitionAssigners: [
      (config) => {
        seen = config.cluster;
        return PartitionAssigners.roundRobin(config);
      },
    ],
  });
  const cluster = checkedCluster(seen);
  hookMetadata(cluster.brokerPool);
  const add = cluster.addMultipleTargetTopics.bind(cluster);
  cluster.addMultipleTargetTopics = async (topics) => {
    await add(topics);
    demandTopics(cluster, topics);
  };
  return { ...client, cluster };
}

function installedVersion(): string {
  const { version } = createRequire(import.meta.url)('kafkajs/package.json') as { version: string };
  return version;
}

export function checkVersion(version: string): void {
  if (version === KAFKAJS_VERSION) return;
  throw new IngestError('KCR_KAFKAJS_HOOKS', `Expected kafkajs ${KAFKAJS_VERSION}, found ${version}`, {
    hint: `install kafkajs ${KAFKAJS_VERSION}: what lies beneath its consumer is used, and was proved with that version only`,
  });
}
