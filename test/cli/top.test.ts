import { expect, test } from 'vitest';
import { count, duration, statusFields, statusLine } from '../../src/cli/summary.js';
import { textOf } from '../../src/cli/top.js';
import { ByHand } from '../observe/observed.js';

test('one line says the pace, the lag and when it is gone, what limits, and what has halted', () => {
  const hand = new ByHand().assign(0, 1).logEnds(20_000, 0).deliver(0, 1999, 2000).halt(1);
  expect(statusLine(hand.observed.status())).toBe(
    '2k rows/s · 18k behind, 9 s left · Kafka limits · 1 of 2 partitions halted · 2k rows',
  );
  expect(statusFields(hand.observed.status())).toMatchObject({ lagRecords: 18_000, halted: 1, limit: 'kafka' });
});

test('what is urgent stands first: halted, then in doubt, then the greatest lag', () => {
  const hand = new ByHand().assign(0, 1, 2).logEnds(10, 30, 20).halt(2);
  const lines = textOf(hand.observed.status(), { sort: 'urgency' }, 50).split('\n');
  expect(lines.slice(3, 6).map((line) => line.split(' ')[0])).toEqual(['flights/2', 'flights/1', 'flights/0']);
  expect(lines[3]).toContain('halted KCR_SCHEMA: add it');
});

test('a terminal of few lines says how many are not shown', () => {
  const hand = new ByHand().assign(0, 1, 2, 3);
  expect(textOf(hand.observed.status(), { sort: 'name' }, 5)).toContain('… and 2 more');
});

test('as JSON it is the status itself', () => {
  const status = new ByHand().assign(0).observed.status();
  expect(JSON.parse(textOf(status, { json: true, sort: 'lag' }, 5))).toEqual(JSON.parse(JSON.stringify(status)));
});

test.each([
  [0, '0'],
  [999, '999'],
  [1234, '1.2k'],
  [123_456, '123k'],
  [3_400_000, '3.4M'],
])('%d reads %s', (value, text) => expect(count(value)).toBe(text));

test.each([
  [0.25, '250 ms'],
  [90, '90 s'],
  [600, '10 min'],
  [36_000, '10 h'],
])('%d seconds read %s', (value, text) => expect(duration(value)).toBe(text));
