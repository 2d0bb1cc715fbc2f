// Room: scenarios for the sink that ships: those of the fast simulation, with a server that is as unkind as the real ones.
// Plain data, drawn from a seed.
import type { Alteration, Fate, Fault } from '../../src/testing/index.js';
import { Dice, isFrozen, scenarioOf, type Happening, type Scenario, type ServerPlan } from './scenario.js';

export type ShippedScenario = Scenario & { readonly server: ServerPlan };

/** What an unkind profile sets. Each of them makes a success, or a look, mean less unless it is pinned. */
const profiles: readonly Readonly<Record<string, string>>[] = [
  { max_execution_time: '1', timeout_overflow_mode: 'break' },
  { max_rows_to_group_by: '2', group_by_overflow_mode: 'any' },
  { max_rows_to_read: '3', read_overflow_mode: 'break' },
  { async_insert: '1', wait_for_async_insert: '0' },
  { deduplicate_insert: 'disable', insert_deduplicate: '0' },
  { max_insert_block_size: '2', min_insert_block_size_rows: '2' },
  { input_format_allow_errors_num: '100' },
  { deduplicate_blocks_in_dependent_materialized_views: '0' },
];

export const kindServer: ServerPlan = {
  profile: {},
  blockMs: 0,
  restartMs: 20,
  refuses: 'row',
  timeoutMs: 60,
  window: 10_000,
  otherBlocks: 5,
  isShared: false,
  hasTopic: true,
};

function serverFate(dice: Dice, family: 'plain' | 'replicated'): Fate {
  const landed = dice.of('nothing' as const, 'first' as const, 'all' as const);
  const faults: Fate[] = [
    { server: { kind: 'answer', code: dice.of(241, 159, 999, 1001), landed } },
    { server: { kind: 'answer', code: dice.of(202, 252, 745), landed: 'nothing' } },
    { server: { kind: 'die', afterBlocks: dice.int(0, 2), isTorn: dice.chance(0.5) } },
    { server: { kind: 'slow', ms: dice.of(20, 100, 400) } },
    { server: { kind: 'balancer' } },
    { server: { kind: 'page', status: dice.of(502, 503, 504) } },
    { landsAfterMs: dice.of(30, 300, 700_000) },
  ];
  if (family === 'replicated')
    faults.push(
      { server: { kind: 'unknown part', isKept: dice.chance(0.5) } },
      { server: { kind: 'answer', code: 242, landed } },
    );
  return dice.of(...faults);
}

/** Of the faults that strike the sink, half are the server's own. */
function unkind(dice: Dice, { family, views }: Scenario, one: Fault): Fault {
  const isOfSink = one.port === 'insert' || one.port === 'fill' || one.port === 'readBack';
  if (!isOfSink || dice.chance(0.5)) return one;
  const fate = serverFate(dice, family);
  // What a kill takes from views nobody can give back, and a person has to.
  const isTearing = typeof fate === 'object' && 'server' in fate && fate.server.kind === 'die';
  if (isTearing && (views.length > 0 || one.port === 'fill')) return one;
  if (one.port === 'readBack')
    return {
      ...one,
      port: dice.of('readBack', 'ask'),
      fate: dice.of<Fate>(fateOfLook(fate), 'lose reply', { delayMs: dice.int(1, 300) }),
    };
  return { ...one, fate };
}

function fateOfLook(fate: Fate): Fate {
  const isOfInsert =
    typeof fate === 'object' && ('landsAfterMs' in fate || ('server' in fate && fate.server.kind === 'unknown part'));
  return isOfInsert ? 'lose reply' : fate;
}

/** A request that something on the way holds is seen by nobody: where tokens may be forgotten meanwhile it lands twice. So the server holds it. */
function seen({ fate, ...one }: Fault): Fault {
  if (fate === 'die, lands late') return { ...one, fate: 'die after' };
  if (typeof fate !== 'object' || !('landsAfterMs' in fate || 'hangsMs' in fate)) return { ...one, fate };
  return { ...one, fate: { server: { kind: 'slow', ms: 'hangsMs' in fate ? fate.hangsMs : fate.landsAfterMs } } };
}

/**
 * What is waited for is over before the last life is. Where views hang on the table, or a topic was recreated, nobody can
 * look, so a range that is in doubt for longer than its token is relied on halts its partition; and of a log that is cut off, or
 * read again, all was settled.
 */
function soon(one: Fault): Fault {
  const isLong = typeof one.fate === 'object' && 'landsAfterMs' in one.fate && one.fate.landsAfterMs > 1_000;
  return isLong ? { ...one, fate: { landsAfterMs: 300 } } : one;
}

/** The window is away for a while, or others push tokens out of it. */
function forgets({ happenings }: Scenario, { window }: ServerPlan): boolean {
  return (
    window < kindServer.window || happenings.some((one) => one.kind === 'alter' && one.alteration.endsWith('window'))
  );
}

function absence(dice: Dice): readonly Happening[] {
  const atMs = dice.int(20, 600);
  const alter = (alteration: Alteration, at: number): Happening => ({ kind: 'alter', atMs: at, alteration });
  return [alter('rename away', atMs), alter('rename back', atMs + dice.int(5, 200))];
}

/** The same seed gives the same scenario. */
export function shippedOf(seed: number): ShippedScenario {
  const base = scenarioOf(seed);
  const dice = new Dice(seed + 3_000_017);
  const { family, happenings, dedupWindowMs, coalesceMs } = base;
  const server: ServerPlan = {
    ...kindServer,
    profile: dice.chance(0.4) ? dice.of(...profiles) : {},
    blockMs: dice.of(0, 0, 1, 5, 15),
    restartMs: dice.of(5, 20, 100),
    refuses: dice.of<ServerPlan['refuses']>('row', 'constraint', 'nameless'),
    // As the options that ship: an insert waits for others for half of it at most.
    timeoutMs: Math.max(dice.of(60, 60, 200), 2 * coalesceMs + 50),
    // A process that wakes up inserts what another one has inserted meanwhile, and others have pushed out of the window.
    window: dice.of(kindServer.window, isFrozen(base) ? kindServer.window : 30),
    otherBlocks: dice.of(5, 40),
    isShared: dice.chance(0.2),
    hasTopic: dice.chance(0.9),
  };
  const isWaitedFor = server.refuses === 'nameless' || forgets(base, server);
  const isBegunAnew =
    base.truncation !== undefined || base.isReadAgain === true || happenings.some(({ kind }) => kind === 'recreate');
  const mustBeSoon = isWaitedFor && (base.views.length > 0 || isBegunAnew);
  const struck = (one: Fault): Fault => (mustBeSoon ? soon(unkind(dice, base, one)) : unkind(dice, base, one));
  const isAltered = happenings.some(({ kind }) => kind === 'alter');
  return {
    ...base,
    server,
    // This server refuses in a way of its own, before anything of an insert has landed.
    refusal: server.refuses === 'nameless' && base.poisonEvery > 0 ? 'surely' : 'named',
    refusesLate: false,
    // Tokens of a plain table do not grow old.
    dedupWindowMs: family === 'plain' ? 0 : dedupWindowMs,
    lives: base.lives.map((life) => ({
      ...life,
      faults: life.faults.map(forgets(base, server) ? (one) => seen(struck(one)) : struck),
    })),
    happenings: !isAltered && dice.chance(0.05) ? [...happenings, ...absence(dice)] : happenings,
  };
}

/**
 * A first attempt hangs on its way for longer than its token is relied on; of a second one the block of one ClickHouse
 * partition lands; then nobody can reach the server until the budget is spent, and the range is looked for. What is done
 * about the other block must not double when the first attempt lands at last.
 */
export function lateBlock(): ShippedScenario {
  const faults: readonly Fault[] = [
    { port: 'insert', nth: 1, fate: { landsAfterMs: 700_000 } },
    { port: 'insert', nth: 2, fate: { server: { kind: 'answer', code: 241, landed: 'first' } } },
  ];
  return {
    seed: 1,
    records: [6],
    maxPending: 1,
    poisonEvery: 0,
    onPoison: 'halt',
    onGap: 'halt',
    spread: 2,
    views: [],
    family: 'plain',
    dedupWindowMs: 0,
    coalesceMs: 10,
    tombstoneEvery: 0,
    lives: [
      {
        startMs: 10,
        chunkSize: 7,
        room: Infinity,
        batch: { count: 6, bytes: 10_000, maxWaitMs: 10 },
        blockRows: 2,
        asyncInserts: false,
        faults,
      },
    ],
    happenings: [{ kind: 'table down', atMs: 82, ms: 650_000 }],
    server: kindServer,
  };
}
