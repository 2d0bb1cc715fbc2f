// What a fault of the chaos run is, and what each needs: a life to harm, and others to take over.
import type { InsertMode } from '../../src/clickhouse/insert/settings.js';
import type { Stack } from '../../test/stack/stack.js';
import type { EngineFamily } from '../../test/support/engines.js';
import type { Draw } from './draw.js';
import type { Fleet, Heard, Life, StoreName } from './fleet.js';

export interface Arena {
  readonly fleet: Fleet;
  readonly stack: Stack;
  readonly store: StoreName;
  readonly insertMode: InsertMode;
  readonly family: EngineFamily;
  readonly draw: Draw;
  /** How long an effect is waited for. */
  readonly limitMs: number;
}

/** What decides which faults make sense. */
export type Setting = Pick<Arena, 'store' | 'stack' | 'family'>;

/** Why no effect was seen; undefined: one was. */
export type Effect = string | undefined;

export interface Fault {
  readonly kind: string;
  /** Two faults with a word in common do not come at the same time. */
  readonly touches: readonly string[];
  /** None comes at the same time. @default false */
  readonly isAlone?: boolean;
  readonly run: (arena: Arena) => Promise<Effect>;
}

/** A call to do harm in comes so late where a rebalance has to be over first, on a busy machine. */
export const callWithinMs = 40_000;
const noWorker = 'no worker that holds partitions was free';

export const place = ({ topic, partition }: Heard): string => `${topic}/${partition}`;

/** Runs `harm` on a life that nothing else is done to meanwhile. */
export async function withLife({ fleet, draw }: Arena, harm: (life: Life) => Promise<Effect>): Promise<Effect> {
  const life = await fleet.take((lives) => draw.pick(lives));
  if (life === undefined) return noWorker;
  try {
    return await harm(life);
  } finally {
    life.isBusy = false;
  }
}

/** Have others claimed what this life held? */
export async function takenOver(
  { fleet, limitMs }: Arena,
  life: Life,
  held: readonly string[],
  since: number,
): Promise<Effect> {
  for (const each of held) {
    const claim = await fleet.hears(
      since,
      (heard) => heard.what === 'claimed' && heard.pid !== life.pid && place(heard) === each,
      limitMs,
    );
    if (claim === undefined) return `${each} of worker ${life.pid} was not claimed by another`;
  }
  return undefined;
}
