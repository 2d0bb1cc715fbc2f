/**
 * Room: the protocol of a consumer group, one call at a time: join, heartbeat, commit, leave. Knows generations and
 * coordinators, not what the partitions are used for; that is run.ts. No timers but the wait before a retry.
 */
import { randomBytes } from 'node:crypto';
import { IngestError } from '../errors.js';
import { assign, assignedPartitions, ASSIGNOR_NAME, subscription, topicsOf, type TopicPartition } from './assignor.js';
import type { SourceSettings } from './options.js';
import { isGone } from './topic-ids.js';
import { commitOutcome, isTimeout, kafkaError, kafkaType, reasonOf, troubleOf } from './trouble.js';
import { Backoff, sleep, unlessAborted, within } from './wait.js';
import { checkedBroker, through, type WireBroker } from './broker.js';
import type { Wire } from './wire.js';

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

/** A commit of which nobody knows whether it took, or will take, effect. */
export class UnknownOutcome extends Error {
  override readonly name = 'UnknownOutcome';
}

const LEAVE_LIMIT_MS = 1500;
/** A broker that was just started knows of no topic: so often is it asked again before a topic is dealt to nobody. */
const DEAL_LOOKS = 5;
const DEAL_LOOK_MS = 200;

export class Membership {
  readonly #wire: Wire;
  readonly #settings: SourceSettings;
  #memberId = '';
  #userData = Buffer.alloc(0);
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
        groupProtocols: [subscription(topics, this.#userData)],
      }),
    );
    this.#memberId = joined.memberId;
    const { memberId, generationId } = joined;
    const leader = joined.leaderId === memberId;
    if (joined.groupProtocol !== ASSIGNOR_NAME) throw new Error(`the group chose the assignor ${joined.groupProtocol}`);
    const groupAssignment = leader ? await this.#deal(joined.members, signal) : [];
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

  async #deal(members: readonly { memberId: string; memberMetadata: Buffer }[], signal: AbortSignal): Promise<{ memberId: string; memberAssignment: Buffer }[]> {
    const { cluster } = this.#wire;
    // Other members may read topics that this one does not.
    const topics = [...new Set(members.flatMap(({ memberMetadata }) => topicsOf(memberMetadata)))];
    await cluster.addMultipleTargetTopics(topics).catch((thrown: unknown) => {
      // Theirs to complain about.
      if (troubleOf(thrown) === 'transient') throw thrown;
    });
    for (let looks = 1; ; looks++) {
      await cluster.refreshMetadata();
      if (looks === DEAL_LOOKS || !topics.some((topic) => isGone(cluster, topic))) break;
      await sleep(DEAL_LOOK_MS, signal);
    }
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
   * Commits as `commit` does, but in one attempt, for a value that must not be overwritten by an older one: commits carry
   * no order, so a copy that hangs in a broker or in the network overwrites whatever was committed since, as long as its
   * generation lasts. So where the outcome is not known, `UnknownOutcome` is thrown, and nothing more may be committed
   * for the partition before the next generation: `demandGeneration`, and join.
   *
   * @throws `KCR_FENCED`; `KCR_STORE`; `KCR_KAFKA_UNREACHABLE` when it may be made again; `UnknownOutcome`.
   */
  async commitOnce({ memberId, generation }: Session, { topic, partition, next, metadata }: CommitRequest): Promise<void> {
    const { groupId } = this.#settings;
    const topics = [{ topic, partitions: [{ partition, offset: String(next), metadata }] }];
    let isSent = false;
    const once = (coordinator: WireBroker): Promise<unknown> =>
      through(coordinator, (pool, wire) => {
        const encode = async () => {
          isSent = true; // nearly: a connection that breaks in this moment counts as sent
          return wire.request.encode();
        };
        return pool.send({ ...wire, request: { ...wire.request, encode } });
      }).offsetCommit({ groupId, groupGenerationId: generation, memberId, topics });
    try {
      await this.ask(once);
    } catch (thrown) {
      const fields = { topic, partition, serverCode: kafkaType(thrown), cause: thrown };
      switch (commitOutcome(thrown, isSent)) {
        case 'fenced':
          throw fenced(topic, partition, next, thrown);
        case 'refused':
          throw kafkaError(thrown, `Committing offset ${next}`, { topic, partition });
        case 'tooLarge':
          throw new IngestError('KCR_STORE', `Kafka does not keep ${metadata?.length ?? 0} characters beside a committed offset`, {
            ...fields, hint: "raise the brokers' offset.metadata.max.bytes",
          });
        case 'before':
          throw new IngestError('KCR_KAFKA_UNREACHABLE', `Offset ${next} was not committed: ${reasonOf(thrown)}`, fields);
        case 'unknown':
          throw new UnknownOutcome(reasonOf(thrown), { cause: thrown });
      }
    }
  }

  /**
   * The next join will make the group begin a new generation, in which every late commit of the present one is refused.
   * Without it the coordinator answers a member that joins as it did before with the generation that is.
   */
  demandGeneration(): void {
    this.#userData = randomBytes(8);
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
