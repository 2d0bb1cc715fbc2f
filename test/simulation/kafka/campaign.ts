// Imports: the player. Many seeds, one after the other, within a time; and the hunt for what is broken on purpose.
import type { Finding } from '../play.js';
import { Counters } from './counters.js';
import { playKafka, type KafkaPlayOptions } from './play.js';
import { kafkaSabotages } from './sabotage.js';
import { kafkaScenarioOf, type Theme } from './scenario.js';

export interface KafkaFailure {
  readonly seed: number;
  readonly theme: Theme;
  readonly findings: readonly Finding[];
}

export interface KafkaCampaign {
  readonly seeds: number;
  readonly lives: number;
  readonly failures: readonly KafkaFailure[];
  readonly counters: Counters;
  /** Of a core. */
  readonly cpuSeconds: number;
}

export interface KafkaCampaignOptions extends KafkaPlayOptions {
  readonly from?: number;
  readonly seeds: number;
  /** Of a core. */
  readonly maxSeconds?: number;
  readonly maxFailures?: number;
  /** Seeds of one theme only. */
  readonly theme?: Theme | undefined;
  readonly counts?: (finding: Finding) => boolean;
  readonly onSeeds?: (seeds: number, lives: number, failures: readonly KafkaFailure[]) => void;
}

const TELL_EVERY = 100;

export async function kafkaCampaign({ from = 1, seeds, maxSeconds = Infinity, maxFailures = Infinity, theme, counts = () => true, onSeeds, ...options }: KafkaCampaignOptions): Promise<KafkaCampaign> {
  const began = process.cpuUsage();
  const cpuSeconds = (): number => {
    const { user, system } = process.cpuUsage(began);
    return (user + system) / 1e6;
  };
  const failures: KafkaFailure[] = [];
  const counters = new Counters();
  let [done, lives] = [0, 0];
  for (let seed = from; done < seeds && failures.length < maxFailures && cpuSeconds() < maxSeconds; seed++) {
    const scenario = kafkaScenarioOf(seed);
    if (theme !== undefined && scenario.theme !== theme) continue;
    const played = await playKafka(scenario, options);
    lives += played.lives;
    done += 1;
    counters.add(played.counters);
    counters.count(`theme ${scenario.theme}`);
    const findings = played.findings.filter(counts);
    if (findings.length > 0) failures.push({ seed, theme: scenario.theme, findings });
    if (done % TELL_EVERY === 0) onSeeds?.(done, lives, failures);
  }
  return { seeds: done, lives, failures, counters, cpuSeconds: cpuSeconds() };
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
export async function kafkaHunt(name: string, { from = 1, maxSeconds = 60 }: { readonly from?: number; readonly maxSeconds?: number } = {}): Promise<KafkaHunt> {
  const sabotage = kafkaSabotages[name];
  if (sabotage === undefined) throw new RangeError(`Expected a sabotage of ${Object.keys(kafkaSabotages).join(', ')}, got ${name}`);
  const counts = ({ kind }: Finding): boolean => sabotage.shows.includes(kind);
  const { lives, failures, cpuSeconds } = await kafkaCampaign({ from, seeds: Infinity, maxSeconds, maxFailures: 1, theme: sabotage.theme, counts, sabotage });
  const [failure] = failures;
  return { sabotage: name, found: failure !== undefined, seed: failure?.seed, lives, cpuSeconds, by: failure?.findings[0] };
}
