/**
 * The contract of a state store. Imports: model, ports.
 */
import type { Claim, StateKey, StateStore } from '../../ports.js';
import { emptyState, type Intent, type PartitionState } from '../../model/state.js';
import { expectFailure, expectSame, expectThat, valueOf, type ContractCheck } from './check.js';

let keys = 0;

function freshKey(): StateKey {
  return { cluster: 'cluster', group: `contract-${Date.now()}-${++keys}`, topic: 'events', partition: 3 };
}

function intent(first: number, last: number, excluded: readonly number[] = []): Intent {
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

function settledAt(settled: number, ...pending: readonly Intent[]): PartitionState {
  return { settled, pending, incarnation: 0, topicId: undefined };
}

async function expectState(store: StateStore, key: StateKey, state: PartitionState, what: string): Promise<void> {
  expectSame((await valueOf(store.read(key))).state, state, what);
}

/** The keys that the contract uses. */
export interface StateStoreContractConfig {
  /**
   * Keys that a store could mix up, for one that cannot have them all. @default others by cluster, group, topic and
   * partition
   */
  readonly keys?: (base: StateKey) => readonly StateKey[];
}

function keysLike(key: StateKey): readonly StateKey[] {
  return [
    key,
    { ...key, cluster: 'other' },
    { ...key, group: `${key.group}x` },
    { ...key, topic: 'events.2' },
    { ...key, partition: 4 },
  ];
}

/**
 * Checks for `open`, which gives the store of a further process over the same kept states. Whoever opens closes: where
 * that matters, let `open` remember them.
 */
export function stateStoreContract(
  open: Open,
  { keys: keysOf = keysLike }: StateStoreContractConfig = {},
): readonly ContractCheck[] {
  const check = (
    name: string,
    run: (one: StateStore, other: StateStore, key: StateKey, open: Open) => Promise<void>,
  ): ContractCheck => ({
    name,
    run: async () => run(await open(), await open(), freshKey(), open),
  });
  return [...values(check, keysOf), ...fencing(check), ...repeats(check)];
}

/** The store of a further process, over the same kept states. */
type Open = () => StateStore | Promise<StateStore>;

type Check = (
  name: string,
  run: (one: StateStore, other: StateStore, key: StateKey, open: Open) => Promise<void>,
) => ContractCheck;

function values(check: Check, keysOf: (base: StateKey) => readonly StateKey[]): readonly ContractCheck[] {
  return [
    check('what nobody ever claimed is the empty state', async (store, _, key) => {
      await expectState(store, key, emptyState, 'read before any claim');
      const claim = await valueOf(store.claim(key, 'first'));
      expectSame([claim.key, claim.owner, claim.state], [key, 'first', emptyState], 'the first claim');
    }),
    check(
      'what was written is read by the next claim and by a plain read, with all its fields',
      async (store, other, key) => {
        let claim = await valueOf(store.claim(key, 'first'));
        const states = [
          { ...emptyState, pending: [intent(500, 509)] },
          settledAt(
            509,
            { ...intent(510, 519, [512, 513]), isFilling: true, transformVersion: 'v1' },
            intent(520, 520),
          ),
          { ...settledAt(520), incarnation: 7, topicId: 'h1QqWk3RTAyz0aBcDeFgHi' },
          settledAt(9_000_000_000_000),
        ];
        for (const state of states) {
          claim = await valueOf(store.write(claim, state));
          expectSame([claim.key, claim.owner, claim.state], [key, 'first', state], 'the claim that a write gives');
          await expectState(other, key, state, 'a plain read');
        }
        expectSame((await valueOf(other.claim(key, 'second'))).state, states.at(-1), 'the next claim');
      },
    ),
    check('keys that differ in anything are kept apart', async (store, _, key) => {
      const all = keysOf(key);
      for (const [at, each] of all.entries())
        await valueOf(store.write(await valueOf(store.claim(each, 'me')), settledAt(at)));
      for (const [at, each] of all.entries())
        await expectState(store, each, settledAt(at), `key ${JSON.stringify(each)}`);
    }),
  ];
}

function fencing(check: Check): readonly ContractCheck[] {
  return [
    check(
      'a claim fences its predecessor: every later write of it fails with KCR_FENCED and leaves no trace',
      async (zombie, heir, key) => {
        const old = await valueOf(zombie.write(await valueOf(zombie.claim(key, 'zombie')), settledAt(1)));
        const current = await valueOf(heir.claim(key, 'heir'));
        await expectFailure(
          () => zombie.write(old, settledAt(2)),
          'KCR_FENCED',
          'a write under a claim that is not the last one',
        );
        await valueOf(heir.write(current, settledAt(3)));
        await expectFailure(
          () => zombie.write(old, settledAt(2)),
          'KCR_FENCED',
          'the same, after the heir has written',
        );
        await expectState(zombie, key, settledAt(3), 'what the heir wrote');
      },
    ),
    check('a claim by the same owner fences the earlier one, too', async (store, _, key) => {
      const old = await valueOf(store.claim(key, 'me'));
      await valueOf(store.claim(key, 'me'));
      await expectFailure(() => store.write(old, settledAt(1)), 'KCR_FENCED', 'a write under the earlier claim');
    }),
    check('of ten that claim at once exactly one can write', async (_one, _other, key, open) => {
      const rivals = await Promise.all(Array.from({ length: 10 }, async () => open()));
      const claims = await Promise.all(rivals.map((store, i) => valueOf(store.claim(key, `owner-${i}`))));
      const landed = await Promise.all(
        rivals.map((store, i) =>
          valueOf(store.write(claims[i]!, settledAt(i))).then(
            () => 1,
            () => 0,
          ),
        ),
      );
      expectThat(
        landed.reduce<number>((sum, one) => sum + one, 0) === 1,
        `expected one write to land, got ${landed.join(' ')}`,
      );
    }),
    check('a claim or a write that nobody subscribes to has no effect', async (store, other, key) => {
      const claim = await valueOf(store.claim(key, 'first'));
      void store.write(claim, settledAt(7));
      void other.claim(key, 'second');
      await new Promise((resolve) => setTimeout(resolve, 50));
      await expectState(store, key, emptyState, 'after calls that nobody subscribed to');
      await valueOf(store.write(claim, settledAt(8)));
    }),
  ];
}

function repeats(check: Check): readonly ContractCheck[] {
  return [
    check(
      'a write repeated with the same claim and state succeeds, as after a lost reply',
      async (store, other, key) => {
        const claim = await valueOf(store.claim(key, 'me'));
        await valueOf(store.write(claim, settledAt(5)));
        const again: Claim = await valueOf(store.write(claim, settledAt(5)));
        await valueOf(store.write(again, settledAt(6)));
        await expectState(other, key, settledAt(6), 'the write behind the repeated one');
      },
    ),
    check('another state under a claim that was used already is refused', async (store, _, key) => {
      const claim = await valueOf(store.claim(key, 'me'));
      await valueOf(store.write(claim, settledAt(5)));
      await expectFailure(() => store.write(claim, settledAt(9)), 'KCR_FENCED', 'a second state under one claim');
      await expectState(store, key, settledAt(5), 'the first state');
    }),
    check('a write of long ago is not mistaken for a later one of the same state', async (store, _, key) => {
      const first = await valueOf(store.claim(key, 'me'));
      const second = await valueOf(store.write(first, settledAt(1)));
      await valueOf(store.write(await valueOf(store.write(second, settledAt(2))), settledAt(1)));
      await expectFailure(() => store.write(first, settledAt(1)), 'KCR_FENCED', 'the first write once more');
    }),
  ];
}
