/**
 * The command `run`: an ingestion with signals, log lines and an exit code.
 * Imports: cli/log, config, errors, kafka, observe, pipeline, rxjs.
 */
import { catchError, lastValueFrom, of, tap } from 'rxjs';
import type { CheckedConfig } from '../config/config.js';
import { asIngestError } from '../errors.js';
import { serveStatus, type StatusServer } from '../observe/http.js';
import { programRegistry, registerMetrics } from '../observe/metrics.js';
import type { Ingestion } from '../pipeline/ingestion.js';
import { ingest } from '../pipeline/ingest.js';
import { DRAIN_TIMEOUT_MS } from '../kafka/option-values.js';
import { budgetHere, mib } from '../pipeline/memory-budget.js';
import { errorLine, eventLine, outcomeLine } from './log/lines.js';
import { Log } from './log/log.js';
import { statusFields, statusLine } from './summary.js';
import { notDrained, Tally } from './tally.js';

export interface RunOptions {
  readonly logLevel: string;
}

/** Of the log, when the process ends. */
const LOG_CLOSE_MS = 500;
const LIVING_MS = 1000;
const SUMMARY_MS = 60_000;
/** After the drain's own limit: leaving the group, closing connections. */
const CLOSING_MS = 5000;

/** Resolves with the exit code once everything has been let go. */
export async function run(config: CheckedConfig, { logLevel }: RunOptions): Promise<number> {
  const log = new Log({ level: logLevel, terminal: terminalHere() });
  const stopping = new AbortController();
  const tally = new Tally();
  const overtime = drainLimit(stopping.signal, (config.kafka.drainTimeoutMs ?? DRAIN_TIMEOUT_MS) + CLOSING_MS);
  const listening = listenToSignals(stopping, log);
  const warnings = warningsTo(log);
  const budget = budgetHere(config.kafka.budgetBytes);
  log.info(
    {
      delivery: config.delivery,
      group: config.kafka.groupId,
      budget: `${mib(budget.bytes)}: ${budget.why}`,
      routes: config.routes.map(({ topic, table }) => `${topic} → ${table}`),
    },
    'starting',
  );
  try {
    await Promise.race([
      ingestInto(config, { log, tally, stopping }),
      overtime.isOver.then(() => tally.fail(notDrained())),
    ]);
  } finally {
    overtime.stop();
    listening.stop();
    warnings.stop();
  }
  if (tally.worst?.code === 'KCR_DRAIN_TIMEOUT') log.line(errorLine(tally.worst, 'not drained'));
  log.info({ ...tally.totals }, 'stopped');
  await log.close(LOG_CLOSE_MS);
  return tally.exitCode;
}

interface Running {
  readonly log: Log;
  readonly tally: Tally;
  readonly stopping: AbortController;
}

async function ingestInto(config: CheckedConfig, { log, tally, stopping }: Running): Promise<void> {
  const ingestion = ingest(config, {
    signal: stopping.signal,
    onEvent: (event) => {
      tally.event(event, stopping.signal.aborted);
      log.line(eventLine(event));
    },
    onFinding: ({ what, detail, todo }) => log.warn({ what, todo }, detail),
  });
  const serving = await serveIfAsked(config, ingestion, log);
  const telling = tellStatus(ingestion, log);
  const outcomes = ingestion.pipe(
    tap((outcome) => {
      tally.outcome(outcome);
      log.line(outcomeLine(outcome));
      if (tally.isAllHalted() && !stopping.signal.aborted) {
        log.line({ level: 'error', message: 'every partition of this process has halted; ending', fields: {} });
        stopping.abort();
      }
    }),
    catchError((thrown: unknown) => {
      const error = asIngestError(thrown, 'KCR_INTERNAL', 'the ingestion failed');
      tally.fail(error);
      // What was refused before the start is for the person who started it, not for a log.
      if (tally.exitCode === 3) log.say(`${error.code}: ${error.message}`);
      else log.line(errorLine(error, 'ended by an error'));
      return of(undefined);
    }),
  );
  try {
    await lastValueFrom(outcomes, { defaultValue: undefined });
  } finally {
    telling.stop();
    await serving?.close();
  }
}

/** A page, metrics and health, where the configuration asks for them. */
async function serveIfAsked(
  { http, delivery, kafka }: CheckedConfig,
  ingestion: Ingestion,
  log: Log,
): Promise<StatusServer | undefined> {
  if (http === undefined) return undefined;
  const registry = programRegistry();
  registerMetrics(ingestion, { registry, info: { delivery, group: kafka.groupId } });
  const server = await serveStatus(ingestion, { ...http, registry });
  log.info({ url: server.url }, 'status is served');
  return server;
}

/** At a terminal in a line that lives, else as a line once a minute. */
function tellStatus(ingestion: Ingestion, log: Log): { stop(): void } {
  const isLiving = process.stderr.isTTY === true;
  const timer = setInterval(
    () => {
      const status = ingestion.status();
      if (isLiving) log.show(statusLine(status));
      else log.info(statusFields(status), 'status');
    },
    isLiving ? LIVING_MS : SUMMARY_MS,
  ).unref();
  return { stop: () => clearInterval(timer) };
}

function terminalHere(): { readonly columns: () => number; readonly hasColours: boolean } | undefined {
  if (process.stderr.isTTY !== true) return undefined;
  return { columns: () => process.stderr.columns ?? 80, hasColours: process.env.NO_COLOR === undefined };
}

/** A drain that a server holds up ends all the same: whoever stops this process kills it after half a minute. */
function drainLimit(draining: AbortSignal, limitMs: number): { readonly isOver: Promise<void>; stop(): void } {
  let timer: NodeJS.Timeout | undefined;
  const isOver = new Promise<void>((resolve) => {
    draining.addEventListener('abort', () => (timer = setTimeout(resolve, limitMs)), { once: true });
  });
  return { isOver, stop: () => clearTimeout(timer) };
}

/**
 * The first signal drains, a second SIGTERM or SIGINT ends the process at once. SIGHUP only drains: a terminal that is
 * closed sends it twice, by the shell and by the kernel.
 */
function listenToSignals(stopping: AbortController, log: Log): { stop(): void } {
  const on = (signal: keyof typeof codeAtOnce) => () => {
    if (!stopping.signal.aborted) {
      log.info({ signal }, 'draining; a second SIGTERM or SIGINT ends at once');
      return stopping.abort();
    }
    const code = codeAtOnce[signal];
    if (code === undefined) return;
    log.warn({ signal }, 'second signal: ending at once; what is in flight is in doubt and will be replayed');
    void log.close(LOG_CLOSE_MS).then(() => process.exit(code));
  };
  const handlers = (['SIGTERM', 'SIGINT', 'SIGHUP'] as const).map((signal) => [signal, on(signal)] as const);
  for (const [signal, handler] of handlers) process.on(signal, handler);
  return { stop: () => handlers.forEach(([signal, handler]) => process.off(signal, handler)) };
}

/** With which a second signal ends the process. */
const codeAtOnce = { SIGTERM: 143, SIGINT: 130, SIGHUP: undefined } as const;

/** Node's own warnings become log lines: it would write them beside these, and wait for whoever reads them. */
function warningsTo(log: Log): { stop(): void } {
  const others = process.listeners('warning');
  process.removeAllListeners('warning');
  const on = ({ name, message }: Error) =>
    log.line({ level: 'warn', message: 'Node warns', fields: { name, warning: message }, kind: `node ${name}` });
  process.on('warning', on);
  return {
    stop: () => {
      process.off('warning', on);
      for (const other of others) process.on('warning', other);
    },
  };
}
