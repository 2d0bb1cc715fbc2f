import { describe, expect, it } from 'vitest';
import { classify, failedInView, rowAtFault, serverReason, type Verdict } from '../../src/clickhouse/classify.js';

const answer = (code: number | undefined, text = '', status = 500) => classify({ kind: 'answer', status, code, text });

describe('a connection that failed', () => {
  it.each([
    ['before anything was sent: sent again without any doubt', 'connecting', 'retriable'],
    ['after it was sent: it may land later', 'sent', 'in-doubt'],
    ['in the middle of the answer: it may have landed', 'answering', 'in-doubt'],
  ] as const)('%s', (_, phase, verdict) => expect(classify({ kind: 'network', phase })).toBe(verdict));
});

const view =
  "Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero: while executing 'FUNCTION throwIf(equals(k, 5) :: 2) -> throwIf(equals(k, 5)) UInt8 : 1': while pushing to view e3.mv2. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.7.2.1 (official build))";

describe('what a server code means', () => {
  const table: readonly (readonly [Verdict, readonly number[]])[] = [
    ['retriable', [3, 33, 202, 203, 252, 285, 745]],
    ['in-doubt', [159, 209, 210, 216, 225, 236, 241, 242, 243, 286, 319, 384, 394, 395, 425, 439, 473, 733, 735, 999, 1000]],
    ['poison', [6, 26, 27, 38, 41, 69, 70, 72, 117, 130, 131, 349, 469]],
    ['schema', [8, 10, 16, 20, 44, 47, 50, 53, 60, 81, 218]],
    ['fatal', [36, 48, 62, 73, 115, 164, 194, 452, 497, 516, 123456]],
  ];
  it.each(table.flatMap(([verdict, codes]) => codes.map((code) => [code, verdict] as const)))('%i is %s', (code, verdict) => {
    expect(answer(code)).toBe(verdict);
  });

  it('counts whatever the HTTP status is, also with 200', () => {
    for (const status of [200, 400, 403, 404, 408, 500, 503]) expect(answer(117, '', status)).toBe('poison');
  });

  it('a view that throws leaves the table’s own rows in place, whatever the code', () => {
    expect(answer(395, view)).toBe('in-doubt');
    expect(answer(6, 'Cannot parse string: while pushing to view a.b (uuid). (CANNOT_PARSE_TEXT)')).toBe('in-doubt');
    expect(answer(469, 'Constraint `c` for table a.b is violated at row 2. Expression: (k > 1): while pushing to view a.c')).toBe('in-doubt');
  });

  it('a record that quotes the words of a failing view is poison all the same', () => {
    expect(answer(27, "Cannot parse input: expected '}' before: 'while pushing to view x': (at row 3)\n")).toBe('poison');
  });

  it('too many parts passes, too many partitions in one batch does not', () => {
    expect(answer(252, 'Too many parts (3000 with average size of 1 KiB) in table')).toBe('retriable');
    expect(answer(252, 'Too many partitions for single INSERT block (more than 100).')).toBe('fatal');
  });

  it('any code with a row number is a record’s fault', () => {
    expect(answer(4711, 'Something new: (at row 7)\n: While executing')).toBe('poison');
  });

  it('an unknown status of the insert stays in doubt even if a text quotes a row', () => {
    expect(answer(319, 'Unknown status of part (at row 1)')).toBe('in-doubt');
  });
});

describe('an answer without a server code', () => {
  it.each([
    [200, 'in-doubt'],
    [204, 'in-doubt'],
    [408, 'in-doubt'],
    [429, 'in-doubt'],
    [500, 'in-doubt'],
    [502, 'in-doubt'],
    [503, 'in-doubt'],
    [504, 'in-doubt'],
    [302, 'fatal'],
    [401, 'fatal'],
    [404, 'fatal'],
    [413, 'fatal'],
  ] as const)('%i is %s: a proxy may or may not have passed it on', (status, verdict) => expect(answer(undefined, '<html>', status)).toBe(verdict));
});

describe('the row at fault', () => {
  it.each([
    ['parse error', 27, "Cannot parse input: expected '{' before: 'x': (at row 6)\n: While executing JSONEachRow", 6],
    ['constraint', 469, 'Constraint `c` for table e6.t is violated at row 350001. Expression: (k != 5). Column values: k = 5', 350001],
    ['none given', 27, 'Cannot parse input', undefined],
    ['a record that quotes another row', 117, "Cannot read JSON field here: '(at row 1)': (while reading the value of key v): (at row 2)\n", 2],
    ['a constraint over a value that quotes a row', 469, "Constraint `c` is violated at row 2. Column values: v = 'is violated at row 9 (at row 8)'", 2],
  ] as const)('%s', (_, code, text, row) => expect(rowAtFault(code, text)).toBe(row));
});

describe('the reason for people', () => {
  it('is the first line, without code, version, row number and stack', () => {
    const text =
      "Code: 27. DB::Exception: Cannot parse input: expected '}' before: 'x': (at row 6)\n: While executing JSONEachRowRowInputFormat. (CANNOT_PARSE) (version 26.7.2.1 (official build))";
    expect(serverReason(text)).toBe("Cannot parse input: expected '}' before: 'x'");
    expect(serverReason('Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE) (version 26.7.2.1 (official build))\n')).toBe(
      'Table a.b does not exist. (UNKNOWN_TABLE)',
    );
  });

  it('never carries a whole body along', () => {
    const reason = serverReason(`Code: 27. DB::Exception: Cannot parse input before: '${'x'.repeat(5000)}': (while reading the value of key k)`);
    expect(reason.length).toBeLessThan(400);
    expect(reason).toMatch(/^Cannot parse input before: 'xxx.* … .*while reading the value of key k\)$/);
  });
});

it('a failing view is told by the server’s own words', () => {
  expect(failedInView(view)).toBe(true);
  expect(failedInView('Cannot parse input')).toBe(false);
});
