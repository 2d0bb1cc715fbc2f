import { describe, expect, test } from 'vitest';
import { exitCodeOf } from '../../src/cli/drain.js';
import { Tally } from '../../src/cli/tally.js';
import { IngestError, type ErrorCode } from '../../src/errors.js';
import type { Assignment } from '../../src/model/record.js';

const assignment: Assignment = { topic: 't', partition: 0, epoch: 1, generation: 1, startOffset: 0 };
const failed = (code: ErrorCode) => new IngestError(code, 'it failed', { topic: 't', partition: 0 });

describe('exit code 3 says that no record was taken', () => {
  test.each<ErrorCode>(['KCR_KAFKA_UNREACHABLE', 'KCR_TOPIC_MISSING', 'KCR_STORE_UNREACHABLE'])('so %s is 3 before the first partition came, and 5 after', (code) => {
    const refused = new Tally();
    refused.fail(failed(code));
    expect(refused.exitCode).toBe(3);

    const begun = new Tally();
    begun.event({ kind: 'assigned', assignment }, false);
    begun.outcome({ kind: 'halted', assignment, error: failed(code) });
    expect(begun.exitCode).toBe(5);
    expect(exitCodeOf({ halted: [{ topic: 't', partition: 0, error: failed(code) }], isLate: false }, [])).toBe(5);
  });

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
