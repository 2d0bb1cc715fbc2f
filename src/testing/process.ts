/**
 * One simulated process: its clock, which stands still while it is frozen, and its calls into the world, at any of
 * which it can die. Imports: errors, rxjs, testing/clickhouse.
 */
import { Observable, Subject, type SchedulerAction, type SchedulerLike, type Subscription } from 'rxjs';
import { IngestError } from '../errors.js';
import type { ServerFault } from './clickhouse/server-faults.js';
import { fateOf, unknownOutcome, type Fate, type Fault, type Killed, type PortName } from './faults.js';

/** A request on its way to a server, or an event on its way to a process: what it is about, and how it takes place. */
export interface Step {
  readonly process: SimulatedProcess;
  readonly name: string;
  /** Undefined: it concerns the process as a whole. */
  readonly partition: number | undefined;
  /** An event is dropped when its process is dead; a request that was sent is not. */
  readonly isEvent: boolean;
  /** Of an insert: its dedup token. */
  readonly token?: string | undefined;
  /** Something on the way holds it: the server does not know of it yet. */
  readonly isUnseen?: boolean;
  /** Of a request: all that its effect depends on, beside what the servers hold. */
  readonly content?: () => string;
  /** Lets it take place, with what befalls it. */
  take(fate?: Fate): void;
  /** Of a request: delivers this reply at once, without any effect. */
  readonly answer?: (outcome: Outcome<unknown>) => void;
  /** Of a request: somebody still waits for the reply. */
  readonly isAwaited?: () => boolean;
}

/** Decides when a step takes place. Timed worlds let it take its latency; an exhaustive search chooses. */
export interface Pace {
  /** `delayMs` is what a timed world waits. */
  step(step: Step, delayMs: number): void;
  /** Delivers a reply to a process; the outcome is what the reply says. */
  reply(process: SimulatedProcess, deliver: () => void, outcome: Outcome<unknown>): Subscription | undefined;
}

/** What a process shares with the others. */
export interface Surroundings {
  readonly scheduler: SchedulerLike;
  readonly pace: Pace;
  readonly latencyMs: number;
  readonly lateMs: number;
  /** Told lazily: a line is made only when somebody listens. */
  note(line: () => string): void;
  /** The process died: its member leaves when its session has run out. */
  died(process: SimulatedProcess): void;
  froze(process: SimulatedProcess, ms: number): void;
  thawed(process: SimulatedProcess): void;
}

export interface Call<T> {
  readonly port: PortName;
  readonly partition?: number;
  /** What is asked, for the story. */
  readonly what: () => string;
  readonly token?: string | undefined;
  /** What the effect depends on beside `what`, the port and the process. */
  readonly detail?: () => string;
  readonly effect: (killed: Killed) => T;
  /** Instead of `effect`: takes effect some time later, of which `done` is told. */
  readonly queue?: (killed: Killed, done: (outcome: Outcome<T>) => void, fault?: ServerFault) => void;
}

/** What a call gave or failed with. */
export type Outcome<T> = { readonly value: T } | { readonly error: unknown };

/** A process with a clock of its own, which can be killed and frozen; faults befall its calls as planned. */
export class SimulatedProcess {
  isDead = false;
  readonly #death = new Subject<void>();
  /** Emits when it dies. */
  readonly died: Observable<void> = this.#death.asObservable();
  /** Its own clock: what falls due while it is frozen happens when it thaws. */
  readonly scheduler: SchedulerLike;
  /** Calls made so far. */
  calls = 0;
  readonly #callsOf = new Map<PortName, number>();
  #frozenUntilMs = 0;

  constructor(
    readonly name: string,
    private readonly world: Surroundings,
    private readonly plan: readonly Fault[],
  ) {
    const { scheduler } = world;
    this.scheduler = {
      now: () => scheduler.now(),
      schedule: <T>(work: (this: SchedulerAction<T>, state?: T) => void, delayMs = 0, state?: T) =>
        scheduler.schedule(this.#gated(work), delayMs, state),
    };
  }

  /** Does it stand still at this moment? */
  get isFrozen(): boolean {
    return this.world.scheduler.now() < this.#frozenUntilMs;
  }

  /** When it goes on, on the world's clock; in the past: it stands not still. */
  get thawsAtMs(): number {
    return this.#frozenUntilMs;
  }

  /** As by SIGKILL: nothing of it runs any more; what it had sent may still take effect. */
  kill(): void {
    if (this.isDead) return;
    this.isDead = true;
    this.world.note(() => `${this.name} dies`);
    this.world.died(this);
    this.#death.next();
  }

  /** As by SIGSTOP and, after `ms`, SIGCONT. */
  freeze(ms: number): void {
    if (this.isDead) return;
    this.#frozenUntilMs = Math.max(this.#frozenUntilMs, this.world.scheduler.now() + ms);
    this.world.note(() => `${this.name} freezes for ${ms} ms`);
    this.world.froze(this, ms);
    this.later(() => {
      this.world.note(() => `${this.name} thaws`);
      this.world.thawed(this);
    }, ms);
  }

  /** Runs `work` after `delayMs` of its own clock. */
  later(work: () => void, delayMs: number): Subscription {
    return this.scheduler.schedule(work, delayMs);
  }

  /** A port call: an effect on a server, and a reply. Unsubscribing gives up the reply, not the effect. */
  call<T>({ port, partition, what, token, detail, effect, queue }: Call<T>): Observable<T> {
    return new Observable<T>((subscriber) => {
      if (this.isDead) return undefined;
      const { latencyMs, lateMs, pace } = this.world;
      const callOfPort = (this.#callsOf.get(port) ?? 0) + 1;
      this.#callsOf.set(port, callOfPort);
      const fate = fateOf(this.plan, port, ++this.calls, callOfPort);
      this.world.note(() => `${this.name} ${port} ${what()}${fate === undefined ? '' : `: ${fateName(fate)}`}`);
      let given: Subscription | undefined;
      const reply = (outcome: Outcome<T>) => {
        given = pace.reply(this, () => deliver(outcome), outcome);
      };
      const deliver = (outcome: Outcome<T>) => {
        if (this.isDead) return;
        if ('error' in outcome) return subscriber.error(outcome.error);
        subscriber.next(outcome.value);
        subscriber.complete();
      };
      const lost = (): Outcome<T> => ({ error: new IngestError(unknownOutcome[port], 'the reply was lost') });
      const step: Step = {
        process: this,
        name: `${port} ${what()}`,
        partition,
        isEvent: false,
        token,
        content: () => `${this.name} ${port} ${what()} ${detail?.() ?? ''}`,
        answer: (outcome) => deliver(outcome as Outcome<T>),
        isAwaited: () => !this.isDead && !subscriber.closed,
        take: (taken) => {
          const done = (outcome: Outcome<T>) => {
            if ('error' in outcome)
              this.world.note(() => `… ${this.name} ${port} ${what()} fails: ${codeOf(outcome.error)}`);
            if (taken === 'die after') return this.kill();
            if (this.isDead || isLandingLate(taken)) return;
            reply(taken === 'lose reply' ? lost() : outcome);
          };
          const server = typeof taken === 'object' && 'server' in taken ? taken.server : undefined;
          if (queue === undefined) done(attempt(() => effect(killedBy(taken))));
          else queue(killedBy(taken), done, server);
        },
      };
      this.#send(step, fate, { latencyMs, lateMs, pace, reply, lost });
      return () => given?.unsubscribe();
    });
  }

  #send<T>(step: Step, fate: Fate | undefined, { latencyMs, lateMs, pace, reply, lost }: Sending<T>): void {
    if (fate === 'die before') return this.kill();
    if (fate === 'die, lands late') {
      pace.step({ ...step, take: () => step.take({ landsAfterMs: lateMs }) }, lateMs);
      return this.kill();
    }
    if (fate === undefined || typeof fate === 'string' || 'server' in fate) {
      pace.step(fate === undefined ? step : { ...step, take: () => step.take(fate) }, latencyMs / 2);
      return;
    }
    if ('failWith' in fate) {
      this.later(() => reply({ error: new IngestError(fate.failWith, 'the plan says so') }), latencyMs / 2);
      return;
    }
    if ('landsAfterMs' in fate || 'hangsMs' in fate) {
      const isUnseen = 'hangsMs' in fate;
      pace.step({ ...step, isUnseen, take: () => step.take(fate) }, isUnseen ? fate.hangsMs : fate.landsAfterMs);
      this.later(() => reply(lost()), latencyMs);
      return;
    }
    if ('freezeMs' in fate) this.freeze(fate.freezeMs);
    pace.step(step, latencyMs / 2 + ('delayMs' in fate ? fate.delayMs : 0));
  }

  #gated<T>(work: (this: SchedulerAction<T>, state?: T) => void): (this: SchedulerAction<T>, state?: T) => void {
    const isDead = () => this.isDead;
    const frozenMs = () => this.#frozenUntilMs - this.world.scheduler.now();
    return function (this: SchedulerAction<T>, state?: T): void {
      if (isDead()) return;
      const ms = frozenMs();
      if (ms > 0) this.schedule(state, ms);
      else work.call(this, state);
    };
  }
}

interface Sending<T> {
  readonly latencyMs: number;
  readonly lateMs: number;
  readonly pace: Pace;
  readonly reply: (outcome: Outcome<T>) => void;
  readonly lost: () => Outcome<T>;
}

function killedBy(fate: Fate | undefined): Killed {
  switch (fate) {
    case 'kill server':
      return 'torn';
    case 'kill server between':
      return 'between';
    case 'kill server early':
      return 'early';
    default:
      return undefined;
  }
}

function isLandingLate(fate: Fate | undefined): boolean {
  return typeof fate === 'object' && ('landsAfterMs' in fate || 'hangsMs' in fate);
}

function fateName(fate: Fate): string {
  return typeof fate === 'string' ? fate : JSON.stringify(fate);
}

export function codeOf(error: unknown): string {
  return error instanceof IngestError ? `${error.code} ${error.detail}` : String(error);
}

function attempt<T>(effect: () => T): Outcome<T> {
  try {
    return { value: effect() };
  } catch (error) {
    return { error };
  }
}
