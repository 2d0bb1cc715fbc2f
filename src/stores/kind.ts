/**
 * What every kind of state store is to the rest: opened under a pipeline, checked before a start, read and replaced by
 * a person's commands. Imports: config, events, kafka, model, ports, preflight, rxjs.
 */
import { firstValueFrom, from } from 'rxjs';
import type { CheckedConfig } from '../config/config.js';
import type { OnEvent } from '../events.js';
import type { GroupPartition } from '../kafka/group-admin.js';
import type { PartitionState } from '../model/state.js';
import type { SeekableSource, StateKey, StateStore, Stored } from '../ports.js';
import type { Finding } from '../preflight/finding.js';

export type StoreName = NonNullable<CheckedConfig['state']>['store'];
/** What a configuration says of a store of this kind. */
export type PlaceOf<Name extends StoreName> = Extract<CheckedConfig['state'], { store: Name }>;

export interface StoreKind<Name extends StoreName> {
  /** The store, and the source that must be used with it. Connects to nothing yet. */
  readonly open: (
    place: PlaceOf<Name>,
    over: { readonly config: CheckedConfig; readonly source: SeekableSource; readonly onEvent: OnEvent },
  ) => OpenStore;
  /**
   * Can states be kept there? `committing` settles once it is known whether the group's offsets may be committed.
   * Throws what the store refuses.
   */
  readonly check: (place: PlaceOf<Name>, config: CheckedConfig, committing: Promise<unknown>) => Promise<StoreCheck>;
  /** What outlives its process can be looked at from outside; undefined: this does not. */
  readonly access: ((place: PlaceOf<Name>, config: CheckedConfig) => StateAccess) | undefined;
}

/** What a check has found. */
export type StoreCheck = Pick<Finding, 'level' | 'detail' | 'todo'>;

export interface OpenStore {
  readonly store: StateStore;
  readonly source: SeekableSource;
}

/** The stored states, as a person's commands read and replace them. */
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

/** Through the store itself: a person claims a partition as a process does. */
export function accessThrough(store: StateStore): StateAccess {
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
