// Imports: rxjs. Virtual time for code that takes its time from the language: while the clock is installed, timers,
// Date.now, performance.now and Math.random are its own. Everything runs in one thread, one event after the other, and
// what an event sets off in promises runs before the next event: the same seed gives the same run.
import { VirtualAction, VirtualTimeScheduler, type SchedulerLike } from 'rxjs';

/** Whose timers they are: they wait while it is frozen, and never fire once it is dead. */
export interface Owner {
  readonly isDead: boolean;
  /** In the past: it is not frozen. */
  readonly thawsAtMs: number;
}

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly owner: Owner | undefined;
  readonly run: () => void;
  isOff: boolean;
}

/** Where virtual time begins: a date, so that nothing takes it for an interval. */
const EPOCH_MS = 1_790_000_000_000;
/** Events at one moment; more is a spin that time never gets out of. */
const MAX_EVENTS_AT_ONCE = 50_000;

const real = {
  setTimeout,
  clearTimeout,
  setInterval,
  clearInterval,
  setImmediate,
  clearImmediate,
  dateNow: Date.now,
  performanceNow: performance.now.bind(performance),
  random: Math.random,
};

export class VirtualClock {
  nowMs = 0;
  events = 0;
  /** Whose code is running. What it starts is its own. */
  current: Owner | undefined;
  readonly #heap = new Heap();
  readonly #world = new VirtualTimeScheduler(VirtualAction, Infinity);
  #order = 0;

  constructor(private readonly random: () => number) {}

  /** For the world around the processes: its work belongs to nobody. */
  get scheduler(): SchedulerLike {
    return this.#world;
  }

  /** Calls after so many milliseconds, unless the owner is dead by then; a frozen one when it thaws. */
  after(delayMs: number, owner: Owner | undefined, run: () => void): () => void {
    const event: Event = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, owner, run, isOff: false };
    this.#heap.push(event);
    return () => void (event.isOff = true);
  }

  /** Until `untilMs`, or until `isOver` says so between two events. */
  async run(untilMs: number, isOver: () => boolean): Promise<void> {
    let atOnce = 0;
    for (;;) {
      const next = this.#next();
      if (next === undefined || next.atMs > untilMs) break;
      atOnce = next.atMs === this.nowMs ? atOnce + 1 : 0;
      if (atOnce > MAX_EVENTS_AT_ONCE) throw new Error(`more than ${MAX_EVENTS_AT_ONCE} events at ${this.nowMs} ms`);
      this.nowMs = next.atMs;
      this.#world.frame = next.atMs;
      this.current = next.owner;
      this.events++;
      next.run();
      await new Promise((resolve) => real.setImmediate(resolve));
      if (isOver()) return;
    }
    this.nowMs = Math.max(this.nowMs, Math.min(untilMs, Number.MAX_SAFE_INTEGER));
    this.#world.frame = this.nowMs;
  }

  /** The earliest event that is to take place; those of the frozen are put off. */
  #next(): { readonly atMs: number; readonly owner: Owner | undefined; readonly run: () => void } | undefined {
    for (;;) {
      const event = this.#heap.first;
      const action = this.#world.actions[0];
      if (action !== undefined && (event === undefined || action.delay <= event.atMs)) {
        this.#world.actions.shift();
        return {
          atMs: Math.max(this.nowMs, action.delay),
          owner: undefined,
          run: () => void action.execute(action.state, action.delay),
        };
      }
      if (event === undefined) return undefined;
      this.#heap.pop();
      const { owner, isOff, atMs } = event;
      if (isOff || owner?.isDead === true) continue;
      if (owner === undefined || owner.thawsAtMs <= atMs) return event;
      this.#heap.push(Object.assign(event, { atMs: owner.thawsAtMs, order: this.#order++ }));
    }
  }

  /** From now on the language's time is this one. Gives back what puts the real one back. */
  install(): () => void {
    const timer = (run: () => void, delayMs: number, isRepeated: boolean) => this.#timer(run, delayMs, isRepeated);
    const off = (handle: unknown) => (handle as Timer | undefined)?.off?.();
    const globals = globalThis as unknown as Record<string, unknown>;
    globals['setTimeout'] = (run: (...args: unknown[]) => void, delayMs = 0, ...args: unknown[]) =>
      timer(() => run(...args), delayMs, false);
    globals['setInterval'] = (run: (...args: unknown[]) => void, delayMs = 0, ...args: unknown[]) =>
      timer(() => run(...args), delayMs, true);
    globals['setImmediate'] = (run: (...args: unknown[]) => void, ...args: unknown[]) =>
      timer(() => run(...args), 0, false);
    for (const name of ['clearTimeout', 'clearInterval', 'clearImmediate']) globals[name] = off;
    Date.now = () => EPOCH_MS + Math.floor(this.nowMs);
    performance.now = () => this.nowMs;
    Math.random = this.random;
    return () => {
      const { dateNow, performanceNow, random, ...timers } = real;
      Object.assign(globalThis, timers);
      Date.now = dateNow;
      performance.now = performanceNow;
      Math.random = random;
    };
  }

  #timer(run: () => void, delayMs: number, isRepeated: boolean): Timer {
    const { current } = this;
    const everyMs = Math.max(isRepeated ? 1 : 0, delayMs);
    let off = (): void => undefined;
    const fire = (): void => {
      if (isRepeated) off = this.after(everyMs, current, fire);
      run();
    };
    off = this.after(everyMs, current, fire);
    const handle: Timer = { off: () => off(), ref: () => handle, unref: () => handle, hasRef: () => true };
    return handle;
  }
}

interface Timer {
  readonly off: () => void;
  ref(): Timer;
  unref(): Timer;
  hasRef(): boolean;
}

/** By time, then by the order in which they were put in. */
class Heap {
  readonly #events: Event[] = [];

  get first(): Event | undefined {
    return this.#events[0];
  }

  push(event: Event): void {
    const events = this.#events;
    events.push(event);
    for (let at = events.length - 1; at > 0;) {
      const parent = (at - 1) >> 1;
      if (!isBefore(events[at]!, events[parent]!)) return;
      [events[at], events[parent]] = [events[parent]!, events[at]!];
      at = parent;
    }
  }

  pop(): void {
    const events = this.#events;
    const last = events.pop();
    if (last === undefined || events.length === 0) return;
    events[0] = last;
    for (let at = 0; ;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2])
        if (child < events.length && isBefore(events[child]!, events[least]!)) least = child;
      if (least === at) return;
      [events[at], events[least]] = [events[least]!, events[at]!];
      at = least;
    }
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
