// The simulated cluster at a small, fixed size: what `npm run simulate -- --kafka` does at any size. A red test names the
// seed; replay it with `npm run simulate -- --kafka --seed N`.
import { describe, expect, test, vi } from 'vitest';
import { kafkaCampaign, kafkaHunt } from './campaign.js';
import { playKafka } from './play.js';
import { kafkaSabotages } from './sabotage.js';
import { kafkaScenarioOf } from './scenario.js';

vi.setConfig({ testTimeout: 300_000 });

describe('a group over a simulated cluster', () => {
  test('15 seeds: nothing is missing, doubled, out of order or held up, and no commit is beyond what is settled', async () => {
    const { failures, counters } = await kafkaCampaign({ from: 100, seeds: 15 });
    expect(failures).toEqual([]);
    // A world that reaches nothing proves nothing.
    for (const name of [
      'generations',
      'Heartbeat 27',
      'Fetch 6',
      'JoinGroup 79',
      'sessions that ran out',
      'transactions aborted',
      'fetches in a session',
      'fetches without a session',
      'Fetch 70 (session)',
      'Fetch 71 (session)',
    ]) {
      expect([name, counters.of(name)]).toEqual([name, expect.toSatisfy((count: number) => count > 0)]);
    }
  });

  test('a partition does not wait for ever on a broker whose connection fell silent', async () => {
    expect((await playKafka(kafkaScenarioOf(10_417))).findings).toEqual([]);
  });

  test('a seed replays: the same story, line by line', async () => {
    const story = async () => {
      const lines: string[] = [];
      const { findings, events } = await playKafka(kafkaScenarioOf(103), { tell: (line) => lines.push(line) });
      return { lines, findings, events };
    };
    const first = await story();
    expect(first.lines.length).toBeGreaterThan(50);
    expect(await story()).toEqual(first);
  });

  test('the clock of the language is the real one again afterwards', async () => {
    const before = [setTimeout, setInterval, setImmediate, Math.random, Date.now];
    await playKafka(kafkaScenarioOf(103));
    expect([setTimeout, setInterval, setImmediate, Math.random, Date.now]).toEqual(before);
  });
});

describe('sabotage: a line of the source that is taken out is found', () => {
  /** Those that are found within some lives; the others by hand, with `--sabotage`. */
  const quick = [
    'J3 grown',
    'J4 lanes',
    'J5 throttle',
    'J5 cut',
    'J6 all or none',
    'J7 watch',
    'J8 whole',
    'J8 session',
    'J1 moves',
    'J9 committed',
    'J10 listeners',
  ];

  test('there is one for each of what a group may be hurt by', () => {
    expect(Object.keys(kafkaSabotages)).toEqual([
      'J2 demand',
      'J3 grown',
      'J4 lanes',
      'J5 throttle',
      'J5 cut',
      'J6 all or none',
      'J7 watch',
      'J8 whole',
      'J8 session',
      'J1 moves',
      'J9 committed',
      'J10 listeners',
      'in turn',
      'wake',
    ]);
  });

  test.each(quick)('%s', async (name) => {
    expect(await kafkaHunt(name, { maxSeconds: 30 })).toMatchObject({ found: true });
  });
});
