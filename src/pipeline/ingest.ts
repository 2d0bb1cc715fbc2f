/**
 * The one-liner. Opens the adapters a configuration names, checks them before a record is taken, and pipes the
 * six stages. An ordinary user of the operators: what stands here, anyone can write by hand.
 * Imports: Node, abort, clickhouse, config, errors, events, kafka, observe, operators, operators/between, ports,
 * preflight, rxjs, stages, stores.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { Observable, type MonoTypeOperatorFunction } from 'rxjs';
import { transformRows } from '../../operators/between/transform-rows.js';
import { limitOf, orAborted } from '../abort.js';
import { clickHouseOptions, topicsOf } from '../config/adapter-options.js';
import { openClickHouseSink } from '../clickhouse/sink.js';
import { checkConfig, type CheckedConfig, type IngestConfig } from '../config/config.js';
import { IngestError } from '../errors.js';
import { ignoreEvents, type Outcome, type OnEvent } from '../events.js';
import { expectNoRefusal, type Finding } from '../preflight/finding.js';
import { fairScheduler } from './fair-scheduler.js';
import { kafkaSource, type KafkaSource, type OutOfRange } from '../kafka/source.js';
import { budgetHere } from './memory-budget.js';
import type { InsertSink } from '../../operators/insert-deduped.js';
import type { ReconcileSink } from '../../operators/reconcile-with-state.js';
import type { GroupSource, PreparingSink, SeekableSource, StateStore } from '../ports.js';
import { observedPorts } from '../observe/observed-ports.js';
import { preflight, START_LIMIT_MS } from '../preflight/preflight.js';
import type { InsertableBatch } from '../stages.js';
import { openStore } from '../stores/stores.js';
import { atLeastOnce } from './at-least-once.js';
import { atMostOnce } from './at-most-once.js';
import { ingestionOf, type Ingestion } from './ingestion.js';
import { checkOwnConfig, type OwnPorts, type OwnPortsConfig } from './own-ports.js';
import { exactlyOnce, type ExactlyOnceConfig } from './exactly-once.js';

/** How an ingestion is stopped, and who is told of it. */
export interface IngestOptions {
  /**
   * Aborting it drains: what was taken is inserted, settled and committed, then the outcomes complete. During the
   * checks before the start they complete at once.
   */
  readonly signal?: AbortSignal;
  /** Called with what happens on the way: assignments, retries, state writes. */
  readonly onEvent?: OnEvent;
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
 * With `ports` of one's own first, these take the place of what the configuration would name: `ingest({ sink },
 * config)`.
 *
 * @returns One outcome for each batch, in the order of its partition; `halted` when a partition takes nothing more.
 * `pause`, `resume` and `drain` tell it what to do.
 * @throws `KCR_CONFIG` at once. Into the stream: whatever a check before the start refuses, and what the source cannot
 * go on after.
 */
export function ingest(config: IngestConfig, options?: IngestOptions): Ingestion;
export function ingest(ports: OwnPorts, config: OwnPortsConfig, options?: IngestOptions): Ingestion;
export function ingest(
  first: IngestConfig | OwnPorts,
  second?: IngestOptions | OwnPortsConfig,
  third?: IngestOptions,
): Ingestion {
  if (second !== undefined && 'routes' in second)
    return ingestion(first as OwnPorts, checkOwnConfig(first as OwnPorts, second), third);
  return ingestion({}, checkConfig(first), second);
}

function ingestion(own: OwnPorts, checked: CheckedConfig, options: IngestOptions = {}): Ingestion {
  return ingestionOf((subscriber, { meter, opened, onEvent, draining }) => {
    const signal = options.signal === undefined ? draining : AbortSignal.any([options.signal, draining]);
    const starting = new AbortController();
    const giveUp = () => {
      subscriber.complete();
      starting.abort(new IngestError('KCR_PREFLIGHT', 'The start was called off'));
    };
    signal.addEventListener('abort', giveUp, { once: true });
    const started = () => signal.removeEventListener('abort', giveUp);
    subscriber.add(() => {
      started();
      starting.abort(new IngestError('KCR_PREFLIGHT', 'The start was called off'));
    });
    if (signal.aborted) return giveUp();
    const told = { ...options, signal, onEvent };
    openWith(own, checked, { ...told, signal: starting.signal }).then(
      (ports) => {
        started();
        subscriber.add(opened(ports.source));
        subscriber.add(ingestFrom(observedPorts(ports, meter), checked, told).subscribe(subscriber));
      },
      (thrown: unknown) => subscriber.error(thrown),
    );
    return undefined;
  }, options.onEvent);
}

/** Where records come from, where rows go, and where is written down what is in doubt. */
export interface Ports {
  readonly source: GroupSource;
  readonly sink: PreparingSink;
  /** For exactly-once only. */
  readonly store?: StateStore | undefined;
}

/** The adapters of a configuration, checked and open. `close` them when the outcomes are over. */
export interface OpenPorts extends Ports {
  /** Closes every connection; resolves when all are closed. */
  close(): Promise<void>;
}

/**
 * Checks everything a configuration names, then opens it. Kafka's group is not joined yet. Aborting `signal` meanwhile
 * fails it at once; afterwards it has no effect.
 *
 * @throws Everything the checks refuse, as one error: unreachable servers, missing topics and tables, a dedup window of
 * 0.
 */
export function openPorts(config: CheckedConfig, options: IngestOptions = {}): Promise<OpenPorts> {
  // Without ports of one's own all of them are adapters.
  return openWith({}, config, options) as Promise<OpenPorts>;
}

/** Ports that are open, of which some may be one's own. */
interface MixedPorts {
  readonly source: SeekableSource;
  readonly sink: InsertSink & ReconcileSink;
  readonly store?: StateStore | undefined;
  close(): Promise<void>;
}

async function openWith(own: OwnPorts, config: CheckedConfig, options: IngestOptions): Promise<MixedPorts> {
  const { signal } = options;
  const starting = new AbortController();
  const callOff = () => starting.abort(signal?.reason);
  if (signal?.aborted === true) callOff();
  signal?.addEventListener('abort', callOff, { once: true });
  const opening = openChecked(own, config, { ...options, signal: starting.signal });
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

async function openChecked(
  own: OwnPorts,
  config: CheckedConfig,
  { onEvent = ignoreEvents, onFinding, signal }: IngestOptions,
): Promise<MixedPorts> {
  const isOwn = { source: own.source !== undefined, sink: own.sink !== undefined, store: own.store !== undefined };
  expectNoRefusal(await preflight(config, { signal, records: 'start', own: isOwn }), onFinding);
  const opened = own.sink === undefined ? await openSink(config, onEvent, signal) : undefined;
  const { source, store } = openSource(own, config, onEvent);
  // Whoever made a port closes it.
  const close = async () => {
    await Promise.all([opened?.close(), own.store === undefined ? store?.close() : undefined]);
  };
  return { source, sink: own.sink ?? opened!, store, close };
}

async function openSink(
  config: CheckedConfig,
  onEvent: OnEvent,
  signal: AbortSignal | undefined,
): Promise<PreparingSink> {
  const limitS = START_LIMIT_MS / 1000;
  const hint = 'it answered the checks before: look at the server, then start again';
  const limit = limitOf(
    START_LIMIT_MS,
    () =>
      new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse did not tell of the tables within ${limitS} s`, {
        hint,
      }),
    signal,
  );
  return openClickHouseSink({ ...clickHouseOptions(config), onEvent, starting: limit.signal }).finally(limit.clear);
}

/** The source, and the store to be used with it. */
function openSource(own: OwnPorts, config: CheckedConfig, onEvent: OnEvent): Pick<MixedPorts, 'source' | 'store'> {
  const source = own.source ?? kafkaSourceOf(config, onEvent);
  return own.store === undefined ? openStore(config, source, onEvent) : { source, store: own.store };
}

function kafkaSourceOf(config: CheckedConfig, onEvent: OnEvent): KafkaSource {
  // Under `continue` what retention took is passed over; a log that ends too early is a reset.
  const onOutOfRange = ({ wanted, logStart }: OutOfRange) =>
    config.onGap === 'continue' && wanted < logStart ? logStart : undefined;
  const { bytes: budgetBytes } = budgetHere(config.kafka.budgetBytes);
  return kafkaSource({
    ...config.kafka,
    budgetBytes,
    topics: topicsOf(config),
    onEvent,
    onOutOfRange,
    onReset: config.onReset,
  });
}

/** What can be changed about the pipeline of a configuration. */
export interface PipelineOptions extends Partial<
  Pick<ExactlyOnceConfig, 'owner' | 'onlyInDoubt' | 'onEvent' | 'scheduler'>
> {
  /** Instead of the transforms of the routes. */
  readonly transform?: <B extends InsertableBatch>(topic: string) => MonoTypeOperatorFunction<B> | undefined;
}

/** The pipeline that a configuration asks for, over ports that are open. */
export function pipelineOf(
  { source, sink, store }: Omit<MixedPorts, 'close'>,
  config: CheckedConfig,
  options: PipelineOptions = {},
): Observable<Outcome> {
  const routes = new Map(config.routes.map((route) => [route.topic, route]));
  const transform = <B extends InsertableBatch>(topic: string): MonoTypeOperatorFunction<B> | undefined => {
    const rows = routes.get(topic)?.transform;
    return rows === undefined
      ? undefined
      : transformRows<B>(rows, options.onEvent === undefined ? {} : { onEvent: options.onEvent });
  };
  const shared = { ...config, transform, ...options };
  switch (config.delivery) {
    case 'at-most-once':
      return atMostOnce(source, sink, shared);
    case 'at-least-once':
      return atLeastOnce(source, sink, shared);
    case 'exactly-once': {
      if (store === undefined) throw new IngestError('KCR_CONFIG', 'exactly-once needs a state store, got none');
      const { owner = `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}` } = options;
      return exactlyOnce(source, sink, store, {
        ...shared,
        group: config.kafka.groupId,
        owner,
        transformVersion: (topic) => routes.get(topic)?.transformVersion,
      });
    }
  }
}

function ingestFrom(
  ports: MixedPorts,
  config: CheckedConfig,
  { signal, onEvent = ignoreEvents }: IngestOptions,
): Observable<Outcome> {
  const outcomes = pipelineOf(ports, config, { onEvent, scheduler: fairScheduler() });
  return new Observable<Outcome>((subscriber) => {
    const drain = () => (ports.source.drain === undefined ? subscriber.complete() : ports.source.drain());
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
