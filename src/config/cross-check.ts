/**
 * What the parts of a configuration must be to each other. A rule within one part is its adapter's, and is only called
 * here. Imports: clickhouse, clickhouse/client, kafka, options.
 */
import { addressFault } from '../clickhouse/client/connection.js';
import { routesFault, sinkFault } from '../clickhouse/options.js';
import { timesFault } from '../kafka/options.js';
import type { OptionFault } from '../options.js';
import type { CheckedConfig } from './schema.js';
import { unusable } from './unusable.js';

/** ClickHouse's setting behind `onUnknownField`. */
export const SKIP_UNKNOWN = 'input_format_skip_unknown_fields';

/** @throws `KCR_CONFIG` for what would lose or double rows, or has no effect. */
export function crossCheck(config: CheckedConfig): void {
  const { kafka, clickhouse, routes } = config;
  refuse('', routesFault(routes));
  stateRules(config);
  refuse('clickhouse.', addressFault(clickhouse) ?? sinkFault(clickhouse));
  insertRules(config);
  refuse('kafka.', timesFault(kafka));
}

/** Of a number it is said what is expected; what stands there is not shown. */
function refuse(place: string, fault: OptionFault | undefined): void {
  if (fault === undefined) return;
  const { option, what, hint } = fault;
  throw unusable(`${place}${option}: ${'got' in fault ? `expected ${what}` : what}`, hint);
}

function stateRules({ delivery, state }: CheckedConfig): void {
  if (delivery !== 'exactly-once') return;
  if (state === undefined) {
    throw unusable(
      'state: missing, and delivery is "exactly-once"',
      'add "state": { "store": "keeper", "connect": "host:2181", "path": "/kafka-clickhouse-rx" }, or choose ' +
        '"at-least-once"',
    );
  }
  if (state.store === 'memory' && state.allowVolatile !== true) {
    throw unusable(
      'state.store: "memory" forgets what is in doubt when the process ends, so rows could double after a crash',
      'use "keeper", "keeper-map" or "kafka"; for a trial add "allowVolatile": true beside it',
    );
  }
}

function insertRules({ delivery, onUnknownField, clickhouse }: CheckedConfig): void {
  const { insertMode = 'direct', settings } = clickhouse;
  if (onUnknownField === 'poison' && settings?.[SKIP_UNKNOWN] !== undefined) {
    throw unusable(
      `clickhouse.settings.${SKIP_UNKNOWN}: stands beside onUnknownField "poison", which sets it`,
      'take it out of clickhouse.settings',
    );
  }
  if (insertMode === 'coalesced' && delivery !== 'exactly-once') {
    throw unusable(
      `clickhouse.insertMode: "coalesced" with delivery "${delivery}"`,
      'inserts can wait for others only under a dedup token: choose "exactly-once", or a larger batch.maxWaitMs',
    );
  }
  const unused = (['coalesceMs', 'coalesceBytes'] as const).find((name) => clickhouse[name] !== undefined);
  if (insertMode === 'direct' && unused !== undefined) {
    throw unusable(
      `clickhouse.${unused}: without effect in the insert mode "direct"`,
      'add "insertMode": "coalesced", or take it out',
    );
  }
}
