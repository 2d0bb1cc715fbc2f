/**
 * A helper of insertDeduped: all that is decided about one range under one token, from the first attempt until the
 * range is known to be in the table. Pure: a state and what happened give the next state and what to do next.
 * `insert-verified.ts` does it.
 *
 * Attempts under the batch's token T may hang somewhere and land at any time, so nothing goes out under another token
 * while one of them could still add rows (I16). What that rests on: no attempt is on its way for longer than the table
 * remembers its token. A block is named by token and ClickHouse partition and is there or not as a whole. Hence the
 * order:
 *
 * | goal        | what is known                         | next                                                       |
 * | ----------- | ------------------------------------- | ---------------------------------------------------------- |
 * | insert      | the token tells                       | send all under T                                           |
 * |             | it does not, nothing was tried        | unsent: record the range again, a fenced write clears it   |
 * |             | it does not, an attempt may have landed | look                                                     |
 * |             | look: none is there                   | am I still the owner? then all under T                     |
 * |             | look: some are missing                | am I still the owner? then those under T                   |
 * |             | look: all there                       | inserted                                                   |
 * |             | look: some twice                      | halt                                                       |
 * |             | look: nothing proven, a fill was begun | halt: T and the fill may each have rows there             |
 * |             | answered, all, no attempt in doubt    | inserted                                                   |
 * |             | answered, a part, or one in doubt where the server may have lost rows | verify                     |
 * | verify      | look: all there                       | inserted                                                   |
 * |             | look: some missing                    | store that a fill begins, then fill                        |
 * |             | look: some missing, a fill is unseen  | halt                                                       |
 * | fill        | first time, or the token tells        | send what is missing under the fill's token                |
 * |             | it does not                           | look; am I still the owner? then what is still missing     |
 * |             | answered, or none is missing any more | verify fill                                                |
 * | verify fill | look: all there                       | inserted                                                   |
 * |             | look: some missing                    | store that the fill is unseen, then halt                   |
 * | absence     | looked                                | absent, or not                                             |
 * | any         | failed: nobody knows until when       | store until when, then as below                            |
 * |             | failed: may pass                      | wait, then the goal from its beginning                     |
 * |             | failed: final, or too often           | failed                                                     |
 *
 * A process that was frozen must not wake up and send what the server has forgotten it already has: so the token is
 * asked about before each attempt, and whoever sends after a look first writes to the state, which fails for a former
 * owner. Once a fill is begun whoever comes next goes on with the fill alone: it may hang, too, and T may be forgotten
 * by then. Imports: errors, ports.
 */
import type { IngestError } from '../../src/errors.js';
import type { InsertResult, ReadBack } from '../../src/ports.js';
import { doubledRows, invisibleFill, unprovenFill } from './doubt-errors.js';
import {
  ended,
  halted,
  looking,
  noting,
  sending,
  type Attempts,
  type Doubt,
  type Goal,
  type Happened,
  type InsertRange,
  type Move,
  type Step,
} from './doubt-steps.js';

/** Of what is final, as far as one answer tells: a gateway that is being changed gives such answers for a moment. */
const FEW_ATTEMPTS = 5;
/** Attempts after which a range that is still refused is told of again: with the longest wait every five minutes. */
const STUCK_EVERY = 30;
const nothing: InsertResult = { rows: 0, bytes: 0 };

/** The first move towards a goal; what was learnt on the way to the one before is kept. */
export function begin(goal: Goal, range: InsertRange, before: Pick<Attempts, 'doubt'> & Partial<Attempts>): Move {
  const attempts: Attempts = {
    wasTried: false,
    missing: [],
    isPartial: false,
    result: undefined,
    ...before,
    goal,
    failures: 0,
    fewLeft: FEW_ATTEMPTS,
    call: 'insert',
    why: undefined,
    stored: undefined,
  };
  return goal === 'fill' ? sending(attempts, { kind: 'fill', offsets: attempts.missing }) : restart(attempts, range);
}

/** What to do next. */
export function next(attempts: Attempts, happened: Happened, range: InsertRange): Move {
  switch (happened.kind) {
    case 'asked':
      return asked(attempts, happened.why, range);
    case 'looked':
      return looked(attempts, happened, range);
    case 'answered':
      return answered(attempts, happened, range);
    case 'noted':
      return noted(attempts, range);
    case 'waited':
      return restart(attempts, range);
    case 'failed':
      return failed(attempts, happened, range);
  }
}

/** The goal from its beginning. */
function restart(attempts: Attempts, { isUnseen }: InsertRange): Move {
  switch (attempts.goal) {
    case 'insert':
      return isUnseen
        ? looking(attempts, 'a fill of it was answered and not seen')
        : { attempts, step: { kind: 'ask' } };
    case 'fill':
      return { attempts, step: { kind: 'ask' } };
    case 'absence':
      return looking(attempts, 'a record of it is refused now');
    case 'verify':
    case 'verify fill':
      return looking(attempts, undefined);
  }
}

function asked(attempts: Attempts, why: string | undefined, range: InsertRange): Move {
  const isFill = attempts.goal === 'fill';
  if (why === undefined)
    return sending(attempts, isFill ? { kind: 'fill', offsets: attempts.missing } : { kind: 'send all' });
  if (!isFill && range.canRenew && !attempts.doubt.isInDoubt)
    return ended(attempts, { kind: 'unsent', wasTried: attempts.wasTried });
  return looking(attempts, why);
}

type Looked = Extract<Happened, { kind: 'looked' }>;

function looked(attempts: Attempts, happened: Looked, range: InsertRange): Move {
  switch (attempts.goal) {
    case 'insert':
      return lookedFirst(attempts, happened, range);
    case 'verify':
      return lookedAfter(attempts, happened.found, range);
    case 'fill':
      return lookedBeforeFill(attempts, happened.found, range);
    case 'verify fill':
      return lookedAfterFill(attempts, happened.found, range);
    case 'absence':
      return ended(attempts, { kind: 'looked', isAbsent: happened.isAbsent });
  }
}

/** What is there stays out of what is sent: the server may have forgotten the token for its ClickHouse partitions. */
function lookedFirst(attempts: Attempts, { found, isAbsent }: Looked, range: InsertRange): Move {
  const { missing, doubled } = found;
  const isBegun = range.isUnseen || range.isFilling;
  if (found.isUnproven === true && isBegun) return halted(attempts, unprovenFill(attempts.why ?? '', range.place));
  if (missing.length === 0 || doubled.length > 0 || isBegun) return lookedAfter(attempts, found, range);
  return asOwner(attempts, isAbsent ? { kind: 'send all' } : { kind: 'send missing', offsets: missing }, range);
}

/** After an attempt under the batch's token was answered, or where a fill was begun before. */
function lookedAfter(attempts: Attempts, { missing, doubled }: ReadBack, range: InsertRange): Move {
  if (doubled.length > 0) return halted(attempts, doubledRows('a doubtful insert', doubled, range.place));
  if (missing.length === 0) return ended(attempts, { kind: 'inserted', result: attempts.result ?? nothing });
  if (range.isUnseen) return halted(attempts, invisibleFill(missing, range.place));
  const fill = begin('fill', range, { ...attempts, missing });
  return range.isRecorded && !range.isFilling ? noting(fill.attempts, { isFilling: true }, fill.step) : fill;
}

function lookedBeforeFill(attempts: Attempts, found: ReadBack, range: InsertRange): Move {
  if (found.isUnproven === true) return halted(attempts, unprovenFill(attempts.why ?? '', range.place));
  if (found.missing.length === 0) return filled(attempts, nothing, range);
  return asOwner(attempts, { kind: 'fill', offsets: found.missing }, range);
}

function lookedAfterFill(attempts: Attempts, { missing, doubled }: ReadBack, range: InsertRange): Move {
  if (missing.length > 0) {
    const halt: Step = { kind: 'end', outcome: { kind: 'failed', error: invisibleFill(missing, range.place) } };
    // Stored before it is told: the next owner would fill again, and the one after it.
    return range.isRecorded ? noting(attempts, { isUnseen: true }, halt) : { attempts, step: halt };
  }
  if (doubled.length > 0) return halted(attempts, doubledRows('a fill', doubled, range.place));
  return ended(attempts, { kind: 'inserted', result: attempts.result ?? nothing });
}

function answered(
  attempts: Attempts,
  { result, mayBeLost }: Extract<Happened, { kind: 'answered' }>,
  range: InsertRange,
): Move {
  if (attempts.goal === 'fill') return filled(attempts, result, range);
  const mustLook = attempts.isPartial || (attempts.doubt.isInDoubt && mayBeLost);
  return mustLook ? begin('verify', range, { ...attempts, result }) : ended(attempts, { kind: 'inserted', result });
}

function filled(attempts: Attempts, result: InsertResult, range: InsertRange): Move {
  return begin('verify fill', range, { ...attempts, result: attempts.result ?? result });
}

/**
 * Whoever comes so late may have been frozen, and another owner have decided of the range meanwhile, for instance to
 * leave a record out. Only who may still write the state goes on; of what is not recorded nobody else decides.
 */
function asOwner(attempts: Attempts, step: Step, { isRecorded }: InsertRange): Move {
  return isRecorded ? noting(attempts, {}, step) : sending(attempts, step);
}

function noted(attempts: Attempts, range: InsertRange): Move {
  const { stored } = attempts;
  const then: Attempts = { ...attempts, stored: undefined };
  return stored === undefined ? restart(then, range) : sending(then, stored.then);
}

function failed(attempts: Attempts, { error, nowMs }: Extract<Happened, { kind: 'failed' }>, range: InsertRange): Move {
  const { stored } = attempts;
  const then: Attempts = { ...attempts, doubt: doubtAfter(attempts.doubt, error), stored: undefined };
  // What is to be stored before a fill is no call that is made again: the ledger has tried.
  if (stored?.fields.isFilling === true || stored?.fields.isUnseen === true) return halted(then, error);
  const move = again(then, error, range);
  const { unknownForMs } = error.fields;
  // Who dies now leaves the range to one who was not told, and would believe what the table shows.
  return unknownForMs === undefined || !range.isRecorded
    ? move
    : noting(move.attempts, { unknownUntilMs: nowMs + unknownForMs }, move.step);
}

function doubtAfter({ isInDoubt, isUnanswered }: Doubt, { code, fields }: IngestError): Doubt {
  const isLost = code === 'KCR_INSERT_IN_DOUBT';
  return {
    // Also of what was refused: blocks of other ClickHouse partitions may be there.
    isInDoubt: isInDoubt || isLost || fields.mayHaveLanded === true,
    isUnanswered: isUnanswered || (isLost && fields.divisible === undefined),
  };
}

function again(attempts: Attempts, error: IngestError, range: InsertRange): Move {
  const { isPatient, abandons, maxAttempts } = range;
  const failures = attempts.failures + 1;
  const { divisible } = error.fields;
  const isPassing = error.retryable && (isPatient || divisible === undefined);
  const fewLeft = attempts.fewLeft - (isPassing ? 0 : 1);
  const then: Attempts = { ...attempts, failures, fewLeft };
  const isOver =
    (abandons && error.code === 'KCR_INSERT_IN_DOUBT') || (!error.retryable && !mayPass(error)) || fewLeft === 0;
  if (isOver || failures >= maxAttempts) return halted(then, error);
  const isStuck = isPatient && divisible === 'perhaps' && failures % STUCK_EVERY === FEW_ATTEMPTS;
  return { attempts: then, step: { kind: 'wait', attempt: failures, call: attempts.call, error, isStuck } };
}

/** Nothing landed, and rights, settings and tables change. A record does not. */
function mayPass({ code, fields }: IngestError): boolean {
  return (
    (code === 'KCR_INSERT_FATAL' ||
      code === 'KCR_SCHEMA' ||
      code === 'KCR_TABLE_MISSING' ||
      code === 'KCR_PREFLIGHT') &&
    fields.divisible !== 'surely'
  );
}
