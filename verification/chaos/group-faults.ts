// Faults upon the group: its broker gives it less than it reads, or deals its partitions out by the newer protocol.
import { setTimeout as sleep } from 'node:timers/promises';
import { limitFetches } from '../../test/support/fetch-quota.js';
import { joinByNewProtocol } from '../../test/support/new-protocol.js';
import type { Effect, Fault } from './fault.js';
import { group } from './fleet.js';
import { isThrottled } from './told.js';
import { topics } from './traffic.js';

/** Far less than is produced, so that answers are put off for longer than a session lasts. */
const throttleFetches: Fault = {
  kind: 'fetches throttled',
  touches: ['server'],
  run: async ({ fleet, stack: { brokers }, draw, limitMs }) => {
    const since = fleet.heard.length;
    await limitFetches(brokers, undefined, draw.between(1000, 8000));
    try {
      const throttled = await fleet.hears(
        since,
        ({ what, detail = '' }) => what === 'kafka' && isThrottled(detail),
        limitMs,
      );
      await sleep(draw.between(2000, 15_000));
      return throttled === undefined ? 'no worker was throttled' : undefined;
    } finally {
      await limitFetches(brokers, undefined, undefined);
    }
  },
};

/**
 * All workers drain, a Java consumer of the newer protocol takes the empty group, and the workers come back into it: the
 * broker deals out the partitions then, without generations. The Java one dies in the end.
 */
const convertGroup: Fault = {
  kind: 'group converted',
  touches: ['server', 'number of workers'],
  isAlone: true,
  run: async ({ fleet, stack: { brokers }, draw, limitMs }) => {
    const workers = await fleet.removeAll(limitMs);
    let java: Awaited<ReturnType<typeof joinByNewProtocol>> | undefined;
    let effect: Effect;
    try {
      java = await joinByNewProtocol(
        brokers,
        group,
        Object.values(topics).map(({ topic }) => topic),
      );
      if (java.lines[0] === 'refused') effect = 'the broker refused the newer protocol';
    } finally {
      for (let left = workers; left > 0; left--) await fleet.add();
    }
    const since = fleet.heard.length;
    const claimed = await fleet.hears(since, ({ what }) => what === 'delivered', limitMs);
    await sleep(draw.between(1000, 8000));
    await java.kill();
    return effect ?? (claimed === undefined ? 'no worker delivered anything in the converted group' : undefined);
  },
};

export const groupFaults: readonly Fault[] = [throttleFetches, convertGroup];
