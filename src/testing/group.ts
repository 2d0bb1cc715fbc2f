/**
 * The simulated consumer group: members, generations, rebalances, committed offsets. What a member makes of it stands
 * in
 * `member.ts`.
 * Imports: errors, model, ports, rxjs.
 */
import type { Subscription } from 'rxjs';
import { IngestError } from '../errors.js';
import type { Assignment } from '../model/record.js';
import type { LogEnds, SourceEvent } from '../ports.js';
import type { SimulatedLog } from './log.js';
import type { SimulatedProcess, Surroundings } from './process.js';

export interface GroupTiming {
  readonly fetchMs: number;
  readonly sessionMs: number;
  readonly drainMs: number;
}

/** What an observer of the group wants to hear. */
export interface GroupWatch {
  committing(assignment: Assignment, nextOffset: number): void;
  told(event: SourceEvent): void;
  asked(call: string, assignment: Assignment): void;
}

/** A partition in the hands of one member, as the group and the member see it. */
export interface AssignedPartition {
  readonly assignment: Assignment;
  readonly member: GroupMember;
  position: number;
  state: 'given' | 'active' | 'draining' | 'over';
  isHalted: boolean;
  isFetching: boolean;
}

/** A member, as its group knows it. */
export interface GroupMember {
  readonly process: SimulatedProcess;
  begin(assigned: AssignedPartition): void;
  /** Asks for the partition back; `released` is called once it is. */
  revoke(assigned: AssignedPartition, released: () => void): void;
  lose(assigned: AssignedPartition): void;
}

export interface GroupSurroundings extends Surroundings {
  readonly log: SimulatedLog;
  readonly timing: GroupTiming;
  readonly watch: GroupWatch;
}

/** The consumer group of a simulated world: members, generations and committed offsets. */
export class ConsumerGroup {
  /** Nobody rebalances but by `give`: an exhaustive search decides who owns what. */
  isManual = false;
  readonly committed = new Map<number, number>();
  readonly current = new Map<number, AssignedPartition>();
  generation = 0;
  /** Assignments that were given so far. */
  assignmentIds = 0;
  readonly #members: GroupMember[] = [];
  #preparing: { readonly waiting: Set<AssignedPartition>; readonly timer: Subscription } | undefined;

  constructor(readonly world: GroupSurroundings) {}

  /** Is it a member? */
  has(member: GroupMember): boolean {
    return this.#members.includes(member);
  }

  /** Joins, which rebalances; a member that joins again changes nothing. */
  join(member: GroupMember): void {
    if (this.has(member)) return;
    this.world.note(() => `${member.process.name} joins the group`);
    this.#members.push(member);
    this.rebalance();
  }

  /** The member is gone, be it that it left, died, or did not send a heartbeat for too long. */
  leave(member: GroupMember, isSilent = false): void {
    const at = this.#members.indexOf(member);
    if (at < 0) return;
    this.#members.splice(at, 1);
    this.world.note(() => `${member.process.name} ${isSilent ? 'is taken out of' : 'leaves'} the group`);
    for (const assigned of this.#preparing?.waiting ?? [])
      if (assigned.member === member) this.#preparing?.waiting.delete(assigned);
    if (this.#preparing === undefined) this.rebalance();
    else this.#completeWhenReleased();
  }

  /** Everybody gives back what it has, within the drain time-out; then it is given out again. */
  rebalance(): void {
    if (this.#preparing !== undefined || this.isManual) return;
    const waiting = new Set(
      [...this.current.values()].filter((assigned) => this.has(assigned.member) && assigned.state !== 'over'),
    );
    const timer = this.world.scheduler.schedule(() => this.#complete(), this.world.timing.drainMs);
    this.#preparing = { waiting, timer };
    for (const assigned of waiting) {
      assigned.member.revoke(assigned, () => {
        this.#preparing?.waiting.delete(assigned);
        this.#completeWhenReleased();
      });
    }
    this.#completeWhenReleased();
  }

  /** All partitions to one member at once; the former owners are not asked, and learn of it by a step of their own. */
  give(member: GroupMember): void {
    this.generation += 1;
    for (const assigned of this.current.values()) if (assigned.state !== 'over') assigned.member.lose(assigned);
    for (let partition = 0; partition < this.world.log.partitions; partition++) this.#give(member, partition);
  }

  /** Commits under the generation of the assignment; throws `KCR_FENCED` when that is over. */
  commit(assignment: Assignment, nextOffset: number): void {
    const assigned = this.current.get(assignment.partition);
    if (assigned?.assignment !== assignment) throw notOurs(assignment);
    this.world.watch.committing(assignment, nextOffset);
    this.committed.set(assignment.partition, nextOffset);
  }

  /** Given again under the same generation, if nobody else has been given it meanwhile. */
  giveAgain(assigned: AssignedPartition): void {
    if (this.current.get(assigned.assignment.partition) === assigned && this.#preparing === undefined)
      this.#give(assigned.member, assigned.assignment.partition);
  }

  #completeWhenReleased(): void {
    if (this.#preparing?.waiting.size === 0) this.#complete();
  }

  #complete(): void {
    const preparing = this.#preparing;
    if (preparing === undefined) return;
    preparing.timer.unsubscribe();
    this.#preparing = undefined;
    this.generation += 1;
    // Who did not come back in time is out; it learns of it when it wakes up.
    for (const member of [...this.#members])
      if (member.process.isFrozen || member.process.isDead) this.#members.splice(this.#members.indexOf(member), 1);
    for (const assigned of this.current.values())
      if (assigned.state !== 'over' && this.has(assigned.member)) assigned.member.lose(assigned);
    this.current.clear();
    const { log } = this.world;
    const count = this.#members.length;
    if (count === 0) return;
    for (let partition = 0; partition < log.partitions; partition++)
      this.#give(this.#members[(partition + this.generation) % count]!, partition);
  }

  #give(member: GroupMember, partition: number): void {
    const { log } = this.world;
    const { start } = log.ends(partition);
    const committed = this.committed.get(partition);
    const startOffset = committed ?? start;
    const assignment: Assignment = {
      topic: log.topic,
      partition,
      assignmentId: ++this.assignmentIds,
      generation: this.generation,
      startOffset,
      committed,
      topicId: log.topicId,
    };
    const assigned: AssignedPartition = {
      assignment,
      member,
      position: startOffset,
      state: 'given',
      isHalted: false,
      isFetching: false,
    };
    this.current.set(partition, assigned);
    member.begin(assigned);
  }
}

export function notOurs({ topic, partition }: Assignment): IngestError {
  return new IngestError('KCR_FENCED', 'the partition is somebody else’s', { topic, partition });
}

export function outcomeUnknown({ topic, partition }: Assignment, cause: unknown): IngestError {
  return new IngestError('KCR_FENCED', 'the outcome of a commit is not known', { topic, partition, cause });
}

/** As the Kafka source: a topic that is not the one of the assignment is nothing to judge a state by. */
export function logEndsOf({ world: { log } }: ConsumerGroup, { partition, topicId }: Assignment): LogEnds {
  if (topicId === log.topicId) return log.ends(partition);
  const place = { topic: log.topic, partition };
  throw new IngestError('KCR_KAFKA_UNREACHABLE', 'the topic is not the one that was assigned', place);
}

/** For the story of a world. */
export function toldAs(event: SourceEvent): string {
  const { partition, assignmentId } = event.assignment;
  const what =
    event.kind === 'fetched'
      ? `${event.chunk.afterOffset + 1}-${event.chunk.lastOffset}`
      : event.kind === 'failed'
        ? `failed ${event.error.code}`
        : event.kind;
  return `${what} of ${partition}@${assignmentId}`;
}
