/**
 * What a failed insert means. Pure; every rule is a line in a table, and a text decides only by the server's own
 * words (server-words.ts).
 *
 * - `retriable`: nothing of it landed; the same bytes may be sent again.
 * - `in-doubt`: it may have landed, may land later, or has landed in part; only ever the same bytes with the same
 *   token.
 * - `unknown`: as `in-doubt`, and it may be for ever: nobody knows whether a record, the table or the moment is
 *   refused.
 * - `poison`: a record of the batch cannot be inserted.
 * - `too-large`: the batch is refused for what it is as a whole; fewer records pass.
 * - `schema`: the table does not fit.
 * - `fatal`: the server refuses, and goes on refusing until somebody changes rights or settings.
 * Imports: nothing.
 */
import { serverWords } from './server-words.js';

export type ErrorClass = 'retriable' | 'in-doubt' | 'unknown' | 'poison' | 'too-large' | 'schema' | 'fatal';

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
 * ClickHouse's codes (`ErrorCodes.cpp`, 26.7). A code that is not here is `unknown`. HTTP's status says little: 500
 * stands for transient, poison and fatal ones alike, and 200 is possible too.
 */
const codes: Readonly<Record<Exclude<ErrorClass, 'unknown'>, readonly number[]>> = {
  // The server has thrown the insert away as a whole, before or instead of writing.
  retriable: [
    3,
    33, // UNEXPECTED_END_OF_FILE, CANNOT_READ_ALL_DATA: the body was cut
    60,
    81,
    218, // UNKNOWN_TABLE, UNKNOWN_DATABASE, TABLE_IS_DROPPED: renamed away, not loaded yet, being exchanged
    201,
    202,
    203, // QUOTA_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, NO_FREE_CONNECTION
    252, // TOO_MANY_PARTS; "too many partitions" is told apart below
    285, // TOO_FEW_LIVE_REPLICAS
    364, // RECEIVED_ERROR_TOO_MANY_REQUESTS
    372,
    373, // SESSION_NOT_FOUND, SESSION_IS_LOCKED
    667,
    694,
    695,
    696,
    722, // NOT_INITIALIZED, ASYNC_LOAD_…: the server is still starting
    692, // TOO_MANY_MUTATIONS
    700,
    745,
    749,
    762,
    763,
    // USER_SESSION_LIMIT_EXCEEDED, SERVER_OVERLOADED, …_CONNECTION_LIMIT…, SESSION_REFUSED, RESOURCE_LIMIT_EXCEEDED
    776,
  ],
  // What became of the insert is not known, or an earlier attempt is still at it.
  'in-doubt': [
    23,
    24,
    74,
    75,
    76,
    77,
    87,
    88,
    95,
    96,
    107,
    172,
    204,
    214,
    294,
    400,
    425,
    586,
    641,
    662, // files, disks, sockets of the server
    159,
    160,
    209,
    210,
    236,
    394,
    677,
    735, // TIMEOUT_EXCEEDED, TOO_SLOW, SOCKET_TIMEOUT, NETWORK_ERROR, ABORTED, …_CANCELLED
    173,
    241,
    777,
    778, // memory: of several ClickHouse partitions some may have been written
    198,
    279,
    410, // DNS_ERROR, ALL_CONNECTION_TRIES_FAILED, EXTERNAL_SERVER_IS_NOT_RESPONDING
    216, // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: the earlier attempt goes on
    224,
    225,
    242,
    244,
    254,
    265,
    286,
    319,
    416,
    568,
    904,
    999, // Keeper, replicas, quorums; 319: UNKNOWN_STATUS_OF_INSERT
    243, // NOT_ENOUGH_SPACE
    384,
    733,
    738, // PART_IS_TEMPORARILY_LOCKED, TABLE_IS_BEING_RESTARTED, PART_IS_LOCKED
    439,
    473, // CANNOT_SCHEDULE_TASK, DEADLOCK_AVOIDED
    499,
    500,
    660,
    693,
    707,
    737,
    771,
    900,
    901,
    903, // S3, Azure, HDFS, AWS, Google, caches
    710, // FAULT_INJECTED
    1000,
    1001,
    1002, // POCO_EXCEPTION, STD_EXCEPTION, UNKNOWN_EXCEPTION
  ],
  // Codes that a record causes, also where the server does not tell the row.
  poison: [
    6,
    25,
    26,
    27,
    38,
    41,
    70,
    72,
    117,
    130,
    376,
    441,
    467,
    563,
    675,
    676,
    691, // it cannot be parsed
    9,
    13,
    19,
    190,
    366,
    645, // sizes that do not match: of arrays, of a Nested, of a FixedString
    11,
    12,
    69,
    135,
    153,
    321,
    407, // POSITION_…, PARAMETER_…, ARGUMENT_OUT_OF_BOUND, ZERO_ARRAY_OR_TUPLE_INDEX, ILLEGAL_DIVISION, …
    128,
    131,
    306, // TOO_LARGE_ARRAY_SIZE, TOO_LARGE_STRING_SIZE, TOO_DEEP_RECURSION
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    395, // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO; in a view it is told apart below
    427,
    490,
    621,
    632,
    // CANNOT_COMPILE_REGEXP, CANNOT_FORMAT_DATETIME, CANNOT_NORMALIZE_STRING, UNEXPECTED_DATA_AFTER_PARSED_VALUE,
    // UNICODE_ERROR
    760,
    469, // VIOLATED_CONSTRAINT
  ],
  'too-large': [565], // TOO_MANY_PARTITIONS
  // The table is not what it was.
  schema: [
    7,
    8,
    10,
    15,
    16,
    20,
    44,
    47,
    50,
    53,
    122,
    352,
    370,
    386,
    772, // columns and types
    741, // TABLE_UUID_MISMATCH
  ],
  // Rights, settings, the request itself.
  fatal: [
    48,
    62,
    73,
    80,
    115,
    344,
    392,
    397,
    456,
    457,
    471,
    620,
    764, // NOT_IMPLEMENTED, SYNTAX_ERROR, UNKNOWN_FORMAT, UNKNOWN_SETTING, …
    164,
    452,
    472,
    774, // READONLY, SETTING_CONSTRAINT_VIOLATION, READONLY_SETTING, TABLE_IS_PERMANENTLY_READ_ONLY
    180,
    192,
    193,
    194,
    195,
    291,
    481,
    495,
    497,
    516,
    720,
    767, // users, passwords, rights
    759, // LICENSING_EXCEPTION
  ],
};

const byCode: ReadonlyMap<number, ErrorClass> = new Map(
  (Object.entries(codes) as [ErrorClass, readonly number[]][]).flatMap(([verdict, all]) =>
    all.map((code) => [code, verdict] as const),
  ),
);

/** A proxy's word against what the request is; any other status may pass, or may have been passed on. */
const refusesRequest = new Set([400, 411, 413, 414, 422, 431]);

export function classifyError(failure: Failure): ErrorClass {
  if (failure.kind === 'network') return failure.phase === 'connecting' ? 'retriable' : 'in-doubt';
  const { status, code, text } = failure;
  // A proxy or a load balancer, which may or may not have asked ClickHouse. A success is ClickHouse's own, or it is
  // none.
  if (code === undefined) return refusesRequest.has(status) ? 'unknown' : 'in-doubt';
  const { row, isFromView, isFromExpression, isFromValue, isFromHeader } = serverWords(code, text);
  // The table's own rows have landed by then, those of some views have not.
  if (isFromView) return 'in-doubt';
  if (code === 252 && /^(?:Code: 252\. DB::Exception: )?Too many partitions/.test(text)) return 'too-large';
  const known = byCode.get(code) ?? 'unknown';
  if (known === 'in-doubt' || known === 'retriable')
    return known === 'retriable' && row !== undefined ? 'poison' : known;
  if (isFromHeader) return 'schema';
  // A row, or a field, proves that the server was still parsing: with the batch as one block nothing has landed. In an
  // expression every code may be a record's, as the type of what is in a Dynamic.
  return row !== undefined || isFromValue || isFromExpression ? 'poison' : known;
}

/** Did a materialized view fail? */
export function failedInView(code: number | undefined, text: string): boolean {
  return serverWords(code, text).isFromView;
}

/** The row the server blames, counted from 1; undefined when it does not say. */
export function rowAtFault(code: number | undefined, text: string): number | undefined {
  return serverWords(code, text).row;
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
