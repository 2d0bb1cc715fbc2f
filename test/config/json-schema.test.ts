// The schema that editors are given is the one by which the program decides, as far as a schema can say it.
import { readdirSync, readFileSync } from 'node:fs';
import { Ajv } from 'ajv';
import formats from 'ajv-formats';
import { expect, test } from 'vitest';
import { checkConfig } from '../../src/config/config.js';
import { configJsonSchema } from '../../src/config/json-schema.js';
import { parseYaml } from '../../src/config/syntax.js';

const root = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');
const ajv = new Ajv({ strict: false });
formats.default(ajv);
const validate = ajv.compile(configJsonSchema());
const faults = (config: unknown) =>
  validate(config) ? [] : validate.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`);

const good = JSON.parse(read('examples/flights.json')) as Record<string, object>;

test('G9: config.schema.json in the package is what the program decides by (npx vitest -u writes it)', async () => {
  await expect(`${JSON.stringify(configJsonSchema(), null, 2)}\n`).toMatchFileSnapshot('../../config.schema.json');
  const { exports, files } = JSON.parse(read('package.json')) as { exports: Record<string, unknown>; files: string[] };
  expect([exports['./config.schema.json'], files]).toEqual([
    './config.schema.json',
    expect.arrayContaining(['config.schema.json']),
  ]);
});

test('G9: every configuration in the examples and the documents is taken by the schema and by the program', () => {
  const documents = ['README.md', ...readdirSync(new URL('docs/', root)).map((name) => `docs/${name}`)].map(read);
  const samples = [
    good,
    ...documents.flatMap((text) =>
      [...text.matchAll(/```json\n(.*?)```/gs)].map(([, sample]) => JSON.parse(sample!) as object),
    ),
    ...documents.flatMap((text) =>
      [...text.matchAll(/```yaml\n(.*?)```/gs)].map(([, sample]) => parseYaml(sample!) as object),
    ),
  ].filter((sample) => 'kafka' in sample);
  expect(samples.length).toBeGreaterThanOrEqual(3);
  for (const sample of samples) {
    expect(faults(sample)).toEqual([]);
    expect(() => checkConfig(sample, { KAFKA_BROKERS: 'a:1,b:2' }, () => 'secret')).not.toThrow();
  }
});

test.each([
  ['a number from the environment', { batch: { count: '${N}', maxWaitMs: '${N:-5}' } }],
  [
    'a list, a word and an address from it',
    {
      kafka: { brokers: '${B}', groupId: 'g', fromBeginning: '${F}' },
      delivery: '${D}',
      clickhouse: { url: 'http://${H}:8123' },
    },
  ],
  ['brokers one by one', { kafka: { brokers: ['${B}', '[::1]:9092'], groupId: 'g' } }],
  ['each store', { state: { store: 'kafka' } }],
  ['the place of the schema', { $schema: 'https://unpkg.com/kafka-clickhouse-rx/config.schema.json' }],
  ['settings of inserts', { clickhouse: { url: 'http://ch:8123', settings: { a: 1, b: 'x', c: true } } }],
])('G9: %s is taken', (_what, change) => {
  expect(faults({ ...good, ...change })).toEqual([]);
});

test.each([
  ['an unknown key', { deliver: 1 }],
  ['an unknown key below', { batch: { counts: 1 } }],
  ['text for a number', { batch: { count: '5' } }],
  ['a number for text', { kafka: { brokers: ['a:1'], groupId: 5 } }],
  ['a delivery nobody knows', { delivery: 'maybe' }],
  ['no routes', { routes: [] }],
  ['a key of another store', { state: { store: 'kafka', path: '/x' } }],
  ['a broker without a port', { kafka: { brokers: ['a'], groupId: 'g' } }],
])('G9: %s is refused, as by the program', (_what, change) => {
  expect(faults({ ...good, ...change })).not.toEqual([]);
  expect(() => checkConfig({ ...good, ...change }, {})).toThrow();
});
