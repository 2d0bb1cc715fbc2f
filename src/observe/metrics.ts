/**
 * The instruments of an ingestion in a registry of prom-client, which may be the caller's. Names begin with `kcr_`;
 * partitions are labels of gauges only, and of none above 500 of them. Imports: Node, events, prom-client.
 */
import { createRequire } from 'node:module';
import type * as PromClient from 'prom-client';
import type { Counter, Gauge, Registry } from 'prom-client';
import type { IngestEvent, Outcome } from '../events.js';
import type { CallEnd } from './meter.js';
import type { IngestStatus, Limit, Observed } from './status.js';

/** Loaded when somebody wants metrics: it takes longer than all else of this folder. */
const promClient = (): typeof PromClient => createRequire(import.meta.url)('prom-client') as typeof PromClient;

/** A registry of the program's own, with what prom-client tells of Node. */
export function programRegistry(): Registry {
  const { collectDefaultMetrics, Registry: Made } = promClient();
  const registry = new Made();
  collectDefaultMetrics({ register: registry });
  return registry;
}

/** Where metrics go, and how many partitions get a label of their own. */
export interface MetricsConfig {
  /** Where the instruments are registered. */
  readonly registry: Registry;
  /** Gauges have the label `partition` up to so many partitions. @default 500 */
  readonly maxPartitionLabels?: number;
  /** Of `kcr_info`. @default {} */
  readonly info?: Readonly<Record<string, string>>;
}

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const ROWS = [1, 10, 100, 1000, 10_000, 50_000, 100_000, 500_000];
const BYTES = [1e3, 1e4, 1e5, 1e6, 4e6, 16e6, 64e6];
const REMEMBERED_MS = 200;
const limits: readonly Limit[] = ['none', 'kafka', 'clickhouse', 'state', 'ours', 'paused', 'halted'];

/** Registers the instruments and keeps them up to date. Gives what takes them out of the registry again. */
export function registerMetrics(
  observed: Observed,
  { registry, maxPartitionLabels = 500, info = {} }: MetricsConfig,
): () => void {
  const status = remembered(() => observed.status());
  const made = [...counters(observed, registry), ...histograms(observed, registry)];
  const gauges = [
    gaugeOf(registry, 'kcr_info', 'Always 1; what runs is in the labels', Object.keys(info), (gauge) =>
      gauge.set({ ...info }, 1),
    ),
    ...processGauges(status, registry),
    ...partitionGauges(status, registry, maxPartitionLabels),
  ];
  return () => {
    for (const { stop } of made) stop();
    for (const name of [...made.flatMap(({ names }) => names), ...gauges]) registry.removeSingleMetric(name);
  };
}

interface Made {
  readonly names: readonly string[];
  readonly stop: () => void;
}

function counters(observed: Observed, registry: Registry): Made[] {
  const names: string[] = [];
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> => {
    names.push(name);
    return new (promClient().Counter)<L>({ name, help, labelNames, registers: [registry] });
  };
  const rows = counter('kcr_rows_total', 'Rows inserted by this process', ['topic']);
  const bytes = counter('kcr_inserted_bytes_total', 'Bytes of inserts that were answered', ['topic']);
  const batches = counter('kcr_batches_total', 'Batches delivered', ['topic']);
  const replays = counter('kcr_replays_total', 'Ranges that were in doubt at a takeover and are settled', ['topic']);
  const halted = counter('kcr_halted_total', 'Partitions that halted', ['topic', 'code']);
  const ofOutcome = (outcome: Outcome): void => {
    const { topic } = outcome.assignment;
    if (outcome.kind === 'halted') return halted.inc({ topic, code: outcome.error.code });
    rows.inc({ topic }, outcome.rows);
    bytes.inc({ topic }, outcome.bytes);
    batches.inc({ topic });
    if (outcome.replay) replays.inc({ topic });
  };
  const ofEvent = eventCounters(counter);
  const stop = observed.listen({ outcome: ofOutcome, event: ofEvent });
  return [{ names, stop }];
}

type NewCounter = <L extends string>(name: string, help: string, labelNames?: readonly L[]) => Counter<L>;

function eventCounters(counter: NewCounter): (event: IngestEvent) => void {
  const retries = counter('kcr_retries_total', 'Calls that failed and are made again', ['call', 'code']);
  const left = counter('kcr_records_left_out_total', 'Records that a policy left out', ['topic', 'reason']);
  const gone = counter('kcr_gone_offsets_total', 'Offsets that were gone before they were read', ['topic']);
  const abandoned = counter('kcr_abandoned_rows_total', 'At-most-once: rows given up', ['topic']);
  const fenced = counter('kcr_fenced_total', 'Claims that another process took', ['topic']);
  const healed = counter('kcr_healed_total', 'Partitions that had halted and went on', ['topic']);
  const lost = counter('kcr_lost_total', 'Partitions that were taken away without a drain', ['topic']);
  const restarted = counter('kcr_restarted_total', 'Partitions whose topic was recreated or truncated', ['topic']);
  const readBacks = counter('kcr_read_backs_total', 'Looks into the table at a range in doubt', ['topic', 'result']);
  const tables = counter('kcr_table_changes_total', 'Changes of a table that were seen', ['table', 'change']);
  const writes = counter('kcr_state_writes_total', 'States written', ['topic']);
  const commits = counter('kcr_commit_failures_total', 'Commits that failed', ['topic', 'code']);
  return (event) => {
    if (event.kind === 'kafka') return;
    if (event.kind === 'tableChanged') return tables.inc({ table: event.table, change: event.change });
    const { topic } = event.assignment;
    switch (event.kind) {
      case 'retry':
        return retries.inc({ call: event.call, code: event.error.code });
      case 'excluded':
        return event.replay ? undefined : left.inc({ topic, reason: 'poison' });
      case 'tombstones':
        return event.replay ? undefined : left.inc({ topic, reason: 'tombstone' }, event.records);
      case 'filtered':
        return left.inc({ topic, reason: 'filtered' }, event.records);
      case 'corruptBatch':
        return left.inc({ topic, reason: 'corrupt' }, event.records);
      case 'gap':
        return gone.inc({ topic }, event.found - event.expected);
      case 'abandoned':
        return abandoned.inc({ topic }, event.rows);
      case 'fenced':
        return fenced.inc({ topic });
      case 'healed':
        return healed.inc({ topic });
      case 'lost':
        return lost.inc({ topic });
      case 'restarted':
        return restarted.inc({ topic });
      case 'verified':
        return readBacks.inc({ topic, result: event.missing === 0 ? 'complete' : 'missing' });
      case 'stateWritten':
        return writes.inc({ topic });
      case 'commitFailed':
        return commits.inc({ topic, code: event.error.code });
      default:
    }
  };
}

function histograms(observed: Observed, registry: Registry): Made[] {
  const names: string[] = [];
  const histogram = <L extends string>(name: string, help: string, buckets: number[], labelNames: readonly L[]) => {
    names.push(name);
    return new (promClient().Histogram)<L>({ name, help, buckets, labelNames, registers: [registry] });
  };
  const calls = histogram('kcr_call_seconds', 'Calls of ports, by what became of them', SECONDS, [
    'call',
    'topic',
    'outcome',
  ]);
  const rows = histogram('kcr_batch_rows', 'Rows of a batch', ROWS, ['topic']);
  const bytes = histogram('kcr_batch_bytes', 'Bytes of a batch as it was sent', BYTES, ['topic']);
  const stop = observed.listen({
    call: ({ call, topic, seconds, error }: CallEnd) =>
      calls.observe({ call, topic, outcome: error?.code ?? 'done' }, seconds),
    outcome: (outcome) => {
      if (outcome.kind !== 'delivered' || outcome.rows === 0) return;
      rows.observe({ topic: outcome.assignment.topic }, outcome.rows);
      bytes.observe({ topic: outcome.assignment.topic }, outcome.bytes);
    },
  });
  return [{ names, stop }];
}

function processGauges(status: () => IngestStatus, registry: Registry): string[] {
  const gauge = (name: string, help: string, read: (status: IngestStatus) => number | undefined): string =>
    gaugeOf(registry, name, help, [], (made) => {
      const value = read(status());
      if (value === undefined) made.reset();
      else made.set(value);
    });
  return [
    gauge('kcr_up', '1 while the ingestion runs or drains', ({ phase }) =>
      phase === 'running' || phase === 'draining' ? 1 : 0,
    ),
    gauge('kcr_started_seconds', 'When it was started, seconds since the epoch', (status) => status.startedAtMs / 1000),
    gauge('kcr_partitions', 'Partitions assigned to this process', (status) => status.partitions.length),
    gauge(
      'kcr_partitions_halted',
      'Partitions that have halted',
      (status) => status.partitions.filter(({ halted }) => halted !== undefined).length,
    ),
    gauge(
      'kcr_partitions_full',
      'Partitions that wait for room in the byte budget',
      (status) => status.partitions.filter(({ isFull }) => isFull).length,
    ),
    gauge('kcr_open_ranges', 'Ranges recorded or on their way, and not settled', (status) =>
      status.partitions.reduce((total, { open }) => total + open, 0),
    ),
    gauge('kcr_oldest_in_doubt_seconds', 'Age of the oldest range in doubt; 0: none is', (status) =>
      status.inDoubtSinceMs === undefined ? 0 : Math.max(0, status.atMs - status.inDoubtSinceMs) / 1000,
    ),
    gauge('kcr_budget_bytes', 'The byte budget', ({ budget }) => budget?.bytes),
    gauge('kcr_budget_used_bytes', 'Of the budget, what is fetched and not done', ({ budget }) => budget?.usedBytes),
    gaugeOf(registry, 'kcr_limit', '1 for what holds the ingestion up', ['by'], (made) => {
      const { limit } = status();
      for (const by of limits) made.set({ by }, by === limit ? 1 : 0);
    }),
  ];
}

function partitionGauges(status: () => IngestStatus, registry: Registry, maxPartitions: number): string[] {
  type Read = (partition: IngestStatus['partitions'][number]) => number | undefined;
  const gauge = (name: string, help: string, read: Read): string =>
    gaugeOf(registry, name, help, ['topic', 'partition'], (made) => {
      made.reset();
      const { partitions } = status();
      const isLabelled = partitions.length <= maxPartitions;
      for (const each of partitions) {
        const value = read(each);
        if (value === undefined) continue;
        if (isLabelled) made.set({ topic: each.topic, partition: each.partition }, value);
        else made.inc({ topic: each.topic, partition: 'all' }, value);
      }
    });
  return [
    gauge('kcr_lag_records', "Offsets up to the log's end that are not settled", ({ lagRecords }) => lagRecords),
    gauge('kcr_stable_lag_records', 'The same up to the last stable offset', ({ stableEnd, settled }) =>
      stableEnd === undefined ? undefined : Math.max(0, stableEnd - 1 - (settled ?? -1)),
    ),
    gaugeOf(
      registry,
      'kcr_lag_seconds',
      'Time since the last settled record, where there is a lag',
      ['topic'],
      (made) => {
        made.reset();
        const worst = new Map<string, number>();
        for (const { topic, lagSeconds = 0 } of status().partitions)
          worst.set(topic, Math.max(lagSeconds, worst.get(topic) ?? 0));
        for (const [topic, seconds] of worst) made.set({ topic }, seconds);
      },
    ),
  ];
}

/** Set when it is read. Gives its name. */
function gaugeOf(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly string[],
  set: (gauge: Gauge) => void,
): string {
  new (promClient().Gauge)({
    name,
    help,
    labelNames,
    registers: [registry],
    collect() {
      set(this);
    },
  });
  return name;
}

/** One status serves all instruments that a scrape reads. */
function remembered(status: () => IngestStatus): () => IngestStatus {
  let last: { readonly status: IngestStatus; readonly untilMs: number } | undefined;
  return () => {
    const nowMs = performance.now();
    if (last === undefined || nowMs > last.untilMs) last = { status: status(), untilMs: nowMs + REMEMBERED_MS };
    return last.status;
  };
}
