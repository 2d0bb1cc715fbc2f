/**
 * The configuration as a person writes it, for the program and for `ingest` alike. A key that an adapter knows is
 * documented there, once; what stands here is what a pipeline adds. `schema.ts` is checked against these types by the
 * compiler, and the published JSON schema takes its descriptions from these comments.
 * Imports: clickhouse, kafka, operators, operators/between, retry, state.
 */
import type { BufferConfig } from '../../operators/buffer-count-or-time.js';
import type { HealConfig } from '../../operators/group-by-partition.js';
import type { Transform } from '../../operators/between/transform-rows.js';
import type { ClickHouseSinkOptions, Route } from '../clickhouse/options.js';
import type { KafkaSourceOptions } from '../kafka/options.js';
import type { RetryConfig } from '../retry.js';
import type { KeeperMapStoreConfig } from '../state/keeper-map.js';
import type { KeeperStoreConfig } from '../state/keeper.js';

/**
 * What is ingested, from where, into which tables, and how surely.
 *
 * In any string `${NAME}` stands for an environment variable, `${NAME:-default}` for one with a default,
 * `${file:/path}` for a file's text, `$${` for `${`.
 */
export interface IngestConfig {
  /** For editors: where the JSON Schema is. */
  readonly $schema?: string | undefined;
  /** Where records come from. */
  readonly kafka: KafkaConfig;
  /** Where rows go. */
  readonly clickhouse: ClickHouseConfig;
  /** Where it is written down what is in doubt. Only exactly-once needs it. */
  readonly state?: StateConfig | undefined;
  /**
   * What becomes of a batch when a process dies: lost at worst, doubled at worst, or neither. Errors: `KCR_CONFIG` for
   * `exactly-once` without `state`.
   */
  readonly delivery: 'at-most-once' | 'at-least-once' | 'exactly-once';
  /** Which topic goes into which table: one route a topic; several topics may share a table. */
  readonly routes: readonly RouteConfig[];
  /** Where batches are cut. @default {} */
  readonly batch?: BatchConfig | undefined;
  /** Batches of one partition that may be in doubt, and being inserted, at once; at most 16. @default 2 */
  readonly maxPending?: number | undefined;
  /**
   * When records that should come next are gone (retention): the partition halts (`KCR_OFFSET_GAP`), or goes on behind
   * them. @default 'halt'
   */
  readonly onGap?: 'halt' | 'continue' | undefined;
  /**
   * When a topic was recreated or truncated: the partition halts (`KCR_TOPIC_RESET`), or begins the new one, or goes
   * on where the log ends, under tokens that were never used. @default 'halt'
   */
  readonly onReset?: 'halt' | 'restart' | undefined;
  /**
   * A record that ClickHouse cannot take: its partition halts (`KCR_POISON`), or goes on without it, which is told and
   * counted; at most 100 of one batch, and at most half of a batch of more than 20. @default 'halt'
   */
  readonly onPoison?: 'halt' | 'exclude' | undefined;
  /**
   * A record without a value: its partition halts, or passes over it, which is told and counted. @default as `onPoison`
   * says: 'skip' for 'exclude'
   */
  readonly onTombstone?: 'halt' | 'skip' | undefined;
  /**
   * A partition that halts for what can be mended from outside (rights, settings, a table, a server) is started again
   * after a while; `false`: it stays halted, like one that halts for a record. @default {}
   */
  readonly heal?: HealConfig | false | undefined;
  /**
   * A field of a value that no column takes: ClickHouse passes over it, or its record is one that cannot be inserted.
   * @default 'ignore'
   */
  readonly onUnknownField?: 'ignore' | 'poison' | undefined;
  /**
   * Where the program `run` tells of itself over HTTP: a page, `/metrics`, health, status. Without it: nowhere. An
   * embedder calls `serveStatus`.
   */
  readonly http?: HttpConfig | undefined;
  /** How the program `run` can be told to pause, resume, drain or reload. Without it: by signals only. */
  readonly control?: ControlConfig | undefined;
  /**
   * The program `run` gives its metrics and a span a batch to the global providers of `@opentelemetry/api`, which must
   * be installed; an SDK that sets them is loaded by `node --import`. An embedder calls `registerOpenTelemetry`.
   * @default false
   */
  readonly openTelemetry?: boolean | undefined;
  /** How a call that failed is made again. @default {} */
  readonly retry?: Pick<RetryConfig, 'minDelayMs' | 'maxDelayMs' | 'maxAttempts'> | undefined;
}

export interface ControlConfig {
  /**
   * Path of a Unix socket, at most 103 bytes, that `control` uses to pause, resume, drain or reload the program `run`.
   * Only its owner may open it (mode 0600).
   */
  readonly socket: string;
}

export interface HttpConfig {
  /**
   * `host:port` to listen at; port 0 takes a free one. Whoever reaches it can read the status, and nothing else without
   * the token.
   * @default '127.0.0.1:9464'
   */
  readonly listen?: string | undefined;
  /** Names by which it may be asked, beside `localhost` and addresses. @default [] */
  readonly allowedHosts?: readonly string[] | undefined;
  /**
   * With it in the header `authorization: Bearer …` one may POST `/api/pause`, `/api/resume`, `/api/drain` and
   * `/api/reload`; 16 characters or more of letters, digits and `-._~+/=`. @default none: nothing can be told
   */
  readonly token?: string | undefined;
}

export interface KafkaConfig extends Pick<
  KafkaSourceOptions,
  | 'brokers'
  | 'clientId'
  | 'drainTimeoutMs'
  | 'fromBeginning'
  | 'heartbeatIntervalMs'
  | 'maxBytesPerPartition'
  | 'maxWaitMs'
  | 'onCorruptBatch'
  | 'rebalanceTimeoutMs'
  | 'sasl'
  | 'sessionTimeoutMs'
  | 'ssl'
> {
  /** The consumer group. Start more processes with the same one to scale out. */
  readonly groupId: string;
  /**
   * Memory for records on their way through the process, all partitions together, bytes; at most 64 GiB. Five eighths
   * are for what was read and is not done. @default half of what the process may use beyond 144 MiB, from 8 MiB to 256
   * MiB
   */
  readonly budgetBytes?: number | undefined;
}

export interface ClickHouseConfig extends Omit<
  ClickHouseSinkOptions,
  'clickhouseSettings' | 'onEvent' | 'queryTimeoutMs' | 'routes' | 'starting'
> {
  /**
   * Where ClickHouse listens for HTTP, for example `http://localhost:8123`; a path is kept, for gateways. A user and
   * password in it are used.
   */
  readonly url: string;
  /** Further settings of each insert. Errors: `KCR_CONFIG` for those that exactly-once rests on. @default {} */
  readonly settings?: Readonly<Record<string, string | number | boolean>> | undefined;
}

export type StateConfig = KeeperStateConfig | KeeperMapStateConfig | KafkaStateConfig | MemoryStateConfig;

/** ZooKeeper or ClickHouse Keeper. */
export interface KeeperStateConfig extends Omit<KeeperStoreConfig, 'operationTimeoutMs'> {
  /** In ZooKeeper or ClickHouse Keeper. */
  readonly store: 'keeper';
}

/** A KeeperMap table in the ClickHouse that `clickhouse` names. */
export interface KeeperMapStateConfig extends Pick<KeeperMapStoreConfig, 'path' | 'requestTimeoutMs' | 'table'> {
  /** In a KeeperMap table of the ClickHouse that `clickhouse` names. */
  readonly store: 'keeper-map';
}

export interface KafkaStateConfig {
  /** Beside the committed offsets of the consumer group. */
  readonly store: 'kafka';
}

export interface MemoryStateConfig {
  /** In the process: gone with it, and with it exactly-once over restarts. */
  readonly store: 'memory';
  /** Says that you know. Errors: `KCR_CONFIG` for exactly-once without it. @default none */
  readonly allowVolatile?: true | undefined;
}

export interface RouteConfig extends Route {
  /**
   * Rows of a record, in an ESM configuration or with `ingest`: see `transformRows`. @default the record's value is the
   * row
   */
  readonly transform?: Transform | undefined;
  /**
   * Names the transform, 1 to 100 characters, recorded with each range: give another name with each change of its rows.
   * A range in doubt of another name halts its partition (`KCR_TRANSFORM`). @default none
   */
  readonly transformVersion?: string | undefined;
}

export type BatchConfig = Pick<BufferConfig, 'bytes' | 'count' | 'maxWaitMs'>;
