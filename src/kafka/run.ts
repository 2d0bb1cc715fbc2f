/**
 * Room: one subscription's life as a member of the group: join, assign, heartbeat, drain, join again, leave. It decides
 * when; the protocol is membership.ts, fetching is fetcher.ts.
 */
import type { Subscriber } from 'rxjs';
import { hasCode, IngestError } from '../errors.js';
import type { Assignment } from '../model/record.js';
import type { LogEnds, SourceEvent } from '../ports.js';
import type { TopicPartition } from './assignor.js';
import { Credits } from '../model/credits.js';
import { Fetcher } from './fetcher.js';
import { fenced, Membership, UnknownOutcome, type CommitRequest, type Session } from './membership.js';
import type { SourceSettings } from './options.js';
import { nameOf, Places, resetError, type Place, type Reset } from './places.js';
import { committedOffsets, EARLIEST, LATEST, listOffsets, type Committed } from './positions.js';
import { Renewals } from './renewals.js';
import { endTenure, newTenure, type Tenure } from './tenure.js';
import { knownTopicId } from './topic-ids.js';
import { kafkaError, kafkaType, reasonOf, troubleOf } from './trouble.js';
import { Turn } from './turn.js';
import { Backoff, sleep, unlessAborted, within } from './wait.js';
import { openWire, type Wire } from './wire.js';

const DISCONNECT_LIMIT_MS = 1000;
const UNHEARD_RETRY_MS = 500;
/** The shortest wait before a partition is begun anew. */
const ANEW_PAUSE_MS = 500;

/** Of the budget; the rest is for what is just being received, and for what is done but not collected yet. */
const RECORDS_PART = 5 / 8;

export class Run {
  readonly #settings: SourceSettings;
  readonly #subscriber: Subscriber<SourceEvent>;
  readonly #nextEpoch: () => number;
  readonly #wire: Wire;
  readonly #membership: Membership;
  readonly #fetcher: Fetcher;
  readonly #credits: Credits;
  /** Nobody listens any more, or nothing is left to be told. */
  readonly #over = new AbortController();
  /** No more joins. */
  readonly #leaving = new AbortController();
  readonly #tenures = new Map<number, Tenure>();
  readonly #places: Places;
  readonly #renewals = new Renewals();
  #turn: Turn | undefined;
  #closing: Promise<void> | undefined;

  constructor(settings: SourceSettings, subscriber: Subscriber<SourceEvent>, nextEpoch: () => number) {
    this.#settings = settings;
    this.#subscriber = subscriber;
    this.#nextEpoch = nextEpoch;
    this.#wire = openWire(settings);
    this.#membership = new Membership(this.#wire, settings);
    this.#places = new Places(this.#wire, settings, this.#membership);
    this.#credits = new Credits(settings.budgetBytes * RECORDS_PART);
    this.#fetcher = new Fetcher(
      {
        wire: this.#wire,
        settings,
        credits: this.#credits,
        deliver: ({ assignment }, chunk) => this.#emit({ kind: 'fetched', assignment, chunk }),
        failed: (tenure, error) => this.#failed(tenure, error),
        reset: (tenure, reset) => this.#reset(tenure, reset),
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

  get(assignment: Assignment): Tenure | undefined {
    return this.#tenures.get(assignment.epoch);
  }

  commit(assignment: Assignment, next: number, metadata: string | null): Promise<void> {
    return this.#inTurn(assignment, next, metadata, (tenure, request) => this.#membership.commit(tenure.session, request, tenure.ended.signal));
  }

  commitOnce(assignment: Assignment, next: number, metadata: string | null): Promise<void> {
    return this.#inTurn(assignment, next, metadata, async (tenure, request) => {
      if (tenure.state === 'ended') throw fenced(request.topic, request.partition, next, undefined);
      await this.#membership.commitOnce(tenure.session, request);
    });
  }

  /** One after the other: an earlier one that is tried again must not overwrite a later one. */
  #inTurn(
    assignment: Assignment,
    next: number,
    metadata: string | null,
    call: (tenure: Tenure, request: CommitRequest) => Promise<void>,
  ): Promise<void> {
    const { topic, partition } = assignment;
    const tenure = this.get(assignment);
    if (tenure === undefined) return Promise.reject(fenced(topic, partition, next, undefined));
    const committing = tenure.committing.then(() => this.#commit(tenure, { topic, partition, next, metadata }, call));
    tenure.committing = committing.catch(() => undefined);
    return committing;
  }

  async #commit(tenure: Tenure, request: CommitRequest, call: (tenure: Tenure, request: CommitRequest) => Promise<void>): Promise<void> {
    const { topic, partition, next } = request;
    if (tenure.isCommitUnknown) throw unknownOutcome(request);
    try {
      await call(tenure, request);
    } catch (thrown) {
      if (thrown instanceof UnknownOutcome) {
        tenure.isCommitUnknown = true;
        this.#settings.log('warn', 'the outcome of a commit is not known, joining again', { topic, partition, next, reason: thrown.message });
        this.#joinAnew(tenure.session);
        throw unknownOutcome(request, thrown);
      }
      // The broker knows better than our next heartbeat.
      if (hasCode(thrown, 'KCR_FENCED') && tenure.state !== 'ended' && this.#turn?.session === tenure.session) this.#turn.end('fenced');
      throw thrown;
    }
  }

  /** The group begins a new generation: whatever of the present one is still on its way will be refused. */
  #joinAnew(session: Session): void {
    this.#membership.demandGeneration();
    if (this.#turn?.session === session) this.#turn.end('rebalance');
  }

  /**
   * What the group has committed for the partition. Asked after the join, it includes every commit of former owners
   * that was ever accepted. The coordinator accepts a commit of an old generation only until the join of the new one is
   * complete; it has then appended it to its log, and it appends the new generation's assignment behind it. It answers
   * our SyncGroup only when that is replicated, so everything before it is, and it makes commits visible in that order.
   * (What `requireStable` of newer versions waits for are offsets in transactions, which nobody writes for this group.)
   */
  async committed(assignment: Assignment): Promise<Committed> {
    const { topic, partition } = assignment;
    const [committed] = await this.#membership.ask((coordinator) =>
      committedOffsets(coordinator, this.#settings.groupId, [{ topic, partition }]),
    );
    return committed ?? { topic, partition, next: undefined, metadata: '' };
  }

  assignmentOf(topic: string, partition: number): Assignment | undefined {
    return [...this.#tenures.values()].find(({ assignment }) => assignment.topic === topic && assignment.partition === partition)?.assignment;
  }

  /** The ends of the very log that the assignment is of. */
  async log(assignment: Assignment): Promise<LogEnds> {
    const { topic, partition, topicId } = assignment;
    const { cluster } = this.#wire;
    const ask = async (): Promise<LogEnds> => {
      const isolation = 'read_uncommitted';
      const [start] = await listOffsets(this.#wire, [{ topic, partition }], { timestamp: EARLIEST, isolation });
      const [end] = await listOffsets(this.#wire, [{ topic, partition }], { timestamp: LATEST, isolation });
      await cluster.refreshMetadata();
      // They were asked for by name. Another topic's would tell that this one was truncated.
      if (knownTopicId(cluster, topic) !== topicId) throw new Error('the topic is gone, or was created anew');
      if (start === undefined || end === undefined) throw new Error('the answer lacks the partition');
      return { start: start.offset, end: end.offset };
    };
    try {
      return await ask();
    } catch (thrown) {
      if (thrown instanceof IngestError && !thrown.retryable) throw thrown;
      if (troubleOf(thrown) === 'fatal') throw kafkaError(thrown, 'Asking for the ends of the log', { topic, partition });
      await cluster.refreshMetadata().catch(() => undefined); // the leader may have moved
      throw new IngestError('KCR_KAFKA_UNREACHABLE', `The ends of the log are not known: ${reasonOf(thrown)}`, { topic, partition, cause: thrown });
    }
  }

  renew(assignment: Assignment): void {
    const { topic, partition } = assignment;
    const tenure = this.get(assignment);
    const turn = this.#turn;
    // Neither one that is lost, nor one that is draining: the group has it given away by then.
    if (tenure === undefined || turn?.session !== tenure.session || turn.ended.signal.aborted) return;
    const pauseMs = this.#renewals.pause(nameOf(assignment), this.#settings.sessionTimeoutMs, performance.now());
    const why = 'the group says that a partition is ours, but its state was claimed by another or the outcome of a write is not known: it is claimed anew after a pause';
    this.#settings.log('warn', why, { topic, partition, pauseMs });
    this.#lose(tenure);
    void this.#beginAnew(turn, assignment, pauseMs);
  }

  seek(tenure: Tenure, offset: number): void {
    tenure.next = offset;
    tenure.isUnproven = false;
    tenure.unread = undefined;
    this.#credits.forget(tenure.assignment.epoch);
    this.#fetcher.wake();
  }

  claimed(assignment: Assignment, inDoubtUpTo: number | undefined): void {
    const tenure = this.get(assignment);
    if (tenure === undefined) return;
    if (inDoubtUpTo !== undefined) this.#credits.need(assignment.epoch, inDoubtUpTo);
    this.#fetcher.claimed(tenure);
  }

  done({ epoch }: Assignment, lastOffset: number): void {
    if (this.#credits.done(epoch, lastOffset)) this.#fetcher.roomMade();
  }

  halt(assignment: Assignment): void {
    const tenure = this.get(assignment);
    if (tenure === undefined) return;
    tenure.halted = true;
    tenure.unread = undefined;
    this.#credits.close(tenure.assignment.epoch);
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
    const { cluster } = this.#wire;
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
    for (const topic of topics) this.#places.saw(topic, this.#count(topic));
  }

  async #serve(session: Session): Promise<void> {
    const turn = new Turn(session);
    this.#turn = turn;
    if (this.#leaving.signal.aborted) turn.end('drain');
    const { groupId } = this.#settings;
    this.#settings.log('info', 'joined the group', { groupId, generation: session.generation, leader: session.leader, partitions: session.partitions.length });
    void this.#beat(turn);
    if (session.leader) void this.#watchTopics(turn);
    try {
      this.#places.keepOnly(session.partitions);
      const places = await this.#find(turn, session.partitions);
      if (places !== undefined && !turn.ended.signal.aborted) this.#assign(turn, session.partitions, places);
      const end = await turn.end_;
      this.#settings.log('info', 'leaving the generation', { groupId, generation: session.generation, reason: end });
      await this.#giveUp(turn);
    } finally {
      turn.close();
    }
  }

  /** Where each partition begins, or undefined when the session ended meanwhile. */
  #find(turn: Turn, partitions: readonly TopicPartition[]): Promise<readonly Place[] | undefined> {
    if (partitions.length === 0) return Promise.resolve([]);
    return this.#insist('Reading the committed offsets', turn.ended.signal, () => this.#certainly(turn, () => this.#places.of(turn.session, partitions)));
  }

  async #certainly<T>(turn: Turn, attempt: () => Promise<T>): Promise<T> {
    try {
      return await attempt();
    } catch (thrown) {
      if (!(thrown instanceof UnknownOutcome)) throw thrown;
      this.#settings.log('warn', 'the outcome of a first commit is not known, joining again', { reason: thrown.message });
      this.#joinAnew(turn.session);
      throw new IngestError('KCR_FENCED', 'The outcome of a first commit is not known', { cause: thrown });
    }
  }

  /** Begins the tenures of these partitions. Those whose topic Kafka does not tell of follow when it does. */
  #assign(turn: Turn, wanted: readonly TopicPartition[], places: readonly Place[]): void {
    const found = new Set(places.map(nameOf));
    const begun = places.map((place) => {
      const { topic, topicId, partition, next } = place;
      const assignment: Assignment = Object.freeze({ topic, partition, epoch: this.#nextEpoch(), generation: turn.session.generation, startOffset: next, topicId });
      const tenure = newTenure(assignment, turn.session, next);
      this.#tenures.set(assignment.epoch, tenure);
      this.#credits.open(assignment.epoch);
      return { place, tenure };
    });
    for (const { place, tenure } of begun) {
      const { onReset, stateDecides } = this.#settings;
      this.#emit({ kind: 'assigned', assignment: tenure.assignment });
      if (place.recreatedFrom === undefined || stateDecides || onReset === 'restart') this.#places.begun(place);
      else this.#failed(tenure, resetError(place, { kind: 'recreated', was: place.recreatedFrom, topicId: place.topicId as string }));
    }
    this.#fetcher.serve([...this.#tenures.values()]);
    for (const missing of wanted.filter((each) => !found.has(nameOf(each)))) {
      const pauseMs = this.#renewals.pause(nameOf(missing), ANEW_PAUSE_MS, performance.now());
      this.#settings.log('warn', 'Kafka does not tell of a topic, its partition waits', { ...missing, pauseMs });
      void this.#beginAnew(turn, missing, pauseMs);
    }
  }

  /**
   * After a pause, in the same generation. `at`: where, instead of at the committed offset, unless the topic has become
   * another one.
   */
  async #beginAnew(turn: Turn, { topic, partition }: TopicPartition, pauseMs: number, at?: number): Promise<void> {
    const { signal } = turn.ended;
    const wanted = [{ topic, partition }];
    await sleep(pauseMs, signal);
    try {
      const places = await this.#find(turn, wanted);
      const moved = places?.map((place) => (at === undefined || place.recreatedFrom !== undefined ? place : { ...place, next: at }));
      if (moved === undefined) return;
      const isKept = at === undefined || this.#settings.stateDecides;
      if (isKept || (await this.#writeDown(turn, moved)) === true) this.#assign(turn, wanted, moved);
    } catch (thrown) {
      this.#fail(kafkaError(thrown, 'Beginning a partition anew'));
    }
  }

  /** True, or undefined when the session ended meanwhile. */
  #writeDown(turn: Turn, places: readonly Place[]): Promise<boolean | undefined> {
    const write = async (): Promise<boolean> => {
      for (const place of places) await this.#places.writeDown(turn.session, place);
      return true;
    };
    return this.#insist('Writing down where to go on', turn.ended.signal, () => this.#certainly(turn, write));
  }

  /** The topic is not the one any more that the tenure began with: whoever decides hears of it in a new one. */
  #reset(tenure: Tenure, reset: Reset): void {
    const { onReset, stateDecides, log } = this.#settings;
    const { topic, partition } = tenure.assignment;
    const turn = this.#turn;
    if (tenure.state !== 'active' || tenure.halted || turn?.session !== tenure.session || turn.ended.signal.aborted) return;
    if (onReset === 'halt' && !stateDecides) return this.#failed(tenure, resetError({ topic, partition }, reset));
    const pauseMs = this.#renewals.pause(nameOf(tenure.assignment), ANEW_PAUSE_MS, performance.now());
    log('warn', `a topic was ${reset.kind}, its partition begins anew`, { topic, partition, ...reset, pauseMs });
    this.#lose(tenure);
    const at = reset.kind === 'recreated' ? undefined : onReset === 'restart' ? reset.logEnd : reset.wanted;
    void this.#beginAnew(turn, tenure.assignment, pauseMs, at);
  }

  /** It stays assigned, and gives nothing more. */
  #failed(tenure: Tenure, error: IngestError): void {
    if (tenure.state !== 'active' || tenure.halted) return;
    this.#settings.log('warn', 'a partition cannot go on', { topic: tenure.assignment.topic, partition: tenure.assignment.partition, reason: error.message });
    this.halt(tenure.assignment);
    this.#emit({ kind: 'failed', assignment: tenure.assignment, error });
  }

  #lose(tenure: Tenure): void {
    this.#forget(tenure);
    this.#emit({ kind: 'lost', assignment: tenure.assignment });
  }

  /** Revokes everything and waits for the releases; what the group has taken already, or what takes too long, is lost. */
  async #giveUp(turn: Turn): Promise<void> {
    this.#fetcher.serve([]);
    const tenures = [...this.#tenures.values()];
    if (!turn.fenced.signal.aborted) {
      const releases = tenures.map((tenure) => this.#revoke(tenure));
      const limit = new AbortController();
      turn.fenced.signal.addEventListener('abort', () => limit.abort());
      this.#over.signal.addEventListener('abort', () => limit.abort());
      await Promise.race([Promise.all(releases), sleep(this.#settings.drainTimeoutMs, limit.signal)]);
      limit.abort();
    }
    for (const tenure of tenures) {
      if (tenure.state !== 'ended') this.#lose(tenure);
    }
  }

  #revoke(tenure: Tenure): Promise<void> {
    tenure.state = 'draining';
    return new Promise((resolve) => {
      const release = (): void => {
        if (tenure.state === 'draining') this.#forget(tenure);
        resolve();
      };
      this.#emit({ kind: 'revoked', assignment: tenure.assignment, release });
    });
  }

  #forget(tenure: Tenure): void {
    endTenure(tenure);
    this.#tenures.delete(tenure.assignment.epoch);
    this.#credits.close(tenure.assignment.epoch);
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

  /** The leader deals out the partitions, so it has to see when there are more. */
  async #watchTopics(turn: Turn): Promise<void> {
    const { topics, metadataMaxAgeMs } = this.#settings;
    const before = topics.map((topic) => this.#count(topic));
    for (;;) {
      await sleep(metadataMaxAgeMs, turn.closed.signal);
      if (turn.closed.signal.aborted || this.#over.signal.aborted) return;
      await this.#wire.cluster.refreshMetadata().catch(() => undefined);
      if (topics.some((topic, i) => this.#count(topic) !== before[i] && this.#count(topic) > 0)) turn.end('rebalance');
    }
  }

  #count(topic: string): number {
    try {
      return this.#wire.cluster.findTopicPartitionMetadata(topic).length;
    } catch {
      return 0; // kafkajs throws when it has no metadata at all
    }
  }

  /** Tries until it succeeds. Undefined when the signal called it off, or the group goes on without us. */
  async #insist<T>(doing: string, signal: AbortSignal, attempt: () => Promise<T>): Promise<T | undefined> {
    const backoff = new Backoff();
    while (!signal.aborted && !this.#over.signal.aborted) {
      try {
        return await unlessAborted(attempt(), signal);
      } catch (thrown) {
        if (thrown instanceof IngestError && thrown.code === 'KCR_FENCED') return undefined;
        if (troubleOf(thrown) === 'fatal') throw kafkaError(thrown, doing);
        this.#settings.log('warn', `${doing.toLowerCase()} failed, trying again`, { attempt: backoff.failures + 1, reason: reasonOf(thrown) });
        await sleep(backoff.next(), signal);
        await unlessAborted(this.#wire.cluster.refreshMetadata().catch(() => undefined), signal);
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
    for (const tenure of [...this.#tenures.values()]) this.#forget(tenure);
    await this.#membership.leave();
    await within(this.#wire.cluster.disconnect(), DISCONNECT_LIMIT_MS);
    this.#wire.end();
  }
}

function unknownOutcome({ topic, partition, next }: CommitRequest, cause?: unknown): IngestError {
  return new IngestError('KCR_FENCED', `The outcome of the commit of offset ${next} is not known: the partition is claimed anew`, { topic, partition, cause });
}
