/**
 * The command `check`: the findings of the preflight, a line each or as JSON, and an exit code by the worst.
 * Imports: config, errors, preflight.
 */
import type { CheckedConfig } from '../config/config.js';
import { errorCodes } from '../errors.js';
import { refusalOf, type Finding } from '../preflight/finding.js';
import { preflight } from '../preflight/preflight.js';

const marks = { ok: 'ok      ', warning: 'warning ', refusal: 'REFUSED ' } as const;

/** Resolves with the exit code: 0 also for warnings. */
export async function check(config: CheckedConfig, { json = false }: { readonly json?: boolean }): Promise<number> {
  const findings = await preflight(config);
  console.log(json ? JSON.stringify({ findings }) : findings.map(line).join('\n'));
  const refusal = refusalOf(findings);
  return refusal === undefined ? 0 : errorCodes[refusal.code].exitCode;
}

function line({ level, what, detail, todo }: Finding): string {
  return `${marks[level]} ${what}: ${detail}${todo === undefined ? '' : `\n           → ${todo}`}`;
}
