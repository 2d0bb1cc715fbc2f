// Commits of one partition in their order, and what follows when one was refused or nobody knows what became of it.
import { describe, expect, test } from 'vitest';
import { failure } from '../../support/fakes.js';
import { Assignments } from '../../../src/kafka/group/assignments.js';
import { newAssignedPartition } from '../../../src/kafka/group/assigned-partition.js';
import { Committing } from '../../../src/kafka/group/commit-in-order.js';
import { UnknownOutcome, type CommitRequest } from '../../../src/kafka/group/commit-request.js';
import { Generation } from '../../../src/kafka/group/generation.js';

const assignmentOf = (partition: number, assignmentId: number) => ({
  topic: 't',
  partition,
  assignmentId,
  generation: 3,
  startOffset: 0,
});

/** Partitions 0 and 1 of one generation; `answers` are what their commits end with, in turn, then they succeed. */
function committing(...answers: (Error | Promise<void>)[]) {
  const generation = new Generation({ memberId: 'm', generationId: 3, isLeader: false, partitions: [] });
  const assignments = new Assignments();
  const [first, second] = [0, 1].map((partition) =>
    newAssignedPartition(assignmentOf(partition, partition + 1), generation, 0),
  );
  if (first === undefined || second === undefined) throw new Error('unreachable');
  assignments.add(first);
  assignments.add(second);
  const sent: string[] = [];
  const joinedAgain: Generation[] = [];
  const told: unknown[] = [];
  const call =
    (name: string) =>
    async (_: unknown, { partition, next, metadata }: CommitRequest) => {
      sent.push(`${name} t/${partition}:${next}${metadata === null ? '' : ` ${metadata}`}`);
      const answer = answers.shift();
      if (answer instanceof Error) throw answer;
      await answer;
    };
  const commits = new Committing({
    assignments,
    membership: { commit: call('commit'), commitOnce: call('once') },
    log: (level, message, fields) => void told.push([level, message, fields]),
    joinAgain: (of) => void joinedAgain.push(of),
  });
  return { commits, generation, assignments, first, second, sent, joinedAgain, told };
}

describe('a commit of which nobody knows whether it took effect', () => {
  const unknown = () => new UnknownOutcome('the answer was lost');

  test.each(['commit', 'commitOnce'] as const)(
    'I4: the group begins a new generation, so that what is still on its way is refused (%s)',
    async (how) => {
      const { commits, generation, first, joinedAgain, told } = committing(unknown());
      await expect(commits[how](first.assignment, 5, null)).rejects.toMatchObject({
        code: 'KCR_FENCED',
        message: expect.stringContaining('commit of offset 5 is not known') as string,
        fields: { topic: 't', partition: 0 },
        cause: { message: 'the answer was lost' },
      });
      expect(joinedAgain).toEqual([generation]);
      expect(told).toEqual([
        [
          'warn',
          'the outcome of a commit is not known, joining again',
          { topic: 't', partition: 0, next: 5, reason: 'the answer was lost' },
        ],
      ]);
    },
  );

  test('none follows it in that generation: it would overwrite, or be overwritten by, what may still land', async () => {
    const { commits, first, second, sent } = committing(unknown());
    const given = [commits.commit(first.assignment, 5, null), commits.commit(first.assignment, 9, null)];
    for (const each of await Promise.allSettled(given))
      expect(each).toMatchObject({ status: 'rejected', reason: { code: 'KCR_FENCED' } });
    await commits.commit(second.assignment, 7, null);
    expect(sent).toEqual(['commit t/0:5', 'commit t/1:7']);
  });
});

describe('a commit that was refused', () => {
  test('since the partition is another member’s: the generation is over at once, not with the next heartbeat', async () => {
    const { commits, generation, first, joinedAgain } = committing(failure('KCR_FENCED'));
    await expect(commits.commit(first.assignment, 5, null)).rejects.toMatchObject({ code: 'KCR_FENCED' });
    expect(await Promise.race([generation.reasonForEnd, Promise.resolve()])).toBe('fenced');
    expect([generation.fenced.signal.aborted, joinedAgain]).toEqual([true, []]);
  });

  test('since it had ended here meanwhile: that says nothing of the other partitions', async () => {
    let refuse: (error: Error) => void = () => undefined;
    const { commits, generation, assignments, first, sent } = committing(
      new Promise<void>((_, reject) => (refuse = reject)),
    );
    const committed = commits.commit(first.assignment, 5, null);
    while (sent.length === 0) await Promise.resolve();
    assignments.remove(first);
    refuse(failure('KCR_FENCED'));
    await expect(committed).rejects.toMatchObject({ code: 'KCR_FENCED' });
    expect([generation.ended.signal.aborted, generation.fenced.signal.aborted]).toEqual([false, false]);
  });

  test('for another reason: the partition stays ours, and its next commit goes out', async () => {
    const { commits, generation, first, joinedAgain, sent } = committing(failure('KCR_STORE'));
    await expect(commits.commitOnce(first.assignment, 5, 'm')).rejects.toMatchObject({ code: 'KCR_STORE' });
    await commits.commitOnce(first.assignment, 6, 'n');
    expect(sent).toEqual(['once t/0:5 m', 'once t/0:6 n']);
    expect([generation.ended.signal.aborted, joinedAgain]).toEqual([false, []]);
  });
});

test('commits of a partition leave one after the other: an earlier one never overwrites a later one', async () => {
  let answer: () => void = () => undefined;
  const { commits, first, second, sent } = committing(new Promise<void>((resolve) => (answer = resolve)));
  const given = [
    commits.commit(first.assignment, 5, null),
    commits.commit(first.assignment, 9, null),
    commits.commit(second.assignment, 2, null),
  ];
  await given[2];
  expect(sent).toEqual(['commit t/0:5', 'commit t/1:2']);
  answer();
  await Promise.all(given);
  expect(sent).toEqual(['commit t/0:5', 'commit t/1:2', 'commit t/0:9']);
});

describe('a partition that is not ours any more', () => {
  const refused = { code: 'KCR_FENCED', fields: { topic: 't', partition: 0 } };

  test('is not committed, and the group is not asked', async () => {
    const { commits, assignments, first, sent } = committing();
    assignments.remove(first);
    await expect(commits.commit(first.assignment, 5, null)).rejects.toMatchObject(refused);
    expect(sent).toEqual([]);
  });

  test('nor is what waited behind a commit when it ended', async () => {
    let answer: () => void = () => undefined;
    const { commits, assignments, first, sent } = committing(new Promise<void>((resolve) => (answer = resolve)));
    const given = [commits.commit(first.assignment, 5, null), commits.commit(first.assignment, 9, null)];
    while (sent.length === 0) await Promise.resolve();
    assignments.remove(first);
    answer();
    await given[0];
    await expect(given[1]).rejects.toMatchObject(refused);
    expect(sent).toEqual(['commit t/0:5']);
  });
});
