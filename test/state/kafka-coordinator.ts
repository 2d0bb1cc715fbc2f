// A group coordinator in memory, as far as a state store can tell it from Kafka's: generations, one owner of a partition
// in each, offsets with metadata. Requests may get lost, their replies too, and what was sent may arrive late.
import { setImmediate as turn } from 'node:timers/promises';
import { EMPTY, NEVER, defer, of, throwError, type Observable } from 'rxjs';
import { IngestError } from '../../src/errors.js';
import type { Assignment } from '../../src/model/record.js';
import type { StateKey } from '../../src/ports.js';
import type { CommittedOffset, OffsetSource } from '../../src/state/kafka.js';

/** What becomes of one commit. `refused`: surely without effect. `replyLost`: it took effect. `late`: it arrives when `deliver` is called. */
export type Fault = 'refused' | 'replyLost' | 'late';

interface Group {
  generation: number;
  member: FakeMember | undefined;
  readonly offsets: Map<string, CommittedOffset>;
}

export class FakeCoordinator {
  readonly #groups = new Map<string, Group>();
  readonly #late: (() => void)[] = [];
  commits = 0;

  group(name: string): Group {
    const group = this.#groups.get(name) ?? {
      generation: 0,
      member: undefined,
      offsets: new Map<string, CommittedOffset>(),
    };
    this.#groups.set(name, group);
    return group;
  }

  offset({ group, topic, partition }: Pick<StateKey, 'group' | 'topic' | 'partition'>): CommittedOffset {
    return this.group(group).offsets.get(`${topic}/${partition}`) ?? { next: undefined, metadata: '' };
  }

  /** As an administrator does while the group is empty. */
  set({ group, topic, partition }: Pick<StateKey, 'group' | 'topic' | 'partition'>, offset: CommittedOffset): void {
    const of = this.group(group);
    of.member = undefined;
    of.generation += 1;
    of.offsets.set(`${topic}/${partition}`, offset);
  }

  /** False: refused, as the generation is over. */
  commit(member: FakeMember, { topic, partition, generation }: Assignment, offset: CommittedOffset): boolean {
    const group = this.group(member.groupName);
    if (group.member !== member || group.generation !== generation) return false;
    this.commits += 1;
    group.offsets.set(`${topic}/${partition}`, offset);
    return true;
  }

  hold(arrive: () => void): void {
    this.#late.push(arrive);
  }

  /** What was held arrives, in an order of one's own. */
  deliver(reversed = false): number {
    const held = this.#late.splice(0);
    for (const arrive of reversed ? held.reverse() : held) arrive();
    return held.length;
  }
}

let assignmentIds = 0;

/** One process's membership. Joining takes everything from whoever was in the group, and tells nobody. */
export class FakeMember implements OffsetSource {
  readonly events = NEVER;
  /** What becomes of the commits to come, one after the other; then they succeed. */
  readonly faults: Fault[] = [];
  readonly renewed: Assignment[] = [];
  #assignments = new Map<string, Assignment>();
  isReadable = true;
  /** Answers to reads come after this. */
  reads: Promise<unknown> = Promise.resolve();
  /** Replies to commits that took effect come after this. */
  replies: Promise<unknown> = Promise.resolve();

  constructor(
    readonly coordinator: FakeCoordinator,
    readonly groupName: string,
  ) {}

  /** Like the source: where nothing was committed the group's place is chosen, and committed without a state. */
  join(
    topic: string,
    partition: number,
    { commitsStart = false, start = 0 }: { readonly commitsStart?: boolean; readonly start?: number } = {},
  ): Assignment {
    const group = this.coordinator.group(this.groupName);
    group.generation += 1;
    group.member = this;
    const { next } = this.coordinator.offset({ group: this.groupName, topic, partition });
    const assignment: Assignment = {
      topic,
      partition,
      assignmentId: ++assignmentIds,
      generation: group.generation,
      startOffset: next ?? start,
    };
    this.#assignments = new Map([[`${topic}/${partition}`, assignment]]);
    if (next === undefined && commitsStart) this.coordinator.commit(this, assignment, { next: start, metadata: '' });
    return assignment;
  }

  /** A further tenure in the same generation. */
  again(topic: string, partition: number): Assignment {
    const before = this.assignmentOf(topic, partition)!;
    const assignment = { ...before, assignmentId: ++assignmentIds };
    this.#assignments.set(`${topic}/${partition}`, assignment);
    return assignment;
  }

  lose(topic: string, partition: number): void {
    this.#assignments.delete(`${topic}/${partition}`);
  }

  assignmentOf(topic: string, partition: number): Assignment | undefined {
    return this.#assignments.get(`${topic}/${partition}`);
  }

  committed({ topic, partition }: Assignment): Observable<CommittedOffset> {
    return defer(async () => {
      await turn();
      await this.reads;
      if (!this.isReadable) throw new IngestError('KCR_KAFKA_UNREACHABLE', 'no answer');
      return this.coordinator.offset({ group: this.groupName, topic, partition });
    });
  }

  commitOnce(assignment: Assignment, next: number, metadata = ''): Observable<void> {
    return defer(async () => {
      const { topic, partition } = assignment;
      const arrive = () => this.coordinator.commit(this, assignment, { next, metadata });
      const unknown = new IngestError('KCR_FENCED', 'the reply was lost', { topic, partition });
      await turn();
      switch (this.faults.shift()) {
        case 'refused':
          throw new IngestError('KCR_KAFKA_UNREACHABLE', 'the coordinator is loading', { topic, partition });
        case 'replyLost':
          arrive();
          await turn();
          throw unknown;
        case 'late':
          this.coordinator.hold(arrive);
          throw unknown;
        case undefined:
          if (!arrive()) throw new IngestError('KCR_FENCED', 'the generation is over', { topic, partition });
          await this.replies;
          await turn();
      }
    });
  }

  /** As the plain source commits: without metadata. */
  commit(assignment: Assignment, next: number): Observable<void> {
    return defer(() => {
      const isTaken = this.coordinator.commit(this, assignment, { next, metadata: '' });
      return isTaken ? of(undefined) : throwError(() => new IngestError('KCR_FENCED', 'the generation is over'));
    });
  }

  cluster = () => of('cluster');
  log = () => of({ start: 0, end: Number.MAX_SAFE_INTEGER });
  seek = () => EMPTY;
  done(): void {}
  halt(): void {}
  reassign(assignment: Assignment): void {
    this.renewed.push(assignment);
  }
  pause(): void {}
  resume(): void {}
  drain(): void {}
}
