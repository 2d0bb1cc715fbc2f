// Room: the command `npm run simulate`. Reads the arguments, prints; what is run stands in the files beside it.
//
//   --seeds N [--from S] [--seconds T]   random worlds, one a seed; the last line is the count
//   --seed S                             one world, step by step; when it fails, also its shortest story
//   --sabotage I4 | all                  an invariant broken on purpose: found?
//   --exhaustive [--seconds T]           every order of two owners' steps in small worlds; no world takes more than half of T
//   --exhaustive --world N               only the Nth of them, from 1; it may take all of T
//   --kafka with --seeds, --seed or --sabotage   the group simulated below the source; [--theme T] of its worlds only
//   --sink shipped                       with any of the first three: the sink that ships, over a simulated ClickHouse
//   --json                               nothing but the last line, as JSON
import { parseArgs } from 'node:util';
import { exhaust, smallWorlds } from './exhaustive.js';
import { kafkaCommand } from './kafka/command.js';
import { play, type PlayOptions } from './play.js';
import type { SmallWorld } from './owners.js';
import { campaign, hunt, type Hunt } from './random.js';
import { sabotages } from './sabotage.js';
import { scenarioOf, type Scenario } from './scenario.js';
import { playShipped, type ShippedOptions } from './shipped.js';
import { shippedCampaign, shippedHunt, shrinkShipped } from './shipped-random.js';
import { shippedSabotages } from './shipped-sabotage.js';
import { shippedOf, type ShippedScenario } from './shipped-scenario.js';
import { shrink } from './shrink.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    from: { type: 'string', default: '1' },
    seconds: { type: 'string' },
    seed: { type: 'string' },
    sabotage: { type: 'string' },
    exhaustive: { type: 'boolean', default: false },
    world: { type: 'string' },
    sink: { type: 'string', default: 'simulated' },
    json: { type: 'boolean', default: false },
    kafka: { type: 'boolean', default: false },
    theme: { type: 'string' },
  },
});

// Errors are values in a campaign, made by the million: their stacks are not looked at.
if (values.seed === undefined) Error.stackTraceLimit = 0;

const say = (line: string) => void (values.json || console.log(line));

/** The last line: for people, or as JSON. */
function conclude(result: Readonly<Record<string, unknown>>, isGood: boolean): void {
  console.log(
    values.json
      ? JSON.stringify(result)
      : Object.entries(result)
          .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
          .join(', '),
  );
  if (!isGood) process.exitCode = 1;
}

function number(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new RangeError(`Expected --${name} to be a whole number, got ${text}`);
  return value;
}

/** What this process has had of a core; on a busy machine less than what went by. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Numbers beyond counting. */
const brief = (count: number) => (count < 1e9 ? String(count) : count.toExponential(2));

const round = (seconds: number) => Math.round(seconds * 10) / 10;

function tellStory(scenario: Scenario, options: PlayOptions = {}): void {
  say(JSON.stringify(scenario));
  const { findings } = play(scenario, { ...options, tell: say });
  for (const { kind, what } of findings) say(`FOUND ${kind}: ${what}`);
}

async function replay(seed: number): Promise<void> {
  const broken =
    values.sabotage === undefined
      ? undefined
      : Object.entries(sabotages).find(([name]) => name === values.sabotage)?.[1];
  const options: PlayOptions = broken ?? {};
  const scenario = scenarioOf(seed);
  tellStory(scenario, options);
  const { findings, lives } = play(scenario, options);
  if (findings.length > 0) {
    const shrunk = await shrink(scenario, options);
    say(`\nThe shortest story that fails the same way (${shrunk.tries} tries):`);
    tellStory(shrunk.scenario, options);
  }
  conclude({ seed, lives, violations: findings.length, findings }, findings.length === 0);
}

async function sabotage(name: string): Promise<void> {
  const names = name === 'all' ? Object.keys(sabotages) : [name];
  const hunts: Hunt[] = [];
  for (const one of names)
    hunts.push(await hunt(one, { from: number('from', values.from), maxSeconds: Number(values.seconds ?? 60) }));
  const lines = hunts.map(({ by, seconds, ...rest }) => ({ ...rest, seconds: round(seconds), by: by?.kind }));
  if (name === 'all') for (const line of lines) console.log(JSON.stringify(line));
  else for (const one of hunts) if (one.by !== undefined) say(`${one.by.kind}: ${one.by.what}`);
  const all = hunts.every(({ found }) => found);
  conclude(
    name === 'all' ? { sabotages: names.length, found: hunts.filter(({ found }) => found).length } : lines[0]!,
    all,
  );
}

function chosenWorlds(): readonly SmallWorld[] {
  if (values.world === undefined) return smallWorlds;
  const world = smallWorlds[number('world', values.world) - 1];
  if (world === undefined)
    throw new RangeError(`Expected --world to be from 1 to ${smallWorlds.length}, got ${values.world}`);
  return [world];
}

function exhaustively(): void {
  const maxSeconds = Number(values.seconds ?? 600);
  const total = {
    worlds: 0,
    complete: 0,
    orders: 0,
    moments: 0,
    steps: 0,
    runs: 0,
    compared: 0,
    violations: 0,
    cpuSeconds: 0,
  };
  for (const small of chosenWorlds()) {
    const most = values.world === undefined ? maxSeconds / 2 : maxSeconds;
    const done = exhaust(small, { maxSeconds: Math.min(most, maxSeconds - total.cpuSeconds) });
    say(
      `${small.name}: ${brief(done.orders)} orders over ${done.moments} moments, ${done.runs} runs, ${done.compared} compared, ${done.isComplete ? 'all' : 'not all'} (${round(done.seconds)} s)`,
    );
    for (const { kind, what, story } of done.findings.slice(0, 3))
      say(`FOUND ${kind}: ${what}\n  ${story.join('\n  ')}`);
    total.worlds += 1;
    total.complete += done.isComplete ? 1 : 0;
    total.orders += done.orders;
    total.moments += done.moments;
    total.runs += done.runs;
    total.steps += done.steps;
    total.compared += done.compared;
    total.violations += done.findings.length;
    total.cpuSeconds += done.seconds;
  }
  conclude({ ...total, orders: brief(total.orders), cpuSeconds: round(total.cpuSeconds) }, total.violations === 0);
}

async function many(seeds: number): Promise<void> {
  const { failures, ...done } = await campaign({
    seeds,
    from: number('from', values.from),
    maxSeconds: Number(values.seconds ?? Infinity),
    onSeeds: (count, lives) => say(`${count} seeds, ${lives} lives`),
  });
  for (const { seed, findings } of failures.slice(0, 20))
    say(`seed ${seed}: ${findings.map(({ kind, what }) => `${kind} (${what})`).join(', ')}`);
  if (failures.length > 0) {
    const shrunk = await shrink(scenarioOf(failures[0]!.seed));
    say(`\nThe first one, as short as it gets; replay it with --seed ${failures[0]!.seed}:`);
    tellStory(shrunk.scenario);
  }
  conclude(
    {
      seeds: done.seeds,
      lives: done.lives,
      violations: failures.length,
      seconds: round(done.seconds),
      cpuSeconds: round(cpuSeconds()),
    },
    failures.length === 0,
  );
}

async function tellShipped(scenario: ShippedScenario, options: ShippedOptions): Promise<void> {
  say(JSON.stringify(scenario));
  const { findings } = await playShipped(scenario, { ...options, tell: say });
  for (const { kind, what } of findings) say(`FOUND ${kind}: ${what}`);
}

async function replayShipped(seed: number): Promise<void> {
  const sabotage = values.sabotage === undefined ? undefined : shippedSabotages[values.sabotage];
  const options: ShippedOptions = { tampering: sabotage?.tampering, ...sabotage?.options };
  const scenario = sabotage?.scenario?.(shippedOf(seed)) ?? shippedOf(seed);
  await tellShipped(scenario, options);
  const { findings, lives } = await playShipped(scenario, options);
  if (findings.length > 0) {
    const shrunk = await shrinkShipped(scenario, options);
    say(`\nThe shortest story that fails the same way (${shrunk.tries} tries):`);
    await tellShipped(shrunk.scenario, options);
  }
  conclude({ seed, lives, violations: findings.length, findings }, findings.length === 0);
}

async function sabotageShipped(name: string): Promise<void> {
  const names = name === 'all' ? Object.keys(shippedSabotages) : [name];
  let found = 0;
  for (const one of names) {
    const { by, seconds, ...rest } = await shippedHunt(one, {
      from: number('from', values.from),
      maxSeconds: Number(values.seconds ?? 300),
    });
    if (rest.found) found += 1;
    console.log(JSON.stringify({ ...rest, seconds: round(seconds), by: by?.kind }));
  }
  if (name === 'all') conclude({ sabotages: names.length, found }, found === names.length);
  else if (found === 0) process.exitCode = 1;
}

async function manyShipped(seeds: number): Promise<void> {
  const { failures, ...done } = await shippedCampaign({
    seeds,
    from: number('from', values.from),
    maxSeconds: Number(values.seconds ?? Infinity),
    onSeeds: (count, lives) => say(`${count} seeds, ${lives} lives`),
  });
  for (const { seed, findings } of failures.slice(0, 20))
    say(`seed ${seed}: ${findings.map(({ kind, what }) => `${kind} (${what})`).join(', ')}`);
  conclude(
    {
      seeds: done.seeds,
      lives: done.lives,
      violations: failures.length,
      seconds: round(done.seconds),
      cpuSeconds: round(cpuSeconds()),
    },
    failures.length === 0,
  );
}

if (values.sink !== 'simulated' && values.sink !== 'shipped')
  throw new RangeError(`Expected --sink to be simulated or shipped, got ${values.sink}`);
if (values.kafka) {
  const { seeds, from, seconds, seed, sabotage: broken, theme } = values;
  await kafkaCommand({ seeds, from, seconds, seed, sabotage: broken, theme }, { say, conclude, number });
} else if (values.sink === 'shipped') {
  if (values.seed !== undefined) await replayShipped(number('seed', values.seed));
  else if (values.sabotage !== undefined) await sabotageShipped(values.sabotage);
  else await manyShipped(number('seeds', values.seeds ?? '300'));
} else if (values.seed !== undefined) await replay(number('seed', values.seed));
else if (values.sabotage !== undefined) await sabotage(values.sabotage);
else if (values.exhaustive) exhaustively();
else await many(number('seeds', values.seeds ?? '1000'));
