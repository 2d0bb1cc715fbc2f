/**
 * A configuration, checked: what it refers to filled in, its shape, and what its parts must be to each other. Reads
 * the environment, and the files that the configuration refers to; nothing else is touched. Imports: Node, zod.
 */
import { readFileSync } from 'node:fs';
import type { z } from 'zod';
import { crossCheck } from './cross-check.js';
import { fillIn } from './fill-in.js';
import type { World } from './references.js';
import { configSchema, type CheckedConfig } from './schema.js';
import { keysAt, placeOf, valueAt } from './schema-walk.js';
import { unusable } from './unusable.js';
import { withoutCredentials } from './url.js';

export type { IngestConfig } from './ingest-config.js';
export type { CheckedConfig };

/**
 * Checks a configuration, with what its strings refer to filled in: `${NAME}`, `${NAME:-default}`, `${file:/path}`.
 * Where a number, a boolean or a list belongs, the text is taken as one.
 *
 * @throws `KCR_CONFIG`, naming every place that is wrong and what is expected there, never the value.
 */
export function checkConfig(
  given: unknown,
  environment: World['environment'] = process.env,
  readFile: World['readFile'] = (path) => readFileSync(path, 'utf8'),
): CheckedConfig {
  const parsed = configSchema.safeParse(withoutCredentials(fillIn(given, { environment, readFile })));
  if (!parsed.success) {
    const problems = parsed.error.issues.map(
      (issue) => `${placeOf(issue.path)}: ${explain(issue, valueAt(given, issue.path))}`,
    );
    throw unusable(problems.join('\n  '));
  }
  crossCheck(parsed.data);
  return parsed.data;
}

function explain(issue: z.core.$ZodIssue, given: unknown): string {
  if (issue.code !== 'unrecognized_keys') return issue.message;
  const known = keysAt(configSchema, issue.path);
  const names = issue.keys
    .map((key) =>
      isName(key, given) ? `"${key}"` : '(not shown: it may be a value whose key, colon or quote is missing)',
    )
    .join(', ');
  return `unknown key ${names}; known here: ${known.length === 0 ? 'none' : known.join(', ')}`;
}

/** A key that has no value, or looks like none, may be a password whose key was forgotten. */
function isName(key: string, of: unknown): boolean {
  const value = (of as Record<string, unknown> | null | undefined)?.[key];
  return /^[$\w][\w.-]{0,60}$/.test(key) && value !== null && value !== undefined;
}
