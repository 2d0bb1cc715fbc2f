/**
 * What keeps one partition from being fetched: it has no leader, the offset is out of range, the
 * topic is another one. The partition is tried again, told to go on elsewhere, or fails; the others go on.
 * Imports: errors, kafka, kafka/connection, kafka/group, model.
 */
import { IngestError } from '../../errors.js';
import type { Chunk } from '../../model/record.js';
import type { SourceSettings } from '../options.js';
import type { AssignedPartition } from '../group/assigned-partition.js';
import type { Reset } from '../group/start-offsets.js';
import { renewFetchConnection } from './fetch-request.js';
import { kafkaError, kafkaType, reasonOf, classifyError } from '../connection/classify-error.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';
import { EARLIEST, LATEST, listOffsets, outOfRange, type Beyond } from '../connection/list-offsets.js';
import { knownLeader, knownTopicId, partitionTrouble } from '../connection/metadata.js';

export interface FetchErrorsPorts {
  readonly kafka: KafkaConnection;
  readonly settings: SourceSettings;
  readonly deliver: (assigned: AssignedPartition, chunk: Chunk) => void;
  /** This partition cannot go on; the others can. */
  readonly failed: (assigned: AssignedPartition, error: IngestError) => void;
  /** Its topic is another one than the assignment began with. */
  readonly reset: (assigned: AssignedPartition, reset: Reset) => void;
  /** Not revoked, lost, halted, sought away or paused since this offset was asked for. */
  readonly isWanted: (assigned: AssignedPartition, offset: number) => boolean;
  /** A partition may have become fetchable. */
  readonly wake: () => void;
}

const PARTITION_RETRY_MS = 200;
const NO_LEADER_LIMIT_MS = 60_000;
/** A broker may lag behind: what would end an assignment is believed when it was seen so often in a row. */
const LOOKS = 3;
/** How long a partition without a place to begin waits for its claim to send it to one. */
const CLAIM_LIMIT_MS = 30_000;
const CLAIM_RETRY_MS = 500;

const CODES: Readonly<Record<number, string>> = {
  1: 'OFFSET_OUT_OF_RANGE',
  3: 'UNKNOWN_TOPIC_OR_PARTITION',
  5: 'LEADER_NOT_AVAILABLE',
  6: 'NOT_LEADER_FOR_PARTITION',
  29: 'TOPIC_AUTHORIZATION_FAILED',
  56: 'KAFKA_STORAGE_ERROR',
  74: 'FENCED_LEADER_EPOCH',
  75: 'UNKNOWN_LEADER_EPOCH',
  78: 'OFFSET_NOT_AVAILABLE',
  100: 'UNKNOWN_TOPIC_ID',
  103: 'INCONSISTENT_TOPIC_ID',
};

export class FetchErrors {
  readonly #ports: FetchErrorsPorts;
  #refreshing: Promise<boolean> | undefined;

  constructor(ports: FetchErrorsPorts) {
    this.#ports = ports;
  }

  /** Undefined: it has none; it is looked for, or the partition has failed. */
  leaderOf(assigned: AssignedPartition): number | undefined {
    const { topic, partition } = assigned.assignment;
    const { cluster } = this.#ports.kafka;
    const leader = knownLeader(cluster, topic, partition);
    if (leader !== undefined) return leader;
    const type = partitionTrouble(cluster, topic, partition);
    if (classifyError({ type }) === 'fatal') this.#ports.failed(assigned, refused(type, assigned));
    else this.#lookForLeader(assigned, type);
    return undefined;
  }

  /** What is fetched next of this partition comes over a new connection. */
  async renewConnection(assigned: AssignedPartition): Promise<void> {
    const nodeId = this.leaderOf(assigned);
    if (nodeId === undefined) return;
    await this.#ports.kafka.cluster
      .findBroker({ nodeId })
      .then(renewFetchConnection)
      .catch(() => undefined);
  }

  /** The broker answered for this partition with an error. */
  async refused(assigned: AssignedPartition, offset: number, errorCode: number): Promise<void> {
    const type = CODES[errorCode] ?? `error ${errorCode}`;
    try {
      if (type === 'OFFSET_OUT_OF_RANGE') return await this.#outOfRange(assigned, offset);
    } catch (thrown) {
      if (classifyError(thrown) !== 'fatal')
        return this.#lookForLeader(assigned, kafkaType(thrown) ?? reasonOf(thrown));
      return this.#ports.failed(assigned, kafkaError(thrown, 'Asking for the ends of the log', whereOf(assigned)));
    }
    if (classifyError({ type }) === 'fatal') this.#ports.failed(assigned, refused(type, assigned));
    else this.#lookForLeader(assigned, type);
  }

  /** The leader moved, is being elected, or the topic is gone. No rebalance: the partition stays ours. */
  #lookForLeader(assigned: AssignedPartition, type: string): void {
    const { topic, partition } = assigned.assignment;
    const nowMs = performance.now();
    assigned.notBeforeMs = nowMs + PARTITION_RETRY_MS;
    if (assigned.leaderlessSinceMs === undefined) {
      assigned.leaderlessSinceMs = nowMs;
      this.#ports.settings.log('warn', 'looking for the leader of a partition', { topic, partition, reason: type });
    }
    if (type === 'UNKNOWN_TOPIC_OR_PARTITION' && nowMs - assigned.leaderlessSinceMs > NO_LEADER_LIMIT_MS) {
      const message = 'The topic or partition does not exist any more';
      this.#ports.failed(
        assigned,
        new IngestError('KCR_TOPIC_MISSING', message, {
          topic,
          partition,
          hint: 'create it again, or take it off the list',
        }),
      );
      return;
    }
    void this.refresh().then((isFresh) => {
      if (isFresh) this.#compareIds(assigned);
      this.#ports.wake();
    });
  }

  /**
   * A leader that does not know the id may be behind, or ahead: the topic was recreated when Kafka keeps saying so.
   */
  #compareIds(assigned: AssignedPartition): void {
    const { topic, topicId: was } = assigned.assignment;
    const topicId = knownTopicId(this.#ports.kafka.cluster, topic);
    if (topicId === was) assigned.observedChange = undefined;
    if (was === undefined || topicId === undefined || topicId === was || assigned.state !== 'active' || assigned.halted)
      return;
    if (this.#believes(assigned, topicId)) this.#ports.reset(assigned, { kind: 'recreated', was, topicId });
  }

  #believes(assigned: AssignedPartition, what: string): boolean {
    const looks = assigned.observedChange?.what === what ? assigned.observedChange.looks + 1 : 1;
    assigned.observedChange = { what, looks };
    assigned.notBeforeMs = performance.now() + PARTITION_RETRY_MS;
    return looks >= LOOKS;
  }

  async #outOfRange(assigned: AssignedPartition, wanted: number): Promise<void> {
    const { settings, kafka, failed, reset } = this.#ports;
    const ends = async (timestamp: string): Promise<number> => {
      const [end] = await listOffsets(kafka, [whereOf(assigned)], { timestamp, isolation: 'read_uncommitted' });
      return end?.offset ?? -1;
    };
    const where = { ...whereOf(assigned), wanted, logStart: await ends(EARLIEST), logEnd: await ends(LATEST) };
    if (!this.#ports.isWanted(assigned, wanted)) return;
    if (wanted >= where.logStart && wanted <= where.logEnd) {
      // A new leader that has yet to catch up, or records that came just now.
      assigned.notBeforeMs = performance.now() + PARTITION_RETRY_MS;
      assigned.observedChange = undefined;
      return;
    }
    const goOnAt = settings.onOutOfRange(where);
    if (goOnAt !== undefined) return this.#goOnAt(assigned, goOnAt, where);
    if (this.#awaitsClaim(assigned, where)) return;
    if (wanted < where.logStart) return failed(assigned, outOfRange(where));
    if (!this.#believes(assigned, 'truncated')) return;
    // Nobody sent it elsewhere in all the time: there is no state to decide, only the group's word.
    if (assigned.isUnproven && settings.onReset === 'halt') return failed(assigned, outOfRange(where));
    reset(assigned, { kind: 'truncated', ...where });
  }

  /** The group's offset is only where to begin unless the state says otherwise, which takes a while. */
  #awaitsClaim(assigned: AssignedPartition, where: Beyond): boolean {
    if (!this.#ports.settings.stateDecides || !assigned.isUnproven || assigned.isClaimed) return false;
    const nowMs = performance.now();
    if (assigned.heldSinceMs === undefined) {
      assigned.heldSinceMs = nowMs;
      this.#ports.settings.log(
        'warn',
        "the group's offset is out of range, waiting for the state to say where to go on",
        { ...where },
      );
    }
    assigned.notBeforeMs = nowMs + CLAIM_RETRY_MS;
    return nowMs - assigned.heldSinceMs < CLAIM_LIMIT_MS;
  }

  #goOnAt(assigned: AssignedPartition, goOnAt: number, where: Beyond): void {
    const { settings, deliver } = this.#ports;
    const { wanted, logEnd } = where;
    settings.log('warn', 'an offset was out of range, going on at another', { ...where, goOnAt });
    assigned.next = goOnAt;
    if (goOnAt <= wanted) return;
    // What is gone is told, and covered by a chunk without records: chunks stay contiguous, whoever waits for `wanted`.
    settings.onEvent({ kind: 'gap', assignment: assigned.assignment, expected: wanted, found: goOnAt });
    deliver(assigned, {
      assignment: assigned.assignment,
      afterOffset: wanted - 1,
      lastOffset: goOnAt - 1,
      records: [],
      bytes: 0,
      highWatermark: logEnd,
    });
  }

  /** Asks for new metadata, once for all who wait. Tells whether a broker has answered. */
  refresh(): Promise<boolean> {
    this.#refreshing ??= this.#ports.kafka.cluster
      .refreshMetadata()
      .then(
        () => true,
        (thrown: unknown) => {
          this.#ports.settings.log('warn', 'no broker told its metadata', { reason: reasonOf(thrown) });
          return false;
        },
      )
      .finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }
}

function whereOf({ assignment: { topic, partition } }: AssignedPartition): { topic: string; partition: number } {
  return { topic, partition };
}

function refused(type: string, assigned: AssignedPartition): IngestError {
  return kafkaError(Object.assign(new Error(type), { type }), 'Fetching', whereOf(assigned));
}
