/**
 * Asking again while the group's coordinator is being found, or loads: it has just been elected, or is the first of a
 * cluster. Imports: nothing.
 */
import { classifyError } from './classify-error.js';
import { Backoff, sleep } from './wait.js';

const COORDINATOR_LIMIT_MS = 20_000;

export async function insist<T>(ask: () => Promise<T>, limitMs = COORDINATOR_LIMIT_MS): Promise<T> {
  const backoff = new Backoff();
  const endMs = performance.now() + limitMs;
  for (;;) {
    try {
      return await ask();
    } catch (thrown) {
      if (classifyError(thrown) !== 'coordinator' || performance.now() > endMs) throw thrown;
      await sleep(backoff.next(), new AbortController().signal);
    }
  }
}
