/**
 * Keeps one fetch under way at each broker that leads a partition of ours with room for more, and delivers what
 * comes as chunks. What befalls one partition does not stop the others, and none of it makes the group rebalance.
 * Imports: errors, kafka, kafka/connection, kafka/group, model.
 */
import type { IngestError } from '../../errors.js';
import type { Credits } from '../../model/credits.js';
import type { FetchedPartition } from './fetch-answer.js';
import { fetchFrom } from './fetch-request.js';
import { FetchSession } from './fetch-session.js';
import { nameOf } from '../group/assignor.js';
import { BrokerPace } from './broker-pace.js';
import { FetchErrors, type FetchErrorsPorts } from './fetch-errors.js';
import { HeldBack } from './held-back.js';
import { openTransactions } from '../open-transactions.js';
import { cutLane } from '../connection/lanes.js';
import { Reading } from './reading.js';
import type { AssignedPartition } from '../group/assigned-partition.js';
import { isTimeout, kafkaError, reasonOf, classifyError } from '../connection/classify-error.js';
import { breathe, sleep, TURN_LIMIT_MS } from '../connection/wait.js';
import { checkedBroker, forgetVersions, type KafkajsBroker } from '../connection/broker.js';

export interface FetcherPorts extends Pick<FetchErrorsPorts, 'kafka' | 'settings' | 'deliver' | 'failed' | 'reset'> {
  readonly credits: Credits;
  /** Nothing can go on. */
  readonly fail: (error: IngestError) => void;
}

/** A broker throttles for a few of its quota's windows, seconds; it may say anything. */
const MAX_THROTTLE_MS = 30_000;
/** Looking at all partitions may take so much of the time: with thousands one look takes some milliseconds. */
const LOOK_PART = 0.1;
export class Fetcher {
  readonly #ports: FetcherPorts;
  readonly #signal: AbortSignal;
  /** Brokers with a fetch under way. */
  readonly #busy = new Set<number>();
  #allAssigned: readonly AssignedPartition[] = [];
  #woken = false;
  #timer: NodeJS.Timeout | undefined;
  #looking: NodeJS.Timeout | undefined;
  #nextLookMs = -Infinity;
  readonly #reading: Reading;
  /** Undefined: what is not committed is read, too. */
  readonly #heldBack: HeldBack | undefined;
  readonly #sessions = new WeakMap<KafkajsBroker, FetchSession>();
  readonly #pace: BrokerPace;
  readonly #errors: FetchErrors;

  constructor(ports: FetcherPorts, signal: AbortSignal) {
    this.#ports = ports;
    this.#pace = new BrokerPace(ports.settings.maxWaitMs);
    const isWanted = (assigned: AssignedPartition, offset: number): boolean => this.#isWanted(assigned, offset);
    this.#errors = new FetchErrors({ ...ports, isWanted, wake: () => this.wake() });
    this.#reading = new Reading({
      ...ports,
      isWanted,
      progressed: () => this.#pace.roomMade(),
      renewConnection: (assigned) => void this.#errors.renewConnection(assigned),
    });
    const { kafka, settings } = ports;
    this.#heldBack =
      settings.isolation === 'read_committed'
        ? new HeldBack({ ask: (positions) => openTransactions(kafka.cluster, positions), onEvent: settings.onEvent })
        : undefined;
    this.#signal = signal;
    const stop = (): void => {
      clearTimeout(this.#timer);
      clearTimeout(this.#looking);
    };
    signal.addEventListener('abort', stop, { once: true });
  }

  /** Replaces what is fetched for. Answers under way for others are thrown away when they come. */
  serve(allAssigned: readonly AssignedPartition[]): void {
    this.#allAssigned = allAssigned;
    this.wake();
  }

  /** There is room where there was none. */
  roomMade(): void {
    this.#pace.roomMade();
    this.wake();
  }

  /** Its state says where it goes on, and it was sent there. */
  claimed(assigned: AssignedPartition): void {
    assigned.isClaimed = true;
    // What it waited for has come: the pause until the next look would be for nothing.
    if (assigned.heldSinceMs !== undefined) assigned.notBeforeMs = 0;
    this.wake();
  }

  /** Something may have become fetchable. Cheap: many calls are one look, and looks are as rare as they are long. */
  wake(): void {
    if (this.#woken || this.#signal.aborted) return;
    this.#woken = true;
    const waitMs = this.#nextLookMs - performance.now();
    if (waitMs < 1) queueMicrotask(() => this.#look());
    else this.#looking = setTimeout(() => this.#look(), waitMs);
  }

  #look(): void {
    this.#woken = false;
    const beganMs = performance.now();
    this.#start();
    const endedMs = performance.now();
    this.#nextLookMs = endedMs + (endedMs - beganMs) * (1 / LOOK_PART - 1);
  }

  /** Looks at each partition once: read on, fetch, or leave it for later. */
  #start(): void {
    if (this.#signal.aborted) return;
    const { credits, settings } = this.#ports;
    const byLeader = new Map<number, { ready: AssignedPartition[]; waiting: boolean }>();
    const nowMs = performance.now();
    let laterMs = Infinity;
    for (const assigned of this.#allAssigned) {
      if (assigned.state !== 'active' || assigned.halted || settings.pauses.has(assigned.assignment)) continue;
      if (assigned.notBeforeMs > nowMs) {
        laterMs = Math.min(laterMs, assigned.notBeforeMs - nowMs);
        continue;
      }
      const leader = this.#errors.leaderOf(assigned);
      if (leader === undefined || this.#busy.has(leader)) continue;
      const group = byLeader.get(leader) ?? { ready: [], waiting: false };
      byLeader.set(leader, group);
      const isReady =
        !assigned.busy &&
        assigned.unread === undefined &&
        credits.mayFetch(assigned.assignment.assignmentId, assigned.next);
      if (isReady) group.ready.push(assigned);
      else group.waiting = true;
    }
    for (const assigned of this.#allAssigned) {
      const { unread, busy, assignment } = assigned;
      if (unread !== undefined && !busy && !settings.pauses.has(assignment) && this.#reading.mayRead(assigned))
        void this.#readOn(assigned);
    }
    for (const [leader, { ready, waiting }] of byLeader) if (ready.length > 0) void this.#fetch(leader, ready, waiting);
    clearTimeout(this.#timer);
    if (laterMs < Infinity) this.#timer = setTimeout(() => this.wake(), Math.ceil(laterMs));
  }

  async #fetch(leader: number, allAssigned: readonly AssignedPartition[], others: boolean): Promise<void> {
    const { settings, credits, kafka } = this.#ports;
    this.#busy.add(leader);
    let areBusy = true;
    const free = (): void => {
      if (areBusy) for (const assigned of allAssigned) assigned.busy = false;
      areBusy = false;
    };
    const asked = allAssigned.map((assigned) => {
      assigned.busy = true;
      const { topic, topicId, partition, assignmentId } = assigned.assignment;
      return {
        assigned,
        topic,
        topicId,
        partition,
        offset: assigned.next,
        maxBytes: credits.fetchBytes(assignmentId, settings.maxBytesPerPartition),
      };
    });
    try {
      const broker = checkedBroker(await kafka.cluster.findBroker({ nodeId: leader }));
      const maxWaitMs = this.#pace.answerWithinMs(leader, others);
      const { maxBytes, isolation } = settings;
      const askedMs = performance.now();
      const request = { maxWaitMs, maxBytes, isolation, partitions: asked };
      const answer = await fetchFrom(broker, request, this.#sessionOf(broker)).catch((thrown: unknown) => {
        forgetVersions(broker);
        // Only this one: heartbeats and commits to the same broker go on.
        if (isTimeout(thrown)) cutLane(broker.connectionPool, 'fetch');
        throw thrown;
      });
      const { partitions, throttleMs } = answer;
      const answeredMs = performance.now();
      const isIdle =
        throttleMs === 0 && partitions.every(({ errorCode, data }) => errorCode === 0 && data.length === 0);
      this.#pace.answered(leader, isIdle);
      if (isIdle) await this.#holdBack(leader, answeredMs - askedMs, maxWaitMs);
      if (answer.hasNewsOnly === true) this.#takeSilence(partitions, asked);
      await this.#take(partitions, asked);
      free();
      if (throttleMs > 0) await this.#waitOut(leader, throttleMs - (performance.now() - answeredMs));
    } catch (thrown) {
      await this.#brokerFailed(leader, thrown);
    } finally {
      free();
      this.#busy.delete(leader);
      this.wake();
    }
  }

  #sessionOf(broker: KafkajsBroker): FetchSession {
    const session = this.#sessions.get(broker) ?? new FetchSession();
    this.#sessions.set(broker, session);
    return session;
  }

  async #brokerFailed(leader: number, thrown: unknown): Promise<void> {
    if (this.#signal.aborted) return;
    if (classifyError(thrown) === 'fatal') {
      this.#ports.fail(kafkaError(thrown, `Fetching from broker ${leader}`));
      return;
    }
    const { attempt, pauseMs } = this.#pace.failed(leader);
    const reason = reasonOf(thrown);
    this.#ports.settings.log('warn', 'a fetch failed, trying again', { broker: leader, attempt, reason });
    await sleep(pauseMs, this.#signal);
    await this.#errors.refresh();
  }

  async #take(
    answer: readonly FetchedPartition[],
    asked: readonly { assigned: AssignedPartition; offset: number }[],
  ): Promise<void> {
    if (answer.length === 0) return;
    const requests = new Map(asked.map((request) => [nameOf(request.assigned.assignment), request]));
    let isFirst = true;
    let sinceMs = performance.now();
    for (const fetched of answer) {
      if (performance.now() - sinceMs >= TURN_LIMIT_MS) {
        await breathe();
        sinceMs = performance.now();
      }
      const hadNone = isFirst;
      isFirst &&= fetched.data.length === 0;
      const request = requests.get(nameOf(fetched));
      if (request === undefined || !this.#isWanted(request.assigned, request.offset)) continue;
      if (fetched.errorCode !== 0) await this.#errors.refused(request.assigned, request.offset, fetched.errorCode);
      else {
        request.assigned.leaderlessSinceMs = undefined;
        request.assigned.observedChange = undefined;
        request.assigned.log = { end: fetched.highWatermark, stableEnd: fetched.stableEnd };
        this.#heldBack?.see(request.assigned, fetched);
        await this.#reading.open(request.assigned, request.offset, fetched, hadNone);
      }
    }
  }

  /**
   * In a session a broker says nothing of a partition that is as it was: it is led, and its readable end stands still.
   */
  #takeSilence(
    answer: readonly FetchedPartition[],
    asked: readonly { assigned: AssignedPartition; offset: number }[],
  ): void {
    const answered = new Set(answer.map(nameOf));
    for (const { assigned, offset } of asked) {
      if (answered.size > 0 && answered.has(nameOf(assigned.assignment))) continue;
      if (!this.#isWanted(assigned, offset)) continue;
      assigned.leaderlessSinceMs = undefined;
      assigned.observedChange = undefined;
      this.#heldBack?.seeAgain(assigned);
    }
  }

  /** What is asked sooner lies unread with the broker, until it is taken for lost. What has come is read meanwhile. */
  async #waitOut(leader: number, throttleMs: number): Promise<void> {
    this.#ports.settings.log('info', 'a quota of the broker is exceeded, asking it later', {
      broker: leader,
      throttleMs: Math.ceil(throttleMs),
    });
    this.wake();
    await sleep(Math.min(throttleMs, MAX_THROTTLE_MS), this.#signal);
  }

  async #holdBack(leader: number, tookMs: number, limitMs: number): Promise<void> {
    const haste = this.#pace.hasteOf(leader, tookMs, limitMs);
    if (haste === undefined) return;
    const message = 'a broker answers fetches at once with nothing, asking it less often';
    if (haste.isNew) this.#ports.settings.log('warn', message, { broker: leader });
    await sleep(haste.pauseMs, this.#signal);
  }

  /** Not revoked, lost, halted, sought away or paused since it was asked for. */
  #isWanted(assigned: AssignedPartition, offset: number): boolean {
    return (
      assigned.state === 'active' &&
      !assigned.halted &&
      assigned.next === offset &&
      !this.#ports.settings.pauses.has(assigned.assignment) &&
      !this.#signal.aborted
    );
  }

  async #readOn(assigned: AssignedPartition): Promise<void> {
    assigned.busy = true;
    await this.#reading.read(assigned);
    assigned.busy = false;
    this.wake();
  }
}
