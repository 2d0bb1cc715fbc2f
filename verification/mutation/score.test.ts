// The score of `npm run mutate`, and that the list of equivalents does not rot.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { equivalents } from './equivalents.js';
import { isRoom, rooms } from './rooms.js';
import { scoreOf, type MutationReport } from './score.js';

const mutant = (status: string, replacement: string, startColumn = 9, endLine = 1, endColumn = 14) => ({
  mutatorName: 'EqualityOperator',
  replacement,
  status,
  location: { start: { line: 1, column: startColumn }, end: { line: endLine, column: endColumn } },
});
const reportOf = (...mutants: ReturnType<typeof mutant>[]): MutationReport => ({
  files: { 'src/a.ts': { source: 'return (a < b);\n}', mutants } },
});
const known = { file: 'src/a.ts', mutator: 'EqualityOperator', original: 'a < b', replacement: 'a <= b', why: '' };

test('what a test failed for, or never ended for, is noticed; what is covered by none is not', () => {
  const report = reportOf(
    mutant('Killed', '1'),
    mutant('Timeout', '2'),
    mutant('RuntimeError', '3'),
    mutant('NoCoverage', '4'),
    mutant('CompileError', '5'),
    mutant('Ignored', '6'),
  );
  const { killed, percent, survivors } = scoreOf(report, []);
  expect({ killed, percent }).toEqual({ killed: 3, percent: 75 });
  expect(survivors).toEqual([
    { file: 'src/a.ts', line: 1, mutator: 'EqualityOperator', original: 'a < b', replacement: '4', isCovered: false },
  ]);
});

test('an equivalent is left out of the score; the same change elsewhere, or another one there, is not', () => {
  const report = reportOf(mutant('Survived', 'a <= b'), mutant('Survived', 'a > b'), mutant('Killed', 'false'));
  expect(scoreOf(report, [known])).toMatchObject({ equivalent: 1, killed: 1, percent: 50 });
  for (const other of [{ file: 'src/b.ts' }, { mutator: 'X' }, { original: 'b < a' }, { replacement: 'a >= b' }])
    expect(scoreOf(report, [{ ...known, ...other }])).toMatchObject({ equivalent: 0, killed: 1 });
});

test('the text of one over several lines is theirs; of nothing there is no score', () => {
  expect(scoreOf(reportOf(mutant('Survived', '', 1, 2, 2)), []).survivors[0]?.original).toBe('return (a < b);\n}');
  expect(scoreOf(reportOf(), []).percent).toBeUndefined();
});

test('each equivalent still stands in its file', () => {
  const gone = equivalents.filter(({ file, original }) => !readFileSync(file, 'utf8').includes(original));
  expect(gone).toEqual([]);
});

test('a room is one that is listed, not what every object has', () => {
  expect([isRoom('kafka'), isRoom('toString'), Object.keys(rooms)]).toEqual([
    true,
    false,
    ['model', 'operators', 'ledger', 'insert', 'kafka'],
  ]);
});
