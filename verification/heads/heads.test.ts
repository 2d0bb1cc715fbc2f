import { expect, test } from 'vitest';

interface Heads {
  importsOf(path: string, text: string): string[];
  withHead(path: string, text: string): string;
  wrongHeads(): string[];
}
const { importsOf, withHead, wrongHeads } = (await import('./heads.mjs' as string)) as Heads;

test('the head of each source file says what it imports; "node verification/heads/heads.mjs --write" brings it up to date', () =>
  expect(wrongHeads()).toEqual([]));

test('a head that says something else is seen', () => {
  const text = `/**\n * What it is. Imports: model.\n */\nimport { from } from 'rxjs';\nimport { x } from '../errors.js';\n`;
  expect(importsOf('src/kafka/x.ts', text)).toEqual(['errors', 'rxjs']);
  expect(withHead('src/kafka/x.ts', text)).toContain(' * What it is. Imports: errors, rxjs.\n');
});
