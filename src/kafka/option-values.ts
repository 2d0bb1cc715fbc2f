/**
 * Defaults, limits and words of the options: each is said here, and nowhere else. Imports: options.
 */
import { MAX_DURATION_MS } from '../options.js';

/** With leaving and closing a drain stays well below the half minute after which supervisors kill. */
export const DRAIN_TIMEOUT_MS = 20_000;

/** What a broker's address looks like: `host:port`, or `[address]:port` for IPv6. */
export const BROKER_ADDRESS = /^(?:[^\s:/[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}$/;

export const clientDefaults = {
  clientId: 'kafka-clickhouse-rx',
  ssl: false,
  connectTimeoutMs: 5_000,
  requestTimeoutMs: 10_000,
} as const;

export const sourceDefaults = {
  fromBeginning: false,
  sessionTimeoutMs: 30_000,
  rebalanceTimeoutMs: 60_000,
  heartbeatIntervalMs: 1_000,
  maxWaitMs: 250,
  maxBytesPerPartition: 4 * 1024 ** 2,
  maxBytes: 16 * 1024 ** 2,
  budgetBytes: 256 * 1024 ** 2,
  isolation: 'read_committed',
  metadataMaxAgeMs: 60_000,
  onReset: 'halt',
  onCorruptBatch: 'halt',
  stateDecides: false,
} as const;

export const sourceLimits = {
  connectTimeoutMs: MAX_DURATION_MS,
  requestTimeoutMs: MAX_DURATION_MS,
  sessionTimeoutMs: MAX_DURATION_MS,
  rebalanceTimeoutMs: MAX_DURATION_MS,
  heartbeatIntervalMs: MAX_DURATION_MS,
  drainTimeoutMs: MAX_DURATION_MS,
  maxWaitMs: MAX_DURATION_MS,
  metadataMaxAgeMs: MAX_DURATION_MS,
  maxBytesPerPartition: 1024 ** 3,
  // The protocol's field has 32 bits.
  maxBytes: 2 ** 31 - 1,
  budgetBytes: 64 * 1024 ** 3,
} as const;

export const sourceWords = {
  isolation: ['read_committed', 'read_uncommitted'],
  onReset: ['halt', 'restart'],
  onCorruptBatch: ['halt', 'skip'],
} as const;
