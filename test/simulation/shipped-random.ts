// Room: many seeds with the sink that ships, its sabotages, and failing stories made short: as `random.ts` and `shrink.ts`
// do for the fast one. Counts; prints nothing.
import { performance } from 'node:perf_hooks';
import type { Finding, Played } from './play.js';
import type { Campaign, Failure, Hunt } from './random.js';
import { playShipped, type ShippedOptions } from './shipped.js';
import { shippedSabotages, type ShippedSabotage } from './shipped-sabotage.js';
import { kindServer, shippedOf, type ShippedScenario } from './shipped-scenario.js';
import { shorter } from './shrink.js';

export interface ShippedCampaignOptions extends ShippedOptions {
  readonly from?: number;
  readonly seeds: number;
  readonly maxSeconds?: number;
  /** Stop after so many failing seeds. */
  readonly maxFailures?: number;
  /** What counts. @default whatever was found */
  readonly counts?: (finding: Finding) => boolean;
  readonly scenario?: (seed: number) => ShippedScenario;
  readonly onSeeds?: (seeds: number, lives: number) => void;
}

export async function shippedCampaign({ from = 1, seeds, maxSeconds = Infinity, maxFailures = Infinity, counts = () => true, scenario = shippedOf, onSeeds, ...options }: ShippedCampaignOptions): Promise<Campaign> {
  const startedMs = performance.now();
  const seconds = () => (performance.now() - startedMs) / 1000;
  const failures: Failure[] = [];
  let lives = 0;
  let done = 0;
  while (done < seeds && failures.length < maxFailures && seconds() < maxSeconds) {
    const seed = from + done;
    const played = await playShipped(scenario(seed), options);
    lives += played.lives;
    done += 1;
    const findings = played.findings.filter(counts);
    if (findings.length > 0) failures.push({ seed, findings });
    if (done % 1_000 === 0) onSeeds?.(done, lives);
  }
  return { seeds: done, lives, failures, seconds: seconds() };
}

/** Is a line of the sink that ships missed when it is taken out, and by which seed? Not counted is what is found with it there, too. */
export async function shippedHunt(name: string, { from = 1, maxSeconds = 300 }: { readonly from?: number; readonly maxSeconds?: number } = {}): Promise<Hunt> {
  const sabotage: ShippedSabotage | undefined = shippedSabotages[name];
  if (sabotage === undefined) throw new RangeError(`Expected a sabotage of ${Object.keys(shippedSabotages).join(', ')}, got ${name}`);
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
export async function shrinkShipped(scenario: ShippedScenario, options: ShippedOptions = {}, most = 300): Promise<{ readonly scenario: ShippedScenario; readonly played: Played; readonly tries: number }> {
  let best = scenario;
  let played = await playShipped(best, options);
  const kind = played.findings[0]?.kind;
  let tries = 0;
  for (let isShorter = kind !== undefined; isShorter && tries < most; ) {
    isShorter = false;
    for (const candidate of kinder(best)) {
      if (++tries > most) break;
      const again = await playShipped(candidate, options);
      if (!again.findings.some((finding) => finding.kind === kind)) continue;
      best = candidate;
      played = again;
      isShorter = true;
      break;
    }
  }
  return { scenario: best, played, tries };
}

function* kinder(scenario: ShippedScenario): Generator<ShippedScenario> {
  const { server } = scenario;
  for (const [name, value] of Object.entries(kindServer) as [keyof ShippedScenario['server'], never][]) {
    if (JSON.stringify(server[name]) !== JSON.stringify(value) && name !== 'timeoutMs') yield { ...scenario, server: { ...server, [name]: value } };
  }
  for (const one of shorter(scenario)) yield { ...one, server };
}
