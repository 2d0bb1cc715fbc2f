// Faults upon the workers: killed, frozen, woken up as zombies, added, removed, and dead between two effects.
import { setTimeout as sleep } from 'node:timers/promises';
import { callWithinMs, place, takenOver, withLife, type Arena, type Effect, type Fault } from './fault.js';
import { sessionTimeoutMs, type Heard, type Life } from './fleet.js';
import { windows, type Aim, type Window } from './told.js';

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
async function prepare(arena: Arena, life: Life, isFrozen: () => void = () => undefined): Promise<Effect> {
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
      await fleet.hears(
        fleet.heard.length,
        (heard) => heard.pid === life.pid && heard.what === 'insert' && heard.stage === 'begins',
        3000,
      );
      return prepare(arena, life);
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
      const isOfIt = ({ pid, what, stage }: Heard): boolean =>
        pid === life.pid && what === 'insert' && stage === 'failed';
      let frozenAt = Infinity;
      clickhouse.down();
      await fleet.hears(fleet.heard.length, isOfIt, 10_000);
      const effect = await prepare(arena, life, () => {
        frozenAt = fleet.heard.length;
        clickhouse.heal();
      });
      clickhouse.heal();
      if (effect !== undefined) return effect;
      const tried = fleet.heard
        .slice(frozenAt)
        .some(
          ({ pid, what, stage }) =>
            pid === life.pid && stage === 'begins' && ['write', 'insert', 'commit'].includes(what),
        );
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
      return end?.code === 0
        ? takenOver(arena, life, held, since)
        : `worker ${life.pid} did not drain: ${JSON.stringify(end)}`;
    });
  },
};

/** Dies in a window; then the range that was in doubt is replayed, or what was not committed is passed over. */
function dieIn(window: Window): Fault {
  return {
    kind: window,
    touches: [],
    run: (arena) =>
      withLife(arena, async (life) => {
        const { fleet, insertMode, draw } = arena;
        const since = fleet.heard.length;
        const aim: Aim = {
          window,
          calls: draw.between(1, 4),
          afterMs: draw.between(5, insertMode === 'coalesced' ? 350 : 150),
        };
        // The request is long under way, so that the death comes before, while or after it has its effect.
        if (window === 'W2') life.slot.clickhouse.delay(draw.between(30, 60));
        life.aim(aim);
        const hit = await fleet.hears(
          since,
          (heard) => heard.pid === life.pid && heard.what === 'window',
          callWithinMs,
        );
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
  const isIt = (heard: Heard): boolean =>
    heard.what === 'delivered' && heard.replay === true && place(heard) === place(hit) && heard.detail === hit.detail;
  return (await fleet.hears(since, isIt, limitMs)) === undefined
    ? `${place(hit)} ${hit.detail} was not replayed`
    : undefined;
}

/** The next owner knows that it is settled, though Kafka was never told. */
async function passedOver({ fleet, store, limitMs }: Arena, hit: Heard, since: number): Promise<Effect> {
  const others =
    (what: Heard['what']) =>
    (heard: Heard): boolean =>
      heard.what === what && heard.pid !== hit.pid && place(heard) === place(hit);
  const claim = await fleet.hears(
    since,
    (heard) => others('claimed')(heard) && (heard.settled ?? -1) >= hit.settles!,
    limitMs,
  );
  if (claim === undefined) return `${place(hit)} was not claimed with ${hit.settles} settled`;
  // There the settling write is the commit.
  if (store === 'kafka') return undefined;
  const resumed = await fleet.hears(since, (heard) => others('resumed')(heard) || others('skipped')(heard), limitMs);
  return resumed === undefined ? `${place(hit)} began where Kafka said` : undefined;
}

export const workerFaults: readonly Fault[] = [
  killWorker,
  freezeWorker,
  wakeZombie,
  addWorker,
  removeWorker,
  ...windows.map(dieIn),
];
