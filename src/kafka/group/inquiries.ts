/**
 * What is asked of Kafka about partitions that are ours: what the group has committed, and where the log ends. Many
 * partitions are asked for at once, as after a rebalance each one is. Imports: errors, kafka/connection, model, ports.
 */
import { IngestError } from '../../errors.js';
import type { Assignment } from '../../model/record.js';
import type { LogEnds } from '../../ports.js';
import { nameOf, type TopicPartition } from './assignor.js';
import { Gathered, type Outcome } from '../connection/gathered.js';
import type { Membership } from './membership.js';
import { EARLIEST, LATEST, listOffsetsEach, type Committed } from '../connection/list-offsets.js';
import { knownTopicId } from '../connection/metadata.js';
import { kafkaError, reasonOf, classifyError } from '../connection/classify-error.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';

/** So many partitions in one request. */
const MAX_PARTITIONS = 2000;

export class Inquiries {
  readonly #kafka: KafkaConnection;
  readonly #committed: Gathered<TopicPartition, Committed>;
  readonly #log: Gathered<Assignment, LogEnds>;

  constructor(kafka: KafkaConnection, membership: Pick<Membership, 'committed'>) {
    this.#kafka = kafka;
    const take = (): number => MAX_PARTITIONS;
    this.#committed = new Gathered({ take, call: (partitions) => askCommitted(membership, partitions) });
    this.#log = new Gathered({ take, call: (assignments) => this.#askLogs(assignments) });
  }

  /**
   * What the group has committed for the partition. Asked after the join, it includes every commit of former owners
   * that was ever accepted. The coordinator accepts a commit of an old generation only until the join of the new one is
   * complete; it has then appended it to its log, and it appends the new generation's assignment behind it. It answers
   * our SyncGroup only when that is replicated, so everything before it is, and it makes commits visible in that order.
   * (What `requireStable` of newer versions waits for are offsets in transactions, which nobody writes for this group.)
   */
  committed({ topic, partition }: Assignment): Promise<Committed> {
    return this.#committed.ask({ topic, partition });
  }

  /** The ends of the very log that the assignment is of. */
  async log(assignment: Assignment): Promise<LogEnds> {
    const { topic, partition } = assignment;
    const { cluster } = this.#kafka;
    try {
      return await this.#log.ask(assignment);
    } catch (thrown) {
      if (thrown instanceof IngestError && !thrown.retryable) throw thrown;
      if (classifyError(thrown) === 'fatal')
        throw kafkaError(thrown, 'Asking for the ends of the log', { topic, partition });
      await cluster.refreshMetadata().catch(() => undefined); // the leader may have moved
      throw new IngestError('KCR_KAFKA_UNREACHABLE', `The ends of the log are not known: ${reasonOf(thrown)}`, {
        topic,
        partition,
        cause: thrown,
      });
    }
  }

  async #askLogs(assignments: readonly Assignment[]): Promise<Outcome<LogEnds>[]> {
    const isolation = 'read_uncommitted';
    const starts = await listOffsetsEach(this.#kafka, assignments, { timestamp: EARLIEST, isolation });
    const ends = await listOffsetsEach(this.#kafka, assignments, { timestamp: LATEST, isolation });
    await this.#kafka.cluster.refreshMetadata();
    return assignments.map((assignment): Outcome<LogEnds> => {
      const name = nameOf(assignment);
      // They were asked for by name. Another topic's would tell that this one was truncated.
      if (knownTopicId(this.#kafka.cluster, assignment.topic) !== assignment.topicId)
        return { error: new Error('the topic is gone, or was recreated') };
      const [start, end] = [starts.offsets.get(name), ends.offsets.get(name)];
      if (start !== undefined && end !== undefined) return { value: { start, end } };
      return { error: starts.errors.get(name) ?? ends.errors.get(name) ?? new Error('the answer lacks the partition') };
    });
  }
}

async function askCommitted(
  membership: Pick<Membership, 'committed'>,
  partitions: readonly TopicPartition[],
): Promise<Outcome<Committed>[]> {
  const committed = new Map((await membership.committed(partitions)).map((each) => [nameOf(each), each]));
  return partitions.map((each) => ({
    value: committed.get(nameOf(each)) ?? { ...each, next: undefined, metadata: '' },
  }));
}
