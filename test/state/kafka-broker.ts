// Members of groups on a real broker, low down: each joins when it is told to, takes everything from whoever was in the
// group before, and sends no heartbeats. The former member is expelled and not told.
import { defer, EMPTY, NEVER, of } from 'rxjs';
import { vi } from 'vitest';
import { IngestError } from '../../src/errors.js';
import { Membership } from '../../src/kafka/group/membership.js';
import { sourceSettings, type SourceSettings } from '../../src/kafka/options.js';
import { committedOffsets } from '../../src/kafka/connection/list-offsets.js';
import { UnknownOutcome } from '../../src/kafka/group/commit-request.js';
import type { JoinedGroup } from '../../src/kafka/group/generation.js';
import { openConnection, type KafkaConnection } from '../../src/kafka/connection/kafka-connection.js';
import type { Assignment } from '../../src/model/record.js';
import type { StateKey } from '../../src/ports.js';
import type { CommittedOffset, OffsetSource } from '../../src/state/kafka.js';
import { createTopic } from '../stack/clients.js';
import type { Membership as Joining } from './kafka-members.js';

type Place = Pick<StateKey, 'group' | 'topic' | 'partition'>;

/** A broker that was just started knows of new topics late. */
export async function makeTopic(brokers: readonly string[], topic: string, partitions: number): Promise<void> {
  const make = () =>
    createTopic(brokers, topic, { partitions }).catch((error: unknown) => {
      if (!String(error).includes('already exists')) throw error;
    });
  await vi.waitFor(make, { timeout: 30_000, interval: 200 });
}

let assignmentIds = 0;

export class BrokerGroups {
  readonly #brokers: readonly string[];
  readonly #wire: KafkaConnection;
  readonly #present = new Map<string, JoinedGroup>();
  readonly #joining = new Map<string, Promise<unknown>>();

  private constructor(brokers: readonly string[]) {
    this.#brokers = brokers;
    this.#wire = openConnection(this.#settings('any', 'any'));
  }

  static async open(brokers: readonly string[]): Promise<BrokerGroups> {
    const groups = new BrokerGroups(brokers);
    await groups.#wire.cluster.connect();
    // The offsets topic is made when it is first asked for.
    await vi.waitFor(() => groups.committed({ group: 'any', topic: 'any', partition: 0 }), {
      timeout: 20_000,
      interval: 100,
    });
    return groups;
  }

  async close(): Promise<void> {
    await this.#wire.cluster.disconnect();
    this.#wire.cut();
  }

  member(group: string): Joining & { readonly source: OffsetSource } {
    const assignments = new Map<string, { readonly assignment: Assignment; readonly joined: JoinedGroup }>();
    const joins = new WeakMap<Assignment, JoinedGroup>();
    const membership = new Membership(this.#wire, this.#settings(group, 'any'));
    const source: OffsetSource = {
      assignmentOf: (topic, partition) => assignments.get(`${topic}/${partition}`)?.assignment,
      committed: ({ topic, partition }) => defer(() => this.committed({ group, topic, partition })),
      commitOnce: (assignment, next, metadata) =>
        defer(() =>
          membership
            .commitOnce(joins.get(assignment)!, { ...assignment, next, metadata: metadata ?? null })
            .catch((thrown: unknown) => {
              throw thrown instanceof UnknownOutcome
                ? new IngestError('KCR_FENCED', `not known: ${thrown.message}`, { topic: assignment.topic })
                : thrown;
            }),
        ),
      events: NEVER,
      cluster: () => of('cluster'),
      log: () => of({ start: 0, end: Number.MAX_SAFE_INTEGER }),
      seek: () => EMPTY,
      commit: () => EMPTY,
      done: () => undefined,
      halt: () => undefined,
      reassign: () => undefined,
      pause: () => undefined,
      resume: () => undefined,
      drain: () => undefined,
    };
    const join = async (topic: string, partition: number): Promise<Assignment> => {
      const joined = await this.#join(group, topic);
      const { next } = await this.committed({ group, topic, partition });
      const assignment: Assignment = Object.freeze({
        topic,
        partition,
        assignmentId: ++assignmentIds,
        generation: joined.generationId,
        startOffset: next ?? 0,
      });
      joins.set(assignment, joined);
      assignments.clear();
      assignments.set(`${topic}/${partition}`, { assignment, joined });
      return assignment;
    };
    return { source, join };
  }

  async committed({ group, topic, partition }: Place): Promise<CommittedOffset> {
    const membership = new Membership(this.#wire, this.#settings(group, topic));
    const [found] = await membership.ask((coordinator) => committedOffsets(coordinator, group, [{ topic, partition }]));
    return { next: found?.next, metadata: found?.metadata ?? '' };
  }

  /** As a member of another program or version does, which then leaves. */
  async put({ group, topic, partition }: Place, next: number, metadata: string): Promise<void> {
    const joined = await this.#join(group, topic);
    await new Membership(this.#wire, this.#settings(group, topic)).commitOnce(joined, {
      topic,
      partition,
      next,
      metadata,
    });
    await this.empty(group);
  }

  async empty(group: string): Promise<void> {
    const present = this.#present.get(group);
    if (present === undefined) return;
    this.#present.delete(group);
    const membership = new Membership(this.#wire, this.#settings(group, 'any'));
    await membership
      .ask((coordinator) => coordinator.leaveGroup({ groupId: group, memberId: present.memberId }))
      .catch(() => undefined);
  }

  #join(group: string, topic: string): Promise<JoinedGroup> {
    const before = this.#joining.get(group) ?? Promise.resolve();
    const joining = before.then(async () => {
      await this.empty(group);
      const joined = await new Membership(this.#wire, this.#settings(group, topic)).join(new AbortController().signal);
      if (joined === undefined) throw new Error('the join was called off');
      this.#present.set(group, joined);
      return joined;
    });
    this.#joining.set(
      group,
      joining.catch(() => undefined),
    );
    return joining;
  }

  #settings(groupId: string, topic: string): SourceSettings {
    // Nobody sends heartbeats.
    return sourceSettings({
      brokers: this.#brokers,
      groupId,
      topics: [topic],
      sessionTimeoutMs: 1_500_000,
      rebalanceTimeoutMs: 60_000,
    });
  }
}
