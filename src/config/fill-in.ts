/**
 * Fills in what a configuration's strings refer to, read as what belongs in their place: text, a number, a list. What
 * cannot be read so is left to the schema. Imports: zod.
 */
import { z } from 'zod';
import { BadReference, filledIn, hasReference, type World } from './references.js';
import { unusable } from './unusable.js';
import { configSchema } from './schema.js';
import { placeOf, typesAt, unwrap, type Path } from './schema-walk.js';

/** @throws `KCR_CONFIG` for a reference to what is not there. */
export function fillIn(value: unknown, world: World, path: Path = []): unknown {
  if (typeof value === 'string') return hasReference(value) ? asExpected(filledInAt(value, world, path), path) : value;
  if (Array.isArray(value)) {
    return value.flatMap((item: unknown, index): readonly unknown[] => {
      const filled = fillIn(item, world, [...path, index]);
      // `["${BROKERS}"]`, and the variable holds several.
      return typeof filled === 'string' && typeof item === 'string' && hasReference(item) ? listOf(filled) : [filled];
    });
  }
  if (value === null || typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype) return value;
  // A key whose value is undefined is one that is not there.
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(entries.map(([key, item]) => [key, fillIn(item, world, [...path, key])]));
}

function filledInAt(text: string, world: World, path: Path): string {
  try {
    return filledIn(text, world);
  } catch (thrown) {
    if (!(thrown instanceof BadReference)) throw thrown;
    throw unusable(`${placeOf(path)}: ${thrown.message}`, thrown.hint);
  }
}

function asExpected(text: string, path: Path): unknown {
  const types = typesAt(configSchema, path).flatMap(unwrap);
  const takes = (kind: abstract new (...args: never[]) => unknown): boolean =>
    types.some((type) => type instanceof kind);
  if (takes(z.ZodString) || takes(z.ZodEnum)) return text;
  const plain = text.trim();
  if (takes(z.ZodNumber) && /^-?\d+(\.\d+)?$/.test(plain)) return Number(plain);
  if ((takes(z.ZodBoolean) || takes(z.ZodLiteral)) && /^(true|false)$/i.test(plain))
    return plain.toLowerCase() === 'true';
  if (/^[[{]/.test(plain) && (takes(z.ZodArray) || takes(z.ZodObject) || takes(z.ZodRecord)))
    return parsedOr(plain, text);
  return takes(z.ZodArray) ? listOf(plain) : text;
}

const listOf = (text: string): readonly string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');

function parsedOr(text: string, otherwise: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return otherwise;
  }
}
