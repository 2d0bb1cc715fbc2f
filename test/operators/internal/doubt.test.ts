// Every transition of what is decided about one range under one token. The names say what would be lost without it.
import { describe, expect, test } from 'vitest';
import { begin, next } from '../../../operators/internal/doubt.js';
import type { Attempts, Goal, Happened, InsertRange, Move } from '../../../operators/internal/doubt-steps.js';
import { IngestError, type ErrorCode, type ErrorFields } from '../../../src/errors.js';
import type { ReadBack } from '../../../src/ports.js';

const recorded: InsertRange = {
  isRecorded: true,
  isFilling: false,
  isUnseen: false,
  canRenew: false,
  isPatient: true,
  abandons: false,
  maxAttempts: Infinity,
  place: { topic: 'orders', partition: 0, first: 10, last: 12 },
};
const unrecorded = { isRecorded: false };
const filling = { isFilling: true };
const unseen = { isFilling: true, isUnseen: true };
const inDoubt = { doubt: { isInDoubt: true, isUnanswered: true } };
const clear = { isInDoubt: false, isUnanswered: false };

const known: Happened = { kind: 'asked', why: undefined };
const forgotten: Happened = { kind: 'asked', why: 'it is old' };
const noted: Happened = { kind: 'noted' };
const waited: Happened = { kind: 'waited' };
const answeredBy = (mayBeLost: boolean): Happened => ({ kind: 'answered', result: { rows: 3, bytes: 30 }, mayBeLost });
const saw = (missing: readonly number[], more: Partial<ReadBack> = {}): Happened => ({
  kind: 'looked',
  found: { missing, doubled: [], ...more },
  isAbsent: missing.length === 3,
});
const all = saw([10, 11, 12]);
const some = saw([11]);
const none = saw([]);
const twice = saw([], { doubled: [12] });
const someTwice = saw([11], { doubled: [12] });
const unproven = saw([10, 11, 12], { isUnproven: true });
const failedBy = (code: ErrorCode, fields: ErrorFields = {}): Happened => ({
  kind: 'failed',
  error: new IngestError(code, 'because', fields),
  nowMs: 1_000,
});
const lost = failedBy('KCR_INSERT_IN_DOUBT');

function attemptsFor(goal: Goal, range: InsertRange, before: Partial<Attempts>): Attempts {
  return {
    ...begin(goal, range, { doubt: clear, missing: goal === 'fill' ? [11] : [], ...before }).attempts,
    ...before,
  };
}

/** A step in one line. */
function told({ step }: Move): string {
  switch (step.kind) {
    case 'ask':
    case 'send all':
      return step.kind;
    case 'look':
      return step.why === undefined ? 'look' : `look since ${step.why}`;
    case 'send missing':
    case 'fill':
      return `${step.kind} ${step.offsets.join()}`;
    case 'note':
      return `store ${JSON.stringify(step.fields)}`;
    case 'wait':
      return `wait ${step.attempt} for ${step.call}${step.isStuck ? ', stuck' : ''}`;
    case 'end': {
      const { outcome } = step;
      if (outcome.kind === 'inserted') return `inserted ${outcome.result.rows} rows`;
      if (outcome.kind === 'unsent') return `unsent${outcome.wasTried ? ', tried' : ''}`;
      return outcome.kind === 'looked' ? `absent ${outcome.isAbsent}` : `halt ${outcome.error.code}`;
    }
  }
}

interface Given extends Partial<Attempts> {
  readonly range?: Partial<InsertRange>;
}

type Row = readonly [name: string, given: Given, happened: readonly Happened[], then: readonly string[]];

function play(goal: Goal, { range: fields, ...before }: Given, happened: readonly Happened[]): readonly string[] {
  const range = { ...recorded, ...fields };
  let attempts = attemptsFor(goal, range, before);
  return happened.map((one) => {
    const move = next(attempts, one, range);
    attempts = move.attempts;
    return told(move);
  });
}

function table(goal: Goal, rows: readonly Row[]): void {
  describe(goal, () => {
    test.each(rows)('%s', (_name, given, happened, then) => {
      expect(play(goal, given, happened)).toEqual(then);
    });
  });
}

table('insert', [
  ['a first attempt goes out whole, under its token', {}, [known], ['send all']],
  [
    'one attempt that was answered: no look is paid for',
    {},
    [known, answeredBy(true)],
    ['send all', 'inserted 3 rows'],
  ],
  [
    'what a restarted server lost: looked for, where an attempt was in doubt',
    inDoubt,
    [known, answeredBy(true)],
    ['send all', 'look'],
  ],
  ['what a server cannot lose: not looked for', inDoubt, [known, answeredBy(false)], ['send all', 'inserted 3 rows']],
  [
    'rows twice: a token that was forgotten is not sent before the table was asked',
    inDoubt,
    [forgotten],
    ['look since it is old'],
  ],
  [
    'a partition that stands: what was never sent is recorded again',
    { range: { canRenew: true } },
    [forgotten],
    ['unsent'],
  ],
  [
    'a partition that stands: the same after a try that cannot have landed',
    { range: { canRenew: true }, wasTried: true },
    [forgotten],
    ['unsent, tried'],
  ],
  [
    'rows twice: what may have landed is not recorded again, but looked for',
    { range: { canRenew: true }, ...inDoubt },
    [forgotten],
    ['look since it is old'],
  ],
  [
    'rows twice: a former owner that was frozen is fenced before it sends all',
    inDoubt,
    [forgotten, all, noted],
    ['look since it is old', 'store {}', 'send all'],
  ],
  [
    'rows twice: and before it sends a part',
    inDoubt,
    [forgotten, some, noted],
    ['look since it is old', 'store {}', 'send missing 11'],
  ],
  [
    'of what is not recorded nobody else decides',
    { range: unrecorded, ...inDoubt },
    [forgotten, all],
    ['look since it is old', 'send all'],
  ],
  [
    'rows lost or twice: after a part there is always a look',
    { range: unrecorded },
    [forgotten, some, answeredBy(false)],
    ['look since it is old', 'send missing 11', 'look'],
  ],
  [
    'a part is forgotten once all was sent again',
    { range: unrecorded },
    [forgotten, some, lost, waited, known, answeredBy(false)],
    ['look since it is old', 'send missing 11', 'wait 1 for insert', 'ask', 'send all', 'inserted 3 rows'],
  ],
  [
    'rows twice: what is there already is not sent',
    inDoubt,
    [forgotten, none],
    ['look since it is old', 'inserted 0 rows'],
  ],
  [
    'rows that are there twice are told, not settled',
    inDoubt,
    [forgotten, twice],
    ['look since it is old', 'halt KCR_READ_BACK'],
  ],
  ['and nothing is added to them', inDoubt, [forgotten, someTwice], ['look since it is old', 'halt KCR_READ_BACK']],
  [
    'what proves nothing leaves it to the token',
    inDoubt,
    [forgotten, unproven, noted],
    ['look since it is old', 'store {}', 'send all'],
  ],
  [
    'rows twice: a fill that was begun goes on as a fill, not under the token',
    { range: filling, ...inDoubt },
    [forgotten, some],
    ['look since it is old', 'fill 11'],
  ],
  [
    'rows twice: nor where nothing can be seen of it',
    { range: filling, ...inDoubt },
    [forgotten, unproven],
    ['look since it is old', 'halt KCR_READ_BACK'],
  ],
  [
    'rows twice: a fill that nobody sees is not made again by the next owner',
    { range: unseen, ...inDoubt },
    [waited, some],
    ['look since a fill of it was answered and not seen', 'halt KCR_READ_BACK'],
  ],
  [
    'a partition that stands: what comes to light after all is settled',
    { range: unseen, ...inDoubt },
    [waited, none],
    ['look since a fill of it was answered and not seen', 'inserted 0 rows'],
  ],
  [
    'rows twice: nor is it, where nothing is proven',
    { range: unseen, ...inDoubt },
    [waited, unproven],
    ['look since a fill of it was answered and not seen', 'halt KCR_READ_BACK'],
  ],
  [
    'a fenced owner stops before it sends',
    inDoubt,
    [forgotten, all, failedBy('KCR_FENCED')],
    ['look since it is old', 'store {}', 'halt KCR_FENCED'],
  ],
]);

table('verify', [
  ['a look that shows all of it ends it', {}, [none], ['inserted 0 rows']],
  ['the rows that were answered are counted', { result: { rows: 3, bytes: 30 } }, [none], ['inserted 3 rows']],
  ['rows lost: what is missing is filled', { range: unrecorded }, [some], ['fill 11']],
  [
    'rows twice: that a fill begins is stored before it is sent',
    {},
    [some, noted],
    ['store {"isFilling":true}', 'fill 11'],
  ],
  ['once is enough', { range: filling }, [some], ['fill 11']],
  [
    'rows twice: no fill whose beginning could not be stored',
    {},
    [some, failedBy('KCR_STORE_UNREACHABLE')],
    ['store {"isFilling":true}', 'halt KCR_STORE_UNREACHABLE'],
  ],
  ['rows that are there twice are told, not settled', {}, [twice], ['halt KCR_READ_BACK']],
  ['rows twice: a fill that nobody sees is not made again', { range: unseen }, [some], ['halt KCR_READ_BACK']],
  [
    'a look that fails is made again, and nothing sent meanwhile',
    {},
    [failedBy('KCR_CLICKHOUSE_UNREACHABLE'), waited],
    ['wait 1 for readBack', 'look'],
  ],
]);

table('fill', [
  ['rows lost: what was answered is looked for', {}, [answeredBy(false)], ['look']],
  [
    'rows lost: a fill whose answer was lost is made again under its token',
    {},
    [lost, waited, known],
    ['wait 1 for fill', 'ask', 'fill 11'],
  ],
  [
    'rows twice: one that comes too late is looked for first',
    {},
    [lost, waited, forgotten, some, noted],
    ['wait 1 for fill', 'ask', 'look since it is old', 'store {}', 'fill 11'],
  ],
  ['rows twice: what has landed meanwhile is not filled', {}, [forgotten, none], ['look since it is old', 'look']],
  [
    'rows twice: nor what nothing can be seen of',
    {},
    [forgotten, unproven],
    ['look since it is old', 'halt KCR_READ_BACK'],
  ],
  [
    'of what is not recorded nobody else decides',
    { range: unrecorded },
    [forgotten, some],
    ['look since it is old', 'fill 11'],
  ],
  [
    'rows twice: a fill is not renewed by recording the range again',
    { range: { canRenew: true } },
    [forgotten],
    ['look since it is old'],
  ],
]);

table('verify fill', [
  ['a look that shows all of it ends it', { result: { rows: 1, bytes: 10 } }, [none], ['inserted 1 rows']],
  [
    'rows twice without end: that a fill is not seen is stored before it is told',
    {},
    [some, noted],
    ['store {"isUnseen":true}', 'halt KCR_READ_BACK'],
  ],
  ['where nothing is recorded it is told at once', { range: unrecorded }, [some], ['halt KCR_READ_BACK']],
  [
    'the store’s error is told where it cannot be stored',
    {},
    [some, failedBy('KCR_FENCED')],
    ['store {"isUnseen":true}', 'halt KCR_FENCED'],
  ],
  ['rows that are there twice are told, not settled', {}, [twice], ['halt KCR_READ_BACK']],
  [
    'a look that fails is made again',
    {},
    [failedBy('KCR_CLICKHOUSE_UNREACHABLE'), waited],
    ['wait 1 for readBack', 'look'],
  ],
]);

table('absence', [
  ['a row that is there keeps its record from being left out', {}, [some], ['absent false']],
  ['no row is there', {}, [all], ['absent true']],
  [
    'a look that fails is made again',
    {},
    [failedBy('KCR_CLICKHOUSE_UNREACHABLE'), waited],
    ['wait 1 for readBack', 'look since a record of it is refused now'],
  ],
]);

const few = failedBy('KCR_INSERT_FATAL');
table('insert', [
  [
    'a lost batch: what passes is tried again from the beginning',
    {},
    [known, failedBy('KCR_INSERT_RETRIABLE'), waited],
    ['send all', 'wait 1 for insert', 'ask'],
  ],
  [
    'a partition that stands for one odd answer: what looks final is tried a few times',
    {},
    [few, few, few, few, few],
    ['wait 1 for insert', 'wait 2 for insert', 'wait 3 for insert', 'wait 4 for insert', 'halt KCR_INSERT_FATAL'],
  ],
  [
    'a record at fault: tried a few times, then handed on to be looked for',
    { range: { isPatient: false }, fewLeft: 1 },
    [failedBy('KCR_INSERT_IN_DOUBT', { divisible: 'perhaps' })],
    ['halt KCR_INSERT_IN_DOUBT'],
  ],
  [
    'a record at fault, looked for in vain: tried for ever, and told of',
    { failures: 4 },
    [failedBy('KCR_INSERT_IN_DOUBT', { divisible: 'perhaps' })],
    ['wait 5 for insert, stuck'],
  ],
  [
    'a log full of it: told once in thirty',
    { failures: 5 },
    [failedBy('KCR_INSERT_IN_DOUBT', { divisible: 'perhaps' })],
    ['wait 6 for insert'],
  ],
  [
    'what is surely a record’s is not tried again',
    {},
    [failedBy('KCR_INSERT_FATAL', { divisible: 'surely' })],
    ['halt KCR_INSERT_FATAL'],
  ],
  ['poison is not tried again', {}, [failedBy('KCR_POISON')], ['halt KCR_POISON']],
  ['a fenced owner stops at once', {}, [failedBy('KCR_FENCED')], ['halt KCR_FENCED']],
  [
    'rows twice: at-most-once does not send again what may have landed',
    { range: { abandons: true } },
    [lost],
    ['halt KCR_INSERT_IN_DOUBT'],
  ],
  [
    'a lost batch: at-most-once sends again what has not landed',
    { range: { abandons: true } },
    [failedBy('KCR_INSERT_RETRIABLE')],
    ['wait 1 for insert'],
  ],
  [
    'a limit of calls is kept',
    { range: { maxAttempts: 2 } },
    [lost, lost],
    ['wait 1 for insert', 'halt KCR_INSERT_IN_DOUBT'],
  ],
  [
    'rows lost: until when a server does not know is stored, so that the next owner waits',
    {},
    [failedBy('KCR_INSERT_IN_DOUBT', { unknownForMs: 500 }), noted, waited],
    ['store {"unknownUntilMs":1500}', 'wait 1 for insert', 'ask'],
  ],
  [
    'where nothing is recorded there is nobody to tell',
    { range: unrecorded },
    [failedBy('KCR_INSERT_IN_DOUBT', { unknownForMs: 500 })],
    ['wait 1 for insert'],
  ],
  [
    'rows lost: nor is it forgotten where that is the last call',
    { range: { abandons: true } },
    [failedBy('KCR_INSERT_IN_DOUBT', { unknownForMs: 500 }), noted],
    ['store {"unknownUntilMs":1500}', 'halt KCR_INSERT_IN_DOUBT'],
  ],
]);

describe('what is known of the attempts', () => {
  test.each([
    ['a lost answer: it may have landed, or still land', lost, { isInDoubt: true, isUnanswered: true }],
    [
      'an error that nobody knows was an answer',
      failedBy('KCR_INSERT_IN_DOUBT', { divisible: 'perhaps' }),
      { isInDoubt: true, isUnanswered: false },
    ],
    [
      'a refusal behind which blocks of other ClickHouse partitions may be there',
      failedBy('KCR_SCHEMA', { mayHaveLanded: true }),
      { isInDoubt: true, isUnanswered: false },
    ],
    ['a refusal', failedBy('KCR_SCHEMA'), clear],
    ['what passes', failedBy('KCR_INSERT_RETRIABLE'), clear],
    [
      'a lost answer, also while until when is stored',
      failedBy('KCR_INSERT_IN_DOUBT', { unknownForMs: 1 }),
      { isInDoubt: true, isUnanswered: true },
    ],
  ])('%s', (_name, happened, doubt) => {
    const { attempts } = next(attemptsFor('insert', recorded, {}), happened, recorded);
    expect(attempts.doubt).toEqual(doubt);
  });

  test('is kept from goal to goal, and no success takes it away', () => {
    const { attempts } = next(attemptsFor('insert', recorded, inDoubt), answeredBy(true), recorded);
    expect(attempts).toMatchObject({ goal: 'verify', ...inDoubt });
  });

  test('a later failure that is none of an attempt leaves it as it was', () => {
    const { attempts } = next(attemptsFor('verify', recorded, inDoubt), failedBy('KCR_INSERT_RETRIABLE'), recorded);
    expect(attempts.doubt).toEqual(inDoubt.doubt);
  });
});

test.each(['KCR_INSERT_FATAL', 'KCR_SCHEMA', 'KCR_TABLE_MISSING', 'KCR_PREFLIGHT'] as const)(
  'a refusal that may be of the moment (%s) is tried a few times before the partition halts; of a record it is not',
  (code) => {
    const attempts = attemptsFor('insert', recorded, {});
    expect(next(attempts, failedBy(code), recorded).step).toMatchObject({ kind: 'wait', attempt: 1 });
    expect(next(attempts, failedBy(code, { divisible: 'surely' }), recorded).step).toMatchObject({
      outcome: { kind: 'failed', error: { code } },
    });
  },
);

test('each goal has its own number of calls', () => {
  const { attempts } = next(
    attemptsFor('insert', recorded, { ...inDoubt, failures: 7, fewLeft: 1 }),
    answeredBy(true),
    recorded,
  );
  expect(attempts).toMatchObject({ goal: 'verify', failures: 0, fewLeft: 5 });
});

test('what halts says where, and names the offsets', () => {
  const { step } = next(attemptsFor('verify', recorded, {}), twice, recorded);
  expect(step).toMatchObject({ outcome: { error: { fields: recorded.place } } });
  expect(step).toMatchObject({
    outcome: { error: { reason: 'Read back after a doubtful insert, the table has offset 12 twice' } },
  });
});

test('of many offsets it says how many', () => {
  const missing = Array.from({ length: 25 }, (_, i) => i);
  const range = { ...recorded, isUnseen: true };
  const { step } = next(attemptsFor('verify', range, {}), saw(missing), range);
  expect(step).toMatchObject({
    outcome: { error: { reason: expect.stringMatching(/ 18, 19 and 5 more, up to 24 was/) as string } },
  });
});
