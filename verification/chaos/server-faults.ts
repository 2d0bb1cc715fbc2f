// Faults upon the servers: killed and started again on the same data, frozen and thawed.
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServerProcess } from '../../test/stack/process.js';
import type { Stack } from '../../test/stack/stack.js';
import { plain, replicated } from '../../test/support/engines.js';
import type { Draw } from './draw.js';
import { place, type Fault, type Setting } from './fault.js';
import { requestTimeoutMs, type Heard, type StoreName } from './fleet.js';
import { hasStrace, killInRenameGap } from './rename-gap.js';

/** SIGKILL, some time without it, and up again on the same data. */
function killServer(
  kind: string,
  serverOf: (stack: Stack, draw: Draw) => ServerProcess | undefined,
  isHurt: (heard: Heard, downMs: number) => boolean,
  times = 1,
): Fault {
  return {
    kind,
    touches: ['server'],
    run: async ({ fleet, stack, insertMode, draw, limitMs }) => {
      const server = serverOf(stack, draw)!;
      // An insert that waits for others is killed while it waits, while it is written, or just after.
      const withinMs = insertMode === 'coalesced' ? 250 : 10;
      for (let left = draw.between(1, times); left > 0; left--) {
        await fleet.hears(
          fleet.heard.length,
          ({ what, stage }) => stage === 'begins' && (what === 'insert' || what === 'write'),
          3000,
        );
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

const isSlowOrFailed =
  (whats: readonly Heard['what'][]) =>
  (heard: Heard, downMs: number): boolean =>
    whats.includes(heard.what) && (heard.stage === 'failed' || (heard.stage === 'done' && heard.tookMs! > downMs / 2));

/** Several times in a row: the gap that the read-back is for, between the token and its part, is a tenth of a millisecond. */
const killClickHouse = (store: StoreName): Fault => {
  const calls: readonly Heard['what'][] = [
    'insert',
    'readBack',
    'fill',
    ...(store === 'keeper-map' ? (['write', 'claim'] as const) : []),
  ];
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
    const filled = await fleet.hears(
      since,
      (heard) => heard.what === 'fill' && heard.stage === 'done' && place(heard) === place(told),
      limitMs,
    );
    return filled === undefined ? `${place(told)} ${told.detail} was not filled` : undefined;
  },
};

/** With a replicated table it is the table's Keeper, too: inserts suffer like the state's writes. */
const callsOfKeeper = ({ store, family }: Setting): readonly Heard['what'][] => [
  ...(store === 'kafka' ? [] : (['write', 'claim'] as const)),
  ...(family === replicated ? (['insert', 'fill'] as const) : []),
];
const killZooKeeper = (setting: Setting): Fault =>
  killServer('ZooKeeper killed', ({ zookeeper }) => zookeeper, isSlowOrFailed(callsOfKeeper(setting)));
/** For a pause, or until sessions have expired: those of the workers, and that of ClickHouse. */
const freezeZooKeeper = (setting: Setting): Fault => ({
  kind: 'ZooKeeper frozen',
  touches: ['server'],
  run: async ({ fleet, stack, draw, limitMs }) => {
    const [server, since, frozenMs] = [
      stack.zookeeper!,
      fleet.heard.length,
      draw.pick([draw.between(1000, 4000), draw.between(11_000, 15_000)]),
    ];
    server.prepare();
    await sleep(frozenMs);
    server.thaw();
    const hurt = await fleet.hears(
      since,
      (heard) => isSlowOrFailed(callsOfKeeper(setting))(heard, Math.min(frozenMs, requestTimeoutMs)),
      limitMs,
    );
    return hurt === undefined ? 'no worker told of a call that suffered' : undefined;
  },
});
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
    server.prepare();
    await sleep(frozenMs);
    server.thaw();
    const hurt = await fleet.hears(since, (heard) => isHurtByKafka(heard, frozenMs), limitMs);
    return hurt === undefined ? 'no worker told of a call that suffered' : undefined;
  },
};

/** Those that make sense with these servers: a replicated table has part and token in Keeper at once, so there is no gap. */
export function serverFaults(setting: Setting): readonly Fault[] {
  const { store, stack, family } = setting;
  return [
    killKafka,
    ...(stack.kafkas.length > 1 ? [freezeKafka] : []),
    killClickHouse(store),
    ...(hasStrace && family === plain ? [killInGap] : []),
    ...(callsOfKeeper(setting).length === 0 ? [] : [killZooKeeper(setting), freezeZooKeeper(setting)]),
  ];
}
