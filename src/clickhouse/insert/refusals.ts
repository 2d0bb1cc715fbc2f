/**
 * What became of an insert that was not taken, as an error: a record's fault, the table's, the moment's, or not known.
 * Pure. Imports: clickhouse/client, clickhouse/verify, errors, model.
 */
import { IngestError } from '../../errors.js';
import type { Records } from '../../model/record.js';
import { classifyError, failedInView, rowAtFault, serverReason } from '../client/classify-error.js';
import type { Answer, ConnectionFailure } from '../client/answer.js';
import type { Where } from '../verify/look-errors.js';
import { fatalHint, foreignHint, poisonHint, retriableHint } from './refusal-hints.js';

export function brokenOff(failure: ConnectionFailure, where: Where): IngestError {
  const isInDoubt = classifyError({ kind: 'network', phase: failure.phase }) === 'in-doubt';
  return new IngestError(
    isInDoubt ? 'KCR_INSERT_IN_DOUBT' : 'KCR_INSERT_RETRIABLE',
    isInDoubt
      ? `the connection failed after the insert was sent: ${failure.message}`
      : `ClickHouse cannot be reached: ${failure.message}`,
    { ...where, hint: failure.hint, cause: failure },
  );
}

/** Did the server take the insert, as far as its answer tells? */
export function isTaken({ status, code, text, foreign }: Answer): boolean {
  return status === 200 && code === undefined && text === '' && foreign === undefined;
}

export interface Sent {
  readonly records: Records;
  readonly where: Where;
  /**
   * The table has a partition key: an expression may have failed while a part was written, and of the parts of other
   * ClickHouse partitions some are there.
   */
  readonly isInParts: boolean;
  /** For how long the server does not know what becomes of it. */
  readonly unknownForMs: number | undefined;
}

/** `answer`: one that does not say that the insert was taken. */
export function refusalOf(answer: Answer, sent: Sent): IngestError {
  const { status, code, text, foreign } = answer;
  const { where, isInParts, unknownForMs } = sent;
  if (status === 200 && code === undefined && text === '' && foreign !== undefined)
    return new IngestError('KCR_INSERT_IN_DOUBT', `answered 200, but ${foreign.why}`, { ...where, hint: foreign.hint });
  const reason = serverReason(text) || `HTTP status ${status} without a reason`;
  const fields = { ...where, serverCode: code ?? `HTTP ${status}`, unknownForMs };
  switch (classifyError({ kind: 'answer', status, code, text })) {
    case 'retriable':
      return new IngestError('KCR_INSERT_RETRIABLE', reason, { ...fields, hint: retriableHint(code) });
    case 'in-doubt': {
      const hint = failedInView(code, text)
        ? 'mend the materialized view; the same insert then completes it'
        : foreignHint(code);
      return new IngestError('KCR_INSERT_IN_DOUBT', reason, { ...fields, hint });
    }
    case 'unknown':
      return new IngestError('KCR_INSERT_IN_DOUBT', reason, {
        ...fields,
        divisible: 'perhaps',
        hint: foreignHint(code),
      });
    case 'schema':
      return new IngestError('KCR_SCHEMA', reason, {
        ...fields,
        hint: 'change the table or the route; nothing of the batch is lost',
        divisible: 'perhaps',
        mayHaveLanded: isInParts,
      });
    case 'too-large':
      return new IngestError('KCR_INSERT_FATAL', reason, { ...fields, hint: fatalHint(code), divisible: 'surely' });
    case 'fatal':
      return new IngestError('KCR_INSERT_FATAL', reason, { ...fields, hint: fatalHint(code) });
    case 'poison':
      return poisoned(answer, reason, sent);
  }
}

function poisoned({ code, text }: Answer, reason: string, { records, where, isInParts }: Sent): IngestError {
  const { topic, partition, first, last, table } = where;
  const row = rowAtFault(code, text);
  const offset = row === undefined || row < 1 ? undefined : records.at(row - 1)?.offset;
  const fields = { topic, partition, table, serverCode: code, hint: poisonHint(reason) };
  return new IngestError(
    'KCR_POISON',
    reason,
    offset === undefined
      ? { ...fields, first, last, divisible: 'surely', mayHaveLanded: isInParts }
      : { ...fields, offset },
  );
}
