/**
 * The command `run`: an ingestion with signals, log lines and an exit code.
 * Imports: cli/log, config, errors, kafka, model, observe, pipeline, rxjs.
 */
import { catchError, lastValueFrom, of, tap } from 'rxjs';
import type { CheckedConfig } from '../config/config.js';
import { asIngestError } from '../errors.js';
import { Pauses } from '../model/pauses.js';
import type { Controls } from '../observe/control.js';
import type { Ingestion } from '../pipeline/ingestion.js';
import { ingest } from '../pipeline/ingest.js';
import { DRAIN_TIMEOUT_MS } from '../kafka/option-values.js';
import { budgetHere, mib } from '../pipeline/memory-budget.js';
import { errorLine, eventLine, outcomeLine } from './log/lines.js';
import { Log } from './log/log.js';
import { Reload } from './reload.js';
import { serveAsked } from './serve.js';
import { listenToSignals } from './signals.js';
import { statusFields, statusLine } from './summary.js';
import { notDrained, Tally } from './tally.js';

export interface RunOptions {
  readonly logLevel: string;
  /** Reads the configuration again. */
  readonly reread: () => Promise<CheckedConfig>;
}

/** Of the log, when the process ends. */
const LOG_CLOSE_MS = 500;
const LIVING_MS = 1000;
const SUMMARY_MS = 60_000;
/** After the drain's own limit: leaving the group, closing connections. */
const CLOSING_MS = 5000;

/** Resolves with the exit code once everything has been let go. */
export async function run(config: CheckedConfig, { logLevel, reread }: RunOptions): Promise<number> {
  const log = new Log({ level: logLevel, terminal: terminalHere() });
  const stopping = new AbortController();
  const reload = new Reload({ log, read: reread, stopping: stopping.signal });
  const program: Program = { log, stopping, reload, pauses: new Pauses() };
  const listening = listenToSignals({ log, stopping, reload: () => void reload.ask(), logCloseMs: LOG_CLOSE_MS });
  const warnings = warningsTo(log);
  let ended: Ended;
  try {
    for (let next = config; ; next = ended.next) {
      ended = await ingestWith(next, program);
      if (ended.next === undefined) break;
    }
  } finally {
    listening.stop();
    warnings.stop();
  }
  await log.close(LOG_CLOSE_MS);
  return ended.exitCode;
}

/** What goes on when the configuration is exchanged. */
interface Program {
  readonly log: Log;
  /** Aborted: the program drains and ends. */
  readonly stopping: AbortController;
  readonly reload: Reload;
  /** What was paused stays paused. */
  readonly pauses: Pauses;
}

type Ended = { readonly exitCode: number; readonly next?: undefined } | { readonly next: CheckedConfig };

/** One configuration, until it is drained, fails, or another one takes its place. */
async function ingestWith(config: CheckedConfig, program: Program): Promise<Ended> {
  const { log, stopping, reload } = program;
  const tally = new Tally();
  const draining = new AbortController();
  const drain = () => draining.abort();
  stopping.signal.addEventListener('abort', drain, { once: true });
  if (stopping.signal.aborted) drain();
  reload.begin(config, drain);
  const overtime = drainLimit(draining.signal, (config.kafka.drainTimeoutMs ?? DRAIN_TIMEOUT_MS) + CLOSING_MS);
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
  let isDrained = false;
  try {
    isDrained = await Promise.race([
      ingestInto(config, { ...program, tally, draining: draining.signal }),
      overtime.isOver.then(() => (tally.fail(notDrained()), false)),
    ]);
  } finally {
    overtime.stop();
    stopping.signal.removeEventListener('abort', drain);
  }
  if (tally.worst?.code === 'KCR_DRAIN_TIMEOUT') log.line(errorLine(tally.worst, 'not drained'));
  log.info({ ...tally.totals }, 'stopped');
  const next = reload.take();
  return isDrained && next !== undefined && !stopping.signal.aborted ? { next } : { exitCode: tally.exitCode };
}

interface Running extends Program {
  readonly tally: Tally;
  readonly draining: AbortSignal;
}

/** Gives whether it came to its end without an error. */
async function ingestInto(config: CheckedConfig, running: Running): Promise<boolean> {
  const { log, tally, stopping, draining, pauses } = running;
  const ingestion = ingest(config, {
    signal: draining,
    onEvent: (event) => {
      tally.event(event, draining.aborted);
      log.line(eventLine(event));
    },
    onFinding: ({ what, detail, todo }) => log.warn({ what, todo }, detail),
  });
  pauses.applyTo(ingestion);
  const serving = await serveAsked(config, ingestion, { log, controls: controlsOf(ingestion, running) });
  const telling = tellStatus(ingestion, log);
  let hasFailed = false;
  const outcomes = ingestion.pipe(
    tap((outcome) => {
      tally.outcome(outcome);
      log.line(outcomeLine(outcome));
      if (tally.isAllHalted() && !draining.aborted) {
        log.line({ level: 'error', message: 'every partition of this process has halted; ending', fields: {} });
        stopping.abort();
      }
    }),
    catchError((thrown: unknown) => {
      hasFailed = true;
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
    await serving.close();
  }
  return !hasFailed;
}

/** What can be told from outside; each is a line in the log. */
function controlsOf(ingestion: Ingestion, { log, stopping, reload, pauses }: Program): Controls {
  return {
    status: () => ingestion.status(),
    pause: (selection) => {
      pauses.pause(selection);
      ingestion.pause(selection);
      log.info({ ...selection }, 'paused by control');
    },
    resume: (selection) => {
      pauses.resume(selection);
      ingestion.resume(selection);
      log.info({ ...selection }, 'resumed by control');
    },
    drain: () => {
      log.info({}, 'draining, told by control');
      stopping.abort();
    },
    reload: () => void reload.ask(),
  };
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
