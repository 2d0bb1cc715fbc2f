// Imports: the campaign. What `npm run simulate -- --kafka` does.
import type { Failure } from '../campaign.js';
import { kafkaCampaign, kafkaHunt } from './campaign.js';
import { playKafka } from './play.js';
import { kafkaSabotages } from './sabotage.js';
import { kafkaScenarioOf, themes, type Theme } from './scenario.js';

export interface KafkaArguments {
  readonly seeds: string | undefined;
  readonly from: string;
  readonly seconds: string | undefined;
  readonly seed: string | undefined;
  readonly sabotage: string | undefined;
  readonly theme: string | undefined;
}

export interface Printer {
  readonly say: (line: string) => void;
  readonly conclude: (result: Readonly<Record<string, unknown>>, isGood: boolean) => void;
  readonly number: (name: string, text: string) => number;
}

export async function kafkaCommand(
  { seeds, from, seconds, seed, sabotage, theme }: KafkaArguments,
  printer: Printer,
): Promise<void> {
  const { number } = printer;
  const first = number('from', from);
  if (seed !== undefined) return replay(number('seed', seed), sabotage, printer);
  if (sabotage !== undefined)
    return hunts(sabotage === 'all' ? Object.keys(kafkaSabotages) : [sabotage], first, Number(seconds ?? 60), printer);
  await many(number('seeds', seeds ?? '100'), first, Number(seconds ?? Infinity), themeOf(theme), printer);
}

function themeOf(text: string | undefined): Theme | undefined {
  const theme = themes.find((each) => each === text);
  if (text !== undefined && theme === undefined)
    throw new RangeError(`Expected --theme to be one of ${themes.join(', ')}, got ${text}`);
  return theme;
}

async function replay(seed: number, sabotage: string | undefined, { say, conclude }: Printer): Promise<void> {
  const scenario = kafkaScenarioOf(seed);
  say(JSON.stringify(scenario));
  const broken = sabotage === undefined ? undefined : kafkaSabotages[sabotage];
  const { findings, lives, counters } = await playKafka(scenario, {
    tell: say,
    ...(broken === undefined ? {} : { sabotage: broken }),
  });
  conclude(
    { seed, theme: scenario.theme, lives, violations: findings.length, findings, reached: counters.sorted() },
    findings.length === 0,
  );
}

async function hunts(
  names: readonly string[],
  from: number,
  maxSeconds: number,
  { say, conclude }: Printer,
): Promise<void> {
  let found = 0;
  for (const name of names) {
    const hunt = await kafkaHunt(name, { from, maxSeconds });
    found += hunt.found ? 1 : 0;
    say(
      `${name}: ${hunt.found ? `found by seed ${hunt.seed} after ${hunt.lives} lives: ${hunt.by?.kind}: ${hunt.by?.what}` : `not found in ${hunt.lives} lives`} (${Math.round(hunt.cpuSeconds)} s of a core)`,
    );
  }
  conclude({ sabotages: names.length, found }, found === names.length);
}

async function many(
  seeds: number,
  from: number,
  maxSeconds: number,
  theme: Theme | undefined,
  { say, conclude }: Printer,
): Promise<void> {
  let told = 0;
  const tell = ({ seed, findings }: Failure): void =>
    say(
      `seed ${seed} (${kafkaScenarioOf(seed).theme}): ${findings.map(({ kind, what }) => `${kind}: ${what.slice(0, 200)}`).join('; ')}`,
    );
  const {
    failures,
    counters,
    lives,
    seconds,
    seeds: done,
  } = await kafkaCampaign(
    {
      seeds,
      from,
      maxSeconds,
      onSeeds: (count, lived, failed) => {
        say(`${count} seeds, ${lived} lives, ${failed.length} violations`);
        failed.slice(told, told + 20).forEach(tell);
        told = failed.length;
      },
    },
    { theme },
  );
  failures.slice(told).forEach(tell);
  const perMinute = Math.round((lives / seconds) * 60);
  conclude(
    {
      seeds: done,
      lives,
      violations: failures.length,
      cpuSeconds: Math.round(seconds),
      livesPerMinuteOfACore: perMinute,
      reached: counters.sorted(),
    },
    failures.length === 0,
  );
}
