// Room: many seeds, one after the other, within a time. Counts; prints nothing.
import { performance } from 'node:perf_hooks';
import { play, type Finding, type PlayOptions } from './play.js';
import { sabotages, type Sabotage } from './sabotage.js';
import { scenarioOf } from './scenario.js';

export interface Failure {
  readonly seed: number;
  readonly findings: readonly Finding[];
}

export interface Campaign {
  readonly seeds: number;
  readonly lives: number;
  readonly failures: readonly Failure[];
  readonly seconds: number;
}

export interface CampaignOptions extends PlayOptions {
  readonly from?: number;
  readonly seeds: number;
  readonly maxSeconds?: number;
  /** Stop after so many failing seeds. */
  readonly maxFailures?: number;
  /** What counts. @default whatever was found */
  readonly counts?: (finding: Finding) => boolean;
  readonly onSeeds?: (seeds: number, lives: number) => void;
}

export function campaign({ from = 1, seeds, maxSeconds = Infinity, maxFailures = Infinity, counts = () => true, onSeeds, ...options }: CampaignOptions): Campaign {
  const startedMs = performance.now();
  const seconds = () => (performance.now() - startedMs) / 1000;
  const failures: Failure[] = [];
  let lives = 0;
  let done = 0;
  while (done < seeds && failures.length < maxFailures && seconds() < maxSeconds) {
    const seed = from + done;
    const played = play(scenarioOf(seed), options);
    lives += played.lives;
    done += 1;
    const findings = played.findings.filter(counts);
    if (findings.length > 0) failures.push({ seed, findings });
    if (done % 10_000 === 0) onSeeds?.(done, lives);
  }
  return { seeds: done, lives, failures, seconds: seconds() };
}

export interface Hunt {
  readonly sabotage: string;
  readonly found: boolean;
  readonly seed: number | undefined;
  readonly lives: number;
  readonly seconds: number;
  readonly by: Finding | undefined;
}

/** Is a sabotage found, and by which seed? */
export function hunt(name: string, { from = 1, maxSeconds = 60 }: { readonly from?: number; readonly maxSeconds?: number } = {}): Hunt {
  const sabotage: Sabotage | undefined = Object.entries(sabotages).find(([invariant]) => invariant === name)?.[1];
  if (sabotage === undefined) throw new RangeError(`Expected a sabotage of ${Object.keys(sabotages).join(', ')}, got ${name}`);
  // What the table shows, or the invariant by its own name; not one that is broken along with it.
  const counts = ({ kind }: Finding) => kind === name || kind === sabotage.breaks || kind === 'missing' || kind === 'doubled';
  const { means: _means, breaks: _breaks, ...broken } = sabotage;
  const { lives, failures, seconds } = campaign({ from, seeds: Infinity, maxSeconds, maxFailures: 1, counts, ...broken });
  const failure = failures[0];
  const by = failure?.findings.find(({ kind }) => kind === name) ?? failure?.findings[0];
  return { sabotage: name, found: failure !== undefined, seed: failure?.seed, lives, seconds, by };
}
