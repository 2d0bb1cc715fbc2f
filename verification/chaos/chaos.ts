// The chaos run: servers, workers and a producer, faults upon them one after another and sometimes two at a time, then
// everything is healed, the workers drain, and the oracle judges. Used by `npm run chaos` and by its short test.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { replicationFaultHere } from '../../test/stack/clickhouse.js';
import { startStack, type Stack } from '../../test/stack/stack.js';
import { plain, replicated } from '../../test/support/engines.js';
import type { InsertMode } from '../../src/clickhouse/insert/settings.js';
import { query } from '../../test/stack/clients.js';
import { Draw, ShuffleBag } from './draw.js';
import type { Arena, Fault } from './fault.js';
import { faultsAgainst, faultsOf } from './faults.js';
import { Fleet, type StoreName } from './fleet.js';
import {
  checkLog,
  createTable,
  isCaughtUp,
  judge,
  partsUnknown,
  readLog,
  table,
  type Log,
  type Verdict,
} from './oracle.js';
import { windows, type Control } from './told.js';
import { countedOf, type Counted } from './tombstones.js';
import { createTopics, kafkaProperties, topics, Traffic } from './traffic.js';

export interface ChaosConfig {
  readonly seed: number;
  readonly store: StoreName;
  /** @default 'direct' */
  readonly insertMode?: InsertMode;
  /** The table keeps its tokens in ZooKeeper. @default false */
  readonly isReplicated?: boolean;
  /** Until the last fault begins. */
  readonly minutes: number;
  /** Just these, in this order, instead of drawing for `minutes`. */
  readonly kinds?: readonly string[];
  /** Not these, when faults are drawn. */
  readonly except?: readonly string[];
  readonly workers?: number;
  /** 3: every record is kept three times, and the broker that fails is one of three. @default 1 */
  readonly brokers?: 1 | 3;
  /** Records produced in a second, about. */
  readonly rate?: number;
  readonly control?: Control | undefined;
  /** Keep the logs whatever comes out. */
  readonly keep?: boolean;
  readonly say: (line: string) => void;
}

export interface ChaosResult extends Verdict, Counted {
  /** How often each kind came, and how often its effect was not seen. */
  readonly faults: Readonly<Record<string, number>>;
  readonly unverified: Readonly<Record<string, number>>;
  readonly transactions: Traffic['transactions'];
  /** Calls that found rows missing which the server had said to be there already. */
  readonly filled: number;
  readonly replays: number;
  /** Inserts that were answered well, and the parts of all of them. */
  readonly inserts: number;
  readonly parts: number;
  /** Parts of which the server itself did not know, in the end, whether it keeps them. */
  readonly partsUnknown: number;
  /** Calls of a former owner that were refused. */
  readonly fenced: number;
  /** Starts of workers that were refused since a server was down. */
  readonly refusedStarts: number;
  /** What should not have happened although the table may be right: workers that ended or halted, no progress. */
  readonly trouble: readonly string[];
  /** Configurations and logs; gone when all was as expected. */
  readonly dir: string;
}

const stalledAfterMs = 60_000;
/** Processes are started and a topic's first partitions are given out, on a machine that may be busy. */
const firstWithinMs = 180_000;
const effectWithinMs = 40_000;
const shareOfPairs = 0.3;
/** A part that is looked at too soon after it was written is looked at again. */
const partsKnownWithinMs = 400_000;

export async function runChaos(config: ChaosConfig): Promise<ChaosResult> {
  const {
    seed,
    store,
    insertMode = 'direct',
    isReplicated = false,
    workers = 3,
    brokers = 1,
    rate = 300,
    control,
    say,
  } = config;
  const family = isReplicated ? replicated : plain;
  const fault = isReplicated ? replicationFaultHere() : undefined;
  if (fault !== undefined) throw new Error(`there are no replicated tables here: ${fault}`);
  const dir = mkdtempSync(join(tmpdir(), 'kafka-clickhouse-chaos-'));
  mkdirSync(join(dir, 'servers'));
  say(`logs are in ${dir}`);
  const stack = await startStack({
    useEnvironment: false,
    root: join(dir, 'servers'),
    keep: true,
    kafka: { properties: kafkaProperties, brokers },
    clickhouse: { asyncInserts: insertMode === 'coalesced' },
  });
  const trouble: string[] = [];
  const onTrouble = (what: string): void => {
    trouble.push(what);
    say(`  TROUBLE ${what}`);
  };
  const routes = Object.values(topics).map(({ topic }) => ({ topic, table }));
  const fleet = new Fleet(stack, { store, insertMode, control, routes, dir, onTrouble });
  let result: ChaosResult | undefined;
  try {
    await Promise.all([createTable(stack.clickhouseUrl, family, insertMode), createTopics(stack.brokers)]);
    const draw = new Draw(seed);
    const traffic = new Traffic(stack.brokers, new Draw(seed + 1), rate);
    for (let i = 0; i < workers; i++) await fleet.add();
    const told = await disturbAll(
      { fleet, stack, store, insertMode, family, draw, limitMs: control === undefined ? effectWithinMs : 5_000 },
      config,
      onTrouble,
    );
    say('healed; the producer stops, the workers go on to the end …');
    await traffic.stop();
    const log = await settle(stack, fleet, traffic, control, onTrouble);
    const unknown = await knowAllParts(stack, say);
    const verdict = await judge(stack.clickhouseUrl, log, traffic);
    const counted = countedOf(log, fleet.heard);
    const count = (isIt: (heard: (typeof fleet.heard)[number]) => boolean): number => fleet.heard.filter(isIt).length;
    result = {
      ...verdict,
      ...counted,
      ...told,
      transactions: traffic.transactions,
      trouble,
      dir,
      partsUnknown: unknown,
      refusedStarts: fleet.refusedStarts,
      filled: count(({ what, stage }) => what === 'fill' && stage === 'done'),
      inserts: count(({ what, stage }) => what === 'insert' && stage === 'done'),
      parts: await partsMade(stack.clickhouseUrl),
      replays: count(({ what, replay }) => what === 'delivered' && replay === true),
      fenced: count(({ what, stage, detail }) => stage === 'failed' && what !== 'ended' && detail === 'KCR_FENCED'),
    };
    return result;
  } finally {
    await fleet.close();
    await Promise.all([...stack.kafkas, stack.zookeeper, stack.clickhouse].map(async (server) => server?.kill()));
    const isExpected =
      result !== undefined && isAsExpected(result, control) && (control !== undefined || trouble.length === 0);
    if (isExpected && config.keep !== true) rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** With Keeper there a start tells it at once what it keeps. */
async function knowAllParts({ clickhouse, clickhouseUrl }: Stack, say: (line: string) => void): Promise<number> {
  const parts = await partsUnknown(clickhouseUrl);
  if (parts === 0) return 0;
  say(`ClickHouse does not know of ${parts} parts whether it keeps them: it is started again, and looks`);
  await clickhouse!.kill();
  await clickhouse!.start();
  for (
    const endMs = performance.now() + partsKnownWithinMs;
    (await partsUnknown(clickhouseUrl)) > 0;
    await sleep(500)
  ) {
    if (performance.now() > endMs) throw new Error('ClickHouse still does not know which parts it keeps');
  }
  return parts;
}

/** Each part that was made took a number. */
async function partsMade(url: string): Promise<number> {
  const [row] = await query<{ n: number }>(
    url,
    `SELECT max(max_block_number) AS n FROM system.parts WHERE table = '${table}'`,
  );
  return row?.n ?? 0;
}

export function isRight({ missing, doubled, wrong }: Verdict): boolean {
  return missing.length + doubled.length + wrong.length === 0;
}

/** All in its place and counted; without a guard: caught. */
export function isAsExpected(result: Verdict & Counted, control: Control | undefined): boolean {
  return control === undefined ? isRight(result) && result.uncounted.length === 0 : !isRight(result);
}

/** A fault whose effect was not seen proves nothing: it is staged again, so often. */
const stagedAtMost = 8;

type Counts = Pick<ChaosResult, 'faults' | 'unverified'>;

/** Fault upon fault, with some quiet in between, until time is up. */
async function disturbAll(
  arena: Arena,
  { minutes, kinds, except = [], say, control }: ChaosConfig,
  onTrouble: (what: string) => void,
): Promise<Counts> {
  const { fleet, draw } = arena;
  const all = faultsOf(arena);
  for (const kind of except) if (!all.some((fault) => fault.kind === kind)) unknown(kind, all);
  const drawn = all.filter(({ kind }) => !except.includes(kind));
  const bag = new ShuffleBag(control === undefined ? drawn : faultsAgainst(control, arena), draw);
  const fixed = kinds?.map((kind) => all.find((fault) => fault.kind === kind) ?? unknown(kind, all));
  const counts = { faults: {} as Record<string, number>, unverified: {} as Record<string, number> };
  const one = async (fault: Fault): Promise<void> => {
    const beganMs = performance.now();
    let effect = await fault.run(arena);
    for (let tries = 1; effect !== undefined && control === undefined && tries < stagedAtMost; tries++) {
      say(`  ${fault.kind}: ${effect}; it is staged again`);
      fleet.heal();
      effect = await fault.run(arena);
    }
    counts.faults[fault.kind] = (counts.faults[fault.kind] ?? 0) + 1;
    if (effect !== undefined) counts.unverified[fault.kind] = (counts.unverified[fault.kind] ?? 0) + 1;
    say(`  ${fault.kind}: ${effect ?? 'seen'} (${((performance.now() - beganMs) / 1000).toFixed(1)} s)`);
  };
  await progress(fleet, 'the start', onTrouble, firstWithinMs);
  const startedMs = performance.now();
  const isTimeUp = (): boolean => performance.now() - startedMs > minutes * 60_000;
  for (let round = 1; fixed === undefined ? !isTimeUp() : fixed.length > 0; round++) {
    const first = fixed?.shift() ?? bag.next();
    const faults = [first];
    if (fixed === undefined && draw.share() < shareOfPairs) {
      const second = bag.next();
      const isApart = [first, second].some(({ isAlone }) => isAlone);
      if (!isApart && !second.touches.some((word) => first.touches.includes(word))) faults.push(second);
      else await one(second);
    }
    say(
      `${((performance.now() - startedMs) / 60_000).toFixed(1)} min, round ${round}: ${faults.map(({ kind }) => kind).join(' and ')}`,
    );
    await Promise.all(faults.map(one));
    fleet.heal();
    // Without a guard there may be none any more.
    if (control === undefined) await progress(fleet, faults.map(({ kind }) => kind).join(' and '), onTrouble);
    if (fixed === undefined) await sleep(draw.between(300, 3000));
  }
  return counts;
}

function unknown(kind: string, all: readonly Fault[]): never {
  throw new Error(`no fault is called ${kind}; there are ${all.map((fault) => fault.kind).join(', ')}`);
}

/** New records arrive, with each of the topics. */
async function progress(
  fleet: Fleet,
  after: string,
  onTrouble: (what: string) => void,
  withinMs = stalledAfterMs,
): Promise<void> {
  const since = fleet.heard.length;
  const arrived = await Promise.all(
    Object.values(topics).map(({ topic }) =>
      fleet.hears(
        since,
        (heard) => heard.what === 'insert' && heard.stage === 'done' && heard.topic === topic,
        withinMs,
      ),
    ),
  );
  if (arrived.includes(undefined)) onTrouble(`no progress within ${withinMs / 1000} s after ${after}`);
}

/** Waits until the workers have done everything, and ends them. */
async function settle(
  { brokers, clickhouseUrl }: Stack,
  fleet: Fleet,
  traffic: Traffic,
  control: Control | undefined,
  onTrouble: (what: string) => void,
): Promise<Log> {
  const first = await readLog(brokers);
  const isDone = await isCaughtUp(clickhouseUrl, first, control === undefined ? 120_000 : 5_000);
  if (!isDone) onTrouble('the workers did not get to the end of the topics in time');
  await fleet.drain();
  // Compaction may have gone on meanwhile.
  const log = await readLog(brokers);
  for (const contradicted of checkLog(log, traffic)) onTrouble(contradicted);
  return log;
}

/** How often each window was hit with its effect seen. */
export function windowsHit({ faults, unverified }: Counts): Record<string, number> {
  return Object.fromEntries(windows.map((window) => [window, (faults[window] ?? 0) - (unverified[window] ?? 0)]));
}
