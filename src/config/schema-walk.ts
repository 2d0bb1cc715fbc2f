/**
 * What a schema says of one place in a configuration. Imports: zod.
 */
import { z } from 'zod';

export type Path = readonly PropertyKey[];

/** For people: `routes[0].table`. */
export function placeOf(path: Path): string {
  const text = path.reduce<string>(
    (done, part) => (typeof part === 'number' ? `${done}[${part}]` : `${done}.${String(part)}`),
    '',
  );
  return text === '' ? '(the whole)' : text.replace(/^\./, '');
}

export function valueAt(value: unknown, path: Path): unknown {
  return path.reduce((at: unknown, part) => (at as Record<PropertyKey, unknown> | undefined)?.[part], value);
}

/** The keys that an object at this place may have. */
export function keysAt(root: z.core.$ZodType, path: Path): readonly string[] {
  const types = typesAt(root, path).flatMap(unwrap);
  return [...new Set(types.flatMap((type) => (type instanceof z.ZodObject ? Object.keys(type.shape) : [])))];
}

/** The schemas of what may stand at this place. */
export function typesAt(root: z.core.$ZodType, path: Path): readonly z.core.$ZodType[] {
  let types: z.core.$ZodType[] = [root];
  for (const part of path) types = types.flatMap(unwrap).flatMap((type) => step(type, part));
  return types;
}

/** Without what says that it may be left out; a union as its options. */
export function unwrap(type: z.core.$ZodType): readonly z.core.$ZodType[] {
  if (type instanceof z.ZodExactOptional || type instanceof z.ZodOptional || type instanceof z.ZodDefault)
    return unwrap(type.unwrap());
  if (type instanceof z.ZodUnion) return type.options.flatMap(unwrap);
  return [type];
}

function step(type: z.core.$ZodType, part: PropertyKey): readonly z.core.$ZodType[] {
  if (type instanceof z.ZodArray) return [type.element];
  if (type instanceof z.ZodRecord) return [type.valueType];
  const shape: Record<string, z.core.$ZodType> = type instanceof z.ZodObject ? type.shape : {};
  const next = shape[String(part)];
  return next === undefined ? [] : [next];
}
