// Whoever meets an error's code finds what to do about it.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { errorCodes, type ErrorCode } from '../../src/errors.js';
import { factsOf } from './error-facts.js';

const sections = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  .split(/^## /m)
  .slice(1)
  .map((section) => section.split('\n'))
  .filter(([heading]) => heading!.startsWith('KCR_'));
const codes = Object.keys(errorCodes) as ErrorCode[];

test('every code has a section of its own, and no section is of a code that does not exist', () => {
  expect(sections.map(([heading]) => heading).sort()).toEqual([...codes].sort());
});

test.each(codes)('%s: what is said of it is what the table of codes says, and what to do follows', (code) => {
  const [, , facts, , ...rest] = sections.find(([heading]) => heading === code) ?? [];
  expect(facts).toBe(factsOf(code));
  expect(rest.join('\n').trim().length).toBeGreaterThan(40);
});
