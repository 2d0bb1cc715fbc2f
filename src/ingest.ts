/**
 * Room: the one-liner. Opens the adapters a configuration names, checks them before a record is taken, and pipes the
 * six stages. An ordinary user of the operators: what stands here, anyone can write by hand.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { Observable, type MonoTypeOperatorFunction } from 'rxjs';
import { transformRows } from '../operators/transform-rows.js';
import { limitOf, orAborted } from './abort.js';
import { clickHouseOptions, keeperMapConfig, topicsOf } from './adapter-options.js';
import { arrange, type Ports } from './arrange.js';
import { openClickHouseSink } from './clickhouse/sink.js';
import { checkConfig, type CheckedConfig, type IngestConfig } from './config.js';
import { IngestError } from './errors.js';
import { noReport, type Outcome, type Report } from './events.js';
import { refusalOf, type Finding } from './finding.js';
import { fairScheduler } from './fair-scheduler.js';
import { kafkaSource, type KafkaSource, type OutOfRange } from './kafka/source.js';
import { budgetHere } from './memory-budget.js';
import type { InsertBatch } from './ports.js';
import { preflight, START_LIMIT_MS } from './preflight.js';
import { kafkaStore } from './state/kafka.js';
import { keeperMapStore } from './state/keeper-map.js';
import { keeperStore } from './state/keeper.js';
import { memoryStore } from './state/memory.js';

export interface IngestOptions {
  /**
   * Aborting it drains: what was taken is inserted, settled and committed, then the outcomes complete. During the checks
   * before the start they complete at once.
   */
  readonly signal?: AbortSignal;
  /** Called with what happens on the way: assignments, retries, state writes. */
  readonly report?: Report;
  /** Called with what the checks before the start found to be doubtful but not refused. */
  readonly onFinding?: (finding: Finding) => void;
}

/**
 * Ingests as `config` says; subscribing starts it, unsubscribing stops it at once, `signal` drains it.
 *
 * ```ts
 * ingest({
 *   kafka: { brokers: ['127.0.0.1:9092'], groupId: 'flights' },
 *   clickhouse: { url: 'http://127.0.0.1:8123' },
 *   state: { store: 'keeper', connect: '127.0.0.1:2181' },
 *   delivery: 'exactly-once',
 *   routes: [{ topic: 'flights', table: 'flights' }],
 * }).subscribe((outcome) => console.log(outcome.kind));
 * ```
 *
 * @returns One outcome for each batch, in the order of its partition; `halted` when a partition takes nothing more.
 * @throws `KCR_CONFIG` at once. Into the stream: whatever a check before the start refuses, and what the source cannot
 * go on after.
 */
export function ingest(config: IngestConfig, options: IngestOptions = {}): Observable<Outcome> {
  const checked = checkConfig(config);
  return new Observable((subscriber) => {
    const { signal } = options;
    const starting = new AbortController();
    const giveUp = () => {
      subscriber.complete();
      starting.abort(new IngestError('KCR_PREFLIGHT', 'The start was called off'));
    };
    signal?.addEventListener('abort', giveUp, { once: true });
    const started = () => signal?.removeEventListener('abort', giveUp);
    subscriber.add(() => {
      started();
      starting.abort(new IngestError('KCR_PREFLIGHT', 'The start was called off'));
    });
    if (signal?.aborted === true) return giveUp();
    openPorts(checked, { ...options, signal: starting.signal }).then(
      (ports) => {
        started();
        subscriber.add(ingestFrom(ports, checked, options).subscribe(subscriber));
      },
      (thrown: unknown) => subscriber.error(thrown),
    );
  });
}

/** The adapters of a configuration, checked and open. `close` them when the outcomes are over. */
export interface OpenPorts extends Ports {
  close(): Promise<void>;
}

/**
 * Checks everything a configuration names, then opens it. Kafka's group is not joined yet. Aborting `signal` meanwhile
 * fails it at once; afterwards it has no effect.
 *
 * @throws Everything the checks refuse, as one error: unreachable servers, missing topics and tables, a dedup window of 0.
 */
export async function openPorts(config: CheckedConfig, options: IngestOptions = {}): Promise<OpenPorts> {
  const { signal } = options;
  const starting = new AbortController();
  const callOff = () => starting.abort(signal?.reason);
  if (signal?.aborted === true) callOff();
  signal?.addEventListener('abort', callOff, { once: true });
  const opening = openChecked(config, { ...options, signal: starting.signal });
  try {
    return await orAborted(opening, starting.signal);
  } catch (thrown) {
    // Called off: what opens nevertheless is closed, and what fails by it has been said.
    opening.then((ports) => ports.close()).catch(() => undefined);
    throw thrown;
  } finally {
    signal?.removeEventListener('abort', callOff);
  }
}

async function openChecked(config: CheckedConfig, { report = noReport, onFinding, signal }: IngestOptions): Promise<OpenPorts> {
  const findings = await preflight(config, { signal, records: 'start' });
  const refusal = refusalOf(findings);
  if (refusal !== undefined) throw refusal;
  for (const finding of findings) if (finding.level === 'warning') onFinding?.(finding);
  const limit = limitOf(START_LIMIT_MS, () => new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse did not tell of the tables within ${START_LIMIT_MS / 1000} s`, { hint: 'it answered the checks before: look at the server, then start again' }), signal);
  const sink = await openClickHouseSink({ ...clickHouseOptions(config), report, starting: limit.signal }).finally(limit.clear);
  // Under `continue` what retention took is passed over; a log that ends too early is a reset.
  const onOutOfRange = ({ wanted, logStart }: OutOfRange) => (config.onGap === 'continue' && wanted < logStart ? logStart : undefined);
  const { bytes: budgetBytes } = budgetHere(config.kafka.budgetBytes);
  const member = kafkaSource({ ...config.kafka, budgetBytes, topics: topicsOf(config), report, onOutOfRange, onReset: config.onReset, stateDecides: config.delivery === 'exactly-once' });
  const { source, store } = openStore(config, member, report);
  const close = async () => {
    await Promise.all([sink.close(), store?.close()]);
  };
  return { source, sink, store, close };
}

/** The store, and the source to be used with it. */
function openStore(config: CheckedConfig, source: KafkaSource, report: Report): Pick<Ports, 'source' | 'store'> {
  const { state, delivery } = config;
  if (delivery !== 'exactly-once' || state === undefined) return { source };
  switch (state.store) {
    case 'keeper':
      return { source, store: keeperStore(state) };
    case 'keeper-map':
      return { source, store: keeperMapStore(keeperMapConfig(config, state)) };
    case 'kafka':
      return kafkaStore(source, { group: config.kafka.groupId, report });
    case 'memory':
      return { source, store: memoryStore() };
  }
}

function ingestFrom(ports: OpenPorts, config: CheckedConfig, { signal, report = noReport }: IngestOptions): Observable<Outcome> {
  const transforms = new Map(config.routes.map(({ topic, transform }) => [topic, transform]));
  const versions = new Map(config.routes.map(({ topic, transformVersion }) => [topic, transformVersion]));
  const outcomes = arrange(ports, {
    ...config,
    group: config.kafka.groupId,
    owner: `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`,
    transform: (topic): MonoTypeOperatorFunction<InsertBatch> | undefined => {
      const transform = transforms.get(topic);
      return transform === undefined ? undefined : transformRows(transform, { report });
    },
    transformVersion: (topic) => versions.get(topic),
    report,
  }, fairScheduler());
  return new Observable<Outcome>((subscriber) => {
    const drain = () => ports.source.drain();
    const closeThen = (done: () => void) => void ports.close().then(done, done);
    const running = outcomes.subscribe({
      next: (outcome) => subscriber.next(outcome),
      error: (error: unknown) => closeThen(() => subscriber.error(error)),
      complete: () => closeThen(() => subscriber.complete()),
    });
    signal?.addEventListener('abort', drain, { once: true });
    if (signal?.aborted === true) drain();
    return () => {
      signal?.removeEventListener('abort', drain);
      const wasRunning = !running.closed;
      running.unsubscribe();
      if (wasRunning) void ports.close().catch(() => undefined);
    };
  });
}
