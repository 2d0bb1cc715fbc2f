// Faults upon the table, made while an insert of a worker is in doubt: something of it is altered that the rows do not
// depend on, or its deduplication window is taken away and given back. Nothing may be missing or doubled for that: the
// table has provenance columns, so what a token does not tell any more can be looked up.
import { setTimeout as sleep } from 'node:timers/promises';
import { command } from '../../test/stack/clients.js';
import { callWithinMs, place, withLife, type Arena, type Effect, type Fault } from './fault.js';
import type { Heard, Life } from './fleet.js';
import { qualifiedTable } from './oracle.js';

const alterWithinMs = 60_000;
const answerWithinMs = 8_000;

/** Until it is done: a replicated table cannot be altered while ZooKeeper is away. */
async function alter({ stack }: Arena, change: string): Promise<void> {
  for (const endMs = performance.now() + alterWithinMs; ; await sleep(200)) {
    try {
      await command(stack.clickhouseUrl, `ALTER TABLE ${qualifiedTable} ${change}`, { timeoutMs: 10_000 });
      return;
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
  }
}

/** An insert of this life whose answer was dropped after it was made; its connection stays down, so it is not repeated yet. */
async function insertInDoubt({ fleet }: Arena, life: Life): Promise<Heard | undefined> {
  const { clickhouse } = life.slot;
  const isOfIt = ({ pid, what }: Heard): boolean => pid === life.pid && what === 'insert';
  let failed: Heard | undefined;
  let before = clickhouse.droppedBytes;
  for (const endMs = performance.now() + callWithinMs; failed === undefined && performance.now() < endMs;) {
    // While it only looks, the lost answers are those of looks: it may insert again first.
    clickhouse.heal();
    await fleet.hears(fleet.heard.length, (heard) => isOfIt(heard) && heard.stage === 'done', answerWithinMs);
    before = clickhouse.droppedBytes;
    clickhouse.dropReplies();
    failed = await fleet.hears(
      fleet.heard.length,
      (heard) => isOfIt(heard) && heard.stage === 'failed' && heard.detail === 'KCR_INSERT_IN_DOUBT',
      answerWithinMs,
    );
  }
  clickhouse.down();
  if (failed === undefined || clickhouse.droppedBytes === before) return undefined;
  const ofPlace = fleet.heard.filter((heard) => isOfIt(heard) && place(heard) === place(failed));
  // What failed is told with its code; its range stands where it began.
  return ofPlace.findLast(
    ({ stage, detail }) =>
      stage === 'begins' && !ofPlace.some((other) => other.stage === 'done' && other.detail === detail),
  );
}

/** Of a range whose first attempt was never answered: done in the end, by whomever. */
async function delivered({ fleet, limitMs }: Arena, doubtful: Heard | undefined, since: number): Promise<Effect> {
  if (doubtful === undefined) return 'no insert was in doubt';
  const done = await fleet.hears(
    since,
    (heard) => heard.what === 'delivered' && place(heard) === place(doubtful) && heard.detail === doubtful.detail,
    limitMs,
  );
  return done === undefined ? `${place(doubtful)} ${doubtful.detail} was in doubt and was not delivered` : undefined;
}

const unrelated = [
  (n: number) => [`ADD COLUMN IF NOT EXISTS extra_${n} String`, `DROP COLUMN IF EXISTS extra_${n}`],
  (n: number) => [`ADD COLUMN IF NOT EXISTS extra_${n} UInt64 DEFAULT id + ${n}`, `DROP COLUMN IF EXISTS extra_${n}`],
  (n: number) => [
    `ADD COLUMN IF NOT EXISTS extra_${n} UInt64 MATERIALIZED id * ${n}`,
    `DROP COLUMN IF EXISTS extra_${n}`,
  ],
  (n: number) => [`COMMENT COLUMN pad 'altered ${n}'`, `COMMENT COLUMN pad ''`],
  (n: number) => [`MODIFY COMMENT 'altered ${n}'`, `MODIFY COMMENT ''`],
] as const;

const alterTable: Fault = {
  kind: 'table altered',
  touches: ['server'],
  run: (arena) =>
    withLife(arena, async (life) => {
      const { fleet, draw } = arena;
      const [change, back] = draw.pick(unrelated)(draw.between(1, 1_000_000));
      const isTakenBack = draw.share() < 0.5;
      const doubtful = await insertInDoubt(arena, life);
      const since = fleet.heard.length;
      await alter(arena, change!);
      life.slot.clickhouse.heal();
      const effect = await delivered(arena, doubtful, since);
      if (isTakenBack) await alter(arena, back!);
      return effect;
    }),
};

/** When the window is gone: while the insert is repeated, only between the two attempts, or while the first is made. */
const goneWhen = ['repeated', 'between', 'first'] as const;

const removeWindow = (when: (typeof goneWhen)[number]): Fault => ({
  kind: `window gone: ${when}`,
  touches: ['server'],
  run: (arena) =>
    withLife(arena, async (life) => {
      const { fleet, family, draw } = arena;
      const { clickhouse } = life.slot;
      const away = (): Promise<void> => alter(arena, `MODIFY SETTING ${family.window} = 0`);
      const back = (): Promise<void> => alter(arena, `MODIFY SETTING ${family.window} = 10000`);
      let doubtful: Heard | undefined;
      let since = Infinity;
      try {
        if (when === 'first') await away();
        doubtful = await insertInDoubt(arena, life);
        since = fleet.heard.length;
        if (when !== 'first') await away();
        if (when === 'repeated') {
          clickhouse.heal();
          await sleep(draw.between(1000, 5000));
        }
      } finally {
        await back();
        clickhouse.heal();
      }
      return delivered(arena, doubtful, since);
    }),
});

export const tableFaults: readonly Fault[] = [alterTable, ...goneWhen.map(removeWindow)];
