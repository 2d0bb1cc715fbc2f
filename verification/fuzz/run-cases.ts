// Runs the cases of one kind, in this thread, until a number or a moment is reached.
import type { Finding, Kind } from './kind.js';

export interface Found extends Finding {
  readonly caseNumber: number;
}

export interface RunLimits {
  readonly from: number;
  /** Cases beyond it are not begun. */
  readonly to: number;
  /** No case is begun any more once this is true. */
  readonly isOver: () => boolean;
}

export interface RunHooks {
  readonly began: (caseNumber: number) => void;
  readonly ended: (caseNumber: number) => void;
  readonly found: (found: Found) => void;
}

/** Cases between two turns of the event loop, so that timers and messages get theirs. */
const CASES_A_TURN = 500;

/** Gives how many cases were run. What a case throws is a finding: the harness contains what it expects. */
export async function runCases(kind: Kind, limits: RunLimits, hooks: RunHooks): Promise<number> {
  let next = limits.from;
  let done = 0;
  const lane = async (): Promise<void> => {
    while (next < limits.to && !limits.isOver()) {
      const caseNumber = next++;
      hooks.began(caseNumber);
      const finding = await run(kind, caseNumber);
      hooks.ended(caseNumber);
      done += 1;
      if (finding !== undefined) hooks.found({ ...finding, caseNumber });
      if (done % CASES_A_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await Promise.all(Array.from({ length: kind.concurrency }, lane));
  return done;
}

async function run(kind: Kind, caseNumber: number): Promise<Finding | undefined> {
  try {
    const finding = kind.run(caseNumber);
    return finding instanceof Promise ? await finding : finding;
  } catch (thrown) {
    const text =
      thrown instanceof Error ? (thrown.stack ?? thrown.message).split('\n').slice(0, 4).join(' | ') : String(thrown);
    return { what: `the case threw ${text}`, input: '' };
  }
}
