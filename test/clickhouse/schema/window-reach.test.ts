import { describe, expect, it } from 'vitest';
import { tableDoubt, type TableNow } from '../../../src/clickhouse/verify/evidence.js';
import { reachOf } from '../../../src/clickhouse/schema/window-reach.js';

const written = { id: 'u', columns: 'tpo-aaaaaa', shape: 's', alteredS: 1, mutation: 0 };
const now: TableNow = { ...written, family: 'plain', keepsTokens: true };

describe('how far a window reaches back', () => {
  const row = { now: 1_000_000, full: 990, moved: 0 };

  it('I6: is told by this machine’s clock, a second late: the server’s times are whole seconds', () => {
    expect(reachOf(row, 7_000_000)).toEqual({ heldSinceMs: 7_000_000 - 9_000 });
    expect(reachOf({ ...row, moved: 980 }, 7_000_000)).toEqual({ heldSinceMs: 6_991_000, movedOnMs: 6_980_000 });
  });

  it('has no end while all that ever came fits into half of it', () => {
    expect(reachOf({ ...row, full: 0 }, 7_000_000)).toEqual({});
  });

  it('is nothing when the last second has filled it', () => {
    expect(reachOf({ ...row, full: 1_000 }, 7_000_000)).toEqual({ heldSinceMs: 7_001_000 });
  });
});

describe('a token of a range that was recorded before what the window holds', () => {
  it('I6: is doubted, whatever its age', () => {
    expect(tableDoubt({ written, atMs: 999 }, { ...now, heldSinceMs: 1_000, movedOnMs: 1_000 })).toMatchObject({
      mayTrust: false,
      why: expect.stringContaining('of whatever writer') as string,
    });
    expect(tableDoubt({ written, atMs: 1_000 }, { ...now, heldSinceMs: 1_000, movedOnMs: 1_000 })).toBeUndefined();
  });

  it('I15: is not trusted where the table was altered as well, and may have had no window', () => {
    expect(tableDoubt({ written, atMs: 999 }, { ...now, alteredS: 2, heldSinceMs: 1_000 })).toMatchObject({
      mayTrust: false,
      why: expect.stringContaining('may have been 0') as string,
    });
  });

  it('is trusted all the same where merges hide how much came, and a look shows nothing', () => {
    expect(tableDoubt({ written, atMs: 999 }, { ...now, heldSinceMs: 1_000 })).toMatchObject({ mayTrust: true });
    expect(tableDoubt({ written, atMs: 999 }, { ...now, heldSinceMs: 1_000, movedOnMs: 900 })).toMatchObject({
      mayTrust: true,
    });
  });
});
