// A document that names a test shows a claim; one that names a file which is gone shows nothing.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

const ROOT = new URL('../../', import.meta.url);
const documents = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(new URL('docs/', ROOT)).map((name) => `docs/${name}`),
].filter((name) => name.endsWith('.md'));
const ROOMS = 'test|verification|bench|examples|deploy|src|operators|docs';
const PATH = new RegExp(`\`((?:${ROOMS})/[\\w./-]+)\``, 'g');
const BESIDE = /`([\w-]+(?:\.servers|\.long)?\.test\.ts)`/g;

/** Files and folders that `text` names from the project's root, and tests named beside one: these lie in its folder. */
function namedIn(text: string): string[] {
  return text.split('\n').flatMap((line) => {
    const paths = [...line.matchAll(PATH)].map(([, path]) => path!);
    const folder = paths.find((path) => path.endsWith('.test.ts'))?.replace(/[^/]*$/, '');
    const beside = [...line.matchAll(BESIDE)].map(([, name]) => `${folder ?? ''}${name!}`);
    return [...paths, ...beside];
  });
}

describe.each(documents)('%s', (document) => {
  test('names no file or folder that is gone', () => {
    const named = namedIn(readFileSync(new URL(document, ROOT), 'utf8'));
    expect(named.filter((path) => !existsSync(new URL(path, ROOT)))).toEqual([]);
  });
});

test('every invariant and everything that can happen names a test', () => {
  const rows = readFileSync(new URL('docs/guarantees.md', ROOT), 'utf8')
    .split(/^## /m)
    .filter((section) => /^(What can happen, what is done|The invariants)/.test(section))
    .flatMap((section) => section.split('\n').filter((line) => line.startsWith('| ')));
  const claims = rows.filter((row) => !/^\| (---|what can happen|\| invariant)/.test(row));
  expect(claims.length).toBeGreaterThan(35);
  expect(claims.filter((row) => !/`test\/[^`]+\.ts`/.test(row.split('|').at(-2)!))).toEqual([]);
});
