// The thread that cases run in: should one never end, the thread is ended from outside.
import { parentPort, workerData } from 'node:worker_threads';
import { openKind, type KindName, type KindOptions } from './kind.js';
import { runCases, type Found } from './run-cases.js';

export interface ThreadInput {
  readonly kind: KindName;
  readonly options: KindOptions;
  readonly from: number;
  readonly to: number;
  /** Shared: [stop, cases done, the case that began last]. */
  readonly progress: SharedArrayBuffer;
}

export type ThreadMessage =
  | { readonly kind: 'opened' }
  | { readonly kind: 'found'; readonly found: Found }
  | { readonly kind: 'ended'; readonly maxRssBytes: number };

const input = workerData as ThreadInput;
const progress = new Int32Array(input.progress);
const post = (message: ThreadMessage): void => parentPort?.postMessage(message);

// Errors are values here, made by the million: their stacks are not looked at.
Error.stackTraceLimit = 4;

const kind = await openKind(input.kind, input.options);
post({ kind: 'opened' });
await runCases(
  kind,
  { from: input.from, to: input.to, isOver: () => Atomics.load(progress, 0) !== 0 },
  {
    began: (caseNumber) => void Atomics.store(progress, 2, caseNumber),
    ended: () => void Atomics.add(progress, 1, 1),
    found: (found) => post({ kind: 'found', found }),
  },
);
await kind.close?.();
post({ kind: 'ended', maxRssBytes: process.resourceUsage().maxRSS * 1024 });
