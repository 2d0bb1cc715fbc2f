import { describe, expect, test } from 'vitest';
import { exitCodeOf } from '../../src/cli/drain.js';
import { Tally } from '../../src/cli/tally.js';
import { IngestError, type ErrorCode } from '../../src/errors.js';
import type { Assignment } from '../../src/model/record.js';

const assignment: Assignment = { topic: 't', partition: 0, assignmentId: 1, generation: 1, startOffset: 0 };
const failed = (code: ErrorCode) => new IngestError(code, 'it failed', { topic: 't', partition: 0 });

describe('exit code 3 says that no record was taken', () => {
  test.each<ErrorCode>(['KCR_KAFKA_UNREACHABLE', 'KCR_TOPIC_MISSING', 'KCR_STORE_UNREACHABLE'])(
    'so %s is 3 before the first partition came, and 5 after',
    (code) => {
      const refused = new Tally();
      refused.fail(failed(code));
      expect(refused.exitCode).toBe(3);

      const begun = new Tally();
      begun.event({ kind: 'assigned', assignment }, false);
      begun.outcome({ kind: 'halted', assignment, error: failed(code) });
      expect(begun.exitCode).toBe(5);
      expect(exitCodeOf({ halted: [{ topic: 't', partition: 0, error: failed(code) }], isLate: false }, [])).toBe(5);
    },
  );

  test('the others are the same before and after, and nothing is 0', () => {
    const tally = new Tally();
    tally.event({ kind: 'assigned', assignment }, false);
    expect(tally.exitCode).toBe(0);
    tally.fail(failed('KCR_POISON'));
    expect(tally.exitCode).toBe(4);
    tally.fail(failed('KCR_INTERNAL'));
    expect(tally.exitCode).toBe(1);
  });
});

describe('the exit code tells a supervisor whether to start again or to call somebody', () => {
  const healing = { kind: 'halted', assignment, error: failed('KCR_INSERT_FATAL'), healsInMs: 10_000 } as const;
  const begun = () => {
    const tally = new Tally();
    tally.event({ kind: 'assigned', assignment }, false);
    return tally;
  };

  test('9: a partition was halted that heals by itself, here or by its next owner', () => {
    for (const healsInMs of [10_000, 0]) {
      const tally = begun();
      tally.outcome({ ...healing, healsInMs });
      tally.event({ kind: 'revoked', assignment }, true);
      expect(tally.exitCode).toBe(9);
      expect(tally.isAllHalted()).toBe(false);
    }
  });

  test('another one that waits for a person outranks it', () => {
    const tally = begun();
    tally.outcome(healing);
    tally.outcome({
      kind: 'halted',
      assignment: { ...assignment, partition: 1, assignmentId: 2 },
      error: failed('KCR_POISON'),
    });
    expect(tally.exitCode).toBe(4);
  });

  test('0 once it has healed, or was given to another member', () => {
    const healed = begun();
    healed.outcome(healing);
    healed.event({ kind: 'healed', assignment, attempts: 1 }, false);
    expect(healed.exitCode).toBe(0);
    const given = begun();
    given.outcome(healing);
    given.event({ kind: 'revoked', assignment }, false);
    expect(given.exitCode).toBe(0);
  });

  test('without healing the error itself', () => {
    const tally = begun();
    tally.outcome({ kind: 'halted', assignment, error: failed('KCR_INSERT_FATAL') });
    expect(tally.exitCode).toBe(5);
    expect(tally.isAllHalted()).toBe(true);
  });
});
