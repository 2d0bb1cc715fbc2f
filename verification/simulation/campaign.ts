// Room: many seeds, one after the other, within a time, and a failing world made short; whatever it is that plays them.
// Counts; prints nothing.
import { performance } from 'node:perf_hooks';
import type { Finding, Played } from './play.js';

export interface Failure {
  readonly seed: number;
  readonly findings: readonly Finding[];
}

export interface Campaign {
  readonly seeds: number;
  readonly lives: number;
  readonly failures: readonly Failure[];
  /** Of the clock that limits it. */
  readonly seconds: number;
}

export interface CampaignLimits {
  readonly from?: number;
  readonly seeds: number;
  readonly maxSeconds?: number;
  /** Stop after so many failing seeds. */
  readonly maxFailures?: number;
  /** What counts. @default whatever was found */
  readonly counts?: (finding: Finding) => boolean;
  readonly onSeeds?: (seeds: number, lives: number, failures: readonly Failure[]) => void;
}

export interface Player {
  /** Undefined: not one of those that are meant. */
  readonly play: (seed: number) => Played | undefined | Promise<Played | undefined>;
  /** Seeds after which it is told how far it is. */
  readonly tellEvery: number;
  /** Seconds. @default those that go by */
  readonly clock?: () => number;
}

export async function playSeeds(
  { play, tellEvery, clock = () => performance.now() / 1000 }: Player,
  { from = 1, seeds, maxSeconds = Infinity, maxFailures = Infinity, counts = () => true, onSeeds }: CampaignLimits,
): Promise<Campaign> {
  const began = clock();
  const failures: Failure[] = [];
  let [done, lives] = [0, 0];
  for (let seed = from; done < seeds && failures.length < maxFailures && clock() - began < maxSeconds; seed++) {
    const played = await play(seed);
    if (played === undefined) continue;
    lives += played.lives;
    done += 1;
    const findings = played.findings.filter(counts);
    if (findings.length > 0) failures.push({ seed, findings });
    if (done % tellEvery === 0) onSeeds?.(done, lives, failures);
  }
  return { seeds: done, lives, failures, seconds: clock() - began };
}

export interface Shrunk<S> {
  readonly scenario: S;
  readonly played: Played;
  readonly tries: number;
}

/** Whatever can be left out while it still fails is left out. Keeps the kind of the first finding, so that another bug does not take its place. */
export async function shrinkBy<S>(
  scenario: S,
  play: (scenario: S) => Played | Promise<Played>,
  shorter: (scenario: S) => Iterable<S>,
  most: number,
): Promise<Shrunk<S>> {
  let best = scenario;
  let played = await play(best);
  const kind = played.findings[0]?.kind;
  let tries = 0;
  for (let isShorter = kind !== undefined; isShorter && tries < most;) {
    isShorter = false;
    for (const candidate of shorter(best)) {
      if (++tries > most) break;
      const again = await play(candidate);
      if (!again.findings.some((finding) => finding.kind === kind)) continue;
      best = candidate;
      played = again;
      isShorter = true;
      break;
    }
  }
  return { scenario: best, played, tries };
}
