// A world of each theme: brokers and processes in virtual time, the shipped source among them. The campaigns are in
// kafka.long.test.ts.
import { expect, test } from 'vitest';
import { playKafka } from './play.js';
import { kafkaScenarioOf, themes, type Theme } from './scenario.js';

/** The first ones are as good as any. */
function seedsOf(theme: Theme, count: number): readonly number[] {
  const seeds: number[] = [];
  for (let seed = 1; seeds.length < count; seed++) if (kafkaScenarioOf(seed).theme === theme) seeds.push(seed);
  return seeds;
}

test.each(themes)('%s: nothing is missing, doubled, out of order or held up', async (theme) => {
  for (const seed of seedsOf(theme, theme === 'general' ? 3 : 1)) {
    const { findings, rows } = await playKafka(kafkaScenarioOf(seed));
    expect({ seed, findings }).toEqual({ seed, findings: [] });
    expect(rows).toBeGreaterThan(0);
  }
});
