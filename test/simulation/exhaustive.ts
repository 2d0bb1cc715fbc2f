// Room: small worlds explored to the end: every order of the steps of two owners that the ports allow, and every point
// at which a fault can strike. Each run makes one order, by choosing at each moment which step takes place. Where two
// orders have led to the same moment (the servers hold the same, and each owner was told the same by each partition's
// calls) the rest is run once, and its orders are counted for both.
//
// Not explored: a timer (a wait before a retry, a flush by time) fires only when nothing else can happen.
import { performance } from 'node:perf_hooks';
import { VirtualAction, VirtualTimeScheduler } from 'rxjs';
import { arrange } from '../../src/arrange.js';
import { IngestError } from '../../src/errors.js';
import { SimulatedWorld, checkExactlyOnce, type Fate, type Member, type Outcome, type Pace, type SimulatedProcess, type Step } from '../../src/testing/index.js';

export interface SmallWorld {
  readonly name: string;
  readonly records: readonly number[];
  readonly batch: number;
  readonly maxPending: number;
  /** Faults that may strike in one run. */
  readonly faults: number;
  /** ClickHouse partitions that rows spread over. */
  readonly spread?: number;
}

export interface Explored {
  /** Orders of steps, from the beginning to the end, that what was run stands for. */
  readonly orders: bigint;
  /** Runs: orders that were run to their end, or to a moment that was reached before. */
  readonly runs: number;
  /** Different moments. */
  readonly moments: number;
  readonly lives: number;
  readonly isComplete: boolean;
  readonly seconds: number;
  readonly findings: readonly { readonly kind: string; readonly what: string; readonly story: readonly string[] }[];
}

const small = (records: readonly number[], batch: number, maxPending: number, faults: number, more: Partial<SmallWorld> = {}): SmallWorld => ({
  name: `records ${records.join('+')}, batches of ${batch}, ${maxPending} in doubt at most, ${faults} faults${more.spread === undefined ? '' : `, ${more.spread} ClickHouse partitions`}`,
  records, batch, maxPending, faults, ...more,
});

/** Those at the beginning take seconds, those at the end hours. */
export const smallWorlds: readonly SmallWorld[] = [
  small([1], 1, 1, 0), small([1], 1, 1, 1), small([2], 2, 1, 1, { spread: 2 }), small([2], 1, 1, 0), small([1, 1], 1, 1, 0),
  small([1], 1, 1, 2), small([2], 1, 1, 1), small([6], 3, 2, 0), small([2], 2, 1, 2, { spread: 2 }), small([3], 1, 1, 0), small([3, 3], 3, 1, 0),
  small([2], 1, 2, 0), small([1, 1], 1, 1, 1), small([2], 1, 2, 1), small([6], 3, 2, 1), small([2], 1, 1, 2), small([3], 1, 2, 0), small([2, 1], 1, 2, 0),
  small([3, 3], 3, 2, 1), small([6], 3, 2, 2), small([3, 3], 2, 2, 2),
];

/** One thing that can happen next. */
interface Option {
  readonly id: string;
  readonly process: string;
  readonly partition: number | undefined;
  readonly port: string;
  readonly isFault: boolean;
  take(): void;
}

interface Node {
  readonly key: string;
  readonly options: readonly Option[];
  chosen: number;
  /** Orders from here to the end that were counted so far. */
  orders: bigint;
}

/** This moment was reached before; so many orders lead from it to the end. */
class Known extends Error {
  constructor(readonly orders: bigint) {
    super('known');
  }
}

export function exhaust(world: SmallWorld, { maxSeconds = 60 }: { readonly maxSeconds?: number } = {}): Explored {
  const startedMs = performance.now();
  const seconds = () => (performance.now() - startedMs) / 1000;
  const path: Node[] = [];
  const known = new Map<string, bigint>();
  const counts = { runs: 0, lives: 0 };
  const findings: Explored['findings'][number][] = [];
  let orders = 0n;
  let isComplete = false;
  while (!isComplete && findings.length < 20 && seconds() < maxSeconds) {
    const run = new Run(world, path, known);
    const found = run.go();
    counts.runs += 1;
    counts.lives += run.lives;
    for (const { kind, what } of run.judge(found === undefined)) findings.push({ kind, what, story: path.map((node) => node.options[node.chosen]!.id) });
    const above = path.at(-1);
    if (above !== undefined) above.orders += found ?? 1n;
    else orders = found ?? 1n;
    const all = advance(path, known);
    if (all !== undefined) {
      orders += all;
      isComplete = true;
    }
  }
  if (!isComplete) orders = path.reduce((sum, node) => sum + node.orders, 0n);
  return { ...counts, orders, moments: known.size + path.length, isComplete, seconds: seconds(), findings };
}

/** To the next order: the deepest moment at which something else can be chosen. At the end: how many orders there were. */
function advance(path: Node[], known: Map<string, bigint>): bigint | undefined {
  for (let node = path.at(-1); node !== undefined; node = path.at(-1)) {
    node.chosen += 1;
    if (node.chosen < node.options.length) return undefined;
    path.pop();
    known.set(node.key, node.orders);
    const above = path.at(-1);
    if (above === undefined) return node.orders;
    above.orders += node.orders;
  }
  return 0n;
}

/** Steps that no other process can notice take place at once. */
const unnoticed = new Set(['assigned', 'fetch', 'cluster', 'log', 'revoked']);

class Run {
  readonly #clock = new VirtualTimeScheduler(VirtualAction, 0);
  readonly #pool = new Map<string, Step>();
  readonly #eager: Step[] = [];
  readonly #seen = new Map<string, number>();
  readonly #world: SimulatedWorld;
  readonly #processes: { readonly self: SimulatedProcess; readonly member: Member }[] = [];
  readonly #errors: string[] = [];
  /** What each owner was told of each partition, in its order. */
  readonly #history = new Map<string, string>();
  #taking: Step | undefined;
  #depth = 0;
  #faultsLeft: number;
  #owners = 0;

  constructor(
    private readonly small: SmallWorld,
    private readonly path: Node[],
    private readonly known: ReadonlyMap<string, bigint>,
  ) {
    const pace: Pace = {
      step: (step) => this.#add(step),
      reply: (process, deliver, outcome) => {
        this.#heard(process.name, this.#taking?.partition, `${this.#taking?.name}=${digest(outcome)}`);
        return void deliver();
      },
    };
    const { records, spread = 1 } = small;
    this.#faultsLeft = small.faults;
    this.#world = new SimulatedWorld({
      partitions: records, scheduler: this.#clock, pace,
      table: spread === 1 ? {} : { partitionBy: ({ offset }) => String(offset % spread) },
    });
    this.#world.group.isManual = true;
  }

  get lives(): number {
    return this.#world.lives;
  }

  /** Undefined: run to its end. Else a moment that was reached before, from which so many orders lead to the end. */
  go(): bigint | undefined {
    try {
      this.#begin();
      for (;;) {
        this.#takeUnnoticed();
        const options = this.#options();
        const hasSteps = this.#pool.size > 0;
        if (hasSteps) this.#choose(options);
        else if (!this.#passTime()) {
          if (this.#owners >= 2 && !this.#processes.at(-1)!.self.isDead) return undefined;
          this.#begin();
        }
      }
    } catch (error) {
      if (error instanceof Known) return error.orders;
      throw error;
    }
  }

  judge(isOver: boolean): { readonly kind: string; readonly what: string }[] {
    const { missing, doubled } = isOver ? checkExactlyOnce(this.#world) : { missing: [], doubled: [] };
    return [
      ...this.#errors.map((what) => ({ kind: 'crash', what })),
      ...this.#world.violations.map(({ invariant, what }) => ({ kind: invariant, what })),
      ...(missing.length > 0 ? [{ kind: 'missing', what: missing.join(' ') }] : []),
      ...(doubled.length > 0 ? [{ kind: 'doubled', what: doubled.join(' ') }] : []),
    ];
  }

  /** The next owner: it is given every partition, whatever the one before is doing. */
  #begin(): void {
    const { batch, maxPending } = this.small;
    this.#owners += 1;
    const life = this.#world.process({ chunkSize: this.#owners % 2 === 1 ? 6 : 4 });
    const { process, self } = life;
    this.#processes.push(life);
    // Another owner, other cuts.
    const count = this.#owners % 2 === 1 ? batch : Math.max(1, (batch % 3) + 1);
    const running = arrange(process, {
      delivery: 'exactly-once', group: 'g', owner: process.name, batch: { count, maxWaitMs: 5 }, maxPending, retry: { minDelayMs: 3, maxDelayMs: 20, jitter: 0 },
    }, process.scheduler).subscribe({ error: (error: unknown) => this.#errors.push(String(error)) });
    self.died.subscribe(() => running.unsubscribe());
    this.#heard(process.name, undefined, JSON.stringify([...this.#world.group.committed]));
    this.#world.group.give(life.member);
  }

  #add(step: Step): void {
    if (unnoticed.has(portOf(step))) return void this.#eager.push(step);
    const name = `${step.process.name} ${step.name}`;
    const nth = (this.#seen.get(name) ?? 0) + 1;
    this.#seen.set(name, nth);
    this.#pool.set(nth === 1 ? name : `${name} (${nth})`, step);
  }

  #takeUnnoticed(): void {
    for (let step = this.#eager.shift(); step !== undefined; step = this.#eager.shift()) {
      if (!step.isEvent || !step.process.isDead) this.#take(step);
    }
  }

  #take(step: Step, fate?: Fate): void {
    if (step.isEvent && step.process.isDead) return;
    this.#taking = step;
    if (step.isEvent) this.#heard(step.process.name, step.partition, step.name);
    step.take(fate);
    this.#taking = undefined;
  }

  #heard(process: string, partition: number | undefined, what: string): void {
    const key = `${process}/${partition ?? ''}`;
    this.#history.set(key, hash(`${this.#history.get(key) ?? ''};${what}`));
  }

  /** All that the rest depends on: what the servers hold, what each owner was told, what is under way. */
  #moment(options: readonly Option[]): string {
    const { nodes, table, group } = this.#world;
    const states = [...nodes].map(([key, { text, version }]) => `${key}${version}${text.replace(/"write":"[^"]*"|"atMs":\d+/g, '')}`).sort();
    const rows = table.rows.map(({ partition, offset }) => `${partition}:${offset}`).sort();
    const histories = [...this.#history].map(([key, text]) => `${key}=${text}`).sort();
    const waits = this.#clock.actions.map((action) => (action as unknown as { readonly delay: number }).delay - this.#clock.now());
    return hash(
      JSON.stringify([
        states, rows, [...table.knownBlocks()].sort(), [...group.committed].sort(([a], [b]) => a - b), group.generation, histories, waits.sort(), [...this.#pool.keys()].sort(),
        options.map(({ id }) => id).sort(), this.#faultsLeft, this.#owners, this.#world.violations.length,
      ]),
    );
  }

  #options(): Option[] {
    const options: Option[] = [];
    for (const [id, step] of this.#pool) {
      const { process, partition } = step;
      const port = portOf(step);
      const option = (fate?: Fate & string): Option => ({
        id: fate === undefined ? id : `${id}: ${fate}`, process: process.name, partition, port, isFault: fate !== undefined,
        take: () => {
          if (fate !== undefined) this.#faultsLeft -= 1;
          this.#pool.delete(id);
          this.#take(step, fate);
        },
      });
      options.push(option());
      if (this.#faultsLeft === 0 || process.isDead || step.isEvent) continue;
      options.push(option('lose reply'));
      if (port === 'insert') options.push(option('kill server'));
    }
    if (this.#owners === 1) options.push({ id: 'the next owner takes over', process: '', partition: undefined, port: 'begin', isFault: false, take: () => this.#begin() });
    if (this.#faultsLeft > 0) for (const { self } of this.#processes) if (!self.isDead) options.push(this.#killing(self));
    return options;
  }

  #killing(process: SimulatedProcess): Option {
    return {
      id: `${process.name} dies`, process: process.name, partition: undefined, port: 'kill', isFault: true,
      take: () => {
        this.#faultsLeft -= 1;
        process.kill();
        // What it had sent lands some time, or never.
        for (const [id, step] of [...this.#pool]) {
          if (step.process !== process) continue;
          const drop = () => void this.#pool.delete(id);
          if (step.isEvent) drop();
          else this.#choose([
            { id: `${id} never lands`, process: process.name, partition: undefined, port: 'drop', isFault: true, take: drop },
            { id: `${id} lands some time`, process: process.name, partition: undefined, port: 'keep', isFault: true, take: () => undefined },
          ]);
        }
      },
    };
  }

  #choose(options: readonly Option[]): void {
    let node = this.path[this.#depth];
    if (node === undefined) {
      const key = this.#moment(options);
      const orders = this.known.get(key);
      if (orders !== undefined) throw new Known(orders);
      node = { key, options, chosen: 0, orders: 0n };
      this.path.push(node);
    }
    this.#depth += 1;
    const option = options[node.chosen];
    if (option?.id !== node.options[node.chosen]?.id) throw new Error(`a run that is not repeatable: ${option?.id} where ${node.options[node.chosen]?.id} was`);
    option!.take();
  }

  /** Lets the next timer fire; false: there is none. */
  #passTime(): boolean {
    const next = this.#clock.actions[0] as { readonly delay: number } | undefined;
    if (next === undefined) return false;
    this.#clock.maxFrames = next.delay;
    this.#clock.flush();
    return true;
  }
}

function portOf({ name }: Step): string {
  return name.slice(0, name.indexOf(' ') < 0 ? undefined : name.indexOf(' '));
}

function digest(outcome: Outcome<unknown>): string {
  if ('error' in outcome) return codeOf(outcome.error);
  return JSON.stringify(outcome.value)?.replace(/"(tenure|write)":"[^"]*"|"atMs":\d+/g, '') ?? '';
}

function codeOf(error: unknown): string {
  return error instanceof IngestError ? error.code : String(error);
}

/** 128 bits: two different moments with the same are not to be feared in what is run here. */
function hash(text: string): string {
  let [a, b, c, d] = [0xdeadbeef, 0x41c6ce57, 0x2545f491, 0x9e3779b9];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    a = Math.imul(a ^ code, 2_654_435_761);
    b = Math.imul(b ^ code, 1_597_334_677);
    c = Math.imul(c ^ code, 951_274_213);
    d = Math.imul(d ^ code, 2_716_044_179);
  }
  return [a ^ (b >>> 16), b ^ (c >>> 15), c ^ (d >>> 14), d ^ (a >>> 13)].map((part) => (part >>> 0).toString(36)).join('.');
}
