// Commits against a coordinator made of answers: what goes together, what does not, and what an answer means for each.
import { describe, expect, test } from 'vitest';
import { Membership } from '../../../src/kafka/group/membership.js';
import { sourceSettings } from '../../../src/kafka/options.js';
import { UnknownOutcome } from '../../../src/kafka/group/commit-request.js';
import type { JoinedGroup } from '../../../src/kafka/group/generation.js';
import { FakeCoordinator } from '../fake-coordinator.js';

const joined: JoinedGroup = { memberId: 'm', generationId: 3, isLeader: false, partitions: [] };
const settings = sourceSettings({ brokers: ['127.0.0.1:1'], groupId: 'g', topics: ['t'] });
const never = new AbortController().signal;

function member() {
  const coordinator = new FakeCoordinator();
  const membership = new Membership(coordinator.kafka(), settings);
  const commit = (
    partition: number,
    next: number,
    { signal = never, of = joined, metadata = null as string | null } = {},
  ) => membership.commit(of, { topic: 't', partition, next, metadata }, signal);
  const commitOnce = (
    partition: number,
    next: number,
    { signal = never, of = joined, metadata = null as string | null } = {},
  ) => membership.commitOnce(of, { topic: 't', partition, next, metadata }, signal);
  /** The coordinator holds the next request to commit until it is called. */
  const holding = () => {
    let [release, fail]: [() => void, (error: Error) => void] = [() => undefined, () => undefined];
    coordinator.hold = new Promise<void>((resolve, reject) => ([release, fail] = [resolve, reject]));
    const settled = (): void => {
      coordinator.hold = Promise.resolve();
    };
    return { release: () => (settled(), release()), fail: (error: Error) => (settled(), fail(error)) };
  };
  const arrived = async (count: number) => {
    while (coordinator.requests.length < count) await new Promise(setImmediate);
  };
  return { coordinator, membership, commit, commitOnce, holding, arrived };
}

const names = (count: number, next: number) =>
  Array.from({ length: count }, (_, partition) => `t/${partition}:${next}`);

describe('commits of many partitions', () => {
  test('J4: go as one request while another one is under way, not one after the other for a minute', async () => {
    const { coordinator, commit, holding, arrived } = member();
    const { release } = holding();
    const first = commit(0, 1);
    await arrived(1);
    const waiting = Array.from({ length: 600 }, (_, partition) => commit(partition, 2));
    await new Promise(setImmediate);
    expect(coordinator.sent).toBe(1);
    release();
    await Promise.all([first, ...waiting]);
    expect(coordinator.requests).toEqual([
      { memberId: 'm', generation: 3, commits: ['t/0:1'] },
      { memberId: 'm', generation: 3, commits: names(600, 2) },
    ]);
  });

  test('J4: heartbeats do not wait behind a commit that is not answered', async () => {
    const { coordinator, membership, commit, holding, arrived } = member();
    const { release } = holding();
    const hanging = commit(0, 1);
    await arrived(1);
    expect(await membership.beat(joined)).toBe('alive');
    expect(coordinator.heartbeats).toBe(1);
    release();
    await hanging;
  });

  test('J4: the refusal of one partition is not taken for a refusal of the others', async () => {
    const { coordinator, commitOnce } = member();
    coordinator.errors.set('t/1', 'OFFSET_METADATA_TOO_LARGE');
    coordinator.errors.set('t/2', 'ILLEGAL_GENERATION');
    coordinator.errors.set('t/3', 'REQUEST_TIMED_OUT');
    const outcomes = await Promise.allSettled([0, 1, 2, 3].map((partition) => commitOnce(partition, 5)));
    expect(coordinator.requests).toHaveLength(1);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'rejected']);
    expect(outcomes[1]).toMatchObject({ reason: { code: 'KCR_STORE' } });
    expect(outcomes[2]).toMatchObject({
      reason: { code: 'KCR_FENCED', fields: { partition: 2, serverCode: 'ILLEGAL_GENERATION' } },
    });
    expect((outcomes[3] as PromiseRejectedResult).reason).toBeInstanceOf(UnknownOutcome);
  });

  test('J4: a request whose answer is lost leaves all of its commits unknown, and none that had yet to leave', async () => {
    const { coordinator, commitOnce, holding, arrived } = member();
    const { fail } = holding();
    const sent = [commitOnce(0, 1), commitOnce(1, 1)];
    await arrived(1);
    const waiting = commitOnce(2, 1);
    fail(Object.assign(new Error('connection lost'), { name: 'KafkaJSConnectionError' }));
    for (const each of sent) await expect(each).rejects.toBeInstanceOf(UnknownOutcome);
    await expect(waiting).resolves.toBeUndefined();
    expect(coordinator.requests[1]?.commits).toEqual(['t/2:1']);
  });

  test('J4: commits that never left may be made again', async () => {
    const { coordinator, commitOnce } = member();
    coordinator.unsendable = Object.assign(new Error('no connection'), { name: 'KafkaJSConnectionError' });
    for (const each of [commitOnce(0, 1), commitOnce(1, 1)])
      await expect(each).rejects.toMatchObject({ code: 'KCR_KAFKA_UNREACHABLE', retryable: true });
    expect(coordinator.requests).toEqual([]);
  });

  test('J4: what nobody may commit any more does not leave with what still may', async () => {
    const { coordinator, commit, commitOnce, holding, arrived } = member();
    const { release } = holding();
    const first = commit(0, 1);
    await arrived(1);
    const over = new AbortController();
    const given = [commit(1, 2, { signal: over.signal }), commitOnce(2, 2, { signal: over.signal }), commit(3, 2)];
    over.abort();
    release();
    const outcomes = await Promise.allSettled([first, ...given]);
    expect(
      outcomes.map((outcome) => (outcome.status === 'rejected' ? (outcome.reason as { code: string }).code : 'done')),
    ).toEqual(['done', 'KCR_FENCED', 'KCR_FENCED', 'done']);
    expect(coordinator.requests[1]?.commits).toEqual(['t/3:2']);
  });

  test('J4: one request never commits a partition twice, nor for two generations', async () => {
    const { coordinator, commit, holding, arrived } = member();
    const { release } = holding();
    const first = commit(9, 1);
    await arrived(1);
    const later: JoinedGroup = { ...joined, generationId: 4 };
    const waiting = [commit(0, 2), commit(1, 2), commit(0, 3), commit(2, 3, { of: later })];
    release();
    await Promise.all([first, ...waiting]);
    expect(coordinator.requests.slice(1)).toEqual([
      { memberId: 'm', generation: 3, commits: ['t/0:2', 't/1:2'] },
      { memberId: 'm', generation: 3, commits: ['t/0:3'] },
      { memberId: 'm', generation: 4, commits: ['t/2:3'] },
    ]);
  });

  test('J4: no request is larger than what a broker writes as one batch', async () => {
    const { coordinator, commitOnce } = member();
    const metadata = 'x'.repeat(4000);
    await Promise.all(Array.from({ length: 200 }, (_, partition) => commitOnce(partition, 1, { metadata })));
    expect(coordinator.requests.map(({ commits }) => commits.length)).toEqual([64, 64, 64, 8]);
  });
});
