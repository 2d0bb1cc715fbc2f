// The sink that ships over a simulated ClickHouse, at a small size; `npm run simulate -- --sink shipped` does it at any size.
// A red test names the seed; replay it with `npm run simulate -- --sink shipped --seed N`.
import { describe, expect, test, vi } from 'vitest';
import { playShipped } from './shipped.js';
import { shippedCampaign, shippedHunt } from './shipped-random.js';
import { lateBlock, shippedOf } from './shipped-scenario.js';

vi.setConfig({ testTimeout: 120_000 });

describe('the sink that ships, over a server as unkind as the real ones', () => {
  test('100 seeds: nothing is missing, doubled or left unsettled, and every statement is one that the server knows', async () => {
    const { failures, lives } = await shippedCampaign({ seeds: 100 });
    expect(failures).toEqual([]);
    expect(lives).toBeGreaterThan(250);
  });

  test('a seed replays: the same story, line by line', async () => {
    const story = async () => {
      const lines: string[] = [];
      const { findings, lives } = await playShipped(shippedOf(17), { tell: (line) => lines.push(line) });
      return { lines, findings, lives };
    };
    const first = await story();
    expect(first.lines.length).toBeGreaterThan(50);
    expect(await story()).toEqual(first);
  });

  test('a statement that the server does not know is found, whatever came of it', async () => {
    let isFirst = true;
    const once = (text: string): string => {
      const sent = isFirst ? text.replace('uptime()', 'uptime(1)') : text;
      isFirst &&= sent === text;
      return sent;
    };
    const tampering = () => ({
      request: <R extends { readonly text: string }>(request: R): R => ({ ...request, text: once(request.text) }),
    });
    const { findings } = await playShipped(shippedOf(17), { tampering });
    expect(findings.map(({ kind }) => kind)).toContain('odd');
  });
});

test('I4: a block that lands after the missing ones were sent again is not there twice', async () => {
  const { findings, rows } = await playShipped(lateBlock());
  expect({ findings, rows }).toEqual({ findings: [], rows: 6 });
});

describe('what a seed has found stays mended', () => {
  test.each([
    ['an insert that was refused with others, and was not sent again, counts as one that was sent', 6548],
    ['what was twice not sent was not refused', 1014],
    ['others push tokens out of the window between two owners', 4588],
    ['the same, of inserts that wait for others', 5313],
    ['the same, where no look can tell', 575],
    ['the same, in a table whose window was away as well', 13685],
    [
      'rows have the columns of the table that they are sent to, which was exchanged since their batch was frozen',
      1004636,
    ],
    ['a replay without its poison is a new insert, whatever came into the table', 16284],
  ])('%s: seed %i', async (_, seed) => {
    const { findings } = await playShipped(shippedOf(seed));
    expect(findings).toEqual([]);
  });
});

describe('a line of the sink that is taken out is missed', () => {
  // The rest by hand: `npm run simulate -- --sink shipped --sabotage all`.
  for (const name of ['token', 'wait', 'dedup', 'blocks', 'together']) {
    test(name, async () => {
      expect(await shippedHunt(name, { maxSeconds: 60 })).toMatchObject({ found: true });
    });
  }
});
