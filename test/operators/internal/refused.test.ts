// What is done about a batch that was refused. The names say what would be lost without it.
import { describe, expect, test } from 'vitest';
import {
  exclusionsOf,
  mayDivide,
  mayDivideSeen,
  remedyFor,
  whyKept,
  type Remedies,
} from '../../../operators/internal/refused.js';
import { IngestError, type ErrorCode, type ErrorFields } from '../../../src/errors.js';

const error = (code: ErrorCode, fields: ErrorFields = {}) => new IngestError(code, 'because', fields);
const excluding: Remedies = { onPoison: 'exclude', canRecord: true, isPatient: false, abandons: false };
const poison = error('KCR_POISON', { offset: 11 });
const unnamed = error('KCR_POISON', { divisible: 'surely' });
const perhaps = error('KCR_INSERT_IN_DOUBT', { divisible: 'perhaps' });
const large = error('KCR_CONFIG', { oversized: { cuts: [10], mayLandForMs: undefined } });

describe('the remedy', () => {
  test.each([
    ['a batch for one record: it is left out', poison, {}, 'leave out'],
    ['a record that nobody wants to lose: halt', poison, { onPoison: 'halt' }, 'none'],
    ['a batch for a record that is not named: it is looked for', unnamed, {}, 'search'],
    ['also where poison halts: the error is to name it', unnamed, { onPoison: 'halt' }, 'search'],
    ['rows twice: no parts where they cannot be recorded', unnamed, { canRecord: false }, 'none'],
    ['a search without end: none after one in vain', unnamed, { isPatient: true }, 'none'],
    ['a range that fits no block for ever: it is cut', large, {}, 'cut'],
    ['rows twice: not where the parts cannot be recorded', large, { canRecord: false }, 'none'],
    ['rows twice: at-most-once touches nothing that may have landed', perhaps, { abandons: true }, 'none'],
    ['a refusal is none of that', unnamed, { abandons: true }, 'search'],
    ['what is no record’s fault leaves none out', error('KCR_INSERT_FATAL'), {}, 'none'],
  ] as const)('%s', (_name, refused, changed, remedy) => {
    expect(remedyFor(refused, { ...excluding, ...changed })).toBe(remedy);
  });
});

describe('a record is left out', () => {
  test.each([
    ['while it is named, recorded, and few were before', {}, undefined],
    ['but not an unknown one', { isNamed: false }, 'does not name the record'],
    ['but not where the range would be another one than was recorded', { canRecord: false }, 'without the ledger'],
    ['but not when the table is wrong rather than a record', { left: 0 }, 'too many others'],
  ] as const)('%s', (_name, changed, why) => {
    const kept = whyKept({ isNamed: true, canRecord: true, left: 1, ...changed });
    if (why === undefined) expect(kept).toBeUndefined();
    else expect(kept).toContain(why);
  });

  test.each([
    [1, 0, 10],
    [20, 0, 10],
    [60, 0, 30],
    [1000, 0, 100],
    [5, 5, 5],
    [900, 100, 0],
  ])('%i records, %i left out before: %i more', (records, before, left) => {
    expect(exclusionsOf(records, before)).toBe(left);
  });
});

describe('I16: rows of a batch go out under other tokens', () => {
  const answered = { isInDoubt: true, isUnanswered: false };
  const unanswered = { isInDoubt: true, isUnanswered: true };
  const clear = { isInDoubt: false, isUnanswered: false };
  const part = error('KCR_POISON', { divisible: 'surely', mayHaveLanded: true });
  test.each([
    ['when nothing can have landed', perhaps, clear, true, 'yes'],
    ['after a look, when some may have', perhaps, answered, true, 'look'],
    ['after a look, when blocks of other ClickHouse partitions may be there', part, clear, true, 'look'],
    ['after a look, when what is on its way is refused, too', unnamed, unanswered, true, 'look'],
    ['never, when what is on its way may land', perhaps, unanswered, true, 'patiently'],
    ['after a look, when nothing was promised', perhaps, unanswered, false, 'look'],
  ] as const)('%s', (_name, refused, doubt, isRecorded, may) => {
    expect(mayDivide({ error: refused, doubt }, isRecorded)).toBe(may);
  });

  test.each([
    ['when nothing is seen', unnamed, true, 'yes'],
    ['when nothing is seen, whoever is to blame', perhaps, true, 'yes'],
    ['never, when rows are there that a record is missing from', unnamed, false, 'halt'],
    ['never, when rows are there: what may pass is waited for', perhaps, false, 'patiently'],
  ] as const)('seen: %s', (_name, refused, isAbsent, may) => {
    expect(mayDivideSeen({ error: refused, doubt: answered }, isAbsent)).toBe(may);
  });
});
