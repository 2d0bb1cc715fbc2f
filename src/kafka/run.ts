/**
 * Room: one subscription's life as a member of the group: join, assign, heartbeat, drain, join again, leave. It decides
 * when; the protocol is membership.ts, fetching is fetcher.ts.
 */
import type { Subscriber } from 'rxjs';
import { IngestError } from '../errors.js';
import type { Assignment } from '../model/record.js';
import type { SourceEvent } from '../ports.js';
import type { TopicPartition } from './assignor.js';
import { Credits } from './credits.js';
import { Fetcher } from './fetcher.js';
import { fenced, Membership, type CommitRequest, type Session } from './membership.js';
import type { SourceSettings } from './options.js';
import { committedOffsets, EARLIEST, LATEST, listOffsets, type Committed } from './positions.js';
import { endTenure, newTenure, type Tenure } from './tenure.js';
import { kafkaError, kafkaType, reasonOf, troubleOf } from './trouble.js';
import { Backoff, sleep, unlessAborted, within } from './wait.js';
import { openWire, type Wire } from './wire.js';

/** Why a session ends. `fenced` may still follow upon the others. */
type End = 'rebalance' | 'fenced' | 'drain';

const DISCONNECT_LIMIT_MS = 1000;
const UNHEARD_RETRY_MS = 500;

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
  /** How many partitions each topic had when this process saw it first. */
  readonly #firstCounts = new Map<string, number>();
  #turn: Turn | undefined;
  #closing: Promise<void> | undefined;

  constructor(settings: SourceSettings, subscriber: Subscriber<SourceEvent>, nextEpoch: () => number) {
    this.#settings = settings;
    this.#subscriber = subscriber;
    this.#nextEpoch = nextEpoch;
    this.#wire = openWire(settings);
    this.#membership = new Membership(this.#wire, settings);
    this.#credits = new Credits(settings.budgetBytes);
    this.#fetcher = new Fetcher(
      {
        wire: this.#wire,
        settings,
        credits: this.#credits,
        deliver: ({ assignment }, chunk) => this.#emit({ kind: 'fetched', assignment, chunk }),
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
    const { topic, partition } = assignment;
    const tenure = this.get(assignment);
    if (tenure === undefined) return Promise.reject(fenced(topic, partition, next, undefined));
    // One after the other: an earlier one that is tried again must not overwrite a later one.
    const committing = tenure.committing.then(() => this.#commit(tenure, { topic, partition, next, metadata }));
    tenure.committing = committing.catch(() => undefined);
    return committing;
  }

  async #commit(tenure: Tenure, request: CommitRequest): Promise<void> {
    try {
      await this.#membership.commit(tenure.session, request, tenure.ended.signal);
    } catch (thrown) {
      // The broker knows better than our next heartbeat.
      const isFence = thrown instanceof IngestError && thrown.code === 'KCR_FENCED';
      if (isFence && tenure.state !== 'ended' && this.#turn?.session === tenure.session) this.#turn.end('fenced');
      throw thrown;
    }
  }

  async committed(assignment: Assignment): Promise<Committed> {
    const { topic, partition } = assignment;
    const [committed] = await this.#membership.ask((coordinator) =>
      committedOffsets(coordinator, this.#settings.groupId, [{ topic, partition }]),
    );
    return committed ?? { topic, partition, next: undefined, metadata: '' };
  }

  seek(tenure: Tenure, offset: number): void {
    tenure.next = offset;
    tenure.unread = undefined;
    this.#credits.forget(tenure.assignment.epoch);
    this.#fetcher.wake();
  }

  done({ epoch }: Assignment, lastOffset: number): void {
    if (this.#credits.done(epoch, lastOffset)) this.#fetcher.roomMade();
  }

  halt(tenure: Tenure): void {
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
    for (const topic of topics) this.#firstCounts.set(topic, this.#count(topic));
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
      const starts = await this.#starts(session, turn.ended.signal);
      if (starts !== undefined && !turn.ended.signal.aborted) this.#assign(session, starts);
      const end = await turn.end_;
      this.#settings.log('info', 'leaving the generation', { groupId, generation: session.generation, reason: end });
      await this.#giveUp(turn);
    } finally {
      turn.close();
    }
  }

  /** Where each partition begins, or undefined when the session ended meanwhile. */
  async #starts(session: Session, signal: AbortSignal): Promise<readonly (TopicPartition & { next: number })[] | undefined> {
    const { partitions } = session;
    if (partitions.length === 0) return [];
    return this.#insist('Reading the committed offsets', signal, async () => {
      const committed = await this.#membership.ask((coordinator) => committedOffsets(coordinator, this.#settings.groupId, partitions));
      const unknown = committed.filter(({ next }) => next === undefined);
      const [early, late] = [unknown.filter((each) => this.#beginsEarly(each)), unknown.filter((each) => !this.#beginsEarly(each))];
      const { isolation } = this.#settings;
      const ends = [
        ...(await listOffsets(this.#wire, early, { timestamp: EARLIEST, isolation })),
        ...(await listOffsets(this.#wire, late, { timestamp: LATEST, isolation })),
      ];
      // The end of the log moves: what is produced while we are down must not be skipped the next time.
      for (const { topic, partition, offset } of ends) {
        await this.#membership.commit(session, { topic, partition, next: offset, metadata: null }, signal);
      }
      return partitions.map(({ topic, partition }) => {
        const same = (each: TopicPartition): boolean => each.topic === topic && each.partition === partition;
        return { topic, partition, next: committed.find(same)?.next ?? ends.find(same)?.offset ?? 0 };
      });
    });
  }

  /** A partition that was added while we were looking begins at its beginning, whatever the group begins at. */
  #beginsEarly({ topic, partition }: TopicPartition): boolean {
    return this.#settings.fromBeginning || partition >= (this.#firstCounts.get(topic) ?? Infinity);
  }

  #assign(session: Session, starts: readonly (TopicPartition & { next: number })[]): void {
    for (const { topic, partition, next } of starts) {
      const assignment: Assignment = Object.freeze({ topic, partition, epoch: this.#nextEpoch(), generation: session.generation, startOffset: next });
      this.#tenures.set(assignment.epoch, newTenure(assignment, session, next));
      this.#credits.open(assignment.epoch);
    }
    const tenures = [...this.#tenures.values()];
    for (const { assignment } of tenures) this.#emit({ kind: 'assigned', assignment });
    this.#fetcher.serve(tenures);
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
      if (tenure.state === 'ended') continue;
      this.#forget(tenure);
      this.#emit({ kind: 'lost', assignment: tenure.assignment });
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
    this.#wire.cut();
  }
}

/** One generation. */
class Turn {
  readonly session: Session;
  /** It will be over: nothing new is begun. */
  readonly ended = new AbortController();
  /** The group has given our partitions to others. */
  readonly fenced = new AbortController();
  /** It is over: no more heartbeats. */
  readonly closed = new AbortController();
  readonly end_: Promise<End>;
  #resolve!: (end: End) => void;

  constructor(session: Session) {
    this.session = session;
    this.end_ = new Promise((resolve) => (this.#resolve = resolve));
  }

  end(end: End): void {
    if (end === 'fenced') this.fenced.abort();
    this.#resolve(end);
    this.ended.abort();
  }

  close(): void {
    this.closed.abort();
  }
}
