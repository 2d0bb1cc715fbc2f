/**
 * Waiting and calling again. Goes round one port call, never round the pipeline, which would consume again.
 * Imports: errors, rxjs.
 */
import { retry, throwError, timer, type MonoTypeOperatorFunction, type SchedulerLike } from 'rxjs';
import { asIngestError, type IngestError } from './errors.js';

/** How a failed call is made again: waits double, with jitter. */
export interface RetryConfig {
  /** Wait before the first retry, milliseconds. @default 100 */
  readonly minDelayMs?: number;
  /** The wait doubles from retry to retry up to this, milliseconds. @default 10000 */
  readonly maxDelayMs?: number;
  /** Calls in all before the error is let through. @default Infinity: a server that is down is waited for */
  readonly maxAttempts?: number;
  /** Share of each wait drawn at random, 0 to 1, so that workers do not come back in step. @default 0.5 */
  readonly jitter?: number;
  /** Source of that randomness, 0 to 1. @default Math.random */
  readonly random?: () => number;
}

export const retryDefaults = { minDelayMs: 100, maxDelayMs: 10_000, maxAttempts: Infinity, jitter: 0.5 } as const;

export interface RetryNotice {
  /** The attempt that failed, from 1. */
  readonly attempt: number;
  readonly delayMs: number;
  readonly error: IngestError;
}

/** The wait after the attempt `attempt`, from 1, has failed. */
export function delayMsOf(config: RetryConfig, attempt: number): number {
  const { minDelayMs, maxDelayMs, jitter, random = Math.random } = { ...retryDefaults, ...config };
  const fullMs = Math.min(maxDelayMs, minDelayMs * 2 ** Math.min(attempt - 1, 30));
  return Math.round(fullMs * (1 - jitter * random()));
}

/** Subscribes again after retryable errors, with exponential backoff and jitter. Other errors pass. */
export function retryRetryable<T>(
  config: RetryConfig,
  scheduler: SchedulerLike,
  onRetry: (notice: RetryNotice) => void = () => undefined,
  isWorthIt: (error: IngestError) => boolean = (error) => error.retryable,
): MonoTypeOperatorFunction<T> {
  const { maxAttempts = retryDefaults.maxAttempts } = config;
  return retry({
    delay: (thrown: unknown, attempt) => {
      const error = asIngestError(thrown, 'KCR_INTERNAL', 'a port threw what is not an IngestError');
      if (!isWorthIt(error) || attempt >= maxAttempts) return throwError(() => error);
      const delayMs = delayMsOf(config, attempt);
      onRetry({ attempt, delayMs, error });
      return timer(delayMs, scheduler);
    },
  });
}
