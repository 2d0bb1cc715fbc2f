/**
 * Room: what a person may say about the Kafka side, with its defaults and its checks. Values only: no connection, no
 * kafkajs but for the types of its authentication.
 */
import type { ConnectionOptions } from 'node:tls';
import { IngestError } from '../errors.js';
import { ignoreEvents, type OnEvent } from '../events.js';
import type { OpenSocket } from './connection/sockets.js';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Takes what the Kafka client has to say. Called synchronously; must not throw. */
export type KafkaLog = (level: LogLevel, message: string, fields: Readonly<Record<string, unknown>>) => void;

export type SaslOptions =
  | {
      readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
      readonly username: string;
      readonly password: string;
    }
  | { readonly mechanism: 'oauthbearer'; readonly oauthBearerProvider: () => Promise<{ readonly value: string }> };

/** How to reach a Kafka cluster. */
export interface KafkaClientOptions {
  /** `host:port` of one or more brokers; the others are learnt from them. */
  readonly brokers: readonly string[];
  /** The name under which the brokers log this client. @default 'kafka-clickhouse-rx' */
  readonly clientId?: string | undefined;
  /** `true`, or any option of Node's `tls.connect`. @default false */
  readonly ssl?: boolean | ConnectionOptions | undefined;
  /** @default undefined: no login */
  readonly sasl?: SaslOptions | undefined;
  /** How long a connection may take to open, milliseconds. @default 5000 */
  readonly connectTimeoutMs?: number | undefined;
  /** How long a broker may take to answer before its connection is opened anew, milliseconds. @default 10000 */
  readonly requestTimeoutMs?: number | undefined;
  /** @default nothing is logged */
  readonly log?: KafkaLog | undefined;
}

/** A committed offset or a stored state that the log does not hold any more, or not yet. */
export interface OutOfRange {
  readonly topic: string;
  readonly partition: number;
  /** The offset that was asked for. */
  readonly wanted: number;
  /** The first offset the log still holds. */
  readonly logStart: number;
  /** The offset the next record will get. */
  readonly logEnd: number;
}

export interface KafkaSourceOptions extends KafkaClientOptions {
  readonly groupId: string;
  readonly topics: readonly string[];
  /** Told of what `log` is told, but for details. @default nobody */
  readonly onEvent?: OnEvent | undefined;
  /**
   * Where a group that never committed begins: at the earliest record, or only with what comes from now on. The place
   * is committed at once, so that it is chosen only once. @default false
   */
  readonly fromBeginning?: boolean | undefined;
  /** Without a heartbeat for so long the group gives our partitions away, milliseconds. @default 30000 */
  readonly sessionTimeoutMs?: number | undefined;
  /** How long a rebalance waits for a member to give up its partitions, milliseconds. @default 60000 */
  readonly rebalanceTimeoutMs?: number | undefined;
  /**
   * A member hears of a rebalance with its next heartbeat, so this is most of what one takes; a heartbeat costs next to
   * nothing. @default 1000
   */
  readonly heartbeatIntervalMs?: number | undefined;
  /**
   * How long a revoked partition may take to be flushed and committed, milliseconds.
   * @default 20000, at most half of `rebalanceTimeoutMs`
   */
  readonly drainTimeoutMs?: number | undefined;
  /** How long a broker waits for new records before it answers with none, milliseconds. @default 250 */
  readonly maxWaitMs?: number | undefined;
  /** Most bytes one fetch brings of one partition, as they are compressed. @default 4194304 */
  readonly maxBytesPerPartition?: number | undefined;
  /** Most bytes one fetch brings, as they are compressed. @default 16777216 */
  readonly maxBytes?: number | undefined;
  /**
   * Memory for records on their way, bytes. Five eighths are for what was delivered and is not done: each partition has
   * an equal share of that, and may always have one fetch outstanding; a record batch that unpacks to more than 8 MiB waits
   * for room, and at most one at a time is beyond it. One that unpacks to more than all of it is refused. The rest is for what is being received, and for
   * what the garbage collector has yet to take. @default 268435456
   */
  readonly budgetBytes?: number | undefined;
  /** Leave out the records of transactions that are open or aborted. @default 'read_committed' */
  readonly isolation?: 'read_committed' | 'read_uncommitted' | undefined;
  /** How often topics are looked at for new partitions, milliseconds. @default 60000 */
  readonly metadataMaxAgeMs?: number | undefined;
  /**
   * Decides when an offset is out of the log's range: the offset to go on at, or undefined to let the partition fail
   * with `KCR_OFFSET_RANGE`. Offsets that are passed over are told as the event `gap`, and covered by a chunk without
   * records. @default fails: going on would skip or repeat records without a word
   */
  readonly onOutOfRange?: ((where: OutOfRange) => number | undefined) | undefined;
  /**
   * A topic that was created anew or truncated while it was read: the partition fails with `KCR_TOPIC_RESET`, or begins
   * anew, in a new tenure, where the log begins (anew) or ends (truncated). @default 'halt'
   */
  readonly onReset?: 'halt' | 'restart' | undefined;
  /**
   * A record batch that cannot be believed (its checksum, its counts, its offsets) or that unpacks to more than
   * `budgetBytes`, after it was fetched again a few times: the partition fails with `KCR_CORRUPT_BATCH`, or goes on behind
   * the batch, which is told as the event `corruptBatch` and covered by a chunk without records. Where not even the
   * batch's own offsets can be believed the partition fails in any case. @default 'halt'
   */
  readonly onCorruptBatch?: 'halt' | 'skip' | undefined;
  /**
   * Whoever is given a partition claims its state in a store, which says where to go on. Then a partition whose topic
   * was created anew or truncated is lost and assigned again in any case, for the claim to compare and decide; and one
   * that cannot begin where the group's offset says is given time to be sent elsewhere. A ledger over the source says so by itself.
   * @default false
   */
  readonly stateDecides?: boolean | undefined;
}

export interface ClientSettings {
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly ssl: boolean | ConnectionOptions;
  readonly sasl: SaslOptions | undefined;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly log: KafkaLog;
  /** Of a simulation. @default a real socket */
  readonly openSocket?: OpenSocket | undefined;
}

export interface SourceSettings extends ClientSettings {
  readonly groupId: string;
  readonly topics: readonly string[];
  readonly fromBeginning: boolean;
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  readonly drainTimeoutMs: number;
  readonly maxWaitMs: number;
  readonly maxBytesPerPartition: number;
  readonly maxBytes: number;
  readonly budgetBytes: number;
  readonly isolation: 'read_committed' | 'read_uncommitted';
  readonly metadataMaxAgeMs: number;
  readonly onOutOfRange: (where: OutOfRange) => number | undefined;
  readonly onReset: 'halt' | 'restart';
  readonly onCorruptBatch: 'halt' | 'skip';
  readonly stateDecides: boolean;
  readonly onEvent: OnEvent;
}

/** With leaving and closing a drain stays well below the half minute after which supervisors kill. */
export const DRAIN_TIMEOUT_MS = 20_000;

export function clientSettings(options: KafkaClientOptions): ClientSettings {
  if (!Array.isArray(options.brokers) || options.brokers.length === 0) {
    throw expected('brokers', 'a list of one or more "host:port"', options.brokers);
  }
  for (const broker of options.brokers as readonly unknown[]) {
    if (typeof broker !== 'string' || !/^(?:[^\s:/[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}$/.test(broker))
      throw expected('brokers', '"host:port" in each place', broker);
  }
  const settings: ClientSettings = {
    brokers: options.brokers,
    clientId: options.clientId ?? 'kafka-clickhouse-rx',
    ssl: options.ssl ?? false,
    sasl: options.sasl,
    connectTimeoutMs: options.connectTimeoutMs ?? 5000,
    requestTimeoutMs: options.requestTimeoutMs ?? 10_000,
    log: options.log ?? (() => undefined),
  };
  positive(settings, 'connectTimeoutMs', 'requestTimeoutMs');
  return settings;
}

export function sourceSettings(options: KafkaSourceOptions): SourceSettings {
  const rebalanceTimeoutMs = options.rebalanceTimeoutMs ?? 60_000;
  const settings: SourceSettings = {
    ...clientSettings(options),
    groupId: options.groupId,
    topics: options.topics,
    fromBeginning: options.fromBeginning ?? false,
    sessionTimeoutMs: options.sessionTimeoutMs ?? 30_000,
    rebalanceTimeoutMs,
    heartbeatIntervalMs: options.heartbeatIntervalMs ?? 1000,
    drainTimeoutMs: options.drainTimeoutMs ?? Math.min(DRAIN_TIMEOUT_MS, Math.floor(rebalanceTimeoutMs / 2)),
    maxWaitMs: options.maxWaitMs ?? 250,
    maxBytesPerPartition: options.maxBytesPerPartition ?? 4 * 1024 * 1024,
    maxBytes: options.maxBytes ?? 16 * 1024 * 1024,
    budgetBytes: options.budgetBytes ?? 256 * 1024 * 1024,
    isolation: options.isolation ?? 'read_committed',
    metadataMaxAgeMs: options.metadataMaxAgeMs ?? 60_000,
    onOutOfRange: options.onOutOfRange ?? (() => undefined),
    onReset: options.onReset ?? 'halt',
    onCorruptBatch: options.onCorruptBatch ?? 'halt',
    stateDecides: options.stateDecides ?? false,
    onEvent: options.onEvent ?? ignoreEvents,
  };
  check(settings);
  return settings;
}

function check(settings: SourceSettings): void {
  if (typeof settings.groupId !== 'string' || settings.groupId === '')
    throw expected('groupId', 'a name', settings.groupId);
  if (!Array.isArray(settings.topics) || settings.topics.length === 0)
    throw expected('topics', 'one or more names', settings.topics);
  for (const topic of settings.topics) {
    if (typeof topic !== 'string' || !/^[\w.-]{1,249}$/.test(topic))
      throw expected('topics', 'Kafka topic names', topic);
  }
  if (!['read_committed', 'read_uncommitted'].includes(settings.isolation)) {
    throw expected('isolation', '"read_committed" or "read_uncommitted"', settings.isolation);
  }
  if (!['halt', 'restart'].includes(settings.onReset))
    throw expected('onReset', '"halt" or "restart"', settings.onReset);
  if (!['halt', 'skip'].includes(settings.onCorruptBatch))
    throw expected('onCorruptBatch', '"halt" or "skip"', settings.onCorruptBatch);
  positive(
    settings,
    'sessionTimeoutMs',
    'rebalanceTimeoutMs',
    'heartbeatIntervalMs',
    'drainTimeoutMs',
    'maxWaitMs',
    'maxBytesPerPartition',
    'maxBytes',
    'budgetBytes',
    'metadataMaxAgeMs',
  );
  if (settings.heartbeatIntervalMs * 2 > settings.sessionTimeoutMs) {
    throw expected(
      'heartbeatIntervalMs',
      `at most half of sessionTimeoutMs (${settings.sessionTimeoutMs})`,
      settings.heartbeatIntervalMs,
    );
  }
  if (settings.drainTimeoutMs + settings.heartbeatIntervalMs >= settings.rebalanceTimeoutMs) {
    const limit = `less than rebalanceTimeoutMs (${settings.rebalanceTimeoutMs}) by more than heartbeatIntervalMs (${settings.heartbeatIntervalMs})`;
    throw expected('drainTimeoutMs', limit, settings.drainTimeoutMs);
  }
}

function positive<Settings extends object>(settings: Settings, ...names: readonly (keyof Settings & string)[]): void {
  for (const name of names) {
    const value = settings[name];
    if (!Number.isSafeInteger(value) || (value as number) < 1 || (value as number) > 0x7fffffff) {
      throw expected(name, 'a positive integer below 2^31', value);
    }
  }
}

function expected(name: string, what: string, got: unknown): IngestError {
  return new IngestError('KCR_CONFIG', `Expected \`${name}\` to be ${what}, got ${JSON.stringify(got) ?? String(got)}`);
}
