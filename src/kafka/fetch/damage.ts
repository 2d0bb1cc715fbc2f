/**
 * What is said of a record batch that cannot be believed. Values only; what is done about it is reading.ts.
 * Imports: errors.
 */
import { IngestError, type ErrorCode } from '../../errors.js';

/** Thrown while a batch is taken apart, caught by the reader: never leaves it. */
export class BadBatch extends Error {
  override readonly name = 'BadBatch';
  readonly code: DamageCode;
  readonly hint: string | undefined;

  constructor(why: string, { code = 'KCR_CORRUPT_BATCH', hint }: { code?: DamageCode; hint?: string } = {}) {
    super(why);
    this.code = code;
    this.hint = hint;
  }
}

export type DamageCode = Extract<ErrorCode, 'KCR_CORRUPT_BATCH' | 'KCR_KAFKA' | 'KCR_OFFSET_RANGE'>;

export interface Damage {
  readonly code: DamageCode;
  /** One clause, as "its CRC-32C is …, its bytes give …". */
  readonly why: string;
  /** As the batch says it; not covered by its checksum. */
  readonly baseOffset: number;
  /** The offsets the batch surely covers, from the first that is wanted; undefined: they cannot be believed. */
  readonly bounds: { readonly first: number; readonly last: number; readonly records: number } | undefined;
  readonly hint: string | undefined;
}

export function damageError(
  { code, why, baseOffset, bounds, hint }: Damage,
  { topic, partition }: { readonly topic: string; readonly partition: number },
): IngestError {
  const where = bounds === undefined ? { offset: baseOffset } : { first: bounds.first, last: bounds.last };
  return new IngestError(code, `The record batch at base offset ${baseOffset} cannot be read: ${why}`, {
    topic,
    partition,
    ...where,
    hint: hint ?? hintOf(baseOffset, bounds?.last),
  });
}

/** The first batch of an answer is whole, however large it is: what it says of its length is wrong. */
export function damageOfCut(
  cut: { readonly baseOffset: number; readonly says: number; readonly came: number } | undefined,
): Damage | undefined {
  if (cut === undefined) return undefined;
  const { baseOffset, says, came } = cut;
  return {
    code: 'KCR_CORRUPT_BATCH',
    why: `it says it has ${says} bytes, and ${came} came`,
    baseOffset,
    bounds: undefined,
    hint: undefined,
  };
}

function hintOf(baseOffset: number, last: number | undefined): string {
  const look =
    'look at it with kafka-dump-log.sh --deep-iteration --files <the newest segment whose name is not ' +
    `above ${baseOffset}>.log, on the leader and on a replica`;
  const skip =
    last === undefined
      ? 'to go on without it set the group, or the state, to an offset behind it'
      : `to go on without it set kafka.onCorruptBatch to "skip", or the group's offset to ${last + 1}`;
  return `${look}; ${skip}`;
}
