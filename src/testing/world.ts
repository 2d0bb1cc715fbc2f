/**
 * The simulated world: a topic, a consumer group, a state store and a table, which outlive the processes that work
 * on them, all in virtual time. Imports: model, rxjs, state.
 */
import { Observable, asyncScheduler, takeUntil, type SchedulerLike } from 'rxjs';
import type { KafkaRecord } from '../model/record.js';
import type { MemoryNodes } from '../state/memory.js';
import type { Alteration } from './alteration.js';
import { ConsumerGroup } from './group.js';
import { Member } from './member.js';
import { SimulatedLog, type Value } from './log.js';
import { SimulatedProcess, type Pace, type Step } from './process.js';
import { InsertQueue } from './queue.js';
import { simulatedSink } from './sink.js';
import { simulatedStore } from './store.js';
import { SimulatedTable, type SavedTable } from './table.js';
import { InvariantChecker, type Violation } from './invariant-checker.js';
import type { SavedWatch } from './seen.js';
import type { Life, Process, WorldConfig } from './world-config.js';

export type { Life, Process, WorldConfig } from './world-config.js';

/** What the servers hold at a moment, and what was seen of them until then. */
export interface SavedServers {
  readonly nodes: MemoryNodes;
  readonly table: SavedTable;
  readonly committed: ReadonlyMap<number, number>;
  readonly watch: SavedWatch;
}

export class SimulatedWorld {
  readonly log: SimulatedLog;
  readonly table: SimulatedTable;
  readonly group: ConsumerGroup;
  /** The state store's values: JSON by key. */
  readonly nodes: MemoryNodes = new Map();
  /** How many rows a record becomes. */
  readonly rowsOf: (record: KafkaRecord) => number;
  /** Processes that ever lived. */
  lives = 0;
  readonly #queue: InsertQueue;
  /** Sees every call. */
  readonly watch: InvariantChecker;
  readonly #scheduler: SchedulerLike;
  readonly #members = new Map<SimulatedProcess, Member>();
  readonly #running = new Set<Step>();
  readonly #config: WorldConfig;
  readonly #sessionMs: number;
  readonly #lateMs: number;
  readonly #latencyMs: number;
  readonly #pace: Pace;
  #storeDownUntilMs = 0;
  #tableDownUntilMs = 0;
  #tableRefusesUntilMs = 0;
  /** Requests that were sent and have not taken effect yet, also those that no server knows of. */
  readonly #sent = new Set<Step>();

  constructor(config: WorldConfig = {}) {
    const {
      topic = 'simulated',
      partitions = [10],
      table = {},
      rowsOf = () => 1,
      latencyMs = 4,
      fetchMs = 3,
      sessionMs = 30,
      drainMs = 60,
      lateMs = 100,
      coalesceMs = 10,
      scheduler = asyncScheduler,
      pace,
    } = config;
    this.#config = config;
    this.#scheduler = scheduler;
    this.#sessionMs = sessionMs;
    this.#lateMs = lateMs;
    this.#latencyMs = latencyMs;
    this.#pace = pace ?? this.#timed();
    this.rowsOf = rowsOf;
    this.log = config.log ?? new SimulatedLog(topic, partitions.length);
    this.table = new SimulatedTable(table);
    this.watch = new InvariantChecker(this.log, this.table, rowsOf);
    this.#queue = new InsertQueue(scheduler, coalesceMs, this.table, this.watch);
    this.group = new ConsumerGroup({
      ...this.#surroundings(),
      log: this.log,
      timing: { fetchMs, sessionMs, drainMs },
      watch: this.watch,
    });
    partitions.forEach((count, partition) =>
      this.produce(partition, ...Array.from({ length: count }, (_, offset) => ({ partition, offset }))),
    );
  }

  /** What was broken of the invariants, in the order in which it was. */
  get violations(): readonly Violation[] {
    return this.watch.violations;
  }

  /**
   * What the servers hold, for a search that comes back to it. The log, the members and who owns what are not part of
   * it.
   */
  save(): SavedServers {
    return {
      nodes: new Map(this.nodes),
      table: this.table.save(),
      committed: new Map(this.group.committed),
      watch: this.watch.save(),
    };
  }

  /** Puts the servers back to what `save` gave. */
  restore({ nodes, table, committed, watch }: SavedServers): void {
    this.nodes.clear();
    for (const [key, node] of nodes) this.nodes.set(key, node);
    this.table.restore(table);
    this.group.committed.clear();
    for (const [partition, offset] of committed) this.group.committed.set(partition, offset);
    this.watch.restore(watch);
  }

  /** Appends records, which the members then fetch. */
  produce(partition: number, ...values: readonly Value[]): void {
    this.log.produce(partition, ...values);
    this.fetchOn();
  }

  /** After the log was changed through `log`: members look again. */
  fetchOn(): void {
    for (const member of this.#members.values()) member.fetchOn();
  }

  /** Begins a life whose pipeline is started by the caller. */
  process({
    faults = [],
    chunkSize = 3,
    room = Infinity,
    onGap = 'halt',
    onReset = 'halt',
    blockRows = Infinity,
    asyncInserts = false,
    isCredulous = false,
    ignores,
  }: Life = {}): { readonly process: Process; readonly self: SimulatedProcess; readonly member: Member } {
    const self = new SimulatedProcess(nameOfLife(this.lives++), this.#surroundings(), faults);
    const member = new Member(self, this.group, chunkSize, { onGap, onReset, room });
    this.#members.set(self, member);
    const process: Process = {
      name: self.name,
      source: member.source,
      store: simulatedStore(self, {
        nodes: this.nodes,
        watch: this.watch,
        isStoreDown: () => this.#nowMs() < this.#storeDownUntilMs,
      }),
      sink: simulatedSink(
        self,
        {
          table: this.table,
          watch: this.watch,
          queue: this.#queue,
          nowMs: () => this.#nowMs(),
          isTableDown: () => this.#nowMs() < this.#tableDownUntilMs,
          isTableRefusing: () => this.#nowMs() < this.#tableRefusesUntilMs,
          isRunning: (token) => {
            const isOfIt = (sent: string | undefined) => sent === token || sent?.startsWith(`${token}:fill`) === true;
            return [...this.#running].some((step) => isOfIt(step.token)) || this.#queue.has(isOfIt);
          },
        },
        { blockRows, asyncInserts, isCredulous, ignores },
      ),
      scheduler: self.scheduler,
      kill: () => self.kill(),
      freeze: (ms) => self.freeze(ms),
    };
    return { process, self, member };
  }

  /**
   * A life of a process: subscribing starts its pipeline, and the observable completes when the process dies.
   *
   * ```
   * concat(world.live(pipeline, { faults: [{ port: 'insert', nth: 2, fate: 'die after' }] }), world.live(pipeline))
   * ```
   */
  live<T>(pipeline: (process: Process) => Observable<T>, life: Life = {}): Observable<T> {
    return new Observable<T>((subscriber) => {
      const { process, self } = this.process(life);
      return pipeline(process).pipe(takeUntil(self.died)).subscribe(subscriber);
    });
  }

  /**
   * Somebody alters the table once no insert is on its way and no process stands still: what is sent under a token that
   * the server knew when it was sent, and forgets on the way, nobody can hold back. Who cannot within `patienceMs` lets
   * it be.
   */
  alter(alteration: Alteration, patienceMs = 500): void {
    const isBusy = this.isBusy || [...this.#members.keys()].some((process) => !process.isDead && process.isFrozen);
    if (isBusy && patienceMs > 0 && alteration !== 'rename back')
      return void this.#scheduler.schedule(() => this.alter(alteration, patienceMs - 1), 1);
    const isLetBe = isBusy && alteration !== 'rename back';
    this.#config.tell?.(
      `${this.#nowMs()} somebody ${isLetBe ? 'lets the table be' : 'alters the table'}: ${alteration}`,
    );
    if (!isLetBe) this.table.alter(alteration);
  }

  /** Something that belongs to an insert is on its way, or the server is at it. */
  get isBusy(): boolean {
    return this.#running.size > 0 || this.table.busy > 0 || this.#queue.has(() => true);
  }

  /** The store does not answer for so long. */
  storeDown(ms: number): void {
    this.#storeDownUntilMs = this.#nowMs() + ms;
  }

  /** ClickHouse does not answer for so long. */
  tableDown(ms: number): void {
    this.#tableDownUntilMs = this.#nowMs() + ms;
  }

  /** For so long ClickHouse refuses whatever is inserted, by a code that nobody knows. */
  tableRefuses(ms: number): void {
    this.#tableRefusesUntilMs = this.#nowMs() + ms;
  }

  /** No insert is on its way, and none waits at the server. */
  get isQuiet(): boolean {
    return this.#sent.size === 0 && !this.#queue.has(() => true);
  }

  #nowMs(): number {
    return this.#scheduler.now();
  }

  #timed(): Pace {
    return {
      step: (step, delayMs) => {
        if (step.isEvent) return void step.process.later(() => step.take(), delayMs);
        if (step.token !== undefined && step.isUnseen !== true) this.#running.add(step);
        if (step.token !== undefined) this.#sent.add(step);
        this.#scheduler.schedule(() => {
          this.#running.delete(step);
          this.#sent.delete(step);
          step.take();
        }, delayMs);
      },
      reply: (process, deliver) => process.later(deliver, this.#latencyMs / 2),
    };
  }

  #surroundings() {
    const { tell } = this.#config;
    return {
      scheduler: this.#scheduler,
      pace: this.#pace,
      latencyMs: this.#latencyMs,
      lateMs: this.#lateMs,
      note: (line: () => string) => tell?.(`${this.#nowMs()} ${line()}`),
      died: (process: SimulatedProcess) => this.#silent(process, () => true),
      froze: (process: SimulatedProcess, ms: number) => {
        if (ms > this.#sessionMs) this.#silent(process, () => process.isFrozen);
      },
      thawed: (process: SimulatedProcess) => {
        process.later(() => this.#members.get(process)?.catchUp(), this.#sessionMs / 3);
      },
    };
  }

  #silent(process: SimulatedProcess, isStill: () => boolean): void {
    const member = this.#members.get(process);
    if (member === undefined || this.group.isManual) return;
    this.#scheduler.schedule(() => {
      if (isStill()) this.group.leave(member, true);
    }, this.#sessionMs);
  }
}

function nameOfLife(index: number): string {
  const letter = String.fromCharCode(97 + (index % 26));
  return index < 26 ? letter : `${letter}${Math.floor(index / 26)}`;
}
