// What README and docs show of TypeScript stands in examples/, line by line: there it is compiled, and most of it runs.
import { readFileSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';

const root = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');
const bare = (line: string) => line.trim().replace(/[;,]$/, '');
const examples = new Set(
  readdirSync(new URL('examples/', root))
    .filter((name) => /\.(ts|mjs)$/.test(name))
    .flatMap((name) => read(`examples/${name}`).split('\n').map(bare)),
);

const snippets = [...read('README.md').matchAll(/```ts\n(.*?)```/gs)].map(([, text]) => text!);

test('the README shows what an embedder writes', () => expect(snippets).toHaveLength(3));

test.each(snippets)('a snippet of the README stands in an example: %#', (text) => {
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.trim().startsWith('//'));
  expect(lines.map(bare).filter((line) => !examples.has(line))).toEqual([]);
});
