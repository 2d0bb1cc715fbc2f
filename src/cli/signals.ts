/**
 * What the signals mean for `run`. Imports: Node, cli/log.
 */
import { closeSync, openSync } from 'node:fs';
import type { Log } from './log/log.js';

export interface SignalsConfig {
  readonly log: Log;
  /** Aborted by the first SIGTERM or SIGINT. */
  readonly stopping: AbortController;
  /** Called by SIGHUP where no terminal can be closed. */
  readonly reload: () => void;
  /** Of the log, when the process ends at once. */
  readonly logCloseMs: number;
}

/**
 * The first signal drains, a second SIGTERM or SIGINT ends the process at once. SIGHUP reads the configuration again;
 * with a controlling terminal it drains, for then it says that the terminal was closed, and it comes twice: by the
 * shell and by the kernel.
 */
export function listenToSignals({ log, stopping, reload, logCloseMs }: SignalsConfig): { stop(): void } {
  const isAtTerminal = hasTerminal();
  const on = (signal: keyof typeof codeAtOnce) => () => {
    if (signal === 'SIGHUP' && !isAtTerminal) return reload();
    if (!stopping.signal.aborted) {
      log.info({ signal }, 'draining; a second SIGTERM or SIGINT ends at once');
      return stopping.abort();
    }
    const code = codeAtOnce[signal];
    if (code === undefined) return;
    log.warn({ signal }, 'second signal: ending at once; what is in flight is in doubt and will be replayed');
    void log.close(logCloseMs).then(() => process.exit(code));
  };
  const handlers = (['SIGTERM', 'SIGINT', 'SIGHUP'] as const).map((signal) => [signal, on(signal)] as const);
  for (const [signal, handler] of handlers) process.on(signal, handler);
  return { stop: () => handlers.forEach(([signal, handler]) => process.off(signal, handler)) };
}

/** With which a second signal ends the process. */
const codeAtOnce = { SIGTERM: 143, SIGINT: 130, SIGHUP: undefined } as const;

/** Asked at the start: once the terminal is closed nobody can tell. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}
