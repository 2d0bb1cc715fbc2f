// Room: small worlds explored to the end: every order of the steps of two owners that the ports allow, every point at
// which a fault can strike, and a timer that fires at any moment. A death may strike whenever something is under way;
// what was sent lands some time or never. A further owner follows one that died.
//
// Why it takes seconds. An owner does what it was told makes it do, so each of its histories is run once, by the operators
// that ship (owners.ts); a request does what the servers' state makes of it, so each effect is made once, by the simulated
// servers (servers.ts). The rest is looking up. Orders that lead to the same moment go on as one. A moment is:
// what the servers hold and the watch has seen; the history of each owner; what is under way that nobody waits for; the
// faults left. Not part of it, since nothing depends on it any more: the history of an owner that is dead, or was told
// that it lost everything and waits for nothing; an orphan that can have no effect now or later (a write on a version
// that is gone, a commit of a former owner, a row that is there already while no fault is left).
//
// What is taken for granted and checked on the way:
// - Histories that an owner cannot tell apart any more are one: of the same answers in another order, or that differ in
//   what was said of settled ranges and former assignments, after which it waits for the same answers and timers. Two such
//   other ways are walked beside each history, through all that they are ever told; where one does anything else this
//   is the finding `remembers`. In worlds small enough for each history by itself the test counts the same orders.
// - Partitions do not concern each other. What can go wrong is always about one partition: so where every run of two
//   partitions, seen from one of them, is a run of that one beside another that stands still, each is explored by itself,
//   with what concerns both (begin, takeover, death, faults that struck the other) at every place. beside.ts checks that,
//   and what differs is the finding `dependent`. Of partitions with as many records, which are the same but for their
//   number, the first is explored with all faults, the others with one, so that there is something to stand beside.
// Not explored: a timer of a partition before one that is due earlier; that requests of two processes lie in wait for the
// same insert (a read-back does not see what is still running); more than one takeover from an owner that lives.
import { getHeapStatistics } from 'node:v8';
import { compareBeside } from './beside.js';
import { Moments } from './moments.js';
import { Owners, asShipped, type ComposeOwner, type OwnerNode, type Reaction, type SmallWorld } from './owners.js';
import { Servers, type Finding, type Taking } from './servers.js';

export interface Explored {
  /** Orders of steps, from the beginning to the end; a number with 15 digits that count. Of several partitions the sum. */
  readonly orders: number;
  /** Different moments. */
  readonly moments: number;
  /** Steps from one moment to another. */
  readonly steps: number;
  /** Times that the operators were run from an owner's beginning. */
  readonly runs: number;
  /** Different histories of an owner. */
  readonly histories: number;
  /** Histories that were run a second way, and effects beside another partition. */
  readonly compared: number;
  readonly isComplete: boolean;
  readonly seconds: number;
  readonly findings: readonly Found[];
}

/** What was explored of one partition, or of all at once. */
export interface Part extends Explored {
  readonly partition: number;
  /** What the servers held at the ends, by the numbers of `servers`. */
  readonly ends: ReadonlySet<number>;
  readonly servers: Servers;
  readonly owners: Owners;
}

export interface Found extends Finding {
  readonly story: readonly string[];
}

export interface ExhaustOptions {
  /** Of a core. @default 60 */
  readonly maxSeconds?: number;
  readonly compose?: ComposeOwner;
  /** Steps of this partition alone, and what concerns all. */
  readonly only?: number;
  /** False: every history of an owner for itself. @default true */
  readonly isMerging?: boolean;
  /** Stop after so many findings. */
  readonly maxFindings?: number;
}

/** A moment: all that the rest depends on. */
export interface Moment {
  readonly servers: number;
  readonly faults: number;
  /** Of each owner that ever began: the history it stands at, or 0 when it is gone. */
  readonly owners: readonly number[];
  /** Of each owner: partitions that it was told it lost, as bits. */
  readonly told: readonly number[];
  /** Requests under way that nobody waits for, ascending. They land some time, or never. */
  readonly orphans: readonly number[];
}

/**
 * One thing that can happen next, as a number: what, to which owner or orphan, and of which content or partition. There
 * are millions.
 */
type Option = number;

const kinds = [
  'answer',
  'lose reply',
  'kill server',
  'timer',
  'lost',
  'land',
  'land: kill server',
  'take over',
  'die',
  'killed elsewhere',
  'kill server between',
] as const;
const optionOf = (kind: (typeof kinds)[number], index: number, what = 0): Option =>
  (what * 64 + index) * 16 + kinds.indexOf(kind);
const kindOf = (option: Option) => kinds[option % 16]!;
const indexOf = (option: Option) => (option >> 4) % 64;
const whatOf = (option: Option) => option >> 10;

interface Frame {
  readonly number: number;
  readonly moment: Moment;
  readonly options: readonly Option[];
  chosen: number;
  orders: number;
}

/** Its name says all of it. */
export const smallWorld = (
  records: readonly number[],
  batch: number,
  maxPending: number,
  faults: number,
  more: Partial<SmallWorld> = {},
): SmallWorld => ({
  name: `records ${records.join('+')}, batches of ${batch}, ${maxPending} in doubt at most, ${faults} faults${more.spread === undefined ? '' : `, ${more.spread} ClickHouse partitions`}${more.isTrickling === true ? ', joined from single ones' : ''}${more.isSlow === true ? ', each owner past the tokens of the one before' : ''}`,
  records,
  batch,
  maxPending,
  faults,
  ...more,
});

/** Those at the beginning take seconds, those at the end many minutes. */
export const smallWorlds: readonly SmallWorld[] = [
  smallWorld([1], 1, 1, 0),
  smallWorld([1], 1, 1, 1),
  smallWorld([2], 2, 1, 1, { spread: 2 }),
  smallWorld([2], 1, 1, 0),
  smallWorld([1, 1], 1, 1, 0),
  smallWorld([1], 1, 1, 2),
  smallWorld([2], 1, 1, 1),
  smallWorld([6], 3, 2, 0),
  smallWorld([2], 2, 1, 2, { spread: 2 }),
  smallWorld([3], 1, 1, 0),
  smallWorld([3, 3], 3, 1, 0),
  smallWorld([2], 1, 2, 0),
  smallWorld([1, 1], 1, 1, 1),
  smallWorld([2], 1, 2, 1),
  smallWorld([3], 1, 2, 0),
  smallWorld([2, 1], 1, 2, 0),
  smallWorld([3, 3], 3, 2, 1),
  smallWorld([2], 1, 1, 2),
  smallWorld([3, 3], 2, 2, 2),
  smallWorld([6], 3, 2, 1),
  // Batches that wait become one; in the other worlds they are too large for that.
  smallWorld([7], 2, 1, 1, { isTrickling: true }),
  smallWorld([3], 2, 1, 2, { isTrickling: true }),
  smallWorld([3, 3], 2, 2, 1, { isTrickling: true }),
  smallWorld([3, 3], 3, 2, 2),
  smallWorld([6], 3, 2, 2),
  // Blocks of one insert land one by one, and requests hang for longer than their token is relied on: seconds, too.
  smallWorld([2], 2, 1, 2, { spread: 2, isSlow: true }),
];

const noOrphans: readonly number[] = [];

/** Every order there is. Partitions are explored each by itself, and that they may be is checked: see beside.ts. */
export function exhaust(small: SmallWorld, options: ExhaustOptions = {}): Explored {
  const { records } = small;
  if (records.length === 1) return exhaustTogether(small, options);
  const { maxSeconds = 60, compose = asShipped } = options;
  const startedMs = cpuMs();
  const parts = records.map((count, only) => {
    // The same but for its number: of a second one there need only be something to stand beside.
    const isLikeBefore = records.indexOf(count) < only;
    const faults = isLikeBefore ? Math.min(small.faults, 1) : small.faults;
    return new Search({ ...small, faults }, { ...options, maxSeconds, only }).go();
  });
  // As long again for the comparison.
  const beside = compareBeside(small, compose, parts, () => cpuMs() - startedMs > 2000 * maxSeconds);
  const sum = (of: (part: Part) => number) => parts.reduce((total, part) => total + of(part), 0);
  const dependent = beside.differences.map((what): Found => ({ kind: 'dependent', what, story: [] }));
  return {
    orders: sum(({ orders }) => orders),
    moments: sum(({ moments }) => moments),
    steps: sum(({ steps }) => steps),
    runs: sum(({ runs }) => runs) + beside.walks,
    histories: sum(({ histories }) => histories),
    compared: sum(({ compared }) => compared) + beside.effects,
    isComplete: parts.every((part) => part.isComplete) && beside.isComplete,
    seconds: (cpuMs() - startedMs) / 1000,
    findings: [...parts.flatMap(({ findings }) => findings), ...dependent],
  };
}

/** The same with all partitions at once: for worlds that are very small. */
export function exhaustTogether(small: SmallWorld, options: ExhaustOptions = {}): Part {
  return new Search(small, options).go();
}

/** What this process has had of a core: other work on the machine must not cut a search short. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** What is known of millions of moments is given up before the process is. */
function isHeapFull(): boolean {
  const { used_heap_size: used, heap_size_limit: limit } = getHeapStatistics();
  return used > 0.8 * limit;
}

class Search {
  readonly #owners: Owners;
  readonly #servers: Servers;
  readonly #known = new Moments();
  readonly #path: Frame[] = [];
  readonly #findings: Found[] = [];
  readonly #found = new Set<string>();
  readonly #ends = new Set<number>();
  readonly #maxSeconds: number;
  readonly #maxFindings: number;
  readonly #only: number | undefined;
  #steps = 0;

  constructor(
    private readonly small: SmallWorld,
    { maxSeconds = 60, compose = asShipped, maxFindings = 20, isMerging = true, only }: ExhaustOptions,
  ) {
    this.#only = only;
    this.#owners = new Owners(small, compose, isMerging);
    this.#servers = new Servers(small, this.#owners);
    this.#maxSeconds = maxSeconds;
    this.#maxFindings = maxFindings;
  }

  go(): Part {
    const startedMs = cpuMs();
    const seconds = () => (cpuMs() - startedMs) / 1000;
    let isComplete = false;
    let orders = this.#enter(
      this.#began({ servers: 0, faults: this.small.faults, owners: [], told: [], orphans: noOrphans }),
    );
    for (
      let n = 1;
      !isComplete &&
      this.#findings.length < this.#maxFindings &&
      (n % 256 > 0 || (seconds() < this.#maxSeconds && !isHeapFull()));
      n++
    ) {
      const frame = this.#path.at(-1);
      if (frame === undefined) {
        isComplete = true;
      } else if (frame.chosen < frame.options.length) {
        this.#steps += 1;
        const reached = this.#enter(this.#next(frame.moment, frame.options[frame.chosen]!));
        if (reached > 0) {
          frame.orders += reached;
          frame.chosen += 1;
        }
      } else {
        this.#path.pop();
        this.#known.set(frame.number, frame.orders);
        const above = this.#path.at(-1);
        if (above === undefined) orders = frame.orders;
        else {
          above.orders += frame.orders;
          above.chosen += 1;
        }
      }
    }
    if (!isComplete) orders = this.#path.reduce((sum, frame) => sum + frame.orders, 0);
    const { runs, nodes, compared, differences } = this.#owners;
    for (const what of differences) this.#findings.push({ kind: 'remembers', what, story: [] });
    return {
      partition: this.#only ?? 0,
      orders,
      moments: this.#known.size,
      steps: this.#steps,
      runs,
      histories: nodes.length,
      compared,
      isComplete,
      seconds: seconds(),
      findings: this.#findings,
      ends: this.#ends,
      servers: this.#servers,
      owners: this.#owners,
    };
  }

  /** So many orders lead from a moment that was reached before to the end; 0: it is new, and comes next. */
  #enter(moment: Moment): number {
    const number = this.#known.enter(partsOf(moment));
    if (number < 0) {
      const orders = this.#known.orders(~number);
      if (orders === 0) throw new Error(`a moment that leads to itself: ${this.#story().join('; ')}`);
      return orders;
    }
    const options: Option[] = [];
    this.#addSteps(moment, options);
    const isQuiet = options.length === 0;
    const isEnd = isQuiet && moment.owners.length >= 2 && moment.owners.at(-1) !== 0;
    this.#addOrphans(moment, options);
    if (isEnd) this.#judge(moment);
    else if (isQuiet || moment.owners.length === 1) options.push(optionOf('take over', 0));
    // Of several partitions the others may still have something under way.
    if (moment.faults > 0 && (!isQuiet || this.#only !== undefined))
      moment.owners.forEach((id, index) => id !== 0 && options.push(optionOf('die', index)));
    if (moment.faults > 0 && this.#only !== undefined) options.push(optionOf('killed elsewhere', 0));
    this.#path.push({ number, moment, options, chosen: 0, orders: isEnd ? 1 : 0 });
    return 0;
  }

  /** What the owners wait for: answers, timers, to be told. */
  #addSteps({ owners, told, faults }: Moment, options: Option[]): void {
    for (let index = 0; index < owners.length; index++) {
      if (owners[index] === 0) continue;
      const node = this.#node(owners[index]!);
      for (const content of node.requests) {
        if (!this.#isMeant(this.#owners.contents[content]!.partition)) continue;
        options.push(optionOf('answer', index, content));
        if (faults === 0) continue;
        options.push(optionOf('lose reply', index, content));
        if (this.#owners.contents[content]!.port !== 'insert') continue;
        options.push(optionOf('kill server', index, content));
        if (this.small.isSlow === true) options.push(optionOf('kill server between', index, content));
      }
      for (const partition of node.timers)
        if (this.#isMeant(partition)) options.push(optionOf('timer', index, partition));
      if (index === owners.length - 1) continue;
      for (let partition = 0; partition < this.small.records.length; partition++) {
        if (this.#isMeant(partition) && (told[index]! >> partition) % 2 === 0 && !node.over.includes(partition))
          options.push(optionOf('lost', index, partition));
      }
    }
  }

  #addOrphans({ orphans, faults }: Moment, options: Option[]): void {
    orphans.forEach((content, at) => {
      if (orphans[at - 1] === content) return;
      options.push(optionOf('land', 0, content));
      if (faults > 0 && this.#owners.contents[content]!.port === 'insert')
        options.push(optionOf('land: kill server', 0, content));
    });
  }

  #judge({ servers }: Moment): void {
    this.#ends.add(servers);
    this.#note(this.#servers.judge(servers, this.#only));
  }

  #next(moment: Moment, option: Option): Moment {
    const kind = kindOf(option);
    const index = indexOf(option);
    const what = whatOf(option);
    switch (kind) {
      case 'answer':
        return this.#answered(moment, index, what, undefined);
      case 'lose reply':
      case 'kill server':
      case 'kill server between':
        return this.#answered({ ...moment, faults: moment.faults - 1 }, index, what, kind);
      case 'timer':
        return this.#toldOf(moment, index, kind, what, Number(index === moment.owners.length - 1));
      case 'lost':
        return this.#toldOf(
          { ...moment, told: moment.told.with(index, moment.told[index]! | (1 << what)) },
          index,
          kind,
          what,
          0,
        );
      case 'land':
        return this.#landed(moment, what, undefined);
      case 'land: kill server':
        return this.#landed({ ...moment, faults: moment.faults - 1 }, what, 'kill server');
      case 'take over':
        return this.#began(moment);
      case 'killed elsewhere':
        return { ...moment, faults: moment.faults - 1, servers: this.#servers.restarted(moment.servers) };
      case 'die':
        return this.#died({ ...moment, faults: moment.faults - 1 }, index);
    }
  }

  #answered(moment: Moment, index: number, content: number, fate: Taking['fate']): Moment {
    const effect = this.#servers.effect(moment.servers, content, {
      fate,
      isCurrent: index === moment.owners.length - 1,
      isOrphan: false,
    });
    this.#note(effect.findings);
    const reaction = this.#owners.told(
      this.#node(moment.owners[index]!),
      'answer',
      content,
      effect.outcome,
      this.#servers.around(effect.servers),
    );
    return this.#after({ ...moment, servers: effect.servers }, index, reaction);
  }

  #toldOf(moment: Moment, index: number, kind: 'timer' | 'lost', partition: number, what: number): Moment {
    const reaction = this.#owners.told(
      this.#node(moment.owners[index]!),
      kind,
      partition,
      what,
      this.#servers.around(moment.servers),
    );
    return this.#after(moment, index, reaction);
  }

  #landed(moment: Moment, content: number, fate: Taking['fate']): Moment {
    const { orphans } = moment;
    const effect = this.#servers.effect(moment.servers, content, {
      fate,
      isCurrent: this.#isCurrent(moment, content),
      isOrphan: true,
    });
    this.#note(effect.findings);
    const at = orphans.indexOf(content);
    return this.#bare({ ...moment, servers: effect.servers, orphans: orphans.filter((_, other) => other !== at) });
  }

  #isCurrent({ owners }: Moment, content: number): boolean {
    return this.#owners.contents[content]!.ordinal === owners.length;
  }

  #after(moment: Moment, index: number, { node, calls, orphans, errors }: Reaction): Moment {
    const seen = this.#servers.seeing(moment.servers, calls);
    this.#note(seen.findings);
    if (errors.length > 0) this.#note(errors.map((what) => ({ kind: 'crash', what })));
    const next: Moment = {
      ...moment,
      servers: seen.servers,
      owners: moment.owners.with(index, node.id),
      orphans: this.#with(moment.orphans, orphans),
    };
    return this.#isMute(node) && index < moment.owners.length - 1 ? this.#gone(next, index) : this.#bare(next);
  }

  /** The next owner: it is given every partition, whatever the one before is doing. */
  #began(moment: Moment): Moment {
    const index = moment.owners.length;
    const reaction = this.#owners.begin(index + 1, this.#servers.around(moment.servers));
    const begun = this.#after({ ...moment, owners: [...moment.owners, 0], told: [...moment.told, 0] }, index, reaction);
    // One that had been told everything already can go now.
    return begun.owners.reduce(
      (now, id, at) => (id !== 0 && at < index && this.#isMute(this.#node(id)) ? this.#gone(now, at) : now),
      begun,
    );
  }

  #died(moment: Moment, index: number): Moment {
    const { requests } = this.#node(moment.owners[index]!);
    return this.#gone({ ...moment, orphans: this.#with(moment.orphans, requests) }, index);
  }

  #gone(moment: Moment, index: number): Moment {
    return this.#bare({
      ...moment,
      servers: this.#servers.without(moment.servers, index + 1),
      owners: moment.owners.with(index, 0),
      told: moment.told.with(index, 0),
    });
  }

  /**
   * Without what can land or not and it makes no difference, now or later: versions and tokens do not come back, and who
   * is not the owner any more will not commit.
   */
  #bare(moment: Moment): Moment {
    const { orphans, servers, faults } = moment;
    if (orphans.length === 0) return moment;
    const left = orphans.filter((content) => {
      const { port } = this.#owners.contents[content]!;
      const isCurrent = this.#isCurrent(moment, content);
      if ((port === 'commit' && isCurrent) || (port === 'insert' && faults > 0)) return true;
      const { servers: after, findings } = this.#servers.effect(servers, content, {
        fate: undefined,
        isCurrent,
        isOrphan: true,
      });
      return after !== servers || findings.length > 0;
    });
    return left.length === orphans.length ? moment : { ...moment, orphans: left };
  }

  #story(): string[] {
    return this.#path.map(({ options, chosen }) => {
      const option = options[chosen];
      if (option === undefined) return 'the end';
      const kind = kindOf(option);
      if (kind === 'take over' || kind === 'killed elsewhere')
        return kind === 'killed elsewhere' ? 'the server is killed' : 'the next owner takes over';
      if (kind === 'timer' || kind === 'lost' || kind === 'die')
        return `${letter(indexOf(option))} ${kind} ${whatOf(option)}`;
      return `${this.#owners.contents[whatOf(option)]!.name}${kind === 'answer' ? '' : `: ${kind}`}`;
    });
  }

  #with(orphans: readonly number[], more: readonly number[]): readonly number[] {
    const meant = more.filter((content) => this.#isMeant(this.#owners.contents[content]!.partition));
    return meant.length === 0 ? orphans : [...orphans, ...meant].sort((a, b) => a - b);
  }

  #isMeant(partition: number): boolean {
    return this.#only === undefined || this.#only === partition;
  }

  /** Nothing can be told to it any more that it would react to. */
  #isMute({ requests, timers, over }: OwnerNode): boolean {
    if (
      requests.some((content) => this.#isMeant(this.#owners.contents[content]!.partition)) ||
      timers.some((partition) => this.#isMeant(partition))
    )
      return false;
    return this.small.records.every((_, partition) => !this.#isMeant(partition) || over.includes(partition));
  }

  #node(id: number): OwnerNode {
    return this.#owners.nodes[id - 1]!;
  }

  #note(findings: readonly Finding[]): void {
    for (const { kind, what } of findings) {
      const name = `${kind} ${what}`;
      if (this.#found.has(name)) continue;
      this.#found.add(name);
      this.#findings.push({ kind, what, story: this.#story() });
    }
  }
}

function partsOf({ servers, faults, owners, told, orphans }: Moment): number[] {
  const parts = [servers, faults, owners.length];
  for (const id of owners) parts.push(id);
  for (const bits of told) parts.push(bits);
  for (const content of orphans) parts.push(content);
  return parts;
}

function letter(index: number): string {
  return String.fromCharCode(97 + index);
}
