/**
 * The state stores that a configuration can name: the one place that knows what there is, and how each is opened,
 * checked and looked at. Imports: clickhouse/client, config, errors, events, ports, preflight, state.
 */
import { addressOf } from '../clickhouse/client/connection.js';
import type { CheckedConfig } from '../config/config.js';
import { IngestError } from '../errors.js';
import type { OnEvent } from '../events.js';
import type { SeekableSource, StateStore } from '../ports.js';
import { refusalFrom, type Finding } from '../preflight/finding.js';
import { checkKeeperMap, keeperMapStore, type KeeperMapStoreConfig } from '../state/keeper-map.js';
import { checkKeeper, keeperStore } from '../state/keeper.js';
import { memoryStore } from '../state/memory.js';
import { inGroup } from './in-group.js';
import { accessThrough, type PlaceOf, type StateAccess, type StoreKind, type StoreName } from './kind.js';

export type { StateAccess } from './kind.js';

const keeper: StoreKind<'keeper'> = {
  open: (place, { source }) => ({ source, store: keeperStore(place) }),
  check: async (place) => {
    const { server, path } = await checkKeeper(place);
    return { level: 'ok', detail: `Keeper at ${server}, writable under ${path}` };
  },
  access: (place) => accessThrough(keeperStore(place)),
};

/** Its table is in the ClickHouse that the rows go to. */
const keeperMap: StoreKind<'keeper-map'> = {
  open: (place, { source, config }) => ({ source, store: keeperMapStore(keeperMapOf(place, config)) }),
  check: async (place, config) => {
    const { server, table } = await checkKeeperMap(keeperMapOf(place, config));
    return { level: 'ok', detail: `KeeperMap table ${table} at ${server}, writable` };
  },
  access: (place, config) => accessThrough(keeperMapStore(keeperMapOf(place, config))),
};

function keeperMapOf({ store: _, ...own }: PlaceOf<'keeper-map'>, { clickhouse }: CheckedConfig): KeeperMapStoreConfig {
  return { ...addressOf(clickhouse), ...own };
}

const memory: StoreKind<'memory'> = {
  open: (_, { source }) => ({ source, store: memoryStore() }),
  check: () =>
    Promise.resolve({
      level: 'warning',
      detail: 'in memory: what is in doubt is forgotten with the process, and rows may double after a crash',
      todo: 'use "keeper"',
    }),
  access: undefined,
};

const stores: { readonly [Name in StoreName]: StoreKind<Name> } = {
  keeper,
  'keeper-map': keeperMap,
  kafka: inGroup,
  memory,
};

interface Configured {
  readonly place: PlaceOf<StoreName>;
  readonly kind: StoreKind<StoreName>;
}

/** The store that a configuration uses; undefined: its delivery keeps no state. */
function configured({ delivery, state: place }: CheckedConfig): Configured | undefined {
  if (delivery !== 'exactly-once' || place === undefined) return undefined;
  // The kind that takes just this place.
  return { place, kind: stores[place.store] as StoreKind<StoreName> };
}

/** The store of the configuration, and the source to be used with it. Connects to nothing yet. */
export function openStore(
  config: CheckedConfig,
  source: SeekableSource,
  onEvent: OnEvent,
): { readonly source: SeekableSource; readonly store: StateStore | undefined } {
  const found = configured(config);
  return found === undefined ? { source, store: undefined } : found.kind.open(found.place, { config, source, onEvent });
}

/** Can states be kept there? Nothing where the delivery keeps none. */
export async function storeFindings(config: CheckedConfig, committing: Promise<unknown>): Promise<readonly Finding[]> {
  const what = 'state store';
  const found = configured(config);
  if (found === undefined) return [];
  try {
    return [{ what, ...(await found.kind.check(found.place, config, committing)) }];
  } catch (thrown) {
    return [refusalFrom(what, thrown)];
  }
}

/** Is there a state that can be looked at from outside of the process? */
export function keepsState(config: CheckedConfig): boolean {
  return configured(config)?.kind.access !== undefined;
}

/** @throws `KCR_CONFIG` where there is no state that outlives its process. */
export function openStateAccess(config: CheckedConfig): StateAccess {
  const found = configured(config);
  if (found === undefined) {
    throw new IngestError('KCR_CONFIG', `There is no state to look at: delivery is "${config.delivery}"`, {
      hint: 'only exactly-once keeps one; how far the group is, kafka-consumer-groups.sh tells',
    });
  }
  const { place, kind } = found;
  if (kind.access === undefined) {
    throw new IngestError(
      'KCR_CONFIG',
      `There is no state to look at: state.store is "${place.store}", which only the process that runs can see`,
      { hint: 'use "keeper", "keeper-map" or "kafka"' },
    );
  }
  return kind.access(place, config);
}
