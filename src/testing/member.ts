/**
 * One process in the simulated consumer group, as the source of its pipeline. Imports: errors, model, ports, rxjs.
 */
import { Observable, Subject, catchError, of, throwError } from 'rxjs';
import { IngestError, hasCode } from '../errors.js';
import { Credits } from '../model/credits.js';
import { Pauses } from '../model/pauses.js';
import type { Assignment } from '../model/record.js';
import type { LogEnds, GroupSource, SourceEvent } from '../ports.js';
import { unknownOutcome } from './faults.js';
import {
  logEndsOf,
  notOurs,
  outcomeUnknown,
  toldAs,
  type AssignedPartition,
  type ConsumerGroup,
  type GroupMember,
} from './group.js';
import type { SimulatedProcess } from './process.js';

/** One process in the group. */
export class Member implements GroupMember {
  readonly #allAssigned = new Map<number, AssignedPartition>();
  #told = new Subject<SourceEvent>();
  #isListening = false;
  readonly #pauses = new Pauses();
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
        effect: () => logEndsOf(this.group, assignment),
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
          // Nothing more may follow it under this assignment, and once the partition was given again a late one is
          // refused.
          this.#reassign(this.#allAssigned.get(assignment.assignmentId));
          return throwError(() => outcomeUnknown(assignment, error));
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
    pause: (selection) => this.#pauses.pause(selection),
    resume: (selection) => {
      this.#pauses.resume(selection);
      this.fetchOn();
    },
    drain: () => this.#drain(),
  };

  /** The group gives it a partition: it is told, and reads from where the group stands. */
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

  /** The group gave a partition of it to another: it works on until it is told. */
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
      // As the Kafka source: for an assignment that it knows to be over nothing is sent.
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
      !this.#pauses.has(assignment) &&
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

  /**
   * What retention took is covered by a chunk without records: chunks stay contiguous, whoever waits for the position.
   */
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
    const { assignment, position } = assigned;
    const place = { topic: assignment.topic, partition: assignment.partition, offset: position };
    const error = new IngestError('KCR_OFFSET_RANGE', 'the offset is not in the log', place);
    this.#tell({ kind: 'failed', assignment, error });
  }

  #tell(event: SourceEvent): void {
    const { world } = this.group;
    world.note(() => `${this.process.name} is told: ${toldAs(event)}`);
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
