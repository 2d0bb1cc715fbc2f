/**
 * Which headers a user may add to requests: none that decides what a request is. Pure. Imports: Node.
 */
import { validateHeaderName, validateHeaderValue } from 'node:http';
import type { OptionFault } from './tls.js';

/** Made for each request, or by the login; a second one would make another request of it. */
const ours =
  /^(?:host|connection|keep-alive|content-.*|transfer-encoding|accept-encoding|expect|te|trailer|upgrade|proxy-.*|x-clickhouse-(?!quota$).*)$/i;

export function headersFault(headers: Readonly<Record<string, string>>): OptionFault | undefined {
  for (const [name, value] of Object.entries(headers)) {
    const option = `headers.${name}`;
    if (!isValid(() => validateHeaderName(name)))
      return { option: 'headers', what: 'a name that no HTTP header may have', hint: 'letters, digits and dashes' };
    if (ours.test(name))
      return {
        option,
        what: 'it is set for each request',
        hint: 'take it out; user, database and settings have options of their own',
      };
    if (!isValid(() => validateHeaderValue(name, value)))
      return {
        option,
        what: 'its value has characters that no HTTP header may have',
        hint: 'a line feed perhaps, at the end of a file',
      };
  }
  return undefined;
}

function isValid(check: () => void): boolean {
  try {
    check();
    return true;
  } catch {
    return false;
  }
}
