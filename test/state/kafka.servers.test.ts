// The store in Kafka's offsets, on a real broker and with the real source.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { hasCode } from '../../src/errors.js';
import type { IngestEvent } from '../../src/events.js';
import { Membership } from '../../src/kafka/group/membership.js';
import { sourceSettings } from '../../src/kafka/options.js';
import type { KafkaSourceOptions } from '../../src/kafka/source.js';
import { openConnection } from '../../src/kafka/connection/kafka-connection.js';
import { encodeState, stateLimits } from '../../src/model/state-codec.js';
import type { PartitionState } from '../../src/model/state.js';
import type { Revoked, StateKey } from '../../src/ports.js';
import { kafkaStore } from '../../src/state/kafka.js';
import { Watch, type Behaviour } from '../kafka/watch.js';
import { createTopic, withAdmin } from '../stack/clients.js';
import { startStack, type Stack } from '../stack/stack.js';
import {
  containing,
  failureOf,
  freshKey,
  insist,
  intent,
  pause,
  settledAt,
  stateIn,
  stateStoreContract,
  valueOf,
} from './contract.js';
import { BrokerGroups, makeTopic } from './kafka-broker.js';
import { kafkaKeys, memberStore } from './kafka-members.js';

let stack: Stack;
let groups: BrokerGroups;
beforeAll(async () => {
  stack = await startStack({ keeper: false, clickhouse: false, useEnvironment: false });
  for (const topic of ['events', 'a.b', 'a-b', 'A.b', '...']) await makeTopic(stack.brokers, topic, 11);
  groups = await BrokerGroups.open(stack.brokers);
});
afterAll(async () => {
  await groups?.close();
  await stack?.stop();
});

stateStoreContract(
  "the store in Kafka's offsets",
  async () => ({
    open: () => memberStore({ member: (group) => groups.member(group), committed: (key) => groups.committed(key) }),
    peek: async (key) => (await groups.committed(key)).metadata || undefined,
    poke: (key, text) => groups.put(key, 0, text),
    stop: async () => undefined,
  }),
  { keys: kafkaKeys, lastOffset: Number.MAX_SAFE_INTEGER - 1 },
);

/** Rebalances are seen within 200 ms. */
const QUICK = {
  heartbeatIntervalMs: 200,
  sessionTimeoutMs: 6000,
  rebalanceTimeoutMs: 20_000,
  requestTimeoutMs: 2000,
  connectTimeoutMs: 1000,
} as const;
/** A member that does not notice that it was expelled. */
const ASLEEP = {
  ...QUICK,
  heartbeatIntervalMs: 60_000,
  sessionTimeoutMs: 120_000,
  rebalanceTimeoutMs: 300_000,
} as const;

async function oneTopic(partitions = 1): Promise<StateKey> {
  const topic = freshKey().group;
  await makeTopic(stack.brokers, topic, partitions);
  return { cluster: 'cluster', group: topic, topic, partition: 0 };
}

/** A process: the real source with the store that goes with it. */
function member(
  { group, topic, partition }: StateKey,
  options: Partial<KafkaSourceOptions> = QUICK,
  behaviour: Behaviour = {},
) {
  const told: IngestEvent[] = [];
  const watch = new Watch(
    { brokers: stack.brokers, topics: [topic], groupId: group, fromBeginning: true, stateDecides: true, ...options },
    behaviour,
  );
  const { store, source } = kafkaStore(watch.source, { group, onEvent: (event) => told.push(event) });
  const stop = async () => {
    watch.unsubscribe();
    await valueOf(store.close());
  };
  onTestFinished(stop);
  const assigned = () => watch.until(() => watch.source.assignmentOf(topic, partition) !== undefined);
  return { watch, store, source, told, stop, assigned };
}

/** As the coordinator does with one that it does not hear of. */
async function expel({ group }: StateKey): Promise<void> {
  const { groups: described } = await withAdmin(stack.brokers, (admin) => admin.describeGroups([group]));
  const wire = openConnection(sourceSettings({ brokers: stack.brokers, topics: ['any'], groupId: group }));
  await wire.cluster.connect();
  const coordinator = await wire.cluster.findGroupCoordinator({ groupId: group });
  for (const { memberId } of described[0]?.members ?? []) await coordinator.leaveGroup({ groupId: group, memberId });
  await wire.cluster.disconnect();
}

const marked = (incarnation: number): PartitionState => ({ ...settledAt(-1), incarnation });

describe('with the real source', () => {
  test('a first start: the place the source has chosen is a beginning, under an incarnation never used', async () => {
    const key = await oneTopic();
    const { store, assigned, told } = member(key);
    await assigned();
    expect(await groups.committed(key)).toEqual({ next: 0, metadata: 'chosen' });
    const before = Math.floor(Date.now() / 1000);
    const { state } = await valueOf(store.claim(key, 'me'));
    expect(state).toEqual({ settled: -1, pending: [], incarnation: expect.any(Number) as number, topicId: undefined });
    expect(state.incarnation).toBeGreaterThanOrEqual(before);
    expect(told).toMatchObject([{ kind: 'kafka', fields: { next: 0, incarnation: state.incarnation } }]);
    expect(await groups.committed(key)).toEqual({ next: 0, metadata: containing('"owner":"me"') });
  });

  test("the former owner's write after a rebalance is refused by the broker, tells by whom, and changes nothing", async () => {
    const key = await oneTopic();
    const zombie = member(key, ASLEEP);
    await zombie.assigned();
    const old = await valueOf(zombie.store.write(await valueOf(zombie.store.claim(key, 'zombie')), marked(1)));
    await expel(key);
    const heir = member(key);
    await heir.assigned();
    const current = await valueOf(heir.store.claim(key, 'heir'));
    expect(current.state).toEqual(marked(1));
    const before = await groups.committed(key);
    // It still believes in its assignment: the broker does not.
    expect(zombie.watch.source.assignmentOf(key.topic, 0)).toBeDefined();
    expect(await failureOf(zombie.store.write(old, marked(2)))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('heir has taken the partition over'),
    });
    expect(await groups.committed(key)).toEqual(before);
    // It joins again now, as the group goes on without it; the heir's commits are taken until that is done.
    zombie.watch.unsubscribe();
    await valueOf(heir.store.write(current, marked(3)));
    expect(await stateIn(heir.store, key)).toEqual(marked(3));
  });

  test('what is settled while a revoked partition drains is taken under the old generation, and found by the next owner', async () => {
    const key = await oneTopic();
    let onRevoked: (event: Revoked) => void = ({ release }) => release();
    const first = member(key, QUICK, { onRevoked: (event) => onRevoked(event) });
    await first.assigned();
    const claim = await valueOf(
      first.store.write(await valueOf(first.store.claim(key, 'first')), { ...marked(1), pending: [intent(0, 9)] }),
    );
    const drained = new Promise<void>((resolve) => {
      onRevoked = ({ release }) => {
        void sleep(500)
          .then(() => valueOf(first.store.write(claim, { ...settledAt(9), incarnation: 1 })))
          .then(() => {
            release();
            resolve();
          });
      };
    });
    first.watch.source.drain();
    const second = member(key);
    await drained;
    await second.assigned();
    expect((await valueOf(second.store.claim(key, 'second'))).state).toEqual({ ...settledAt(9), incarnation: 1 });
  });

  test('a renewed tenure in the same generation claims again, and fences the one before', async () => {
    const key = await oneTopic();
    const { store, source, watch, assigned } = member(key, { ...QUICK, sessionTimeoutMs: 4000 });
    await assigned();
    const [former] = watch.owned;
    const old = await valueOf(store.write(await valueOf(store.claim(key, 'first')), marked(1)));
    source.reassign(former!);
    expect(await failureOf(store.write(old, marked(2)))).toMatchObject({ code: 'KCR_FENCED' });
    await assigned();
    const current = await valueOf(store.claim(key, 'second'));
    expect(watch.owned[0]).toMatchObject({ generation: former!.generation });
    expect(current.state).toEqual(marked(1));
    expect(await failureOf(store.write(old, marked(2)))).toMatchObject({ code: 'KCR_FENCED' });
    await valueOf(store.write(current, marked(3)));
  });

  test('the broker is killed again and again: every acknowledged write is there, one without a reply is found by the next claim', async () => {
    const key = await oneTopic();
    const { store, watch } = member(key);
    let isOver = false;
    let acknowledged: PartitionState | undefined;
    let unknown: PartitionState[] = [];
    const tally = { claims: 0, writes: 0, unknown: 0 };
    const owner = async () => {
      for (let count = 1; !isOver;) {
        try {
          await watch.until(() => watch.source.assignmentOf(key.topic, 0) !== undefined);
          let claim = await insist(() => store.claim(key, `owner ${tally.claims}`));
          tally.claims++;
          if (acknowledged !== undefined) expect([acknowledged, ...unknown]).toContainEqual(claim.state);
          [acknowledged, unknown] = [claim.state, []];
          while (!isOver) {
            const [held, state] = [claim, marked(count++)];
            unknown = [state];
            claim = await insist(() => store.write(held, state));
            [acknowledged, unknown] = [state, []];
            tally.writes++;
          }
        } catch (thrown) {
          if (!hasCode(thrown, 'KCR_FENCED')) throw thrown;
          tally.unknown += unknown.length;
          await pause(50);
        }
      }
    };
    const owning = owner();
    for (let kill = 0; kill < 3; kill++) {
      const before = tally.writes;
      await vi.waitFor(() => expect(tally.writes).toBeGreaterThan(before + 20), { timeout: 60_000 });
      await stack.kafka!.kill();
      await stack.kafka!.start();
      await vi.waitFor(() => expect(tally.writes).toBeGreaterThan(before + 40), { timeout: 60_000 });
    }
    isOver = true;
    await owning;
    expect([acknowledged, ...unknown]).toContainEqual(await stateIn(store, key));
    expect(tally.claims).toBeGreaterThan(1);
    expect(tally.unknown).toBeGreaterThan(0);
  }, 300_000);

  test("an administrator's reset takes the state away: a beginning there, under a new incarnation, which is told", async () => {
    const key = await oneTopic();
    const first = member(key);
    await first.assigned();
    const claim = await valueOf(first.store.claim(key, 'first'));
    await valueOf(first.store.write(claim, { ...claim.state, settled: 99, pending: [intent(100, 109)] }));
    first.watch.source.drain();
    await first.watch.until(({ isComplete }) => isComplete);
    await withAdmin(stack.brokers, (admin) =>
      admin.setOffsets({ groupId: key.group, topic: key.topic, partitions: [{ partition: 0, offset: '40' }] }),
    );
    expect(await groups.committed(key)).toEqual({ next: 40, metadata: '' });
    await pause(1000);
    const second = member(key);
    await second.assigned();
    const { state } = await valueOf(second.store.claim(key, 'second'));
    expect(state).toMatchObject({ settled: 39, pending: [] });
    expect(state.incarnation).toBeGreaterThan(claim.state.incarnation);
    expect(second.told).toMatchObject([
      {
        kind: 'kafka',
        level: 'info',
        fields: { topic: key.topic, partition: 0, next: 40, incarnation: state.incarnation },
      },
    ]);
  });

  test('a topic that is deleted takes its state along: the one recreated is a beginning, under a new incarnation', async () => {
    const key = await oneTopic();
    const first = member(key);
    await first.assigned();
    const claim = await valueOf(first.store.write(await valueOf(first.store.claim(key, 'first')), marked(1)));
    await first.stop();
    expect(claim.state.incarnation).toBe(1);
    await withAdmin(stack.brokers, (admin) => admin.deleteTopics({ topics: [key.topic] }));
    await vi.waitFor(() => createTopic(stack.brokers, key.topic), { timeout: 20_000, interval: 200 }); // not before the old one is gone
    expect(await groups.committed(key)).toEqual({ next: undefined, metadata: '' });
    const second = member(key);
    await second.assigned();
    expect((await valueOf(second.store.claim(key, 'second'))).state.incarnation).toBeGreaterThan(1_700_000_000);
  });
});

test('a commit pinned to a generation that the same member has left is refused', async () => {
  const key = { ...freshKey(), partition: 0 };
  const settings = sourceSettings({ brokers: stack.brokers, topics: [key.topic], groupId: key.group });
  const wire = openConnection(settings);
  await wire.cluster.connect();
  onTestFinished(() => wire.cluster.disconnect());
  const membership = new Membership(wire, settings);
  const { signal } = new AbortController();
  const before = (await membership.join(signal))!;
  membership.demandGeneration(before);
  const after = (await membership.join(signal))!;
  expect(after).toMatchObject({ memberId: before.memberId, generationId: before.generationId + 1 });
  const commit = { topic: key.topic, partition: 0, next: 1, metadata: 'late' };
  await expect(membership.commitOnce(before, commit)).rejects.toMatchObject({
    code: 'KCR_FENCED',
    fields: { serverCode: 'ILLEGAL_GENERATION' },
  });
  expect(await groups.committed(key)).toEqual({ next: undefined, metadata: '' });
});

test('the longest state that may be written fits beside an offset, and is read back whole', async () => {
  const key = freshKey();
  const store = memberStore({ member: (group) => groups.member(group), committed: (of) => groups.committed(of) });
  const owner = 'ä'.repeat(stateLimits.ownerBytes / 2);
  const stateWith = (count: number): PartitionState =>
    settledAt(
      -1,
      intent(
        0,
        99_999,
        Array.from({ length: count }, (_, index) => index * 2),
      ),
    );
  const fits = (count: number): boolean => {
    try {
      return encodeState({ state: stateWith(count), owner, write: 'w'.repeat(stateLimits.writeBytes) }, key) !== '';
    } catch {
      return false;
    }
  };
  let count = 1;
  while (fits(count + 1)) count++;
  await valueOf(store.write(await valueOf(store.claim(key, owner)), stateWith(count)));
  expect(await stateIn(store, key)).toEqual(stateWith(count));
  // And at the limit itself, with everything in it two bytes wide.
  const text = JSON.stringify('ä'.repeat(stateLimits.bytes / 2 - 1));
  expect(Buffer.byteLength(text)).toBe(stateLimits.bytes);
  await groups.put(key, 1, text);
  expect((await groups.committed(key)).metadata).toBe(text);
});
