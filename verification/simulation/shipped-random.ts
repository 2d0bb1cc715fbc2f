// Room: many seeds with the sink that ships, its sabotages, and failing stories made short: as `random.ts` and `shrink.ts`
// do for the fast one. Counts; prints nothing.
import { performance } from 'node:perf_hooks';
import { playSeeds, shrinkBy, type Campaign, type CampaignLimits, type Shrunk } from './campaign.js';
import type { Finding } from './play.js';
import type { Hunt } from './random.js';
import { playShipped, type ShippedOptions } from './shipped.js';
import { shippedSabotages, type ShippedSabotage } from './shipped-sabotage.js';
import { kindServer, shippedOf, type ShippedScenario } from './shipped-scenario.js';
import { shorter } from './shrink.js';

export function shippedCampaign(limits: CampaignLimits): Promise<Campaign> {
  return playSeeds({ play: (seed) => playShipped(shippedOf(seed)), tellEvery: 1_000 }, limits);
}

/** Is a line of the sink that ships missed when it is taken out, and by which seed? Not counted is what is found with it there, too. */
export async function shippedHunt(
  name: string,
  { from = 1, maxSeconds = 300 }: { readonly from?: number; readonly maxSeconds?: number } = {},
): Promise<Hunt> {
  const sabotage: ShippedSabotage | undefined = shippedSabotages[name];
  if (sabotage === undefined)
    throw new RangeError(`Expected a sabotage of ${Object.keys(shippedSabotages).join(', ')}, got ${name}`);
  const startedMs = performance.now();
  const seconds = () => (performance.now() - startedMs) / 1000;
  const scenario = (seed: number) => sabotage.scenario?.(shippedOf(seed)) ?? shippedOf(seed);
  const isFinding = ({ kind }: Finding) => sabotage.shows.includes(kind);
  let lives = 0;
  for (let seed = from; seconds() < maxSeconds; seed++) {
    const broken = await playShipped(scenario(seed), { tampering: sabotage.tampering, ...sabotage.options });
    lives += broken.lives;
    const by = broken.findings.find(isFinding);
    if (by === undefined) continue;
    const whole = await playShipped(scenario(seed));
    if (whole.findings.some(isFinding)) continue;
    return { sabotage: name, found: true, seed, lives, seconds: seconds(), by };
  }
  return { sabotage: name, found: false, seed: undefined, lives, seconds: seconds(), by: undefined };
}

/** As `shrink`; the server is made kinder, too. */
export function shrinkShipped(
  scenario: ShippedScenario,
  options: ShippedOptions = {},
  most = 300,
): Promise<Shrunk<ShippedScenario>> {
  return shrinkBy(scenario, (one) => playShipped(one, options), kinder, most);
}

function* kinder(scenario: ShippedScenario): Generator<ShippedScenario> {
  const { server } = scenario;
  for (const [name, value] of Object.entries(kindServer) as [keyof ShippedScenario['server'], never][]) {
    if (JSON.stringify(server[name]) !== JSON.stringify(value) && name !== 'timeoutMs')
      yield { ...scenario, server: { ...server, [name]: value } };
  }
  for (const one of shorter(scenario)) yield { ...one, server };
}
