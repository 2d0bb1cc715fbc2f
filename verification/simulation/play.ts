// Room: one run of a scenario: the very operators that ship, over the simulated world, to the end and beyond it. Then
// the verdict. The runner, the shrinker and the tests stand on this.
import { VirtualAction, VirtualTimeScheduler, mergeMap, of, type Observable } from 'rxjs';
import { transformRows } from '../../operators/index.js';
import { exactlyOnce } from '../../src/pipeline/exactly-once.js';
import { DEDUP_BUDGET_MS } from '../../src/clickhouse/insert/token-doubt.js';
import { hasCode } from '../../src/errors.js';
import type { PartitionState } from '../../src/model/state.js';
import { decodeState } from '../../src/model/state-codec.js';
import type { PreparingSink } from '../../src/ports.js';
import type { RecordedBatch } from '../../src/stages.js';
import {
  SimulatedWorld,
  checkExactlyOnce,
  type Ignored,
  type Process,
  type Row,
  type SimulatedProcess,
} from '../../src/testing/index.js';
import { Dice, drawn, type Happening, type LifePlan, type Scenario, type Truncation } from './scenario.js';

export interface Finding {
  /** An invariant's number; `missing`, `doubled`, `unsettled`; `stuck` or `crash` when a run did not end well. */
  readonly kind: string;
  readonly what: string;
}

export interface Played {
  readonly findings: readonly Finding[];
  readonly lives: number;
  readonly rows: number;
}

/** How a process is composed: as it ships, or sabotaged. */
export type Compose = (process: Process, plan: LifePlan, scenario: Scenario, dice: Dice) => Observable<unknown>;

export interface PlayOptions {
  readonly compose?: Compose;
  readonly tell?: (line: string) => void;
  /** Sabotage I8: the settings of the blocks are not pinned. */
  readonly isUnpinned?: boolean;
  /** Tokens are relied on for ever. */
  readonly isTrusting?: boolean;
  /** The server forgets the tokens of inserts that it writes together. */
  readonly isForgetful?: boolean;
  /** What several inserts were refused for together is blamed on each of them. */
  readonly isCredulous?: boolean;
  /** What a look into the table does not mind. */
  readonly ignores?: Ignored;
}

/** Where a process gets its sink. */
export type OpenSink = (world: SimulatedWorld, self: SimulatedProcess, plan: LifePlan) => Observable<PreparingSink>;

export const asShipped: Compose = (process, plan, scenario, dice) =>
  exactlyOnce(process.source, process.sink, process.store, configOf(process, plan, scenario, dice));

export function configOf(
  process: Process,
  { batch, group = 'g', maxPending }: LifePlan,
  { onGap, onPoison, server, ...scenario }: Scenario,
  dice: Dice,
) {
  // What a real server takes minutes for is waited for in fewer steps.
  const maxDelayMs = server === undefined ? 50 : 2_000;
  return {
    group,
    owner: process.name,
    scheduler: process.scheduler,
    batch,
    maxPending: maxPending ?? scenario.maxPending,
    onGap,
    onPoison,
    onReset: 'restart' as const,
    retry: { minDelayMs: 3, maxDelayMs, random: dice.draw },
    transform: () => withoutTombstones,
  };
}

/** As a pipeline does that keeps no row of a deleted key. */
export const withoutTombstones = transformRows<RecordedBatch>(({ value }) => value);

/** When everything that goes wrong has gone wrong, and the last, healthy life begins. */
const healMs = 1_200;
/** The last life is done by then; what it left is truncated. */
const truncateMs = 4_200;
/** After a truncation the log is looked at for five seconds before it is believed. */
const regrowMs = 12_000;
/** Zombies that were frozen for hours have woken up, and are done, by then. */
export const endMs = 24 * 3_600_000;
export function play(scenario: Scenario, options: PlayOptions = {}): Played {
  const clock = new VirtualTimeScheduler(VirtualAction, endMs);
  const run = stage(scenario, options, clock);
  return run.judged(flush(clock));
}

/** A run that is set up; `clock` runs it. `openSink`: the process's own one where there is none. */
export function stage(
  scenario: Scenario,
  options: PlayOptions,
  clock: VirtualTimeScheduler,
  servers: { readonly openSink?: OpenSink; readonly tableDown?: (ms: number) => void } = {},
): Run {
  const { compose = asShipped, tell, isUnpinned = false, isCredulous = false, ignores } = options;
  const dice = new Dice(scenario.seed + 7);
  const world = worldOf(scenario, clock, options);
  const begun: (SimulatedProcess | undefined)[] = [];
  const drains: (() => void)[] = [];
  const errors: Finding[] = [];
  const halted = new Set<number>();
  const begin = (plan: LifePlan): { readonly process: Process; readonly self: SimulatedProcess } => {
    const { process, self } = world.process({
      faults: plan.faults,
      chunkSize: plan.chunkSize,
      room: plan.room,
      onGap: scenario.onGap,
      onReset: 'restart',
      blockRows: isUnpinned ? plan.blockRows : Infinity,
      asyncInserts: plan.asyncInserts,
      isCredulous,
      ...(ignores === undefined ? {} : { ignores }),
    });
    const sink$ = servers.openSink?.(world, self, plan) ?? of(process.sink);
    const running = sink$.pipe(mergeMap((sink) => compose({ ...process, sink }, plan, scenario, dice))).subscribe({
      next: (outcome) => {
        tell?.(`${clock.now()} ${process.name} → ${brief(outcome)}`);
        noteHalt(outcome, halted);
      },
      error: (error: unknown) => errors.push({ kind: 'crash', what: String(error) }),
    });
    self.died.subscribe(() => running.unsubscribe());
    return { process, self };
  };
  scenario.lives.forEach((plan, index) =>
    clock.schedule(() => {
      const { process, self } = begin(plan);
      begun[index] = self;
      drains[index] = () => process.source.drain();
    }, plan.startMs),
  );
  const tableDown = servers.tableDown ?? ((ms: number) => world.tableDown(ms));
  for (const happening of scenario.happenings)
    clock.schedule(() => happen(happening, scenario, world, begun, drains, clock, tableDown), happening.atMs);
  const healthyLife = lastLifeOf(scenario);
  let waitMs = 5;
  const heal = (): void => {
    // A zombie sleeps on, wakes up when everything is done, and goes on where it stood.
    for (const process of begun) if (process?.isFrozen === false) process.kill();
    if (isNameless(scenario) && !isQuiet(world, begun, clock)) {
      // What is on its way may be so for minutes.
      clock.schedule(heal, waitMs);
      waitMs = Math.min(2 * waitMs, 60_000);
      return;
    }
    tell?.(`${clock.now()} — the last, healthy life —`);
    // It may have been renamed away later than planned, and behind its way back.
    if (world.table.definition.isGone) world.table.alter('rename back');
    if (isMended(scenario)) world.table.mend();
    begun.push(begin(healthyLife).self);
  };
  clock.schedule(heal, healMs);
  const { truncation } = scenario;
  if (truncation !== undefined) {
    clock.schedule(() => {
      if (!truncate(truncation, world)) return;
      tell?.(
        `${clock.now()} — partition ${truncation.partition} now ends at ${world.log.ends(truncation.partition).end} —`,
      );
      for (const process of begun) if (process?.isFrozen === false) process.kill();
      const { self } = begin(healthyLife);
      if (truncation.isFollowedByDeath === true) {
        clock.schedule(() => self.kill(), regrowMs - truncateMs - 1);
        clock.schedule(() => void begin(healthyLife), regrowMs - truncateMs + 1);
      }
      clock.schedule(
        () =>
          world.produce(truncation.partition, ...Array.from({ length: truncation.produced }, (_, n) => ({ again: n }))),
        regrowMs - truncateMs,
      );
    }, truncateMs);
  }
  if (scenario.isReadAgain === true) {
    clock.schedule(() => {
      for (const process of begun) process?.kill();
      if (scenario.records.some((_, partition) => isOpen(world, partition, 'g'))) return;
      tell?.(`${clock.now()} — the rows are deleted, and another group reads from the beginning —`);
      world.table.deleteRows();
      world.group.committed.clear();
      begin({ ...healthyLife, group: otherGroup });
    }, truncateMs);
  }
  return {
    world,
    judged: (isAtRest) => {
      const stuck = isAtRest ? [] : [{ kind: 'stuck', what: 'the run does not come to rest' }];
      return {
        findings: [...errors, ...judge(world, scenario, halted), ...stuck],
        lives: world.lives,
        rows: world.table.rows.length,
      };
    },
  };
}

export interface Run {
  readonly world: SimulatedWorld;
  /** The verdict, when the clock has run out; false: it would go on for ever. */
  judged(isAtRest: boolean): Played;
}

function lastLifeOf({ truncation, lives }: Scenario): LifePlan {
  // Less than a range in doubt may have; but what was truncated must be cut again as it was.
  const room = truncation === undefined ? healthy.room : Infinity;
  return { ...healthy, room, asyncInserts: lives.some(({ asyncInserts }) => asyncInserts) };
}

/** A range is recorded in parts only where the table goes on refusing it: what is on its way would land beside them. */
function isNameless({ refusal = 'named', refusesLate = false }: Scenario): boolean {
  return refusal !== 'named' || refusesLate;
}

/** The record at fault cannot always be told: somebody mends the table in the end. */
function isMended({ onPoison, refusal = 'named', refusesLate = false }: Scenario): boolean {
  return (
    onPoison === 'halt' || drawn.tableMendedUnderAZombie || (refusal !== 'named' && refusal !== 'surely') || refusesLate
  );
}

/** Nothing is on its way; who sleeps sleeps for so long that it asks the table first. */
function isQuiet(
  world: SimulatedWorld,
  begun: readonly (SimulatedProcess | undefined)[],
  clock: VirtualTimeScheduler,
): boolean {
  return (
    world.isQuiet &&
    begun.every((process) => process?.isFrozen !== true || process.thawsAtMs - clock.now() > DEDUP_BUDGET_MS)
  );
}

const otherGroup = 'g:again';

/** Where nothing can be concluded the partition halts, and says so. */
function noteHalt(outcome: unknown, halted: Set<number>): void {
  const {
    kind,
    assignment: { partition },
    error,
  } = outcome as { kind: string; assignment: { partition: number }; error?: unknown };
  // Poison of a range that cannot be looked up halts, too; and the halt of a later range may end a write of this one first.
  if (kind === 'halted' && hasCode(error, 'KCR_READ_BACK', 'KCR_POISON', 'KCR_INTERNAL')) halted.add(partition);
}

function worldOf(
  scenario: Scenario,
  clock: VirtualTimeScheduler,
  { tell, isTrusting = false, isForgetful = false }: PlayOptions,
): SimulatedWorld {
  const {
    records,
    spread,
    views,
    family,
    dedupWindowMs,
    coalesceMs,
    poisonEvery,
    refusal = 'named',
    refusesLate = false,
    provenance = true,
    tellsTime = true,
    server,
  } = scenario;
  return new SimulatedWorld({
    partitions: records,
    scheduler: clock,
    coalesceMs,
    rowsOf: ({ value }) => (value === null ? 0 : 1),
    ...(tell === undefined ? {} : { tell }),
    table: {
      views,
      family,
      provenance,
      tellsTime,
      refusal,
      refusesLate,
      forgetsTogether: isForgetful,
      ...(isTrusting ? { budgetMs: Infinity } : scenario.budgetMs === undefined ? {} : { budgetMs: scenario.budgetMs }),
      ...(dedupWindowMs === 0 ? {} : { dedupWindowMs }),
      ...(server === undefined ? {} : { dedupWindow: server.window, hasTopic: server.hasTopic }),
      ...(spread === 1 ? {} : { partitionBy: ({ offset }: Row) => String(offset % spread) }),
      ...(poisonEvery === 0 ? {} : { isPoison: ({ offset }: Row) => offset % poisonEvery === poisonEvery - 1 }),
    },
  });
}

const healthy: LifePlan = {
  startMs: 0,
  chunkSize: 4,
  room: 6,
  batch: { count: 5, bytes: 10_000, maxWaitMs: 5 },
  blockRows: 2,
  asyncInserts: false,
  faults: [],
};

/**
 * Only where nothing is in doubt and everything is settled: a range in doubt that reaches into what is gone halts its
 * partition, and what is produced before anybody looked is passed over; both are said in docs/guarantees.md.
 */
function truncate({ partition, records }: Truncation, world: SimulatedWorld): boolean {
  const { start, end } = world.log.ends(partition);
  const state = stateOf(world, partition);
  if (end === start || state?.settled !== end - 1 || state.pending.length > 0) return false;
  world.log.truncate(partition, end - records);
  return true;
}

/** Runs the clock until nothing is left to do; false: too much was done for a run that ends. */
function flush(clock: VirtualTimeScheduler): boolean {
  let actions = 0;
  const count = clock.schedule.bind(clock);
  const most = 60_000;
  class Endless extends Error {}
  clock.schedule = ((...args: Parameters<typeof count>) => {
    if (++actions > most) throw new Endless('endless');
    return count(...args);
  }) as typeof clock.schedule;
  try {
    clock.flush();
    return true;
  } catch (error) {
    if (error instanceof Endless) return false;
    throw error;
  }
}

function happen(
  happening: Happening,
  { tombstoneEvery, server }: Scenario,
  world: SimulatedWorld,
  begun: readonly (SimulatedProcess | undefined)[],
  drains: readonly (() => void)[],
  clock: VirtualTimeScheduler,
  tableDown: (ms: number) => void,
): void {
  switch (happening.kind) {
    case 'produce':
      world.log.leaveHole(happening.partition, happening.hole);
      return world.produce(
        happening.partition,
        ...Array.from({ length: happening.records }, (_, n) =>
          tombstoneEvery > 0 && n % tombstoneEvery === tombstoneEvery - 1 ? null : { n },
        ),
      );
    case 'rebalance':
      return world.group.rebalance();
    case 'kill':
      return begun[happening.life]?.kill();
    case 'drain':
      return drains[happening.life]?.();
    case 'freeze':
      return begun[happening.life]?.freeze(happening.ms);
    case 'store down':
      return world.storeDown(happening.ms);
    case 'table down':
      return tableDown(happening.ms);
    case 'table refuses':
      return world.tableRefuses(happening.ms);
    case 'compact':
      return world.log.compact(happening.partition, happening.offset);
    case 'retain':
      world.log.retainFrom(happening.partition, happening.offset);
      return world.fetchOn();
    case 'recreate':
      world.log.recreate();
      world.group.committed.clear();
      for (let partition = 0; partition < world.log.partitions; partition++)
        world.produce(partition, { again: 1 }, { again: 2 }, { again: 3 });
      return world.group.rebalance();
    case 'other writers':
      return othersWrite(server?.otherBlocks ?? 5, world, clock);
    case 'alter':
      return world.alter(happening.alteration);
  }
}

/**
 * Others write into the table. More than half of its window only while no insert is on its way, nor anything asked that goes
 * before one: what pushes a token out behind the last look nobody sees (docs/guarantees.md).
 */
function othersWrite(blocks: number, world: SimulatedWorld, clock: VirtualTimeScheduler, patienceMs = 500): void {
  const isTooMuch = blocks > (world.table.config.dedupWindow ?? Infinity) / 2;
  if (!isTooMuch || !world.isBusy) return world.table.fillWindow(blocks, clock.now());
  if (patienceMs > 0) clock.schedule(() => othersWrite(blocks, world, clock, patienceMs - 1), 1);
}

/**
 * Where the table is altered a partition may halt instead of guessing: then nothing that is settled may be missing, and
 * nothing may be there twice. Rows that are hidden cost one copy, that of the fill which shows it, and
 * one in each table that another was exchanged for: what landed there is counted, too.
 */
function judge(world: SimulatedWorld, scenario: Scenario, halted: ReadonlySet<number>): Finding[] {
  const { missing, doubled, views } = checkExactlyOnce(world);
  const findings: Finding[] = world.violations.map(({ invariant, what }) => ({ kind: invariant, what }));
  const { isAltered, isHidden, exchanges, unanswered } = alterationsOf(scenario);
  const mayHalt = (partition: number) => isAltered && halted.has(partition);
  const isLost = (name: string): boolean => {
    const [partition = 0, offset = 0] = name.split(':').map(Number);
    return !mayHalt(partition) || offset <= (stateOf(world, partition)?.settled ?? -1);
  };
  const lost = missing.filter(isLost);
  if (lost.length > 0) findings.push({ kind: 'missing', what: lost.join(' ') });
  const tooMany = isHidden ? doubled.filter((name) => copiesOf(world, name) > 2 + exchanges + unanswered) : doubled;
  if (tooMany.length > 0) findings.push({ kind: 'doubled', what: tooMany.join(' ') });
  for (const [name, view] of Object.entries(views)) {
    const unfed = view.missing.filter(isLost);
    if (unfed.length > 0) findings.push({ kind: 'missing', what: `${name}: ${unfed.join(' ')}` });
    if (view.doubled.length > 0) findings.push({ kind: 'doubled', what: `${name}: ${view.doubled.join(' ')}` });
  }
  scenario.records.forEach((_, partition) => {
    if (!isOpen(world, partition, 'g') || mayHalt(partition)) return;
    findings.push({
      kind: 'unsettled',
      what: `partition ${partition}: settled ${stateOf(world, partition)?.settled}, the log ends at ${world.log.ends(partition).end}`,
    });
  });
  return findings;
}

function alterationsOf({ happenings, lives, provenance = true, server, views }: Scenario): {
  readonly isAltered: boolean;
  readonly isHidden: boolean;
  readonly exchanges: number;
  readonly unanswered: number;
} {
  const alterations = happenings.flatMap((happening) => (happening.kind === 'alter' ? [happening.alteration] : []));
  // What others push out of the window is looked for; whether views have it nobody can see.
  const isPushed =
    server !== undefined &&
    views.length > 0 &&
    server.otherBlocks > server.window / 2 &&
    happenings.some(({ kind }) => kind === 'other writers');
  // Where no window knows what has landed, and no look shows it, each lost answer costs a copy.
  const isBlind = alterations.includes('remove window');
  return {
    isAltered: alterations.length > 0 || !provenance || server?.hasTopic === false || isPushed,
    isHidden: alterations.includes('hide rows'),
    exchanges: alterations.includes('exchange') ? 1 : 0,
    unanswered: isBlind ? lives.flatMap(({ faults }) => faults).length : 0,
  };
}

function copiesOf(world: SimulatedWorld, name: string): number {
  const [partition = 0, offset = 0] = name.split(':').map(Number);
  return world.table.countAll(world.log.topic, partition, offset, offset).get(offset) ?? 0;
}

/** The log has records beyond what is settled. */
function isOpen(world: SimulatedWorld, partition: number, group: string): boolean {
  const settled = stateOf(world, partition, group)?.settled ?? -1;
  return world.log.records(partition).some(({ offset }) => offset > settled);
}

function stateOf(world: SimulatedWorld, partition: number, group = 'g'): PartitionState | undefined {
  const key = { cluster: 'simulated', group, topic: world.log.topic, partition };
  const node = world.nodes.get(JSON.stringify([key.cluster, key.group, key.topic, key.partition]));
  return node === undefined ? undefined : decodeState(node.text, key).state;
}

function brief(outcome: unknown): string {
  const { kind, assignment, afterOffset, lastOffset, error } = outcome as {
    kind: string;
    assignment: { partition: number };
    afterOffset?: number;
    lastOffset?: number;
    error?: Error;
  };
  return kind === 'halted'
    ? `halted ${assignment.partition}: ${error?.message}`
    : `${kind} ${assignment.partition}:${(afterOffset ?? 0) + 1}-${lastOffset}`;
}
