import { describe, expect, test, vi } from 'vitest';
import { drainText, exitCodeOf } from '../../src/cli/drain.js';
import { IngestError } from '../../src/errors.js';
import type { Assignment } from '../../src/model/record.js';
import { DrainProgress } from '../../src/tools/drain.js';
import type { PartitionStatus } from '../../src/tools/status.js';

const of = (partition: number, assignmentId: number): Assignment => ({
  topic: 't',
  partition,
  assignmentId,
  generation: 1,
  startOffset: 0,
});
const poison = new IngestError('KCR_POISON', 'bad', { topic: 't', partition: 1, offset: 3 });

function watch() {
  const through = vi.fn<() => void>();
  const progress = new DrainProgress(through);
  const on = (kind: 'assigned' | 'finished' | 'lost' | 'released', assignment: Assignment) =>
    progress.event({ kind, assignment });
  return { through, progress, on };
}

describe('a drain is through', () => {
  test('when the last of its partitions is', () => {
    const { through, on } = watch();
    on('assigned', of(0, 1));
    on('assigned', of(1, 2));
    on('finished', of(1, 2));
    expect(through).not.toHaveBeenCalled();
    on('finished', of(0, 1));
    expect(through).toHaveBeenCalledTimes(1);
  });

  test('also when one has halted', () => {
    const { through, progress, on } = watch();
    on('assigned', of(0, 1));
    on('assigned', of(1, 2));
    on('finished', of(0, 1));
    progress.outcome({ kind: 'halted', assignment: of(1, 2), error: poison });
    expect(through).toHaveBeenCalledTimes(1);
    expect(progress.result.halted).toEqual([{ topic: 't', partition: 1, error: poison }]);
  });

  test('not while a partition that was given away may come back', () => {
    const { through, on } = watch();
    on('assigned', of(0, 1));
    on('assigned', of(1, 2));
    on('finished', of(0, 1));
    on('lost', of(1, 2));
    expect(through).not.toHaveBeenCalled();
    on('assigned', of(1, 3));
    on('finished', of(1, 3));
    expect(through).toHaveBeenCalledTimes(1);
  });

  test('when the group has nothing for this process', () => {
    const { through, progress } = watch();
    progress.event({
      kind: 'kafka',
      level: 'info',
      message: 'joined the group',
      fields: { generation: 3, partitions: 0 },
    });
    expect(through).toHaveBeenCalledTimes(1);
  });

  test('a partition that halted and is given again is judged again', () => {
    const { progress, on } = watch();
    on('assigned', of(1, 2));
    progress.outcome({ kind: 'halted', assignment: of(1, 2), error: poison });
    on('assigned', of(1, 3));
    on('finished', of(1, 3));
    expect(progress.result).toMatchObject({ halted: [], given: [{ topic: 't', partition: 1 }] });
  });
});

describe('its exit code', () => {
  test.each([
    ['all resolved', [], false, [], 0],
    ['something left in doubt', [], false, [1], 5],
    ['time was up', [], true, [], 7],
    ['a record that cannot be inserted', [{ topic: 't', partition: 1, error: poison }], true, [1], 4],
    [
      'a range that could not be verified',
      [{ topic: 't', partition: 1, error: new IngestError('KCR_READ_BACK', 'no') }],
      false,
      [1],
      5,
    ],
  ])('%s', (_name, halted, isLate, left, code) => {
    expect(exitCodeOf({ halted, isLate }, left)).toBe(code);
  });
});

test('what is left belongs to others, and is listed with its owner', () => {
  const intent = { first: 10, last: 19, rows: 10, atMs: 0, settings: '', tables: [], excluded: [] };
  const look = (partition: number, isInDoubt: boolean): PartitionStatus => ({
    key: { cluster: 'c', group: 'g', topic: 't', partition },
    topic: 't',
    partition,
    logStart: 0,
    logEnd: 40,
    stableEnd: 40,
    committed: 10,
    stored: {
      state: { settled: 9, pending: isInDoubt ? [intent] : [], incarnation: 0, topicId: undefined },
      owner: 'other:7',
    },
  });
  const resolved = {
    kind: 'delivered',
    assignment: of(0, 1),
    afterOffset: 4,
    lastOffset: 9,
    rows: 5,
    bytes: 50,
    replay: true,
  } as const;
  const drained = { resolved: [resolved], given: [{ topic: 't', partition: 0 }], halted: [], isLate: false };
  const text = drainText(
    drained,
    { cluster: 'c', group: 'g', members: ['m'], transactions: [], partitions: [look(0, false), look(1, true)] },
    [look(1, true)],
    61_000,
  );
  expect(text).toMatch(/^t\/0: 5-9 was in doubt and is settled/);
  expect(text).toMatch(/1 partition of 2 looked after[^]*belong to 1 other member/);
  expect(text).toMatch(/t\/1: 10-19 is STILL IN DOUBT \(1 min old, owner other:7\)$/);
});
