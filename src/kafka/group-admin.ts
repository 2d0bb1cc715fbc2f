/**
 * A consumer group and its topics as they stand at this moment, looked at from outside: nobody joins. One
 * connection, which is closed again. Imports: abort, errors, kafka/connection, kafka/group.
 */
import { withAdmin } from './admin.js';
import { groupPositions, type GroupPosition } from './group/group-offsets.js';
import { insist } from './connection/until-coordinator.js';
import { openTransactions, type OpenTransaction } from './open-transactions.js';
import { clientSettings, sourceSettings, type KafkaClientOptions } from './options.js';
import { topicMissing } from './preflight.js';
import { within } from '../abort.js';
import { IngestError } from '../errors.js';
import { kafkaError, kafkaType } from './connection/classify-error.js';
import { checkedBroker, openConnection } from './connection/kafka-connection.js';

export type GroupPartition = GroupPosition;

export interface GroupNow {
  /** Kafka's cluster id. */
  readonly cluster: string;
  /** The members, as `client id at host`. */
  readonly members: readonly string[];
  /** How they deal out the partitions, by Kafka's name for it; '' while they are none or join. */
  readonly assignor: string;
  /** `consumer`, as a rule; '' for a group that has had no members yet. */
  readonly protocolType: string;
  /**
   * The oldest open transaction of each partition whose readable end lies before its log's end, as far as the brokers
   * tell.
   */
  readonly transactions: readonly OpenTransaction[];
  /** By topic, in the order that was asked for, then by partition. */
  readonly partitions: readonly GroupPartition[];
}

type Asked = KafkaClientOptions & { readonly groupId: string; readonly topics: readonly string[] };

/** @throws `KCR_KAFKA_UNREACHABLE` within about ten seconds, `KCR_TOPIC_MISSING`, `KCR_PREFLIGHT`, `KCR_KAFKA`. */
export async function groupNow(options: Asked): Promise<GroupNow> {
  const { groupId, topics, brokers } = options;
  const missing = (thrown: unknown): never => {
    throw kafkaType(thrown) === 'UNKNOWN_TOPIC_OR_PARTITION' ? topicMissing(topics, brokers) : thrown;
  };
  return withAdmin(clientSettings(options), `Looking at the group ${groupId}`, async (admin, wired) => {
    const { clusterId: cluster } = await admin.describeCluster();
    const partitions = await groupPositions(wired, groupId, topics).catch(missing);
    const { groups } = await insist(() => admin.describeGroups([groupId]));
    const members = groups.flatMap((group) =>
      group.members.map(({ clientId, clientHost }) => `${clientId} at ${clientHost.replace(/^\//, '')}`),
    );
    const [{ protocol: assignor, protocolType } = { protocol: '', protocolType: '' }] = groups;
    // They are only told beside the rest: brokers that are slow must not keep it back.
    const transactions = (await within(openTransactions(wired, partitions), TRANSACTIONS_LIMIT_MS)) ?? [];
    return { cluster, members, assignor, protocolType, partitions, transactions };
  });
}

export interface GroupCommit {
  readonly topic: string;
  readonly partition: number;
  readonly next: number;
  readonly metadata: string;
}

/**
 * Commits in the name of nobody, which Kafka allows while the group has no members.
 *
 * @throws `KCR_KAFKA` when it has, and nothing was changed; `KCR_KAFKA_UNREACHABLE` when the outcome is not known.
 */
export async function commitToEmptyGroup(
  options: Asked,
  { topic, partition, next, metadata }: GroupCommit,
): Promise<void> {
  const { groupId } = options;
  const kafka = openConnection(sourceSettings(options));
  try {
    await kafka.cluster.connect();
    const coordinator = checkedBroker(await insist(() => kafka.cluster.findGroupCoordinator({ groupId })));
    const topics = [{ topic, partitions: [{ partition, offset: String(next), metadata }] }];
    await insist(() => coordinator.offsetCommit({ groupId, groupGenerationId: -1, memberId: '', topics }));
  } catch (thrown) {
    const type = kafkaType(thrown);
    if (type === 'UNKNOWN_MEMBER_ID' || type === 'REBALANCE_IN_PROGRESS' || type === 'ILLEGAL_GENERATION') {
      throw new IngestError('KCR_KAFKA', `The group ${groupId} has members, so that nobody else may commit for it`, {
        topic,
        partition,
        serverCode: type,
        hint:
          'stop every process of the group, wait until it is empty (kafka.sessionTimeoutMs after a kill), ' +
          'then do it again',
      });
    }
    if (type !== undefined || thrown instanceof IngestError)
      throw kafkaError(thrown, 'Committing for the group', { topic, partition });
    throw new IngestError(
      'KCR_KAFKA_UNREACHABLE',
      'Whether the offset was committed is not known: the connection to the coordinator broke',
      {
        topic,
        partition,
        offset: next,
        hint: 'look with "state show", then do it again if it was not',
        cause: thrown,
      },
    );
  } finally {
    await within(kafka.cluster.disconnect(), CLOSE_LIMIT_MS);
    kafka.end();
  }
}

const CLOSE_LIMIT_MS = 500;
/** For the producers and the ages of open transactions. */
const TRANSACTIONS_LIMIT_MS = 3_000;
