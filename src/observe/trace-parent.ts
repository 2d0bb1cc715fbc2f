/**
 * The header `traceparent` of a record (W3C Trace Context). Pure. Imports: model.
 */
import type { RecordHeaders } from '../model/record.js';

export interface TraceParent {
  readonly traceId: string;
  readonly spanId: string;
  readonly traceFlags: number;
}

const FORM = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
/** Version 00 has 55 characters; later ones may have more. */
const MAX_BYTES = 512;

/** Undefined: there is none, or it is malformed. */
export function traceParentOf(headers: RecordHeaders): TraceParent | undefined {
  const value = headers.find(([name]) => name.toLowerCase() === 'traceparent')?.[1];
  if (value === undefined || value === null || value.length > MAX_BYTES) return undefined;
  const [, version, traceId, spanId, flags, more] = FORM.exec(value.toString('latin1').trim()) ?? [];
  if (version === undefined || traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  const isUnknown = version === 'ff' || (version === '00' && more !== undefined);
  if (isUnknown || /^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1 };
}
