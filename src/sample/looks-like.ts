/**
 * What a value looks like, in a few words. Pure. Imports: nothing.
 */
import { envelopeOf } from './envelope.js';
import { unusableValue } from './payload.js';

/** `a JSON object`, `a JSON object in Debezium's envelope …`, `a tombstone`, or what else it is taken for. */
export function looksLike(value: Buffer | null): string {
  if (value === null) return 'a tombstone: no value';
  const unusable = unusableValue(value, 0);
  if (unusable === undefined) {
    const envelope = envelopeOf(JSON.parse(value.toString()) as Readonly<Record<string, unknown>>);
    return envelope === undefined ? 'a JSON object' : `a JSON object in ${envelope.name}`;
  }
  return unusable.hasSchemaId === true ? `${unusable.kind}; schema id ${value.readUInt32BE(1)}` : unusable.kind;
}
