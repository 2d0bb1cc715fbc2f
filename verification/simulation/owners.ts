// Room: one owner by itself: the very operators that ship, in a world of their own whose servers answer what they are
// told to. What an owner does is decided by what it was told, in which order, and by nothing else: it is run once for
// each such history, and looked up from then on. What it looks at beside (when the server was started; whose the
// partition is) is noticed, and is part of the history where it was looked at.
import {
  VirtualAction,
  VirtualTimeScheduler,
  from,
  map,
  type Observable,
  type SchedulerAction,
  type Subscription,
} from 'rxjs';
import { exactlyOnce, type ExactlyOnceConfig } from '../../src/pipeline/exactly-once.js';
import { IngestError } from '../../src/errors.js';
import { lastKnownOffset } from '../../src/model/state.js';
import type { Claim, SourceEvent } from '../../src/ports.js';
import {
  SimulatedWorld,
  type ConsumerGroup,
  type Fate,
  type Member,
  type Outcome,
  type Pace,
  type Process,
  type SavedServers,
  type Step,
} from '../../src/testing/index.js';

export interface SmallWorld {
  readonly name: string;
  readonly records: readonly number[];
  readonly batch: number;
  readonly maxPending: number;
  /** Faults that may strike in one run. */
  readonly faults: number;
  /** ClickHouse partitions that rows spread over. */
  readonly spread?: number;
  /** Records come one by one, each the last for now: none waits for a batch to be full, those that wait for their turn are joined. */
  readonly isTrickling?: boolean;
  /** Each owner comes an hour after the one before: no token is relied on any more. What hangs on its way still lands. */
  readonly isSlow?: boolean;
}

/** How a process is composed: as it ships, or broken. */
export type ComposeOwner = (
  process: Process,
  config: ExactlyOnceConfig & { readonly chunkSize: number },
) => Observable<unknown>;

export const asShipped: ComposeOwner = (process, { chunkSize: _, ...config }) =>
  exactlyOnce(process.source, process.sink, process.store, { ...config, scheduler: process.scheduler });

/** The owners take turns in how they cut: another owner, other cuts. */
export function configOf(
  { batch, maxPending, isTrickling = false, isSlow = false }: SmallWorld,
  ordinal: number,
  name: string,
) {
  const isOdd = ordinal % 2 === 1;
  // What is left from before a seek must not be joined with what the seek brings: it can only show where both would fit.
  const other = isTrickling ? batch + 3 : (batch % 3) + 1;
  return {
    group: 'g',
    owner: name,
    maxPending,
    chunkSize: isTrickling ? 1 : isOdd ? 6 : 4,
    batch: { count: isOdd ? batch : other, maxWaitMs: 5 }, // A look and the insert behind it count their retries together: of those that grow the second would show the first.
    retry: { minDelayMs: 3, maxDelayMs: isSlow ? 3 : 20, jitter: 0 },
  };
}

export function tableOf({ spread = 1 }: SmallWorld) {
  return spread === 1 ? {} : { partitionBy: ({ offset }: { readonly offset: number }) => String(offset % spread) };
}

/** A source whose budget never lasts for more than what it has just brought. */
function trickling(process: Process): Process {
  const events = from(process.source.events).pipe(
    map((event): SourceEvent =>
      event.kind === 'fetched' ? { ...event, chunk: { ...event.chunk, isLastForNow: true } } : event,
    ),
  );
  return { ...process, source: { ...process.source, events } };
}

/** What an owner can be told. */
export type Input =
  | { readonly kind: 'answer'; readonly content: string; readonly outcome: Outcome<unknown> }
  | { readonly kind: 'lost'; readonly partition: number }
  | { readonly kind: 'timer'; readonly partition: number; readonly isCurrent: boolean };

/** Steps that no other process can notice take place at once. */
const unnoticed = new Set(['assigned', 'fetch', 'cluster', 'log']);

/** What the pipeline tells the watch when it sends, and when a tenure is over. */
const told = ['told', 'asked', 'claiming', 'writing', 'inserting', 'filling'] as const;
const inEffects = ['claimed', 'written', 'committing', 'blocks', 'torn', 'took'] as const;

export interface WatchCall {
  readonly method: (typeof told)[number];
  readonly args: readonly unknown[];
}

type Tenure = ConsumerGroup['current'] extends Map<number, infer T> ? T : never;

/** Tenures of one owner have epochs from here on. */
const epochsEach = 100;
const firstEpoch = (ordinal: number) => (ordinal - 1) * epochsEach;

export function isOf(ordinal: number, assignmentId: number): boolean {
  return assignmentId > firstEpoch(ordinal) && assignmentId <= firstEpoch(ordinal + 1);
}

/** Does this claim belong to a tenure that was given once more? */
export function isSecondTenure(ordinal: number, partitions: number, claim: string): boolean {
  return / claim .*#(\d+)/.test(claim) && Number(/#(\d+)/.exec(claim)![1]) > firstEpoch(ordinal) + partitions;
}

/** What an owner looks at without asking for it. */
export interface Surroundings {
  readonly startedMs: number;
  readonly committed: ReadonlyMap<number, number>;
}

/** One owner at one moment of one history. */
export class Sandbox {
  readonly world: SimulatedWorld;
  /** Requests under way, in the order in which they were sent. */
  readonly pending = new Map<Step, string>();
  calls: WatchCall[] = [];
  errors: string[] = [];
  /** Requests that were under way and that nobody waits for any more. */
  orphans: Step[] = [];
  hasLooked = false;
  /** After what the timer was set that fired last. */
  fired = '';
  readonly #clock = new VirtualTimeScheduler(VirtualAction, 0);
  readonly #timers = new Map<unknown, Timer>();
  /** Each partition has a time of its own, which goes on when one of its timers fires. */
  readonly #firedMs = new Map<number, number>();
  /** What was told last. */
  #after = '';
  readonly #eager: { readonly step: Step; readonly about: number | undefined }[] = [];
  readonly #lost: Step[] = [];
  readonly #tenures = new Map<number, Tenure>();
  readonly #member: Member;
  #mode: 'idle' | 'reacts' | 'effect' = 'reacts';
  #about: number | undefined;
  #scheduled = 0;
  #around: Surroundings;
  #startedMs = 0;
  #outcome: Outcome<unknown> | undefined;

  constructor(small: SmallWorld, ordinal: number, compose: ComposeOwner, around: Surroundings) {
    const pace: Pace = {
      step: (step) => this.#add(step),
      reply: (_process, _deliver, outcome) => void (this.#outcome = outcome),
    };
    this.world = new SimulatedWorld({
      partitions: small.records,
      scheduler: this.#tagging(small.isSlow === true ? (ordinal - 1) * 3_600_000 : 0),
      pace,
      table: tableOf(small),
    });
    const { group } = this.world;
    group.isManual = true;
    this.#noticeLooks();
    this.#intercept();
    this.world.lives = group.generation = ordinal - 1;
    group.assignmentIds = firstEpoch(ordinal);
    this.#around = around;
    const { process, self, member } = this.world.process({ chunkSize: configOf(small, ordinal, '').chunkSize });
    this.#member = member;
    const running = compose(
      small.isTrickling === true ? trickling(process) : process,
      configOf(small, ordinal, process.name),
    ).subscribe({ error: (error: unknown) => this.errors.push(String(error)) });
    self.died.subscribe(() => running.unsubscribe());
    group.give(member);
    this.#takeEager();
    this.#mode = 'idle';
  }

  /** In the order in which they are due: of which partition, after what, and how much later than the last one that fired. */
  get timers(): { readonly partition: number; readonly after: string; readonly ms: number }[] {
    return this.#due().map(({ partition, after, dueMs }) => ({
      partition,
      after,
      ms: dueMs - (this.#firedMs.get(partition) ?? 0),
    }));
  }

  /** Partitions whose tenure is over for the owner. */
  get over(): number[] {
    return [...this.#tenures].filter(([, { state }]) => state === 'over').map(([partition]) => partition);
  }

  react(input: Input, around: Surroundings): void {
    this.calls = [];
    this.errors = [];
    this.hasLooked = false;
    this.fired = '';
    this.#around = around;
    this.#mode = 'reacts';
    this.#after = input.kind === 'answer' ? input.content : input.kind;
    if (input.kind === 'answer') this.#answer(input.content, input.outcome);
    if (input.kind === 'lost') this.#lose(input.partition);
    if (input.kind === 'timer') this.#fire(input.partition, input.isCurrent);
    this.#takeEager();
    this.#collectOrphans();
    this.#mode = 'idle';
  }

  /** What a request does to servers that hold `before`, and what they answer; the owner is told nothing. */
  effect(step: Step, before: SavedServers, fate: Fate | undefined, isCurrent: boolean): Outcome<unknown> {
    this.#mode = 'effect';
    this.#setCurrent(isCurrent);
    this.world.restore(before);
    this.#outcome = undefined;
    step.take(fate);
    this.#mode = 'idle';
    return this.#outcome ?? { value: undefined };
  }

  #answer(content: string, outcome: Outcome<unknown>): void {
    const step = [...this.pending].find(([, other]) => other === content)?.[0];
    if (step?.answer === undefined) throw new Error(`an owner that is not repeatable: it has not sent ${content}`);
    this.pending.delete(step);
    this.#about = step.partition;
    step.answer(outcome);
  }

  #lose(partition: number): void {
    this.#about = partition;
    this.#setCurrent(false);
    this.#member.lose(this.#tenures.get(partition)!);
    for (let step = this.#lost.shift(); step !== undefined; step = this.#lost.shift()) step.take();
  }

  /** The one of the partition's timers that is due first. */
  #fire(partition: number, isCurrent: boolean): void {
    this.#about = partition;
    this.#setCurrent(isCurrent);
    const { actions } = this.#clock;
    const { action, after, dueMs } = this.#due().find((timer) => timer.partition === partition)!;
    this.fired = after;
    this.#after = `${after} (once more)`;
    actions.splice(actions.indexOf(action as never), 1);
    this.#timers.delete(action);
    this.#firedMs.set(partition, dueMs);
    const error = action.execute(action.state, action.delay);
    if (error !== undefined) throw error as Error;
  }

  #due(): (Timer & { readonly action: Fired })[] {
    const running = (this.#clock.actions as unknown as Fired[]).map((action) => ({
      ...this.#timers.get(action)!,
      action,
    }));
    return running.sort((a, b) => a.partition - b.partition || a.dueMs - b.dueMs || a.nth - b.nth);
  }

  #setCurrent(isCurrent: boolean): void {
    for (const [partition, tenure] of this.#tenures)
      this.world.group.current.set(partition, isCurrent ? tenure : { ...tenure, assignment: { ...tenure.assignment } });
  }

  #add(step: Step): void {
    const port = portOf(step);
    if (port === 'assigned') this.#tenures.set(step.partition!, this.world.group.current.get(step.partition!)!);
    if (port === 'lost') return void this.#lost.push(step);
    if (unnoticed.has(port)) return void this.#eager.push({ step, about: step.partition ?? this.#about });
    this.pending.set(step, step.content!());
  }

  #takeEager(): void {
    for (let next = this.#eager.shift(); next !== undefined; next = this.#eager.shift()) {
      const { step, about } = next;
      this.#about = about;
      this.#outcome = undefined;
      step.take();
      if (this.#outcome !== undefined) step.answer?.(this.#outcome);
    }
  }

  #collectOrphans(): void {
    this.orphans = [];
    for (const step of [...this.pending.keys()]) {
      if (step.isAwaited?.() !== false) continue;
      this.pending.delete(step);
      this.orphans.push(step);
    }
  }

  /** Time stands still: what an owner may look at of it is how long ago a range was recorded, and a run does not take minutes. */
  #tagging(nowMs: number): VirtualTimeScheduler {
    const clock = this.#clock;
    const schedule = clock.schedule.bind(clock);
    clock.now = () => nowMs;
    clock.schedule = ((
      work: (this: SchedulerAction<unknown>, state?: unknown) => void,
      delayMs?: number,
      state?: unknown,
    ): Subscription => {
      const action = schedule(work, delayMs, state);
      const partition = this.#about ?? 0;
      this.#timers.set(action, {
        partition,
        after: this.#after,
        dueMs: (this.#firedMs.get(partition) ?? 0) + (delayMs ?? 0),
        nth: this.#scheduled++,
      });
      return action;
    }) as typeof clock.schedule;
    return clock;
  }

  #noticeLooks(): void {
    const isReacting = () => this.#mode === 'reacts';
    const { table, group } = this.world;
    Object.defineProperty(table, 'startedMs', {
      get: () => {
        this.hasLooked = true;
        return isReacting() ? this.#around.startedMs : this.#startedMs;
      },
      set: (ms: number) => void (this.#startedMs = ms),
    });
    const get = group.committed.get.bind(group.committed);
    group.committed.get = (partition) => {
      this.hasLooked = true;
      return isReacting() ? this.#around.committed.get(partition) : get(partition);
    };
  }

  /** What the pipeline does is told to the watch of the servers that it does it to; not here. */
  #intercept(): void {
    const { watch } = this.world;
    const methods = watch as unknown as Record<string, (...args: unknown[]) => void>;
    for (const method of [...told, ...inEffects]) {
      const real = methods[method]!.bind(watch);
      methods[method] = (...args) => {
        if (this.#mode === 'effect') return real(...args);
        if ((inEffects as readonly string[]).includes(method)) throw new Error(`${method} outside of an effect`);
        if (method !== 'told' || (args[0] as { readonly kind: string }).kind === 'lost')
          this.calls.push({ method: method as WatchCall['method'], args });
      };
    }
  }
}

interface Timer {
  readonly partition: number;
  readonly after: string;
  readonly dueMs: number;
  readonly nth: number;
}

interface Fired {
  readonly delay: number;
  readonly state: unknown;
  execute(state: unknown, delayMs: number): unknown;
}

export function portOf({ name }: Step): string {
  return name.slice(0, name.indexOf(' ') < 0 ? undefined : name.indexOf(' '));
}

/** What may be known of an outcome. */
export function textOf(outcome: Outcome<unknown>): string {
  if (!('error' in outcome)) return JSON.stringify(outcome.value) ?? 'done';
  const { error } = outcome;
  return error instanceof IngestError ? `${error.code} ${JSON.stringify(error.fields)}` : String(error);
}

/** An owner after a history. */
export interface OwnerNode {
  readonly id: number;
  readonly ordinal: number;
  /** What it waits for, by the numbers of the contents, ascending. */
  readonly requests: readonly number[];
  /** Partitions of which a timer runs. */
  readonly timers: readonly number[];
  /** Partitions whose tenure is over for it. */
  readonly over: readonly number[];
  readonly told: ReadonlyMap<number, Reaction>;
}

/** What being told something leads to. */
export interface Reaction {
  readonly node: OwnerNode;
  /** What is told to the watch: 0 is nothing. */
  readonly calls: number;
  readonly orphans: readonly number[];
  readonly errors: readonly string[];
  /** At what it was not told. */
  readonly hasLooked: boolean;
}

/** An owner's history: how it began, and what it was told. */
export interface Way {
  readonly ordinal: number;
  readonly around: Surroundings;
  readonly tellings: readonly { readonly input: Input; readonly around: Surroundings }[];
}

/** One way in which an owner came to where it stands. */
interface Path {
  readonly above: Path | undefined;
  readonly input: Input | undefined;
  readonly around: Surroundings;
  /** Stands for everything it was told on the way, in no order. */
  readonly sum: number;
}

/** Something an owner was told. */
interface Heard {
  readonly key: number;
  readonly partition: number;
  /** The port that answered; or a timer, or what was there when the owner began. */
  readonly port: string;
  /** The request that was answered, or after whose answer the timer was set. */
  readonly about: string;
  /** It matters until this offset is settled. */
  readonly reach: number;
  /** The state in the answer: settled up to here. */
  readonly settled: number;
  /** The tenure was over with it. */
  readonly isOver: boolean;
}

interface Telling {
  readonly key: number;
  readonly reaction: Reaction;
  readonly input: Input;
  readonly around: Surroundings;
}

interface Grown extends OwnerNode {
  readonly told: Map<number, Reaction>;
  readonly tellings: Telling[];
  readonly now: string;
  readonly path: Path;
  /** What it was told on the way, in no order, without what was answered in the end. */
  readonly heard: readonly Heard[];
  /** Other ways here, each told the same in another order. */
  readonly others: Path[];
}

/** All that requests can ask for, each once, with somebody who can take it to the servers. */
export interface Content {
  readonly id: number;
  readonly name: string;
  readonly text: string;
  readonly port: string;
  readonly ordinal: number;
  readonly partition: number;
  /** Of the range it is about; Infinity where it is about none. */
  readonly lastOffset: number;
  readonly step: Step;
  readonly sandbox: Sandbox;
}

const warmed = 200;
/** What may be told is a number, in which these have their places. */
const limits = { contents: 65_536, outcomes: 4096 } as const;
/** Other ways to one history that are walked beside it; of the same answers in another order only one. */
const carried = 2;
const alike = 1;
const rangePorts: ReadonlySet<string> = new Set(['insert', 'readBack', 'fill']);
const kinds = { answer: 0, lost: 1, timer: 2 } as const;

/** The owners of one small world, and how they react. */
export class Owners {
  readonly contents: Content[] = [];
  readonly outcomes: Outcome<unknown>[] = [];
  readonly calls: (readonly WatchCall[])[] = [[]];
  readonly nodes: OwnerNode[] = [];
  /** Histories that were run. */
  runs = 0;
  readonly #contentIds = new Map<string, number>();
  readonly #outcomeIds = new Map<string, number>();
  readonly #callIds = new Map<string, number>([['[]', 0]]);
  readonly #aroundIds = new Map<string, number>();
  readonly #roots = new Map<string, Reaction>();
  /** Owners by what they were told, in any order, and what they wait for. */
  readonly #merged = new Map<string, Grown>();
  /** Times that two ways to the same were compared. */
  compared = 0;
  readonly differences: string[] = [];
  readonly #warm = new Map<Path, Sandbox>();

  constructor(
    readonly small: SmallWorld,
    private readonly compose: ComposeOwner = asShipped,
    readonly isMerging = true,
  ) {}

  begin(ordinal: number, around: Surroundings): Reaction {
    const key = `${ordinal} ${this.#aroundId(around)}`;
    let root = this.#roots.get(key);
    if (root === undefined) {
      const path = { above: undefined, input: undefined, around, sum: mixed(this.#aroundId(around)) };
      const heard = this.small.records.map((_, partition): Heard => ({
        key: this.#aroundId(around, partition),
        partition,
        port: 'begin',
        about: '',
        reach: -1,
        settled: -1,
        isOver: false,
      }));
      root = this.#reaction(this.#walk(ordinal, path), ordinal, path, heard);
      this.#roots.set(key, root);
    }
    return root;
  }

  /** Histories that did not go on; every other one is the beginning of one of these. */
  ways(): Way[] {
    return this.nodes.flatMap((node): Way[] => {
      const { tellings, path, ordinal } = node as Grown;
      if (tellings.length > 0) return [];
      const told: { input: Input; around: Surroundings }[] = [];
      let at = path;
      for (; at.above !== undefined; at = at.above) told.unshift({ input: at.input!, around: at.around });
      return [{ ordinal, around: at.around, tellings: told }];
    });
  }

  outcomeId(outcome: Outcome<unknown>): number {
    const text = textOf(outcome);
    let id = this.#outcomeIds.get(text);
    if (id === undefined) {
      id = this.outcomes.push(outcome) - 1;
      if (id >= limits.outcomes) throw new RangeError('more outcomes than their numbers have room for');
      this.#outcomeIds.set(text, id);
    }
    return id;
  }

  /** `index`: of the content or the partition; `what`: an outcome's number, or whether the partition is still its own. */
  told(node: OwnerNode, kind: keyof typeof kinds, index: number, what: number, around: Surroundings): Reaction {
    const grown = node as Grown;
    const key = (kinds[kind] * limits.contents + index) * limits.outcomes + what;
    const found = grown.told.get(key);
    if (found !== undefined && !found.hasLooked) return found;
    const looking =
      key +
      (1 + this.#aroundId(around, kind === 'answer' ? this.contents[index]!.partition : index)) *
        4 *
        limits.contents *
        limits.outcomes;
    const known = found === undefined ? undefined : grown.told.get(looking);
    if (known !== undefined) return known;
    const input = this.#input(kind, index, what);
    const sandbox = this.#walk(node.ordinal, grown.path);
    sandbox.react(input, around);
    const entry = this.#entry(
      sandbox,
      sandbox.hasLooked ? looking : key,
      input,
      kind === 'answer' ? this.contents[index] : undefined,
    );
    const heard = this.isMerging
      ? this.#heard(grown.heard, entry, input.kind === 'answer' ? input.outcome : undefined)
      : [...grown.heard, entry];
    const reaction = this.#reaction(
      sandbox,
      node.ordinal,
      { above: grown.path, input, around, sum: summed(grown.path, entry.key) },
      heard,
    );
    grown.told.set(key, reaction);
    if (reaction.hasLooked) grown.told.set(looking, reaction);
    const telling = { key: entry.key, reaction, input, around };
    grown.tellings.push(telling);
    for (const path of grown.others) this.#compare(grown, telling, path);
    return reaction;
  }

  /**
   * What still matters of what an owner heard. A call that succeeded in the end is one, however often it was made. A
   * commit is over whatever came of it. That a range was looked for does not matter once all of it was there, and nothing
   * of a range does once it is settled. Of the states that were written the last one counts, of tenures the last one.
   * That no owner remembers more is what `compare` checks.
   */
  #heard(before: readonly Heard[], entry: Heard, outcome: Outcome<unknown> | undefined): readonly Heard[] {
    const { partition, about, port } = entry;
    const isOwn = (one: Heard) => one.partition === partition;
    const others = before.filter((one) => !isOwn(one) || one.port === 'begin');
    if (entry.isOver) return sortedByKey([...others, entry]);
    if (port === 'commit')
      return before.some((one) => isOwn(one) && one.port === 'write' && one.settled > entry.reach)
        ? before
        : sortedByKey([...before, entry]);
    if (outcome === undefined || 'error' in outcome) return sortedByKey([...before, entry]);
    if (port === 'claim')
      return sortedByKey([
        ...others,
        ...before.filter((one) => isOwn(one) && one.port === 'timer' && one.about !== about),
        entry,
      ]);
    const rest = before.filter((one) => one.about !== about);
    if (port === 'readBack' && (outcome.value as { readonly missing: readonly number[] }).missing.length === 0)
      return rest;
    if (port !== 'write') return sortedByKey([...rest, entry]);
    const isPast = (one: Heard) =>
      isOwn(one) &&
      (one.port === 'write' ||
        (rangePorts.has(one.port) && one.reach <= entry.settled) ||
        (one.port === 'commit' && one.reach < entry.settled));
    return sortedByKey([...rest.filter((one) => !isPast(one)), entry]);
  }

  #entry({ over, fired }: Sandbox, key: number, input: Input, content: Content | undefined): Heard {
    if (input.kind !== 'answer')
      return {
        key,
        partition: input.partition,
        port: input.kind,
        about: fired,
        reach: Infinity,
        settled: -1,
        isOver: over.includes(input.partition),
      };
    const { port, text, partition, lastOffset } = content!;
    const { state } =
      (port === 'claim' || port === 'write') && !('error' in input.outcome) ? (input.outcome.value as Claim) : {};
    const reach = state === undefined ? lastOffset : (lastKnownOffset(state) ?? -1);
    // Of a commit how far it went, and what came of it does not matter.
    return {
      key: port === 'commit' ? -1 - content!.id : key,
      partition,
      port,
      about: text,
      reach,
      settled: state?.settled ?? -1,
      isOver: over.includes(partition),
    };
  }

  #input(kind: keyof typeof kinds, index: number, what: number): Input {
    if (kind === 'answer') return { kind, content: this.contents[index]!.text, outcome: this.outcomes[what]! };
    return kind === 'lost' ? { kind, partition: index } : { kind, partition: index, isCurrent: what === 1 };
  }

  /** The owner as it is after this history: gone on with where one stands there, else from its beginning. */
  #walk(ordinal: number, path: Path): Sandbox {
    const inputs: Path[] = [];
    let from = path;
    for (; from.above !== undefined && !this.#warm.has(from); from = from.above) inputs.push(from);
    let sandbox = this.#warm.get(from);
    this.#warm.delete(from);
    if (sandbox === undefined) {
      this.runs += 1;
      sandbox = new Sandbox(this.small, ordinal, this.compose, from.around);
    }
    for (const { input, around } of inputs.reverse()) sandbox.react(input!, around);
    return sandbox;
  }

  #keepWarm(path: Path, sandbox: Sandbox): void {
    this.#warm.set(path, sandbox);
    if (this.#warm.size > warmed) this.#warm.delete(this.#warm.keys().next().value!);
  }

  #reaction(sandbox: Sandbox, ordinal: number, path: Path, heard: readonly Heard[]): Reaction {
    const does = this.#deed(sandbox, ordinal);
    const key = `${ordinal} ${heard.map((one) => one.key).join()} ${does.now}`;
    let node = this.#merged.get(key);
    if (node === undefined) {
      const { requests, timers, over } = does;
      // 0 stands for an owner that is gone.
      node = {
        id: this.nodes.length + 1,
        ordinal,
        requests,
        timers: [...new Set(timers.map(({ partition }) => partition))],
        over,
        told: new Map(),
        tellings: [],
        now: does.now,
        path,
        heard,
        others: [],
      };
      this.nodes.push(node);
      this.#merged.set(key, node);
      this.#keepWarm(path, sandbox);
    } else this.#joins(node, path);
    return { node, calls: does.calls, orphans: does.orphans, errors: sandbox.errors, hasLooked: sandbox.hasLooked };
  }

  /** Who came another way must do the same from here on. */
  #joins(node: Grown, path: Path): void {
    const isFull =
      node.others.length >= carried || [node.path, ...node.others].filter(({ sum }) => sum === path.sum).length > alike;
    if (isFull) return;
    node.others.push(path);
    for (const telling of node.tellings) this.#compare(node, telling, path);
  }

  #compare(node: Grown, { key, reaction, input, around }: Telling, path: Path): void {
    const to = reaction.node as Grown;
    const further: Path = { above: path, input, around, sum: summed(path, key) };
    const sandbox = this.#walk(node.ordinal, further);
    const { now, calls, orphans } = this.#deed(sandbox, node.ordinal);
    this.#keepWarm(further, sandbox);
    this.compared += 1;
    const isSame = now === to.now && calls === reaction.calls && orphans.join() === reaction.orphans.join();
    if (isSame) this.#joins(to, further);
    else
      this.differences.push(
        `${node.ordinal}: ${JSON.stringify(input)} after ${inputsOf(path)}; and after ${inputsOf(node.path)}`,
      );
  }

  #deed(sandbox: Sandbox, ordinal: number) {
    const requests = [...sandbox.pending.keys()]
      .map((step) => this.#contentId(step, ordinal, sandbox))
      .sort((a, b) => a - b);
    const orphans = sandbox.orphans.map((step) => this.#contentId(step, ordinal, sandbox)).sort((a, b) => a - b);
    const { timers, over } = sandbox;
    return {
      requests,
      orphans,
      timers,
      over,
      calls: this.#callsId(sandbox.calls),
      now: JSON.stringify([requests, timers, over]),
    };
  }

  /** Of one partition, or at the beginning of all. */
  #aroundId({ startedMs, committed }: Surroundings, partition?: number): number {
    const text = JSON.stringify([
      startedMs,
      partition === undefined ? [...committed].sort(([a], [b]) => a - b) : [partition, committed.get(partition)],
    ]);
    let id = this.#aroundIds.get(text);
    if (id === undefined) {
      id = this.#aroundIds.size;
      this.#aroundIds.set(text, id);
    }
    return id;
  }

  #contentId(step: Step, ordinal: number, sandbox: Sandbox): number {
    const text = step.content!();
    let id = this.#contentIds.get(text);
    if (id === undefined) {
      id = this.contents.length;
      if (id >= limits.contents) throw new RangeError('more requests than their numbers have room for');
      this.contents.push({
        id,
        name: `${step.process.name} ${step.name}`,
        text,
        port: portOf(step),
        ordinal,
        partition: step.partition ?? 0,
        lastOffset: lastOffsetOf(step),
        step,
        sandbox,
      });
      this.#contentIds.set(text, id);
    }
    return id;
  }

  #callsId(calls: readonly WatchCall[]): number {
    const text = JSON.stringify(calls, (_name, value: unknown) => (isRecord(value) ? value.offset : value));
    let id = this.#callIds.get(text);
    if (id === undefined) {
      id = this.calls.push(calls) - 1;
      this.#callIds.set(text, id);
    }
    return id;
  }
}

/** Of a range, or of what a commit covers. */
function lastOffsetOf({ name }: Step): number {
  const [, last, next] = / \d+:(?:\d+-(\d+)|(\d+)$)/.exec(name) ?? [];
  return next === undefined ? Number(last ?? Infinity) : Number(next) - 1;
}

function summed({ sum }: Path, key: number): number {
  return (sum + mixed(key)) | 0;
}

function mixed(key: number): number {
  const bits = Math.imul(key | 0, 0x85ebca6b) ^ Math.imul((key / 4294967296) | 0, 0xc2b2ae35);
  return Math.imul(bits ^ (bits >>> 15), 0x27d4eb2f);
}

function sortedByKey(heard: Heard[]): Heard[] {
  return heard.sort((a, b) => a.key - b.key);
}

function inputsOf(path: Path): string {
  const inputs: unknown[] = [];
  for (let at: Path | undefined = path; at?.input !== undefined; at = at.above)
    inputs.unshift(at.input.kind === 'answer' ? [at.input.content, textOf(at.input.outcome)] : at.input);
  return JSON.stringify(inputs);
}

/** Of a record its offset is enough: the log does not change. */
function isRecord(value: unknown): value is { readonly offset: number } {
  return typeof value === 'object' && value !== null && 'timestampMs' in value;
}
