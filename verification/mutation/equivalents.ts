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

const isBehind = {
  file: 'src/model/compare-with-log.ts',
  why: 'a comparison with undefined is false, as the check that is taken out would make it; it is there for the types',
};

export const equivalents: readonly Equivalent[] = [
  {
    ...isBehind,
    mutator: 'ConditionalExpression',
    original: 'committed !== undefined && resume !== undefined',
    replacement: 'true',
  },
  {
    ...isBehind,
    mutator: 'LogicalOperator',
    original: 'committed !== undefined && resume !== undefined',
    replacement: 'committed !== undefined || resume !== undefined',
  },
  { ...isBehind, mutator: 'ConditionalExpression', original: 'committed !== undefined', replacement: 'true' },
  { ...isBehind, mutator: 'ConditionalExpression', original: 'resume !== undefined', replacement: 'true' },
  { ...isBehind, mutator: 'ConditionalExpression', original: 'known !== undefined', replacement: 'true' },
  {
    file: 'src/model/state-change.ts',
    mutator: 'ConditionalExpression',
    original: "case 'halt':\n      return undefined;",
    replacement: "case 'halt':",
    why: 'a function that ends returns undefined; the case is there for the check that every kind has one',
  },
  {
    file: 'src/model/batch.ts',
    mutator: 'ConditionalExpression',
    original: 'first === undefined',
    replacement: 'false',
    why: 'of a list the first is undefined where the last is',
  },
  {
    file: 'src/model/batch.ts',
    mutator: 'ConditionalExpression',
    original: 'last === undefined',
    replacement: 'false',
    why: 'of a list the last is undefined where the first is',
  },
  {
    file: 'src/model/batch.ts',
    mutator: 'LogicalOperator',
    original: 'first === undefined || last === undefined',
    replacement: 'first === undefined && last === undefined',
    why: 'of a list the first is undefined where the last is',
  },
  {
    file: 'operators/internal/map-in-order.ts',
    mutator: 'ArrayDeclaration',
    original: '[]',
    replacement: '["Stryker was here"]',
    why: 'a text among what is told in turn is neither a value nor an error, so nobody is given it, and it ends no turn',
  },
  {
    file: 'operators/internal/insert-verified.ts',
    mutator: 'OptionalChaining',
    original: 'this.#noteDown?.(step.fields)',
    replacement: 'this.#noteDown(step.fields)',
    why: 'where there is no noteDown the range is not recorded, and nothing is noted of such a range; it is there for the types',
  },
  {
    file: 'operators/internal/doubt.ts',
    mutator: 'ConditionalExpression',
    original: 'stored === undefined',
    replacement: 'false',
    why: 'only what was to be stored is noted; it is there for the types',
  },
];
