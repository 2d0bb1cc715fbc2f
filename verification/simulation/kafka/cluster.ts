// Imports: the topic, the coordinator, the clock. The brokers of a cluster as a whole: who is up, who leads what, who
// coordinates the group, and what each of them tells of it, which may be old.
import type { VirtualClock } from './clock.js';
import { Coordinator, type CoordinatorEvents } from './coordinator.js';
import { FetchSessions } from './fetch-sessions.js';
import type { KafkaLog } from './topic.js';

export interface PartitionNow {
  /** -1: none. */
  leader: number;
  /** It stays without a leader, whoever is up. */
  isOrphan: boolean;
}

export interface Topic {
  readonly log: KafkaLog;
  readonly partitions: PartitionNow[];
}

export interface BrokerState {
  readonly id: number;
  isUp: boolean;
  frozenUntilMs: number;
  /** What it tells of the cluster is so old. */
  readonly lagMs: number;
  readonly fetchSessions: FetchSessions;
}

/** What one look at the cluster shows. */
export interface View {
  readonly brokers: readonly number[];
  readonly topics: ReadonlyMap<string, { readonly id: string; readonly leaders: readonly number[] }>;
}

export interface ClusterConfig {
  readonly clock: VirtualClock;
  readonly brokers: number;
  /** After which somebody else leads what a broker led that is down or frozen. */
  readonly failoverMs: number;
  /** How long a coordinator loads what it takes over. */
  readonly loadingMs: number;
  readonly firstDelayMs: number;
  readonly lagMs: () => number;
  readonly events: CoordinatorEvents;
  readonly tell: (line: string) => void;
}

export const PORT = 9000;
const VIEWS_KEPT = 200;

export class Cluster {
  readonly brokers: readonly BrokerState[];
  readonly topics = new Map<string, Topic>();
  readonly coordinator: Coordinator;
  coordinatorId = 1;
  loadsUntilMs = 0;
  readonly #config: ClusterConfig;
  readonly #waiting = new Set<() => void>();
  #views: { readonly atMs: number; readonly view: View }[] = [];

  constructor(config: ClusterConfig) {
    this.#config = config;
    this.brokers = Array.from({ length: config.brokers }, (_, i) => ({
      id: i + 1,
      isUp: true,
      frozenUntilMs: 0,
      lagMs: config.lagMs(),
      fetchSessions: new FetchSessions(),
    }));
    this.coordinator = new Coordinator(config.clock, config.events, config.firstDelayMs);
  }

  add(log: KafkaLog): void {
    this.topics.set(log.topic, { log, partitions: [] });
    this.grow(log.topic, log.partitions);
  }

  grow(name: string, partitions: number): void {
    const topic = this.topics.get(name)!;
    topic.log.grow(partitions);
    while (topic.partitions.length < partitions)
      topic.partitions.push({ leader: 1 + (topic.partitions.length % this.brokers.length), isOrphan: false });
    this.changed();
  }

  recreate(name: string): void {
    this.topics.get(name)!.log.recreate();
    this.#config.tell(`topic ${name} is recreated`);
    this.changed();
  }

  broker(id: number): BrokerState {
    return this.brokers[id - 1]!;
  }

  isServing({ isUp, frozenUntilMs }: BrokerState): boolean {
    return isUp && frozenUntilMs <= this.#config.clock.nowMs;
  }

  down(id: number): void {
    this.broker(id).isUp = false;
    this.broker(id).fetchSessions.clear();
    this.#config.tell(`broker ${id} is down`);
    this.#failOver(id);
  }

  up(id: number): void {
    this.broker(id).isUp = true;
    this.#config.tell(`broker ${id} is up`);
    this.elect();
  }

  freeze(id: number, ms: number): void {
    const { clock, tell } = this.#config;
    this.broker(id).frozenUntilMs = Math.max(this.broker(id).frozenUntilMs, clock.nowMs + ms);
    tell(`broker ${id} freezes for ${ms} ms`);
    this.#failOver(id);
    clock.after(ms, undefined, () => {
      this.elect();
    });
  }

  /** A partition without a leader, until it is given one. */
  orphan(name: string, partition: number, isOrphan: boolean): void {
    const found = this.topics.get(name)!.partitions[partition];
    if (found === undefined) return;
    found.isOrphan = isOrphan;
    this.#config.tell(`${name}/${partition} ${isOrphan ? 'has no leader' : 'may have a leader again'}`);
    this.elect();
  }

  moveLeader(name: string, partition: number): void {
    const found = this.topics.get(name)!.partitions[partition];
    if (found === undefined || found.isOrphan) return;
    found.leader = this.#another(found.leader);
    this.#config.tell(`${name}/${partition} is led by ${found.leader}`);
    this.changed();
  }

  moveCoordinator(): void {
    const to = this.#another(this.coordinatorId);
    this.coordinatorId = to;
    this.loadsUntilMs = this.#config.clock.nowMs + this.#config.loadingMs;
    this.#config.tell(`broker ${to} coordinates the group, and loads`);
    this.coordinator.moved();
  }

  /** Whoever can lead something leads it. */
  elect(): void {
    for (const { partitions } of this.topics.values()) {
      for (const partition of partitions) {
        const isLed = this.#serves(partition.leader);
        if (partition.isOrphan) partition.leader = -1;
        else if (!isLed) partition.leader = this.#another(partition.leader);
      }
    }
    if (!this.#serves(this.coordinatorId) && this.brokers.some((each) => this.isServing(each))) this.moveCoordinator();
    this.changed();
  }

  /** As the broker knows it. */
  view(id: number): View {
    const beforeMs = this.#config.clock.nowMs - this.broker(id).lagMs;
    return (this.#views.findLast(({ atMs }) => atMs <= beforeMs) ?? this.#views[0]!).view;
  }

  /** Something may be different for those who wait. */
  changed(): void {
    const topics = new Map(
      [...this.topics].map(([name, { log, partitions }]) => [
        name,
        { id: log.topicId, leaders: partitions.map(({ leader }) => leader) },
      ]),
    );
    const { nowMs } = this.#config.clock;
    // What stands before time begins is known to all.
    if (nowMs === 0) this.#views = [];
    this.#views.push({
      atMs: nowMs,
      view: { brokers: this.brokers.filter(({ isUp }) => isUp).map(({ id }) => id), topics },
    });
    if (this.#views.length > VIEWS_KEPT) this.#views = this.#views.slice(-VIEWS_KEPT / 2);
    this.wake();
  }

  /** Fetches that wait look again. */
  wake(): void {
    for (const look of [...this.#waiting]) look();
  }

  waits(look: () => void): () => void {
    this.#waiting.add(look);
    return () => this.#waiting.delete(look);
  }

  topicById(id: string): Topic | undefined {
    return [...this.topics.values()].find(({ log }) => log.topicId === id);
  }

  #failOver(id: number): void {
    this.changed();
    this.#config.clock.after(this.#config.failoverMs, undefined, () => {
      if (!this.isServing(this.broker(id))) this.elect();
    });
  }

  #another(than: number): number {
    const serving = this.brokers.filter((each) => this.isServing(each) && each.id !== than);
    const [first] = serving;
    if (first !== undefined) return (serving.find(({ id }) => id > than) ?? first).id;
    return this.#serves(than) ? than : -1;
  }

  /** -1 is nobody. */
  #serves(id: number): boolean {
    return id > 0 && this.isServing(this.broker(id));
  }
}
