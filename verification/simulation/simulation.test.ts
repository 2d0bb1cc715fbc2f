// The simulation at the size of `npm run test:quick`; simulation.long.test.ts adds that of `npm test`, and `npm run
// simulate` takes any. A red test names the seed; replay it
// with `npm run simulate -- --seed N`.
import { describe, expect, test, vi } from 'vitest';
import { play } from './play.js';
import { campaign } from './random.js';
import { sabotages } from './sabotage.js';
import { scenarioOf } from './scenario.js';
import { QUICK_SEEDS } from './sizes.js';

vi.setConfig({ testTimeout: 120_000 });

describe('random worlds', () => {
  test(`${QUICK_SEEDS} seeds: nothing is missing, doubled or left unsettled, and every invariant holds at the ports`, async () => {
    expect((await campaign({ seeds: QUICK_SEEDS })).failures).toEqual([]);
  });

  for (const seed of [624251, 650450]) {
    test(`rows that a policy hides, in a table whose window is away, cost one copy and not one for each owner (seed ${seed})`, () => {
      expect(play(scenarioOf(seed)).findings).toEqual([]);
    });
  }

  for (const seed of [6553, 7390, 8300]) {
    test(`a fill that was begun is not gone on with where nothing can be seen (seed ${seed})`, () => {
      expect(play(scenarioOf(seed)).findings).toEqual([]);
    });
  }

  test('a batch that was refused when some of it may have landed is not sent into another table (seed 3544)', () => {
    expect(play(scenarioOf(3544)).findings).toEqual([]);
  });

  for (const seed of [1012718, 1021428, 1024817, 1032306, 1042410]) {
    test(`nothing is left out, and nothing sent, for a token that grew old while a part of a batch waited (seed ${seed})`, () => {
      expect(play(scenarioOf(seed)).findings).toEqual([]);
    });
  }

  for (const seed of [1018366, 1032372, 1039583, 3021037, 3032036, 3062896]) {
    test(`nothing is called a violation that no process could know or do otherwise (seed ${seed})`, () => {
      expect(play(scenarioOf(seed)).findings).toEqual([]);
    });
  }

  test('a seed replays: the same story, line by line', () => {
    const story = () => {
      const lines: string[] = [];
      const { findings, lives } = play(scenarioOf(17), { tell: (line) => lines.push(line) });
      return { lines, findings, lives };
    };
    const first = story();
    expect(first.lines.length).toBeGreaterThan(50);
    expect(story()).toEqual(first);
  });
});

describe('a log that is truncated', () => {
  const scenario = {
    ...scenarioOf(1),
    records: [10],
    poisonEvery: 0,
    views: [],
    spread: 1,
    lives: [],
    happenings: [],
    tombstoneEvery: 0,
    truncation: { partition: 0, records: 5, produced: 5 },
  };

  test('what is produced at the same offsets arrives once; what was lost may be there', () => {
    expect(play(scenario)).toMatchObject({ findings: [], rows: 15 });
  });

  test('under the tokens of what was lost it would be missing', () => {
    expect(play(scenario, sabotages.I10).findings).toContainEqual({ kind: 'missing', what: '0:5 0:6 0:7 0:8 0:9' });
  });

  test('is drawn', () => {
    const isCut = (seed: number) => {
      const lines: string[] = [];
      play(scenarioOf(seed), { tell: (line) => lines.push(line) });
      return lines.some((line) => line.includes('now ends at'));
    };
    expect(Array.from({ length: 60 }, (_, seed) => seed).some(isCut)).toBe(true);
  });
});
