// Faults upon what lies between a worker and a server: a proxy that drops replies, delays, cuts.
import { setTimeout as sleep } from 'node:timers/promises';
import type { TcpProxy } from '../../test/support/tcp-proxy.js';
import type { Draw } from './draw.js';
import { callWithinMs, withLife, type Fault } from './fault.js';
import { requestTimeoutMs, type Heard } from './fleet.js';

export type Side = 'clickhouse' | 'keeper';

/** Harm done by the proxy of one worker, in the middle of a call of it. */
function disturb(
  kind: string,
  side: Side,
  disturbance: (proxy: TcpProxy, draw: Draw) => Promise<(call: Heard) => boolean>,
): Fault {
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
        const begun = await fleet.hears(
          fleet.heard.length,
          (heard) => isOfIt(heard) && heard.stage === 'begins',
          callWithinMs,
        );
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
    return ({ stage, tookMs }) =>
      open > 0 && (stage === 'failed' || (stage === 'done' && tookMs! >= Math.min(awayMs, 1000)));
  });

export const wireFaults = (side: Side): readonly Fault[] => [dropReplies(side), delayBoth(side), cutOff(side)];
