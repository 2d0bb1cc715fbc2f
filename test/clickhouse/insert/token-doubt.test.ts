import { describe, expect, it } from 'vitest';
import { fingerprintOf } from '../../../src/clickhouse/insert/settings.js';
import { budgetWithin, type Known, tokenDoubt } from '../../../src/clickhouse/insert/token-doubt.js';

const server = { version: '26.7.2.1', startedMs: 0 };
const known: Known = { budgetMs: 600_000, server, settings: 'ce876a22' };
const recorded = { atMs: 1_000_000_000, settings: fingerprintOf(server, 'ce876a22') };
const later = (ms: number) => recorded.atMs + ms;

describe('a token is doubted', () => {
  it('when its range was recorded longer ago than the budget, and the reason says both', () => {
    expect(tokenDoubt(recorded, known, later(600_000))).toBeUndefined();
    expect(tokenDoubt(recorded, known, later(600_001))).toBe(
      'the range was recorded 10 minutes ago, and its token is relied on for 10 minutes',
    );
    expect(tokenDoubt(recorded, { ...known, budgetMs: 30_000 }, later(3_600_000))).toBe(
      'the range was recorded 60 minutes ago, and its token is relied on for 30 s',
    );
  });

  it('when the clocks that recorded it and that read it are further apart than that', () => {
    expect(tokenDoubt(recorded, known, later(-600_000))).toBeUndefined();
    expect(tokenDoubt(recorded, known, later(-600_001))).toContain('ahead of this machine’s clock'.replace('’', "'"));
  });

  it('when the server is another version, or the pinned settings are others', () => {
    expect(tokenDoubt(recorded, { ...known, server: { ...server, version: '26.8.1.1' } }, later(0))).toContain(
      'for ClickHouse 26.7.2.1, and the server is 26.8.1.1 now',
    );
    expect(tokenDoubt(recorded, { ...known, settings: '00000000' }, later(0))).toContain('other insert settings');
  });

  it('not because the server was restarted: it keeps its tokens', () => {
    expect(tokenDoubt(recorded, { ...known, server: { ...server, startedMs: 99_999 } }, later(0))).toBeUndefined();
  });

  it('by its age alone when another program has inserted the range', () => {
    const foreign = { ...recorded, settings: 'imported', token: 'orders-0-10-14' };
    expect(tokenDoubt(foreign, known, later(600_000))).toBeUndefined();
    expect(tokenDoubt(foreign, known, later(600_001))).toContain('10 minutes ago');
  });

  it('when what was recorded with it cannot be understood', () => {
    expect(tokenDoubt({ ...recorded, settings: 'kcr9 something' }, known, later(0))).toContain(
      'does not name the server',
    );
  });
});

it('half of the time for which the server keeps tokens is the most that counts', () => {
  expect(budgetWithin(600_000, undefined)).toBe(600_000);
  expect(budgetWithin(600_000, 3600)).toBe(600_000);
  expect(budgetWithin(600_000, 600)).toBe(300_000);
  expect(budgetWithin(600_000, 0)).toBe(0);
});
