import { expect, test } from 'vitest';
import { LivingLine, readableLine } from '../../../src/cli/log/terminal.js';

const line = (fields: object) => JSON.stringify({ level: 40, time: '2026-11-30T12:03:04.567Z', ...fields });

test('a person reads the time, the level, the message and the fields', () => {
  expect(readableLine(line({ topic: 'flights', partition: 3, msg: 'partition halted' }), false)).toBe(
    '12:03:04 WARN  partition halted topic=flights partition=3\n',
  );
});

test('what is no line of the log stays as it is', () => expect(readableLine('plain\n', true)).toBe('plain\n'));

test('what a record holds does not move the cursor, in a field or in a message', () => {
  const text = readableLine(line({ value: 'a\u001b[2Jb', msg: 'near \u001b[2J\u009b1m' }), false);
  expect(text.slice(0, -1)).toMatch(/^[\x20-\x7e]*$/);
});

test('log lines stand above the line that lives, which is cut to the width and written only when it changes', () => {
  const living = new LivingLine();
  expect(living.above('one\n')).toBe('one\n');
  expect(living.show('123 rows/s', 6)).toBe('\r\u001b[K123 r');
  expect(living.show('123 rows/s', 6)).toBe('');
  expect(living.above('two\n')).toBe('\r\u001b[Ktwo\n123 r');
  expect(living.clear()).toBe('\r\u001b[K');
  expect(living.clear()).toBe('');
});
