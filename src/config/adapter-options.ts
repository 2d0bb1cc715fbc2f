/**
 * A configuration's parts as the adapters take them. Pure. Imports: clickhouse.
 */
import type { ClickHouseSinkOptions } from '../clickhouse/options.js';
import { SKIP_UNKNOWN } from './cross-check.js';
import type { CheckedConfig } from './schema.js';

/** As the ClickHouse adapter takes them. */
export function clickHouseOptions({ clickhouse, routes, onUnknownField }: CheckedConfig): ClickHouseSinkOptions {
  const { settings, ...server } = clickhouse;
  const all = onUnknownField === 'poison' ? { ...settings, [SKIP_UNKNOWN]: 0 } : settings;
  return { ...server, routes, ...(all === undefined ? {} : { clickhouseSettings: all }) };
}

export const topicsOf = ({ routes }: CheckedConfig): readonly string[] => routes.map(({ topic }) => topic);
