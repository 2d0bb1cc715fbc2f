/**
 * The partitions that are ours: each begins, may be reassigned after a pause, fails, is
 * revoked or lost. It knows generations; the group's protocol is membership.ts.
 * Imports: errors, kafka/connection, kafka/fetch, model, ports.
 */
import type { IngestError } from '../../errors.js';
import { Credits } from '../../model/credits.js';
import type { Assignment } from '../../model/record.js';
import type { SourceEvent, SourceFacts } from '../../ports.js';
import { newAssignedPartition, type AssignedPartition } from './assigned-partition.js';
import { Assignments } from './assignments.js';
import type { TopicPartition } from './assignor.js';
import { FindStartOffsets, type FindStartOffsetsPorts } from './find-start-offsets.js';
import { Fetcher } from '../fetch/fetcher.js';
import type { Generation } from './generation.js';
import { ReassignBackoff } from './reassign-backoff.js';
import { nameOf, resetError, type Found, type Reset, type StartOffset } from './start-offsets.js';
import { kafkaError } from '../connection/classify-error.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';
import { eachInTurn, newAbort, sleep } from '../connection/wait.js';

/** The shortest wait before a partition is begun again. */
const REASSIGN_PAUSE_MS = 500;
/** The longest wait before a partition is looked for again that Kafka does not tell of, or that nobody leads. */
const MISSING_PAUSE_LIMIT_MS = 5000;
/** While thousands begin, the first are fetched for already. */
const SERVE_EVERY_MS = 10;
/** Of the budget; the rest is for what is just being received, and for what is done but not collected yet. */
const RECORDS_PART = 5 / 8;

export interface AssignedPartitionsPorts extends FindStartOffsetsPorts {
  readonly kafka: KafkaConnection;
  readonly nextAssignmentId: () => number;
  readonly emit: (event: SourceEvent) => void;
  /** Nothing can go on. */
  readonly fail: (error: IngestError) => void;
}

export class AssignedPartitions {
  readonly assignments = new Assignments();
  readonly #ports: AssignedPartitionsPorts;
  readonly #credits: Credits;
  readonly #fetcher: Fetcher;
  readonly #finder: FindStartOffsets;
  readonly #reassignBackoff = new ReassignBackoff();

  /** `over`: nobody listens any more. */
  constructor(ports: AssignedPartitionsPorts, over: AbortSignal) {
    this.#ports = ports;
    const { kafka, settings, emit, fail } = ports;
    this.#finder = new FindStartOffsets(ports);
    this.#credits = new Credits(settings.budgetBytes * RECORDS_PART);
    this.#fetcher = new Fetcher(
      {
        kafka,
        settings,
        credits: this.#credits,
        deliver: ({ assignment }, chunk) => emit({ kind: 'fetched', assignment, chunk }),
        failed: (assigned, error) => this.#failed(assigned, error),
        reset: (assigned, reset) => this.#reset(assigned, reset),
        fail,
      },
      over,
    );
  }

  /** Begins all that the join gave, until the generation ends. Those that are missing follow when they are found. */
  async begin(generation: Generation): Promise<void> {
    const { partitions } = generation.joined;
    this.#ports.startOffsets.keepOnly(partitions);
    const found = await this.#finder.find(generation, partitions);
    if (found !== undefined) await this.#assign(generation, found);
  }

  /** @see RecordSource.reassign. Without `afterMs` the pause doubles from time to time. */
  reassign(assignment: Assignment, afterMs?: number): void {
    const { topic, partition } = assignment;
    const assigned = this.assignments.get(assignment);
    // Neither one that is lost, nor one that is draining: the group has given it away by then.
    if (assigned === undefined || assigned.generation.ended.signal.aborted) return;
    const { sessionTimeoutMs, log } = this.#ports.settings;
    const pauseMs = afterMs ?? this.#reassignBackoff.pause(nameOf(assignment), sessionTimeoutMs, performance.now());
    const why =
      'the group says that a partition is ours, but its state was claimed by another or the outcome of a write is not known: it is claimed again after a pause';
    if (afterMs === undefined) log('warn', why, { topic, partition, pauseMs });
    this.#lose(assigned);
    void this.#beginLater(assigned.generation, [assignment], pauseMs);
  }

  /** Reads on at another offset; what was fetched and not delivered is dropped. */
  seek(assigned: AssignedPartition, offset: number): void {
    assigned.next = offset;
    assigned.isUnproven = false;
    assigned.unread = undefined;
    this.#credits.forget(assigned.assignment.assignmentId);
    this.#fetcher.wake();
  }

  claimed(assignment: Assignment, inDoubtUpTo: number | undefined): void {
    const assigned = this.assignments.get(assignment);
    if (assigned === undefined) return;
    if (inDoubtUpTo !== undefined) this.#credits.need(assignment.assignmentId, inDoubtUpTo);
    this.#fetcher.claimed(assigned);
  }

  done({ assignmentId }: Assignment, lastOffset: number): void {
    if (this.#credits.done(assignmentId, lastOffset)) this.#fetcher.roomMade();
  }

  halt(assignment: Assignment): void {
    const assigned = this.assignments.get(assignment);
    if (assigned === undefined) return;
    assigned.halted = true;
    assigned.unread = undefined;
    this.#credits.close(assigned.assignment.assignmentId);
    this.#fetcher.wake();
  }

  /** Some that were paused may go on. */
  resumed(): void {
    this.#fetcher.wake();
  }

  progress(): SourceFacts {
    const partitions = this.assignments.all.map(({ assignment: { topic, partition, assignmentId }, log }) => ({
      topic,
      partition,
      logEnd: log?.end,
      stableEnd: log === undefined || log.stableEnd < 0 ? undefined : log.stableEnd,
      isFull: this.#credits.isFull(assignmentId),
    }));
    const budget = { bytes: this.#ports.settings.budgetBytes, usedBytes: this.outstandingBytes };
    return { partitions, budget };
  }

  /** Bytes that were delivered and are not done. */
  get outstandingBytes(): number {
    return this.#credits.outstanding;
  }

  /**
   * Revokes everything and waits for the releases; what the group has taken already, or what takes too long, is lost.
   */
  async giveUp({ fenced, closed }: Generation): Promise<void> {
    this.#fetcher.serve([]);
    const allAssigned = this.assignments.all;
    if (!fenced.signal.aborted) {
      const limit = newAbort();
      const stop = (): void => limit.abort();
      for (const { signal } of [fenced, closed]) signal.addEventListener('abort', stop);
      await Promise.race([
        this.#revokeAll(allAssigned, limit.signal),
        sleep(this.#ports.settings.drainTimeoutMs, limit.signal),
      ]);
      for (const { signal } of [fenced, closed]) signal.removeEventListener('abort', stop);
      limit.abort();
    }
    await eachInTurn(allAssigned, (assigned) => {
      if (assigned.state !== 'ended') this.#lose(assigned);
    });
  }

  /** Ends all; nobody is told. */
  forgetAll(): void {
    for (const assigned of this.assignments.all) this.#forget(assigned);
  }

  /** Begins these partitions, unless the generation ends meanwhile. */
  async #assign(generation: Generation, { startOffsets, missing }: Found): Promise<void> {
    const { signal } = generation.ended;
    if (missing.length > 0) this.#lookForMissing(generation, missing);
    let servedMs = performance.now();
    await eachInTurn(startOffsets, (place) => {
      if (signal.aborted) return;
      this.#begin(generation, place);
      if (performance.now() - servedMs < SERVE_EVERY_MS) return;
      this.#fetcher.serve(this.assignments.all);
      servedMs = performance.now();
    });
    if (!signal.aborted) this.#fetcher.serve(this.assignments.all);
  }

  #begin(generation: Generation, place: StartOffset): void {
    const { topic, topicId, partition, next, committed } = place;
    const { settings, startOffsets, nextAssignmentId, emit } = this.#ports;
    const { onReset, stateDecides } = settings;
    const assignment: Assignment = Object.freeze({
      topic,
      partition,
      assignmentId: nextAssignmentId(),
      generation: generation.joined.generationId,
      startOffset: next,
      committed,
      topicId,
    });
    const assigned = newAssignedPartition(assignment, generation, next);
    this.assignments.add(assigned);
    this.#credits.open(assignment.assignmentId);
    emit({ kind: 'assigned', assignment });
    if (place.recreatedFrom === undefined || stateDecides || onReset === 'restart') startOffsets.begun(place);
    else
      this.#failed(
        assigned,
        resetError(place, { kind: 'recreated', was: place.recreatedFrom, topicId: place.topicId as string }),
      );
  }

  #lookForMissing(generation: Generation, missing: Found['missing']): void {
    const nowMs = performance.now();
    const pauseOf = (each: TopicPartition): number =>
      this.#reassignBackoff.pause(nameOf(each), REASSIGN_PAUSE_MS, nowMs, MISSING_PAUSE_LIMIT_MS);
    const pauseMs = missing.map(pauseOf).reduce((least, each) => Math.min(least, each));
    this.#ports.settings.log('warn', 'partitions cannot begin yet, the others go on', {
      ...missing[0],
      partitions: missing.length,
      pauseMs,
    });
    void this.#beginLater(generation, missing, pauseMs);
  }

  /**
   * After a pause, in the same generation. `at`: where, instead of at the committed offset, unless the topic has become
   * another one.
   */
  async #beginLater(
    generation: Generation,
    wanted: readonly TopicPartition[],
    pauseMs: number,
    at?: number,
  ): Promise<void> {
    await sleep(pauseMs, generation.ended.signal);
    try {
      const partitions = wanted.map(({ topic, partition }) => ({ topic, partition }));
      const found = await this.#finder.find(generation, partitions);
      if (found === undefined) return;
      const startOffsets = found.startOffsets.map((place) =>
        at === undefined || place.recreatedFrom !== undefined ? place : { ...place, next: at },
      );
      const isKept = at === undefined || this.#ports.settings.stateDecides;
      if (isKept || (await this.#finder.writeDown(generation, startOffsets)) === true)
        await this.#assign(generation, { ...found, startOffsets });
    } catch (thrown) {
      this.#ports.fail(kafkaError(thrown, 'Beginning a partition again'));
    }
  }

  /** The topic is another one than the assignment began with: whoever decides hears of it in a new assignment. */
  #reset(assigned: AssignedPartition, reset: Reset): void {
    const { onReset, stateDecides, log } = this.#ports.settings;
    const { topic, partition } = assigned.assignment;
    const { generation } = assigned;
    if (assigned.state !== 'active' || assigned.halted || generation.ended.signal.aborted) return;
    if (onReset === 'halt' && !stateDecides) return this.#failed(assigned, resetError({ topic, partition }, reset));
    const pauseMs = this.#reassignBackoff.pause(nameOf(assigned.assignment), REASSIGN_PAUSE_MS, performance.now());
    log('warn', `a topic was ${reset.kind}, its partition starts again`, { topic, partition, ...reset, pauseMs });
    this.#lose(assigned);
    const at = reset.kind === 'recreated' ? undefined : onReset === 'restart' ? reset.logEnd : reset.wanted;
    void this.#beginLater(generation, [assigned.assignment], pauseMs, at);
  }

  /** It stays assigned, and gives nothing more. */
  #failed(assigned: AssignedPartition, error: IngestError): void {
    const { assignment } = assigned;
    if (assigned.state !== 'active' || assigned.halted) return;
    const { topic, partition } = assignment;
    this.#ports.settings.log('warn', 'a partition cannot go on', { topic, partition, reason: error.message });
    this.halt(assignment);
    this.#ports.emit({ kind: 'failed', assignment, error });
  }

  /** Resolves when all are released, or no more are waited for. */
  async #revokeAll(allAssigned: readonly AssignedPartition[], limit: AbortSignal): Promise<void> {
    const releases: Promise<void>[] = [];
    await eachInTurn(allAssigned, (assigned) => {
      if (!limit.aborted && assigned.state === 'active') releases.push(this.#revoke(assigned));
    });
    await Promise.all(releases);
  }

  #revoke(assigned: AssignedPartition): Promise<void> {
    assigned.state = 'draining';
    return new Promise((resolve) => {
      const release = (): void => {
        if (assigned.state === 'draining') this.#forget(assigned);
        resolve();
      };
      this.#ports.emit({ kind: 'revoked', assignment: assigned.assignment, release });
    });
  }

  #lose(assigned: AssignedPartition): void {
    this.#forget(assigned);
    this.#ports.emit({ kind: 'lost', assignment: assigned.assignment });
  }

  #forget(assigned: AssignedPartition): void {
    this.assignments.remove(assigned);
    this.#credits.close(assigned.assignment.assignmentId);
  }
}
