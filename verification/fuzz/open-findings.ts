// What the fuzzers find and nobody has mended yet. It is counted, not failed for. An entry goes with the change that
// mends it: a test plays each one again, and is red when it finds nothing any more.
import { signatureOf, type Finding, type KindName } from './kind.js';

export interface OpenFinding {
  readonly kind: KindName;
  readonly what: RegExp;
  /** Where it is found. */
  readonly seed: number;
  readonly caseNumber: number;
}

export const openFindings: readonly OpenFinding[] = [];

export function isOpen(kind: KindName, finding: Finding): boolean {
  return openFindings.some((open) => open.kind === kind && open.what.test(signatureOf(finding)));
}
