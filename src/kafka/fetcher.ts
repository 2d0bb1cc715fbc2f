/**
 * Room: keeps one fetch under way at each broker that leads a partition of ours with room for more, and delivers what
 * comes as chunks. Positions, errors and leaders are looked after for each partition by itself: what befalls one does
 * not stop the others, and none of it makes the group rebalance. No group protocol may enter.
 */
import { IngestError } from '../errors.js';
import type { Chunk } from '../model/record.js';
import type { Credits } from '../model/credits.js';
import { fetchFrom, renewFetchConnection, type FetchedPartition } from './fetch.js';
import type { SourceSettings } from './options.js';
import { nameOf } from './assignor.js';
import { HeldBack } from './held-back.js';
import { cutLane } from './lanes.js';
import type { Reset } from './places.js';
import { EARLIEST, LATEST, listOffsets, outOfRange, type Beyond } from './positions.js';
import { Reading } from './reading.js';
import type { Tenure } from './tenure.js';
import { knownLeader, knownTopicId, partitionTrouble } from './topic-ids.js';
import { isTimeout, kafkaError, kafkaType, reasonOf, troubleOf } from './trouble.js';
import { Backoff, breathe, sleep } from './wait.js';
import { checkedBroker, forgetVersions } from './broker.js';
import type { Wire } from './wire.js';

export interface FetcherPorts {
  readonly wire: Wire;
  readonly settings: SourceSettings;
  readonly credits: Credits;
  readonly deliver: (tenure: Tenure, chunk: Chunk) => void;
  /** This partition cannot go on; the others can. */
  readonly failed: (tenure: Tenure, error: IngestError) => void;
  /** Its topic is not the one any more that the tenure began with. */
  readonly reset: (tenure: Tenure, reset: Reset) => void;
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
  #tenures: readonly Tenure[] = [];
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
      isWanted: (tenure, offset) => this.#isWanted(tenure, offset),
      progressed: () => this.#shortWaits.clear(),
      renewConnection: (tenure) => void this.#renewConnection(tenure),
    });
    const { wire, settings } = ports;
    this.#heldBack =
      settings.isolation === 'read_committed' ? new HeldBack({ wire, report: settings.report }) : undefined;
    this.#signal = signal;
    const stop = (): void => {
      clearTimeout(this.#timer);
      clearTimeout(this.#looking);
    };
    signal.addEventListener('abort', stop, { once: true });
  }

  /** Replaces what is fetched for. Answers under way for others are thrown away when they come. */
  serve(tenures: readonly Tenure[]): void {
    this.#tenures = tenures;
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
  claimed(tenure: Tenure): void {
    tenure.isClaimed = true;
    // What it waited for has come: the pause until the next look would be for nothing.
    if (tenure.heldSinceMs !== undefined) tenure.notBeforeMs = 0;
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
    const byLeader = new Map<number, { ready: Tenure[]; waiting: boolean }>();
    const nowMs = performance.now();
    let laterMs = Infinity;
    for (const tenure of this.#tenures) {
      if (tenure.state !== 'active' || tenure.halted) continue;
      if (tenure.notBeforeMs > nowMs) {
        laterMs = Math.min(laterMs, tenure.notBeforeMs - nowMs);
        continue;
      }
      const leader = this.#leaderOf(tenure);
      if (leader === undefined || this.#busy.has(leader)) continue;
      const group = byLeader.get(leader) ?? { ready: [], waiting: false };
      byLeader.set(leader, group);
      const isReady =
        !tenure.busy && tenure.unread === undefined && credits.mayFetch(tenure.assignment.epoch, tenure.next);
      if (isReady) group.ready.push(tenure);
      else group.waiting = true;
    }
    for (const tenure of this.#tenures) {
      if (tenure.unread !== undefined && !tenure.busy && this.#reading.mayRead(tenure)) void this.#readOn(tenure);
    }
    for (const [leader, { ready, waiting }] of byLeader) if (ready.length > 0) void this.#fetch(leader, ready, waiting);
    clearTimeout(this.#timer);
    if (laterMs < Infinity) this.#timer = setTimeout(() => this.wake(), Math.ceil(laterMs));
  }

  #leaderOf(tenure: Tenure): number | undefined {
    const { topic, partition } = tenure.assignment;
    const { cluster } = this.#ports.wire;
    const leader = knownLeader(cluster, topic, partition);
    if (leader !== undefined) return leader;
    const type = partitionTrouble(cluster, topic, partition);
    if (troubleOf({ type }) === 'fatal') this.#ports.failed(tenure, refused(type, tenure));
    else this.#lookForLeader(tenure, type);
    return undefined;
  }

  async #fetch(leader: number, tenures: readonly Tenure[], others: boolean): Promise<void> {
    const { settings, credits, wire } = this.#ports;
    this.#busy.add(leader);
    let areBusy = true;
    const free = (): void => {
      if (areBusy) for (const tenure of tenures) tenure.busy = false;
      areBusy = false;
    };
    const asked = tenures.map((tenure) => {
      tenure.busy = true;
      const { topic, topicId, partition, epoch } = tenure.assignment;
      return {
        tenure,
        topic,
        topicId,
        partition,
        offset: tenure.next,
        maxBytes: credits.fetchBytes(epoch, settings.maxBytesPerPartition),
      };
    });
    try {
      const broker = checkedBroker(await wire.cluster.findBroker({ nodeId: leader }));
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
    if (troubleOf(thrown) === 'fatal') {
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
    asked: readonly { tenure: Tenure; offset: number }[],
  ): Promise<void> {
    const requests = new Map(asked.map((request) => [nameOf(request.tenure.assignment), request]));
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
      if (request === undefined || !this.#isWanted(request.tenure, request.offset)) continue;
      if (fetched.errorCode !== 0) await this.#partitionFailed(request.tenure, request.offset, fetched.errorCode);
      else {
        request.tenure.leaderlessSinceMs = undefined;
        request.tenure.doubt = undefined;
        this.#heldBack?.see(request.tenure, fetched);
        await this.#reading.open(request.tenure, request.offset, fetched, hadNone);
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

  async #renewConnection(tenure: Tenure): Promise<void> {
    const nodeId = this.#leaderOf(tenure);
    if (nodeId === undefined) return;
    await this.#ports.wire.cluster
      .findBroker({ nodeId })
      .then(renewFetchConnection)
      .catch(() => undefined);
  }

  /** Not revoked, lost, halted, sought away or paused since it was asked for. */
  #isWanted(tenure: Tenure, offset: number): boolean {
    return (
      tenure.state === 'active' && !tenure.halted && tenure.next === offset && !this.#paused && !this.#signal.aborted
    );
  }

  async #readOn(tenure: Tenure): Promise<void> {
    tenure.busy = true;
    await this.#reading.read(tenure);
    tenure.busy = false;
    this.wake();
  }

  async #partitionFailed(tenure: Tenure, offset: number, errorCode: number): Promise<void> {
    const type = CODES[errorCode] ?? `error ${errorCode}`;
    try {
      if (type === 'OFFSET_OUT_OF_RANGE') return await this.#outOfRange(tenure, offset);
    } catch (thrown) {
      if (troubleOf(thrown) !== 'fatal') return this.#lookForLeader(tenure, kafkaType(thrown) ?? reasonOf(thrown));
      return this.#ports.failed(tenure, kafkaError(thrown, 'Asking for the ends of the log', whereOf(tenure)));
    }
    if (troubleOf({ type }) === 'fatal') this.#ports.failed(tenure, refused(type, tenure));
    else this.#lookForLeader(tenure, type);
  }

  /** The leader moved, is being elected, or the topic is gone. No rebalance: the partition stays ours. */
  #lookForLeader(tenure: Tenure, type: string): void {
    const { topic, partition } = tenure.assignment;
    const nowMs = performance.now();
    tenure.notBeforeMs = nowMs + PARTITION_RETRY_MS;
    if (tenure.leaderlessSinceMs === undefined) {
      tenure.leaderlessSinceMs = nowMs;
      this.#ports.settings.log('warn', 'looking for the leader of a partition', { topic, partition, reason: type });
    }
    if (type === 'UNKNOWN_TOPIC_OR_PARTITION' && nowMs - tenure.leaderlessSinceMs > NO_LEADER_LIMIT_MS) {
      const message = 'The topic or partition does not exist any more';
      this.#ports.failed(
        tenure,
        new IngestError('KCR_TOPIC_MISSING', message, {
          topic,
          partition,
          hint: 'create it again, or take it off the list',
        }),
      );
      return;
    }
    void this.#refresh().then((isFresh) => {
      if (isFresh) this.#compareIds(tenure);
      this.wake();
    });
  }

  /** A leader that does not know the id may be behind, or ahead: the topic was created anew when Kafka keeps saying so. */
  #compareIds(tenure: Tenure): void {
    const { topic, topicId: was } = tenure.assignment;
    const topicId = knownTopicId(this.#ports.wire.cluster, topic);
    if (topicId === was) tenure.doubt = undefined;
    if (was === undefined || topicId === undefined || topicId === was || tenure.state !== 'active' || tenure.halted)
      return;
    if (this.#believes(tenure, topicId)) this.#ports.reset(tenure, { kind: 'recreated', was, topicId });
  }

  #believes(tenure: Tenure, what: string): boolean {
    const looks = tenure.doubt?.what === what ? tenure.doubt.looks + 1 : 1;
    tenure.doubt = { what, looks };
    tenure.notBeforeMs = performance.now() + PARTITION_RETRY_MS;
    return looks >= LOOKS;
  }

  async #outOfRange(tenure: Tenure, wanted: number): Promise<void> {
    const { settings, wire, failed, reset } = this.#ports;
    const ends = async (timestamp: string): Promise<number> => {
      const [end] = await listOffsets(wire, [whereOf(tenure)], { timestamp, isolation: 'read_uncommitted' });
      return end?.offset ?? -1;
    };
    const where = { ...whereOf(tenure), wanted, logStart: await ends(EARLIEST), logEnd: await ends(LATEST) };
    if (!this.#isWanted(tenure, wanted)) return;
    if (wanted >= where.logStart && wanted <= where.logEnd) {
      // A new leader that has yet to catch up, or records that came just now.
      tenure.notBeforeMs = performance.now() + PARTITION_RETRY_MS;
      tenure.doubt = undefined;
      return;
    }
    const goOnAt = settings.onOutOfRange(where);
    if (goOnAt !== undefined) return this.#goOnAt(tenure, goOnAt, where);
    if (this.#awaitsClaim(tenure, where)) return;
    if (wanted < where.logStart) return failed(tenure, outOfRange(where));
    if (!this.#believes(tenure, 'truncated')) return;
    // Nobody sent it elsewhere in all the time: there is no state to decide, only the group's word.
    if (tenure.isUnproven && settings.onReset === 'halt') return failed(tenure, outOfRange(where));
    reset(tenure, { kind: 'truncated', ...where });
  }

  /** The group's offset is only where to begin unless the state says otherwise, which takes a while. */
  #awaitsClaim(tenure: Tenure, where: Beyond): boolean {
    if (!this.#ports.settings.stateDecides || !tenure.isUnproven || tenure.isClaimed) return false;
    const nowMs = performance.now();
    if (tenure.heldSinceMs === undefined) {
      tenure.heldSinceMs = nowMs;
      this.#ports.settings.log(
        'warn',
        "the group's offset is out of range, waiting for the state to say where to go on",
        { ...where },
      );
    }
    tenure.notBeforeMs = nowMs + CLAIM_RETRY_MS;
    return nowMs - tenure.heldSinceMs < CLAIM_LIMIT_MS;
  }

  #goOnAt(tenure: Tenure, goOnAt: number, where: Beyond): void {
    const { settings, deliver } = this.#ports;
    const { wanted, logEnd } = where;
    settings.log('warn', 'an offset was out of range, going on at another', { ...where, goOnAt });
    tenure.next = goOnAt;
    if (goOnAt <= wanted) return;
    // What is gone is told, and covered by a chunk without records: chunks stay contiguous, whoever waits for `wanted`.
    settings.report({ kind: 'gap', assignment: tenure.assignment, expected: wanted, found: goOnAt });
    deliver(tenure, {
      assignment: tenure.assignment,
      afterOffset: wanted - 1,
      lastOffset: goOnAt - 1,
      records: [],
      bytes: 0,
      highWatermark: logEnd,
    });
  }

  /** Tells whether a broker has answered. */
  #refresh(): Promise<boolean> {
    this.#refreshing ??= this.#ports.wire.cluster
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

function whereOf({ assignment: { topic, partition } }: Tenure): { topic: string; partition: number } {
  return { topic, partition };
}

function refused(type: string, tenure: Tenure): IngestError {
  return kafkaError(Object.assign(new Error(type), { type }), 'Fetching', whereOf(tenure));
}
