/**
 * Room: one subscription's life as a member of the group: join, assign, heartbeat, drain, join again, leave. It decides
 * when; the protocol is membership.ts, fetching is fetcher.ts.
 */
import type { Subscriber } from 'rxjs';
import { within } from '../../abort.js';
import { IngestError } from '../../errors.js';
import { Credits } from '../../model/credits.js';
import type { Assignment } from '../../model/record.js';
import type { LogEnds, SourceEvent } from '../../ports.js';
import { Assignments } from './assignments.js';
import type { TopicPartition } from './assignor.js';
import { Committing } from './commit-in-order.js';
import { Fetcher } from '../fetch/fetcher.js';
import { Inquiries } from './inquiries.js';
import { Membership } from './membership.js';
import type { SourceSettings } from '../options.js';
import { nameOf, StartOffsets, resetError, type Found, type StartOffset, type Reset } from './start-offsets.js';
import type { Committed } from '../connection/list-offsets.js';
import { ReassignBackoff } from './reassign-backoff.js';
import { UnknownOutcome, type Session } from './session.js';
import { newAssignedPartition, type AssignedPartition } from './assigned-partition.js';
import { otherPartitions } from './topic-watch.js';
import { kafkaError, kafkaType, reasonOf, classifyError } from '../connection/classify-error.js';
import { Turn } from './turn.js';
import { Backoff, breathe, newAbort, sleep, unlessAborted } from '../connection/wait.js';
import { openConnection, type KafkaConnection } from '../connection/kafka-connection.js';

const DISCONNECT_LIMIT_MS = 1000;
const UNHEARD_RETRY_MS = 500;
/** The shortest wait before a partition is begun anew. */
const ANEW_PAUSE_MS = 500;
/** The longest wait before a partition is looked for again that Kafka does not tell of, or that nobody leads. */
const MISSING_PAUSE_LIMIT_MS = 5000;
/** Longer than this nobody else has to wait while partitions are begun or given up, one after the other. */
const TURN_LIMIT_MS = 10;

/** Of the budget; the rest is for what is just being received, and for what is done but not collected yet. */
const RECORDS_PART = 5 / 8;

export class Run {
  readonly #settings: SourceSettings;
  readonly #subscriber: Subscriber<SourceEvent>;
  readonly #nextAssignmentId: () => number;
  readonly #kafka: KafkaConnection;
  readonly #membership: Membership;
  readonly #fetcher: Fetcher;
  readonly #credits: Credits;
  /** Nobody listens any more, or nothing is left to be told. */
  readonly #over = newAbort();
  /** No more joins. */
  readonly #leaving = newAbort();
  readonly #assignments = new Assignments();
  readonly #committing: Committing;
  readonly #inquiries: Inquiries;
  readonly #startOffsets: StartOffsets;
  readonly #reassignBackoff = new ReassignBackoff();
  #turn: Turn | undefined;
  #closing: Promise<void> | undefined;

  constructor(settings: SourceSettings, subscriber: Subscriber<SourceEvent>, nextAssignmentId: () => number) {
    this.#settings = settings;
    this.#subscriber = subscriber;
    this.#nextAssignmentId = nextAssignmentId;
    this.#kafka = openConnection(settings);
    this.#membership = new Membership(this.#kafka, settings);
    this.#startOffsets = new StartOffsets(this.#kafka, settings, this.#membership);
    this.#inquiries = new Inquiries(this.#kafka, this.#membership);
    this.#committing = new Committing({
      assignments: this.#assignments,
      membership: this.#membership,
      log: settings.log,
      outlive: (session) => this.#joinAnew(session),
      fenced: (session) => this.#present(session)?.end('fenced'),
    });
    this.#credits = new Credits(settings.budgetBytes * RECORDS_PART);
    this.#fetcher = new Fetcher(
      {
        kafka: this.#kafka,
        settings,
        credits: this.#credits,
        deliver: ({ assignment }, chunk) => this.#emit({ kind: 'fetched', assignment, chunk }),
        failed: (assigned, error) => this.#failed(assigned, error),
        reset: (assigned, reset) => this.#reset(assigned, reset),
        fail: (error) => this.#fail(error),
      },
      this.#over.signal,
    );
  }

  async live(): Promise<void> {
    try {
      await this.#connect();
      for (;;) {
        const session = await this.#membership.join(this.#leaving.signal);
        if (session === undefined || this.#over.signal.aborted) break;
        await this.#serve(session);
      }
      await this.#close();
      this.#subscriber.complete();
    } catch (thrown) {
      this.#fail(thrown instanceof IngestError ? thrown : kafkaError(thrown, 'The Kafka source'));
    }
  }

  /** At once: nothing more is told, nothing is waited for by the caller. */
  stop(): void {
    if (this.#over.signal.aborted) return;
    void this.#close();
  }

  drain(): void {
    this.#leaving.abort();
    this.#turn?.end('drain');
  }

  get(assignment: Assignment): AssignedPartition | undefined {
    return this.#assignments.get(assignment);
  }

  commit(assignment: Assignment, next: number, metadata: string | null): Promise<void> {
    return this.#committing.commit(assignment, next, metadata);
  }

  commitOnce(assignment: Assignment, next: number, metadata: string | null): Promise<void> {
    return this.#committing.commitOnce(assignment, next, metadata);
  }

  committed(assignment: Assignment): Promise<Committed> {
    return this.#inquiries.committed(assignment);
  }

  assignmentOf(topic: string, partition: number): Assignment | undefined {
    return this.#assignments.find(topic, partition)?.assignment;
  }

  log(assignment: Assignment): Promise<LogEnds> {
    return this.#inquiries.log(assignment);
  }

  /** The group begins a new generation: whatever of the present one is still on its way will be refused. */
  #joinAnew(session: Session): void {
    this.#membership.demandGeneration(session);
    this.#present(session)?.end('rebalance');
  }

  /** The turn of the session, while it is the present one. */
  #present(session: Session): Turn | undefined {
    return this.#turn?.session === session ? this.#turn : undefined;
  }

  reassign(assignment: Assignment, afterMs?: number): void {
    const { topic, partition } = assignment;
    const assigned = this.get(assignment);
    const turn = this.#turn;
    // Neither one that is lost, nor one that is draining: the group has it given away by then.
    if (assigned === undefined || turn?.session !== assigned.session || turn.ended.signal.aborted) return;
    const pauseMs =
      afterMs ?? this.#reassignBackoff.pause(nameOf(assignment), this.#settings.sessionTimeoutMs, performance.now());
    const why =
      'the group says that a partition is ours, but its state was claimed by another or the outcome of a write is not known: it is claimed anew after a pause';
    if (afterMs === undefined) this.#settings.log('warn', why, { topic, partition, pauseMs });
    this.#lose(assigned);
    void this.#beginAnew(turn, [assignment], pauseMs);
  }

  seek(assigned: AssignedPartition, offset: number): void {
    assigned.next = offset;
    assigned.isUnproven = false;
    assigned.unread = undefined;
    this.#credits.forget(assigned.assignment.assignmentId);
    this.#fetcher.wake();
  }

  claimed(assignment: Assignment, inDoubtUpTo: number | undefined): void {
    const assigned = this.get(assignment);
    if (assigned === undefined) return;
    if (inDoubtUpTo !== undefined) this.#credits.need(assignment.assignmentId, inDoubtUpTo);
    this.#fetcher.claimed(assigned);
  }

  done({ assignmentId }: Assignment, lastOffset: number): void {
    if (this.#credits.done(assignmentId, lastOffset)) this.#fetcher.roomMade();
  }

  halt(assignment: Assignment): void {
    const assigned = this.get(assignment);
    if (assigned === undefined) return;
    assigned.halted = true;
    assigned.unread = undefined;
    this.#credits.close(assigned.assignment.assignmentId);
    this.#fetcher.wake();
  }

  pause(paused: boolean): void {
    this.#fetcher.pause(paused);
  }

  /** Bytes that were delivered and are not done. */
  get outstandingBytes(): number {
    return this.#credits.outstanding;
  }

  async #connect(): Promise<void> {
    const { topics, brokers } = this.#settings;
    const { cluster } = this.#kafka;
    await this.#insist('Connecting to Kafka', this.#leaving.signal, async () => {
      await cluster.connect();
      try {
        await cluster.addMultipleTargetTopics(topics);
      } catch (thrown) {
        if (kafkaType(thrown) !== 'UNKNOWN_TOPIC_OR_PARTITION') throw thrown;
        throw new IngestError('KCR_TOPIC_MISSING', `One of the topics ${topics.join(', ')} does not exist`, {
          hint: `create it: kafka-topics.sh --bootstrap-server ${brokers[0]} --create --topic <name> --partitions <n>`,
        });
      }
    });
  }

  async #serve(session: Session): Promise<void> {
    const turn = new Turn(session);
    this.#turn = turn;
    if (this.#leaving.signal.aborted) turn.end('drain');
    const { groupId } = this.#settings;
    this.#settings.log('info', 'joined the group', {
      groupId,
      generation: session.generation,
      leader: session.leader,
      partitions: session.partitions.length,
    });
    void this.#beat(turn);
    if (session.dealt !== undefined) void this.#watchTopics(turn, session.dealt);
    try {
      this.#startOffsets.keepOnly(session.partitions);
      const found = await this.#find(turn, session.partitions);
      if (found !== undefined) await this.#assign(turn, found);
      const end = await turn.end_;
      this.#settings.log('info', 'leaving the generation', { groupId, generation: session.generation, reason: end });
      await this.#giveUp(turn);
    } finally {
      turn.close();
    }
  }

  /** Where each partition begins, or undefined when the session ended meanwhile. */
  #find(turn: Turn, partitions: readonly TopicPartition[]): Promise<Found | undefined> {
    if (partitions.length === 0) return Promise.resolve({ startOffsets: [], missing: [] });
    const { signal } = turn.ended;
    return this.#insist('Reading the committed offsets', signal, () =>
      this.#certainly(turn, () => this.#startOffsets.of(turn.session, partitions, signal)),
    );
  }

  async #certainly<T>(turn: Turn, attempt: () => Promise<T>): Promise<T> {
    try {
      return await attempt();
    } catch (thrown) {
      if (!(thrown instanceof UnknownOutcome)) throw thrown;
      this.#settings.log('warn', 'the outcome of a first commit is not known, joining again', {
        reason: thrown.message,
      });
      this.#joinAnew(turn.session);
      throw new IngestError('KCR_FENCED', 'The outcome of a first commit is not known', { cause: thrown });
    }
  }

  /** Begins these partitions, unless the session ends meanwhile. Those that are missing follow when they are found. */
  async #assign(turn: Turn, { startOffsets, missing }: Found): Promise<void> {
    if (missing.length > 0) this.#lookForMissing(turn, missing);
    let sinceMs = performance.now();
    for (const place of startOffsets) {
      if (turn.ended.signal.aborted || this.#over.signal.aborted) return;
      this.#begin(turn, place);
      if (performance.now() - sinceMs < TURN_LIMIT_MS) continue;
      this.#fetcher.serve(this.#assignments.all);
      await breathe();
      sinceMs = performance.now();
    }
    if (!turn.ended.signal.aborted) this.#fetcher.serve(this.#assignments.all);
  }

  #begin(turn: Turn, place: StartOffset): void {
    const { topic, topicId, partition, next, committed } = place;
    const { onReset, stateDecides } = this.#settings;
    const assignment: Assignment = Object.freeze({
      topic,
      partition,
      assignmentId: this.#nextAssignmentId(),
      generation: turn.session.generation,
      startOffset: next,
      committed,
      topicId,
    });
    const assigned = newAssignedPartition(assignment, turn.session, next);
    this.#assignments.add(assigned);
    this.#credits.open(assignment.assignmentId);
    this.#emit({ kind: 'assigned', assignment });
    if (place.recreatedFrom === undefined || stateDecides || onReset === 'restart') this.#startOffsets.begun(place);
    else
      this.#failed(
        assigned,
        resetError(place, { kind: 'recreated', was: place.recreatedFrom, topicId: place.topicId as string }),
      );
  }

  #lookForMissing(turn: Turn, missing: Found['missing']): void {
    const nowMs = performance.now();
    const pauseMs = Math.min(
      ...missing.map((each) => this.#reassignBackoff.pause(nameOf(each), ANEW_PAUSE_MS, nowMs, MISSING_PAUSE_LIMIT_MS)),
    );
    this.#settings.log('warn', 'partitions cannot begin yet, the others go on', {
      ...missing[0],
      partitions: missing.length,
      pauseMs,
    });
    void this.#beginAnew(turn, missing, pauseMs);
  }

  /**
   * After a pause, in the same generation. `at`: where, instead of at the committed offset, unless the topic has become
   * another one.
   */
  async #beginAnew(turn: Turn, wanted: readonly TopicPartition[], pauseMs: number, at?: number): Promise<void> {
    await sleep(pauseMs, turn.ended.signal);
    try {
      const found = await this.#find(
        turn,
        wanted.map(({ topic, partition }) => ({ topic, partition })),
      );
      if (found === undefined) return;
      const startOffsets = found.startOffsets.map((place) =>
        at === undefined || place.recreatedFrom !== undefined ? place : { ...place, next: at },
      );
      const isKept = at === undefined || this.#settings.stateDecides;
      if (isKept || (await this.#writeDown(turn, startOffsets)) === true)
        await this.#assign(turn, { ...found, startOffsets });
    } catch (thrown) {
      this.#fail(kafkaError(thrown, 'Beginning a partition anew'));
    }
  }

  /** True, or undefined when the session ended meanwhile. */
  #writeDown(turn: Turn, startOffsets: readonly StartOffset[]): Promise<boolean | undefined> {
    const write = async (): Promise<boolean> => {
      await this.#startOffsets.writeDown(turn.session, startOffsets, turn.ended.signal);
      return true;
    };
    return this.#insist('Writing down where to go on', turn.ended.signal, () => this.#certainly(turn, write));
  }

  /** The topic is not the one any more that the tenure began with: whoever decides hears of it in a new one. */
  #reset(assigned: AssignedPartition, reset: Reset): void {
    const { onReset, stateDecides, log } = this.#settings;
    const { topic, partition } = assigned.assignment;
    const turn = this.#turn;
    if (
      assigned.state !== 'active' ||
      assigned.halted ||
      turn?.session !== assigned.session ||
      turn.ended.signal.aborted
    )
      return;
    if (onReset === 'halt' && !stateDecides) return this.#failed(assigned, resetError({ topic, partition }, reset));
    const pauseMs = this.#reassignBackoff.pause(nameOf(assigned.assignment), ANEW_PAUSE_MS, performance.now());
    log('warn', `a topic was ${reset.kind}, its partition begins anew`, { topic, partition, ...reset, pauseMs });
    this.#lose(assigned);
    const at = reset.kind === 'recreated' ? undefined : onReset === 'restart' ? reset.logEnd : reset.wanted;
    void this.#beginAnew(turn, [assigned.assignment], pauseMs, at);
  }

  /** It stays assigned, and gives nothing more. */
  #failed(assigned: AssignedPartition, error: IngestError): void {
    if (assigned.state !== 'active' || assigned.halted) return;
    this.#settings.log('warn', 'a partition cannot go on', {
      topic: assigned.assignment.topic,
      partition: assigned.assignment.partition,
      reason: error.message,
    });
    this.halt(assigned.assignment);
    this.#emit({ kind: 'failed', assignment: assigned.assignment, error });
  }

  #lose(assigned: AssignedPartition): void {
    this.#forget(assigned);
    this.#emit({ kind: 'lost', assignment: assigned.assignment });
  }

  /** Revokes everything and waits for the releases; what the group has taken already, or what takes too long, is lost. */
  async #giveUp(turn: Turn): Promise<void> {
    this.#fetcher.serve([]);
    const allAssigned = this.#assignments.all;
    if (!turn.fenced.signal.aborted) {
      const limit = newAbort();
      const stop = (): void => limit.abort();
      for (const { signal } of [turn.fenced, this.#over]) signal.addEventListener('abort', stop);
      await Promise.race([
        this.#revokeAll(allAssigned, limit.signal),
        sleep(this.#settings.drainTimeoutMs, limit.signal),
      ]);
      for (const { signal } of [turn.fenced, this.#over]) signal.removeEventListener('abort', stop);
      limit.abort();
    }
    await this.#eachInTurn(allAssigned, (assigned) => {
      if (assigned.state !== 'ended') this.#lose(assigned);
    });
  }

  /** Resolves when all are released, or no more are waited for. */
  async #revokeAll(allAssigned: readonly AssignedPartition[], limit: AbortSignal): Promise<void> {
    const releases: Promise<void>[] = [];
    await this.#eachInTurn(allAssigned, (assigned) => {
      if (!limit.aborted && assigned.state === 'active') releases.push(this.#revoke(assigned));
    });
    await Promise.all(releases);
  }

  /** Others have their turn in between: there may be thousands. */
  async #eachInTurn(
    allAssigned: readonly AssignedPartition[],
    act: (assigned: AssignedPartition) => void,
  ): Promise<void> {
    let sinceMs = performance.now();
    for (const assigned of allAssigned) {
      act(assigned);
      if (performance.now() - sinceMs < TURN_LIMIT_MS) continue;
      await breathe();
      sinceMs = performance.now();
    }
  }

  #revoke(assigned: AssignedPartition): Promise<void> {
    assigned.state = 'draining';
    return new Promise((resolve) => {
      const release = (): void => {
        if (assigned.state === 'draining') this.#forget(assigned);
        resolve();
      };
      this.#emit({ kind: 'revoked', assignment: assigned.assignment, release });
    });
  }

  #forget(assigned: AssignedPartition): void {
    this.#assignments.remove(assigned);
    this.#credits.close(assigned.assignment.assignmentId);
  }

  /** Heartbeats from the join until the next one, drain included: without them the group would not wait for us. */
  async #beat(turn: Turn): Promise<void> {
    const { heartbeatIntervalMs } = this.#settings;
    let waitMs = heartbeatIntervalMs;
    try {
      for (;;) {
        await sleep(waitMs, turn.closed.signal);
        if (turn.closed.signal.aborted || this.#over.signal.aborted) return;
        const beat = await this.#membership.beat(turn.session);
        // Unheard it is tried again soon: the session runs on.
        waitMs = beat === 'unheard' ? Math.min(heartbeatIntervalMs, UNHEARD_RETRY_MS) : heartbeatIntervalMs;
        if (beat === 'rebalance') turn.end('rebalance');
        if (beat === 'fenced') return turn.end('fenced');
      }
    } catch (thrown) {
      this.#fail(kafkaError(thrown, 'A heartbeat'));
    }
  }

  async #watchTopics(turn: Turn, dealt: ReadonlyMap<string, number>): Promise<void> {
    const { metadataMaxAgeMs, log } = this.#settings;
    const topics = await otherPartitions({ kafka: this.#kafka, log, dealt, metadataMaxAgeMs }, turn.closed.signal);
    if (topics.length === 0) return;
    log('info', 'topics have other partitions than were dealt out', {
      topics: topics.slice(0, 10),
      count: topics.length,
    });
    turn.end('rebalance');
  }

  /** Tries until it succeeds. Undefined when the signal called it off, or the group goes on without us. */
  async #insist<T>(doing: string, signal: AbortSignal, attempt: () => Promise<T>): Promise<T | undefined> {
    const backoff = new Backoff();
    while (!signal.aborted && !this.#over.signal.aborted) {
      try {
        return await unlessAborted(attempt(), signal);
      } catch (thrown) {
        if (thrown instanceof IngestError && thrown.code === 'KCR_FENCED') return undefined;
        if (classifyError(thrown) === 'fatal') throw kafkaError(thrown, doing);
        this.#settings.log('warn', `${doing.toLowerCase()} failed, trying again`, {
          attempt: backoff.failures + 1,
          reason: reasonOf(thrown),
        });
        await sleep(backoff.next(), signal);
        await unlessAborted(
          this.#kafka.cluster.refreshMetadata().catch(() => undefined),
          signal,
        );
      }
    }
    return undefined;
  }

  #emit(event: SourceEvent): void {
    if (!this.#over.signal.aborted) this.#subscriber.next(event);
  }

  #fail(error: IngestError): void {
    if (this.#over.signal.aborted) return;
    void this.#close();
    this.#subscriber.error(error);
  }

  /** Leaves the group and closes the connections, once, bounded in time. */
  #close(): Promise<void> {
    this.#closing ??= this.#leaveAndDisconnect();
    return this.#closing;
  }

  async #leaveAndDisconnect(): Promise<void> {
    this.#over.abort();
    this.#leaving.abort();
    this.#turn?.end('drain');
    this.#turn?.close();
    for (const assigned of this.#assignments.all) this.#forget(assigned);
    await this.#membership.leave();
    await within(this.#kafka.cluster.disconnect(), DISCONNECT_LIMIT_MS);
    this.#kafka.end();
  }
}
