import { expect, test } from 'vitest';

interface Heads {
  readonly importsOf: (path: string, text: string) => string[];
  readonly withHead: (path: string, text: string) => string;
  readonly wrongHeads: () => string[];
}
const heads = (await import(new URL('./heads.mjs', import.meta.url).href)) as Heads;
const { importsOf, withHead, wrongHeads } = heads;

test('the head of each source file says what it imports; "node verification/heads/heads.mjs --write" brings it up to date', () =>
  expect(wrongHeads()).toEqual([]));

test('a head that says something else is seen', () => {
  const text = `/**\n * What it is. Imports: model.\n */\nimport { from } from 'rxjs';\nimport { x } from '../errors.js';\n`;
  expect(importsOf('src/kafka/x.ts', text)).toEqual(['errors', 'rxjs']);
  expect(withHead('src/kafka/x.ts', text)).toContain(' * What it is. Imports: errors, rxjs.\n');
});
