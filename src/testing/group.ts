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

interface Tenure {
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
  readonly current = new Map<number, Tenure>();
  generation = 0;
  /** Tenures that were given so far. */
  epochs = 0;
  readonly #members: Member[] = [];
  #preparing: { readonly waiting: Set<Tenure>; readonly timer: Subscription } | undefined;

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
    for (const tenure of this.#preparing?.waiting ?? [])
      if (tenure.member === member) this.#preparing?.waiting.delete(tenure);
    if (this.#preparing === undefined) this.rebalance();
    else this.#completeWhenReleased();
  }

  /** Everybody gives back what it has, within the drain time-out; then it is given out anew. */
  rebalance(): void {
    if (this.#preparing !== undefined || this.isManual) return;
    const waiting = new Set(
      [...this.current.values()].filter((tenure) => this.has(tenure.member) && tenure.state !== 'over'),
    );
    const timer = this.world.scheduler.schedule(() => this.#complete(), this.world.timing.drainMs);
    this.#preparing = { waiting, timer };
    for (const tenure of waiting) {
      tenure.member.revoke(tenure, () => {
        this.#preparing?.waiting.delete(tenure);
        this.#completeWhenReleased();
      });
    }
    this.#completeWhenReleased();
  }

  /** All partitions to one member at once; the former owners are not asked, and learn of it by a step of their own. */
  give(member: Member): void {
    this.generation += 1;
    for (const tenure of this.current.values()) if (tenure.state !== 'over') tenure.member.lose(tenure);
    for (let partition = 0; partition < this.world.log.partitions; partition++) this.#give(member, partition);
  }

  commit(assignment: Assignment, nextOffset: number): void {
    const tenure = this.current.get(assignment.partition);
    if (tenure?.assignment !== assignment) throw notOurs(assignment);
    this.world.watch.committing(assignment, nextOffset);
    this.committed.set(assignment.partition, nextOffset);
  }

  /** Given again under the same generation, if nobody else has been given it meanwhile. */
  giveAgain(tenure: Tenure): void {
    if (this.current.get(tenure.assignment.partition) === tenure && this.#preparing === undefined)
      this.#give(tenure.member, tenure.assignment.partition);
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
    for (const tenure of this.current.values())
      if (tenure.state !== 'over' && this.has(tenure.member)) tenure.member.lose(tenure);
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
      epoch: ++this.epochs,
      generation: this.generation,
      startOffset,
      committed,
      topicId: log.topicId,
    };
    const tenure: Tenure = {
      assignment,
      member,
      position: startOffset,
      state: 'given',
      isHalted: false,
      isFetching: false,
    };
    this.current.set(partition, tenure);
    member.begin(tenure);
  }
}

/** One process in the group. */
export class Member {
  readonly #tenures = new Map<number, Tenure>();
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
          this.#renew(this.#tenures.get(assignment.epoch));
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
    claimed: ({ epoch }, inDoubtUpTo) => {
      if (inDoubtUpTo === undefined) return;
      this.#credits.need(epoch, inDoubtUpTo);
      this.fetchOn();
    },
    done: ({ epoch }, lastOffset) => {
      if (this.#credits.done(epoch, lastOffset)) this.fetchOn();
    },
    halt: ({ epoch }) => {
      const tenure = this.#tenures.get(epoch);
      if (tenure !== undefined) tenure.isHalted = true;
      this.#release(epoch);
    },
    reassign: ({ epoch }, afterMs) => this.#renew(this.#tenures.get(epoch), afterMs),
    pause: () => void (this.#isPaused = true),
    resume: () => {
      this.#isPaused = false;
      this.fetchOn();
    },
    drain: () => this.#drain(),
  };

  begin(tenure: Tenure): void {
    this.#event('assigned', tenure, () => {
      if (tenure.state !== 'given' || this.#isDraining) return;
      tenure.state = 'active';
      this.#tenures.set(tenure.assignment.epoch, tenure);
      this.#credits.open(tenure.assignment.epoch);
      this.#tell({ kind: 'assigned', assignment: tenure.assignment });
      this.#fetch(tenure);
    });
  }

  revoke(tenure: Tenure, released: () => void): void {
    if (tenure.state === 'given') {
      tenure.state = 'over';
      return released();
    }
    this.#event('revoked', tenure, () => {
      if (tenure.state !== 'active') return;
      tenure.state = 'draining';
      const release = () => {
        if (tenure.state !== 'draining') return;
        this.group.world.note(() => `${this.process.name} releases ${tenure.assignment.partition}`);
        tenure.state = 'over';
        this.#tenures.delete(tenure.assignment.epoch);
        this.#release(tenure.assignment.epoch);
        released();
        this.#completeWhenDrained();
      };
      this.#tell({ kind: 'revoked', assignment: tenure.assignment, release });
    });
  }

  lose(tenure: Tenure): void {
    const wasKnown = tenure.state !== 'given';
    // A process does not know yet that it lost a partition: until it is told it works on.
    if (!wasKnown) tenure.state = 'over';
    else this.#event('lost', tenure, () => this.#tellLost(tenure));
  }

  /** After having been frozen: what was missed. */
  catchUp(): void {
    for (const tenure of [...this.#tenures.values()])
      if (this.group.current.get(tenure.assignment.partition) !== tenure) this.#tellLost(tenure);
    if (this.#isListening && !this.#isDraining && !this.group.isManual) this.group.join(this);
  }

  /** Something may have come that can be fetched. */
  fetchOn(): void {
    for (const tenure of this.#tenures.values()) this.#fetch(tenure);
  }

  #tellLost(tenure: Tenure): void {
    if (tenure.state === 'over') return;
    tenure.state = 'over';
    this.#tenures.delete(tenure.assignment.epoch);
    this.#release(tenure.assignment.epoch);
    this.#tell({ kind: 'lost', assignment: tenure.assignment });
    this.#completeWhenDrained();
  }

  #seek({ epoch }: Assignment, offset: number): void {
    const tenure = this.#tenures.get(epoch);
    if (tenure === undefined) return;
    tenure.position = offset;
    this.#credits.forget(epoch);
    this.#fetch(tenure);
  }

  /** What it held is room for the others. */
  #release(epoch: number): void {
    this.#credits.close(epoch);
    if (this.policy.room !== Infinity) this.fetchOn();
  }

  #commit(assignment: Assignment, nextOffset: number): Observable<void> {
    return new Observable<void>((subscriber) => {
      this.group.world.watch.asked('commit', assignment);
      // As the Kafka source: for a tenure that it knows to be over nothing is sent.
      if (!this.#tenures.has(assignment.epoch)) return subscriber.error(notOurs(assignment));
      return this.process
        .call({
          port: 'commit',
          partition: assignment.partition,
          what: () => `${assignment.partition}:${nextOffset}`,
          detail: () => `@${assignment.epoch}`,
          effect: () => this.group.commit(assignment, nextOffset),
        })
        .subscribe(subscriber);
    });
  }

  #renew(tenure: Tenure | undefined, afterMs = this.group.world.timing.fetchMs * 5): void {
    if (tenure === undefined || tenure.state === 'over') return;
    this.#tellLost(tenure);
    this.process.later(() => this.group.giveAgain(tenure), afterMs);
  }

  #drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    for (const tenure of this.#tenures.values()) this.revoke(tenure, () => undefined);
    this.#completeWhenDrained();
  }

  /** What is being released already is waited for as well. */
  #completeWhenDrained(): void {
    if (!this.#isDraining || this.#tenures.size > 0) return;
    this.group.leave(this);
    this.#told.complete();
  }

  #fetch(tenure: Tenure): void {
    const { log, timing } = this.group.world;
    const { assignment } = tenure;
    const { epoch } = assignment;
    const isWanted = () =>
      tenure.state === 'active' &&
      !tenure.isHalted &&
      !this.#isPaused &&
      this.#credits.mayFetch(epoch, tenure.position);
    const isThere = () => tenure.position !== log.ends(assignment.partition).end || assignment.topicId !== log.topicId;
    if (tenure.isFetching || !isWanted() || !isThere()) return;
    tenure.isFetching = true;
    this.#event(
      'fetch',
      tenure,
      () => {
        tenure.isFetching = false;
        if (!isWanted() || !isThere()) return;
        const { start, end } = log.ends(assignment.partition);
        if (tenure.position < start && this.policy.onGap === 'continue') return this.#coverGap(tenure, { start, end });
        // Beyond the end, or another topic: under `restart` the state says where to go on, and a seek comes.
        const isBeyond = tenure.position > end || assignment.topicId !== log.topicId;
        if (isBeyond && this.policy.onReset === 'restart') return;
        if (isBeyond || tenure.position < start) return this.#fail(tenure);
        const chunk = log.fetch(assignment, tenure.position, this.chunkSize);
        if (chunk === undefined) return;
        tenure.position = chunk.lastOffset + 1;
        const held = chunk.lastOffset - chunk.afterOffset;
        this.#credits.delivered(epoch, { lastOffset: chunk.lastOffset, held, fetched: held });
        const isLastForNow = !this.#credits.mayFetch(epoch, tenure.position);
        this.#tell({ kind: 'fetched', assignment, chunk: isLastForNow ? { ...chunk, isLastForNow } : chunk });
        this.#fetch(tenure);
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
  #coverGap(tenure: Tenure, { start, end }: LogEnds): void {
    const { assignment, position } = tenure;
    tenure.position = start;
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
    this.#fetch(tenure);
  }

  #fail(tenure: Tenure): void {
    tenure.isHalted = true;
    const { topic, partition } = tenure.assignment;
    const error = new IngestError('KCR_OFFSET_RANGE', 'the offset is not in the log', {
      topic,
      partition,
      offset: tenure.position,
    });
    this.#tell({ kind: 'failed', assignment: tenure.assignment, error });
  }

  #tell(event: SourceEvent): void {
    const { world } = this.group;
    world.note(() => `${this.process.name} is told: ${nameOf(event)}`);
    this.#told.next(event);
    world.watch.told(event);
  }

  #event(name: string, { assignment: { partition } }: Tenure, work: () => void, delayMs = 1): void {
    this.group.world.pace.step(
      { process: this.process, name: `${name} ${partition}`, partition, isEvent: true, take: work },
      delayMs,
    );
  }
}

function nameOf(event: SourceEvent): string {
  const { partition, epoch } = event.assignment;
  const what =
    event.kind === 'fetched'
      ? `${event.chunk.afterOffset + 1}-${event.chunk.lastOffset}`
      : event.kind === 'failed'
        ? `failed ${event.error.code}`
        : event.kind;
  return `${what} of ${partition}@${epoch}`;
}

function notOurs({ topic, partition }: Assignment): IngestError {
  return new IngestError('KCR_FENCED', 'the partition is somebody else’s', { topic, partition });
}
