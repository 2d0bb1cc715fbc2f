// Runs a kind in a thread of its own and watches it: a case that does not end is reported like any other finding.
import { Worker } from 'node:worker_threads';
import { hangMs as usualHangMs, type KindName, type KindOptions } from './kind.js';
import type { Found } from './run-cases.js';
import type { ThreadInput, ThreadMessage } from './thread.js';

export interface WatchLimits {
  readonly from: number;
  readonly to: number;
  /** For how long cases are begun, milliseconds. */
  readonly runMs: number;
  /** In place of the kind's own: how long a case may take. */
  readonly hangMs?: number;
}

export interface WatchResult {
  readonly cases: number;
  readonly maxRssBytes: number;
}

const POLL_MS = 100;
/** After so many cases that do not end a kind is given up: each costs its whole waiting time. */
const MOST_HANGS = 5;
/** How much longer a suspect may take when it is tried again alone. */
const CONFIRM_FACTOR = 3;
/** Opening may start servers' connections and WebAssembly. */
const OPEN_MS = 60_000;

export async function watchKind(
  name: KindName,
  options: KindOptions,
  limits: WatchLimits,
  found: (found: Found) => void,
  tick: (cases: number) => void = () => undefined,
): Promise<WatchResult> {
  const hangMs = limits.hangMs ?? usualHangMs[name];
  const endMs = performance.now() + limits.runMs;
  let [cases, maxRssBytes, hangs, from] = [0, 0, 0, limits.from];
  while (from < limits.to && (performance.now() < endMs || from === limits.from) && hangs < MOST_HANGS) {
    const before = cases;
    const end = await runThread({ name, options, from, to: limits.to, endMs, hangMs }, found, (done) =>
      tick(before + done),
    );
    cases += end.cases;
    maxRssBytes = Math.max(maxRssBytes, end.maxRssBytes);
    if (end.stuckAt === undefined) break;
    const again = await runThread(
      { name, options, from: end.stuckAt, to: end.stuckAt + 1, endMs: Infinity, hangMs: hangMs * CONFIRM_FACTOR },
      found,
    );
    cases += 1;
    if (again.stuckAt !== undefined) {
      hangs += 1;
      found({ what: end.died ?? 'the case does not end', input: '', caseNumber: end.stuckAt });
    }
    from = end.stuckAt + 1;
  }
  return { cases, maxRssBytes };
}

interface ThreadRun {
  readonly name: KindName;
  readonly options: KindOptions;
  readonly from: number;
  readonly to: number;
  readonly endMs: number;
  readonly hangMs: number;
}

interface ThreadEnd extends WatchResult {
  /** The case that did not end, or that ended the thread. */
  readonly stuckAt: number | undefined;
  /** How the thread ended by itself. */
  readonly died: string | undefined;
}

async function runThread(
  { name, options, from, to, endMs, hangMs }: ThreadRun,
  found: (found: Found) => void,
  tick: (cases: number) => void = () => undefined,
): Promise<ThreadEnd> {
  const progress = new SharedArrayBuffer(12);
  const counters = new Int32Array(progress);
  const workerData: ThreadInput = { kind: name, options, from, to, progress };
  const worker = new Worker(new URL('thread.mjs', import.meta.url), { workerData, execArgv: [] });
  let maxRssBytes = 0;
  let isOpen = false;
  let isEnded = false;
  let died: string | undefined;
  worker.on('message', (message: ThreadMessage) => {
    if (message.kind === 'opened') isOpen = true;
    else if (message.kind === 'found') found(message.found);
    else [isEnded, maxRssBytes] = [true, message.maxRssBytes];
  });
  worker.on('error', (error) => (died = `the thread ended: ${error instanceof Error ? error.message : String(error)}`));
  const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  let [lastDone, lastMs] = [0, performance.now()];
  let isStuck = false;
  const timer = setInterval(() => {
    const done = Atomics.load(counters, 1);
    const nowMs = performance.now();
    if (done !== lastDone) [lastDone, lastMs] = [done, nowMs];
    tick(done);
    if (nowMs >= endMs) Atomics.store(counters, 0, 1);
    if (nowMs - lastMs <= (isOpen ? hangMs : OPEN_MS) || isEnded) return;
    isStuck = true;
    void worker.terminate();
  }, POLL_MS);
  await exited;
  clearInterval(timer);
  const cases = Atomics.load(counters, 1);
  if (!isOpen) throw new Error(`the kind ${name} could not be opened: ${died ?? 'no word'}`);
  const isBroken = isStuck || (!isEnded && died !== undefined);
  return { cases, maxRssBytes, stuckAt: isBroken ? Atomics.load(counters, 2) : undefined, died };
}
