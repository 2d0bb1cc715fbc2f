// The one stack that global-setup.ts starts for all test files of a run. Tests that kill a server start their own.
import { inject } from 'vitest';
import type { Addresses } from './stack.js';

declare module 'vitest' {
  interface ProvidedContext {
    stack: Addresses;
  }
}

/** The addresses of the servers that all test files share: use topics, tables and paths of your own. */
export function sharedStack(): Addresses {
  return inject('stack');
}
