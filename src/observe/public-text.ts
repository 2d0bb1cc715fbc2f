/**
 * What may be shown of an error to whoever can reach a port: never a value of a record, which a server quotes in its
 * words and a transform in its exceptions. Pure. Imports: errors.
 */
import { errorCodes, type IngestError } from '../errors.js';

const quoting: ReadonlySet<string> = new Set(['KCR_POISON', 'KCR_TRANSFORM', 'KCR_CORRUPT_BATCH']);

export function publicText({ code, reason, fields: { serverCode } }: IngestError): string {
  if (serverCode === undefined && !quoting.has(code)) return reason;
  const { means } = errorCodes[code];
  return serverCode === undefined ? means : `${means} (server code ${serverCode})`;
}
