// Imports: the dice. What a simulated group goes through, as plain data that is drawn from a seed and printed.
import { Dice } from '../scenario.js';
import type { WeatherConfig } from './weather.js';

/** What a world is about. `general` draws from everything; the others put one trouble into an otherwise calm world. */
export const themes = [
  'general',
  'orphan',
  'quota',
  'growth',
  'converted',
  'set back',
  'generations',
  'slow commits',
  'silent fetches',
  'recreated',
  'coordinator',
] as const;
export type Theme = (typeof themes)[number];

export const READ = 'simulated';
/** A topic without records, which some members read too. */
export const OTHER = 'other';

export interface LifePlan {
  readonly startMs: number;
  readonly topics: readonly string[];
  readonly batch: { readonly count: number; readonly bytes: number; readonly maxWaitMs: number };
  readonly budgetBytes: number;
}

export type Happening =
  | { readonly kind: 'produce'; readonly atMs: number; readonly partition: number; readonly records: number }
  | {
      readonly kind: 'transaction';
      readonly atMs: number;
      readonly partition: number;
      readonly records: number;
      readonly isAborted: boolean;
      readonly ms: number;
    }
  | { readonly kind: 'kill' | 'drain'; readonly atMs: number; readonly life: number }
  | { readonly kind: 'freeze' | 'isolate'; readonly atMs: number; readonly life: number; readonly ms: number }
  | {
      readonly kind: 'broker down' | 'broker freezes';
      readonly atMs: number;
      readonly broker: number;
      readonly ms: number;
    }
  | { readonly kind: 'weather'; readonly atMs: number; readonly ms: number; readonly weather: WeatherConfig }
  | { readonly kind: 'move leader'; readonly atMs: number; readonly partition: number }
  | {
      readonly kind: 'move coordinator' | 'rebalance' | 'recreate' | 'convert' | 'set back' | 'remember';
      readonly atMs: number;
    }
  | { readonly kind: 'orphan'; readonly atMs: number; readonly partition: number; readonly ms: number }
  | {
      readonly kind: 'grow';
      readonly atMs: number;
      readonly topic: string;
      readonly partitions: number;
      readonly records: number;
    }
  | { readonly kind: 'retain'; readonly atMs: number; readonly partition: number }
  | { readonly kind: 'quota'; readonly atMs: number; readonly ms: number; readonly throttleMs: number }
  | { readonly kind: 'slow commits'; readonly atMs: number; readonly ms: number; readonly commitMs: number }
  | { readonly kind: 'expect delivered'; readonly atMs: number; readonly except: readonly number[] };

export interface KafkaScenario {
  readonly seed: number;
  readonly theme: Theme;
  readonly brokers: number;
  readonly records: readonly number[];
  readonly store: 'simulated' | 'kafka';
  readonly fromBeginning: boolean;
  readonly maxPending: number;
  readonly requestTimeoutMs: number;
  readonly firstDelayMs: number;
  readonly lives: readonly LifePlan[];
  readonly happenings: readonly Happening[];
  /** By then everything that goes wrong has gone wrong. */
  readonly healMs: number;
  /** Nobody who is alive may be given up: nothing that goes wrong here explains it. */
  readonly isHarmless: boolean;
  /** From then until everything is well nobody who is in the group has a reason to join it again. */
  readonly joinedMs?: number;
}

type Drawn = Pick<KafkaScenario, 'happenings'> & Partial<KafkaScenario>;

const SECOND = 1000;

export function kafkaScenarioOf(seed: number): KafkaScenario {
  const dice = new Dice(seed);
  const theme = dice.chance(0.5) ? 'general' : dice.of(...themes);
  const brokers = dice.int(1, 3);
  const records = dice.list(dice.int(1, 5), () => dice.int(0, 25));
  const plain: KafkaScenario = {
    seed,
    theme,
    brokers,
    records,
    store: dice.chance(0.35) ? 'kafka' : 'simulated',
    fromBeginning: true,
    maxPending: dice.int(1, 3),
    requestTimeoutMs: 1500,
    firstDelayMs: dice.of(0, 0, 300),
    lives: dice.list(dice.int(1, 3), () => life(dice)),
    happenings: [],
    healMs: 12 * SECOND,
    isHarmless: false,
  };
  const { happenings, ...drawn } = byTheme[theme](plain, dice);
  const lives = drawn.lives ?? plain.lives;
  const healMs =
    Math.max(
      ...happenings.map((each) => each.atMs + ('ms' in each ? each.ms : 0)),
      ...lives.map(({ startMs }) => startMs),
    ) + 300;
  return { ...plain, ...drawn, healMs, happenings: [...happenings].sort((a, b) => a.atMs - b.atMs) };
}

function life(dice: Dice, topics: readonly string[] = [READ]): LifePlan {
  return {
    startMs: dice.int(0, 3000),
    topics: dice.chance(0.25) ? [READ, OTHER] : topics,
    batch: { count: dice.int(1, 9), bytes: dice.of(60, 10_000), maxWaitMs: dice.int(5, 120) },
    budgetBytes: dice.of(2000, 20_000, 1_000_000),
  };
}

function traffic(dice: Dice, partitions: number, untilMs: number): Happening[] {
  return dice.list(dice.int(3, 10), (): Happening => {
    const where = { atMs: dice.int(500, untilMs), partition: dice.int(0, partitions - 1), records: dice.int(1, 8) };
    if (dice.chance(0.7)) return { kind: 'produce', ...where };
    return { kind: 'transaction', ...where, isAborted: dice.chance(0.5), ms: dice.int(1, 2500) };
  });
}

function weather(dice: Dice, only?: readonly string[]): WeatherConfig {
  return {
    lost: dice.of(0, 1, 3, 8),
    refused: dice.of(0, 1, 3, 8),
    longestMs: dice.of(200, 2000, 6000),
    ...(only === undefined ? {} : { only }),
  };
}

function trouble(dice: Dice, { brokers, records, lives }: KafkaScenario, untilMs: number): Happening {
  const atMs = dice.int(200, untilMs);
  const one = dice.int(0, lives.length + 2);
  const [partition, broker] = [dice.int(0, records.length - 1), dice.int(1, brokers)];
  return dice.of<() => Happening>(
    () => ({ kind: 'kill', atMs, life: one }),
    () => ({ kind: 'drain', atMs, life: one }),
    () => ({ kind: 'freeze', atMs, life: one, ms: dice.of(50, 500, 2500, 5000) }),
    () => ({ kind: 'isolate', atMs, life: one, ms: dice.of(100, 2000, 5000) }),
    () => ({ kind: 'broker down', atMs, broker, ms: dice.int(100, 4000) }),
    () => ({ kind: 'broker freezes', atMs, broker, ms: dice.int(100, 4000) }),
    () => ({ kind: 'weather', atMs, ms: dice.int(500, 6000), weather: weather(dice) }),
    () => ({ kind: 'weather', atMs, ms: dice.int(500, 6000), weather: weather(dice) }),
    () => ({ kind: 'move leader', atMs, partition }),
    () => ({ kind: 'move coordinator', atMs }),
    () => ({ kind: 'rebalance', atMs }),
    () => ({ kind: 'orphan', atMs, partition, ms: dice.int(200, 5000) }),
    () => ({
      kind: 'grow',
      atMs,
      topic: dice.of(READ, OTHER),
      partitions: records.length + dice.int(1, 2),
      records: dice.int(0, 5),
    }),
    () => ({ kind: 'quota', atMs, ms: dice.int(500, 4000), throttleMs: dice.of(50, 500, 2500) }),
    () => ({ kind: 'slow commits', atMs, ms: dice.int(500, 4000), commitMs: dice.of(50, 700) }),
    () => ({ kind: 'retain', atMs, partition }),
  )();
}

const byTheme: Readonly<Record<Theme, (plain: KafkaScenario, dice: Dice) => Drawn>> = {
  general: (plain, dice) => ({
    fromBeginning: dice.chance(0.7),
    happenings: [
      ...traffic(dice, plain.records.length, 9 * SECOND),
      ...dice.list(dice.int(1, 8), () => trouble(dice, plain, 9 * SECOND)),
    ],
  }),
  orphan: (_, dice) => {
    const records = dice.list(dice.int(2, 5), () => dice.int(1, 12));
    const partition = dice.int(0, records.length - 1);
    return {
      records,
      isHarmless: true,
      fromBeginning: true,
      happenings: [
        { kind: 'orphan', atMs: 0, partition, ms: 10 * SECOND },
        ...traffic(dice, records.length, 3 * SECOND),
        { kind: 'rebalance', atMs: 4 * SECOND },
        { kind: 'expect delivered', atMs: 9.5 * SECOND, except: [partition] },
      ],
    };
  },
  quota: (_, dice) => {
    const records = dice.list(dice.int(1, 4), () => dice.int(5, 20));
    return {
      records,
      isHarmless: true,
      happenings: [
        ...traffic(dice, records.length, 10 * SECOND),
        { kind: 'quota', atMs: dice.int(3000, 5000), ms: 5 * SECOND, throttleMs: dice.of(300, 2500, 4000) },
      ],
    };
  },
  growth: (_, dice) => {
    const first = dice.int(1, 2);
    const isAlone = dice.chance(0.5);
    const fromBeginning = dice.chance(0.3);
    const later = isAlone ? [] : [{ ...life(dice), topics: [READ], startMs: 5 * SECOND + dice.int(100, 3000) }];
    // The one that comes first deals; it may not read what grows.
    const dealer = { ...life(dice), topics: isAlone ? [OTHER] : dice.of([OTHER], [READ], [READ, OTHER]), startMs: 0 };
    const reader = { ...life(dice), topics: [READ], startMs: dice.int(800, 2000) };
    return {
      records: dice.list(first, () => dice.int(1, 5)),
      fromBeginning,
      isHarmless: true,
      lives: [dealer, reader, ...later],
      happenings: [
        ...traffic(dice, first, 4 * SECOND),
        { kind: 'grow', atMs: 5 * SECOND, topic: READ, partitions: first + dice.int(1, 2), records: dice.int(1, 4) },
        ...traffic(dice, first + 1, 9 * SECOND).map((each) => ({ ...each, atMs: each.atMs + 5 * SECOND })),
      ],
    };
  },
  converted: (plain, dice) => ({
    store: 'kafka',
    happenings: [
      { kind: 'convert', atMs: dice.int(0, 3000) },
      ...traffic(dice, plain.records.length, 10 * SECOND),
      {
        kind: 'weather',
        atMs: 4 * SECOND,
        ms: 6 * SECOND,
        weather: { lost: 25, refused: 0, longestMs: 5000, only: ['OffsetCommit'] },
      },
    ],
  }),
  'set back': (_, dice) => {
    const records = dice.list(dice.int(1, 3), () => dice.int(5, 15));
    const [rememberMs, backMs] = [dice.int(1500, 4500), dice.int(6000, 8000)];
    return {
      store: 'simulated',
      records,
      happenings: [
        ...traffic(dice, records.length, 5.5 * SECOND),
        { kind: 'remember', atMs: rememberMs },
        { kind: 'set back', atMs: backMs },
        // The sessions of those that were killed have run out by then, and the next one reads.
        { kind: 'produce', atMs: backMs + 5 * SECOND, partition: 0, records: 1 },
      ],
    };
  },
  generations: (plain, dice) => ({
    isHarmless: true,
    happenings: [
      ...traffic(dice, plain.records.length, 11 * SECOND),
      ...Array.from({ length: 18 }, (_, i): Happening => ({ kind: 'rebalance', atMs: 3000 + i * 480 })),
    ],
  }),
  'slow commits': (_, dice) => {
    const records = dice.list(6, () => dice.int(5, 20));
    return {
      records,
      isHarmless: true,
      requestTimeoutMs: 12 * SECOND,
      happenings: [
        ...traffic(dice, records.length, 9 * SECOND),
        ...traffic(dice, records.length, 9 * SECOND),
        { kind: 'slow commits', atMs: 3500, ms: 6 * SECOND, commitMs: dice.of(1000, 3500) },
      ],
    };
  },
  'silent fetches': (_, dice) => {
    const records = dice.list(dice.int(2, 6), () => dice.int(5, 20));
    const [atMs, ms] = [6 * SECOND, 8 * SECOND];
    return {
      records,
      isHarmless: true,
      joinedMs: atMs,
      happenings: [
        ...traffic(dice, records.length, atMs + ms),
        ...traffic(dice, records.length, atMs + ms),
        { kind: 'slow commits', atMs, ms, commitMs: dice.of(300, 700) },
        { kind: 'weather', atMs, ms, weather: { lost: 50, refused: 0, longestMs: 4000, only: ['Fetch'] } },
      ],
    };
  },
  recreated: (plain, dice) => ({
    // More partitions than Node lets listen to one signal without a word.
    ...(dice.chance(0.3) ? { records: dice.list(14, () => dice.int(1, 4)) } : {}),
    happenings: [
      ...traffic(dice, plain.records.length, 9 * SECOND),
      { kind: 'recreate', atMs: dice.int(2000, 6000) },
      ...dice.list(dice.int(0, 2), () => trouble(dice, plain, 8 * SECOND)),
    ],
  }),
  coordinator: (plain, dice) => ({
    brokers: dice.int(2, 3),
    happenings: [
      ...traffic(dice, plain.records.length, 9 * SECOND),
      ...dice.list(dice.int(1, 5), (): Happening => ({ kind: 'move coordinator', atMs: dice.int(500, 9000) })),
      {
        kind: 'weather',
        atMs: dice.int(500, 4000),
        ms: 6 * SECOND,
        weather: weather(dice, [
          'FindCoordinator',
          'JoinGroup',
          'SyncGroup',
          'Heartbeat',
          'OffsetCommit',
          'OffsetFetch',
        ]),
      },
    ],
  }),
};
