// The schema that editors are given is the one by which the program decides, as far as a schema can say it.
import { readdirSync, readFileSync } from 'node:fs';
import { Ajv } from 'ajv';
import formats from 'ajv-formats';
import { expect, test } from 'vitest';
import { bufferDefaults } from '../../operators/buffer-count-or-time.js';
import { healDefaults } from '../../operators/group-by-partition.js';
import { CONNECT_TIMEOUT_MS } from '../../src/clickhouse/client/connection.js';
import { REQUEST_TIMEOUT_MS } from '../../src/clickhouse/client/http.js';
import { DEDUP_BUDGET_MS } from '../../src/clickhouse/insert/token-doubt.js';
import { COALESCE_BYTES, COALESCE_MS, MAX_IN_FLIGHT } from '../../src/clickhouse/options.js';
import { DRAIN_TIMEOUT_MS, sourceDefaults } from '../../src/kafka/option-values.js';
import { MAX_PENDING_DEFAULT } from '../../src/ledger.js';
import { retryDefaults } from '../../src/retry.js';
import { keeperMapDefaults } from '../../src/state/keeper-map.js';
import { keeperDefaults } from '../../src/state/keeper-settings.js';
import { checkConfig } from '../../src/config/config.js';
import { configJsonSchema } from './json-schema.js';
import { parseYaml } from '../../src/config/syntax.js';

const root = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');
const ajv = new Ajv({ strict: false });
formats.default(ajv);
const unsaid: string[] = [];
const schema = configJsonSchema((place) => unsaid.push(place));
const validate = ajv.compile(schema);
const faults = (config: unknown) =>
  validate(config) ? [] : validate.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`);

const good = JSON.parse(read('examples/flights.json')) as Record<string, object>;

test('G9: config.schema.json in the package is what the program decides by (npx vitest -u writes it)', async () => {
  await expect(`${JSON.stringify(schema, null, 2)}\n`).toMatchFileSnapshot('../../config.schema.json');
  const { exports, files } = JSON.parse(read('package.json')) as { exports: Record<string, unknown>; files: string[] };
  expect([exports['./config.schema.json'], files]).toEqual([
    './config.schema.json',
    expect.arrayContaining(['config.schema.json']),
  ]);
});

test('each key says what it is, from the comments of the documented type', () => {
  expect(unsaid).toEqual([]);
});

test('a default that a comment names is the one that is in force', () => {
  const named: [string, number][] = [];
  const collect = (at: unknown, path: string): void => {
    if (typeof at !== 'object' || at === null) return;
    const { description } = at as { description?: unknown };
    const [, preset] = /Default: (\d+)\b/.exec(typeof description === 'string' ? description : '') ?? [];
    if (preset !== undefined) named.push([path.replace(/(properties|anyOf|oneOf|items|\d)\./g, ''), Number(preset)]);
    for (const [key, value] of Object.entries(at)) collect(value, `${path}${key}.`);
  };
  collect(schema, '');
  const { maxWaitMs, ...ofBatch } = bufferDefaults;
  const inForce = {
    kafka: { ...sourceDefaults, drainTimeoutMs: DRAIN_TIMEOUT_MS },
    clickhouse: {
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      maxInFlight: MAX_IN_FLIGHT,
      coalesceMs: COALESCE_MS,
      coalesceBytes: COALESCE_BYTES,
      dedupBudgetMs: DEDUP_BUDGET_MS,
    },
    state: { sessionTimeoutMs: keeperDefaults.sessionTimeoutMs, requestTimeoutMs: keeperMapDefaults.requestTimeoutMs },
    batch: { ...ofBatch, maxWaitMs },
    maxPending: MAX_PENDING_DEFAULT,
    heal: healDefaults,
    retry: retryDefaults,
  };
  const at = (path: string) =>
    path.split('.').reduce((of: unknown, key) => (key === '' ? of : (of as Record<string, unknown>)[key]), inForce);
  expect(named.length).toBeGreaterThan(20);
  expect(named).toEqual(named.map(([path]) => [path, at(path)]));
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
