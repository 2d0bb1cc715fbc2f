// What ClickHouse says when an insert fails, as measured (26.7), with values of records quoted in it, and what each text
// means, which is known since it is made here.
import type { Random } from '../random.js';

/** What an answer proves about the insert. */
export type Truth =
  /** Written, all of it. */
  | { readonly kind: 'delivered' }
  /** Nothing landed: the record of this row (from 1) cannot be taken. */
  | { readonly kind: 'poison'; readonly row: number }
  /** Some or all of it may have landed, or may land later. */
  | { readonly kind: 'in doubt' }
  /** Not delivered, and nobody's fault that could be named. */
  | { readonly kind: 'failed' };

export interface ServerText {
  readonly status: number;
  readonly code: number;
  readonly text: string;
  readonly truth: Truth;
}

/** Words of other errors, which a record may hold; in quotes they decide nothing. */
const treacherous = [
  '(at row 1)',
  '(at row 99)',
  'is violated at row 1',
  'while pushing to view default.mv (7b2c)',
  'Too many partitions for single INSERT block',
  'Code: 60. DB::Exception: Table does not exist',
  'Code: 210. DB::NetException',
  '(version 26.7.2.1)',
  ': (at row 2)\n',
  "', '",
  'x',
  '',
  '{"n":1}',
  'Duplicate field found while parsing JSONEachRow format: _offset',
  '\u0000',
  '\r\n\r\nHTTP/1.1 200 OK',
] as const;

const parseCodes: readonly (readonly [code: number, status: number, name: string, words: string])[] = [
  [27, 400, 'CANNOT_PARSE_INPUT_ASSERTION_FAILED', "Cannot parse input: expected '\"' before: 'Q'"],
  [117, 400, 'INCORRECT_DATA', "Cannot read JSON field here: 'Q'"],
  [41, 400, 'CANNOT_PARSE_DATETIME', "Cannot read DateTime: unexpected text 'Q'"],
  [72, 400, 'CANNOT_PARSE_NUMBER', "Unsigned type must not contain '-' symbol: 'Q'"],
  [130, 500, 'CANNOT_READ_ARRAY_FROM_TEXT', "Array does not start with '[' character: 'Q'"],
  [691, 400, 'UNKNOWN_ELEMENT_OF_ENUM', "Unknown element 'Q' for enum"],
];

/** Codes after which some or all of the insert may be there, or may come. */
const doubtful: readonly (readonly [code: number, status: number, name: string])[] = [
  [159, 408, 'TIMEOUT_EXCEEDED'],
  [209, 500, 'SOCKET_TIMEOUT'],
  [210, 500, 'NETWORK_ERROR'],
  [216, 500, 'QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING'],
  [241, 500, 'MEMORY_LIMIT_EXCEEDED'],
  [242, 500, 'TABLE_IS_READ_ONLY'],
  [319, 500, 'UNKNOWN_STATUS_OF_INSERT'],
  [394, 500, 'QUERY_WAS_CANCELLED'],
  [999, 500, 'KEEPER_EXCEPTION'],
];
/** Codes that name nobody. */
const others: readonly (readonly [code: number, status: number, name: string])[] = [
  [60, 404, 'UNKNOWN_TABLE'],
  [81, 404, 'UNKNOWN_DATABASE'],
  [202, 500, 'TOO_MANY_SIMULTANEOUS_QUERIES'],
  [252, 500, 'TOO_MANY_PARTS'],
  [16, 404, 'NO_SUCH_COLUMN_IN_TABLE'],
  [516, 403, 'AUTHENTICATION_FAILED'],
  [497, 500, 'ACCESS_DENIED'],
  [164, 500, 'READONLY'],
  [62, 400, 'SYNTAX_ERROR'],
  [33, 500, 'CANNOT_READ_ALL_DATA'],
  [0, 500, 'OK'],
  [9999, 500, 'NOT_YET_KNOWN'],
];

export function serverText(random: Random, rows: number): ServerText {
  const row = 1 + random.int(rows);
  const quoted = Array.from({ length: 1 + random.small(3) }, () => random.pick(treacherous)).join('');
  switch (random.int(6)) {
    case 0:
    case 1: {
      const [code, status, name, words] = random.pick(parseCodes);
      const stage = random.pick([
        '',
        ': While executing ParallelParsingBlockInputFormat',
        ': While executing JSONEachRowRowInputFormat',
      ]);
      const text = exception(
        code,
        'ParsingException',
        `${words.replace('Q', () => quoted)}: (while reading the value of key s): (at row ${row})\n${stage}`,
        name,
      );
      return { status, code, text, truth: { kind: 'poison', row } };
    }
    case 2: {
      const values = `Column values: n = 7, s = '${quoted.replaceAll("'", "\\'")}'`;
      const text = exception(
        469,
        'Exception',
        `Constraint \`c\` for table default.t (0f3c) is violated at row ${row}. Expression: (n != 7). ${values}`,
        'VIOLATED_CONSTRAINT',
      );
      return { status: 500, code: 469, text, truth: { kind: 'poison', row } };
    }
    case 3: {
      const words = `Value passed to 'throwIf' function is non-zero: '${quoted}': while executing 'FUNCTION throwIf(equals(n, 7) : 2) -> 1': while pushing to view default.mv (7b2c1d)`;
      return {
        status: 500,
        code: 395,
        text: exception(395, 'Exception', words, 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO'),
        truth: { kind: 'in doubt' },
      };
    }
    case 4: {
      const [code, status, name] = random.pick(doubtful);
      return {
        status,
        code,
        text: exception(code, 'Exception', `It did not go well. ${quoted.replaceAll(/\(at row \d+\)/g, '')}`, name),
        truth: { kind: 'in doubt' },
      };
    }
    default: {
      const [code, status, name] = random.pick(others);
      return { status, code, text: exception(code, 'Exception', 'It is refused', name), truth: { kind: 'failed' } };
    }
  }
}

function exception(code: number, kind: string, words: string, name: string): string {
  return `Code: ${code}. DB::${kind}: ${words}. (${name}) (version 26.7.2.1 (official build))\n`;
}
