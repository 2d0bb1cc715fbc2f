// Imports: the player. Many seeds, one after the other, within a time of a core; and the hunt for what is broken on purpose.
import { playSeeds, type Campaign, type CampaignLimits } from '../campaign.js';
import type { Finding } from '../play.js';
import { Counters } from './counters.js';
import { playKafka, type KafkaPlayOptions } from './play.js';
import { kafkaSabotages } from './sabotage.js';
import { kafkaScenarioOf, type Theme } from './scenario.js';

export interface KafkaCampaign extends Campaign {
  readonly counters: Counters;
}

export interface KafkaCampaignOptions extends KafkaPlayOptions {
  /** Seeds of one theme only. */
  readonly theme?: Theme | undefined;
}

/** Of a core. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

export async function kafkaCampaign(
  limits: CampaignLimits,
  { theme, ...options }: KafkaCampaignOptions = {},
): Promise<KafkaCampaign> {
  const counters = new Counters();
  const play = async (seed: number) => {
    const scenario = kafkaScenarioOf(seed);
    if (theme !== undefined && scenario.theme !== theme) return undefined;
    const played = await playKafka(scenario, options);
    counters.add(played.counters);
    counters.count(`theme ${scenario.theme}`);
    return played;
  };
  return { ...(await playSeeds({ play, tellEvery: 100, clock: cpuSeconds }, limits)), counters };
}

export interface KafkaHunt {
  readonly sabotage: string;
  readonly found: boolean;
  readonly seed: number | undefined;
  readonly lives: number;
  readonly cpuSeconds: number;
  readonly by: Finding | undefined;
}

/** Is a sabotage found, and by which seed? Only what shows it counts. */
export async function kafkaHunt(
  name: string,
  { from = 1, maxSeconds = 60 }: { readonly from?: number; readonly maxSeconds?: number } = {},
): Promise<KafkaHunt> {
  const sabotage = kafkaSabotages[name];
  if (sabotage === undefined)
    throw new RangeError(`Expected a sabotage of ${Object.keys(kafkaSabotages).join(', ')}, got ${name}`);
  const counts = ({ kind }: Finding): boolean => sabotage.shows.includes(kind);
  const { lives, failures, seconds } = await kafkaCampaign(
    { from, seeds: Infinity, maxSeconds, maxFailures: 1, counts },
    { theme: sabotage.theme, sabotage },
  );
  const [failure] = failures;
  return {
    sabotage: name,
    found: failure !== undefined,
    seed: failure?.seed,
    lives,
    cpuSeconds: seconds,
    by: failure?.findings[0],
  };
}
