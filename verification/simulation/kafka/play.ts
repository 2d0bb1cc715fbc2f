// Imports: everything beside it. One run: a cluster, the processes of one group with everything that ships above their
// sockets, a store and a table, from the beginning to the end in virtual time. Then the verdict.
import { exactlyOnce } from '../../../src/pipeline/exactly-once.js';
import { IngestError } from '../../../src/errors.js';
import type { KafkaSource } from '../../../src/kafka/source.js';
import { chosenOffset } from '../../../src/model/state-codec.js';
import type { MemoryNodes } from '../../../src/state/memory.js';
import { SimulatedWorld, checkExactlyOnce } from '../../../src/testing/index.js';
import type { Finding } from '../play.js';
import { Dice } from '../scenario.js';
import type { AcceptedCommit } from './answers.js';
import { Brokers } from './broker.js';
import { VirtualClock } from './clock.js';
import { Cluster } from './cluster.js';
import { Counters } from './counters.js';
import { dealer } from './dealer.js';
import { happen, type Stage } from './happen.js';
import { openOver, type Network } from './network.js';
import { memberOf, type Member } from './process.js';
import { OTHER, READ, type KafkaScenario, type LifePlan } from './scenario.js';
import { KafkaLog } from './topic.js';
import { Weather } from './weather.js';

export interface KafkaPlayOptions {
  readonly tell?: (line: string) => void;
  /** A sabotage's: what is broken while the run lasts. Gives back what mends it. */
  readonly sabotage?: {
    readonly changeSource?: (source: KafkaSource) => KafkaSource;
    readonly install?: () => () => void;
  };
}

export interface KafkaPlayed {
  readonly findings: readonly Finding[];
  readonly lives: number;
  readonly rows: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly counters: Counters;
}

/** After the last trouble everything has to be delivered within so long: a renewed partition may have to wait for some sessions. */
const LIVENESS_MS = 90_000;
/** When everything is delivered; where requests hang on their way, until the last of them has landed. */
const QUIET_MS = 700;
const LOOK_MS = 200;

export async function playKafka(scenario: KafkaScenario, options: KafkaPlayOptions = {}): Promise<KafkaPlayed> {
  const dice = new Dice(scenario.seed + 11);
  const clock = new VirtualClock(new Dice(scenario.seed + 13).draw);
  const restore = clock.install();
  const mend = options.sabotage?.install?.();
  const warned: string[] = [];
  const warn = (warning: Error) => void warned.push(warning.name);
  process.on('warning', warn);
  try {
    const run = new KafkaRun(scenario, clock, dice, options);
    await run.play();
    for (const name of new Set(warned)) if (name === 'MaxListenersExceededWarning') run.found('leak', name);
    return run.verdict();
  } finally {
    process.off('warning', warn);
    mend?.();
    restore();
  }
}

class KafkaRun implements Stage {
  readonly counters = new Counters();
  readonly world: SimulatedWorld;
  readonly cluster: Cluster;
  readonly weather: Weather;
  readonly brokers: Brokers;
  readonly members: Member[] = [];
  readonly log: KafkaLog;
  throttleMs = 0;
  commitMs = 0;
  remembered: MemoryNodes | undefined;
  isSetBack = false;
  readonly #findings = new Map<string, string>();
  readonly #halted = new Map<number, string>();
  readonly #texts = new Map<string, Set<string>>();
  /** Partitions that were added once the group had begun all others. */
  readonly #added = new Set<number>();
  readonly #network: Network;

  constructor(
    readonly scenario: KafkaScenario,
    readonly clock: VirtualClock,
    readonly dice: Dice,
    private readonly options: KafkaPlayOptions,
  ) {
    const { records, firstDelayMs, brokers } = scenario;
    this.log = new KafkaLog(READ, records.length);
    this.world = new SimulatedWorld({
      log: this.log,
      scheduler: clock.scheduler,
      partitions: [],
      ...(options.tell === undefined ? {} : { tell: options.tell }),
    });
    this.weather = new Weather(new Dice(scenario.seed + 17));
    const events = { expired: (id: string) => this.#expired(id), generation: () => this.counters.count('generations') };
    this.cluster = new Cluster({
      clock,
      brokers,
      failoverMs: 600,
      loadingMs: dice.int(0, 600),
      firstDelayMs,
      lagMs: () => dice.of(0, 0, 20, 300),
      events,
      tell: (line) => this.tell(line),
    });
    this.cluster.add(this.log);
    this.cluster.add(new KafkaLog(OTHER, 2));
    this.brokers = new Brokers({
      clock,
      cluster: this.cluster,
      weather: this.weather,
      asked: (api, broker) => {
        this.counters.count(`asked ${api}`);
        if (api === 'JoinGroup') this.#joined();
        if (api !== 'Fetch' && api !== 'Heartbeat') this.tell(`broker ${broker} is asked ${api}`);
      },
      reply: {
        clock,
        cluster: this.cluster,
        weather: this.weather,
        counters: this.counters,
        serviceMs: (api) => (api === 'OffsetCommit' ? this.commitMs : 0),
        committed: (commit) => this.#committed(commit),
        throttleMs: () => this.throttleMs,
      },
    });
    this.#network = { clock, latencyMs: () => this.dice.int(1, 4), listener: this.brokers };
  }

  async play(): Promise<void> {
    const { scenario, clock } = this;
    scenario.records.forEach((count, partition) => this.produce(partition, count));
    scenario.lives.forEach((plan) => clock.after(plan.startMs, undefined, () => this.begin(plan)));
    for (const happening of scenario.happenings) clock.after(happening.atMs, undefined, () => happen(happening, this));
    clock.after(scenario.healMs, undefined, () => this.#heal());
    let doneAtMs: number | undefined;
    const hangsMs = scenario.happenings.map((each) => (each.kind === 'weather' ? each.weather.longestMs : 0));
    const quietMs = Math.max(0, ...hangsMs) + QUIET_MS;
    let lookedMs = 0;
    const isOver = (): boolean => {
      if (clock.nowMs < scenario.healMs || clock.nowMs < lookedMs + LOOK_MS) return false;
      lookedMs = clock.nowMs;
      if (doneAtMs === undefined && this.#isDone()) doneAtMs = clock.nowMs;
      return doneAtMs !== undefined && clock.nowMs > doneAtMs + quietMs;
    };
    await clock.run(scenario.healMs + LIVENESS_MS, isOver);
    if (doneAtMs === undefined)
      this.found('stuck', `not delivered within ${LIVENESS_MS} ms: ${this.#open().join(', ')}`);
  }

  tell(line: string): void {
    this.options.tell?.(`${this.clock.nowMs} ${line}`);
  }

  found(kind: string, what: string): void {
    if (this.#findings.has(kind)) return;
    this.tell(`FOUND ${kind}: ${what}`);
    this.#findings.set(kind, what);
  }

  begin(plan: LifePlan): Member {
    const { scenario, clock, world } = this;
    const { tell } = this.options;
    const member = memberOf(plan, this.members.length, {
      clock,
      world,
      openSocket: openOver(this.#network),
      scenario,
      found: (kind, what) => this.found(kind, what),
      tell,
      changeSource: this.options.sabotage?.changeSource,
    });
    this.members.push(member);
    this.tell(`${member.process.name} begins, reads ${plan.topics.join(', ')}`);
    clock.current = member.owner;
    const config = {
      group: 'g',
      owner: member.process.name,
      scheduler: member.process.scheduler,
      batch: plan.batch,
      maxPending: scenario.maxPending,
      onGap: 'continue' as const,
      onReset: 'restart' as const,
      retry: { minDelayMs: 20, maxDelayMs: 500, random: this.dice.draw },
    };
    const over = (): void => void (member.isOver = true);
    const running = exactlyOnce(member.process.source, member.process.sink, member.process.store, config).subscribe({
      next: (outcome) => {
        if (outcome.kind === 'halted') this.#noteHalt(outcome.assignment.partition, outcome.error);
      },
      error: (error: unknown) => {
        over();
        this.found(
          'crash',
          `${member.process.name}: ${error instanceof IngestError ? `${error.code} ${error.message}` : String(error)}`,
        );
      },
      complete: over,
    });
    member.self.died.subscribe(() => {
      over();
      running.unsubscribe();
      this.brokers.isolate(member.owner, 'reset');
    });
    return member;
  }

  /** Records as soon as the group has begun, where it is to see only what comes from then on. */
  produce(partition: number, count: number): void {
    if (count === 0) return;
    if (!this.isBegun(partition)) {
      this.clock.after(LOOK_MS, undefined, () => this.produce(partition, count));
      return;
    }
    this.log.produce(partition, ...Array.from({ length: count }, (_, n) => ({ partition, n })));
    this.cluster.wake();
  }

  /** What comes now is for the group: it has chosen where to begin, or will find that the partition was added since. */
  isBegun(partition: number): boolean {
    return (
      this.scenario.fromBeginning ||
      this.#added.has(partition) ||
      this.cluster.coordinator.committed.has(`${READ}/${partition}`)
    );
  }

  grow(topic: string, partitions: number): number {
    const before = this.cluster.topics.get(topic)!.partitions.length;
    const all = Array.from({ length: before }, (_, partition) => partition);
    const isBegun = topic === READ && all.every((partition) => this.isBegun(partition));
    this.cluster.grow(topic, partitions);
    for (let partition = before; isBegun && partition < partitions; partition++) this.#added.add(partition);
    return before;
  }

  /** The records of these partitions are in the table and settled. */
  openIn(partitions: readonly number[]): string[] {
    const { missing } = checkExactlyOnce(this.world);
    return missing.filter((name) => partitions.includes(Number(name.split(':')[0])));
  }

  verdict(): KafkaPlayed {
    for (const { invariant, what } of this.world.violations) this.found(invariant, what);
    const { missing, doubled } = checkExactlyOnce(this.world);
    const lost = missing.filter((name) => {
      const [partition = 0, offset = 0] = name.split(':').map(Number);
      return offset <= (this.world.watch.settled(partition) ?? -1);
    });
    if (lost.length > 0) this.found('missing', lost.join(' '));
    if (doubled.length > 0) this.found('doubled', doubled.join(' '));
    const { isSetBack } = this;
    for (const [partition, code] of this.#halted)
      if (!isSetBack || code !== 'KCR_STATE_BEHIND') this.found('halted', `partition ${partition}: ${code}`);
    if (this.scenario.isHarmless && this.counters.of('asked while muted') > 0)
      this.found('muted', 'a broker was asked over a connection that it had muted');
    this.counters.count('halts', this.#halted.size);
    return {
      findings: [...this.#findings].map(([kind, what]) => ({ kind, what })),
      lives: this.world.lives,
      rows: this.world.table.rows.length,
      events: this.clock.events,
      virtualMs: this.clock.nowMs,
      counters: this.counters,
    };
  }

  convert(): void {
    this.cluster.coordinator.dealer = dealer((topic) => this.cluster.topics.get(topic)?.partitions.length ?? 0);
  }

  #joined(): void {
    const { joinedMs = Infinity, healMs } = this.scenario;
    const { nowMs } = this.clock;
    if (nowMs >= joinedMs && nowMs < healMs) this.found('joined', 'a member joined again, and nothing explains it');
  }

  /** Every trouble ends; who reads goes on as it is, and somebody does. */
  #heal(): void {
    this.tell('— everything is well from here on —');
    this.weather.config = { lost: 0, refused: 0, longestMs: 0 };
    this.throttleMs = 0;
    this.commitMs = 0;
    for (const { id, isUp } of this.cluster.brokers) if (!isUp) this.cluster.up(id);
    for (const [name, { partitions }] of this.cluster.topics)
      for (const [partition, { isOrphan }] of partitions.entries())
        if (isOrphan) this.cluster.orphan(name, partition, false);
    const isRead = this.members.some(({ isOver, plan }) => !isOver && plan.topics.includes(READ));
    if (!isRead)
      this.begin({
        startMs: 0,
        topics: [READ],
        batch: { count: 5, bytes: 10_000, maxWaitMs: 10 },
        budgetBytes: 100_000,
      });
  }

  #isDone(): boolean {
    return this.#open().length === 0;
  }

  #open(): string[] {
    const {
      log,
      world: { watch },
    } = this;
    const open: string[] = [];
    for (let partition = 0; partition < log.partitions; partition++) {
      if (this.#halted.has(partition)) continue;
      const last = log.records(partition).at(-1)?.offset;
      if (last === undefined) continue;
      const settled = watch.settled(partition) ?? -1;
      // Set back to nothing a store says no more than the group's offset.
      if (!this.isSetBack && settled < last) open.push(`partition ${partition} ends at ${last}, settled ${settled}`);
    }
    const all = Array.from({ length: log.partitions }, (_, partition) => partition).filter(
      (partition) => !this.#halted.has(partition),
    );
    return [...open, ...this.openIn(all).map((name) => `${name} is missing`)];
  }

  #noteHalt(partition: number, error: unknown): void {
    const code = error instanceof IngestError ? error.code : String(error);
    this.tell(`partition ${partition} halts: ${String(error)}`);
    this.#halted.set(partition, code);
  }

  #expired(id: string): void {
    this.counters.count('sessions that ran out');
    this.tell(`${id} is given up`);
    if (this.scenario.isHarmless) this.found('expired', `${id} was given up in a world where nothing explains it`);
  }

  #committed({ topic, partition, offset, metadata }: AcceptedCommit): void {
    this.tell(`${topic}/${partition} is committed at ${offset}`);
    if (topic !== READ || metadata === chosenOffset) return;
    if (this.scenario.store === 'simulated') {
      this.world.watch.committing(
        { partition, topicId: this.log.topicId, topic, assignmentId: 0, generation: 0, startOffset: 0 },
        offset,
      );
      return;
    }
    // Each write has a text of its own: one that comes back has overwritten what came behind it.
    const key = `${topic}/${partition}`;
    const seen = this.#texts.get(key) ?? new Set();
    this.#texts.set(key, seen);
    const text = metadata ?? '';
    if (seen.has(text) && [...seen].at(-1) !== text)
      this.found('overwritten', `partition ${partition}: an older state came back, at ${offset}`);
    seen.add(text);
  }
}
