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

export const openFindings: readonly OpenFinding[] = [
  // A record that the server refuses without naming its row: code 36 of a Dynamic, 190 of a Nested.
  { kind: 'neighbourhoods', what: /^the partition stops with KCR_INSERT_FATAL, server code # although a record alone is refused by the server/, seed: 8, caseNumber: 655 },
  // `null` for an Enum without a 0 is stored as 0: from then on every SELECT of the column fails (code 691; measured, 26.7).
  { kind: 'neighbourhoods', what: /^a value is stored that the server itself cannot read/, seed: 41, caseNumber: 575 },
  // A constraint's message that quotes a value with the words of a view's failure.
  { kind: 'answers', what: /^a record that the server names is not poison but KCR_INSERT_IN_DOUBT/, seed: 7, caseNumber: 763 },
];

export function isOpen(kind: KindName, finding: Finding): boolean {
  return openFindings.some((open) => open.kind === kind && open.what.test(signatureOf(finding)));
}
