/**
 * Room: the command `run`: an ingestion with signals, log lines and an exit code.
 */
import { destination, pino, type Logger } from 'pino';
import { catchError, lastValueFrom, of, tap } from 'rxjs';
import type { CheckedConfig } from '../config.js';
import { asIngestError, type IngestError } from '../errors.js';
import type { IngestEvent, Outcome } from '../events.js';
import { ingest } from '../ingest.js';
import { Tally } from './tally.js';

/** Of a record's value, in a log line. */
const LOGGED_VALUE_BYTES = 512;

export interface RunOptions {
  readonly logLevel: string;
}

/** Resolves with the exit code once everything has been let go. */
export async function run(config: CheckedConfig, { logLevel }: RunOptions): Promise<number> {
  const log = pino({ level: logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination({ dest: 2, sync: true }));
  const stopping = new AbortController();
  const tally = new Tally();
  const listening = listenToSignals(stopping, log);
  log.info({ delivery: config.delivery, group: config.kafka.groupId, routes: config.routes.map(({ topic, table }) => `${topic} → ${table}`) }, 'starting');
  const outcomes = ingest(config, {
    signal: stopping.signal,
    report: (event) => {
      tally.event(event, stopping.signal.aborted);
      logEvent(log, event);
    },
    onFinding: ({ what, detail, todo }) => log.warn({ what, todo }, detail),
  }).pipe(
    tap((outcome) => {
      tally.outcome(outcome);
      logOutcome(log, outcome);
      if (tally.isAllHalted() && !stopping.signal.aborted) {
        log.error('every partition of this process has halted; ending');
        stopping.abort();
      }
    }),
    catchError((thrown: unknown) => {
      const error = asIngestError(thrown, 'KCR_INTERNAL', 'the ingestion failed');
      tally.fail(error);
      // What was refused before the start is for the person who started it, not for a log.
      if (tally.exitCode === 3) console.error(`${error.code}: ${error.message}`);
      else logError(log, error, 'ended by an error');
      return of(undefined);
    }),
  );
  try {
    await lastValueFrom(outcomes, { defaultValue: undefined });
  } finally {
    listening.stop();
  }
  if (tally.worst?.code === 'KCR_DRAIN_TIMEOUT') logError(log, tally.worst, 'not drained');
  log.info({ ...tally.totals }, 'stopped');
  return tally.exitCode;
}

/** The first signal drains, the second one ends the process at once. */
function listenToSignals(stopping: AbortController, log: Logger): { stop(): void } {
  const on = (signal: 'SIGTERM' | 'SIGINT') => () => {
    if (stopping.signal.aborted) {
      log.warn({ signal }, 'second signal: ending at once; what is in flight is in doubt and will be replayed');
      process.exit(signal === 'SIGTERM' ? 143 : 130);
    }
    log.info({ signal }, 'draining; a second signal ends at once');
    stopping.abort();
  };
  const handlers = { SIGTERM: on('SIGTERM'), SIGINT: on('SIGINT') };
  process.on('SIGTERM', handlers.SIGTERM).on('SIGINT', handlers.SIGINT);
  return { stop: () => void process.off('SIGTERM', handlers.SIGTERM).off('SIGINT', handlers.SIGINT) };
}

function logOutcome(log: Logger, outcome: Outcome): void {
  if (outcome.kind === 'halted') return logError(log, outcome.error, 'partition halted; the others go on');
  const { assignment, afterOffset, lastOffset, rows, bytes, replay } = outcome;
  const { topic, partition } = assignment;
  const line = { topic, partition, first: afterOffset + 1, last: lastOffset, rows, bytes };
  if (replay) log.info(line, 'range that was in doubt is settled');
  else log.debug(line, 'delivered');
}

function logEvent(log: Logger, event: IngestEvent): void {
  if (event.kind === 'kafka') return log[event.level](event.fields, `kafka: ${event.message}`);
  if (event.kind === 'tableChanged') {
    const { table, change, level, message, hint } = event;
    return log[level]({ table, change, todo: hint }, `table changed: ${message}`);
  }
  if (event.kind === 'excluded') return logExcluded(log, event);
  const { kind, assignment: { topic, partition, epoch, generation }, ...rest } = event;
  const line = { topic, partition, epoch, generation, ...rest, ...('error' in rest ? { error: rest.error.message, code: rest.error.code } : {}) };
  switch (kind) {
    case 'assigned':
    case 'revoked':
    case 'claimed':
    case 'verified':
    case 'resumed':
      return log.info(line, kind);
    case 'failed':
    case 'lost':
    case 'fenced':
    case 'restarted':
    case 'retry':
    case 'gap':
    case 'corruptBatch':
    case 'commitFailed':
    case 'abandoned':
      return log.warn(line, kind);
    default:
      return log.debug(line, kind);
  }
}

/** With the record, since it is nowhere else any more once retention has taken it. */
function logExcluded(log: Logger, { assignment: { topic, partition }, record, error, replay }: Extract<IngestEvent, { kind: 'excluded' }>): void {
  const value = record?.value?.toString('utf8', 0, LOGGED_VALUE_BYTES);
  log.warn({ topic, partition, offset: error.fields.offset, code: error.code, error: error.detail, value }, replay ? 'record left out of its batch, as was recorded before' : 'record left out of its batch');
}

function logError(log: Logger, error: IngestError, what: string): void {
  const { topic, partition, offset, first, last, table } = error.fields;
  log.error({ code: error.code, topic, partition, offset, first, last, table }, `${what}: ${error.message}`);
}
