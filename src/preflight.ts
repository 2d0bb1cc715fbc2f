/**
 * Room: everything a configuration names, looked at before a record is taken. Asks the adapters; changes nothing but
 * the state store's probe, which is removed again.
 */
import { checkClickHouse, type Finding } from './clickhouse/preflight.js';
import type { ClickHouseSinkOptions } from './clickhouse/options.js';
import type { CheckedConfig } from './config.js';
import { asIngestError } from './errors.js';
import { checkKafka } from './kafka/preflight.js';
import { checkKeeperMap, type KeeperMapStoreConfig } from './state/keeper-map.js';
import { checkKeeper } from './state/keeper.js';

/** All findings, in the order of the data: Kafka, ClickHouse, the state store. */
export async function preflight(config: CheckedConfig): Promise<readonly Finding[]> {
  const all = await Promise.all([kafkaFindings(config), clickHouseFindings(config), storeFindings(config)]);
  return all.flat();
}

/** As the ClickHouse adapter takes them. */
export function clickHouseOptions({ clickhouse, routes }: CheckedConfig): ClickHouseSinkOptions {
  const { settings, ...server } = clickhouse;
  return { ...server, routes, ...(settings === undefined ? {} : { clickhouseSettings: settings }) };
}

type KeeperMapState = Extract<CheckedConfig['state'], { store: 'keeper-map' }>;

/** The store's table is in the ClickHouse that the rows go to. */
export function keeperMapConfig({ clickhouse: { url, database, username, password } }: CheckedConfig, state: KeeperMapState): KeeperMapStoreConfig {
  const { store: _store, ...own } = state;
  return { url, database, username, password, ...own };
}

export const topicsOf = ({ routes }: CheckedConfig): readonly string[] => routes.map(({ topic }) => topic);

async function kafkaFindings(config: CheckedConfig): Promise<readonly Finding[]> {
  try {
    const { clusterId, topics } = await checkKafka({ ...config.kafka, topics: topicsOf(config) });
    return [
      { level: 'ok', what: 'Kafka', detail: `cluster ${clusterId} at ${config.kafka.brokers.join(', ')}` },
      ...topics.map(({ topic, partitions }): Finding => ({ level: 'ok', what: `topic ${topic}`, detail: `${partitions} partitions` })),
    ];
  } catch (thrown) {
    return [refusalFrom('Kafka', thrown)];
  }
}

async function clickHouseFindings(config: CheckedConfig): Promise<readonly Finding[]> {
  const { delivery, maxPending } = config;
  try {
    return await checkClickHouse(clickHouseOptions(config), { delivery, maxPending });
  } catch (thrown) {
    return [refusalFrom('ClickHouse', thrown)];
  }
}

async function storeFindings(config: CheckedConfig): Promise<readonly Finding[]> {
  const { delivery, state } = config;
  if (delivery !== 'exactly-once' || state === undefined) return [];
  if (state.store === 'memory') {
    const detail = 'in memory: what is in doubt is forgotten with the process, and rows may double after a crash';
    return [{ level: 'warning', what: 'state store', detail, todo: 'use "keeper"' }];
  }
  try {
    if (state.store === 'keeper-map') {
      const { server, table } = await checkKeeperMap(keeperMapConfig(config, state));
      return [{ level: 'ok', what: 'state store', detail: `KeeperMap table ${table} at ${server}, writable` }];
    }
    const { server, path } = await checkKeeper(state);
    return [{ level: 'ok', what: 'state store', detail: `Keeper at ${server}, writable under ${path}` }];
  } catch (thrown) {
    return [refusalFrom('state store', thrown)];
  }
}

function refusalFrom(what: string, thrown: unknown): Finding {
  const { code, detail, fields } = asIngestError(thrown, 'KCR_PREFLIGHT', 'the check failed');
  return { level: 'refusal', code, what, detail, ...(fields.hint === undefined ? {} : { todo: fields.hint }) };
}
