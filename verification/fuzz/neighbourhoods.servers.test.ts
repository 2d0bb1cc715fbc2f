import { beforeAll, describe, expect, test } from 'vitest';
import { sharedStack } from '../../test/stack/shared.js';
import { openKind, signatureOf } from './kind.js';
import { isOpen, openFindings } from './open-findings.js';
import { runCases, type Found } from './run-cases.js';

async function findingsOf(cases: number, control: boolean, from = 0, seed = 2026): Promise<Found[]> {
  const kind = await openKind('neighbourhoods', {
    seed,
    control,
    shrink: false,
    clickhouseUrl: sharedStack().clickhouseUrl,
  });
  const found: Found[] = [];
  const done = await runCases(
    kind,
    { from, to: from + cases, isOver: () => false },
    { began: () => undefined, ended: () => undefined, found: (each) => void found.push(each) },
  );
  await kind.close?.();
  expect(done).toBe(cases);
  return found;
}

describe('neighbourhoods of good and bad records in a real ClickHouse', () => {
  let found: Found[] = [];

  beforeAll(async () => {
    found = (await findingsOf(800, false)).filter((each) => !isOpen('neighbourhoods', each));
  });

  test('every good record is one row under its own offset, and nobody is left out for another', () => {
    expect(found.map(({ what, input }) => `${what}: ${input}`)).toEqual([]);
  });

  test.each(openFindings.filter(({ kind }) => kind === 'neighbourhoods'))(
    'an open finding is still one, or is to be taken off the list',
    async ({ what, seed, caseNumber }) => {
      expect((await findingsOf(1, false, caseNumber, seed)).map(signatureOf)).toEqual([expect.stringMatching(what)]);
    },
  );

  test('A3: a sink that blames the record behind the one at fault is found', async () => {
    const signatures = (await findingsOf(60, true)).map(signatureOf);
    expect(signatures).toContain('a good record is left out');
  });
});
