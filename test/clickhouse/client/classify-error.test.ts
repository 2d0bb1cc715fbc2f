import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  classifyError,
  failedInView,
  rowAtFault,
  serverReason,
  type ErrorClass,
} from '../../../src/clickhouse/client/classify-error.js';

const answer = (code: number | undefined, text = '', status = 500) =>
  classifyError({ kind: 'answer', status, code, text });

describe('a connection that failed', () => {
  it.each([
    ['before anything was sent: sent again without any doubt', 'connecting', 'retriable'],
    ['after it was sent: it may land later', 'sent', 'in-doubt'],
    ['in the middle of the answer: it may have landed', 'answering', 'in-doubt'],
  ] as const)('%s', (_, phase, verdict) => expect(classifyError({ kind: 'network', phase })).toBe(verdict));
});

const view =
  "Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero: while executing 'FUNCTION throwIf(equals(k, 5) :: 2) -> throwIf(equals(k, 5)) UInt8 : 1': while pushing to view e3.mv2. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.7.2.1 (official build))";

describe('what a server code means', () => {
  const table: readonly (readonly [ErrorClass, readonly number[]])[] = [
    ['retriable', [3, 33, 60, 81, 201, 202, 203, 218, 252, 285, 695, 745]],
    [
      'in-doubt',
      [
        159, 173, 204, 209, 210, 216, 225, 236, 241, 242, 243, 286, 319, 384, 394, 425, 439, 473, 499, 733, 735, 999,
        1000,
      ],
    ],
    ['poison', [6, 26, 27, 38, 41, 69, 70, 72, 117, 128, 130, 131, 153, 190, 306, 349, 395, 469]],
    ['too-large', [565]],
    ['schema', [8, 10, 16, 20, 44, 47, 50, 53, 741]],
    ['fatal', [48, 62, 73, 115, 164, 192, 194, 452, 497, 516, 620]],
    ['unknown', [0, 36, 43, 49, 158, 307, 396, 123456]],
  ];
  it.each(table.flatMap(([verdict, codes]) => codes.map((code) => [code, verdict] as const)))(
    '%i is %s',
    (code, verdict) => {
      expect(answer(code)).toBe(verdict);
    },
  );

  it('counts whatever the HTTP status is, also with 200', () => {
    for (const status of [200, 400, 403, 404, 408, 500, 503]) expect(answer(117, '', status)).toBe('poison');
  });

  it('a view that throws leaves the table’s own rows in place, whatever the code', () => {
    expect(answer(395, view)).toBe('in-doubt');
    expect(answer(6, 'Cannot parse string: while pushing to view a.b (uuid). (CANNOT_PARSE_TEXT)')).toBe('in-doubt');
    expect(
      answer(469, 'Constraint `c` for table a.b is violated at row 2. Expression: (k > 1): while pushing to view a.c'),
    ).toBe('in-doubt');
  });

  it('a record that quotes the words of a failing view is poison all the same', () => {
    expect(answer(27, "Cannot parse input: expected '}' before: 'while pushing to view x': (at row 3)\n")).toBe(
      'poison',
    );
  });

  it('too many parts passes, too many partitions in one batch does not', () => {
    expect(answer(252, 'Too many parts (3000 with average size of 1 KiB) in table')).toBe('retriable');
    expect(answer(252, 'Too many partitions for single INSERT block (more than 100).')).toBe('too-large');
    expect(answer(252, 'Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100).')).toBe(
      'too-large',
    );
    expect(answer(252, 'Too many parts (3000) in table d.`Too many partitions`')).toBe('retriable');
  });

  it('what an expression throws over some record is that record’s, whatever the code', () => {
    const thrown = (code: number, name: string) =>
      answer(
        code,
        `Code: ${code}. DB::Exception: Something: while executing 'FUNCTION f(d : 1) -> f(d) UInt8 : 2': While executing WaitForAsyncInsert. (${name}) (version 26.7.2.1)`,
      );
    for (const [code, name] of [
      [36, 'BAD_ARGUMENTS'],
      [43, 'ILLEGAL_TYPE_OF_ARGUMENT'],
      [53, 'TYPE_MISMATCH'],
      [44, 'ILLEGAL_COLUMN'],
      [123456, 'NEW'],
    ] as const)
      expect(thrown(code, name)).toBe('poison');
    // What passes passes, also in the middle of an expression.
    expect(thrown(241, 'MEMORY_LIMIT_EXCEEDED')).toBe('in-doubt');
    expect(thrown(159, 'TIMEOUT_EXCEEDED')).toBe('in-doubt');
  });

  it('E1: what fails while a value is read is that record’s, whatever the code, and although no row is named', () => {
    const said =
      'Code: 36. DB::Exception: Names of tuple elements cannot be empty: (while reading the value of key v): While executing JSONEachRowRowInputFormat. (BAD_ARGUMENTS) (version 26.7.2.1)';
    expect(classifyError({ kind: 'answer', status: 500, code: 36, text: said })).toBe('poison');
    const quoted =
      'Code: 36. DB::Exception: Bad arguments: (while reading the value of key v) or so. (BAD_ARGUMENTS) (version 26.7.2.1)';
    expect(classifyError({ kind: 'answer', status: 500, code: 36, text: quoted })).not.toBe('poison');
  });

  it('what is wrong before the first row is the table’s', () => {
    expect(
      answer(
        117,
        'Code: 117. DB::Exception: Something: (while reading header): While executing JSONEachRowRowInputFormat. (INCORRECT_DATA) (version 26.7.2.1)',
      ),
    ).toBe('schema');
  });

  it('each code stands in one class only', () => {
    // A code that stood twice would have the class that comes last.
    const source = readFileSync(new URL('../../../src/clickhouse/client/classify-error.ts', import.meta.url), 'utf8');
    const listed = [
      ...source
        .slice(source.indexOf('const codes'), source.indexOf('const byCode'))
        .matchAll(/^ +(?:'?[\w-]+'?: \[)?((?:\d+, ?)+|\d+(?=\]))/gm),
    ].flatMap(([, list = '']) => list.match(/\d+/g) ?? []);
    expect(listed.length).toBeGreaterThan(150);
    expect(listed.filter((code, index) => listed.indexOf(code) !== index)).toEqual([]);
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
    [302, 'in-doubt'],
    [401, 'in-doubt'],
    [403, 'in-doubt'],
    [404, 'in-doubt'],
    [405, 'in-doubt'],
    [499, 'in-doubt'],
    [520, 'in-doubt'],
    [400, 'unknown'],
    [413, 'unknown'],
  ] as const)('%i is %s: a proxy may or may not have passed it on', (status, verdict) =>
    expect(answer(undefined, '<html>', status)).toBe(verdict),
  );
});

describe('the row at fault', () => {
  it.each([
    ['parse error', 27, "Cannot parse input: expected '{' before: 'x': (at row 6)\n: While executing JSONEachRow", 6],
    [
      'constraint',
      469,
      'Constraint `c` for table e6.t is violated at row 350001. Expression: (k != 5). Column values: k = 5',
      350001,
    ],
    ['none given', 27, 'Cannot parse input', undefined],
    [
      'a record that quotes another row',
      117,
      "Cannot read JSON field here: '(at row 1)': (while reading the value of key v): (at row 2)\n",
      2,
    ],
    [
      'a constraint over a value that quotes a row',
      469,
      "Constraint `c` is violated at row 2. Column values: v = 'is violated at row 9 (at row 8)'",
      2,
    ],
  ] as const)('%s', (_, code, text, row) => expect(rowAtFault(code, text)).toBe(row));
});

describe('the reason for people', () => {
  it('is the first line, without code, version, row number and stack', () => {
    const text =
      "Code: 27. DB::Exception: Cannot parse input: expected '}' before: 'x': (at row 6)\n: While executing JSONEachRowRowInputFormat. (CANNOT_PARSE) (version 26.7.2.1 (official build))";
    expect(serverReason(text)).toBe("Cannot parse input: expected '}' before: 'x'");
    expect(
      serverReason(
        'Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE) (version 26.7.2.1 (official build))\n',
      ),
    ).toBe('Table a.b does not exist. (UNKNOWN_TABLE)');
  });

  it('never carries a whole body along', () => {
    const reason = serverReason(
      `Code: 27. DB::Exception: Cannot parse input before: '${'x'.repeat(5000)}': (while reading the value of key k)`,
    );
    expect(reason.length).toBeLessThan(400);
    expect(reason).toMatch(/^Cannot parse input before: 'xxx.* … .*while reading the value of key k\)$/);
  });
});

it('a failing view is told by the server’s own words', () => {
  expect(failedInView(395, view)).toBe(true);
  expect(failedInView(27, 'Cannot parse input')).toBe(false);
});

describe('a value decides nothing, whatever words it holds', () => {
  const end = ' (version 26.7.2.1 (official build))';
  const view = 'while pushing to view default.mv (5a673672-5c58-4421-8109-ef15137af9c9)';
  const evil = [
    view,
    `x: ${view}`,
    '(at row 1)',
    `: (at row 1)\n: While executing JSONEachRowRowInputFormat. (X)${end}`,
    'is violated at row 1',
    "while executing 'FUNCTION f'",
    '(while reading header)',
    'Too many partitions',
  ];

  it.each(evil)('E3: a constraint’s message that quotes %j', (value) => {
    for (const stage of ['', ': While executing WaitForAsyncInsert']) {
      const text = `Code: 469. DB::Exception: Constraint \`c\` for table default.t (5a673672-5c58-4421-8109-ef15137af9c9) is violated at row 8. Expression: (n != 7). Column values: n = 7, s = '${value.replaceAll("'", String.raw`\'`)}'${stage}. (VIOLATED_CONSTRAINT)${end}`;
      expect(answer(469, text)).toBe('poison');
      expect(rowAtFault(469, text)).toBe(8);
    }
  });

  it.each(evil)('E3: a parse error’s message that quotes %j', (value) => {
    const text = `Code: 117. DB::Exception: Unknown field found while parsing JSONEachRow format: ${value}: (at row 8)\n: While executing JSONEachRowRowInputFormat. (INCORRECT_DATA)${end}`;
    expect(answer(117, text)).toBe('poison');
    expect(rowAtFault(117, text)).toBe(8);
  });

  it.each(evil)('E3: an expression’s message that quotes %j names no row', (value) => {
    const text = `Code: 691. DB::Exception: Unknown element '${value}' for enum: while executing 'FUNCTION _CAST(s : 1, 'Enum8(\\'a\\' = 1)'_String :: 2) -> 3'. (UNKNOWN_ELEMENT_OF_ENUM)${end}`;
    expect(answer(691, text)).toBe('poison');
    expect(rowAtFault(691, text)).toBeUndefined();
  });

  it('names of views are read as the server quotes them', () => {
    for (const name of [
      'default.mv',
      'default.`v1 mv (at row 3)`',
      '`a b`.`c\\`d`',
      `default.mv (5a673672-5c58-4421-8109-ef15137af9c9)`,
    ]) {
      expect(
        answer(
          469,
          `Constraint \`c\` for table default.v1t is violated at row 8. Expression: (n != 7). Column values: n = 7: while pushing to view ${name}. (VIOLATED_CONSTRAINT)${end}`,
        ),
      ).toBe('in-doubt');
    }
  });
});
