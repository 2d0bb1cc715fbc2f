/**
 * A helper of insertDeduped: what is done about a batch that was refused. Pure. `doubt.ts` has decided before that
 * trying the same again is of no use.
 *
 * | the error                                | then                                                               |
 * | ---------------------------------------- | ------------------------------------------------------------------ |
 * | the batch is more than one block         | cut: recorded again in parts that fit                              |
 * | names no record, fewer of them may pass  | search: inserted in parts until the record is found                |
 * | names a record, and the policy allows it | leave out: recorded without it, then inserted under its own token  |
 * | may have landed, at-most-once            | none: the batch is abandoned                                       |
 * | any other                                | none: the partition halts                                          |
 * Imports: errors.
 */
import { hasCode, IngestError } from '../../src/errors.js';
import type { Doubt } from './doubt-steps.js';

export type Remedy = 'cut' | 'search' | 'leave out' | 'none';

export interface Remedies {
  readonly onPoison: 'halt' | 'exclude';
  /** Whatever is changed about its range can be recorded, or nothing of it is. */
  readonly canRecord: boolean;
  /** To look for a record was in vain. */
  readonly isPatient: boolean;
  /** At-most-once: what may have landed is not touched again. */
  readonly abandons: boolean;
}

export function remedyFor(error: IngestError, { onPoison, canRecord, isPatient, abandons }: Remedies): Remedy {
  const { oversized, divisible } = error.fields;
  if (abandons && error.code === 'KCR_INSERT_IN_DOUBT') return 'none';
  if (oversized !== undefined && canRecord) return 'cut';
  if (divisible !== undefined) return canRecord && !isPatient ? 'search' : 'none';
  return onPoison === 'exclude' && hasCode(error, 'KCR_POISON') ? 'leave out' : 'none';
}

/** Most records of one batch that are left out, and those of a batch of any size. */
const MOST_EXCLUDED = 100;
const FEW_EXCLUDED = 10;

/** How many records of a batch may still be left out. */
export function exclusionsOf(records: number, excludedBefore: number): number {
  const most = Math.max(FEW_EXCLUDED, Math.floor((records + excludedBefore) / 2));
  return Math.min(MOST_EXCLUDED, most) - excludedBefore;
}

export interface Excludable {
  /** The error names a record of the batch. */
  readonly isNamed: boolean;
  readonly canRecord: boolean;
  readonly left: number;
}

/** Why the record is not left out, although the policy says so; undefined: it is. */
export function whyKept({ isNamed, canRecord, left }: Excludable): string | undefined {
  if (!isNamed) return 'the error does not name the record';
  if (!canRecord) return 'the batch came without the ledger that recorded its range';
  if (left > 0) return undefined;
  return (
    `too many others of its batch were left out already (at most ${MOST_EXCLUDED}, and half of a batch of ` +
    `more than ${2 * FEW_EXCLUDED}): the table or the topic is wrong, not a record`
  );
}

/** Poison that is not left out, although the policy says so. */
export function kept(error: IngestError, why: string): IngestError {
  return new IngestError('KCR_POISON', `${error.reason}; the record is not left out, since ${why}`, {
    ...error.fields,
    hint:
      error.fields.hint ??
      'mend the table, or drop such records with a transform; the range is still recorded as in doubt',
    cause: error,
  });
}

/** What was said of a batch, and what is known of the attempts at it. */
export interface Refusal {
  readonly error: IngestError;
  readonly doubt: Doubt;
}

/**
 * May rows of the batch go out under other tokens? `patiently`: no, it is tried as it is until it is taken.
 *
 * Only when nothing of it is in the table, and nothing can come. An attempt on its way is refused, too, where a record
 * is to blame. Where the moment may be, it may be taken: then every attempt must have been answered (I16), and of those
 * of an earlier owner nobody knows that.
 */
export function mayDivide({ error, doubt }: Refusal, isRecorded: boolean): 'yes' | 'look' | 'patiently' {
  if (!doubt.isInDoubt && error.fields.mayHaveLanded !== true) return 'yes';
  // Without a recorded range it may be there twice: at-least-once.
  return !isRecordToBlame(error) && doubt.isUnanswered && isRecorded ? 'patiently' : 'look';
}

/** As `mayDivide`, after a look. */
export function mayDivideSeen({ error }: Refusal, isAbsent: boolean): 'yes' | 'patiently' | 'halt' {
  if (isAbsent) return 'yes';
  return isRecordToBlame(error) ? 'halt' : 'patiently';
}

function isRecordToBlame({ fields }: IngestError): boolean {
  return fields.divisible !== 'perhaps';
}

/** Rows of it are there, and a record of it is to blame. */
export function partlyThere(error: IngestError): IngestError {
  return new IngestError(
    error.code,
    `${error.reason}; the record at fault is not looked for, since rows of its range are in the table`,
    { ...error.fields, cause: error },
  );
}
