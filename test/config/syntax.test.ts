// A mistake in a configuration file is told by its place. What stands there is not: it may be a password.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/cli/read-config.js';
import { parseJson, parseYaml } from '../../src/config/syntax.js';
import { configFile } from '../cli/program.js';

const file = (name: string, text: string) =>
  readConfig(configFile(text, name)).then(
    () => 'taken',
    (thrown: Error) => `${thrown.message} ${String((thrown.cause as Error | undefined)?.stack)}`,
  );

const json = `{
  "kafka": { "brokers": ["127.0.0.1:9092"], "groupId": "g" },
  "clickhouse": { "url": "http://ch:8123", "password": "hunter2" },
  "delivery": "at-least-once",
  "routes": [{ "topic": "a", "table": "b" }]
}
`;
const yaml = `kafka:
  brokers: ["127.0.0.1:9092"]
  groupId: g
clickhouse:
  url: http://ch:8123
  password: "hunter2"
delivery: at-least-once
routes:
  - topic: a
    table: b
`;
const esm = `export default ${json};\n`;

test('G9: JSON, YAML and ESM are taken, with the mark that some editors put before the text', async () => {
  for (const [name, text] of [
    ['a.json', json],
    ['a.yaml', yaml],
    ['a.yml', yaml],
    ['a.mjs', esm],
    ['a.conf', json],
  ] as const) {
    expect(await file(name, text)).toBe('taken');
    expect(await file(name, `\uFEFF${text}`)).toBe('taken');
  }
});

describe('F9: a mistake is told by line and column, and the password beside it is not', () => {
  test.each([
    ['a.json', 'a quote is missing at the end', json.replace('hunter2"', 'hunter2'), /line 3, column \d+: /],
    [
      'a.json',
      'a quote is missing at the beginning',
      json.replace('"hunter2', 'hunter2'),
      /line 3, column 56: expected a value/,
    ],
    ['a.json', 'both are missing', json.replace('"hunter2"', 'hunter2'), /line 3, column 56: expected a value/],
    ['a.json', 'the quotes are single ones', json.replace('"hunter2"', "'hunter2'"), /line 3, column 56/],
    [
      'a.json',
      'a comma is missing',
      json.replace('"http://ch:8123",', '"http://ch:8123"'),
      /line 3, column \d+: expected a comma/,
    ],
    ['a.json', 'a comma too many', json.replace('"hunter2" }', '"hunter2", }'), /line 3, column \d+: expected a key/],
    ['a.json', 'a backslash', json.replace('hunter2', 'hun\\ter2\\q'), /line 3, column \d+: a backslash/],
    ['a.json', 'it ends too early', json.slice(0, json.indexOf('hunter2') + 9), /the file ends too early/],
    ['a.json', 'it is YAML', yaml, /line 1, column 1: expected a value/],
    ['a.yaml', 'a quote is missing at the end', yaml.replace('hunter2"', 'hunter2'), /line 6, column 13: /],
    [
      'a.yaml',
      'a quote is missing at the beginning',
      yaml.replace('"hunter2', 'hunter2: "x'),
      /line \d+, column \d+: /,
    ],
    [
      'a.yaml',
      'the colon is missing',
      yaml.replace('password: "hunter2"', 'password "hunter2"'),
      /line \d+, column \d+: /,
    ],
    ['a.yaml', 'it is taken for an alias', yaml.replace('"hunter2"', '*hunter2'), /quotes/],
    ['a.yaml', 'it is taken for a tag', yaml.replace('"hunter2"', '!hunter2 x'), /line 6, column 13: .*quotes/],
    ['a.yaml', 'it begins with what YAML keeps', yaml.replace('"hunter2"', '@hunter2'), /line 6, column 13: .*quotes/],
    ['a.yaml', 'a tab', yaml.replace('  password', '\tpassword'), /line 6/],
    [
      'a.yaml',
      'a key twice',
      yaml.replace('delivery:', 'kafka: hunter2\ndelivery:'),
      /line 7, column 1: the key stands there twice/,
    ],
    [
      'a.yaml',
      'in brackets, its key without a colon',
      'clickhouse: {url: "http://ch", password hunter2, hunter2}',
      /unknown key \(not shown/,
    ],
  ])('%s: %s', async (name, _what, text, says) => {
    const said = await file(name, text);
    expect(said).toMatch(says);
    expect(said).not.toContain('hunter2');
  });
});

test('F9: of any JSON that is broken the place is found: what is before it is whole', () => {
  fc.assert(
    fc.property(fc.json(), fc.nat(), fc.constantFrom('', '"', ',', '}', ']', ':', '\\', '\n', 'x'), (text, at, put) => {
      const cut = at % (text.length + 1);
      const broken = text.slice(0, cut) + put + text.slice(cut + 1);
      const outcome = (() => {
        try {
          return { value: parseJson(broken) };
        } catch (thrown) {
          return { said: (thrown as Error).message };
        }
      })();
      const isJson = (() => {
        try {
          JSON.parse(broken);
          return true;
        } catch {
          return false;
        }
      })();
      expect('value' in outcome).toBe(isJson);
      if (outcome.said !== undefined) expect(outcome.said).toMatch(/^line \d+, column \d+: (?!this is not JSON)/);
    }),
    { numRuns: 2000 },
  );
});

test('YAML that is no object is left to the schema', () => {
  expect(parseYaml('')).toBeNull();
  expect(parseYaml('- a')).toEqual(['a']);
});
