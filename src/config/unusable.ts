/**
 * How a configuration is refused: by the place, never by what stands there. Imports: errors.
 */
import { IngestError } from '../errors.js';

export function unusable(what: string, hint?: string): IngestError {
  const fields = hint === undefined ? {} : { hint };
  return new IngestError('KCR_CONFIG', `The configuration cannot be used:\n  ${what}`, fields);
}
