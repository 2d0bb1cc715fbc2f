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
  const id = schemaId(value);
  return id === undefined || !unusable.kind.includes('schema id') ? unusable.kind : `${unusable.kind}; schema id ${id}`;
}

function schemaId(value: Buffer): number | undefined {
  return value[0] === 0 && value.length > 5 ? value.readUInt32BE(1) : undefined;
}
