// A store as the contract wants it, made of members of Kafka's groups: whoever claims joins the group and gets the
// partition; the former owner is left behind under its old generation, and is not told.
import { defer, from, lastValueFrom } from 'rxjs';
import { hasCode } from '../../src/errors.js';
import type { Claim, StateKey, StateStore } from '../../src/ports.js';
import { kafkaStore, type CommittedOffset, type OffsetSource } from '../../src/state/kafka.js';
import { pause } from './contract.js';

export interface Membership {
  readonly source: OffsetSource;
  /** Resolves when the partition is assigned to this member, in a new generation. */
  readonly join: (topic: string, partition: number) => Promise<unknown>;
}

export interface MembershipsConfig {
  /** A further member of a group, not joined yet. */
  readonly member: (group: string) => Membership;
  readonly committed: (key: StateKey) => Promise<CommittedOffset>;
}

/** What a Kafka cluster's groups and topics can be called, all of one cluster. */
export const kafkaKeys = (base: StateKey): readonly StateKey[] => [
  ...['', 'a', 'a/b', 'a%2Fb', '.', '..', '%', 'a b', 'ä', 'A', "it's", '"', '\\'].map((name) => ({
    ...base,
    group: base.group + name,
  })),
  ...['a.b', 'a-b', 'A.b', '...'].map((topic) => ({ ...base, topic })),
  ...[0, 1, 10].map((partition) => ({ ...base, partition })),
];

/** One process: a member of each group of which it claims a partition. */
export function memberStore({ member, committed }: MembershipsConfig): StateStore {
  const members = new Map<string, Pick<Membership, 'join'> & { readonly store: StateStore }>();
  const of = (group: string) => {
    const known = members.get(group);
    if (known !== undefined) return known;
    const { source, join } = member(group);
    const joined = { join, store: kafkaStore(source, { group, committed }).store };
    members.set(group, joined);
    return joined;
  };
  const claim = async (key: StateKey, owner: string): Promise<Claim> => {
    const { join, store } = of(key.group);
    for (let pauseMs = 20; ; pauseMs = Math.min(pauseMs * 2, 640)) {
      await join(key.topic, key.partition);
      try {
        return await lastValueFrom(from(store.claim(key, owner)));
      } catch (thrown) {
        // Somebody else has joined meanwhile. In the pipeline too the member joins again after a while, then claims.
        if (!hasCode(thrown, 'KCR_FENCED')) throw thrown;
        await pause(Math.random() * pauseMs);
      }
    }
  };
  return {
    name: 'kafka',
    claim: (key, owner) => defer(() => claim(key, owner)),
    write: (held, state) => defer(() => from(of(held.key.group).store.write(held, state))),
    read: (key) => defer(() => from(of(key.group).store.read(key))),
    close: async () => void (await Promise.all([...members.values()].map(({ store }) => store.close()))),
  };
}
