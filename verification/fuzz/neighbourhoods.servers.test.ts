import { beforeAll, describe, expect, test } from 'vitest';
import { sharedStack } from '../../test/stack/shared.js';
import { openKind, signatureOf } from './kind.js';
import { runCases, type Found } from './run-cases.js';

async function findingsOf(cases: number, control: boolean): Promise<Found[]> {
  const kind = await openKind('neighbourhoods', { seed: 2026, control, shrink: false, clickhouseUrl: sharedStack().clickhouseUrl });
  const found: Found[] = [];
  const done = await runCases(kind, { from: 0, to: cases, isOver: () => false }, { began: () => undefined, ended: () => undefined, found: (each) => void found.push(each) });
  await kind.close?.();
  expect(done).toBe(cases);
  return found;
}

describe('neighbourhoods of good and bad records in a real ClickHouse', () => {
  let found: Found[] = [];

  beforeAll(async () => {
    found = await findingsOf(800, false);
  });

  test('every good record is one row under its own offset, and nobody is left out for another', () => {
    expect(found.map(({ what, input }) => `${what}: ${input}`)).toEqual([]);
  });

  test('A3: a sink that blames the record behind the one at fault is found', async () => {
    const signatures = (await findingsOf(60, true)).map(signatureOf);
    expect(signatures).toContain('a good record is left out');
  });
});
