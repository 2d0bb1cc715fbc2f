// What the table of codes says of one, as docs/errors.md shows it below the code's heading.
import { errorCodes, mayHeal, type ErrorCode } from '../../src/errors.js';

export function factsOf(code: ErrorCode): string {
  const { means, exitCode, retryable } = errorCodes[code];
  const again = retryable ? 'The call is made again by itself.' : 'The call is not made again by itself.';
  const heals = mayHeal({ code })
    ? 'A partition that halts for it is started again.'
    : 'A partition that halts for it stays halted.';
  return `*${means[0]!.toUpperCase()}${means.slice(1)}.* ${again} ${heals} Exit code ${exitCode}.`;
}
