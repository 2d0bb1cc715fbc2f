// Room: many seeds with the simulated sink, and its sabotages. Counts; prints nothing.
import { playSeeds, type Campaign, type CampaignLimits } from './campaign.js';
import { play, type Finding, type PlayOptions } from './play.js';
import { sabotages, type Sabotage } from './sabotage.js';
import { scenarioOf } from './scenario.js';

export function campaign(limits: CampaignLimits, options: PlayOptions = {}): Promise<Campaign> {
  return playSeeds({ play: (seed) => play(scenarioOf(seed), options), tellEvery: 10_000 }, limits);
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
export async function hunt(
  name: string,
  { from = 1, maxSeconds = 60 }: { readonly from?: number; readonly maxSeconds?: number } = {},
): Promise<Hunt> {
  const sabotage: Sabotage | undefined = Object.entries(sabotages).find(([invariant]) => invariant === name)?.[1];
  if (sabotage === undefined)
    throw new RangeError(`Expected a sabotage of ${Object.keys(sabotages).join(', ')}, got ${name}`);
  // What the table shows, or the invariant by its own name; not one that is broken along with it.
  const counts = ({ kind }: Finding) =>
    kind === name || kind === sabotage.breaks || kind === 'missing' || kind === 'doubled';
  const { means: _means, breaks: _breaks, ...broken } = sabotage;
  const { lives, failures, seconds } = await campaign(
    { from, seeds: Infinity, maxSeconds, maxFailures: 1, counts },
    broken,
  );
  const failure = failures[0];
  const by = failure?.findings.find(({ kind }) => kind === name) ?? failure?.findings[0];
  return { sabotage: name, found: failure !== undefined, seed: failure?.seed, lives, seconds, by };
}
