/**
 * Room: the protocol of a consumer group, one call at a time: join, heartbeat, commit, leave. Knows generations and
 * coordinators, not what the partitions are used for; that is run.ts. No timers but the wait before a retry.
 */
import { IngestError } from '../errors.js';
import { assign, assignedPartitions, ASSIGNOR_NAME, subscription, topicsOf, type TopicPartition } from './assignor.js';
import type { SourceSettings } from './options.js';
import { isTimeout, kafkaError, kafkaType, reasonOf, troubleOf } from './trouble.js';
import { Backoff, sleep, unlessAborted, within } from './wait.js';
import { checkedBroker, through, type Wire, type WireBroker } from './wire.js';

/** What a join gave: commits are pinned to it. */
export interface Session {
  readonly memberId: string;
  readonly generation: number;
  /** This member deals out the partitions, so it watches for new ones. */
  readonly leader: boolean;
  readonly partitions: readonly TopicPartition[];
}

export type Beat = 'alive' | 'rebalance' | 'fenced' | 'unheard';

export interface CommitRequest extends TopicPartition {
  readonly next: number;
  /** Kept by Kafka beside the offset, at most 4096 UTF-16 units. Each commit replaces it. */
  readonly metadata: string | null;
}

const LEAVE_LIMIT_MS = 1500;

export class Membership {
  readonly #wire: Wire;
  readonly #settings: SourceSettings;
  #memberId = '';
  #coordinator: Promise<WireBroker> | undefined;

  constructor(wire: Wire, settings: SourceSettings) {
    this.#wire = wire;
    this.#settings = settings;
  }

  /** Joins until it succeeds. Undefined when the signal called it off. Throws what no retry mends. */
  async join(signal: AbortSignal): Promise<Session | undefined> {
    const backoff = new Backoff();
    while (!signal.aborted) {
      try {
        const session = await unlessAborted(this.#joinOnce(signal), signal);
        if (session !== undefined && !signal.aborted) return session;
      } catch (thrown) {
        if (signal.aborted) return undefined;
        const trouble = troubleOf(thrown);
        if (trouble === 'fatal') throw kafkaError(thrown, `Joining the group ${this.#settings.groupId}`);
        if (kafkaType(thrown) === 'UNKNOWN_MEMBER_ID') this.#memberId = '';
        this.#settings.log(trouble === 'transient' ? 'warn' : 'info', 'joining the group failed, trying again', {
          groupId: this.#settings.groupId, attempt: backoff.failures + 1, reason: reasonOf(thrown),
        });
        await sleep(backoff.next(), signal);
      }
    }
    return undefined;
  }

  async #joinOnce(signal: AbortSignal): Promise<Session> {
    const { groupId, sessionTimeoutMs, rebalanceTimeoutMs, topics } = this.#settings;
    const joined = await this.ask((coordinator) =>
      this.#learningMemberId(coordinator, signal).joinGroup({
        groupId,
        sessionTimeout: sessionTimeoutMs,
        rebalanceTimeout: rebalanceTimeoutMs,
        memberId: this.#memberId,
        groupProtocols: [subscription(topics)],
      }),
    );
    this.#memberId = joined.memberId;
    const { memberId, generationId } = joined;
    const leader = joined.leaderId === memberId;
    if (joined.groupProtocol !== ASSIGNOR_NAME) throw new Error(`the group chose the assignor ${joined.groupProtocol}`);
    const groupAssignment = leader ? await this.#deal(joined.members) : [];
    const synced = await this.ask((coordinator) => coordinator.syncGroup({ groupId, generationId, memberId, groupAssignment }));
    return { memberId, generation: generationId, leader, partitions: assignedPartitions(synced.memberAssignment) };
  }

  /**
   * The id that the coordinator gives a new member in its refusal of the first request: kafkajs forgets it when the
   * second request fails, and the group would wait for a member that is never heard of again.
   */
  #learningMemberId(coordinator: WireBroker, signal: AbortSignal): WireBroker {
    return through(coordinator, async (pool, request) => {
      try {
        return await pool.send(request);
      } catch (thrown) {
        const { name, memberId } = thrown as { name?: unknown; memberId?: unknown };
        if (name === 'KafkaJSMemberIdRequired' && typeof memberId === 'string') this.#memberId = memberId;
        // kafkajs would now send the second request.
        if (signal.aborted) throw new Error('the join was called off');
        throw thrown;
      }
    });
  }

  async #deal(members: readonly { memberId: string; memberMetadata: Buffer }[]): Promise<{ memberId: string; memberAssignment: Buffer }[]> {
    const { cluster } = this.#wire;
    // Other members may read topics that this one does not.
    const topics = [...new Set(members.flatMap(({ memberMetadata }) => topicsOf(memberMetadata)))];
    await cluster.addMultipleTargetTopics(topics).catch((thrown: unknown) => {
      // Theirs to complain about.
      if (kafkaType(thrown) !== 'UNKNOWN_TOPIC_OR_PARTITION') throw thrown;
    });
    await cluster.refreshMetadata();
    return assign(members, (topic) => cluster.findTopicPartitionMetadata(topic).map(({ partitionId }) => partitionId));
  }

  /** One heartbeat. Never throws but what no retry mends. */
  async beat({ memberId, generation }: Session): Promise<Beat> {
    const { groupId } = this.#settings;
    try {
      await this.ask((coordinator) => coordinator.heartbeat({ groupId, groupGenerationId: generation, memberId }));
      return 'alive';
    } catch (thrown) {
      const trouble = troubleOf(thrown);
      if (trouble === 'rebalance') return 'rebalance';
      if (trouble === 'fenced') {
        if (kafkaType(thrown) === 'UNKNOWN_MEMBER_ID' && this.#memberId === memberId) this.#memberId = '';
        return 'fenced';
      }
      if (trouble === 'fatal') throw kafkaError(thrown, `A heartbeat of the group ${groupId}`);
      this.#settings.log('warn', 'no heartbeat got through', { groupId, reason: reasonOf(thrown) });
      return 'unheard';
    }
  }

  /**
   * Commits one partition's offset under the generation of the session, whatever the group's generation is by now: the
   * broker refuses an old one. Connection trouble is sat out, as a commit may be made twice. `signal`: nobody may
   * commit for this assignment any more.
   */
  async commit({ memberId, generation }: Session, { topic, partition, next, metadata }: CommitRequest, signal: AbortSignal): Promise<void> {
    const { groupId } = this.#settings;
    const backoff = new Backoff();
    const topics = [{ topic, partitions: [{ partition, offset: String(next), metadata }] }];
    while (!signal.aborted) {
      try {
        await this.ask((coordinator) => coordinator.offsetCommit({ groupId, groupGenerationId: generation, memberId, topics }));
        return;
      } catch (thrown) {
        const trouble = troubleOf(thrown);
        if (trouble === 'fenced') throw fenced(topic, partition, next, thrown);
        if (trouble === 'fatal') throw kafkaError(thrown, `Committing offset ${next}`, { topic, partition });
        this.#settings.log('warn', 'a commit failed, trying again', { groupId, topic, partition, next, reason: reasonOf(thrown) });
        await sleep(backoff.next(), signal);
      }
    }
    throw fenced(topic, partition, next, undefined);
  }

  /**
   * Tells the group to go on without us; gives up soon. Goes over the connection for fetches: on the other one it would
   * wait behind a join that is under way.
   */
  async leave(): Promise<void> {
    const memberId = this.#memberId;
    if (memberId === '' || this.#coordinator === undefined) return;
    this.#memberId = '';
    const left = this.#coordinator.then((coordinator) =>
      through(coordinator, async (pool, request) => (await pool.getConnection(1)).send(request)).leaveGroup({
        groupId: this.#settings.groupId,
        memberId,
      }),
    );
    await within(left, LEAVE_LIMIT_MS);
  }

  /** Makes a call to the coordinator. After a failure that may be its fault it is looked for again at the next call. */
  async ask<T>(call: (coordinator: WireBroker) => Promise<T>): Promise<T> {
    this.#coordinator ??= this.#find();
    const found = this.#coordinator;
    let coordinator: WireBroker | undefined;
    try {
      coordinator = await found;
      return await call(coordinator);
    } catch (thrown) {
      const trouble = troubleOf(thrown);
      const suspect = coordinator === undefined || trouble === 'coordinator' || trouble === 'transient';
      if (suspect && this.#coordinator === found) this.#coordinator = undefined;
      if (coordinator !== undefined && isTimeout(thrown)) this.#wire.cut(coordinator.connectionPool);
      throw thrown;
    }
  }

  async #find(): Promise<WireBroker> {
    const startMs = performance.now();
    try {
      return checkedBroker(await this.#wire.cluster.findGroupCoordinator({ groupId: this.#settings.groupId }));
    } catch (thrown) {
      // kafkajs swallows why; having lasted so long, it was for want of an answer: do not wait on these connections again.
      if (performance.now() - startMs >= this.#settings.requestTimeoutMs) this.#wire.cut();
      throw thrown;
    }
  }
}

export function fenced(topic: string, partition: number, next: number, cause: unknown): IngestError {
  return new IngestError('KCR_FENCED', `Offset ${next} was not committed: the partition is not ours any more`, {
    topic, partition, serverCode: kafkaType(cause), cause,
  });
}
