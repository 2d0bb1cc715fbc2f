/**
 * Room: the stored states, as a person's commands read and replace them.
 */
import { randomUUID } from 'node:crypto';
import { firstValueFrom, from } from 'rxjs';
import type { CheckedConfig } from './config/config.js';
import { IngestError } from './errors.js';
import { commitToEmptyGroup, groupNow, type GroupPartition } from './kafka/group-admin.js';
import { encodeState } from './model/state-codec.js';
import { resumeOffset, type PartitionState } from './model/state.js';
import type { StateKey, StateStore, Stored } from './ports.js';
import { keeperMapConfig } from './config/adapter-options.js';
import { stateFromOffset } from './state/kafka.js';
import { keeperMapStore } from './state/keeper-map.js';
import { keeperStore } from './state/keeper.js';

export interface StateAccess {
  readonly name: string;
  /** `found`: what the group has committed, for the store that lives there. */
  read(key: StateKey, found: GroupPartition): Promise<Stored>;
  /**
   * Takes the partition over and writes what `next` makes of the state that is there then. A process that runs is
   * fenced by it. When `next` throws the state stays as it is.
   */
  replace(
    at: { readonly key: StateKey },
    owner: string,
    next: (found: PartitionState) => PartitionState,
  ): Promise<void>;
  close(): Promise<void>;
}

/** @throws `KCR_CONFIG` where there is no state that outlives its process. */
export function openStateAccess(config: CheckedConfig): StateAccess {
  const { state, delivery } = config;
  if (delivery !== 'exactly-once' || state === undefined) {
    throw new IngestError('KCR_CONFIG', `There is no state to look at: delivery is "${delivery}"`, {
      hint: 'only exactly-once keeps one; how far the group is, kafka-consumer-groups.sh tells',
    });
  }
  switch (state.store) {
    case 'keeper':
      return accessThrough(keeperStore(state));
    case 'keeper-map':
      return accessThrough(keeperMapStore(keeperMapConfig(config, state)));
    case 'kafka':
      return accessThroughGroup(config);
    case 'memory':
      throw new IngestError(
        'KCR_CONFIG',
        'There is no state to look at: state.store is "memory", which only the process that runs can see',
        {
          hint: 'use "keeper", "keeper-map" or "kafka"',
        },
      );
  }
}

function accessThrough(store: StateStore): StateAccess {
  return {
    name: store.name,
    read: (key) => firstValueFrom(from(store.read(key))),
    replace: async ({ key }, owner, next) => {
      const claim = await firstValueFrom(from(store.claim(key, owner)));
      await firstValueFrom(from(store.write(claim, next(claim.state))));
    },
    close: () => store.close(),
  };
}

/**
 * The state beside the group's committed offset. Nobody can be fenced from outside of the group, so it must be empty:
 * the broker refuses otherwise.
 */
function accessThroughGroup({ kafka }: Pick<CheckedConfig, 'kafka'>): StateAccess {
  const stateOf = (key: StateKey, { committed, metadata }: GroupPartition) =>
    stateFromOffset(committed, metadata, key, Date.now());
  return {
    name: 'kafka',
    read: async (key, found) => {
      const { state, owner } = stateOf(key, found);
      return { state, owner: owner === '' ? undefined : owner };
    },
    replace: async ({ key }, owner, next) => {
      const options = { ...kafka, topics: [key.topic] };
      const { partitions } = await groupNow(options);
      const found = partitions.find(({ partition }) => partition === key.partition);
      if (found === undefined)
        throw new IngestError('KCR_TOPIC_MISSING', 'The partition is not there any more', {
          topic: key.topic,
          partition: key.partition,
        });
      const state = next(stateOf(key, found).state);
      const resume = resumeOffset(state);
      if (resume === undefined)
        throw new IngestError('KCR_INTERNAL', 'A state without an offset was to be committed', {
          topic: key.topic,
          partition: key.partition,
        });
      await commitToEmptyGroup(options, {
        topic: key.topic,
        partition: key.partition,
        next: resume,
        metadata: encodeState({ state, owner, write: randomUUID() }, key),
      });
    },
    close: () => Promise.resolve(),
  };
}
