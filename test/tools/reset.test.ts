import { describe, expect, test } from 'vitest';
import { demandOnePartition, meaning, resetText, targetOf } from '../../src/cli/state-reset.js';
import { IngestError } from '../../src/errors.js';
import { emptyState, type PartitionState } from '../../src/model/state.js';
import type { StateAccess } from '../../src/stores/stores.js';
import type { PartitionStatus } from '../../src/tools/status.js';
import { applyReset, meaningOf, planReset, type ResetMeaning } from '../../src/tools/reset.js';

const intent = (first: number, last: number) => ({
  first,
  last,
  rows: last - first + 1,
  atMs: 1_000,
  settings: 's',
  tables: ['d.t'],
  excluded: [],
});
const settled9: PartitionState = { settled: 9, pending: [], incarnation: 4, topicId: 'id' };
const doubt: PartitionState = { ...settled9, pending: [intent(10, 14), intent(15, 19)] };
const at = (state: PartitionState | undefined, committed?: number): PartitionStatus => ({
  key: { cluster: 'c', group: 'g', topic: 't', partition: 3 },
  topic: 't',
  partition: 3,
  logStart: 2,
  logEnd: 40,
  stableEnd: 40,
  committed,
  stored: state === undefined ? undefined : { state, owner: 'vm:1' },
});
const range = (first: number, last: number) => ({ first, last });

describe('what going on elsewhere means', () => {
  test.each<[string, PartitionState, number | undefined, number, Partial<ResetMeaning>]>([
    ['settled 9, to 10: as it is', settled9, 10, 10, {}],
    ['settled 9, back to 4', settled9, 10, 4, { twice: range(4, 9) }],
    ['settled 9, on to 12', settled9, 10, 12, { skipped: range(10, 11) }],
    ['10-19 in doubt, back to 4', doubt, 10, 4, { twice: range(4, 9), perhapsTwice: range(10, 19) }],
    ['10-19 in doubt, to its beginning', doubt, 10, 10, { perhapsTwice: range(10, 19) }],
    ['10-19 in doubt, into its middle', doubt, 10, 15, { perhapsLost: range(10, 14), perhapsTwice: range(15, 19) }],
    ['10-19 in doubt, to its end', doubt, 10, 20, { perhapsLost: range(10, 19) }],
    ['10-19 in doubt, beyond', doubt, 10, 25, { perhapsLost: range(10, 19), skipped: range(20, 24) }],
    ['no state, committed 10, back', emptyState, 10, 4, { twice: range(4, 9) }],
    ['no state, committed 10, on', emptyState, 10, 12, { skipped: range(10, 11) }],
    ['no state, nothing committed', emptyState, undefined, 12, {}],
    [
      'nothing settled, 10-14 in doubt, back',
      { ...emptyState, pending: [intent(10, 14)] },
      3,
      4,
      { twice: range(4, 9), perhapsTwice: range(10, 14) },
    ],
  ])('%s', (_name, before, committed, to, expected) => {
    expect(meaningOf(before, committed, to)).toEqual({
      forgotten: before.pending,
      twice: undefined,
      perhapsTwice: undefined,
      skipped: undefined,
      perhapsLost: undefined,
      ...expected,
    });
  });
});

describe('a reset', () => {
  test('gives the next incarnation, nothing in doubt, and the topic id is learnt again', () => {
    expect(planReset(at(doubt), { kind: 'offset', offset: 12 }).after).toEqual({
      settled: 11,
      pending: [],
      incarnation: 5,
      topicId: undefined,
      isOffsetReused: true,
    });
    expect(planReset(at(undefined), { kind: 'beginning' }).after).toEqual({
      settled: 1,
      pending: [],
      incarnation: 1,
      topicId: undefined,
      isOffsetReused: true,
    });
  });

  test.each([
    [{ kind: 'beginning' }, 2],
    [{ kind: 'end' }, 40],
    [{ kind: 'committed' }, 10],
    [{ kind: 'offset', offset: 2 }, 2],
    [{ kind: 'offset', offset: 40 }, 40],
  ] as const)('%j is offset %i', (target, to) => {
    expect(planReset(at(settled9, 10), target).to).toBe(to);
  });

  test.each([1, 41])('offset %i is outside of the log: refused, saying what it holds', (offset) => {
    const error = thrownBy(() => planReset(at(settled9, 10), { kind: 'offset', offset }));
    expect(error).toMatchObject({ code: 'KCR_OFFSET_RANGE' });
    expect(error.message).toMatch(/begins at 2 .* 40 .*topic t, partition 3.*from 2 to 40/);
  });

  test('to what is committed, where nothing is', () => {
    expect(thrownBy(() => planReset(at(settled9), { kind: 'committed' })).message).toMatch(
      /group g has committed nothing.*partition 3/,
    );
  });

  test('on a claim that found something else than the look before is planned on what it found', () => {
    expect(planReset(at(settled9, 10), { kind: 'offset', offset: 20 }, doubt)).toMatchObject({
      perhapsLost: range(10, 19),
      skipped: undefined,
    });
  });
});

describe('doing it', () => {
  const claiming = (found: PartitionState, written: PartitionState[]): Pick<StateAccess, 'replace'> => ({
    replace: async (_at, _owner, next) => void written.push(next(found)),
  });

  test('writes what was planned on the claimed state, and tells that plan', async () => {
    const written: PartitionState[] = [];
    const done = await applyReset(
      claiming({ ...doubt, incarnation: 8 }, written) as StateAccess,
      at(settled9),
      { kind: 'offset', offset: 12 },
      'me',
    );
    expect(written).toEqual([{ settled: 11, pending: [], incarnation: 9, topicId: undefined, isOffsetReused: true }]);
    expect(done).toMatchObject({ perhapsLost: range(10, 11), perhapsTwice: range(12, 19) });
  });

  test('an offset is of one partition; an end is of each', () => {
    const both = { partitions: [at(settled9), at(settled9)] };
    expect(() => demandOnePartition(both, { kind: 'offset', offset: 4 })).toThrow(
      /2 partitions are meant.*--partition/,
    );
    expect(() => demandOnePartition({ partitions: [at(settled9)] }, { kind: 'offset', offset: 4 })).not.toThrow();
    expect(() => demandOnePartition(both, { kind: 'end' })).not.toThrow();
  });
});

describe('in words', () => {
  test('the gravest comes first, and nothing is claimed to have happened in a dry run', () => {
    const plan = planReset(at(doubt), { kind: 'offset', offset: 25 });
    expect(meaning(plan, false, 61_000)).toEqual([
      'LOST: offsets 20-24 (5) would be skipped and never ingested',
      'PERHAPS LOST: offsets 10-19 (10) would be skipped while in doubt: in the table only if their insert landed',
      'forgotten: 10-14 was in doubt (1 min old, into d.t)',
      'forgotten: 15-19 was in doubt (1 min old, into d.t)',
    ]);
    expect(meaning(planReset(at(settled9), { kind: 'offset', offset: 10 }), false, 0)).toEqual([
      'no row is lost or doubled by it',
    ]);
    const text = resetText([plan], { members: [], group: 'g' }, false, 61_000);
    expect(text).toMatch(/^t\/3: settled 9 → goes on at offset 25, incarnation 4 → 5\n {2}LOST/);
    expect(text).toMatch(/Nothing was changed\. Add --apply to do it\.$/);
    expect(text).not.toMatch(/fenced/);
  });

  test('that a process runs, and what becomes of it', () => {
    expect(resetText([planReset(at(settled9), { kind: 'end' })], { members: ['a'], group: 'g' }, true, 0)).toMatch(
      /Group g has a member\. A process that runs was fenced[^]*Done\.$/,
    );
  });

  test.each([{}, { toOffset: 1, toEnd: true }, { toBeginning: true, toCommitted: true }])(
    '%j is not one target',
    (options) => {
      expect(() => targetOf(options)).toThrow(/Expected one of --to-offset/);
    },
  );
});

function thrownBy(run: () => unknown): IngestError {
  try {
    run();
  } catch (thrown) {
    if (thrown instanceof IngestError) return thrown;
  }
  throw new Error('it did not throw an IngestError');
}
