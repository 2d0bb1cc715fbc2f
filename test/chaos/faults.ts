// The faults of the chaos run. Each does its harm, undoes it, and says whether an effect of it was seen: what a worker
// told, a restart, a takeover. One whose effect was not seen proves nothing and is counted apart.
import { setTimeout as sleep } from 'node:timers/promises';
import type { InsertMode } from '../../src/clickhouse/settings.js';
import type { ServerProcess } from '../stack/process.js';
import type { Stack } from '../stack/stack.js';
import type { TcpProxy } from '../support/tcp-proxy.js';
import type { Draw } from './draw.js';
import { requestTimeoutMs, sessionTimeoutMs, type Fleet, type Heard, type Life, type StoreName } from './fleet.js';
import { hasStrace, killInRenameGap } from './rename-gap.js';
import { windows, type Aim, type Control, type Window } from './told.js';

export interface Arena {
  readonly fleet: Fleet;
  readonly stack: Stack;
  readonly store: StoreName;
  readonly insertMode: InsertMode;
  readonly draw: Draw;
  /** How long an effect is waited for. */
  readonly limitMs: number;
}

/** Why no effect was seen; undefined: one was. */
export type Effect = string | undefined;

export interface Fault {
  readonly kind: string;
  /** Two faults with a word in common do not come at the same time. */
  readonly touches: readonly string[];
  readonly run: (arena: Arena) => Promise<Effect>;
}

/** A call to do harm in comes so late where a rebalance has to be over first, on a busy machine. */
const callWithinMs = 40_000;
const noWorker = 'no worker that holds partitions was free';

const place = ({ topic, partition }: Heard): string => `${topic}/${partition}`;

/** Runs `harm` on a life that nothing else is done to meanwhile. */
async function withLife({ fleet, draw }: Arena, harm: (life: Life) => Promise<Effect>): Promise<Effect> {
  const life = await fleet.take((lives) => draw.pick(lives));
  if (life === undefined) return noWorker;
  try {
    return await harm(life);
  } finally {
    life.isBusy = false;
  }
}

/** Have others claimed what this life held? */
async function takenOver({ fleet, limitMs }: Arena, life: Life, held: readonly string[], since: number): Promise<Effect> {
  for (const each of held) {
    const claim = await fleet.hears(since, (heard) => heard.what === 'claimed' && heard.pid !== life.pid && place(heard) === each, limitMs);
    if (claim === undefined) return `${each} of worker ${life.pid} was not claimed by another`;
  }
  return undefined;
}

const killWorker: Fault = {
  kind: 'worker killed',
  touches: [],
  run: (arena) =>
    withLife(arena, async (life) => {
      const [held, since] = [[...life.held], arena.fleet.heard.length];
      life.signal('SIGKILL');
      const { signal } = await life.ended;
      return signal === 'SIGKILL' ? takenOver(arena, life, held, since) : 'it ended before the signal';
    }),
};

/** Frozen until others have taken over what it held; thawed, it learns that it has lost it. */
async function freeze(arena: Arena, life: Life, isFrozen: () => void = () => undefined): Promise<Effect> {
  const { fleet, draw, limitMs } = arena;
  const since = fleet.heard.length;
  life.signal('SIGSTOP');
  try {
    // What it said before it was stopped has come by then.
    await sleep(200);
    const held = [...life.held];
    isFrozen();
    await sleep(sessionTimeoutMs + draw.between(1000, 4000));
    const before = await takenOver(arena, life, held, since);
    if (before !== undefined) return before;
  } finally {
    life.signal('SIGCONT');
  }
  const isLearnt = ({ pid, what }: Heard): boolean => pid === life.pid && (what === 'lost' || what === 'fenced');
  const learnt = await fleet.hears(fleet.heard.length, isLearnt, limitMs);
  return learnt === undefined ? `worker ${life.pid} never learnt of its loss` : undefined;
}

/** With an insert under way, if one comes soon. */
const freezeWorker: Fault = {
  kind: 'worker frozen',
  touches: [],
  run: (arena) =>
    withLife(arena, async (life) => {
      const { fleet } = arena;
      await fleet.hears(fleet.heard.length, (heard) => heard.pid === life.pid && heard.what === 'insert' && heard.stage === 'begins', 3000);
      return freeze(arena, life);
    }),
};

/** While it waits to make failed inserts again: woken up, it makes them before it can know of its loss. */
const wakeZombie: Fault = {
  kind: 'zombie woken',
  touches: ['server'],
  run: (arena) =>
    withLife(arena, async (life) => {
      const { fleet } = arena;
      const { clickhouse } = life.slot;
      const isOfIt = ({ pid, what, stage }: Heard): boolean => pid === life.pid && what === 'insert' && stage === 'failed';
      let frozenAt = Infinity;
      clickhouse.down();
      await fleet.hears(fleet.heard.length, isOfIt, 10_000);
      const effect = await freeze(arena, life, () => {
        frozenAt = fleet.heard.length;
        clickhouse.heal();
      });
      clickhouse.heal();
      if (effect !== undefined) return effect;
      const tried = fleet.heard.slice(frozenAt).some(({ pid, what, stage }) => pid === life.pid && stage === 'begins' && ['write', 'insert', 'commit'].includes(what));
      return tried ? undefined : `worker ${life.pid} tried nothing when it woke up`;
    }),
};

/** A server that is down just then may refuse its first start: what counts is that the place is filled. */
const addWorker: Fault = {
  kind: 'worker added',
  touches: ['number of workers'],
  run: async ({ fleet, limitMs }) => {
    const since = fleet.heard.length;
    const { slot } = await fleet.add();
    const isOfIt = (pid: number): boolean => fleet.lives.some((life) => life.pid === pid && life.slot === slot);
    const claimed = await fleet.hears(since, ({ pid, what }) => what === 'claimed' && isOfIt(pid), limitMs);
    return claimed === undefined ? `${slot.name} was given no partition` : undefined;
  },
};

const removeWorker: Fault = {
  kind: 'worker removed',
  touches: ['number of workers'],
  run: async (arena) => {
    if (arena.fleet.lives.length <= 2) await arena.fleet.add();
    return withLife(arena, async (life) => {
      const [held, since] = [[...life.held], arena.fleet.heard.length];
      life.signal('SIGTERM');
      const end = await Promise.race([life.ended, sleep(arena.limitMs, undefined, { ref: false })]);
      if (end === undefined) life.signal('SIGKILL');
      return end?.code === 0 ? takenOver(arena, life, held, since) : `worker ${life.pid} did not drain: ${JSON.stringify(end)}`;
    });
  },
};

/** SIGKILL, some time without it, and up again on the same data. */
function killServer(kind: string, serverOf: (stack: Stack, draw: Draw) => ServerProcess | undefined, isHurt: (heard: Heard, downMs: number) => boolean, times = 1): Fault {
  return {
    kind,
    touches: ['server'],
    run: async ({ fleet, stack, insertMode, draw, limitMs }) => {
      const server = serverOf(stack, draw)!;
      // An insert that waits for others is killed while it waits, while it is written, or just after.
      const withinMs = insertMode === 'coalesced' ? 250 : 10;
      for (let left = draw.between(1, times); left > 0; left--) {
        await fleet.hears(fleet.heard.length, ({ what, stage }) => stage === 'begins' && (what === 'insert' || what === 'write'), 3000);
        await sleep(draw.between(0, withinMs));
        const [since, former, downMs] = [fleet.heard.length, server.pid, draw.between(300, 4000) / times];
        await server.kill();
        await sleep(downMs);
        await server.start();
        if (server.pid === former) return 'it has the same process id as before';
        const hurt = await fleet.hears(since, (heard) => isHurt(heard, downMs), limitMs);
        if (hurt === undefined) return 'no worker told of a call that suffered';
      }
      return undefined;
    },
  };
}

const isSlowOrFailed = (whats: readonly Heard['what'][]) => (heard: Heard, downMs: number): boolean =>
  whats.includes(heard.what) && (heard.stage === 'failed' || (heard.stage === 'done' && heard.tookMs! > downMs / 2));

/** Dies in a window; then the range that was in doubt is replayed, or what was not committed is passed over. */
function dieIn(window: Window): Fault {
  return {
    kind: window,
    touches: [],
    run: (arena) =>
      withLife(arena, async (life) => {
        const { fleet, insertMode, draw } = arena;
        const since = fleet.heard.length;
        const aim: Aim = { window, calls: draw.between(1, 4), afterMs: draw.between(5, insertMode === 'coalesced' ? 350 : 150) };
        // The request is long under way, so that the death comes before, while or after it has its effect.
        if (window === 'W2') life.slot.clickhouse.delay(draw.between(30, 60));
        life.aim(aim);
        const hit = await fleet.hears(since, (heard) => heard.pid === life.pid && heard.what === 'window', callWithinMs);
        if (window === 'W2') life.slot.clickhouse.delay(0);
        if (hit === undefined) {
          life.aim(undefined);
          return 'no call came in which to die';
        }
        const { signal } = await life.ended;
        if (signal !== 'SIGKILL') return `worker ${life.pid} ended otherwise`;
        return window === 'W4' ? passedOver(arena, hit, since) : replayed(arena, hit, since);
      }),
  };
}

async function replayed({ fleet, limitMs }: Arena, hit: Heard, since: number): Promise<Effect> {
  const isIt = (heard: Heard): boolean => heard.what === 'delivered' && heard.replay === true && place(heard) === place(hit) && heard.detail === hit.detail;
  return (await fleet.hears(since, isIt, limitMs)) === undefined ? `${place(hit)} ${hit.detail} was not replayed` : undefined;
}

/** The next owner knows that it is settled, though Kafka was never told. */
async function passedOver({ fleet, store, limitMs }: Arena, hit: Heard, since: number): Promise<Effect> {
  const others = (what: Heard['what']) => (heard: Heard): boolean => heard.what === what && heard.pid !== hit.pid && place(heard) === place(hit);
  const claim = await fleet.hears(since, (heard) => others('claimed')(heard) && (heard.settled ?? -1) >= hit.settles!, limitMs);
  if (claim === undefined) return `${place(hit)} was not claimed with ${hit.settles} settled`;
  // There the settling write is the commit.
  if (store === 'kafka') return undefined;
  const resumed = await fleet.hears(since, (heard) => others('resumed')(heard) || others('skipped')(heard), limitMs);
  return resumed === undefined ? `${place(hit)} began where Kafka said` : undefined;
}

type Side = 'clickhouse' | 'keeper';

/** Harm done by the proxy of one worker, in the middle of a call of it. */
function disturb(kind: string, side: Side, disturbance: (proxy: TcpProxy, draw: Draw) => Promise<(call: Heard) => boolean>): Fault {
  const calls: readonly Heard['what'][] = side === 'clickhouse' ? ['insert', 'readBack', 'fill'] : ['write', 'claim'];
  return {
    kind: `${side} ${kind}`,
    touches: [],
    run: (arena) =>
      withLife(arena, async (life) => {
        const { fleet, draw, limitMs } = arena;
        const proxy = life.slot[side];
        // Some latency, so that what is told to begin is still under way when it is disturbed.
        proxy.delay(20);
        const isOfIt = ({ pid, what }: Heard): boolean => pid === life.pid && calls.includes(what);
        const begun = await fleet.hears(fleet.heard.length, (heard) => isOfIt(heard) && heard.stage === 'begins', callWithinMs);
        const since = fleet.heard.length;
        const isHurt = await disturbance(proxy, draw);
        proxy.heal();
        if (begun === undefined) return 'no call was under way';
        const hurt = await fleet.hears(since, (heard) => isOfIt(heard) && isHurt(heard), limitMs);
        return hurt === undefined ? 'no call told of it' : undefined;
      }),
  };
}

const dropReplies = (side: Side): Fault =>
  disturb('replies dropped', side, async (proxy, draw) => {
    const before = proxy.droppedBytes;
    proxy.dropReplies();
    await sleep(requestTimeoutMs + draw.between(500, 3000));
    const dropped = proxy.droppedBytes - before;
    return ({ stage, tookMs }) => dropped > 0 && (stage === 'failed' || (stage === 'done' && tookMs! > 1500));
  });

const delayBoth = (side: Side): Fault =>
  disturb('delayed', side, async (proxy, draw) => {
    const delayMs = draw.between(200, 1200);
    proxy.delay(delayMs);
    await sleep(draw.between(3000, 6000));
    return ({ stage, tookMs }) => stage === 'failed' || (stage === 'done' && tookMs! >= delayMs);
  });

/** Cut off, and for a while not let in again. */
const cutOff = (side: Side): Fault =>
  disturb('cut', side, async (proxy, draw) => {
    const open = proxy.connections;
    proxy.down();
    const awayMs = draw.between(50, 3000);
    await sleep(awayMs);
    return ({ stage, tookMs }) => open > 0 && (stage === 'failed' || (stage === 'done' && tookMs! >= Math.min(awayMs, 1000)));
  });

/** Several times in a row: the gap that the read-back is for, between the token and its part, is a tenth of a millisecond. */
const killClickHouse = (store: StoreName): Fault => {
  const calls: readonly Heard['what'][] = ['insert', 'readBack', 'fill', ...(store === 'keeper-map' ? (['write', 'claim'] as const) : [])];
  return killServer('ClickHouse killed', ({ clickhouse }) => clickhouse, isSlowOrFailed(calls), 4);
};
/** The retry is answered with success although the rows are missing: only the read-back tells. */
const killInGap: Fault = {
  kind: 'ClickHouse killed before the rename',
  touches: ['server'],
  run: async ({ fleet, stack, limitMs }) => {
    const server = stack.clickhouse!;
    const since = fleet.heard.length;
    if (!(await killInRenameGap(server, 10_000))) return 'no part was written in time';
    await server.start();
    const told = await fleet.hears(since, ({ what, missing = 0 }) => what === 'verified' && missing > 0, limitMs);
    if (told === undefined) return 'no read-back found a row missing';
    const filled = await fleet.hears(since, (heard) => heard.what === 'fill' && heard.stage === 'done' && place(heard) === place(told), limitMs);
    return filled === undefined ? `${place(told)} ${told.detail} was not filled` : undefined;
  },
};
const killZooKeeper = killServer('ZooKeeper killed', ({ zookeeper }) => zookeeper, isSlowOrFailed(['write', 'claim']));
const isHurtByKafka = (heard: Heard, downMs: number): boolean =>
  ['kafka', 'commitFailed', 'lost'].includes(heard.what) || isSlowOrFailed(['commit', 'write'])(heard, downMs);
/** One of them, where there are more: others lead its partitions and coordinate its groups from then on. */
const killKafka = killServer('Kafka killed', ({ kafkas }, draw) => draw.pick(kafkas), isHurtByKafka);
/** Until others lead what it led; thawed, it is a leader that does not know yet that it is none. */
const freezeKafka: Fault = {
  kind: 'Kafka frozen',
  touches: ['server'],
  run: async ({ fleet, stack, draw, limitMs }) => {
    const [server, since, frozenMs] = [draw.pick(stack.kafkas), fleet.heard.length, draw.between(5000, 9000)];
    server.freeze();
    await sleep(frozenMs);
    server.thaw();
    const hurt = await fleet.hears(since, (heard) => isHurtByKafka(heard, frozenMs), limitMs);
    return hurt === undefined ? 'no worker told of a call that suffered' : undefined;
  },
};

/** Every kind that makes sense with this store and these servers. */
export function faultsOf({ store, stack }: Pick<Arena, 'store' | 'stack'>): readonly Fault[] {
  return [
    killWorker, freezeWorker, wakeZombie, addWorker, removeWorker, ...windows.map(dieIn),
    killKafka, ...(stack.kafkas.length > 1 ? [freezeKafka] : []), killClickHouse(store), ...(hasStrace ? [killInGap] : []), ...(store === 'kafka' ? [] : [killZooKeeper]),
    dropReplies('clickhouse'), delayBoth('clickhouse'), cutOff('clickhouse'),
    ...(store === 'keeper' ? [dropReplies('keeper'), delayBoth('keeper'), cutOff('keeper')] : []),
  ];
}

/** Those that the guard is needed against. */
export function faultsAgainst(control: Control, arena: Pick<Arena, 'store' | 'stack'>): readonly Fault[] {
  const needed: Record<Control, readonly string[]> = {
    tokens: ['W2', 'W3'],
    'at-least-once': ['W2', 'W3'],
    // It shows without any.
    tombstones: ['W3'],
    'read-back': ['ClickHouse killed before the rename', 'ClickHouse killed'],
  };
  return faultsOf(arena).filter(({ kind }) => needed[control].includes(kind));
}
