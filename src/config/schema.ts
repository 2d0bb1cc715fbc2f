/**
 * The shape of a configuration: keys, types, words, limits. What each key is stands in `ingest-config.ts`; the compiler
 * sees that both say the same. Limits, words and defaults are the adapters' own.
 * Imports: clickhouse, kafka, ledger, observe, operators, operators/between, state, zod.
 */
import { z } from 'zod';
import { batchLimits } from '../../operators/buffer-count-or-time.js';
import type { Transform } from '../../operators/between/transform-rows.js';
import { healDefaults } from '../../operators/group-by-partition.js';
import { insertModes, sinkLimits } from '../clickhouse/options.js';
import { BROKER_ADDRESS, sourceDefaults, sourceLimits } from '../kafka/option-values.js';
import type { KafkaClientOptions, SaslOptions } from '../kafka/options.js';
import { MAX_PENDING, MAX_PENDING_DEFAULT } from '../ledger.js';
import { KEEPER_PATH, keeperDefaults } from '../state/keeper-settings.js';
import { DEFAULT_LISTEN, LISTEN, MAX_SOCKET_PATH_BYTES } from '../observe/listen.js';
import type { IngestConfig } from './ingest-config.js';
import { durationMs, limited, positive } from './numbers.js';
import { reach, webAddress } from './reach.js';
import type { Same } from './same-type.js';

const functionOf = <T>() => z.custom<T>((value) => typeof value === 'function', 'expected a function');

type OauthProvider = Extract<SaslOptions, { mechanism: 'oauthbearer' }>['oauthBearerProvider'];

const sasl = z.discriminatedUnion('mechanism', [
  z.strictObject({
    mechanism: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']),
    username: z.string(),
    password: z.string(),
  }),
  z.strictObject({
    mechanism: z.literal('oauthbearer'),
    /** Gives the token; called for each login. */
    oauthBearerProvider: functionOf<OauthProvider>(),
  }),
]);

type TlsConnect = Exclude<NonNullable<KafkaClientOptions['ssl']>, boolean>;

const kafka = z.strictObject({
  brokers: z.array(z.string().regex(BROKER_ADDRESS, 'expected "host:port", or "[address]:port" for IPv6')).min(1),
  groupId: z.string().min(1),
  clientId: z.string().min(1).exactOptional(),
  fromBeginning: z.boolean().default(sourceDefaults.fromBeginning),
  ssl: z.union([z.boolean(), z.looseObject({}) as unknown as z.ZodType<TlsConnect, TlsConnect>]).exactOptional(),
  sasl: sasl.exactOptional(),
  ...limited(
    sourceLimits,
    'sessionTimeoutMs',
    'rebalanceTimeoutMs',
    'heartbeatIntervalMs',
    'drainTimeoutMs',
    'maxWaitMs',
    'maxBytesPerPartition',
    'budgetBytes',
  ),
  onCorruptBatch: z.enum(['halt', 'skip']).exactOptional(),
});

const clickhouse = z.strictObject({
  url: webAddress,
  database: z.string().min(1).default('default'),
  username: z.string().default('default'),
  password: z.string().default(''),
  ...reach,
  ...limited(sinkLimits, 'requestTimeoutMs', 'maxInFlight'),
  insertMode: z.enum(insertModes).exactOptional(),
  ...limited(sinkLimits, 'coalesceMs', 'coalesceBytes', 'dedupBudgetMs'),
  settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).exactOptional(),
});

const nodePath = z.string().regex(KEEPER_PATH, 'expected an absolute path such as "/kafka-clickhouse-rx"');

const state = z.discriminatedUnion('store', [
  z.strictObject({
    store: z.literal('keeper'),
    connect: z.string().min(1),
    path: nodePath.default(keeperDefaults.path),
    sessionTimeoutMs: durationMs.exactOptional(),
    auth: z.string().min(1).exactOptional(),
  }),
  z.strictObject({
    store: z.literal('keeper-map'),
    table: z.string().min(1).exactOptional(),
    path: nodePath.exactOptional(),
    requestTimeoutMs: durationMs.exactOptional(),
  }),
  z.strictObject({ store: z.literal('kafka') }),
  z.strictObject({ store: z.literal('memory'), allowVolatile: z.literal(true).exactOptional() }),
]);

const route = z.strictObject({
  topic: z.string().min(1),
  table: z.string().min(1),
  database: z.string().min(1).exactOptional(),
  transform: functionOf<Transform>().exactOptional(),
  transformVersion: z.string().min(1).max(100).exactOptional(),
});

const heal = z.strictObject({
  minDelayMs: durationMs.default(healDefaults.minDelayMs),
  maxDelayMs: durationMs.default(healDefaults.maxDelayMs),
});

export const configSchema = z.strictObject({
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
  maxPending: positive(MAX_PENDING).default(MAX_PENDING_DEFAULT),
  onGap: z.enum(['halt', 'continue']).default('halt'),
  onReset: z.enum(['halt', 'restart']).default('halt'),
  onPoison: z.enum(['halt', 'exclude']).default('halt'),
  onTombstone: z.enum(['halt', 'skip']).exactOptional(),
  heal: z.union([z.literal(false), heal]).default(healDefaults),
  onUnknownField: z.enum(['ignore', 'poison']).default('ignore'),
  http: z
    .strictObject({
      listen: z.string().regex(LISTEN, `expected "host:port", such as "${DEFAULT_LISTEN}"`).exactOptional(),
      allowedHosts: z.array(z.string().min(1)).exactOptional(),
      token: z
        .string()
        .regex(/^[\w\-.~+/=]{16,}$/, 'expected 16 characters or more of letters, digits and -._~+/=')
        .exactOptional(),
    })
    .exactOptional(),
  openTelemetry: z.boolean().exactOptional(),
  control: z
    .strictObject({
      socket: z
        .string()
        .min(1)
        .refine((path) => Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES, {
          error: `expected a path of at most ${MAX_SOCKET_PATH_BYTES} bytes`,
        }),
    })
    .exactOptional(),
  retry: z
    .strictObject({
      minDelayMs: durationMs.exactOptional(),
      maxDelayMs: durationMs.exactOptional(),
      maxAttempts: positive(1_000_000).exactOptional(),
    })
    .default({}),
});

/** Both say the same, or this does not compile: each key, whether it may be left out, and what it takes. */
true satisfies Same<z.input<typeof configSchema>, IngestConfig>;

/** A configuration that was checked: what it refers to and every default are filled in. */
export type CheckedConfig = z.output<typeof configSchema>;
