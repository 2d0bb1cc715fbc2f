// Room: what a simulated run is made of, as plain data that can be drawn from a seed, printed and shrunk. No world here.
import type { Alteration, Fate, Fault, PortName, Refusal } from '../../src/testing/index.js';

export interface LifePlan {
  readonly startMs: number;
  readonly chunkSize: number;
  /** The source's budget, in offsets. */
  readonly room: number;
  readonly batch: { readonly count: number; readonly bytes: number; readonly maxWaitMs: number };
  readonly blockRows: number;
  /** Small inserts wait at the server for others. */
  readonly asyncInserts: boolean;
  readonly faults: readonly Fault[];
  /** @default 'g' */
  readonly group?: string;
  /** @default the scenario's */
  readonly maxPending?: number;
}

/** What happens to the world at a time. */
export type Happening =
  | {
      readonly kind: 'produce';
      readonly atMs: number;
      readonly partition: number;
      readonly records: number;
      readonly hole: number;
    }
  | { readonly kind: 'rebalance'; readonly atMs: number }
  | { readonly kind: 'kill' | 'drain'; readonly atMs: number; readonly life: number }
  | { readonly kind: 'freeze'; readonly atMs: number; readonly life: number; readonly ms: number }
  | { readonly kind: 'store down' | 'table down' | 'table refuses'; readonly atMs: number; readonly ms: number }
  | { readonly kind: 'compact'; readonly atMs: number; readonly partition: number; readonly offset: number }
  | { readonly kind: 'retain'; readonly atMs: number; readonly partition: number; readonly offset: number }
  | { readonly kind: 'recreate'; readonly atMs: number }
  | { readonly kind: 'other writers'; readonly atMs: number }
  /** Of the table. */
  | { readonly kind: 'alter'; readonly atMs: number; readonly alteration: Alteration };

export interface Scenario {
  readonly seed: number;
  readonly records: readonly number[];
  readonly maxPending: number;
  /** A row whose offset this divides is refused; 0: none is. */
  readonly poisonEvery: number;
  readonly onPoison: 'halt' | 'exclude';
  /** What the server says of such a row. @default 'named' */
  readonly refusal?: Refusal;
  /** It says so when rows of other ClickHouse partitions have landed. @default false */
  readonly refusesLate?: boolean;
  readonly onGap: 'halt' | 'continue';
  /** ClickHouse partitions that rows spread over. */
  readonly spread: number;
  readonly views: readonly string[];
  readonly family: 'plain' | 'replicated';
  /** How long tokens are remembered; 0: long enough. */
  readonly dedupWindowMs: number;
  /** How long inserts wait for others, of the lives that let them wait. */
  readonly coalesceMs: number;
  readonly lives: readonly LifePlan[];
  readonly happenings: readonly Happening[];
  /** Of the records produced later so many apart is a tombstone, which the transform makes no row of; 0: none is. */
  readonly tombstoneEvery: number;
  /** When everything is done and nobody reads: an unclean leader takes over. */
  readonly truncation?: Truncation | undefined;
  /** The table has provenance columns from the beginning. @default true */
  readonly provenance?: boolean;
  /** The server says when the table was altered. @default true */
  readonly tellsTime?: boolean;
  /** How long tokens are relied on. @default as the sink that ships */
  readonly budgetMs?: number;
  /** When everything is done, the rows are deleted, and another group reads the topic from its beginning. */
  readonly isReadAgain?: boolean;
  /** What the simulated ClickHouse is like to which the sink that ships talks. */
  readonly server?: ServerPlan;
}

/** A simulated ClickHouse. */
export interface ServerPlan {
  /** The settings of the user's profile. */
  readonly profile: Readonly<Record<string, string>>;
  readonly blockMs: number;
  readonly restartMs: number;
  readonly refuses: 'row' | 'constraint' | 'nameless';
  /** After so long the sink waits for no answer. */
  readonly timeoutMs: number;
  /** Blocks whose tokens the table keeps. */
  readonly window: number;
  /** Blocks that other programs write into the table at a time. */
  readonly otherBlocks: number;
  /** The table has rows of another topic, under the same partitions and offsets. */
  readonly isShared: boolean;
  readonly hasTopic: boolean;
}

/** The last records of a partition are gone; whoever comes next claims it, and then others are produced in their place. */
export interface Truncation {
  readonly partition: number;
  readonly records: number;
  readonly produced: number;
  /** Who claims it first dies before anything is produced. */
  readonly isFollowedByDeath?: boolean;
}

/** Small, fast, and the same everywhere: mulberry32. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 0x9e3779b1) >>> 0;
  }

  /** From 0 up to 1, not included. */
  readonly draw = (): number => {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };

  int(least: number, most: number): number {
    return least + Math.floor(this.draw() * (most - least + 1));
  }

  chance(share: number): boolean {
    return this.draw() < share;
  }

  of<T>(...values: readonly T[]): T {
    return values[Math.floor(this.draw() * values.length)]!;
  }

  list<T>(length: number, make: () => T): T[] {
    return Array.from({ length }, make);
  }
}

const hourMs = 3_600_000;

/** What is drawn only where the ingester has an answer other than to halt. Each was found here; set one to true and look. */
export const drawn = {
  /** A read-back in a table that has rows of the topic that was there before: the partition halts. */
  readBackBesideOlderRows: false,
  /** A row that was left out as poison fits the table again while a zombie still holds the range with it. */
  tableMendedUnderAZombie: false,
};

/** Where most faults aim at: the calls with an effect that outlives the process. */
const aims: readonly (PortName | undefined)[] = [
  'insert',
  'insert',
  'insert',
  'write',
  'write',
  'claim',
  'commit',
  'readBack',
  'fill',
  undefined,
];

function fate(dice: Dice, isTearing: boolean): Fate {
  const kinds: Fate[] = [
    'die before',
    'die after',
    'die, lands late',
    'lose reply',
    'lose reply',
    { landsAfterMs: dice.int(2, 400) },
    { delayMs: dice.int(1, 120) },
    { freezeMs: dice.int(20, 900) },
    { freezeMs: dice.int(1, 3) * hourMs },
    { failWith: 'KCR_INSERT_RETRIABLE' },
  ];
  if (isTearing) kinds.push('kill server', 'kill server');
  return dice.of(...kinds);
}

function fault(dice: Dice, isTearing: boolean): Fault {
  const port = dice.of(...aims);
  const chosen = fate(dice, isTearing);
  // A fill that is lost with the server as well halts its partition: there is no second one.
  const isMisplaced =
    (chosen === 'kill server' && port !== 'insert') ||
    (typeof chosen === 'object' && 'failWith' in chosen && port !== 'insert' && port !== 'fill');
  const aimed = isMisplaced ? 'insert' : port;
  return {
    ...(aimed === undefined ? {} : { port: aimed }),
    nth: dice.int(1, aimed === undefined ? 25 : 5),
    fate: chosen,
  };
}

function life(dice: Dice, startMs: number, isTearing: boolean): LifePlan {
  return {
    startMs,
    chunkSize: dice.int(1, 7),
    room: dice.of(Infinity, Infinity, 3, 8, 20),
    batch: { count: dice.of(1, 2, 3, 5, 100), bytes: dice.of(20, 60, 10_000), maxWaitMs: dice.of(1, 4, 10, 40) },
    blockRows: dice.of(1, 2, 3),
    asyncInserts: false,
    faults: dice.list(dice.of(0, 1, 1, 2, 3), () => fault(dice, isTearing)),
  };
}

function happening(dice: Dice, partitions: number, lives: number, isReset: boolean): Happening {
  const atMs = dice.int(20, 700);
  const partition = dice.int(0, partitions - 1);
  const kinds = [
    (): Happening => ({ kind: 'produce', atMs, partition, records: dice.int(1, 8), hole: dice.of(0, 0, 1, 3) }),
    (): Happening => ({ kind: 'rebalance', atMs }),
    (): Happening => ({ kind: 'kill', atMs, life: dice.int(0, lives - 1) }),
    (): Happening => ({ kind: 'drain', atMs, life: dice.int(0, lives - 1) }),
    (): Happening => ({
      kind: 'freeze',
      atMs,
      life: dice.int(0, lives - 1),
      ms: dice.of(dice.int(10, 500), dice.int(1, 4) * hourMs),
    }),
    (): Happening => ({ kind: 'store down', atMs, ms: dice.int(5, 400) }),
    (): Happening => ({ kind: 'table down', atMs, ms: dice.int(5, 400) }),
    (): Happening => ({ kind: 'compact', atMs, partition, offset: dice.int(0, 20) }),
    (): Happening => ({ kind: 'retain', atMs, partition, offset: dice.int(0, 15) }),
    (): Happening => ({ kind: 'other writers', atMs }),
  ];
  if (isReset && dice.chance(0.3)) return { kind: 'recreate', atMs };
  return dice.of(...kinds)();
}

/**
 * The same seed gives the same scenario. In half of them inserts wait for others, in all lives or in some: a range that
 * was in doubt in one mode is replayed in the other.
 */
export function scenarioOf(seed: number): Scenario {
  return nameless(held(altered(followed(coalescedOf(seed)))));
}

/**
 * In half of the worlds with poison the server does not name the row, and in some it refuses everything for a while. Lives
 * are cut short in the middle of a search, and the next one has room for fewer ranges. Where views hang on the table nobody
 * can look.
 */
function nameless(scenario: Scenario): Scenario {
  const { seed, poisonEvery, views, truncation, isReadAgain = false, maxPending } = scenario;
  const dice = new Dice(seed + 5_000_003);
  // What something on the way holds may come to another table.
  const isAltered = scenario.happenings.some(({ kind }) => kind === 'alter');
  // What has landed of a refused batch, and nobody can see, lands again with its parts.
  const isHidden = scenario.happenings.some((one) => one.kind === 'alter' && one.alteration === 'hide rows');
  const isBegunAnew =
    truncation !== undefined || isReadAgain || scenario.happenings.some(({ kind }) => kind === 'recreate');
  if (isBegunAnew || dice.chance(0.4) || (poisonEvery === 0 && dice.chance(0.5))) return scenario;
  const passes = dice.list(poisonEvery === 0 ? dice.int(1, 2) : dice.of(0, 0, 1), (): Happening => ({
    kind: 'table refuses',
    atMs: dice.int(0, 500),
    ms: dice.int(5, 400),
  }));
  const unanswered = (): Fault[] =>
    dice.list(dice.of(0, 1, 1, 2), () => ({
      port: 'insert',
      nth: dice.int(1, 9),
      fate: dice.of<Fate>(
        'lose reply',
        { landsAfterMs: dice.int(2, 400) },
        isAltered ? 'lose reply' : { hangsMs: dice.int(20, 900) },
      ),
    }));
  const death = (): Fault[] =>
    dice.list(dice.of(0, 1, 1), () => ({
      nth: dice.int(4, 60),
      fate: dice.of<Fate>('die before', 'die after', 'lose reply', { freezeMs: dice.int(20, 600) }),
    }));
  const lives = scenario.lives.map((plan) => ({
    ...plan,
    faults: dice.chance(0.7) ? [...plan.faults, ...unanswered(), ...death()] : plan.faults,
    ...(dice.chance(0.3) ? { maxPending: dice.int(1, maxPending) } : {}),
    ...(dice.chance(0.5) ? { batch: { ...plan.batch, count: dice.of(5, 8, 100), bytes: 10_000 } } : {}),
  }));
  return {
    ...scenario,
    lives,
    // Twice the same unknown code, with others taken in between, is a record's: from outside nobody can tell it from a server
    // that refuses everything, recovers, and does so again.
    happenings: [...scenario.happenings, ...passes.slice(0, scenario.onPoison === 'exclude' ? 1 : undefined)],
    ...(poisonEvery === 0
      ? {}
      : {
          refusal: dice.of<Refusal>('surely', 'surely', 'perhaps', 'perhaps', 'schema'),
          refusesLate: views.length === 0 && dice.chance(0.4) && !isHidden,
        }),
  };
}

/** In half of the truncations who has noticed dies before there is anything to record. */
function followed(scenario: Scenario): Scenario {
  const { truncation, seed } = scenario;
  return truncation === undefined
    ? scenario
    : { ...scenario, truncation: { ...truncation, isFollowedByDeath: new Dice(seed + 4_000_003).chance(0.5) } };
}

/**
 * In some of them, where tokens are never forgotten: an insert that something on the way holds for longer than its token
 * is relied on, and a server that dies between two ClickHouse partitions. Where views hang on the table what is there in part halts.
 */
function held(scenario: Scenario): Scenario {
  const { seed, views, dedupWindowMs, happenings, truncation, isReadAgain = false } = scenario;
  const dice = new Dice(seed + 3_000_003);
  const isOther = ({ kind }: Happening) => kind === 'alter' || kind === 'recreate';
  if (
    dice.chance(0.4) ||
    dedupWindowMs !== 0 ||
    views.length > 0 ||
    truncation !== undefined ||
    isReadAgain ||
    happenings.some(isOther)
  )
    return scenario;
  const faults = (): Fault[] => {
    const nth = dice.int(1, 3);
    const first: Fault = {
      port: 'insert',
      nth,
      fate: dice.of<Fate>('kill server between', 'kill server between', 'kill server', 'lose reply'),
    };
    const held: Fault = {
      port: dice.of('insert', 'insert', 'insert', 'fill'),
      nth: nth + 1,
      fate: { hangsMs: dice.int(20, 1_500) },
    };
    return [
      first,
      held,
      ...(dice.chance(0.3) ? [{ ...held, nth: nth + 2 }] : []),
      ...(dice.chance(0.4) ? [{ nth: dice.int(8, 40), fate: dice.of<Fate>('die before', 'die after') }] : []),
    ];
  };
  // What waits for others may wait for longer than these tokens are relied on.
  const lives = scenario.lives.map((plan) => ({
    ...plan,
    asyncInserts: false,
    ...(dice.chance(0.6) ? { faults: faults() } : {}),
  }));
  return { ...scenario, spread: dice.of(1, 2, 2, 3), budgetMs: dice.int(8, 120), lives };
}

/** In a quarter of them, where nothing else is started again, somebody alters the table, or reads the topic again. */
function altered(scenario: Scenario): Scenario {
  const { seed, views, family, dedupWindowMs, happenings, truncation } = scenario;
  const dice = new Dice(seed + 2_000_003);
  if (
    dice.chance(0.75) ||
    views.length > 0 ||
    truncation !== undefined ||
    happenings.some(({ kind }) => kind === 'recreate')
  )
    return scenario;
  if (dice.chance(0.2)) return { ...scenario, poisonEvery: 0, isReadAgain: true };
  const tellsTime = dice.chance(0.7);
  const provenance = dice.chance(0.7);
  // A window that was away for a while is seen by the time of the alteration only: not of a replicated table, whose
  // replicas have a time of their own, and not where other columns explain the alteration.
  const isWindowAway = tellsTime && family === 'plain' && dice.chance(0.2) && !isFrozen(scenario);
  const times = dice.list(dice.int(1, 3), () => dice.int(5, 700)).sort((a, b) => a - b);
  const alterations = isWindowAway
    ? windowAway(dice, times[0]!)
    : times.flatMap((atMs) =>
        alterationsAt(dice, atMs, { isKept: dedupWindowMs === 0, mayForget: !isFrozen(scenario) }),
      );
  return { ...scenario, tellsTime, provenance, happenings: [...happenings, ...answerable(alterations)] };
}

/** Rows that are hidden for a reason that nobody can ask about are known by their token alone: it has to be kept. */
function answerable(alterations: readonly Happening[]): readonly Happening[] {
  const isHidden = alterations.some((one) => one.kind === 'alter' && one.alteration === 'hide rows');
  return alterations.map((one) =>
    isHidden && one.kind === 'alter' && one.alteration === 'remove window' ? { ...one, alteration: 'add column' } : one,
  );
}

function windowAway(dice: Dice, atMs: number): readonly Happening[] {
  const remove: Happening = { kind: 'alter', atMs, alteration: 'remove window' };
  return dice.of<readonly Happening[]>(
    [{ ...remove, alteration: 'toggle window' }],
    [remove, { ...remove, atMs: atMs + dice.int(1, 200), alteration: 'restore window' }],
  );
}

/** A process that wakes up in a table without a window inserts what another one has inserted meanwhile. */
export function isFrozen({ happenings, lives }: Scenario): boolean {
  const isFreeze = ({ fate: one }: Fault) => typeof one === 'object' && 'freezeMs' in one;
  return happenings.some(({ kind }) => kind === 'freeze') || lives.some(({ faults }) => faults.some(isFreeze));
}

/** `isKept`: tokens are never forgotten. Else rows that are hidden are added again by whoever asks when they are. */
function alterationsAt(
  dice: Dice,
  atMs: number,
  { isKept, mayForget }: { readonly isKept: boolean; readonly mayForget: boolean },
): readonly Happening[] {
  const alter = (alteration: Alteration, laterMs = 0): Happening => ({
    kind: 'alter',
    atMs: atMs + laterMs,
    alteration,
  });
  const laterMs = dice.int(1, 200);
  return dice.of<readonly Happening[]>(
    [alter('add provenance')],
    [alter('add provenance')],
    [alter('drop provenance')],
    [alter('drop provenance'), alter('add provenance', laterMs)],
    [alter('drop and add provenance')],
    [alter('drop and add provenance')],
    [alter('add column')],
    [alter(mayForget ? 'remove window' : 'add column')],
    [alter('exchange')],
    [alter('exchange'), alter('exchange', laterMs)],
    [alter('recreate')],
    [alter(isKept ? 'hide rows' : 'add column')],
  );
}

function coalescedOf(seed: number): Scenario {
  const scenario = directOf(seed);
  const dice = new Dice(seed + 1_000_003);
  if (dice.chance(0.5)) return scenario;
  const isMixed = dice.chance(0.4);
  const early = (one: Fault): Fault =>
    one.fate === 'kill server' && dice.chance(0.5) ? { ...one, fate: 'kill server early' } : one;
  return {
    ...scenario,
    coalesceMs: dice.of(3, 10, 30, 80),
    lives: scenario.lives.map((plan) =>
      isMixed && dice.chance(0.5) ? plan : { ...plan, asyncInserts: true, faults: plan.faults.map(early) },
    ),
  };
}

function directOf(seed: number): Scenario {
  const dice = new Dice(seed);
  const partitions = dice.int(1, 3);
  const family = dice.of('plain', 'plain', 'plain', 'replicated');
  const views = dice.chance(0.2) ? ['by_hour'] : [];
  // What a kill between token and part takes cannot be filled where views hang on the table: a person has to.
  const isTearing = views.length === 0;
  const lives = dice.int(1, 4);
  const dedupWindowMs = dice.of(0, hourMs);
  const isReset = drawn.readBackBesideOlderRows || (dedupWindowMs === 0 && (family === 'replicated' || !isTearing));
  let startMs = 0;
  return {
    seed,
    records: dice.list(partitions, () => dice.int(0, 14)),
    maxPending: dice.of(1, 2, 2, 3),
    // Started again, a range with poison in it cannot be looked up, and halts.
    poisonEvery: isReset ? 0 : dice.of(0, 0, 0, 3, 5, 7),
    onPoison: dice.of('halt', 'exclude'),
    onGap: 'continue',
    spread: dice.of(1, 1, 2, 3),
    views,
    family,
    dedupWindowMs,
    coalesceMs: 10,
    lives: dice.list(lives, () => life(dice, (startMs += dice.int(0, 200)), isTearing)),
    happenings: dice.list(dice.int(0, 6), () => happening(dice, partitions, lives, isReset)),
    // Drawn last: the stories of seeds that have none stay as they were.
    tombstoneEvery: dice.of(0, 0, 2, 3),
    truncation:
      isReset && dice.chance(0.4)
        ? { partition: dice.int(0, partitions - 1), records: dice.int(1, 6), produced: dice.int(1, 8) }
        : undefined,
  };
}
