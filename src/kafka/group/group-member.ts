/**
 * One subscription's life as a member of the group: connect, join, heartbeat, drain, join again, leave.
 * It decides when; the protocol is membership.ts, what becomes of the partitions is assigned-partitions.ts.
 * Imports: abort, errors, kafka, kafka/connection, ports, rxjs.
 */
import type { Subscriber } from 'rxjs';
import { within } from '../../abort.js';
import { IngestError } from '../../errors.js';
import type { SourceEvent } from '../../ports.js';
import { AssignedPartitions } from './assigned-partitions.js';
import { Committing } from './commit-in-order.js';
import { Generation, type JoinedGroup } from './generation.js';
import { Inquiries } from './inquiries.js';
import { Membership } from './membership.js';
import type { SourceSettings } from '../options.js';
import { StartOffsets } from './start-offsets.js';
import { otherPartitions } from './topic-watch.js';
import { kafkaError, kafkaType } from '../connection/classify-error.js';
import { openConnection, type KafkaConnection } from '../connection/kafka-connection.js';
import { untilSuccess } from '../connection/until-success.js';
import { newAbort, sleep } from '../connection/wait.js';

const DISCONNECT_LIMIT_MS = 1000;
const UNHEARD_RETRY_MS = 500;

export class GroupMember {
  readonly partitions: AssignedPartitions;
  readonly commits: Committing;
  readonly inquiries: Inquiries;
  readonly #settings: SourceSettings;
  readonly #subscriber: Subscriber<SourceEvent>;
  readonly #kafka: KafkaConnection;
  readonly #membership: Membership;
  /** Nobody listens any more, or nothing is left to be told. */
  readonly #over = newAbort();
  /** No more joins. */
  readonly #leaving = newAbort();
  #generation: Generation | undefined;
  #closing: Promise<void> | undefined;

  /** @throws `KCR_KAFKAJS_HOOKS`. */
  constructor(settings: SourceSettings, subscriber: Subscriber<SourceEvent>, nextAssignmentId: () => number) {
    this.#settings = settings;
    this.#subscriber = subscriber;
    this.#kafka = openConnection(settings);
    this.#membership = new Membership(this.#kafka, settings);
    this.inquiries = new Inquiries(this.#kafka, this.#membership);
    const joinAgain = (generation: Generation): void => this.#joinAgain(generation);
    this.partitions = new AssignedPartitions(
      {
        kafka: this.#kafka,
        settings,
        startOffsets: new StartOffsets(this.#kafka, settings, this.#membership),
        nextAssignmentId,
        emit: (event) => this.#emit(event),
        fail: (error) => this.#fail(error),
        joinAgain,
      },
      this.#over.signal,
    );
    const { assignments } = this.partitions;
    this.commits = new Committing({ assignments, membership: this.#membership, log: settings.log, joinAgain });
  }

  /** From the connection to the end. Never rejects: the subscriber is told. */
  async live(): Promise<void> {
    try {
      await this.#connect();
      for (;;) {
        const joined = await this.#membership.join(this.#leaving.signal);
        if (joined === undefined || this.#over.signal.aborted) break;
        await this.#serve(joined);
      }
      await this.#close();
      this.#subscriber.complete();
    } catch (thrown) {
      this.#fail(thrown instanceof IngestError ? thrown : kafkaError(thrown, 'The Kafka source'));
    }
  }

  /** At once: nothing more is told, nothing is waited for by the caller. */
  stop(): void {
    if (this.#over.signal.aborted) return;
    void this.#close();
  }

  drain(): void {
    this.#leaving.abort();
    this.#generation?.end('drain');
  }

  async #connect(): Promise<void> {
    const { topics, brokers, log } = this.#settings;
    const { cluster } = this.#kafka;
    const attempts = { kafka: this.#kafka, log, doing: 'Connecting to Kafka', signal: this.#leaving.signal };
    await untilSuccess(attempts, async () => {
      await cluster.connect();
      try {
        await cluster.addMultipleTargetTopics(topics);
      } catch (thrown) {
        if (kafkaType(thrown) !== 'UNKNOWN_TOPIC_OR_PARTITION') throw thrown;
        throw new IngestError('KCR_TOPIC_MISSING', `One of the topics ${topics.join(', ')} does not exist`, {
          hint: `create it: kafka-topics.sh --bootstrap-server ${brokers[0]} --create --topic <name> --partitions <n>`,
        });
      }
    });
  }

  async #serve(joined: JoinedGroup): Promise<void> {
    const generation = new Generation(joined);
    const { generationId, isLeader, partitions, dealt } = joined;
    const { groupId, log } = this.#settings;
    this.#generation = generation;
    if (this.#leaving.signal.aborted) generation.end('drain');
    const fields = { groupId, generation: generationId, leader: isLeader, partitions: partitions.length };
    log('info', 'joined the group', fields);
    void this.#beat(generation);
    if (dealt !== undefined) void this.#watchTopics(generation, dealt);
    try {
      await this.partitions.begin(generation);
      const reason = await generation.reasonForEnd;
      log('info', 'leaving the generation', { groupId, generation: generationId, reason });
      await this.partitions.giveUp(generation);
    } finally {
      generation.close();
    }
  }

  /** The group begins a new generation: whatever of this one is still on its way will be refused. */
  #joinAgain(generation: Generation): void {
    this.#membership.demandGeneration(generation.joined);
    generation.end('rebalance');
  }

  /** Heartbeats from the join until the next one, drain included: without them the group would not wait for us. */
  async #beat(generation: Generation): Promise<void> {
    const { heartbeatIntervalMs } = this.#settings;
    let waitMs = heartbeatIntervalMs;
    try {
      for (;;) {
        await sleep(waitMs, generation.closed.signal);
        if (generation.closed.signal.aborted) return;
        const beat = await this.#membership.beat(generation.joined);
        // Unheard it is tried again soon: the session runs on.
        waitMs = beat === 'unheard' ? Math.min(heartbeatIntervalMs, UNHEARD_RETRY_MS) : heartbeatIntervalMs;
        if (beat === 'rebalance') generation.end('rebalance');
        if (beat === 'fenced') return generation.end('fenced');
      }
    } catch (thrown) {
      this.#fail(kafkaError(thrown, 'A heartbeat'));
    }
  }

  async #watchTopics(generation: Generation, dealt: ReadonlyMap<string, number>): Promise<void> {
    const { metadataMaxAgeMs, log } = this.#settings;
    const ports = { kafka: this.#kafka, log, dealt, metadataMaxAgeMs };
    const topics = await otherPartitions(ports, generation.closed.signal);
    if (topics.length === 0) return;
    const fields = { topics: topics.slice(0, 10), count: topics.length };
    log('info', 'topics have other partitions than were dealt out', fields);
    generation.end('rebalance');
  }

  #emit(event: SourceEvent): void {
    if (!this.#over.signal.aborted) this.#subscriber.next(event);
  }

  #fail(error: IngestError): void {
    if (this.#over.signal.aborted) return;
    void this.#close();
    this.#subscriber.error(error);
  }

  /** Leaves the group and closes the connections, once, bounded in time. */
  #close(): Promise<void> {
    this.#closing ??= this.#leaveAndDisconnect();
    return this.#closing;
  }

  async #leaveAndDisconnect(): Promise<void> {
    this.#over.abort();
    this.#leaving.abort();
    this.#generation?.end('drain');
    this.#generation?.close();
    this.partitions.forgetAll();
    await this.#membership.leave();
    await within(this.#kafka.cluster.disconnect(), DISCONNECT_LIMIT_MS);
    this.#kafka.end();
  }
}
