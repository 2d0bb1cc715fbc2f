// Mutants that no test can notice, each with the reason. They are known by their text and not by a line, so that the list
// stays true when lines move; one whose original text is gone from its file fails score.test.ts.

export interface Equivalent {
  /** From the root of the repository. */
  readonly file: string;
  /** As Stryker names it. */
  readonly mutator: string;
  readonly original: string;
  readonly replacement: string;
  /** Why it changes nothing that anybody could see. */
  readonly why: string;
}

export const equivalents: readonly Equivalent[] = [];
