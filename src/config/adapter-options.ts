/**
 * Imports: types and pure functions of the adapters. A configuration's parts as the adapters take them. Pure.
 */
import { addressOf } from '../clickhouse/client/connection.js';
import type { ClickHouseSinkOptions } from '../clickhouse/options.js';
import { SKIP_UNKNOWN } from './cross-check.js';
import type { CheckedConfig } from './schema.js';
import type { KeeperMapStoreConfig } from '../state/keeper-map.js';

/** As the ClickHouse adapter takes them. */
export function clickHouseOptions({ clickhouse, routes, onUnknownField }: CheckedConfig): ClickHouseSinkOptions {
  const { settings, ...server } = clickhouse;
  const all = onUnknownField === 'poison' ? { ...settings, [SKIP_UNKNOWN]: 0 } : settings;
  return { ...server, routes, ...(all === undefined ? {} : { clickhouseSettings: all }) };
}

type KeeperMapState = Extract<CheckedConfig['state'], { store: 'keeper-map' }>;

/** The store's table is in the ClickHouse that the rows go to. */
export function keeperMapConfig({ clickhouse }: CheckedConfig, state: KeeperMapState): KeeperMapStoreConfig {
  const { store: _store, ...own } = state;
  return { ...addressOf(clickhouse), ...own };
}

export const topicsOf = ({ routes }: CheckedConfig): readonly string[] => routes.map(({ topic }) => topic);
