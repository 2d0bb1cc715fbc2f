/**
 * Workers that come and go under a steady load, and what the time of each change is made of: read from the times in the
 * workers' own logs, and from the group's state as Kafka tells it to somebody outside.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { kafkaClient } from '../test/stack/clients.js';
import { EventProducer, produceEvents } from '../test/support/event-producer.js';
import { Ingester, until, type Logged } from '../test/support/ingester.js';

/**
 * The parts of a change, in the order in which they end.
 *
 * - `booted`: a new process has loaded its code and read its configuration.
 * - `drained`: SIGTERM alone: the worker that leaves has settled what it had.
 * - `noticed`: Kafka begins the rebalance: a new process has made its checks and asked to join, one has left, or the
 *   session of one that was killed is over.
 * - `heard`: the last of the others has heard of it, by its next heartbeat.
 * - `released`: the last of the others has settled what it had.
 * - `joined`: all have joined and know what is theirs.
 * - `assigned`: the last of them knows where its partitions begin.
 * - `claimed`: the last partition's state is claimed.
 * - `rows`: the first rows of the last partition are in the table: a batch was filled or its wait was over, and inserted.
 */
export const stages = [
  'booted',
  'drained',
  'noticed',
  'heard',
  'released',
  'joined',
  'assigned',
  'claimed',
  'rows',
] as const;
export type Stage = (typeof stages)[number];

export interface Change {
  /** Such as `1 → 2, started`. */
  readonly change: string;
  readonly totalMs: number;
  readonly partsMs: Partial<Record<Stage, number>>;
  /** Of each partition, from its last rows under the old assignment to its first under the new one. */
  readonly pausesMs: readonly number[];
  /** More than one: the change took several rebalances. */
  readonly generations: number;
  /** Partitions of each worker. */
  readonly spread: readonly number[];
}

export interface ChangesConfig {
  readonly brokers: readonly string[];
  readonly topic: string;
  readonly partitions: number;
  /** Of the workers; its group is named like the topic. */
  readonly config: object;
  /** At least so long is waited after each change. @default 2000 */
  readonly quietMs?: number;
  readonly say: (line: string) => void;
}

export interface Changes {
  readonly changes: readonly Change[];
  /** What the producer was told of each partition. */
  readonly acknowledged: readonly number[];
}

const joinedLine = 'kafka: joined the group';
const leavingLine = 'kafka: leaving the generation';

/** Looks at the state of a group from outside, many times a second. */
class GroupWatch {
  readonly states: { readonly atMs: number; readonly state: string }[] = [];
  #isOver = false;
  readonly #looking: Promise<void>;

  constructor(brokers: readonly string[], group: string) {
    this.#looking = this.#look(brokers, group);
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#looking;
  }

  async #look(brokers: readonly string[], group: string): Promise<void> {
    const admin = kafkaClient(brokers).admin();
    await admin.connect();
    while (!this.#isOver) {
      const state = await admin.describeGroups([group]).then(
        ({ groups }) => groups[0]?.state,
        () => undefined,
      );
      if (state !== undefined && state !== this.states.at(-1)?.state) this.states.push({ atMs: Date.now(), state });
      await sleep(10);
    }
    await admin.disconnect();
  }
}

/** Under a steady load workers come, go and are killed, one after another and time and again. */
export async function changeWorkers(
  given: ChangesConfig,
  { rate, repeats }: { readonly rate: number; readonly repeats: number },
): Promise<Changes> {
  const { brokers, topic, partitions } = given;
  const producer = await EventProducer.start({ brokers, topic, partitions, perSecond: rate });
  return withCrew(given, async (crew) => {
    for (let round = 0; round < repeats; round++) {
      for (let count = 1; count <= 4; count++) await crew.add();
      await crew.remove('SIGTERM');
      await crew.remove('SIGTERM');
      await crew.remove('SIGKILL');
      await crew.dismiss();
    }
    await crew.add();
    return producer.stop();
  });
}

/** One comes and one goes while there is more to be done than they get done: whoever gives partitions up has much in hand. */
export async function changeUnderBacklog(
  given: ChangesConfig,
  { records, rate }: { readonly records: number; readonly rate: number },
): Promise<Changes> {
  const { brokers, topic, partitions } = given;
  const before = await produceEvents({ brokers, topic, partitions, records });
  // A quick machine may be through with the backlog before the last change: rows go on all the same.
  const producer = await EventProducer.start({ brokers, topic, partitions, perSecond: rate });
  return withCrew({ ...given, quietMs: 500 }, async (crew) => {
    await crew.add();
    await crew.add();
    await crew.remove('SIGTERM');
    return (await producer.stop()).map((count, partition) => count + before[partition]!);
  });
}

async function withCrew(given: ChangesConfig, use: (crew: Crew) => Promise<readonly number[]>): Promise<Changes> {
  const watch = new GroupWatch(given.brokers, given.topic);
  const crew = new Crew(given, watch);
  try {
    const acknowledged = await use(crew);
    const total = acknowledged.reduce((a, b) => a + b, 0);
    await until(
      'all that was produced was delivered',
      crew.workers,
      () => [...crew.settled.values()].reduce((a, b) => a + b + 1, 0) === total,
      180_000,
    );
    await crew.dismiss();
    return { changes: crew.changes, acknowledged };
  } finally {
    await watch.stop();
  }
}

class Crew {
  readonly changes: Change[] = [];
  workers: Ingester[] = [];
  /** All that ever were. */
  readonly #all: Ingester[] = [];

  constructor(
    private readonly given: ChangesConfig,
    private readonly watch: GroupWatch,
  ) {}

  /** Of each partition the last offset that was delivered. */
  get settled(): ReadonlyMap<number, number> {
    const settled = new Map<number, number>();
    for (const { partition, last } of this.#all.flatMap((worker) => worker.lines.filter(isRows)))
      settled.set(partition!, Math.max(settled.get(partition!) ?? -1, last!));
    return settled;
  }

  async add(): Promise<void> {
    const before = this.workers;
    const worker = new Ingester(this.given.config, `worker ${this.#all.length + 1}`);
    this.#all.push(worker);
    this.workers = [...before, worker];
    await this.#timed(`${before.length} → ${this.workers.length}, started`, worker.startedMs, before, undefined);
  }

  async remove(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const count = this.workers.length;
    const gone = this.workers[0]!;
    this.workers = this.workers.slice(1);
    const atMs = Date.now();
    gone.signal(signal);
    await this.#timed(`${count} → ${count - 1}, ${signal}`, atMs, this.workers, gone);
    const { code } = await gone.ended;
    if (signal === 'SIGTERM' && code !== 0) throw new Error(`${gone.name} did not drain:\n${gone.lastWords()}`);
  }

  async dismiss(): Promise<void> {
    for (const worker of this.workers) await worker.drain();
    this.workers = [];
  }

  async #timed(change: string, atMs: number, others: readonly Ingester[], gone: Ingester | undefined): Promise<void> {
    const { partitions, quietMs = 2000, say } = this.given;
    await until(
      `all partitions went on after ${change}`,
      this.workers,
      () => this.#arrivals(atMs)?.size === partitions,
      120_000,
    );
    const parts = this.#partsOf(atMs, others, gone);
    this.changes.push({ change, ...parts });
    say(`${change}: ${JSON.stringify(parts)}`);
    // Some quiet, and never the same: heartbeats and changes must not fall into step.
    await sleep(quietMs * (1 + 1.5 * Math.random()));
  }

  /** The generation that all present workers are in and that began after the change. */
  #generation(atMs: number): number | undefined {
    const joined = this.workers.map(({ lines }) => lines.findLast(({ msg }) => msg === joinedLine));
    const [first] = joined;
    return first !== undefined &&
      joined.every((each) => each !== undefined && each.generation === first.generation && each.atMs > atMs)
      ? first.generation
      : undefined;
  }

  /** Of each partition when its first rows arrived under the new assignment. */
  #arrivals(atMs: number): Map<number, number> | undefined {
    const generation = this.#generation(atMs);
    if (generation === undefined) return undefined;
    const arrivals = new Map<number, number>();
    for (const { lines } of this.workers) {
      for (const [index, { msg, partition, generation: of }] of lines.entries()) {
        if (msg !== 'assigned' || of !== generation) continue;
        const first = lines.slice(index).find((line) => isRows(line) && line.partition === partition);
        if (first !== undefined) arrivals.set(partition!, first.atMs);
      }
    }
    return arrivals;
  }

  #partsOf(atMs: number, others: readonly Ingester[], gone: Ingester | undefined): Omit<Change, 'change'> {
    const generation = this.#generation(atMs)!;
    const arrivals = this.#arrivals(atMs)!;
    const last = (workers: readonly Ingester[], isIt: (line: Logged) => boolean): number | undefined => {
      const times = workers.flatMap(({ lines }) =>
        lines.filter((line) => line.atMs >= atMs && isIt(line)).map((line) => line.atMs),
      );
      return times.length === 0 ? undefined : Math.max(...times);
    };
    const endsMs: Record<Stage, number | undefined> = {
      booted: gone === undefined ? this.workers.at(-1)!.lines.find(({ msg }) => msg === 'starting')?.atMs : undefined,
      drained: gone === undefined ? undefined : last([gone], ({ msg }) => msg === 'released'),
      noticed: this.watch.states.find((each) => each.atMs >= atMs && each.state === 'PreparingRebalance')?.atMs,
      heard: last(others, ({ msg }) => msg === leavingLine),
      released: last(others, ({ msg }) => msg === 'released'),
      joined: last(this.workers, (line) => line.msg === joinedLine && line.generation === generation),
      assigned: last(this.workers, (line) => line.msg === 'assigned' && line.generation === generation),
      claimed: last(this.workers, (line) => line.msg === 'claimed' && line.generation === generation),
      rows: Math.max(...arrivals.values()),
    };
    const partsMs: Partial<Record<Stage, number>> = {};
    let beganMs = atMs;
    for (const stage of stages) {
      const endMs = endsMs[stage];
      if (endMs === undefined) continue;
      // Of steps that overlap the later one counts from where the earlier one ended.
      partsMs[stage] = Math.max(0, endMs - beganMs);
      beganMs = Math.max(beganMs, endMs);
    }
    const generations = new Set(
      this.workers.flatMap(({ lines }) =>
        lines.filter((line) => line.msg === joinedLine && line.atMs > atMs).map((line) => line.generation),
      ),
    );
    return {
      totalMs: endsMs.rows! - atMs,
      partsMs,
      pausesMs: others.length === 0 ? [] : this.#pauses(arrivals),
      generations: generations.size,
      spread: this.workers.map(({ held }) => held.length),
    };
  }

  #pauses(arrivals: ReadonlyMap<number, number>): number[] {
    const rows = this.#all.flatMap(({ lines }) => lines.filter(isRows));
    return [...arrivals]
      .map(
        ([partition, arrivedMs]) =>
          arrivedMs -
          Math.max(
            ...rows.filter((line) => line.partition === partition && line.atMs < arrivedMs).map((line) => line.atMs),
            -Infinity,
          ),
      )
      .filter(Number.isFinite);
  }
}

function isRows({ msg, rows = 0 }: Logged): boolean {
  return (msg === 'delivered' || msg === 'range that was in doubt is settled') && rows > 0;
}
