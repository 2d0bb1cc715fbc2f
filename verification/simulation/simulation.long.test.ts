// The rest of the simulation's fixed size, and the sabotages: `npm test` runs them, `npm run test:quick` does not. A red
// test names the seed; replay it with `npm run simulate -- --seed N`.
import { describe, expect, test, vi } from 'vitest';
import type { Invariant } from '../../src/testing/index.js';
import { play } from './play.js';
import { campaign, hunt } from './random.js';
import { sabotages } from './sabotage.js';
import { scenarioOf } from './scenario.js';
import { shrink } from './shrink.js';
import { LONG_SEEDS, QUICK_SEEDS } from './sizes.js';

vi.setConfig({ testTimeout: 120_000 });

test(`${LONG_SEEDS} seeds more: nothing is missing, doubled or left unsettled, and every invariant holds at the ports`, async () => {
  expect((await campaign({ from: QUICK_SEEDS + 1, seeds: LONG_SEEDS })).failures).toEqual([]);
});

describe('sabotage: an invariant that is broken on purpose is found', () => {
  const names = Object.keys(sabotages) as (
    Invariant | 'expiry' | 'together' | 'blame' | 'room' | 'look' | 'answered' | 'parts' | 'others'
  )[];

  test('there is one for each invariant that a simulated world can break, and for what stands beside them', () => {
    expect(names).toEqual([
      'I1',
      'I2',
      'I3',
      'I4',
      'I5',
      'I6',
      'I7',
      'I8',
      'I9',
      'I10',
      'I11',
      'I12',
      'I15',
      'I16',
      'restart',
      'table',
      'fills',
      'group',
      'expiry',
      'together',
      'blame',
      'look',
      'answered',
      'parts',
      'others',
      'room',
    ]);
  });

  for (const name of names) {
    test(`${name}: ${sabotages[name].means}`, async () => {
      expect(await hunt(name)).toMatchObject({ found: true });
    });
  }

  // I6 and I9 have a second line of defence behind them, the claim: they are seen at the ports only.
  for (const name of [
    'I1',
    'I2',
    'I3',
    'I4',
    'I5',
    'I7',
    'I8',
    'I10',
    'I11',
    'I12',
    'I15',
    'fills',
    'group',
    'expiry',
    'together',
    'blame',
  ] as const) {
    test(`${name}: the verdict over the table and the topic alone finds it too`, () => {
      const isWrong = (seed: number) =>
        play(scenarioOf(seed), sabotages[name]).findings.some(({ kind }) => kind === 'missing' || kind === 'doubled');
      expect(Array.from({ length: 1500 }, (_, i) => i + 1).find(isWrong)).toBeDefined();
    });
  }

  test('what fails shrinks to a short story', async () => {
    const { compose } = sabotages.I11;
    const seed = (await hunt('I11')).seed!;
    const { scenario, played } = await shrink(scenarioOf(seed), { compose });
    expect(played.findings[0]?.kind).toBe('I11');
    const faults = scenario.lives.reduce((sum, life) => sum + life.faults.length, 0);
    expect(faults + scenario.happenings.length).toBeLessThanOrEqual(2);
  });
});
