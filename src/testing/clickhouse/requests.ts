/**
 * What goes over the wire to a simulated ClickHouse, and what comes back. Types, and how an answer is put.
 * Imports: nothing.
 */
import type { Settings } from './settings.js';

export interface Insert {
  readonly kind: 'insert';
  readonly text: string;
  readonly queryId: string;
  readonly settings: Settings;
  readonly body: string;
}

export interface Select {
  readonly kind: 'select';
  readonly text: string;
  readonly queryId: string;
  readonly values: Readonly<Record<string, string | number>>;
  readonly settings: Settings;
}

export type Request = Insert | Select;

export interface Response {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
}

/** It broke before an answer had come. */
export class Broken extends Error {
  constructor(readonly phase: 'connecting' | 'sent' | 'answering') {
    super(phase === 'connecting' ? 'connect ECONNREFUSED' : 'socket hang up');
  }
}

/** A statement that the simulated server does not know: the test is wrong about what the sink sends, or the sink is. */
export class UnknownStatement extends Error {
  override readonly name = 'UnknownStatement';
}

const names: Readonly<Record<number, readonly [status: number, name: string, text: string]>> = {
  36: [400, 'BAD_ARGUMENTS', 'A setting or an argument is wrong'],
  47: [404, 'UNKNOWN_IDENTIFIER', 'Unknown expression identifier'],
  60: [404, 'UNKNOWN_TABLE', 'Table does not exist'],
  62: [400, 'SYNTAX_ERROR', 'Syntax error'],
  117: [400, 'INCORRECT_DATA', 'Cannot read JSON field here'],
  159: [408, 'TIMEOUT_EXCEEDED', 'Timeout exceeded: elapsed 1 seconds'],
  190: [500, 'SIZES_OF_ARRAYS_DONT_MATCH', 'Elements of Nested data structure should have equal array sizes'],
  202: [500, 'TOO_MANY_SIMULTANEOUS_QUERIES', 'Too many simultaneous queries. Maximum: 100'],
  216: [500, 'QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING', 'Query is already running'],
  241: [500, 'MEMORY_LIMIT_EXCEEDED', '(total) memory limit exceeded'],
  242: [500, 'TABLE_IS_READ_ONLY', 'Table is in readonly mode due to connection loss'],
  252: [
    500,
    'TOO_MANY_PARTS',
    'Too many parts (3000 with average size of 431.00 B). Merges are processing significantly slower than inserts',
  ],
  319: [
    500,
    'UNKNOWN_STATUS_OF_INSERT',
    "Unknown status of part all_149_149_0 (Reason: Session expired). Data was written locally but we don't know " +
      'the status in keeper',
  ],
  395: [500, 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO', "Value passed to 'throwIf' function is non-zero"],
  469: [500, 'VIOLATED_CONSTRAINT', 'Constraint `c` for table is violated'],
  497: [403, 'ACCESS_DENIED', 'Not enough privileges'],
  745: [500, 'SERVER_OVERLOADED', 'CPU is overloaded'],
  999: [500, 'KEEPER_EXCEPTION', 'Coordination::Exception. Session expired'],
  1001: [500, 'STD_EXCEPTION', 'std::exception. Code: 1001, type: std::runtime_error'],
};

/** As ClickHouse puts it. `said`: instead of its usual words. */
export function exception(code: number, queryId: string | undefined, said?: string): Response {
  const [status, name, usual] = names[code] ?? [500, 'UNKNOWN', 'An error'];
  return {
    status,
    headers: {
      'x-clickhouse-exception-code': String(code),
      ...(queryId === undefined ? {} : { 'x-clickhouse-query-id': queryId }),
    },
    text: `Code: ${code}. DB::Exception: ${said ?? usual}. (${name}) (version 26.7.2.1)`,
  };
}

export function rowsAnswer(queryId: string, rows: readonly object[]): Response {
  return { status: 200, headers: { 'x-clickhouse-query-id': queryId }, text: JSON.stringify({ data: rows }) };
}
