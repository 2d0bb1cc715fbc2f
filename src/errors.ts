/**
 * The one error class and the one table of its codes.
 * Every message says what happened, where (topic, partition, offsets) and what to do about it. Imports: nothing.
 */

/**
 * What can go wrong. `retryable`: the same call may succeed later. `exitCode`: what the program ends with when this
 * is the reason it stops.
 */
export const errorCodes = {
  KCR_CONFIG: { retryable: false, exitCode: 2, means: 'the configuration cannot be used as it stands' },
  KCR_PREFLIGHT: { retryable: false, exitCode: 3, means: 'a check before the start refused; no record was taken' },
  KCR_KAFKA_UNREACHABLE: { retryable: true, exitCode: 3, means: 'no Kafka broker answers' },
  KCR_TOPIC_MISSING: { retryable: false, exitCode: 3, means: 'the topic does not exist' },
  KCR_KAFKA: { retryable: false, exitCode: 5, means: 'Kafka refused something that a retry does not mend' },
  KCR_CORRUPT_BATCH: {
    retryable: false,
    exitCode: 5,
    means: 'a record batch in the log is damaged, or says what cannot be',
  },
  KCR_KAFKAJS_HOOKS: { retryable: false, exitCode: 3, means: 'the hooks into kafkajs did not take hold' },
  KCR_CLICKHOUSE_UNREACHABLE: { retryable: true, exitCode: 3, means: 'ClickHouse does not answer' },
  KCR_TABLE_MISSING: { retryable: false, exitCode: 3, means: 'the table or its database does not exist' },
  KCR_TABLE_UNSUITABLE: { retryable: false, exitCode: 3, means: 'the table cannot keep exactly-once' },
  KCR_DEDUP_WINDOW: { retryable: false, exitCode: 3, means: 'the deduplication window of the table is too small' },
  KCR_INSERT_RETRIABLE: { retryable: true, exitCode: 5, means: 'the insert failed and nothing of it landed' },
  KCR_INSERT_IN_DOUBT: { retryable: true, exitCode: 5, means: 'the insert may or may not have landed' },
  KCR_INSERT_FATAL: {
    retryable: false,
    exitCode: 5,
    means: 'ClickHouse refuses the insert and will go on refusing it',
  },
  KCR_SCHEMA: { retryable: false, exitCode: 5, means: 'the table does not fit the rows' },
  KCR_POISON: { retryable: false, exitCode: 4, means: 'a record cannot be inserted' },
  KCR_TRANSFORM: {
    retryable: false,
    exitCode: 4,
    means:
      'a transform or another operator of yours threw, dropped a batch or changed its range, or is another one ' +
      'than a range in doubt was recorded for',
  },
  KCR_READ_BACK: { retryable: false, exitCode: 5, means: 'a range in doubt could not be verified' },
  KCR_ROW_COUNT: { retryable: false, exitCode: 5, means: 'ClickHouse read another number of rows than was sent' },
  KCR_STORE_UNREACHABLE: { retryable: true, exitCode: 3, means: 'the state store does not answer' },
  KCR_STORE: { retryable: false, exitCode: 5, means: 'the state store refused' },
  KCR_STATE_INVALID: { retryable: false, exitCode: 5, means: 'a stored state is not one this version understands' },
  KCR_STATE_BEHIND: {
    retryable: false,
    exitCode: 5,
    means: 'the group has committed more than the stored state tells of',
  },
  KCR_FENCED: { retryable: false, exitCode: 6, means: 'another process has taken the partition over' },
  KCR_OFFSET_GAP: { retryable: false, exitCode: 5, means: 'records that were expected are not in the log any more' },
  KCR_TOPIC_RESET: {
    retryable: false,
    exitCode: 5,
    means: 'the topic was recreated or truncated: offsets do not mean what they meant',
  },
  KCR_OFFSET_RANGE: { retryable: false, exitCode: 5, means: 'an offset is outside of what the log holds' },
  KCR_DRAIN_TIMEOUT: { retryable: false, exitCode: 7, means: 'the drain did not end in time' },
  KCR_INTERNAL: { retryable: false, exitCode: 1, means: 'a defect of this program' },
} as const;

/**
 * Whoever changes rights, settings, a table or a server mends these from outside, without a restart of this program.
 */
const mendedFromOutside: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'KCR_PREFLIGHT',
  'KCR_CLICKHOUSE_UNREACHABLE',
  'KCR_TABLE_MISSING',
  'KCR_INSERT_RETRIABLE',
  'KCR_INSERT_IN_DOUBT',
  'KCR_INSERT_FATAL',
  'KCR_SCHEMA',
  'KCR_STORE_UNREACHABLE',
  'KCR_STORE',
]);

/** May the same succeed later, when somebody has mended what is wrong? Of a record, or of rows in the table, never. */
export function mayHeal({ code }: { readonly code: ErrorCode }): boolean {
  return mendedFromOutside.has(code);
}

/** A key of `errorCodes`. Codes are stable: none changes its meaning. */
export type ErrorCode = keyof typeof errorCodes;

/** A batch that is more than one block. */
export interface Oversized {
  /** Offsets behind which it is cut: each part but the last fits for sure. At least one. */
  readonly cuts: readonly number[];
  /** For how long an attempt at the whole may still land, milliseconds; undefined: none was ever sent. */
  readonly mayLandForMs: number | undefined;
}

/** Where it happened, and what is known about it. */
export interface ErrorFields {
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
  /** The record at fault. */
  readonly offset?: number | undefined;
  /** The range at fault, both ends included. */
  readonly first?: number | undefined;
  readonly last?: number | undefined;
  readonly table?: string | undefined;
  /** The server's own error code, when it gave one. */
  readonly serverCode?: string | number | undefined;
  /**
   * Of an insert: for how long from now on the table may show rows, or duplicates, that will disappear, milliseconds.
   * The pipeline stores it with the range, so that the next owner waits, too.
   */
  readonly unknownForMs?: number | undefined;
  /**
   * ClickHouse refused a batch as a whole, and named no record: fewer of its records may pass. `surely`: it depends on
   * the records; `perhaps`: that is not known.
   */
  readonly divisible?: 'surely' | 'perhaps' | undefined;
  /** The batch is not sent as it is, but in parts it can be. */
  readonly oversized?: Oversized | undefined;
  /** Refused as it was, some of its rows may be in the table. */
  readonly mayHaveLanded?: boolean | undefined;
  /** What to do about it, one sentence or a statement to run. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/** The only error class of this library. `code` is stable; `message` is for people. */
export class IngestError extends Error {
  override readonly name = 'IngestError';
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly fields: ErrorFields;
  /** What happened, without where: for an error that says more of the same place. */
  readonly reason: string;
  /** The message without what to do about it. */
  readonly detail: string;

  constructor(code: ErrorCode, reason: string, fields: ErrorFields = {}) {
    const detail = describe(reason, fields);
    super(
      fields.hint === undefined ? detail : `${detail}. What to do: ${fields.hint}`,
      fields.cause === undefined ? undefined : { cause: fields.cause },
    );
    this.code = code;
    this.reason = reason;
    this.detail = detail;
    this.retryable = errorCodes[code].retryable;
    this.fields = fields;
  }

  /** The same error, of which more is known. */
  with(fields: ErrorFields): IngestError {
    return new IngestError(this.code, this.reason, { ...this.fields, cause: this.cause, ...fields });
  }
}

/** Anything thrown, as an IngestError: what is one stays as it is. */
export function asIngestError(
  thrown: unknown,
  code: ErrorCode,
  context: string,
  fields: ErrorFields = {},
): IngestError {
  if (thrown instanceof IngestError) return thrown;
  const reason = thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
  return new IngestError(code, `${context}: ${reason}`, { ...fields, cause: thrown });
}

/** Is it an `IngestError` with one of these codes? */
export function hasCode(thrown: unknown, ...codes: readonly ErrorCode[]): thrown is IngestError {
  return thrown instanceof IngestError && codes.includes(thrown.code);
}

function describe(reason: string, fields: ErrorFields): string {
  const where = [
    fields.topic === undefined ? '' : `topic ${fields.topic}`,
    fields.partition === undefined ? '' : `partition ${fields.partition}`,
    fields.offset === undefined ? '' : `offset ${fields.offset}`,
    fields.first === undefined || fields.last === undefined ? '' : `offsets ${fields.first}-${fields.last}`,
    fields.table === undefined ? '' : `table ${fields.table}`,
    fields.serverCode === undefined ? '' : `server code ${fields.serverCode}`,
  ].filter((part) => part !== '');
  const place = where.length === 0 ? '' : ` (${where.join(', ')})`;
  return `${reason}${place}`;
}
