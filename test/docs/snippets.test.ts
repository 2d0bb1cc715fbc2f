// What the documents show can be pasted: TypeScript stands in examples/, line by line, where it is compiled and most of it
// runs; configurations are taken by the program; commands and their options exist.
import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { checkConfig } from '../../src/config/config.js';
import { parseJson, parseYaml } from '../../src/config/syntax.js';
import { authority } from '../support/certificates.js';

const root = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');
const filesIn = (folder: string, ends: RegExp) => readdirSync(new URL(folder, root)).filter((name) => ends.test(name));

const documents = ['README.md', ...filesIn('docs/', /\.md$/).map((name) => `docs/${name}`)];
const snippets = documents.flatMap((path) =>
  [...read(path).matchAll(/^( *)```(\w+)[^\n]*\n(.*?)^ *```/gms)].map(([, indent, language, text]) => ({
    path,
    language: language!,
    text: text!.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  })),
);
const written = (...languages: readonly string[]) =>
  snippets.filter(({ language }) => languages.includes(language)).map((each) => [each.path, each.text] as const);

test('every snippet is of a language that is looked at', () => {
  const languages = ['ts', 'js', 'json', 'yaml', 'sh', 'sql'];
  expect(snippets.filter(({ language }) => !languages.includes(language))).toEqual([]);
  expect(snippets.length).toBeGreaterThan(20);
});

describe('code', () => {
  const bare = (line: string) => line.trim().replace(/[;,]$/, '');
  const examples = new Set(
    filesIn('examples/', /\.(ts|mjs)$/)
      .flatMap((name) => read(`examples/${name}`).split('\n'))
      .map(bare),
  );

  test.each(written('ts', 'js'))('of %s stands in an example: %#', (_path, text) => {
    const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.trim().startsWith('//'));
    expect(lines.map(bare).filter((line) => !examples.has(line))).toEqual([]);
  });
});

describe('configurations', () => {
  const base = {
    kafka: { brokers: ['127.0.0.1:9092'], groupId: 'g' },
    clickhouse: { url: 'http://127.0.0.1:8123' },
    state: { store: 'kafka' },
    delivery: 'exactly-once',
    routes: [{ topic: 't', table: 't' }],
  };
  const certificates = authority();
  const { cert, key } = certificates.issue();
  const files: Readonly<Record<string, string>> = {
    '/etc/ssl/company.pem': certificates.ca,
    '/run/secrets/client.pem': cert,
    '/run/secrets/client.key': key,
    '/run/secrets/clickhouse': 'a password',
    '/run/secrets/control': '0123456789abcdef',
  };
  const readFile = (path: string) => files[path] ?? expect.fail(`the snippet names another file: ${path}`);
  const environment = { KAFKA_BROKERS: '127.0.0.1:9092', CLICKHOUSE_HOST: 'localhost' };

  test.each(written('yaml'))('of %s is taken: %#', (_path, text) => {
    expect(() => checkConfig({ ...base, ...(parseYaml(text) as object) }, environment, readFile)).not.toThrow();
  });

  test.each(written('json'))('of %s is taken, or has a record a line: %#', (_path, text) => {
    if (text.startsWith('{"')) for (const line of text.trim().split('\n')) expect(parseJson(line)).toBeTypeOf('object');
    else expect(() => checkConfig({ ...base, ...(parseJson(text) as object) }, environment, readFile)).not.toThrow();
  });
});

describe('commands', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const program = read('src/cli/main.ts');
  const sources = ['src', 'bench', 'examples/demo', 'test/stack', 'verification'].flatMap((folder) =>
    readdirSync(new URL(folder, root), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => read(`${folder}/${name}`)),
  );
  const isOption = (name: string) =>
    sources.some((text) => [`'${name}'`, `${name}:`, `'--${name}`].some((form) => text.includes(form)));
  const lines = written('sh').flatMap(([path, text]) =>
    text
      .trim()
      .split('\n')
      .map((line) => [path, line.replace(/ +#.*/, '')] as const),
  );

  test.each(lines)('of %s exists: %s', (_path, line) => {
    for (const [, script] of line.matchAll(/npm run ([\w:]+)/g)) expect(scripts).toHaveProperty([script!]);
    const [, ours] = /npm run [\w:]+ -- (.*)/.exec(line) ?? [];
    for (const [, option] of (ours ?? '').matchAll(/--([\w-]+)/g)) expect(isOption(option!), option).toBe(true);
    const [, command, options] = /kafka-clickhouse-rx ((?:state )?[\w-]+) (.*)/.exec(line) ?? [];
    if (command === undefined || line.startsWith('npm')) return;
    expect(program).toContain(`.command('${command.split(' ').at(-1)}')`);
    for (const [option] of options!.matchAll(/--[\w-]+/g)) expect(program).toContain(option);
  });
});
