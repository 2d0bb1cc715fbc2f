/**
 * The protocol of a consumer group, one call at a time: join, heartbeat, commit, leave. Knows generations and
 * coordinators, not what the partitions are used for; that is group-member.ts. No timers but the wait before a retry.
 * Imports: Node, abort, errors, kafka, kafka/connection.
 */
import { randomBytes } from 'node:crypto';
import { within } from '../../abort.js';
import { IngestError } from '../../errors.js';
import { ASSIGNOR_NAME, decodeAssignment, subscription, type Member, type TopicPartition } from './assignor.js';
import { checkedBroker, through, type KafkajsBroker } from '../connection/broker.js';
import { CommitFailure, Commits } from './commits.js';
import { deal, type Deal } from './deal.js';
import { cutEverywhere, overLane, type Lane } from '../connection/lanes.js';
import type { SourceSettings } from '../options.js';
import { committedOffsets, committedOffsetsEach, type Committed } from '../connection/list-offsets.js';
import { fenced, UnknownOutcome, type CommitRequest } from './commit-request.js';
import type { JoinedGroup } from './generation.js';
import { commitOutcome, kafkaError, kafkaType, reasonOf, classifyError } from '../connection/classify-error.js';
import { Backoff, sleep, unlessAborted } from '../connection/wait.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';

export type Beat = 'alive' | 'rebalance' | 'fenced' | 'unheard';

const LEAVE_LIMIT_MS = 1500;

export class Membership {
  readonly #kafka: KafkaConnection;
  readonly #settings: SourceSettings;
  #memberId = '';
  #userData = Buffer.alloc(0);
  #coordinator: Promise<KafkajsBroker> | undefined;
  readonly #commits: Commits;
  /** A generation of which a late commit may still be on its way. */
  #outlived: JoinedGroup | undefined;

  constructor(kafka: KafkaConnection, settings: SourceSettings) {
    this.#kafka = kafka;
    this.#settings = settings;
    this.#commits = new Commits({
      groupId: settings.groupId,
      log: settings.log,
      ask: (call) => this.ask(call, 'offsets'),
      suspect: (thrown) => {
        if (classifyError(thrown) === 'coordinator') this.#coordinator = undefined;
      },
    });
  }

  /** Joins until it succeeds. Undefined when the signal called it off. Throws what no retry mends. */
  async join(signal: AbortSignal): Promise<JoinedGroup | undefined> {
    const backoff = new Backoff();
    while (!signal.aborted) {
      try {
        const joined = await unlessAborted(this.#joinOnce(signal), signal);
        if (joined === undefined || signal.aborted) continue;
        if (!this.#isAsBefore(joined)) return joined;
        await this.#becomeAnother(joined.memberId);
      } catch (thrown) {
        if (signal.aborted) return undefined;
        const trouble = classifyError(thrown);
        if (trouble === 'fatal') throw kafkaError(thrown, `Joining the group ${this.#settings.groupId}`);
        if (kafkaType(thrown) === 'UNKNOWN_MEMBER_ID') this.#memberId = '';
        this.#settings.log(trouble === 'transient' ? 'warn' : 'info', 'joining the group failed, trying again', {
          groupId: this.#settings.groupId,
          attempt: backoff.failures + 1,
          reason: reasonOf(thrown),
        });
        await sleep(backoff.next(), signal);
      }
    }
    return undefined;
  }

  async #joinOnce(signal: AbortSignal): Promise<JoinedGroup> {
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
    const isLeader = joined.leaderId === memberId;
    if (joined.groupProtocol !== ASSIGNOR_NAME) throw new Error(`the group chose the assignor ${joined.groupProtocol}`);
    const { groupAssignment, dealt } = isLeader
      ? await this.#deal(joined.members, signal)
      : { groupAssignment: [], dealt: undefined };
    const synced = await this.ask((coordinator) =>
      coordinator.syncGroup({ groupId, generationId, memberId, groupAssignment }),
    );
    return { memberId, generationId, isLeader, dealt, ...decodeAssignment(synced.memberAssignment) };
  }

  #deal(members: readonly Member[], signal: AbortSignal): Promise<Deal> {
    const committed = (partitions: readonly TopicPartition[]) =>
      this.ask((coordinator) => committedOffsetsEach(coordinator, this.#settings.groupId, partitions), 'offsets');
    return deal({ kafka: this.#kafka, committed }, members, signal);
  }

  /**
   * The id that the coordinator gives a new member in its refusal of the first request: kafkajs forgets it when the
   * second request fails, and the group would wait for a member that is never heard of again.
   */
  #learningMemberId(coordinator: KafkajsBroker, signal: AbortSignal): KafkajsBroker {
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

  /** One heartbeat. Never throws but what no retry mends. */
  async beat({ memberId, generationId }: JoinedGroup): Promise<Beat> {
    const { groupId } = this.#settings;
    try {
      await this.ask((coordinator) => coordinator.heartbeat({ groupId, groupGenerationId: generationId, memberId }));
      return 'alive';
    } catch (thrown) {
      const trouble = classifyError(thrown);
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
   * Commits one partition's offset under the generation of the join, whatever the group's generation is by now: the
   * broker refuses an old one. Connection trouble is sat out, as a commit may be made twice. `signal`: nobody may
   * commit for this assignment any more.
   */
  async commit(joined: JoinedGroup, request: CommitRequest, signal: AbortSignal): Promise<void> {
    const { topic, partition, next } = request;
    const backoff = new Backoff();
    while (!signal.aborted) {
      try {
        return await this.#commits.send(joined, request, signal);
      } catch (thrown) {
        if (!(thrown instanceof CommitFailure)) throw thrown;
        const trouble = classifyError(thrown.cause);
        if (trouble === 'fenced') throw fenced(topic, partition, next, thrown.cause);
        if (trouble === 'fatal') throw kafkaError(thrown.cause, `Committing offset ${next}`, { topic, partition });
        await sleep(backoff.next(), signal);
      }
    }
    throw fenced(topic, partition, next, undefined);
  }

  /**
   * Commits as `commit` does, but in one attempt, for a value that must not be overwritten by an older one: commits
   * carry no order, so a copy that hangs in a broker or in the network overwrites whatever was committed since, as long
   * as its generation lasts. So where the outcome is not known, `UnknownOutcome` is thrown, and nothing more may be
   * committed for the partition before the next generation: `demandGeneration`, and join. `signal`: as in `commit`.
   *
   * @throws `KCR_FENCED`; `KCR_STORE`; `KCR_KAFKA_UNREACHABLE` when it may be made again; `UnknownOutcome`.
   */
  async commitOnce(joined: JoinedGroup, request: CommitRequest, signal?: AbortSignal): Promise<void> {
    const { topic, partition, next, metadata } = request;
    try {
      await this.#commits.send(joined, request, signal);
    } catch (failure) {
      if (!(failure instanceof CommitFailure)) throw failure;
      const thrown = failure.cause;
      const fields = { topic, partition, serverCode: kafkaType(thrown), cause: thrown };
      switch (commitOutcome(thrown, failure.isSent)) {
        case 'fenced':
          throw fenced(topic, partition, next, thrown);
        case 'refused':
          throw kafkaError(thrown, `Committing offset ${next}`, { topic, partition });
        case 'tooLarge':
          throw new IngestError(
            'KCR_STORE',
            `Kafka does not keep ${metadata?.length ?? 0} characters beside a committed offset`,
            {
              ...fields,
              hint: "raise the brokers' offset.metadata.max.bytes",
            },
          );
        case 'before':
          throw new IngestError(
            'KCR_KAFKA_UNREACHABLE',
            `Offset ${next} was not committed: ${reasonOf(thrown)}`,
            fields,
          );
        case 'unknown':
          throw new UnknownOutcome(reasonOf(thrown), { cause: thrown });
      }
    }
  }

  /**
   * The next join will make the group begin a new generation, in which every late commit of this one is refused.
   * Without it the coordinator answers a member that joins as it did before with the generation that is.
   */
  demandGeneration(joined: JoinedGroup): void {
    this.#userData = randomBytes(8);
    this.#outlived = joined;
  }

  /** A generation was demanded and did not come: a late commit of the present one would be taken. */
  #isAsBefore({ memberId, generationId }: JoinedGroup): boolean {
    const isAsBefore = memberId === this.#outlived?.memberId && generationId <= this.#outlived.generationId;
    if (!isAsBefore) this.#outlived = undefined;
    return isAsBefore;
  }

  /**
   * Leaves, for certain, to join under another id: commits under the old one are refused from then on. So it goes where
   * the broker deals out the partitions, which it does as soon as one member speaks the newer protocol (KIP-848): such
   * a group has no generations, and a member's epoch changes only with its partitions.
   */
  async #becomeAnother(memberId: string): Promise<void> {
    const { groupId } = this.#settings;
    this.#settings.log('info', 'the group began no new generation, joining it as another member', {
      groupId,
      memberId,
    });
    await this.ask((coordinator) => coordinator.leaveGroup({ groupId, memberId }));
    if (this.#memberId === memberId) this.#memberId = '';
  }

  /**
   * Tells the group to go on without us; gives up soon. Goes over the connection of the commits: on the other one it
   * would wait behind a join that is under way.
   */
  async leave(): Promise<void> {
    const memberId = this.#memberId;
    if (memberId === '' || this.#coordinator === undefined) return;
    this.#memberId = '';
    const left = this.#coordinator.then((coordinator) =>
      overLane(coordinator, 'offsets').leaveGroup({ groupId: this.#settings.groupId, memberId }),
    );
    await within(left, LEAVE_LIMIT_MS);
  }

  /** What the group has committed of these partitions. */
  committed(partitions: readonly TopicPartition[]): Promise<Committed[]> {
    return this.ask((coordinator) => committedOffsets(coordinator, this.#settings.groupId, partitions), 'offsets');
  }

  /** Makes a call to the coordinator. After a failure that may be its fault it is looked for again at the next call. */
  async ask<T>(call: (coordinator: KafkajsBroker) => Promise<T>, lane: Lane = 'group'): Promise<T> {
    this.#coordinator ??= this.#find();
    const found = this.#coordinator;
    let coordinator: KafkajsBroker | undefined;
    try {
      coordinator = await found;
      return await call(overLane(coordinator, lane));
    } catch (thrown) {
      const trouble = classifyError(thrown);
      const suspect = coordinator === undefined || trouble === 'coordinator' || trouble === 'transient';
      if (suspect && this.#coordinator === found) this.#coordinator = undefined;
      throw thrown;
    }
  }

  async #find(): Promise<KafkajsBroker> {
    const startMs = performance.now();
    try {
      return checkedBroker(await this.#kafka.cluster.findGroupCoordinator({ groupId: this.#settings.groupId }));
    } catch (thrown) {
      // kafkajs swallows why; having lasted so long, it was for want of an answer: do not wait on these connections
      // again.
      if (performance.now() - startMs >= this.#settings.requestTimeoutMs) cutEverywhere(this.#kafka.cluster, 'group');
      throw thrown;
    }
  }
}
