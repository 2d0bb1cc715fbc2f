/**
 * Room: what a failed insert means. Pure, imports nothing but types; every rule is a line in a table.
 *
 * - `retriable`: nothing of it landed; the same bytes may be sent again.
 * - `in-doubt`: it may have landed, may land later, or has landed in part; only ever the same bytes with the same token.
 * - `poison`: a record of the batch cannot be inserted.
 * - `schema`: the table does not fit, or is gone.
 * - `fatal`: the server refuses and will go on refusing.
 */

export type Verdict = 'retriable' | 'in-doubt' | 'poison' | 'schema' | 'fatal';

/** How far a request had come when its connection failed. */
export type Phase =
  /** No connection yet: not a byte was sent. */
  | 'connecting'
  /** Some or all of the request was sent, nothing of the answer has come. */
  | 'sent'
  /** The answer had begun. */
  | 'answering';

export type Failure =
  | { readonly kind: 'network'; readonly phase: Phase }
  | { readonly kind: 'answer'; readonly status: number; readonly code: number | undefined; readonly text: string };

/**
 * ClickHouse's codes, by name in its `ErrorCodes.cpp`. HTTP's status says little: 500 stands for transient, poison and
 * fatal ones alike, and 200 is possible too.
 */
const byCode: ReadonlyMap<number, Verdict> = new Map<number, Verdict>([
  // The server has thrown the insert away as a whole, before or instead of writing.
  [3, 'retriable'], // UNEXPECTED_END_OF_FILE: the body was cut
  [33, 'retriable'], // CANNOT_READ_ALL_DATA: the body was cut
  [202, 'retriable'], // TOO_MANY_SIMULTANEOUS_QUERIES
  [203, 'retriable'], // NO_FREE_CONNECTION
  [252, 'retriable'], // TOO_MANY_PARTS; "too many partitions" is told apart below
  [285, 'retriable'], // TOO_FEW_LIVE_REPLICAS
  [745, 'retriable'], // SERVER_OVERLOADED
  // What became of the insert is not known, or an earlier attempt is still at it.
  [159, 'in-doubt'], // TIMEOUT_EXCEEDED
  [209, 'in-doubt'], // SOCKET_TIMEOUT
  [210, 'in-doubt'], // NETWORK_ERROR
  [216, 'in-doubt'], // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: the earlier attempt goes on
  [225, 'in-doubt'], // NO_ZOOKEEPER
  [236, 'in-doubt'], // ABORTED
  [241, 'in-doubt'], // MEMORY_LIMIT_EXCEEDED: of several ClickHouse partitions some may have been written
  [242, 'in-doubt'], // TABLE_IS_READ_ONLY: Keeper is away; the same
  [243, 'in-doubt'], // NOT_ENOUGH_SPACE; the same
  [286, 'in-doubt'], // UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
  [319, 'in-doubt'], // UNKNOWN_STATUS_OF_INSERT
  [384, 'in-doubt'], // PART_IS_TEMPORARILY_LOCKED
  [394, 'in-doubt'], // QUERY_WAS_CANCELLED
  [395, 'in-doubt'], // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: a view threw, the table's own rows have landed
  [425, 'in-doubt'], // SYSTEM_ERROR
  [439, 'in-doubt'], // CANNOT_SCHEDULE_TASK
  [473, 'in-doubt'], // DEADLOCK_AVOIDED
  [733, 'in-doubt'], // TABLE_IS_BEING_RESTARTED
  [735, 'in-doubt'], // QUERY_WAS_CANCELLED_BY_CLIENT
  [999, 'in-doubt'], // KEEPER_EXCEPTION
  [1000, 'in-doubt'], // POCO_EXCEPTION
  [1001, 'in-doubt'], // STD_EXCEPTION
  [1002, 'in-doubt'], // UNKNOWN_EXCEPTION
  // Codes that a record causes, also where the server does not tell the row.
  [6, 'poison'], // CANNOT_PARSE_TEXT
  [25, 'poison'], // CANNOT_PARSE_ESCAPE_SEQUENCE
  [26, 'poison'], // CANNOT_PARSE_QUOTED_STRING
  [27, 'poison'], // CANNOT_PARSE_INPUT_ASSERTION_FAILED
  [38, 'poison'], // CANNOT_PARSE_DATE
  [41, 'poison'], // CANNOT_PARSE_DATETIME
  [69, 'poison'], // ARGUMENT_OUT_OF_BOUND
  [70, 'poison'], // CANNOT_CONVERT_TYPE
  [72, 'poison'], // CANNOT_PARSE_NUMBER
  [117, 'poison'], // INCORRECT_DATA
  [130, 'poison'], // CANNOT_READ_ARRAY_FROM_TEXT
  [131, 'poison'], // TOO_LARGE_STRING_SIZE
  [153, 'poison'], // ILLEGAL_DIVISION
  [321, 'poison'], // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
  [349, 'poison'], // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
  [376, 'poison'], // CANNOT_PARSE_UUID
  [407, 'poison'], // DECIMAL_OVERFLOW
  [441, 'poison'], // CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
  [467, 'poison'], // CANNOT_PARSE_BOOL
  [469, 'poison'], // VIOLATED_CONSTRAINT
  [675, 'poison'], // CANNOT_PARSE_IPV4
  [676, 'poison'], // CANNOT_PARSE_IPV6
  [691, 'poison'], // UNKNOWN_ELEMENT_OF_ENUM
  // The table is not what it was, or not there.
  [8, 'schema'], // THERE_IS_NO_COLUMN
  [10, 'schema'], // NOT_FOUND_COLUMN_IN_BLOCK
  [16, 'schema'], // NO_SUCH_COLUMN_IN_TABLE
  [20, 'schema'], // NUMBER_OF_COLUMNS_DOESNT_MATCH
  [44, 'schema'], // ILLEGAL_COLUMN
  [47, 'schema'], // UNKNOWN_IDENTIFIER
  [50, 'schema'], // UNKNOWN_TYPE
  [53, 'schema'], // TYPE_MISMATCH
  [60, 'schema'], // UNKNOWN_TABLE
  [81, 'schema'], // UNKNOWN_DATABASE
  [218, 'schema'], // TABLE_IS_DROPPED
]);

/** What a proxy or a load balancer answers without having asked ClickHouse, or without knowing what it did. */
const byStatus: ReadonlyMap<number, Verdict> = new Map<number, Verdict>([
  [408, 'in-doubt'],
  [425, 'in-doubt'],
  [429, 'in-doubt'],
  [500, 'in-doubt'],
  [502, 'in-doubt'],
  [503, 'in-doubt'],
  [504, 'in-doubt'],
]);

export function classify(failure: Failure): Verdict {
  if (failure.kind === 'network') return failure.phase === 'connecting' ? 'retriable' : 'in-doubt';
  const { status, code, text } = failure;
  // An answer that is neither an error nor the empty body of a finished insert proves nothing.
  if (code === undefined) return byStatus.get(status) ?? (status >= 200 && status < 300 ? 'in-doubt' : 'fatal');
  // The table's own rows have landed by then, those of some views have not.
  if (failedInView(text)) return 'in-doubt';
  if (code === 252 && /too many partitions/i.test(text)) return 'fatal';
  const known = byCode.get(code);
  // "(at row N)" proves that the server was still parsing: with the batch as one block nothing has landed.
  if (known !== 'in-doubt' && rowAtFault(code, text) !== undefined) return 'poison';
  return known ?? 'fatal';
}

/** Did a materialized view fail? A record's own text may say so too, but only ahead of the row number. */
export function failedInView(text: string): boolean {
  const view = text.lastIndexOf('while pushing to view');
  return view >= 0 && view > text.lastIndexOf('(at row ');
}

/**
 * The row the server blames, counted from 1; undefined when it does not say. The text quotes the record, which may
 * hold the very words: the server's own stand behind the quotation, except for a constraint's, which stand before it.
 */
export function rowAtFault(code: number | undefined, text: string): number | undefined {
  const constraint = code === 469 ? /is violated at row (\d+)/.exec(text)?.[1] : undefined;
  const row = constraint ?? [...text.matchAll(/\(at row (\d+)\)/g)].at(-1)?.[1];
  return row === undefined ? undefined : Number(row);
}

const REASON_HEAD = 160;
const REASON_TAIL = 200;

/**
 * The server's reason for people: its first line, without the code, the version, the row number (the record is named
 * by its offset instead) and the stack. What it quotes of the record is cut in the middle.
 */
export function serverReason(text: string): string {
  const line = text.trimStart().split('\n', 1)[0] ?? '';
  const bare = line
    .replace(/^Code: \d+\. /, '')
    .replace(/^DB::\w*Exception: /, '')
    .replace(/ \(version [^)]*(\([^)]*\))?\)\s*$/, '')
    .replace(/:? \(at row \d+\)$/, '')
    .trim();
  if (bare.length <= REASON_HEAD + REASON_TAIL) return bare;
  return `${bare.slice(0, REASON_HEAD)} … ${bare.slice(-REASON_TAIL)}`;
}
