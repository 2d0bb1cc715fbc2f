// The store in Kafka's offsets, against a group coordinator in memory: rejoins, lost replies, commits that arrive late.
import fc from 'fast-check';
import { Subject, from, last, lastValueFrom } from 'rxjs';
import { describe, expect, test, vi } from 'vitest';
import { commit } from '../../operators/commit.js';
import type { IngestEvent } from '../../src/events.js';
import { Ledger } from '../../src/ledger.js';
import type { Assignment } from '../../src/model/record.js';
import { emptyState, type PartitionState } from '../../src/model/state.js';
import { encodeState } from '../../src/model/state-codec.js';
import type { Claim, RecordSource } from '../../src/ports.js';
import { checkKafkaStore, kafkaStore, stateFromOffset, type OffsetsAdmin } from '../../src/state/kafka.js';
import type { Inserted } from '../../src/stages.js';
import { handleOf } from '../support/fakes.js';
import {
  containing,
  failureOf,
  freshKey,
  intent,
  pause,
  settledAt,
  stateIn,
  stateStoreContract,
  until,
  valueOf,
} from './contract.js';
import { FakeCoordinator, FakeMember } from './kafka-coordinator.js';
import { kafkaKeys, memberStore } from './kafka-members.js';

stateStoreContract(
  "the store in Kafka's offsets, on a coordinator in memory,",
  async () => {
    const coordinator = new FakeCoordinator();
    return {
      open: () =>
        memberStore({
          member: (group) => {
            const source = new FakeMember(coordinator, group);
            return { source, join: async (topic, partition) => source.join(topic, partition) };
          },
          committed: async (key) => coordinator.offset(key),
        }),
      peek: async (key) => coordinator.offset(key).metadata || undefined,
      poke: async (key, text) => coordinator.set(key, { next: 0, metadata: text }),
      stop: async () => undefined,
    };
  },
  { keys: kafkaKeys, lastOffset: Number.MAX_SAFE_INTEGER - 1 },
);

const nowMs = 1_795_000_000_999;
const seconds = 1_795_000_000;

function world() {
  const coordinator = new FakeCoordinator();
  const key = { ...freshKey(), topic: 'events', partition: 3 };
  const told: IngestEvent[] = [];
  const open = () => {
    const member = new FakeMember(coordinator, key.group);
    const opened = kafkaStore(member, { group: key.group, nowMs: () => nowMs, onEvent: (event) => told.push(event) });
    return { member, ...opened, join: () => member.join(key.topic, key.partition) };
  };
  return { coordinator, key, told, open };
}

describe('a claim', () => {
  test('is one commit, of the offset the state goes on at, with owner and write', async () => {
    const { coordinator, key, open } = world();
    const { store, join } = open();
    join();
    const claim = await valueOf(store.claim(key, 'host:1#7'));
    expect(coordinator.commits).toBe(1);
    expect(coordinator.offset(key)).toEqual({ next: 0, metadata: containing('"owner":"host:1#7"') });
    await valueOf(store.write(claim, { ...emptyState, pending: [intent(40, 49)] }));
    expect(coordinator.offset(key).next).toBe(40);
    join();
    expect((await valueOf(store.claim(key, 'host:1#8'))).state.pending).toEqual([intent(40, 49)]);
    expect(coordinator.offset(key)).toEqual({ next: 40, metadata: containing('"owner":"host:1#8"') });
  });

  test('commits where the group stands while the state does not say what comes next', async () => {
    const { coordinator, key, open } = world();
    const { store, join } = open();
    coordinator.set(key, { next: 77, metadata: encodeState({ state: emptyState, owner: 'x', write: 'y' }, key) });
    join();
    const claim = await valueOf(store.claim(key, 'me'));
    expect(claim.state).toEqual(emptyState);
    expect(coordinator.offset(key).next).toBe(77);
    await valueOf(store.write(claim, emptyState));
    expect(coordinator.offset(key).next).toBe(77);
  });

  test('of a partition without a committed offset commits where the source begins', async () => {
    const { coordinator, key, open } = world();
    const { store, member } = open();
    member.join(key.topic, key.partition, { start: 12 });
    expect((await valueOf(store.claim(key, 'me'))).state).toEqual(emptyState);
    expect(coordinator.offset(key).next).toBe(12);
  });

  test.each([
    [120, 119],
    [0, -1],
  ])(
    'an offset %i without metadata is settled up to %i, under an incarnation never used, and that is told',
    async (next, settled) => {
      const { coordinator, key, told, open } = world();
      const { store, join } = open();
      coordinator.set(key, { next, metadata: '' });
      join();
      const state = { settled, pending: [], incarnation: seconds, topicId: undefined };
      expect((await valueOf(store.claim(key, 'me'))).state).toEqual(state);
      expect(told).toEqual([
        {
          kind: 'kafka',
          level: 'info',
          message: containing('no state beside it'),
          fields: { group: key.group, topic: 'events', partition: 3, next, incarnation: seconds },
        },
      ]);
      join();
      expect((await valueOf(store.claim(key, 'me again'))).state).toEqual(state);
      expect(told).toHaveLength(1);
    },
  );

  test.each(['consumer-1 was here', '{"v":2,"owner":"a"}', '[]'])(
    'metadata that is not ours (%s) is refused with what to do, and never overwritten',
    async (metadata) => {
      const { coordinator, key, open } = world();
      const { store, join } = open();
      coordinator.set(key, { next: 5, metadata });
      join();
      for (const call of [store.claim(key, 'me'), store.read(key)]) {
        const error = await failureOf(call);
        expect(error).toMatchObject({
          code: 'KCR_STATE_INVALID',
          retryable: false,
          fields: { topic: 'events', partition: 3, hint: containing('--reset-offsets') },
        });
        expect(error.message).toContain('not a state of this program');
        expect(error.message).toContain('a group of its own');
        expect(error.message).toContain(key.group);
      }
      expect(coordinator.offset(key)).toEqual({ next: 5, metadata });
      expect(coordinator.commits).toBe(0);
    },
  );

  test('a state that speaks of another offset than the one it lies beside is refused', async () => {
    const { coordinator, key, open } = world();
    const { store, join } = open();
    const metadata = encodeState({ state: settledAt(9, intent(10, 19)), owner: 'x', write: 'y' }, key);
    coordinator.set(key, { next: 4010, metadata });
    join();
    const error = await failureOf(store.claim(key, 'me'));
    expect(error).toMatchObject({
      code: 'KCR_STATE_INVALID',
      message: containing('committed offset is 4010, but the state beside it goes on at 10'),
    });
    expect(coordinator.offset(key).metadata).toBe(metadata);
  });

  test('needs an assignment, and the group of its source', async () => {
    const { key, open } = world();
    const { store, join } = open();
    expect(await failureOf(store.claim(key, 'me'))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('not ours any more'),
    });
    expect(await failureOf(store.read(key))).toMatchObject({ code: 'KCR_STORE', message: containing('not assigned') });
    join();
    for (const call of [store.claim({ ...key, group: 'other' }, 'me'), store.read({ ...key, group: 'other' })]) {
      expect(await failureOf(call)).toMatchObject({ code: 'KCR_CONFIG', message: containing('not those of other') });
    }
    await valueOf(store.close());
    expect(await failureOf(store.claim(key, 'me'))).toMatchObject({ code: 'KCR_STORE', message: containing('closed') });
  });

  test('when the coordinator does not answer, says so; made again it succeeds', async () => {
    const { coordinator, key, open } = world();
    const { store, join, member } = open();
    join();
    member.isReadable = false;
    expect(await failureOf(store.claim(key, 'me'))).toMatchObject({ code: 'KCR_STORE_UNREACHABLE', retryable: true });
    member.isReadable = true;
    member.faults.push('refused');
    expect(await failureOf(store.claim(key, 'me'))).toMatchObject({ code: 'KCR_STORE_UNREACHABLE', retryable: true });
    await valueOf(store.claim(key, 'me'));
    expect(coordinator.commits).toBe(1);
  });
});

describe('within one generation', () => {
  test('a claim fences the one before it, under the same assignment', async () => {
    const { key, open } = world();
    const { store, join } = open();
    join();
    const first = await valueOf(store.claim(key, 'first'));
    const second = await valueOf(store.claim(key, 'second'));
    expect(await failureOf(store.write(first, settledAt(1)))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('second has taken the partition over'),
    });
    await valueOf(store.write(second, settledAt(2)));
    expect(await stateIn(store, key)).toEqual(settledAt(2));
  });

  test('a claim under a later assignment fences the one before it, also before it was made', async () => {
    const { key, open } = world();
    const { store, join, member } = open();
    join();
    const first = await valueOf(store.claim(key, 'first'));
    member.again(key.topic, key.partition);
    expect(await failureOf(store.write(first, settledAt(1)))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('not the current one'),
    });
    const second = await valueOf(store.claim(key, 'second'));
    expect(await failureOf(store.write(first, settledAt(1)))).toMatchObject({ code: 'KCR_FENCED' });
    await valueOf(store.write(second, settledAt(2)));
    member.lose(key.topic, key.partition);
    expect(await failureOf(store.write(second, settledAt(2)))).toMatchObject({ code: 'KCR_FENCED' });
  });

  test.each(['the same', 'the next'])(
    'a claim whose reply came when %s generation had assigned the partition again gives nothing to write with',
    async (generation) => {
      const { coordinator, key, open } = world();
      const { store, join, member } = open();
      join();
      let reply: () => void = () => undefined;
      member.replies = new Promise<void>((resolve) => (reply = resolve));
      const slow = failureOf(store.claim(key, 'slow'));
      await until('the commit is there', () => coordinator.commits === 1);
      member.replies = Promise.resolve();
      if (generation === 'the same') member.again(key.topic, key.partition);
      else join();
      const quick = valueOf(store.claim(key, 'quick'));
      if (generation === 'the next') await until('the second commit is there', () => coordinator.commits === 2);
      await pause(20);
      // In the same generation the earlier commit might still come behind ours; in the next one it would be refused.
      expect(coordinator.commits).toBe(generation === 'the same' ? 1 : 2);
      reply();
      expect(await slow).toMatchObject({ code: 'KCR_FENCED', message: containing('not the current one') });
      await valueOf(store.write(await quick, settledAt(1)));
      expect(coordinator.commits).toBe(3);
    },
  );

  test('a write whose reply came when the next generation had claimed does not take the partition back', async () => {
    const { coordinator, key, open } = world();
    const { store, join, member } = open();
    join();
    const claim = await valueOf(store.claim(key, 'first'));
    let reply: () => void = () => undefined;
    member.replies = new Promise<void>((resolve) => (reply = resolve));
    const writing = valueOf(store.write(claim, settledAt(1)));
    await until('the commit is there', () => coordinator.commits === 2);
    member.replies = Promise.resolve();
    join();
    const second = await valueOf(store.claim(key, 'second'));
    expect(second.state).toEqual(settledAt(1));
    reply();
    const late = await writing;
    await valueOf(store.write(second, settledAt(2)));
    expect(await failureOf(store.write(late, settledAt(3)))).toMatchObject({ code: 'KCR_FENCED' });
    expect(await stateIn(store, key)).toEqual(settledAt(2));
  });

  test('writes are one at a time: of two under one claim the second is refused, not both sent', async () => {
    const { coordinator, key, open } = world();
    const { store, join } = open();
    join();
    const claim = await valueOf(store.claim(key, 'me'));
    const [one, two] = await Promise.allSettled([
      valueOf(store.write(claim, settledAt(1))),
      valueOf(store.write(claim, settledAt(2))),
    ]);
    expect(one.status).toBe('fulfilled');
    expect(two).toMatchObject({ status: 'rejected', reason: { code: 'KCR_FENCED', message: containing('used up') } });
    expect(coordinator.commits).toBe(2);
  });

  test('a claim of another store is not written under', async () => {
    const { key, open } = world();
    const [one, other] = [open(), open()];
    one.join();
    const claim = await valueOf(one.store.claim(key, 'me'));
    expect(await failureOf(other.store.write(claim, settledAt(1)))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('not given by this store'),
    });
  });
});

describe('a write', () => {
  test('that was surely without effect is made again under the same claim', async () => {
    const { key, open } = world();
    const { store, join, member } = open();
    join();
    const claim = await valueOf(store.claim(key, 'me'));
    member.faults.push('refused');
    expect(await failureOf(store.write(claim, settledAt(1)))).toMatchObject({
      code: 'KCR_STORE_UNREACHABLE',
      retryable: true,
    });
    await valueOf(store.write(await valueOf(store.write(claim, settledAt(1))), settledAt(2)));
    expect(await stateIn(store, key)).toEqual(settledAt(2));
  });

  test.each(['replyLost', 'late'] as const)(
    'whose outcome is not known (%s) ends the tenure: nothing more goes out under it, and the next claim finds what is there for good',
    async (fault) => {
      const { coordinator, key, open } = world();
      const { store, join, member } = open();
      join();
      const claim = await valueOf(store.write(await valueOf(store.claim(key, 'me')), settledAt(0)));
      member.faults.push(fault);
      expect(await failureOf(store.write(claim, settledAt(1)))).toMatchObject({ code: 'KCR_FENCED', retryable: false });
      const commits = coordinator.commits;
      for (const call of [
        store.write(claim, settledAt(1)),
        store.write(claim, settledAt(2)),
        store.claim(key, 'me again'),
      ]) {
        expect(await failureOf(call)).toMatchObject({ code: 'KCR_FENCED' });
      }
      expect(coordinator.commits).toBe(commits);
      join();
      const next = await valueOf(store.claim(key, 'me again'));
      const found = fault === 'replyLost' ? settledAt(1) : settledAt(0);
      expect(next.state).toEqual(found);
      coordinator.deliver();
      expect(await stateIn(store, key)).toEqual(found);
      await valueOf(store.write(next, settledAt(3)));
    },
  );

  test('by a former owner is refused, tells who has the partition now, and changes nothing', async () => {
    const { coordinator, key, open } = world();
    const [zombie, heir] = [open(), open()];
    zombie.join();
    const old = await valueOf(zombie.store.write(await valueOf(zombie.store.claim(key, 'zombie')), settledAt(0)));
    heir.join();
    expect(await failureOf(zombie.store.write(old, settledAt(1)))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('the generation is over'),
    });
    const current = await valueOf(heir.store.claim(key, 'heir'));
    const { metadata } = coordinator.offset(key);
    const before = await failureOf(zombie.store.write(old, settledAt(1)));
    expect(before).toMatchObject({ code: 'KCR_FENCED' });
    expect(coordinator.offset(key).metadata).toBe(metadata);
    await valueOf(heir.store.write(current, settledAt(5)));
  });

  test('that is refused is told at once, also when nobody says who has the partition', async () => {
    const { key, open } = world();
    const [zombie, heir] = [open(), open()];
    zombie.join();
    const old = await valueOf(zombie.store.claim(key, 'zombie'));
    heir.join();
    zombie.member.reads = new Promise(() => undefined);
    const beginMs = performance.now();
    expect(await failureOf(zombie.store.write(old, settledAt(1)))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('the generation is over'),
    });
    expect(performance.now() - beginMs).toBeLessThan(2000);
  });

  test('after which the source throws something of its own counts as one whose outcome is not known', async () => {
    const { key, open } = world();
    const { store, join, member } = open();
    join();
    const claim = await valueOf(store.claim(key, 'me'));
    const spy = vi.spyOn(member, 'commitOnce').mockImplementation(() => {
      throw new Error('a defect');
    });
    expect(await failureOf(store.write(claim, settledAt(1)))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('not known: a defect'),
    });
    spy.mockRestore();
    expect(await failureOf(store.write(claim, settledAt(1)))).toMatchObject({ code: 'KCR_FENCED' });
  });

  test('that waits for one under way is not sent once nobody waits for it', async () => {
    const { coordinator, key, open } = world();
    const { store, join } = open();
    join();
    const claim = await valueOf(store.claim(key, 'me'));
    const first = valueOf(store.write(claim, settledAt(1)));
    const second = from(store.write(claim, settledAt(1))).subscribe();
    second.unsubscribe();
    await first;
    await pause(20);
    expect(coordinator.commits).toBe(2);
  });
});

test('a claim that is unsubscribed while it reads writes nothing: it would fence the new owner', async () => {
  const { coordinator, key, open } = world();
  const { store, join } = open();
  join();
  const claiming = from(store.claim(key, 'lost its assignment')).subscribe();
  claiming.unsubscribe();
  await pause(20);
  expect(coordinator.commits).toBe(0);
  expect(coordinator.offset(key).metadata).toBe('');
});

describe('the source that goes with the store', () => {
  const steps = async (source: RecordSource, ledger: Ledger, assignment: Assignment, batches: number) => {
    const book = await valueOf(ledger.open(assignment));
    const inserted = new Subject<Inserted<'recorded'>>();
    const done = lastValueFrom(inserted.pipe(commit(handleOf(source, assignment), ledger), last()));
    const first = (n: number) => 10 * n;
    await valueOf(book.intend(intent(first(0), first(0) + 9)));
    for (let n = 0; n < batches; n++) {
      // The next one is recorded with the settling of this one: it waits already.
      const next = valueOf(book.intend(intent(first(n + 1), first(n + 1) + 9)));
      inserted.next({ kind: 'inserted', assignment, lastOffset: first(n) + 9 } as Inserted<'recorded'>);
      await next;
    }
    inserted.complete();
    await done;
  };

  function pipeline(which: 'given' | 'plain') {
    const { coordinator, key, open } = world();
    const { member, store, source } = open();
    const assignment = member.join(key.topic, key.partition, { commitsStart: true });
    let writes = 0;
    const onEvent = (event: IngestEvent) => void (event.kind === 'stateWritten' && writes++);
    const ledger = new Ledger(store, source, { group: key.group, owner: 'me', maxPending: 1, onEvent });
    return {
      coordinator,
      key,
      member,
      run: (batches: number) => steps(which === 'plain' ? member : source, ledger, assignment, batches),
      writes: () => writes,
    };
  }

  test('commits nothing for what was claimed: one commit a batch in all, and the state stays', async () => {
    const { coordinator, key, run, writes } = pipeline('given');
    await run(50);
    expect(coordinator.offset(key)).toMatchObject({ next: 500 });
    expect(stateFromOffset(500, coordinator.offset(key).metadata, key, 0).state).toMatchObject({
      settled: 499,
      pending: [intent(500, 509)],
      incarnation: seconds,
    });
    // The source's first place, the claim, the first intent; then 1.0 for each batch.
    expect(writes()).toBe(1 + 50);
    expect(coordinator.commits).toBe(1 + 1 + 1 + 50);
  });

  test('the plain source wipes the state: what is in doubt is forgotten, so never commit around the store', async () => {
    const { coordinator, key, member, run } = pipeline('plain');
    await run(50);
    expect(coordinator.offset(key)).toEqual({ next: 500, metadata: '' });
    // Range 500-509 was recorded, perhaps inserted. The next owner knows nothing of it, nor of the tokens used.
    member.join(key.topic, key.partition);
    const heir = kafkaStore(member, { group: key.group, nowMs: () => nowMs + 60_000 }).store;
    expect((await valueOf(heir.claim(key, 'heir'))).state).toEqual({ ...settledAt(499), incarnation: seconds + 60 });
  });

  test('passes everything else on, and commits what was not claimed', async () => {
    const { coordinator, key, open } = world();
    const { source, join, member, store } = open();
    const assignment = join();
    await valueOf(source.commit(assignment, 5));
    expect(coordinator.offset(key)).toEqual({ next: 5, metadata: '' });
    await valueOf(store.claim(key, 'me'));
    await valueOf(source.commit(assignment, 6));
    expect(coordinator.offset(key)).toMatchObject({ next: 5, metadata: containing('"owner":"me"') });
    const former = join();
    expect(
      await failureOf(source.commit({ ...former, assignmentId: assignment.assignmentId - 1, generation: 0 }, 6)),
    ).toMatchObject({
      code: 'KCR_FENCED',
    });
    source.reassign(former);
    expect(member.renewed).toEqual([former]);
    expect(await valueOf(source.cluster())).toBe('cluster');
  });
});

describe('the check before the start', () => {
  const admin = (
    offsets: readonly (readonly [offset: string, metadata: string | null])[],
    limits: Record<string, string> | Error,
  ): OffsetsAdmin => ({
    describeCluster: async () => ({ clusterId: 'c1', brokers: [{ nodeId: 7 }] }),
    fetchOffsets: async () => [
      {
        topic: 'events',
        partitions: offsets.map(([offset, metadata], partition) => ({ partition, offset, metadata })),
      },
    ],
    describeConfigs: async ({ resources: [broker] }) => {
      expect(broker).toMatchObject({ type: 4, name: '7' });
      if (limits instanceof Error) throw limits;
      return {
        resources: [
          { configEntries: Object.entries(limits).map(([configName, configValue]) => ({ configName, configValue })) },
        ],
      };
    },
  });
  const check = (of: OffsetsAdmin) => checkKafkaStore(of, { group: 'g', topics: ['events'] });
  const ours = encodeState({ state: settledAt(9), owner: 'x', write: 'y' }, freshKey());
  const enough = { 'offset.metadata.max.bytes': '4096', 'offsets.retention.minutes': '10080' };

  test('counts the partitions that have a state, and tells what the brokers keep and for how long', async () => {
    expect(
      await check(
        admin(
          [
            ['-1', null],
            ['5', ''],
            ['10', ours],
          ],
          enough,
        ),
      ),
    ).toEqual({ partitions: 3, kept: 1, metadataMaxBytes: 4096, retentionMinutes: 10_080 });
    expect(await check(admin([], new Error('not allowed')))).toEqual({
      partitions: 0,
      kept: 0,
      metadataMaxBytes: undefined,
      retentionMinutes: undefined,
    });
  });

  test('refuses brokers that keep too little', async () => {
    await expect(check(admin([], { ...enough, 'offset.metadata.max.bytes': '4095' }))).rejects.toMatchObject({
      code: 'KCR_PREFLIGHT',
      message: containing('set offset.metadata.max.bytes=4096'),
    });
  });

  test.each([
    ['5', 'theirs'],
    ['11', ours],
  ])('refuses what is not ours beside an offset (%s: %s)', async (offset, metadata) => {
    await expect(
      check(
        admin(
          [
            ['3', ''],
            [offset, metadata],
          ],
          enough,
        ),
      ),
    ).rejects.toMatchObject({ code: 'KCR_STATE_INVALID', fields: { topic: 'events', partition: 1 } });
  });
});

test('whatever is lost or late: a claim finds the last acknowledged state or one whose outcome was unknown, and from then on nothing but its own writes changes it', async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('claim' as const), who: fc.nat(2) }),
    fc.record({
      do: fc.constant('write' as const),
      who: fc.nat(2),
      fault: fc.option(fc.constantFrom('refused' as const, 'replyLost' as const, 'late' as const), {
        nil: undefined,
        freq: 2,
      }),
    }),
    fc.record({ do: fc.constant('write' as const), who: fc.nat(2), fault: fc.constant(undefined) }),
    fc.record({ do: fc.constant('deliver' as const), reversed: fc.boolean() }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const { coordinator, key, open } = world();
      const members = [open(), open(), open()];
      const claims: (Claim | undefined)[] = [];
      let owner = -1;
      let acknowledged: PartitionState = emptyState;
      let unknown: PartitionState[] = [];
      let count = 0;
      for (const each of steps) {
        if (each.do === 'deliver') {
          coordinator.deliver(each.reversed);
        } else if (each.do === 'claim') {
          members[each.who]!.join();
          const claim = await valueOf(members[each.who]!.store.claim(key, `member ${each.who}`));
          expect([acknowledged, ...unknown]).toContainEqual(claim.state);
          [claims[each.who], owner, acknowledged, unknown] = [claim, each.who, claim.state, []];
        } else if (claims[each.who] !== undefined) {
          const { member, store } = members[each.who]!;
          const state = settledAt(count++);
          if (each.fault !== undefined) member.faults.push(each.fault);
          const outcome = await valueOf(store.write(claims[each.who]!, state)).catch(
            (error: { code: string }) => error.code,
          );
          member.faults.length = 0;
          const hadClaim = owner === each.who;
          if (typeof outcome !== 'string') {
            expect(hadClaim).toBe(true);
            [claims[each.who], acknowledged] = [outcome, state];
          } else if (outcome === 'KCR_FENCED' && hadClaim) {
            expect(['replyLost', 'late']).toContain(each.fault);
            unknown.push(state);
            owner = -1;
          } else {
            expect(outcome).toBe(each.fault === 'refused' && hadClaim ? 'KCR_STORE_UNREACHABLE' : outcome);
            if (hadClaim) expect(each.fault).toBe('refused');
          }
        }
        const { next, metadata } = coordinator.offset(key);
        if (owner !== -1) expect(stateFromOffset(next, metadata, key, nowMs).state).toEqual(acknowledged);
      }
    }),
    { numRuns: 300 },
  );
});
