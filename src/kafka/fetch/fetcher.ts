/**
 * Room: keeps one fetch under way at each broker that leads a partition of ours with room for more, and delivers what
 * comes as chunks. Positions, errors and leaders are looked after for each partition by itself: what befalls one does
 * not stop the others, and none of it makes the group rebalance. No group protocol may enter.
 */
import { IngestError } from '../../errors.js';
import type { Chunk } from '../../model/record.js';
import type { Credits } from '../../model/credits.js';
import { fetchFrom, renewFetchConnection, type FetchedPartition } from './fetch-request.js';
import type { SourceSettings } from '../options.js';
import { nameOf } from '../group/assignor.js';
import { HeldBack } from './held-back.js';
import { cutLane } from '../connection/lanes.js';
import type { Reset } from '../group/start-offsets.js';
import { EARLIEST, LATEST, listOffsets, outOfRange, type Beyond } from '../connection/list-offsets.js';
import { Reading } from './reading.js';
import type { AssignedPartition } from '../group/assigned-partition.js';
import { knownLeader, knownTopicId, partitionTrouble } from '../connection/metadata.js';
import { isTimeout, kafkaError, kafkaType, reasonOf, classifyError } from '../connection/classify-error.js';
import { Backoff, breathe, sleep } from '../connection/wait.js';
import { checkedBroker, forgetVersions } from '../connection/broker.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';

export interface FetcherPorts {
  readonly kafka: KafkaConnection;
  readonly settings: SourceSettings;
  readonly credits: Credits;
  readonly deliver: (assigned: AssignedPartition, chunk: Chunk) => void;
  /** This partition cannot go on; the others can. */
  readonly failed: (assigned: AssignedPartition, error: IngestError) => void;
  /** Its topic is not the one any more that the tenure began with. */
  readonly reset: (assigned: AssignedPartition, reset: Reset) => void;
  /** Nothing can go on. */
  readonly fail: (error: IngestError) => void;
}

/** While a partition waits for room, a fetch of the others is not let to wait long at first: it would hold this one up. */
const SHORT_WAIT_MS = 20;
const PARTITION_RETRY_MS = 200;
/** An answer with nothing may come early once in a while: when leaders change, when a wait is short. */
const HASTY_ANSWERS = 3;
const NO_LEADER_LIMIT_MS = 60_000;
/** A broker throttles for a few of its quota's windows, seconds; it may say anything. */
const MAX_THROTTLE_MS = 30_000;
/** Longer than this nobody else has to wait while the partitions of one answer are read. */
const TURN_LIMIT_MS = 10;
/** Looking at all partitions may take so much of the time: with thousands one look takes some milliseconds. */
const LOOK_PART = 0.1;
/** A broker may lag behind: what would end a tenure is believed when it was seen so often in a row. */
const LOOKS = 3;
/** How long a partition without a place to begin waits for its claim to send it to one. */
const CLAIM_LIMIT_MS = 30_000;
const CLAIM_RETRY_MS = 500;

const CODES: Readonly<Record<number, string>> = {
  1: 'OFFSET_OUT_OF_RANGE',
  3: 'UNKNOWN_TOPIC_OR_PARTITION',
  5: 'LEADER_NOT_AVAILABLE',
  6: 'NOT_LEADER_FOR_PARTITION',
  29: 'TOPIC_AUTHORIZATION_FAILED',
  56: 'KAFKA_STORAGE_ERROR',
  74: 'FENCED_LEADER_EPOCH',
  75: 'UNKNOWN_LEADER_EPOCH',
  78: 'OFFSET_NOT_AVAILABLE',
  100: 'UNKNOWN_TOPIC_ID',
  103: 'INCONSISTENT_TOPIC_ID',
};

export class Fetcher {
  readonly #ports: FetcherPorts;
  readonly #signal: AbortSignal;
  /** Brokers with a fetch under way. */
  readonly #busy = new Set<number>();
  readonly #backoffs = new Map<number, Backoff>();
  /** Waits of fetches while others wait for room: they grow as long as nothing comes and no room is made. */
  readonly #shortWaits = new Map<number, number>();
  #allAssigned: readonly AssignedPartition[] = [];
  #paused = false;
  #woken = false;
  #refreshing: Promise<boolean> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: NodeJS.Timeout | undefined;
  #nextLookMs = -Infinity;
  readonly #reading: Reading;
  /** Undefined: what is not committed is read, too. */
  readonly #heldBack: HeldBack | undefined;
  /** Answers in a row, of each broker, that came at once and with nothing. */
  readonly #hasty = new Map<number, Backoff>();

  constructor(ports: FetcherPorts, signal: AbortSignal) {
    this.#ports = ports;
    this.#reading = new Reading({
      ...ports,
      isWanted: (assigned, offset) => this.#isWanted(assigned, offset),
      progressed: () => this.#shortWaits.clear(),
      renewConnection: (assigned) => void this.#renewConnection(assigned),
    });
    const { kafka, settings } = ports;
    this.#heldBack =
      settings.isolation === 'read_committed' ? new HeldBack({ kafka, onEvent: settings.onEvent }) : undefined;
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

  pause(paused: boolean): void {
    this.#paused = paused;
    if (!paused) this.wake();
  }

  /** There is room where there was none. */
  roomMade(): void {
    this.#shortWaits.clear();
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
    if (this.#signal.aborted || this.#paused) return;
    const { credits } = this.#ports;
    const byLeader = new Map<number, { ready: AssignedPartition[]; waiting: boolean }>();
    const nowMs = performance.now();
    let laterMs = Infinity;
    for (const assigned of this.#allAssigned) {
      if (assigned.state !== 'active' || assigned.halted) continue;
      if (assigned.notBeforeMs > nowMs) {
        laterMs = Math.min(laterMs, assigned.notBeforeMs - nowMs);
        continue;
      }
      const leader = this.#leaderOf(assigned);
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
      if (assigned.unread !== undefined && !assigned.busy && this.#reading.mayRead(assigned))
        void this.#readOn(assigned);
    }
    for (const [leader, { ready, waiting }] of byLeader) if (ready.length > 0) void this.#fetch(leader, ready, waiting);
    clearTimeout(this.#timer);
    if (laterMs < Infinity) this.#timer = setTimeout(() => this.wake(), Math.ceil(laterMs));
  }

  #leaderOf(assigned: AssignedPartition): number | undefined {
    const { topic, partition } = assigned.assignment;
    const { cluster } = this.#ports.kafka;
    const leader = knownLeader(cluster, topic, partition);
    if (leader !== undefined) return leader;
    const type = partitionTrouble(cluster, topic, partition);
    if (classifyError({ type }) === 'fatal') this.#ports.failed(assigned, refused(type, assigned));
    else this.#lookForLeader(assigned, type);
    return undefined;
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
      const maxWaitMs = others ? this.#shortWait(leader) : settings.maxWaitMs;
      const { maxBytes, isolation } = settings;
      const askedMs = performance.now();
      const { partitions, throttleMs } = await fetchFrom(broker, {
        maxWaitMs,
        maxBytes,
        isolation,
        partitions: asked,
      }).catch((thrown: unknown) => {
        forgetVersions(broker);
        // Only this one: heartbeats and commits to the same broker go on.
        if (isTimeout(thrown)) cutLane(broker.connectionPool, 'fetch');
        throw thrown;
      });
      this.#backoffs.delete(leader);
      const answeredMs = performance.now();
      if (throttleMs > 0 || partitions.some(({ errorCode, data }) => errorCode !== 0 || data.length > 0))
        this.#hasty.delete(leader);
      else await this.#holdBack(leader, answeredMs - askedMs, maxWaitMs);
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

  #shortWait(leader: number): number {
    const waitMs = Math.min(this.#shortWaits.get(leader) ?? SHORT_WAIT_MS, this.#ports.settings.maxWaitMs);
    this.#shortWaits.set(leader, waitMs * 2);
    return waitMs;
  }

  async #brokerFailed(leader: number, thrown: unknown): Promise<void> {
    if (this.#signal.aborted) return;
    if (classifyError(thrown) === 'fatal') {
      this.#ports.fail(kafkaError(thrown, `Fetching from broker ${leader}`));
      return;
    }
    const backoff = this.#backoffs.get(leader) ?? new Backoff();
    this.#backoffs.set(leader, backoff);
    this.#ports.settings.log('warn', 'a fetch failed, trying again', {
      broker: leader,
      attempt: backoff.failures + 1,
      reason: reasonOf(thrown),
    });
    await sleep(backoff.next(), this.#signal);
    await this.#refresh();
  }

  async #take(
    answer: readonly FetchedPartition[],
    asked: readonly { assigned: AssignedPartition; offset: number }[],
  ): Promise<void> {
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
      if (fetched.errorCode !== 0) await this.#partitionFailed(request.assigned, request.offset, fetched.errorCode);
      else {
        request.assigned.leaderlessSinceMs = undefined;
        request.assigned.observedChange = undefined;
        this.#heldBack?.see(request.assigned, fetched);
        await this.#reading.open(request.assigned, request.offset, fetched, hadNone);
      }
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

  /** A broker waits before it answers with nothing. One that does not would be asked thousands of times a second. */
  async #holdBack(leader: number, tookMs: number, maxWaitMs: number): Promise<void> {
    if (tookMs >= maxWaitMs / 2) return void this.#hasty.delete(leader);
    const backoff = this.#hasty.get(leader) ?? new Backoff();
    this.#hasty.set(leader, backoff);
    const pauseMs = Math.min(backoff.next(), Math.max(this.#ports.settings.maxWaitMs, SHORT_WAIT_MS));
    if (backoff.failures <= HASTY_ANSWERS) return;
    if (backoff.failures === HASTY_ANSWERS + 1)
      this.#ports.settings.log('warn', 'a broker answers fetches at once with nothing, asking it less often', {
        broker: leader,
      });
    await sleep(pauseMs, this.#signal);
  }

  async #renewConnection(assigned: AssignedPartition): Promise<void> {
    const nodeId = this.#leaderOf(assigned);
    if (nodeId === undefined) return;
    await this.#ports.kafka.cluster
      .findBroker({ nodeId })
      .then(renewFetchConnection)
      .catch(() => undefined);
  }

  /** Not revoked, lost, halted, sought away or paused since it was asked for. */
  #isWanted(assigned: AssignedPartition, offset: number): boolean {
    return (
      assigned.state === 'active' &&
      !assigned.halted &&
      assigned.next === offset &&
      !this.#paused &&
      !this.#signal.aborted
    );
  }

  async #readOn(assigned: AssignedPartition): Promise<void> {
    assigned.busy = true;
    await this.#reading.read(assigned);
    assigned.busy = false;
    this.wake();
  }

  async #partitionFailed(assigned: AssignedPartition, offset: number, errorCode: number): Promise<void> {
    const type = CODES[errorCode] ?? `error ${errorCode}`;
    try {
      if (type === 'OFFSET_OUT_OF_RANGE') return await this.#outOfRange(assigned, offset);
    } catch (thrown) {
      if (classifyError(thrown) !== 'fatal')
        return this.#lookForLeader(assigned, kafkaType(thrown) ?? reasonOf(thrown));
      return this.#ports.failed(assigned, kafkaError(thrown, 'Asking for the ends of the log', whereOf(assigned)));
    }
    if (classifyError({ type }) === 'fatal') this.#ports.failed(assigned, refused(type, assigned));
    else this.#lookForLeader(assigned, type);
  }

  /** The leader moved, is being elected, or the topic is gone. No rebalance: the partition stays ours. */
  #lookForLeader(assigned: AssignedPartition, type: string): void {
    const { topic, partition } = assigned.assignment;
    const nowMs = performance.now();
    assigned.notBeforeMs = nowMs + PARTITION_RETRY_MS;
    if (assigned.leaderlessSinceMs === undefined) {
      assigned.leaderlessSinceMs = nowMs;
      this.#ports.settings.log('warn', 'looking for the leader of a partition', { topic, partition, reason: type });
    }
    if (type === 'UNKNOWN_TOPIC_OR_PARTITION' && nowMs - assigned.leaderlessSinceMs > NO_LEADER_LIMIT_MS) {
      const message = 'The topic or partition does not exist any more';
      this.#ports.failed(
        assigned,
        new IngestError('KCR_TOPIC_MISSING', message, {
          topic,
          partition,
          hint: 'create it again, or take it off the list',
        }),
      );
      return;
    }
    void this.#refresh().then((isFresh) => {
      if (isFresh) this.#compareIds(assigned);
      this.wake();
    });
  }

  /** A leader that does not know the id may be behind, or ahead: the topic was created anew when Kafka keeps saying so. */
  #compareIds(assigned: AssignedPartition): void {
    const { topic, topicId: was } = assigned.assignment;
    const topicId = knownTopicId(this.#ports.kafka.cluster, topic);
    if (topicId === was) assigned.observedChange = undefined;
    if (was === undefined || topicId === undefined || topicId === was || assigned.state !== 'active' || assigned.halted)
      return;
    if (this.#believes(assigned, topicId)) this.#ports.reset(assigned, { kind: 'recreated', was, topicId });
  }

  #believes(assigned: AssignedPartition, what: string): boolean {
    const looks = assigned.observedChange?.what === what ? assigned.observedChange.looks + 1 : 1;
    assigned.observedChange = { what, looks };
    assigned.notBeforeMs = performance.now() + PARTITION_RETRY_MS;
    return looks >= LOOKS;
  }

  async #outOfRange(assigned: AssignedPartition, wanted: number): Promise<void> {
    const { settings, kafka, failed, reset } = this.#ports;
    const ends = async (timestamp: string): Promise<number> => {
      const [end] = await listOffsets(kafka, [whereOf(assigned)], { timestamp, isolation: 'read_uncommitted' });
      return end?.offset ?? -1;
    };
    const where = { ...whereOf(assigned), wanted, logStart: await ends(EARLIEST), logEnd: await ends(LATEST) };
    if (!this.#isWanted(assigned, wanted)) return;
    if (wanted >= where.logStart && wanted <= where.logEnd) {
      // A new leader that has yet to catch up, or records that came just now.
      assigned.notBeforeMs = performance.now() + PARTITION_RETRY_MS;
      assigned.observedChange = undefined;
      return;
    }
    const goOnAt = settings.onOutOfRange(where);
    if (goOnAt !== undefined) return this.#goOnAt(assigned, goOnAt, where);
    if (this.#awaitsClaim(assigned, where)) return;
    if (wanted < where.logStart) return failed(assigned, outOfRange(where));
    if (!this.#believes(assigned, 'truncated')) return;
    // Nobody sent it elsewhere in all the time: there is no state to decide, only the group's word.
    if (assigned.isUnproven && settings.onReset === 'halt') return failed(assigned, outOfRange(where));
    reset(assigned, { kind: 'truncated', ...where });
  }

  /** The group's offset is only where to begin unless the state says otherwise, which takes a while. */
  #awaitsClaim(assigned: AssignedPartition, where: Beyond): boolean {
    if (!this.#ports.settings.stateDecides || !assigned.isUnproven || assigned.isClaimed) return false;
    const nowMs = performance.now();
    if (assigned.heldSinceMs === undefined) {
      assigned.heldSinceMs = nowMs;
      this.#ports.settings.log(
        'warn',
        "the group's offset is out of range, waiting for the state to say where to go on",
        { ...where },
      );
    }
    assigned.notBeforeMs = nowMs + CLAIM_RETRY_MS;
    return nowMs - assigned.heldSinceMs < CLAIM_LIMIT_MS;
  }

  #goOnAt(assigned: AssignedPartition, goOnAt: number, where: Beyond): void {
    const { settings, deliver } = this.#ports;
    const { wanted, logEnd } = where;
    settings.log('warn', 'an offset was out of range, going on at another', { ...where, goOnAt });
    assigned.next = goOnAt;
    if (goOnAt <= wanted) return;
    // What is gone is told, and covered by a chunk without records: chunks stay contiguous, whoever waits for `wanted`.
    settings.onEvent({ kind: 'gap', assignment: assigned.assignment, expected: wanted, found: goOnAt });
    deliver(assigned, {
      assignment: assigned.assignment,
      afterOffset: wanted - 1,
      lastOffset: goOnAt - 1,
      records: [],
      bytes: 0,
      highWatermark: logEnd,
    });
  }

  /** Tells whether a broker has answered. */
  #refresh(): Promise<boolean> {
    this.#refreshing ??= this.#ports.kafka.cluster
      .refreshMetadata()
      .then(
        () => true,
        (thrown: unknown) => {
          this.#ports.settings.log('warn', 'no broker told its metadata', { reason: reasonOf(thrown) });
          return false;
        },
      )
      .finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }
}

function whereOf({ assignment: { topic, partition } }: AssignedPartition): { topic: string; partition: number } {
  return { topic, partition };
}

function refused(type: string, assigned: AssignedPartition): IngestError {
  return kafkaError(Object.assign(new Error(type), { type }), 'Fetching', whereOf(assigned));
}
