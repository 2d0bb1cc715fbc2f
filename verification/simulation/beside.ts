// Room: is it true that partitions do not concern each other? Where a world has two, each is explored by itself: with
// all that concerns both (an owner begins, dies, loses what it has; the server is killed), and nothing of the other.
// That finds whatever can go wrong in the world with both if (1) an owner does on a partition what it was told of that
// partition makes it do, whatever it was told of the other in between, and (2) a request changes what the servers hold
// of its own partition only, and is answered by that. Both are checked here, with the very operators and servers: each
// history of each owner on one partition is run beside one on the other, in three orders, and each effect that was found
// out is made beside what the servers can hold of the other partition. What differs from what the partition did by
// itself is told.
import {
  textOf as outcomeText,
  Sandbox,
  isSecondTenure,
  type ComposeOwner,
  type SmallWorld,
  type Way,
} from './owners.js';
import { textOf } from './servers.js';
import type { Owners } from './owners.js';
import type { Servers } from './servers.js';
import type { SavedServers } from '../../src/testing/index.js';

/** What was explored of one partition by itself. */
export interface Alone {
  readonly partition: number;
  readonly owners: Owners;
  readonly servers: Servers;
}

export interface Compared {
  readonly walks: number;
  readonly effects: number;
  /** Everything was compared that was to be. */
  readonly isComplete: boolean;
  readonly differences: readonly string[];
}

const most = 20;

export function compareBeside(
  small: SmallWorld,
  compose: ComposeOwner,
  alone: readonly Alone[],
  isOver: () => boolean,
): Compared {
  const differences: string[] = [];
  let walks = 0;
  let effects = 0;
  for (const one of alone) {
    for (const other of alone) {
      if (one === other || differences.length >= most || isOver()) continue;
      effects += besideStates(one, other, differences);
      walks += besideHistories(small, compose, [one, other], differences, isOver);
    }
  }
  return { walks, effects, isComplete: !isOver(), differences };
}

type Order = 'by turns' | 'the other first' | 'the other last';
const orders: readonly Order[] = ['by turns', 'the other first', 'the other last'];

/** Each history of `one` beside one of the other's; which, goes round. */
function besideHistories(
  small: SmallWorld,
  compose: ComposeOwner,
  [one, other]: readonly [Alone, Alone],
  differences: string[],
  isOver: () => boolean,
): number {
  const partners = new Map<number, Way[]>();
  for (const way of other.owners.ways())
    if (!hasSecondTenure(way, small)) partners.set(way.ordinal, [...(partners.get(way.ordinal) ?? []), way]);
  const next = new Map<number, number>();
  let walks = 0;
  for (const way of one.owners.ways()) {
    const ways = partners.get(way.ordinal) ?? [];
    if (isOver()) return walks;
    if (ways.length === 0) continue;
    const turn = next.get(way.ordinal) ?? 0;
    next.set(way.ordinal, turn + 1);
    // A step that has no divisor in common with most lengths: all are met, in no order.
    const beside = ways[(turn * 7919) % ways.length]!;
    walks += 1;
    const difference = walk(
      small,
      compose,
      [one.partition, way],
      [other.partition, beside],
      orders[turn % orders.length]!,
    );
    if (difference !== undefined && differences.push(difference) >= most) return walks;
  }
  return walks;
}

type Walked = readonly [partition: number, way: Way];

/** Undefined: side by side the two do what each does by itself. */
function walk(small: SmallWorld, compose: ComposeOwner, one: Walked, other: Walked, order: Order): string | undefined {
  const [[a, wayA], [b, wayB]] = [one, other];
  const { ordinal } = wayA;
  const committed = new Map([...wayA.around.committed, ...wayB.around.committed]);
  const both = new Sandbox(small, ordinal, compose, { startedMs: wayA.around.startedMs, committed });
  const alone = new Map([
    [a, new Sandbox(small, ordinal, compose, wayA.around)],
    [b, new Sandbox(small, ordinal, compose, wayB.around)],
  ]);
  const left = new Map([
    [a, [...wayA.tellings]],
    [b, [...wayB.tellings]],
  ]);
  for (let turn = 0; ; turn++) {
    const first = order === 'by turns' ? [a, b][turn % 2]! : order === 'the other first' ? b : a;
    const partition = left.get(first)!.length > 0 ? first : first === a ? b : a;
    const telling = left.get(partition)!.shift();
    if (telling === undefined) return undefined;
    const besides = partition === a ? b : a;
    const before = doingOf(both, besides);
    const told = `owner ${ordinal}, told of partition ${partition} beside ${besides}: ${JSON.stringify(telling.input)}`;
    try {
      both.react(telling.input, telling.around);
      alone.get(partition)!.react(telling.input, telling.around);
    } catch (error) {
      return `${told}: ${String(error)}`;
    }
    const [should, does] = [reactionOf(alone.get(partition)!, partition), reactionOf(both, partition)];
    if (should !== does) return `${told}: by itself ${should}, beside the other ${does}`;
    if (doingOf(both, besides) !== before)
      return `${told}: on the other partition ${before} became ${doingOf(both, besides)}`;
  }
}

/** What an owner waits for of a partition. */
function doingOf({ pending, timers, over }: Sandbox, partition: number): string {
  const requests = [...pending]
    .filter(([step]) => step.partition === partition)
    .map(([, content]) => content)
    .sort();
  return JSON.stringify([requests, timers.filter((timer) => timer.partition === partition), over.includes(partition)]);
}

/** What the last telling made an owner do; of the watch and of orphans, whatever partition they are of. */
function reactionOf(sandbox: Sandbox, partition: number): string {
  const orphans = sandbox.orphans.map((step) => step.content!()).sort();
  return JSON.stringify([
    doingOf(sandbox, partition),
    orphans,
    sandbox.calls.map(({ method, args }) => [method, args]),
    sandbox.errors,
  ]);
}

/** Each effect beside two states of the other partition: one that goes round, and one at the end of everything. */
function besideStates(one: Alone, other: Alone, differences: string[]): number {
  let count = 0;
  for (const { before, after, content, taking, outcome } of one.servers.effects()) {
    if (content.partition !== one.partition) continue;
    for (const at of [(count * 7919) % other.servers.count, other.servers.count - 1]) {
      const { world } = content.sandbox;
      const beside = other.servers.saved(at);
      const given = outcomeText(
        content.sandbox.effect(content.step, joined(before, beside), taking.fate, taking.isCurrent),
      );
      count += 1;
      if (given === outcome && isSame(world.save(), joined(after, beside))) continue;
      if (
        differences.push(`${content.name} is answered ${given}, by itself ${outcome}; beside ${textOf(beside)}`) >= most
      )
        return count;
    }
  }
  return count;
}

/** What the servers hold when each partition is as it is by itself. */
function joined(one: SavedServers, other: SavedServers): SavedServers {
  const both = <K, V>(a: ReadonlyMap<K, V>, b: ReadonlyMap<K, V>) => new Map([...b, ...a]);
  const { watch } = one;
  return {
    nodes: both(other.nodes, one.nodes),
    table: {
      rows: [...one.table.rows, ...other.table.rows],
      startedMs: one.table.startedMs,
      tokens: both(one.table.tokens, other.table.tokens),
    },
    committed: both(one.committed, other.committed),
    watch: {
      recorded: both(watch.recorded, other.watch.recorded),
      states: both(watch.states, other.watch.states),
      claims: both(watch.claims, other.watch.claims),
      claimedBy: both(watch.claimedBy, other.watch.claimedBy),
      lost: new Set([...watch.lost, ...other.watch.lost]),
      torn: new Set([...watch.torn, ...other.watch.torn]),
      taken: new Set([...watch.taken, ...other.watch.taken]),
      topicOfToken: both(watch.topicOfToken, other.watch.topicOfToken),
      blockRows: both(watch.blockRows, other.watch.blockRows),
    },
  };
}

function isSame(is: SavedServers, should: SavedServers): boolean {
  // Whether a claim is forgotten is not the servers' doing.
  const [a, b] = [is, should].map((saved) => textOf({ ...saved, watch: { ...saved.watch, claims: new Map() } }));
  return a === b;
}

/** Assignments are counted over all partitions: of two second ones it depends on the order which number is whose. */
function hasSecondTenure({ ordinal, tellings }: Way, { records }: SmallWorld): boolean {
  return tellings.some(
    ({ input }) => input.kind === 'answer' && isSecondTenure(ordinal, records.length, input.content),
  );
}
