/**
 * What an ingestion measures, whoever collects it: names, labels, and when each is counted. Names begin with `kcr_`;
 * partitions are labels of gauges only, and of none above 500 of them. Imports: events.
 */
import type { IngestEvent, Outcome } from '../events.js';
import type { CallEnd } from './meter.js';
import type { IngestStatus, Limit, Observed } from './status.js';

type Labels<L extends string> = Readonly<Partial<Record<L, string | number>>>;

/** What makes instruments: Prometheus' client, OpenTelemetry. */
export interface Instruments {
  readonly counter: <L extends string = never>(
    name: string,
    help: string,
    labels?: readonly L[],
  ) => { add(labels: Labels<L>, value?: number): void };
  readonly histogram: <L extends string>(
    name: string,
    help: string,
    bounds: readonly number[],
    labels: readonly L[],
  ) => { record(labels: Labels<L>, value: number): void };
  /** Read when somebody collects: `read` calls `set` for each set of labels that has a value. */
  readonly gauge: <L extends string = never>(
    name: string,
    help: string,
    labels: readonly L[],
    read: (set: (value: number, labels?: Labels<L>) => void) => void,
  ) => void;
}

export interface InstrumentsConfig {
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

/** Makes the instruments and keeps them up to date. Gives what ends that. */
export function instrument(
  observed: Observed,
  instruments: Instruments,
  { maxPartitionLabels = 500, info = {} }: InstrumentsConfig,
): () => void {
  const status = remembered(() => observed.status());
  const stops = [counters(observed, instruments), histograms(observed, instruments)];
  instruments.gauge('kcr_info', 'Always 1; what runs is in the labels', Object.keys(info), (set) =>
    set(1, { ...info }),
  );
  processGauges(status, instruments);
  partitionGauges(status, instruments, maxPartitionLabels);
  return () => stops.forEach((stop) => stop());
}

function counters(observed: Observed, instruments: Instruments): () => void {
  const { counter } = instruments;
  const rows = counter('kcr_rows_total', 'Rows inserted by this process', ['topic']);
  const bytes = counter('kcr_inserted_bytes_total', 'Bytes of inserts that were answered', ['topic']);
  const batches = counter('kcr_batches_total', 'Batches delivered', ['topic']);
  const replays = counter('kcr_replays_total', 'Ranges that were in doubt at a takeover and are settled', ['topic']);
  const halted = counter('kcr_halted_total', 'Partitions that halted', ['topic', 'code']);
  const ofOutcome = (outcome: Outcome): void => {
    const { topic } = outcome.assignment;
    if (outcome.kind === 'halted') return halted.add({ topic, code: outcome.error.code });
    rows.add({ topic }, outcome.rows);
    bytes.add({ topic }, outcome.bytes);
    batches.add({ topic });
    if (outcome.replay) replays.add({ topic });
  };
  return observed.listen({ outcome: ofOutcome, event: eventCounters(instruments) });
}

function eventCounters({ counter }: Instruments): (event: IngestEvent) => void {
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
    if (event.kind === 'tableChanged') return tables.add({ table: event.table, change: event.change });
    const { topic } = event.assignment;
    switch (event.kind) {
      case 'retry':
        return retries.add({ call: event.call, code: event.error.code });
      case 'excluded':
        return event.replay ? undefined : left.add({ topic, reason: 'poison' });
      case 'tombstones':
        return event.replay ? undefined : left.add({ topic, reason: 'tombstone' }, event.records);
      case 'filtered':
        return left.add({ topic, reason: 'filtered' }, event.records);
      case 'corruptBatch':
        return left.add({ topic, reason: 'corrupt' }, event.records);
      case 'gap':
        return gone.add({ topic }, event.found - event.expected);
      case 'abandoned':
        return abandoned.add({ topic }, event.rows);
      case 'fenced':
        return fenced.add({ topic });
      case 'healed':
        return healed.add({ topic });
      case 'lost':
        return lost.add({ topic });
      case 'restarted':
        return restarted.add({ topic });
      case 'verified':
        return readBacks.add({ topic, result: event.missing === 0 ? 'complete' : 'missing' });
      case 'stateWritten':
        return writes.add({ topic });
      case 'commitFailed':
        return commits.add({ topic, code: event.error.code });
      default:
    }
  };
}

function histograms(observed: Observed, { histogram }: Instruments): () => void {
  const calls = histogram('kcr_call_seconds', 'Calls of ports, by what became of them', SECONDS, [
    'call',
    'topic',
    'outcome',
  ]);
  const rows = histogram('kcr_batch_rows', 'Rows of a batch', ROWS, ['topic']);
  const bytes = histogram('kcr_batch_bytes', 'Bytes of a batch as it was sent', BYTES, ['topic']);
  return observed.listen({
    call: ({ call, topic, seconds, error }: CallEnd) =>
      calls.record({ call, topic, outcome: error?.code ?? 'done' }, seconds),
    outcome: (outcome) => {
      if (outcome.kind !== 'delivered' || outcome.rows === 0) return;
      rows.record({ topic: outcome.assignment.topic }, outcome.rows);
      bytes.record({ topic: outcome.assignment.topic }, outcome.bytes);
    },
  });
}

function processGauges(status: () => IngestStatus, instruments: Instruments): void {
  const gauge = (name: string, help: string, read: (status: IngestStatus) => number | undefined): void =>
    instruments.gauge(name, help, [], (set) => {
      const value = read(status());
      if (value !== undefined) set(value);
    });
  gauge('kcr_up', '1 while the ingestion runs or drains', ({ phase }) =>
    phase === 'running' || phase === 'draining' ? 1 : 0,
  );
  gauge('kcr_started_seconds', 'When it was started, seconds since the epoch', (status) => status.startedAtMs / 1000);
  gauge('kcr_partitions', 'Partitions assigned to this process', (status) => status.partitions.length);
  gauge(
    'kcr_partitions_halted',
    'Partitions that have halted',
    (status) => status.partitions.filter(({ halted }) => halted !== undefined).length,
  );
  gauge(
    'kcr_partitions_paused',
    'Partitions of which nothing more is fetched until they are resumed',
    (status) => status.partitions.filter(({ isPaused }) => isPaused).length,
  );
  gauge(
    'kcr_partitions_full',
    'Partitions that wait for room in the byte budget',
    (status) => status.partitions.filter(({ isFull }) => isFull).length,
  );
  gauge('kcr_open_ranges', 'Ranges recorded or on their way, and not settled', (status) =>
    status.partitions.reduce((total, { open }) => total + open, 0),
  );
  gauge('kcr_oldest_in_doubt_seconds', 'Age of the oldest range in doubt; 0: none is', (status) =>
    status.inDoubtSinceMs === undefined ? 0 : Math.max(0, status.atMs - status.inDoubtSinceMs) / 1000,
  );
  gauge('kcr_budget_bytes', 'The byte budget', ({ budget }) => budget?.bytes);
  gauge('kcr_budget_used_bytes', 'Of the budget, what is fetched and not done', ({ budget }) => budget?.usedBytes);
  instruments.gauge('kcr_limit', '1 for what holds the ingestion up', ['by'], (set) => {
    const { limit } = status();
    for (const by of limits) set(by === limit ? 1 : 0, { by });
  });
}

type ReadPartition = (partition: IngestStatus['partitions'][number]) => number | undefined;

function partitionGauges(status: () => IngestStatus, instruments: Instruments, maxPartitions: number): void {
  const gauge = (name: string, help: string, read: ReadPartition): void =>
    instruments.gauge(name, help, ['topic', 'partition'], (set) => {
      const { partitions } = status();
      const summed = new Map<string, number>();
      for (const each of partitions) {
        const value = read(each);
        if (value === undefined) continue;
        if (partitions.length <= maxPartitions) set(value, { topic: each.topic, partition: each.partition });
        else summed.set(each.topic, (summed.get(each.topic) ?? 0) + value);
      }
      for (const [topic, value] of summed) set(value, { topic, partition: 'all' });
    });
  gauge('kcr_lag_records', "Offsets up to the log's end that are not settled", ({ lagRecords }) => lagRecords);
  gauge('kcr_stable_lag_records', 'The same up to the last stable offset', ({ stableEnd, settled }) =>
    stableEnd === undefined ? undefined : Math.max(0, stableEnd - 1 - (settled ?? -1)),
  );
  const help = 'Time since the last settled record, where there is a lag';
  instruments.gauge('kcr_lag_seconds', help, ['topic'], (set) => {
    const worst = new Map<string, number>();
    for (const { topic, lagSeconds = 0 } of status().partitions)
      worst.set(topic, Math.max(lagSeconds, worst.get(topic) ?? 0));
    for (const [topic, seconds] of worst) set(seconds, { topic });
  });
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
