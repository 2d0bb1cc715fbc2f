/**
 * Opens the part of kafkajs that broker.ts describes, with the hook in its metadata, alone or beneath kafkajs's
 * admin client. Group, heartbeats and fetching are ours (membership.ts, fetcher.ts); kafkajs's consumer is never run.
 * Imports: Node, errors, kafka, kafkajs.
 */
import { createRequire } from 'node:module';
import { PartitionAssigners, type Admin, type Cluster, type Kafka } from 'kafkajs';
import { IngestError } from '../../errors.js';
import { containAnswers } from './answers.js';
import { changeBrokers, checkedCluster, KAFKAJS_VERSION, type KafkajsCluster } from './broker.js';
import { createClient, type KafkaClient } from './client.js';
import type { ClientSettings, KafkaLog, SourceSettings } from '../options.js';
import { demandTopics, hookMetadata, knownTopic, leaderless } from './metadata.js';
import { isTimeout, kafkaType, reasonOf } from './classify-error.js';
import { Backoff, sleep } from './wait.js';

export { checkedBroker, type KafkajsCluster } from './broker.js';

export interface KafkaConnection extends KafkaClient {
  readonly cluster: KafkajsCluster;
}

/**
 * Opens nothing yet. The cluster is the one that kafkajs hands to a partition assigner while it makes a consumer; the
 * consumer itself is never run.
 */
export function openConnection(settings: SourceSettings): KafkaConnection {
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
  return { ...client, cluster: hooked(seen, settings.log) };
}

export interface AdminConnection extends KafkaConnection {
  readonly admin: Admin;
}

/**
 * kafkajs's admin client. Left to itself it asks for every topic there is, and one partition without a leader, whoever
 * it belongs to, makes each of its calls fail.
 */
export function openAdmin(settings: ClientSettings): AdminConnection {
  checkVersion(installedVersion());
  const client = createClient(settings);
  const { admin, seen } = adminOf(client.kafka);
  const cluster = hooked(seen, settings.log);
  const add = cluster.addMultipleTargetTopics.bind(cluster);
  cluster.addMultipleTargetTopics = async (topics) => {
    await add(topics);
    await demandLeaders(cluster, topics);
  };
  return { ...client, admin, cluster };
}

/** kafkajs shows the admin's cluster to nobody: it is seen when it is made, by a method that a symbol names. */
function adminOf(kafka: Kafka): { readonly admin: Admin; readonly seen: unknown } {
  const methods = kafka as unknown as Record<symbol, ((options: unknown) => unknown) | undefined>;
  const name = Object.getOwnPropertySymbols(kafka).find(
    ({ description }) => description === 'private:Kafka:createCluster',
  );
  const make = name === undefined ? undefined : methods[name];
  let seen: unknown;
  if (name !== undefined && make !== undefined) methods[name] = (options) => (seen = make(options));
  return { admin: kafka.admin(), seen };
}

function hooked(seen: unknown, log: KafkaLog): KafkajsCluster {
  const cluster = checkedCluster(seen);
  containAnswers(cluster.brokerPool, log);
  hookMetadata(cluster.brokerPool);
  hookCoordinator(cluster);
  hookUntold(cluster);
  hookSilence(cluster);
  const add = cluster.addMultipleTargetTopics.bind(cluster);
  cluster.addMultipleTargetTopics = async (topics) => {
    await add(topics);
    demandTopics(cluster, topics);
  };
  // kafkajs searches through all topics for each partition. Without metadata it throws, as before.
  const find = cluster.findTopicPartitionMetadata.bind(cluster);
  cluster.findTopicPartitionMetadata = (topic) =>
    knownTopic(cluster, topic)?.partitionMetadata ?? (cluster.brokerPool.metadata === null ? find(topic) : []);
  return cluster;
}

/**
 * kafkajs goes on to the next broker of the list when one cannot be connected to, and stays for ever with one that
 * accepts and says nothing. That is the same to us.
 */
function hookSilence(cluster: KafkajsCluster): void {
  changeBrokers(cluster.brokerPool, (broker) => {
    const connect = broker.connect.bind(broker);
    broker.connect = () =>
      connect().catch((thrown: unknown) => {
        throw isTimeout(thrown)
          ? Object.assign(new Error(reasonOf(thrown), { cause: thrown }), {
              name: 'KafkaJSConnectionError',
              retriable: true,
            })
          : thrown;
      });
  });
}

/**
 * kafkajs asks one broker after the other who coordinates the group, and forgets what they answered when none tells.
 */
function hookCoordinator(cluster: KafkajsCluster): void {
  let refusal: unknown;
  changeBrokers(cluster.brokerPool, (broker) => {
    const ask = broker.findGroupCoordinator.bind(broker);
    broker.findGroupCoordinator = (group) =>
      ask(group).catch((thrown: unknown) => {
        refusal = thrown;
        throw thrown;
      });
  });
  const find = cluster.findGroupCoordinator.bind(cluster);
  cluster.findGroupCoordinator = async (group) => {
    refusal = undefined;
    return find(group).catch((thrown: unknown) => {
      throw kafkaType(thrown) === undefined && kafkaType(refusal) !== undefined ? refusal : thrown;
    });
  };
}

/** Where every broker's answer was lost kafkajs gives null, and trips over it: the next attempt may be answered. */
function hookUntold(cluster: KafkajsCluster): void {
  const ask = cluster.metadata.bind(cluster);
  cluster.metadata = async (asked) => {
    const told = await ask(asked);
    if (told === null) throw new Error('no broker told its metadata');
    return told;
  };
}

/** An election takes less than so many looks, a second or two. */
const ELECTION_LOOKS = 5;

/** @throws `LEADER_NOT_AVAILABLE`, as kafkajs would, when a partition of the topics stays without a leader. */
async function demandLeaders(cluster: KafkajsCluster, topics: readonly string[]): Promise<void> {
  const backoff = new Backoff();
  for (;;) {
    const [first] = leaderless(cluster, topics);
    if (first === undefined) return;
    if (backoff.failures === ELECTION_LOOKS) {
      throw Object.assign(new Error(`${first} has no leader: an election is under way, or its brokers are down`), {
        type: 'LEADER_NOT_AVAILABLE',
      });
    }
    await sleep(backoff.next(), new AbortController().signal);
    await cluster.refreshMetadata();
  }
}

function installedVersion(): string {
  const { version } = createRequire(import.meta.url)('kafkajs/package.json') as { version: string };
  return version;
}

export function checkVersion(version: string): void {
  if (version === KAFKAJS_VERSION) return;
  throw new IngestError('KCR_KAFKAJS_HOOKS', `Expected kafkajs ${KAFKAJS_VERSION}, found ${version}`, {
    hint:
      `install kafkajs ${KAFKAJS_VERSION}: what lies beneath its consumer is used, and was proved with that ` +
      'version only',
  });
}
