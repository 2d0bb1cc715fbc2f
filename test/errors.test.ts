import { expect, test } from 'vitest';
import { IngestError } from '../src/errors.js';

const where = { topic: 'orders', partition: 3, offset: 9, table: 'db.t', serverCode: 27, hint: 'mend it' };

test('what happened, where, and what to do about it are said once each, and can be taken apart', () => {
  const error = new IngestError('KCR_POISON', 'cannot be read: (topic quoted)', where);
  expect(error).toMatchObject({
    reason: 'cannot be read: (topic quoted)',
    detail: 'cannot be read: (topic quoted) (topic orders, partition 3, offset 9, table db.t, server code 27)',
    message:
      'cannot be read: (topic quoted) (topic orders, partition 3, offset 9, table db.t, server code 27). What to do: mend it',
  });
});
