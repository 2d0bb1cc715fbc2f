/**
 * What a person may say about the Kafka side, with its defaults and its checks. Values only: no connection, no
 * kafkajs but for the types of its authentication. Imports: Node, events, kafka/connection, model, options.
 */
import { Pauses } from '../model/pauses.js';
import type { ConnectionOptions } from 'node:tls';
import { ignoreEvents, type OnEvent } from '../events.js';
import { limitFault, refuseFault, wordFault, type OptionFault } from '../options.js';
import type { OpenSocket } from './connection/sockets.js';
import {
  BROKER_ADDRESS,
  clientDefaults,
  DRAIN_TIMEOUT_MS,
  sourceDefaults,
  sourceLimits,
  sourceWords,
} from './option-values.js';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Takes what the Kafka client has to say. Called synchronously; must not throw. */
export type KafkaLog = (level: LogLevel, message: string, fields: Readonly<Record<string, unknown>>) => void;

export type SaslOptions =
  | {
      /** How the password is proved to the brokers; `plain` sends it as it is. */
      readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
      /** The user, as the brokers know it. */
      readonly username: string;
      /** Its password. */
      readonly password: string;
    }
  | {
      /** By a token of an identity provider. */
      readonly mechanism: 'oauthbearer';
      /** Gives the token; called for each login. */
      readonly oauthBearerProvider: () => Promise<{ readonly value: string }>;
    };

/** How to reach a Kafka cluster. */
export interface KafkaClientOptions {
  /** `host:port` of one or more brokers; the others are learnt from them. */
  readonly brokers: readonly string[];
  /** The name under which the brokers log this client. @default 'kafka-clickhouse-rx' */
  readonly clientId?: string | undefined;
  /** `true`, or any option of Node's `tls.connect`. @default false */
  readonly ssl?: boolean | ConnectionOptions | undefined;
  /** How to log in to the brokers. @default undefined: no login */
  readonly sasl?: SaslOptions | undefined;
  /** How long a connection may take to open, milliseconds. @default 5000 */
  readonly connectTimeoutMs?: number | undefined;
  /** How long a broker may take to answer before its connection is reopened, milliseconds. @default 10000 */
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
   * an equal share of that, and may always have one fetch outstanding; a record batch that unpacks to more than 8 MiB
   * waits for room, and at most one at a time is beyond it. One that unpacks to more than all of it is refused. The
   * rest is for what is being received, and for what the garbage collector has yet to take. @default 268435456
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
   * A topic that was recreated or truncated while it was read: the partition fails with `KCR_TOPIC_RESET`, or starts
   * again, in a new assignment, where the log begins (recreated) or ends (truncated). @default 'halt'
   */
  readonly onReset?: 'halt' | 'restart' | undefined;
  /**
   * A record batch that cannot be believed (its checksum, its counts, its offsets) or that unpacks to more than
   * `budgetBytes`, after it was fetched again a few times: the partition fails with `KCR_CORRUPT_BATCH`, or goes on
   * behind the batch, which is told as the event `corruptBatch` and covered by a chunk without records. Where not even
   * the batch's own offsets can be believed the partition fails in any case. @default 'halt'
   */
  readonly onCorruptBatch?: 'halt' | 'skip' | undefined;
  /**
   * Whoever is given a partition claims its state in a store, which says where to go on. Then a partition whose topic
   * was recreated or truncated is lost and assigned again in any case, for the claim to compare and decide; and one
   * that cannot begin where the group's offset says is given time to be sent elsewhere. A ledger over the source says
   * so by itself.
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
  /** What takes nothing more for now; it outlives assignments and subscriptions. */
  readonly pauses: Pauses;
}

/** @throws `KCR_CONFIG` */
export function clientSettings(options: KafkaClientOptions): ClientSettings {
  const { clientId, ssl, connectTimeoutMs, requestTimeoutMs } = clientDefaults;
  const settings: ClientSettings = {
    brokers: options.brokers,
    clientId: options.clientId ?? clientId,
    ssl: options.ssl ?? ssl,
    sasl: options.sasl,
    connectTimeoutMs: options.connectTimeoutMs ?? connectTimeoutMs,
    requestTimeoutMs: options.requestTimeoutMs ?? requestTimeoutMs,
    log: options.log ?? (() => undefined),
  };
  refuseFault(brokersFault(settings) ?? limitFault(settings, sourceLimits));
  return settings;
}

/** @throws `KCR_CONFIG` */
export function sourceSettings(options: KafkaSourceOptions): SourceSettings {
  const settings = withDefaults(options);
  const client = clientSettings(options);
  const fault = namesFault(settings) ?? wordFault(settings, sourceWords) ?? limitFault(settings, sourceLimits);
  refuseFault(fault ?? timesFault(settings));
  return { ...client, ...settings };
}

function withDefaults(options: KafkaSourceOptions): Omit<SourceSettings, keyof ClientSettings> {
  const { rebalanceTimeoutMs = sourceDefaults.rebalanceTimeoutMs } = options;
  const of = <Name extends keyof typeof sourceDefaults>(name: Name) => options[name] ?? sourceDefaults[name];
  return {
    groupId: options.groupId,
    topics: options.topics,
    fromBeginning: of('fromBeginning'),
    sessionTimeoutMs: of('sessionTimeoutMs'),
    rebalanceTimeoutMs,
    heartbeatIntervalMs: of('heartbeatIntervalMs'),
    drainTimeoutMs: options.drainTimeoutMs ?? drainTimeoutOf(rebalanceTimeoutMs),
    maxWaitMs: of('maxWaitMs'),
    maxBytesPerPartition: of('maxBytesPerPartition'),
    maxBytes: of('maxBytes'),
    budgetBytes: of('budgetBytes'),
    isolation: of('isolation'),
    metadataMaxAgeMs: of('metadataMaxAgeMs'),
    onOutOfRange: options.onOutOfRange ?? (() => undefined),
    onReset: of('onReset'),
    onCorruptBatch: of('onCorruptBatch'),
    stateDecides: of('stateDecides'),
    onEvent: options.onEvent ?? ignoreEvents,
    pauses: new Pauses(),
  };
}

function drainTimeoutOf(rebalanceTimeoutMs: number): number {
  return Math.min(DRAIN_TIMEOUT_MS, Math.floor(rebalanceTimeoutMs / 2));
}

function brokersFault({ brokers }: Pick<KafkaClientOptions, 'brokers'>): OptionFault | undefined {
  if (!Array.isArray(brokers) || brokers.length === 0)
    return { option: 'brokers', what: 'a list of one or more "host:port"', got: brokers };
  const odd = (brokers as readonly unknown[]).find((each) => typeof each !== 'string' || !BROKER_ADDRESS.test(each));
  return odd === undefined ? undefined : { option: 'brokers', what: '"host:port" in each place', got: odd };
}

function namesFault({ groupId, topics }: Pick<SourceSettings, 'groupId' | 'topics'>): OptionFault | undefined {
  if (typeof groupId !== 'string' || groupId === '') return { option: 'groupId', what: 'a name', got: groupId };
  if (!Array.isArray(topics) || topics.length === 0)
    return { option: 'topics', what: 'one or more names', got: topics };
  const odd = (topics as readonly unknown[]).find((each) => typeof each !== 'string' || !/^[\w.-]{1,249}$/.test(each));
  return odd === undefined ? undefined : { option: 'topics', what: 'Kafka topic names', got: odd };
}

/** Which of a group's times do not fit together; undefined: all do. What is not given has its default. */
export function timesFault(
  options: Pick<
    KafkaSourceOptions,
    'sessionTimeoutMs' | 'heartbeatIntervalMs' | 'drainTimeoutMs' | 'rebalanceTimeoutMs'
  >,
): OptionFault | undefined {
  const {
    sessionTimeoutMs = sourceDefaults.sessionTimeoutMs,
    heartbeatIntervalMs = sourceDefaults.heartbeatIntervalMs,
    rebalanceTimeoutMs = sourceDefaults.rebalanceTimeoutMs,
    drainTimeoutMs = drainTimeoutOf(rebalanceTimeoutMs),
  } = options;
  if (heartbeatIntervalMs * 2 > sessionTimeoutMs) {
    return {
      option: 'heartbeatIntervalMs',
      what: `at most half of sessionTimeoutMs (${sessionTimeoutMs})`,
      got: heartbeatIntervalMs,
      hint: 'a third of the session time-out is usual',
    };
  }
  if (drainTimeoutMs + heartbeatIntervalMs < rebalanceTimeoutMs) return undefined;
  return {
    option: 'drainTimeoutMs',
    what:
      `less than rebalanceTimeoutMs (${rebalanceTimeoutMs}) by more than heartbeatIntervalMs ` +
      `(${heartbeatIntervalMs})`,
    got: drainTimeoutMs,
    hint: 'the group gives a partition away after the rebalance time-out, whether it is drained or not',
  };
}
