/**
 * Room: the configuration, as the program and `ingest` take it: its schema, its defaults and its clear errors. No
 * effect happens here but reading the environment and the files that the configuration refers to.
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { batchLimits } from '../../operators/buffer-count-or-time.js';
import type { Transform } from '../../operators/between/transform-rows.js';
import { durationMs, positive } from './numbers.js';
import { checkReach, reach, webAddress } from './reach.js';
import { BadReference, filledIn, hasReference, type World } from './references.js';
import { withoutCredentials } from './url.js';
import { IngestError } from '../errors.js';

const hostAndPort = z
  .string()
  .regex(/^(?:[^\s:/[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}$/, 'expected "host:port", or "[address]:port" for IPv6');

const sasl = z.discriminatedUnion('mechanism', [
  z.strictObject({
    mechanism: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']),
    username: z.string(),
    password: z.string(),
  }),
  z.strictObject({
    mechanism: z.literal('oauthbearer'),
    oauthBearerProvider: z.custom<() => Promise<{ value: string }>>(
      (value) => typeof value === 'function',
      'expected a function',
    ),
  }),
]);

const kafka = z.strictObject({
  /** Where to begin asking for the cluster: "host:port" each. */
  brokers: z.array(hostAndPort).min(1),
  groupId: z.string().min(1),
  clientId: z.string().min(1).exactOptional(),
  /** Where a group without a committed offset begins: at the log's beginning, or at its end. @default false */
  fromBeginning: z.boolean().default(false),
  /** `true`, or options of `tls.connect`. */
  ssl: z.union([z.boolean(), z.looseObject({})]).exactOptional(),
  sasl: sasl.exactOptional(),
  sessionTimeoutMs: durationMs.exactOptional(),
  rebalanceTimeoutMs: durationMs.exactOptional(),
  heartbeatIntervalMs: durationMs.exactOptional(),
  /** How long a partition that is taken away may go on settling what is in flight. */
  drainTimeoutMs: durationMs.exactOptional(),
  /** Longest wait of a fetch for new records. */
  maxWaitMs: durationMs.exactOptional(),
  maxBytesPerPartition: positive(1024 ** 3).exactOptional(),
  /** Bytes of records that may be on their way through the process, all partitions together. */
  budgetBytes: positive(64 * 1024 ** 3).exactOptional(),
  /** A record batch that is damaged, or says what cannot be: halt its partition, or go on behind it. */
  onCorruptBatch: z.enum(['halt', 'skip']).exactOptional(),
});

const clickhouse = z.strictObject({
  url: webAddress,
  database: z.string().min(1).default('default'),
  username: z.string().default('default'),
  password: z.string().default(''),
  ...reach,
  requestTimeoutMs: durationMs.exactOptional(),
  /** Inserts under way at once, all partitions together. */
  maxInFlight: positive(1_000).exactOptional(),
  /** `coalesced`: inserts wait at the server for others, for many partitions with little traffic. */
  insertMode: z.enum(['direct', 'coalesced']).exactOptional(),
  /** How long an insert waits for others. */
  coalesceMs: positive(10_000).exactOptional(),
  /** A batch of more bytes waits for no others. */
  coalesceBytes: positive(4 * 1024 ** 2).exactOptional(),
  dedupBudgetMs: durationMs.exactOptional(),
  /** Further settings of each insert; those that exactly-once rests on cannot be changed. */
  settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).exactOptional(),
});

const state = z.discriminatedUnion('store', [
  z.strictObject({
    store: z.literal('keeper'),
    /** "host:port", several separated by commas, a chroot may follow. */
    connect: z.string().min(1),
    path: z
      .string()
      .regex(/^\/./, 'expected an absolute path such as "/kafka-clickhouse-rx"')
      .default('/kafka-clickhouse-rx'),
    sessionTimeoutMs: durationMs.exactOptional(),
    /** Digest authentication: "user:password". */
    auth: z.string().min(1).exactOptional(),
  }),
  z.strictObject({
    /** A KeeperMap table in the ClickHouse that `clickhouse` names. */
    store: z.literal('keeper-map'),
    table: z.string().min(1).exactOptional(),
    /** Beneath the server's `keeper_map_path_prefix`. */
    path: z.string().regex(/^\/./, 'expected an absolute path such as "/kafka_clickhouse_rx"').exactOptional(),
    requestTimeoutMs: durationMs.exactOptional(),
  }),
  /** Beside the committed offsets of the consumer group. */
  z.strictObject({ store: z.literal('kafka') }),
  z.strictObject({
    store: z.literal('memory'),
    /** The state is gone with the process, and with it exactly-once over restarts; say that you know. */
    allowVolatile: z.literal(true).exactOptional(),
  }),
]);

const route = z.strictObject({
  topic: z.string().min(1),
  table: z.string().min(1),
  /** Where the table is. @default `clickhouse.database` */
  database: z.string().min(1).exactOptional(),
  /** Rows of a record, in an ESM configuration or with `ingest`: see `transformRows`. */
  transform: z.custom<Transform>((value) => typeof value === 'function', 'expected a function').exactOptional(),
  /** Names the transform; another name for each change of its rows. A range in doubt of another name halts. */
  transformVersion: z.string().min(1).max(100).exactOptional(),
});

export const configSchema = z.strictObject({
  /** For editors: where the JSON Schema is. */
  $schema: z.string().exactOptional(),
  kafka,
  clickhouse,
  state: state.exactOptional(),
  delivery: z.enum(['at-most-once', 'at-least-once', 'exactly-once']),
  routes: z.array(route).min(1),
  batch: z
    .strictObject({
      count: positive(batchLimits.maxCount).exactOptional(),
      bytes: positive(batchLimits.maxBytes).exactOptional(),
      maxWaitMs: positive(batchLimits.maxWaitMs).exactOptional(),
    })
    .default({}),
  /** Ranges of one partition that may be in doubt, and inserts of it under way, at once. */
  maxPending: positive(16).default(2),
  onGap: z.enum(['halt', 'continue']).default('halt'),
  onReset: z.enum(['halt', 'restart']).default('halt'),
  onPoison: z.enum(['halt', 'exclude']).default('halt'),
  /** A record without a value: halt its partition, go on without it, or as `onPoison` says. */
  onTombstone: z.enum(['halt', 'skip']).exactOptional(),
  /** A partition that halts for what can be mended from outside is begun anew after a while; `false`: it stays halted. */
  heal: z
    .union([
      z.literal(false),
      z.strictObject({
        /** Before the first time; it doubles from halt to halt. */
        minDelayMs: durationMs.default(10_000),
        maxDelayMs: durationMs.default(300_000),
      }),
    ])
    .default({ minDelayMs: 10_000, maxDelayMs: 300_000 }),
  /** A field that no column takes: pass over it, or take its record for one that cannot be inserted. @default 'ignore' */
  onUnknownField: z.enum(['ignore', 'poison']).default('ignore'),
  retry: z
    .strictObject({
      minDelayMs: durationMs.exactOptional(),
      maxDelayMs: durationMs.exactOptional(),
      maxAttempts: positive(1_000_000).exactOptional(),
    })
    .default({}),
});

/** What a user writes; defaults may be left out. */
export type IngestConfig = z.input<typeof configSchema>;
/** The same with every default filled in. */
export type CheckedConfig = z.output<typeof configSchema>;

/**
 * Checks a configuration, with what its strings refer to filled in: `${NAME}`, `${NAME:-default}`, `${file:/path}`. Where
 * a number, a boolean or a list belongs, the text is taken as one.
 *
 * @throws `KCR_CONFIG`, naming every place that is wrong and what is expected there, never the value.
 */
export function checkConfig(
  given: unknown,
  environment: World['environment'] = process.env,
  readFile: World['readFile'] = (path) => readFileSync(path, 'utf8'),
): CheckedConfig {
  const parsed = configSchema.safeParse(withoutCredentials(fillIn(given, { environment, readFile }, [])));
  if (!parsed.success) {
    const problems = parsed.error.issues.map(
      (issue) => `  ${where(issue.path)}: ${explain(issue, valueAt(given, issue.path))}`,
    );
    throw new IngestError('KCR_CONFIG', `The configuration cannot be used:\n${problems.join('\n')}`);
  }
  crossCheck(parsed.data);
  return parsed.data;
}

/** ClickHouse's setting behind `onUnknownField`. */
export const SKIP_UNKNOWN = 'input_format_skip_unknown_fields';

function crossCheck(config: CheckedConfig): void {
  const refuse = (what: string, hint: string) => {
    throw new IngestError('KCR_CONFIG', `The configuration cannot be used:\n  ${what}`, { hint });
  };
  const topics = config.routes.map(({ topic }) => topic);
  const twice = topics.find((topic, index) => topics.indexOf(topic) !== index);
  if (twice !== undefined) {
    refuse(
      `routes: topic ${twice} stands in two routes`,
      'let a materialized view feed the second table, or run a second group',
    );
  }
  const { delivery, state: store } = config;
  if (delivery === 'exactly-once' && store === undefined) {
    refuse(
      'state: missing, and delivery is "exactly-once"',
      'add "state": { "store": "keeper", "connect": "host:2181", "path": "/kafka-clickhouse-rx" }, or choose "at-least-once"',
    );
  }
  if (delivery === 'exactly-once' && store?.store === 'memory' && store.allowVolatile !== true) {
    refuse(
      'state.store: "memory" forgets what is in doubt when the process ends, so rows could double after a crash',
      'use "keeper", "keeper-map" or "kafka"; for a trial add "allowVolatile": true beside it',
    );
  }
  if (config.onUnknownField === 'poison' && config.clickhouse.settings?.[SKIP_UNKNOWN] !== undefined) {
    refuse(
      `clickhouse.settings.${SKIP_UNKNOWN}: stands beside onUnknownField "poison", which sets it`,
      'take it out of clickhouse.settings',
    );
  }
  checkReach(config.clickhouse);
  const { insertMode = 'direct', coalesceMs, coalesceBytes } = config.clickhouse;
  if (insertMode === 'coalesced' && delivery !== 'exactly-once') {
    refuse(
      `clickhouse.insertMode: "coalesced" with delivery "${delivery}"`,
      'inserts can wait for others only under a dedup token: choose "exactly-once", or a larger batch.maxWaitMs',
    );
  }
  const unused = coalesceMs !== undefined ? 'coalesceMs' : coalesceBytes !== undefined ? 'coalesceBytes' : undefined;
  if (insertMode === 'direct' && unused !== undefined)
    refuse(
      `clickhouse.${unused}: without effect in the insert mode "direct"`,
      'add "insertMode": "coalesced", or take it out',
    );
  const {
    sessionTimeoutMs = 30_000,
    heartbeatIntervalMs = 1_000,
    rebalanceTimeoutMs = 60_000,
    drainTimeoutMs,
  } = config.kafka;
  if (heartbeatIntervalMs * 2 > sessionTimeoutMs) {
    refuse(
      `kafka.heartbeatIntervalMs: ${heartbeatIntervalMs} is more than half of sessionTimeoutMs (${sessionTimeoutMs})`,
      'a third of the session time-out is usual',
    );
  }
  if (drainTimeoutMs !== undefined && drainTimeoutMs >= rebalanceTimeoutMs) {
    refuse(
      `kafka.drainTimeoutMs: ${drainTimeoutMs} is not below rebalanceTimeoutMs (${rebalanceTimeoutMs})`,
      'the group gives a partition away after the rebalance time-out, whether it is drained or not',
    );
  }
}

type Path = readonly PropertyKey[];

/** Fills in every string; a key whose value is undefined is one that is not there. */
function fillIn(value: unknown, world: World, path: Path): unknown {
  if (typeof value === 'string') return hasReference(value) ? asExpected(filledInAt(value, world, path), path) : value;
  if (Array.isArray(value)) {
    return value.flatMap((item: unknown, index): readonly unknown[] => {
      const filled = fillIn(item, world, [...path, index]);
      // `["${BROKERS}"]`, and the variable holds several.
      return typeof filled === 'string' && typeof item === 'string' && hasReference(item) ? listOf(filled) : [filled];
    });
  }
  if (value === null || typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype) return value;
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(entries.map(([key, item]) => [key, fillIn(item, world, [...path, key])]));
}

function filledInAt(text: string, world: World, path: Path): string {
  try {
    return filledIn(text, world);
  } catch (thrown) {
    if (!(thrown instanceof BadReference)) throw thrown;
    throw new IngestError('KCR_CONFIG', `The configuration cannot be used:\n  ${where(path)}: ${thrown.message}`, {
      hint: thrown.hint,
    });
  }
}

/** What was filled in is text; where something else belongs it is read as that. What cannot be is left to the schema. */
function asExpected(text: string, path: Path): unknown {
  const types = typesAt(configSchema, path).flatMap(unwrap);
  const takes = (kind: abstract new (...args: never[]) => unknown): boolean =>
    types.some((type) => type instanceof kind);
  if (takes(z.ZodString) || takes(z.ZodEnum)) return text;
  const plain = text.trim();
  if (takes(z.ZodNumber) && /^-?\d+(\.\d+)?$/.test(plain)) return Number(plain);
  if ((takes(z.ZodBoolean) || takes(z.ZodLiteral)) && /^(true|false)$/i.test(plain))
    return plain.toLowerCase() === 'true';
  if (/^[[{]/.test(plain) && (takes(z.ZodArray) || takes(z.ZodObject) || takes(z.ZodRecord)))
    return parsedOr(plain, text);
  return takes(z.ZodArray) ? listOf(plain) : text;
}

const listOf = (text: string): readonly string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');

function parsedOr(text: string, otherwise: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return otherwise;
  }
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce((at: unknown, part) => (at as Record<PropertyKey, unknown> | undefined)?.[part], value);
}

function where(path: Path): string {
  const text = path.reduce<string>(
    (done, part) => (typeof part === 'number' ? `${done}[${part}]` : `${done}.${String(part)}`),
    '',
  );
  return text === '' ? '(the whole)' : text.replace(/^\./, '');
}

function explain(issue: z.core.$ZodIssue, given: unknown): string {
  if (issue.code !== 'unrecognized_keys') return issue.message;
  const known = keysAt(configSchema, issue.path);
  const names = issue.keys
    .map((key) =>
      isName(key, given) ? `"${key}"` : '(not shown: it may be a value whose key, colon or quote is missing)',
    )
    .join(', ');
  return `unknown key ${names}; known here: ${known.length === 0 ? 'none' : known.join(', ')}`;
}

/** A key that has no value, or looks like none, may be a password whose key was forgotten. */
function isName(key: string, of: unknown): boolean {
  const value = (of as Record<string, unknown> | null | undefined)?.[key];
  return /^[$\w][\w.-]{0,60}$/.test(key) && value !== null && value !== undefined;
}

/** The keys that an object at this place may have. */
function keysAt(root: z.core.$ZodType, path: Path): readonly string[] {
  return [
    ...new Set(
      typesAt(root, path)
        .flatMap(unwrap)
        .flatMap((type) => (type instanceof z.ZodObject ? Object.keys(type.shape) : [])),
    ),
  ];
}

function typesAt(root: z.core.$ZodType, path: Path): readonly z.core.$ZodType[] {
  let types: z.core.$ZodType[] = [root];
  for (const part of path) types = types.flatMap(unwrap).flatMap((type) => step(type, part));
  return types;
}

function unwrap(type: z.core.$ZodType): readonly z.core.$ZodType[] {
  if (type instanceof z.ZodExactOptional || type instanceof z.ZodOptional || type instanceof z.ZodDefault)
    return unwrap(type.unwrap());
  if (type instanceof z.ZodUnion) return type.options.flatMap(unwrap);
  return [type];
}

function step(type: z.core.$ZodType, part: PropertyKey): readonly z.core.$ZodType[] {
  if (type instanceof z.ZodArray) return [type.element];
  if (type instanceof z.ZodRecord) return [type.valueType];
  const shape: Record<string, z.core.$ZodType> = type instanceof z.ZodObject ? type.shape : {};
  const next = shape[String(part)];
  return next === undefined ? [] : [next];
}
