/**
 * Room: the simulated consumer group: members, generations, rebalances, committed offsets, and each member as a
 * `GroupSource`. The log and the ports may enter.
 */
import { Observable, Subject, catchError, of, throwError, type Subscription } from 'rxjs';
import { IngestError, hasCode } from '../errors.js';
import { Credits } from '../model/credits.js';
import type { Assignment } from '../model/record.js';
import type { LogEnds, GroupSource, SourceEvent } from '../ports.js';
import { unknownOutcome } from './faults.js';
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

interface AssignedPartition {
  readonly assignment: Assignment;
  readonly member: Member;
  position: number;
  state: 'given' | 'active' | 'draining' | 'over';
  isHalted: boolean;
  isFetching: boolean;
}

export interface GroupSurroundings extends Surroundings {
  readonly log: SimulatedLog;
  readonly timing: GroupTiming;
  readonly watch: GroupWatch;
}

export class ConsumerGroup {
  /** Nobody rebalances but by `give`: an exhaustive search decides who owns what. */
  isManual = false;
  readonly committed = new Map<number, number>();
  readonly current = new Map<number, AssignedPartition>();
  generation = 0;
  /** Tenures that were given so far. */
  assignmentIds = 0;
  readonly #members: Member[] = [];
  #preparing: { readonly waiting: Set<AssignedPartition>; readonly timer: Subscription } | undefined;

  constructor(readonly world: GroupSurroundings) {}

  has(member: Member): boolean {
    return this.#members.includes(member);
  }

  join(member: Member): void {
    if (this.has(member)) return;
    this.world.note(() => `${member.process.name} joins the group`);
    this.#members.push(member);
    this.rebalance();
  }

  /** The member is gone, be it that it left, died, or did not send a heartbeat for too long. */
  leave(member: Member, isSilent = false): void {
    const at = this.#members.indexOf(member);
    if (at < 0) return;
    this.#members.splice(at, 1);
    this.world.note(() => `${member.process.name} ${isSilent ? 'is taken out of' : 'leaves'} the group`);
    for (const assigned of this.#preparing?.waiting ?? [])
      if (assigned.member === member) this.#preparing?.waiting.delete(assigned);
    if (this.#preparing === undefined) this.rebalance();
    else this.#completeWhenReleased();
  }

  /** Everybody gives back what it has, within the drain time-out; then it is given out anew. */
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
  give(member: Member): void {
    this.generation += 1;
    for (const assigned of this.current.values()) if (assigned.state !== 'over') assigned.member.lose(assigned);
    for (let partition = 0; partition < this.world.log.partitions; partition++) this.#give(member, partition);
  }

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

  #give(member: Member, partition: number): void {
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

/** One process in the group. */
export class Member {
  readonly #allAssigned = new Map<number, AssignedPartition>();
  #told = new Subject<SourceEvent>();
  #isListening = false;
  #isPaused = false;
  #isDraining = false;
  /** Back-pressure as the Kafka source has it, an offset counting for a byte. */
  readonly #credits: Credits;

  constructor(
    readonly process: SimulatedProcess,
    private readonly group: ConsumerGroup,
    private readonly chunkSize: number,
    private readonly policy: {
      readonly onGap: 'halt' | 'continue';
      readonly onReset: 'halt' | 'restart';
      readonly room: number;
    },
  ) {
    this.#credits = new Credits(policy.room);
  }

  readonly source: GroupSource = {
    events: new Observable<SourceEvent>((subscriber) => {
      this.#told = new Subject();
      const telling = this.#told.subscribe(subscriber);
      this.#isListening = true;
      this.#isDraining = false;
      this.group.join(this);
      return () => {
        telling.unsubscribe();
        this.#isListening = false;
        if (!this.process.isDead) this.group.leave(this);
      };
    }),
    cluster: () => this.process.call({ port: 'cluster', what: () => '', effect: () => 'simulated' }),
    log: (assignment) =>
      this.process.call<LogEnds>({
        port: 'log',
        partition: assignment.partition,
        what: () => `${assignment.partition}`,
        effect: () => this.#ends(assignment),
      }),
    // Within the process: nothing is sent.
    seek: (assignment, offset) => {
      this.group.world.watch.asked('seek', assignment);
      this.group.world.note(() => `${this.process.name} seek ${assignment.partition}:${offset}`);
      this.#seek(assignment, offset);
      return of(undefined);
    },
    commit: (assignment, nextOffset) => this.#commit(assignment, nextOffset),
    commitOnce: (assignment, nextOffset) =>
      this.#commit(assignment, nextOffset).pipe(
        catchError((error: unknown) => {
          if (!hasCode(error, unknownOutcome.commit)) return throwError(() => error);
          // Nothing more may follow it under this assignment, and once the partition was given anew a late one is refused.
          this.#reassign(this.#allAssigned.get(assignment.assignmentId));
          return throwError(
            () =>
              new IngestError('KCR_FENCED', 'the outcome of a commit is not known', {
                topic: assignment.topic,
                partition: assignment.partition,
                cause: error,
              }),
          );
        }),
      ),
    claimed: ({ assignmentId }, inDoubtUpTo) => {
      if (inDoubtUpTo === undefined) return;
      this.#credits.need(assignmentId, inDoubtUpTo);
      this.fetchOn();
    },
    done: ({ assignmentId }, lastOffset) => {
      if (this.#credits.done(assignmentId, lastOffset)) this.fetchOn();
    },
    halt: ({ assignmentId }) => {
      const assigned = this.#allAssigned.get(assignmentId);
      if (assigned !== undefined) assigned.isHalted = true;
      this.#release(assignmentId);
    },
    reassign: ({ assignmentId }, afterMs) => this.#reassign(this.#allAssigned.get(assignmentId), afterMs),
    pause: () => void (this.#isPaused = true),
    resume: () => {
      this.#isPaused = false;
      this.fetchOn();
    },
    drain: () => this.#drain(),
  };

  begin(assigned: AssignedPartition): void {
    this.#event('assigned', assigned, () => {
      if (assigned.state !== 'given' || this.#isDraining) return;
      assigned.state = 'active';
      this.#allAssigned.set(assigned.assignment.assignmentId, assigned);
      this.#credits.open(assigned.assignment.assignmentId);
      this.#tell({ kind: 'assigned', assignment: assigned.assignment });
      this.#fetch(assigned);
    });
  }

  revoke(assigned: AssignedPartition, released: () => void): void {
    if (assigned.state === 'given') {
      assigned.state = 'over';
      return released();
    }
    this.#event('revoked', assigned, () => {
      if (assigned.state !== 'active') return;
      assigned.state = 'draining';
      const release = () => {
        if (assigned.state !== 'draining') return;
        this.group.world.note(() => `${this.process.name} releases ${assigned.assignment.partition}`);
        assigned.state = 'over';
        this.#allAssigned.delete(assigned.assignment.assignmentId);
        this.#release(assigned.assignment.assignmentId);
        released();
        this.#completeWhenDrained();
      };
      this.#tell({ kind: 'revoked', assignment: assigned.assignment, release });
    });
  }

  lose(assigned: AssignedPartition): void {
    const wasKnown = assigned.state !== 'given';
    // A process does not know yet that it lost a partition: until it is told it works on.
    if (!wasKnown) assigned.state = 'over';
    else this.#event('lost', assigned, () => this.#tellLost(assigned));
  }

  /** After having been frozen: what was missed. */
  catchUp(): void {
    for (const assigned of [...this.#allAssigned.values()])
      if (this.group.current.get(assigned.assignment.partition) !== assigned) this.#tellLost(assigned);
    if (this.#isListening && !this.#isDraining && !this.group.isManual) this.group.join(this);
  }

  /** Something may have come that can be fetched. */
  fetchOn(): void {
    for (const assigned of this.#allAssigned.values()) this.#fetch(assigned);
  }

  #tellLost(assigned: AssignedPartition): void {
    if (assigned.state === 'over') return;
    assigned.state = 'over';
    this.#allAssigned.delete(assigned.assignment.assignmentId);
    this.#release(assigned.assignment.assignmentId);
    this.#tell({ kind: 'lost', assignment: assigned.assignment });
    this.#completeWhenDrained();
  }

  #seek({ assignmentId }: Assignment, offset: number): void {
    const assigned = this.#allAssigned.get(assignmentId);
    if (assigned === undefined) return;
    assigned.position = offset;
    this.#credits.forget(assignmentId);
    this.#fetch(assigned);
  }

  /** What it held is room for the others. */
  #release(assignmentId: number): void {
    this.#credits.close(assignmentId);
    if (this.policy.room !== Infinity) this.fetchOn();
  }

  #commit(assignment: Assignment, nextOffset: number): Observable<void> {
    return new Observable<void>((subscriber) => {
      this.group.world.watch.asked('commit', assignment);
      // As the Kafka source: for a tenure that it knows to be over nothing is sent.
      if (!this.#allAssigned.has(assignment.assignmentId)) return subscriber.error(notOurs(assignment));
      return this.process
        .call({
          port: 'commit',
          partition: assignment.partition,
          what: () => `${assignment.partition}:${nextOffset}`,
          detail: () => `@${assignment.assignmentId}`,
          effect: () => this.group.commit(assignment, nextOffset),
        })
        .subscribe(subscriber);
    });
  }

  #reassign(assigned: AssignedPartition | undefined, afterMs = this.group.world.timing.fetchMs * 5): void {
    if (assigned === undefined || assigned.state === 'over') return;
    this.#tellLost(assigned);
    this.process.later(() => this.group.giveAgain(assigned), afterMs);
  }

  #drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    for (const assigned of this.#allAssigned.values()) this.revoke(assigned, () => undefined);
    this.#completeWhenDrained();
  }

  /** What is being released already is waited for as well. */
  #completeWhenDrained(): void {
    if (!this.#isDraining || this.#allAssigned.size > 0) return;
    this.group.leave(this);
    this.#told.complete();
  }

  #fetch(assigned: AssignedPartition): void {
    const { log, timing } = this.group.world;
    const { assignment } = assigned;
    const { assignmentId } = assignment;
    const isWanted = () =>
      assigned.state === 'active' &&
      !assigned.isHalted &&
      !this.#isPaused &&
      this.#credits.mayFetch(assignmentId, assigned.position);
    const isThere = () =>
      assigned.position !== log.ends(assignment.partition).end || assignment.topicId !== log.topicId;
    if (assigned.isFetching || !isWanted() || !isThere()) return;
    assigned.isFetching = true;
    this.#event(
      'fetch',
      assigned,
      () => {
        assigned.isFetching = false;
        if (!isWanted() || !isThere()) return;
        const { start, end } = log.ends(assignment.partition);
        if (assigned.position < start && this.policy.onGap === 'continue')
          return this.#coverGap(assigned, { start, end });
        // Beyond the end, or another topic: under `restart` the state says where to go on, and a seek comes.
        const isBeyond = assigned.position > end || assignment.topicId !== log.topicId;
        if (isBeyond && this.policy.onReset === 'restart') return;
        if (isBeyond || assigned.position < start) return this.#fail(assigned);
        const chunk = log.fetch(assignment, assigned.position, this.chunkSize);
        if (chunk === undefined) return;
        assigned.position = chunk.lastOffset + 1;
        const held = chunk.lastOffset - chunk.afterOffset;
        this.#credits.delivered(assignmentId, { lastOffset: chunk.lastOffset, held, fetched: held });
        const isLastForNow = !this.#credits.mayFetch(assignmentId, assigned.position);
        this.#tell({ kind: 'fetched', assignment, chunk: isLastForNow ? { ...chunk, isLastForNow } : chunk });
        this.#fetch(assigned);
      },
      timing.fetchMs,
    );
  }

  /** As the Kafka source: a topic that is not the one of the assignment is nothing to judge a state by. */
  #ends({ partition, topicId }: Assignment): LogEnds {
    const { log } = this.group.world;
    if (topicId === log.topicId) return log.ends(partition);
    throw new IngestError('KCR_KAFKA_UNREACHABLE', 'the topic is not the one that was assigned', {
      topic: log.topic,
      partition,
    });
  }

  /** What retention took is covered by a chunk without records: chunks stay contiguous, whoever waits for the position. */
  #coverGap(assigned: AssignedPartition, { start, end }: LogEnds): void {
    const { assignment, position } = assigned;
    assigned.position = start;
    this.#tell({
      kind: 'fetched',
      assignment,
      chunk: {
        assignment,
        afterOffset: position - 1,
        lastOffset: start - 1,
        records: [],
        bytes: 0,
        highWatermark: end,
      },
    });
    this.#fetch(assigned);
  }

  #fail(assigned: AssignedPartition): void {
    assigned.isHalted = true;
    const { topic, partition } = assigned.assignment;
    const error = new IngestError('KCR_OFFSET_RANGE', 'the offset is not in the log', {
      topic,
      partition,
      offset: assigned.position,
    });
    this.#tell({ kind: 'failed', assignment: assigned.assignment, error });
  }

  #tell(event: SourceEvent): void {
    const { world } = this.group;
    world.note(() => `${this.process.name} is told: ${nameOf(event)}`);
    this.#told.next(event);
    world.watch.told(event);
  }

  #event(name: string, { assignment: { partition } }: AssignedPartition, work: () => void, delayMs = 1): void {
    this.group.world.pace.step(
      { process: this.process, name: `${name} ${partition}`, partition, isEvent: true, take: work },
      delayMs,
    );
  }
}

function nameOf(event: SourceEvent): string {
  const { partition, assignmentId } = event.assignment;
  const what =
    event.kind === 'fetched'
      ? `${event.chunk.afterOffset + 1}-${event.chunk.lastOffset}`
      : event.kind === 'failed'
        ? `failed ${event.error.code}`
        : event.kind;
  return `${what} of ${partition}@${assignmentId}`;
}

function notOurs({ topic, partition }: Assignment): IngestError {
  return new IngestError('KCR_FENCED', 'the partition is somebody else’s', { topic, partition });
}
