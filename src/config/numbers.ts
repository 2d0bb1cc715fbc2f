/**
 * The numbers of a configuration, each with the limit that its adapter gives it. Imports: options, zod.
 */
import { z } from 'zod';
import { MAX_DURATION_MS, type Limits } from '../options.js';

export const positive = (most: number) => z.int().min(1).max(most);
export const durationMs = positive(MAX_DURATION_MS);

/** A property of the schema for each name: an integer up to its limit, which may be left out. */
export function limited<const Name extends string>(
  limits: Limits & Readonly<Record<Name, number>>,
  ...names: readonly Name[]
): Record<Name, z.ZodExactOptional<z.ZodInt>> {
  const entries = names.map((name) => [name, positive(limits[name]).exactOptional()] as const);
  return Object.fromEntries(entries) as Record<Name, z.ZodExactOptional<z.ZodInt>>;
}
