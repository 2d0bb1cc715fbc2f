// The workers of the chaos run: processes in one consumer group, each with proxies of its own before ClickHouse and
// ZooKeeper. What they tell is kept, for the faults to see their effects in.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, writeFileSync, type WriteStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { InsertMode } from '../../src/clickhouse/insert/settings.js';
import { database } from './oracle.js';
import { errorCodes } from '../../src/errors.js';
import type { Stack } from '../../test/stack/stack.js';
import { TcpProxy } from '../../test/support/tcp-proxy.js';
import type { Aim, Control, Told } from './told.js';

export const storeNames = ['keeper', 'keeper-map', 'kafka'] as const;
export type StoreName = (typeof storeNames)[number];

/** Without a heartbeat for so long a worker loses its partitions. */
export const sessionTimeoutMs = 4000;
/** The consumer group of all workers. */
export const group = 'chaos';

/** An insert that is not answered for so long is in doubt. */
export const requestTimeoutMs = 3000;

const workerFile = fileURLToPath(new URL('worker.ts', import.meta.url));
const restartAfterMs = 1000;

export interface FleetConfig {
  readonly store: StoreName;
  readonly insertMode: InsertMode;
  readonly control?: Control | undefined;
  readonly routes: readonly { readonly topic: string; readonly table: string }[];
  /** Configurations and logs go there. */
  readonly dir: string;
  readonly onTrouble: (what: string) => void;
}

/** What was told, and by whom. */
export interface Heard extends Told {
  readonly pid: number;
}

/** A place for a worker: its name, its proxies, its configuration. Lives follow one another in it. */
interface Slot {
  readonly name: string;
  readonly clickhouse: TcpProxy;
  readonly keeper: TcpProxy;
  readonly configFile: string;
  readonly log: WriteStream;
}

/** One process. */
export class Life {
  readonly pid: number;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  /** `topic/partition` of what it has claimed and not given back. */
  readonly held = new Set<string>();
  /** Some fault is at it. */
  isBusy = false;
  /** It was meant to end. */
  isDoomed = false;
  /** Its checks before the start were passed; before that a server that is down is a reason to end. */
  hasStarted = false;
  readonly #child: ChildProcess;

  constructor(
    readonly slot: Slot,
    control: Control | undefined,
    onTold: (told: Told, life: Life) => void,
  ) {
    const command = ['--import', 'tsx', workerFile, slot.configFile, ...(control ? [control] : [])];
    const child = spawn(process.execPath, command, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child = child;
    this.pid = child.pid!;
    // SIGKILL ends also what was stopped.
    const endWithUs = (): void => void child.kill('SIGKILL');
    process.once('exit', endWithUs);
    child.stdin.on('error', () => undefined);
    child.stderr.on('data', (text: Buffer) => slot.log.write(text));
    createInterface({ input: child.stdout }).on('line', (line) => {
      slot.log.write(`${this.pid} ${line}\n`);
      onTold(JSON.parse(line) as Told, this);
    });
    this.ended = once(child, 'close').then(([code, signal]) => {
      process.off('exit', endWithUs);
      return { code: code as number | null, signal: signal as NodeJS.Signals | null };
    });
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGKILL' || signal === 'SIGTERM') this.isDoomed = true;
    this.#child.kill(signal);
  }

  /** Undefined: not any more. */
  aim(at: Aim | undefined): void {
    this.isDoomed = at !== undefined;
    this.#child.stdin!.write(`${at === undefined ? '' : JSON.stringify(at)}\n`);
  }
}

export class Fleet {
  readonly heard: Heard[] = [];
  /** Starts that were refused since a server was down. */
  refusedStarts = 0;
  readonly #lives = new Set<Life>();
  readonly #freeSlots: Slot[] = [];
  #slots: Slot[] = [];
  #isClosing = false;

  constructor(
    private readonly stack: Stack,
    private readonly config: FleetConfig,
  ) {}

  get lives(): readonly Life[] {
    return [...this.#lives].filter(({ isRunning }) => isRunning);
  }

  async add(): Promise<Life> {
    return this.#start(this.#freeSlots.pop() ?? (await this.#newSlot()));
  }

  /** A life that holds partitions and that no other fault is at; it is the caller's until `isBusy` is taken back. */
  async take(pick: (lives: readonly Life[]) => Life, limitMs = 30_000): Promise<Life | undefined> {
    for (const endMs = performance.now() + limitMs; performance.now() < endMs; await sleep(100)) {
      const free = this.lives.filter(({ isBusy, isDoomed, held }) => !isBusy && !isDoomed && held.size > 0);
      if (free.length === 0) continue;
      const life = pick(free);
      life.isBusy = true;
      return life;
    }
    return undefined;
  }

  /** Drains all; how many have ended so, and are not started again. */
  async removeAll(limitMs: number): Promise<number> {
    const ends = this.lives.map(async (life) => {
      life.signal('SIGTERM');
      const end = await Promise.race([life.ended, sleep(limitMs, undefined, { ref: false })]);
      if (end === undefined) life.signal('SIGKILL');
      return end?.code === 0;
    });
    return (await Promise.all(ends)).filter(Boolean).length;
  }

  /** The first that was told at or behind the place `since` and is so; waits for it. */
  async hears(since: number, isSo: (heard: Heard) => boolean, limitMs: number): Promise<Heard | undefined> {
    let next = since;
    for (const endMs = performance.now() + limitMs; ; await sleep(20)) {
      for (; next < this.heard.length; next++) if (isSo(this.heard[next]!)) return this.heard[next];
      if (performance.now() > endMs) return undefined;
    }
  }

  heal(): void {
    for (const { clickhouse, keeper } of this.#slots) {
      clickhouse.heal();
      keeper.heal();
    }
    for (const life of this.lives) life.signal('SIGCONT');
  }

  /** SIGTERM to all; tells of those that did not end as they should. */
  async drain(limitMs = 30_000): Promise<void> {
    this.#isClosing = true;
    await Promise.all(
      this.lives.map(async (life) => {
        life.signal('SIGTERM');
        const end = await Promise.race([life.ended, sleep(limitMs, undefined, { ref: false })]);
        if (end?.code !== 0)
          this.config.onTrouble(
            `worker ${life.pid} did not drain: ${end === undefined ? `still up after ${limitMs} ms` : JSON.stringify(end)}`,
          );
      }),
    );
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    for (const life of this.lives) life.signal('SIGKILL');
    await Promise.all([...this.#lives].map(({ ended }) => ended));
    for (const { clickhouse, keeper, log } of this.#slots) {
      await Promise.all([clickhouse.stop(), keeper.stop()]);
      log.end();
    }
  }

  #start(slot: Slot): Life {
    const life = new Life(slot, this.config.control, (told) => this.#hear(told, life));
    this.#lives.add(life);
    void life.ended.then(async ({ code, signal }) => {
      this.#lives.delete(life);
      if (!life.hasStarted && code === errorCodes.KCR_CLICKHOUSE_UNREACHABLE.exitCode) this.refusedStarts++;
      else if (!life.isDoomed)
        this.config.onTrouble(`worker ${life.pid} ended by itself (${code ?? signal}), see ${slot.name}.log`);
      // One that was told to go leaves its place; any other is started again, as a supervisor does.
      const isRemoved = code === 0;
      if (isRemoved) this.#freeSlots.push(slot);
      else {
        await sleep(restartAfterMs);
        if (!this.#isClosing) this.#start(slot);
      }
    });
    return life;
  }

  #hear(told: Told, life: Life): void {
    this.heard.push({ ...told, pid: life.pid });
    const place = `${told.topic}/${told.partition}`;
    if (told.what === 'started') life.hasStarted = true;
    // At-least-once claims nothing.
    if (told.what === (this.config.control === 'at-least-once' ? 'assigned' : 'claimed')) life.held.add(place);
    if (told.what === 'lost' || told.what === 'released') life.held.delete(place);
    if (told.what === 'halted') this.config.onTrouble(`worker ${life.pid} halted ${place}: ${told.detail}`);
  }

  async #newSlot(): Promise<Slot> {
    const { brokers, clickhouseUrl, keeperConnect } = this.stack;
    const { store, insertMode, routes, dir } = this.config;
    const name = `worker-${this.#slots.length + 1}`;
    const clickhouse = await TcpProxy.start({ to: new URL(clickhouseUrl).host });
    const keeper = await TcpProxy.start({ to: keeperConnect });
    const state = {
      keeper: { store: 'keeper', connect: keeper.address, sessionTimeoutMs: 10_000 },
      'keeper-map': { store: 'keeper-map', table: 'chaos_state', path: '/chaos' },
      kafka: { store: 'kafka' },
    }[store];
    const config = {
      kafka: {
        brokers,
        groupId: group,
        fromBeginning: true,
        sessionTimeoutMs,
        heartbeatIntervalMs: 500,
        rebalanceTimeoutMs: 9000,
        drainTimeoutMs: 4000,
      },
      clickhouse: { url: `http://${clickhouse.address}`, database, requestTimeoutMs, insertMode },
      // Tombstones of a route without a transform are left out; any other record that is left out is missing.
      state,
      delivery: 'exactly-once',
      onPoison: 'exclude',
      routes,
      batch: { count: 50, maxWaitMs: 200 },
      retry: { minDelayMs: 50, maxDelayMs: 1000 },
    };
    const configFile = join(dir, `${name}.json`);
    writeFileSync(configFile, JSON.stringify(config, null, 2));
    const slot: Slot = {
      name,
      clickhouse,
      keeper,
      configFile,
      log: createWriteStream(join(dir, `${name}.log`), { flags: 'a' }),
    };
    this.#slots = [...this.#slots, slot];
    return slot;
  }
}
