// The contract of every state store, as tests: `stateStoreContract` for all, `stateStoreOutages` for those that are
// reached over a network.
import fc from 'fast-check';
import { from, lastValueFrom, type ObservableInput } from 'rxjs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { IngestError, type ErrorCode } from '../../src/errors.js';
import { stateFormat } from '../../src/model/state-codec.js';
import { emptyState, type Intent, type PartitionState } from '../../src/model/state.js';
import type { Claim, StateKey, StateStore } from '../../src/ports.js';
import { stateStoreContract as shippedContract } from '../../src/testing/contracts/state-store.js';
import type { TcpProxy } from '../support/tcp-proxy.js';

export interface StoreUnderTest {
  /** The store of a further process, over the same kept states. */
  open(): StateStore;
  /** The text that is kept; undefined when there is none. */
  peek(key: StateKey): Promise<string | undefined>;
  /** Puts a text in place of what is kept, as if a program of another version had. */
  poke(key: StateKey, text: string): Promise<void>;
  stop(): Promise<void>;
}

export interface NetworkStoreUnderTest extends StoreUnderTest {
  readonly proxy: TcpProxy;
  /** Like `open`, but through the proxy. Calls must give up within `patienceMs`. */
  openThroughProxy(): StateStore;
  readonly patienceMs: number;
}

export interface ContractConfig {
  /** Names of clusters and groups that a store could mix up. */
  readonly oddNames?: readonly string[];
  /** Keys that a store could mix up, for one that cannot have them all. @default by cluster, group, topic and partition */
  readonly keys?: (base: StateKey) => readonly StateKey[];
  /** The greatest offset that can be settled. @default 2^53 - 1 */
  readonly lastOffset?: number;
}

const oddNames = [
  'a',
  'a/b',
  'a%2Fb',
  'a%b',
  '.',
  '..',
  '%2E',
  '',
  '%',
  'a.b',
  'a b',
  'ä',
  'A',
  'zookeeper',
  '\u0000',
  "it's",
  '"',
  '\\',
];

/** The one value, as a promise. */
export function valueOf<T>(call: ObservableInput<T>): Promise<T> {
  return lastValueFrom(from(call));
}

/** The state a plain read gives. */
export async function stateIn(store: StateStore, key: StateKey): Promise<PartitionState> {
  return (await valueOf(store.read(key))).state;
}

export async function failureOf(call: ObservableInput<unknown>): Promise<IngestError> {
  const outcome: unknown = await valueOf(call).then(
    (value) => ({ value }),
    (error: unknown) => error,
  );
  if (outcome instanceof IngestError) return outcome;
  throw new Error('expected an IngestError', { cause: outcome });
}

async function expectFailure(call: ObservableInput<unknown>, code: ErrorCode): Promise<IngestError> {
  const error = await failureOf(call);
  expect(error).toMatchObject({ code });
  return error;
}

/** Matches a message. */
export function containing(part: string): unknown {
  return expect.stringContaining(part);
}

let keys = 0;

export function freshKey(): StateKey {
  return { cluster: 'cluster', group: `group-${process.pid}-${Date.now()}-${++keys}`, topic: 'events', partition: 3 };
}

export function intent(first: number, last: number, excluded: readonly number[] = []): Intent {
  return {
    first,
    last,
    rows: last - first + 1,
    atMs: 1_795_000_000_000,
    settings: 'f00d',
    tables: ['db.events'],
    excluded,
  };
}

export function settledAt(settled: number, ...pending: Intent[]): PartitionState {
  return { settled, pending, incarnation: 0, topicId: undefined };
}

export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + 60_000;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`waited in vain until ${what}`);
    await pause(10);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export function stateStoreContract(
  name: string,
  make: () => Promise<StoreUnderTest>,
  config: ContractConfig = {},
): void {
  describe(`${name} keeps the contract of a state store`, () => {
    let world: StoreUnderTest;
    beforeAll(async () => void (world = await make()));
    afterAll(() => world?.stop());

    function open(): StateStore {
      const store = world.open();
      onTestFinished(() => valueOf(store.close()));
      return store;
    }

    // What ships for the stores of others holds for ours.
    for (const { name: what, run } of shippedContract(open, config.keys === undefined ? {} : { keys: config.keys }))
      test(what, run);

    test('what was written is read by the next claim and by a plain read', async () => {
      const [store, other] = [open(), open()];
      const key = freshKey();
      let claim = await valueOf(store.claim(key, 'first'));
      const states = [
        { ...emptyState, pending: [intent(500, 509)] },
        settledAt(509),
        settledAt(509, intent(510, 519, [512, 513, 514, 518]), intent(520, 520)),
        { ...settledAt(520), incarnation: 7, topicId: 'h1QqWk3RTAyz0aBcDeFgHi' },
        { ...settledAt(-1), incarnation: 8 },
        settledAt(config.lastOffset ?? Number.MAX_SAFE_INTEGER),
      ];
      for (const state of states) {
        claim = await valueOf(store.write(claim, state));
        expect(claim).toMatchObject({ key, owner: 'first', state });
        expect(await stateIn(other, key)).toStrictEqual(state);
      }
      expect(await valueOf(other.claim(key, 'second'))).toMatchObject({ owner: 'second', state: states.at(-1) });
    });

    test('a claim fences its predecessor, who is told by whom', async () => {
      const [zombie, heir] = [open(), open()];
      const key = freshKey();
      const old = await valueOf(zombie.write(await valueOf(zombie.claim(key, 'zombie')), settledAt(1)));
      const current = await valueOf(heir.claim(key, 'heir#2'));
      const error = await expectFailure(zombie.write(old, settledAt(2)), 'KCR_FENCED');
      expect(error.message).toContain('heir#2');
      expect(error.message).toContain(key.group);
      expect(error.fields).toMatchObject({ topic: key.topic, partition: key.partition });
      expect(error.retryable).toBe(false);
      expect(await valueOf(heir.write(current, settledAt(3)))).toMatchObject({ state: settledAt(3) });
      await expectFailure(zombie.write(old, settledAt(2)), 'KCR_FENCED');
      expect(await stateIn(zombie, key)).toStrictEqual(settledAt(3));
    });

    test('while owners write, claims get through, and no write of a fenced owner lands', async () => {
      const key = freshKey();
      const stores = Array.from({ length: 4 }, () => open());
      let claims = 0;
      let landed = 0;
      let refused = 0;
      await Promise.all(
        stores.map(async (store, index) => {
          for (let turn = 0; turn < 10; turn++) {
            let claim = await valueOf(store.claim(key, `owner ${index}`));
            claims++;
            for (let writes = 0; writes < 5; writes++) {
              // Each state counts on from the one the claim stands on: a write that is lost or doubled breaks the count.
              const next = await valueOf(store.write(claim, settledAt((claim.state.settled ?? -1) + 1))).catch(
                (error: unknown) => error,
              );
              if (next instanceof IngestError) {
                expect(next.code).toBe('KCR_FENCED');
                refused++;
                break;
              }
              claim = next as Claim;
              landed++;
            }
          }
        }),
      );
      expect(claims).toBe(40);
      // One that had landed before the claim which fenced it may be told as refused: as if its writer had died then.
      const { settled = -1 } = await stateIn(stores[0]!, key);
      expect(settled + 1).toBeGreaterThanOrEqual(landed);
      expect(settled + 1).toBeLessThanOrEqual(landed + refused);
    });

    test('a write repeated with the same claim and state succeeds, as after a lost reply', async () => {
      const store = open();
      const key = freshKey();
      const claim = await valueOf(store.claim(key, 'first'));
      await valueOf(store.write(claim, settledAt(1)));
      const again = await valueOf(store.write(claim, settledAt(1)));
      expect(again.state).toStrictEqual(settledAt(1));
      const next = await valueOf(store.write(again, settledAt(2)));
      expect(await stateIn(store, key)).toStrictEqual(settledAt(2));
      await valueOf(store.write(next, settledAt(2)));
    });

    test('another state under a claim that was used already is refused', async () => {
      const store = open();
      const key = freshKey();
      const claim = await valueOf(store.claim(key, 'first'));
      await valueOf(store.write(claim, settledAt(1)));
      expect((await expectFailure(store.write(claim, settledAt(2)), 'KCR_FENCED')).message).toContain('used up');
      expect(await stateIn(store, key)).toStrictEqual(settledAt(1));
    });

    test('equal states of different writes are different writes', async () => {
      const [zombie, heir] = [open(), open()];
      const key = freshKey();
      const old = await valueOf(zombie.claim(key, 'same name'));
      const current = await valueOf(heir.claim(key, 'same name'));
      await valueOf(heir.write(current, settledAt(1)));
      await expectFailure(zombie.write(old, settledAt(1)), 'KCR_FENCED');
    });

    test('a state by a newer version of the program is refused and left alone', async () => {
      const store = open();
      const key = freshKey();
      await valueOf(store.claim(key, 'first'));
      const newer = JSON.stringify({ v: stateFormat + 1, owner: 'someone newer', write: 'x', everything: 'else' });
      await world.poke(key, newer);
      for (const call of [store.claim(key, 'older'), store.read(key)]) {
        const error = await expectFailure(call, 'KCR_STATE_INVALID');
        expect(error.message).toContain('newer version');
        expect(error.message).toContain('upgrade');
        expect(error.message).toContain(key.group);
        expect(error.message).toContain('someone newer');
      }
      expect(await world.peek(key)).toBe(newer);
    });

    test('a state of the format before goes on, with all that it says of what is in doubt', async () => {
      const store = open();
      const key = freshKey();
      await valueOf(store.claim(key, 'first'));
      const range = { first: 0, last: 99, rows: 58, atMs: 1_795_000_000_000, settings: 'f00d', tables: ['db.events'] };
      await world.poke(
        key,
        JSON.stringify({
          v: 2,
          owner: 'someone older',
          write: 'x',
          settled: -1,
          incarnation: 1,
          topicId: 'A',
          pending: [{ ...range, excluded: '43,50-52' }],
        }),
      );
      const claim = await valueOf(store.claim(key, 'second'));
      expect(claim.state).toStrictEqual({
        settled: -1,
        incarnation: 1,
        topicId: 'A',
        pending: [{ ...range, excluded: [43, 50, 51, 52] }],
      });
      await valueOf(store.write(claim, { ...claim.state, settled: 99, pending: [] }));
      expect(await stateIn(store, key)).toMatchObject({ settled: 99, pending: [] });
    });

    test('what a range was written to is kept with it', async () => {
      const store = open();
      const key = freshKey();
      const claim = await valueOf(store.claim(key, 'first'));
      const written = {
        id: '2057c3d3-b2a4-43fb-bc9b-b39db421d703',
        columns: 'tpo-1f3c9a',
        shape: '90aa31c4',
        alteredS: 1_794_990_000,
        mutation: 7,
      };
      const pending: Intent[] = [10, 20, 30].map((first) => ({
        ...intent(first, first + 9),
        ...(first === 10 ? {} : { floor: 10 }),
        written,
        tokenForm: 2,
      }));
      await valueOf(store.write(claim, settledAt(9, ...pending)));
      expect(await stateIn(store, key)).toStrictEqual(settledAt(9, ...pending));
    });

    test('a damaged state is refused and left alone, and fences', async () => {
      const store = open();
      const key = freshKey();
      const claim = await valueOf(store.claim(key, 'first'));
      await world.poke(key, '{"v":1,');
      await expectFailure(store.claim(key, 'second'), 'KCR_STATE_INVALID');
      await expectFailure(store.write(claim, settledAt(1)), 'KCR_FENCED');
      expect(await world.peek(key)).toBe('{"v":1,');
    });

    test('excluded offsets: runs are kept short, what does not fit is refused before anything is written', async () => {
      const store = open();
      const key = freshKey();
      const run = Array.from({ length: 5000 }, (_, index) => 1000 + index);
      const fits = settledAt(0, intent(1, 9999, run));
      let claim = await valueOf(store.write(await valueOf(store.claim(key, 'first')), fits));
      expect(await stateIn(store, key)).toStrictEqual(fits);
      const scattered = run.map((offset) => offset * 2 - 1000);
      const error = await expectFailure(
        store.write(claim, settledAt(0, intent(1, 99_999, scattered))),
        'KCR_STATE_INVALID',
      );
      expect(error.message).toContain('5000 excluded offsets');
      expect(await stateIn(store, key)).toStrictEqual(fits);
      claim = await valueOf(store.write(claim, settledAt(9999)));
      expect((await world.peek(key))!.length).toBeLessThan(4000);
    });

    test('an unsound state is refused before anything is written', async () => {
      const store = open();
      const key = freshKey();
      const claim = await valueOf(store.claim(key, 'first'));
      const before = await world.peek(key);
      await expectFailure(store.write(claim, settledAt(5, intent(7, 9))), 'KCR_STATE_INVALID');
      await expectFailure(store.write(claim, settledAt(2 ** 53)), 'KCR_STATE_INVALID');
      expect(await world.peek(key)).toBe(before);
      await valueOf(store.write(claim, settledAt(5)));
    });

    test('keys that differ in anything are kept apart', async () => {
      const store = open();
      const names = config.oddNames ?? oddNames;
      const base = freshKey();
      const all: readonly StateKey[] = config.keys?.(base) ?? [
        ...names.map((cluster) => ({ ...base, cluster })),
        ...names.map((name) => ({ ...base, group: base.group + name })),
        ...['a.b', 'a_b', 'a-b', 'A.b', '...'].map((topic) => ({ ...base, topic })),
        ...[0, 1, 10].map((partition) => ({ ...base, partition })),
        { ...base, cluster: 'x/y', group: `z${base.group}` },
        { ...base, cluster: 'x', group: `y/z${base.group}` },
      ];
      for (const [index, key] of all.entries()) {
        const claim = await valueOf(store.claim(key, `owner ${index}`));
        expect(claim.state).toStrictEqual(emptyState);
        await valueOf(store.write(claim, settledAt(index)));
      }
      for (const [index, key] of all.entries()) expect((await stateIn(store, key)).settled).toBe(index);
    });

    test('whatever the order of claims and writes, exactly the last claim writes', async () => {
      const stores = [open(), open(), open()];
      const step = fc.record({ who: fc.nat(2), what: fc.constantFrom('claim', 'write', 'repeat', 'write', 'stale') });
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
          const key = freshKey();
          const held: { claim: Claim; used?: Claim; isCurrent: boolean }[] = [];
          let expected: PartitionState = emptyState;
          for (const [index, { who, what }] of steps.entries()) {
            const mine = held[who];
            if (what === 'claim') {
              const claim = await valueOf(stores[who]!.claim(key, `owner ${who}`));
              expect(claim.state).toStrictEqual(expected);
              for (const other of Object.values(held)) other.isCurrent = false;
              held[who] = { claim, isCurrent: true };
            } else if (mine === undefined) {
              continue;
            } else if (what === 'write') {
              const outcome = await valueOf(stores[who]!.write(mine.claim, settledAt(index))).catch(
                (error: unknown) => error,
              );
              if (!mine.isCurrent) {
                expect(outcome).toMatchObject({ code: 'KCR_FENCED' });
                continue;
              }
              held[who] = { claim: outcome as Claim, used: mine.claim, isCurrent: true };
              expected = settledAt(index);
            } else if (mine.used !== undefined) {
              const state = what === 'repeat' ? mine.claim.state : settledAt(1000 + index);
              const outcome = await valueOf(stores[who]!.write(mine.used, state)).catch((error: unknown) => error);
              const isFine = mine.isCurrent && what === 'repeat';
              expect(outcome).toMatchObject(isFine ? { state } : { code: 'KCR_FENCED' });
              if (isFine) mine.claim = outcome as Claim;
            }
            expect(await stateIn(stores[0]!, key)).toStrictEqual(expected);
          }
        }),
        { numRuns: 25 },
      );
    });
  });
}

export function stateStoreOutages(name: string, make: () => Promise<NetworkStoreUnderTest>): void {
  describe(`${name} survives a bad network`, () => {
    let world: NetworkStoreUnderTest;
    beforeAll(async () => void (world = await make()));
    afterAll(() => world?.stop());

    /** `store` goes through the proxy and has its connection already, `direct` does not. */
    async function setUp() {
      const [store, direct] = [world.openThroughProxy(), world.open()];
      const { proxy } = world;
      const key = freshKey();
      onTestFinished(async () => {
        proxy.heal();
        await Promise.all([valueOf(store.close()), valueOf(direct.close())]);
      });
      const claim = await valueOf(store.write(await valueOf(store.claim(key, 'owner')), settledAt(0)));
      return { store, direct, proxy, key, claim };
    }

    const hasSettled = async (store: StateStore, key: StateKey, settled: number) =>
      (await stateIn(store, key)).settled === settled;

    test('the reply to a write is lost: the write is found and counts once', async () => {
      const { store, direct, proxy, key, claim } = await setUp();
      proxy.dropReplies();
      const writing = valueOf(store.write(claim, settledAt(1)));
      await until('the write has landed', () => hasSettled(direct, key, 1));
      proxy.heal();
      proxy.cut();
      const next = await valueOf(store.write(await writing, settledAt(2)));
      expect(next.state).toStrictEqual(settledAt(2));
      expect(await stateIn(direct, key)).toStrictEqual(settledAt(2));
    });

    test('the reply is lost and the caller is told so: the same write once more succeeds', async () => {
      const { store, direct, proxy, key, claim } = await setUp();
      proxy.dropReplies();
      const error = await expectFailure(store.write(claim, settledAt(1)), 'KCR_STORE_UNREACHABLE');
      expect(error.retryable).toBe(true);
      expect(await hasSettled(direct, key, 1)).toBe(true);
      proxy.heal();
      const next = await valueOf(store.write(claim, settledAt(1)));
      await valueOf(store.write(next, settledAt(2)));
    });

    test('the reply is lost and somebody else claims: the writer is fenced, its write is kept', async () => {
      const { store, direct, proxy, key, claim } = await setUp();
      proxy.dropReplies();
      const writing = failureOf(store.write(claim, settledAt(1)));
      await until('the write has landed', () => hasSettled(direct, key, 1));
      const heir = await valueOf(direct.claim(key, 'heir'));
      expect(heir.state).toStrictEqual(settledAt(1));
      proxy.heal();
      proxy.cut();
      expect(await writing).toMatchObject({ code: 'KCR_FENCED' });
      await valueOf(direct.write(heir, settledAt(2)));
    });

    test('a request arrives after its repetition: it changes nothing', async () => {
      const { store, direct, proxy, key, claim } = await setUp();
      proxy.holdRequests();
      const writing = valueOf(store.write(claim, settledAt(1)));
      await until('the request is held', () => proxy.heldBytes > 0);
      proxy.cut();
      const second = await valueOf(store.write(await writing, settledAt(2)));
      expect(proxy.heldBytes).toBeGreaterThan(0);
      proxy.releaseRequests();
      await pause(300);
      expect(await stateIn(direct, key)).toStrictEqual(settledAt(2));
      await valueOf(store.write(second, settledAt(3)));
    });

    test('a request arrives after its caller gave up: the repetition finds it', async () => {
      const { store, direct, proxy, key, claim } = await setUp();
      proxy.holdRequests();
      const failure = failureOf(store.write(claim, settledAt(1)));
      await until('the request is held', () => proxy.heldBytes > 0);
      proxy.down();
      expect(await failure).toMatchObject({ code: 'KCR_STORE_UNREACHABLE', retryable: true });
      expect(await hasSettled(direct, key, 0)).toBe(true);
      proxy.releaseRequests();
      await until('the late request has landed', () => hasSettled(direct, key, 1));
      proxy.heal();
      const next = await valueOf(store.write(claim, settledAt(1)));
      await valueOf(store.write(next, settledAt(2)));
    });

    test('a request of a former owner arrives after the heir has claimed: it changes nothing', async () => {
      const { store, direct, proxy, key, claim } = await setUp();
      proxy.holdRequests();
      const failure = failureOf(store.write(claim, settledAt(1)));
      await until('the request is held', () => proxy.heldBytes > 0);
      proxy.down();
      expect(await failure).toMatchObject({ code: 'KCR_STORE_UNREACHABLE' });
      const heir = await valueOf(direct.claim(key, 'heir'));
      expect(heir.state).toStrictEqual(settledAt(0));
      proxy.releaseRequests();
      await pause(300);
      expect(await stateIn(direct, key)).toStrictEqual(settledAt(0));
      await valueOf(direct.write(heir, settledAt(5)));
      proxy.heal();
      expect(await failureOf(store.write(claim, settledAt(1)))).toMatchObject({ code: 'KCR_FENCED' });
    });

    test.each(['down', 'pause'] as const)(
      'the network is away (%s): every call says so in time, then works again',
      async (fault) => {
        const { store, proxy, key, claim } = await setUp();
        proxy[fault]();
        for (const call of [
          () => store.write(claim, settledAt(1)),
          () => store.claim(freshKey(), 'x'),
          () => store.read(key),
        ]) {
          // In time by a timer that a busy machine delays as well.
          const late = pause(world.patienceMs).then(() =>
            Promise.reject(new Error(`nothing was said within ${world.patienceMs} ms`)),
          );
          const error = await Promise.race([expectFailure(call(), 'KCR_STORE_UNREACHABLE'), late]);
          expect(error.retryable).toBe(true);
          expect(error.message).toContain(proxy.address);
          expect(error.message).toContain('What to do');
        }
        proxy.heal();
        const next = await valueOf(store.write(claim, settledAt(1)));
        expect((await valueOf(store.write(next, settledAt(2)))).state).toStrictEqual(settledAt(2));
      },
    );

    test('a claim that nobody waits for any more is not made later: it would fence the new owner', async () => {
      const { store, direct, proxy, key } = await setUp();
      proxy.down();
      const claiming = from(store.claim(key, 'lost its assignment')).subscribe({ error: () => undefined });
      await pause(40);
      claiming.unsubscribe();
      const heir = await valueOf(direct.claim(key, 'heir'));
      proxy.heal();
      await pause(world.patienceMs);
      await valueOf(direct.write(heir, settledAt(1)));
    });

    test('a write that nobody waits for any more is not made later', async () => {
      const { store, direct, proxy, key, claim } = await setUp();
      proxy.down();
      const writing = from(store.write(claim, settledAt(1))).subscribe({ error: () => undefined });
      await pause(40);
      writing.unsubscribe();
      proxy.heal();
      await pause(world.patienceMs);
      expect(await stateIn(direct, key)).toStrictEqual(settledAt(0));
    });

    test('a short interruption is not noticed', async () => {
      const { store, proxy, claim } = await setUp();
      proxy.down();
      const writing = valueOf(store.write(claim, settledAt(1)));
      await pause(60);
      proxy.heal();
      expect((await writing).state).toStrictEqual(settledAt(1));
    });

    test('many partitions at once, connections cut again and again: every count stays exact', async () => {
      const { store, direct, proxy } = await setUp();
      const cutting = (async () => {
        for (let cuts = 0; cuts < 30; cuts++) {
          await pause(5 + Math.random() * 35);
          proxy.cut();
        }
      })();
      const partitions = Array.from({ length: 8 }, (_, partition) => ({ ...freshKey(), partition }));
      await Promise.all(
        partitions.map(async (key) => {
          let claim = await insist(() => store.claim(key, 'owner'));
          for (let settled = 0; settled < 60; settled++) {
            const held = claim;
            claim = await insist(() => store.write(held, settledAt(settled)));
            if (settled % 10 === 0) await pause(20);
          }
        }),
      );
      await cutting;
      for (const key of partitions) expect((await stateIn(direct, key)).settled).toBe(59);
    });
  });
}

/** Again while the store is not reached, as the pipeline does. */
export async function insist<T>(call: () => ObservableInput<T>): Promise<T> {
  for (;;) {
    try {
      return await valueOf(call());
    } catch (error) {
      if (!(error instanceof IngestError) || !error.retryable) throw error;
    }
  }
}
