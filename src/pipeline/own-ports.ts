/**
 * A configuration that names less, since ports of one's own take the place of what it would name.
 * Imports: config, operators, ports, stores.
 */
import { checkConfig, type CheckedConfig, type IngestConfig } from '../config/config.js';
import type { InsertSink } from '../../operators/insert-deduped.js';
import type { ReconcileSink } from '../../operators/reconcile-with-state.js';
import type { SeekableSource, StateStore } from '../ports.js';
import { notInGroup } from '../stores/in-group.js';

/**
 * Each instead of the adapter that a configuration would name. They are checked by nobody, and closed by whoever made
 * them.
 */
export interface OwnPorts {
  readonly source?: SeekableSource;
  readonly sink?: InsertSink & ReconcileSink;
  readonly store?: StateStore;
}

type Route = IngestConfig['routes'][number];

/** As `IngestConfig`, without what ports of one's own make needless: brokers, a ClickHouse, tables, a state store. */
export interface OwnPortsConfig extends Omit<IngestConfig, 'kafka' | 'clickhouse' | 'routes'> {
  readonly kafka: Pick<IngestConfig['kafka'], 'groupId'> & Partial<IngestConfig['kafka']>;
  readonly clickhouse?: IngestConfig['clickhouse'];
  readonly routes: readonly (Omit<Route, 'table'> & Partial<Pick<Route, 'table'>>)[];
}

/**
 * Checks what is left. What is not asked of anybody is filled in, so that it has the shape of a configuration.
 *
 * @throws `KCR_CONFIG`
 */
export function checkOwnConfig({ source, sink, store }: OwnPorts, config: OwnPortsConfig): CheckedConfig {
  if (source !== undefined && store === undefined && config.state?.store === 'kafka') {
    throw notInGroup();
  }
  return checkConfig({
    ...config,
    kafka: { ...(source === undefined ? {} : { brokers: ['own-source:9092'] }), ...config.kafka },
    ...(sink === undefined
      ? {}
      : {
          clickhouse: { url: 'http://own-sink:8123' },
          routes: config.routes.map((route) => ({ table: route.topic, ...route })),
        }),
    ...(store === undefined ? {} : { state: { store: 'memory', allowVolatile: true } }),
  });
}
