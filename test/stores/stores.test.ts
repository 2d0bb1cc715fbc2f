// Every kind of state store that a configuration can name is opened, checked and looked at in one place.
import { describe, expect, test } from 'vitest';
import { checkConfig, type CheckedConfig, type IngestConfig } from '../../src/config/config.js';
import { keepsState, openStateAccess, openStore, storeFindings } from '../../src/stores/stores.js';
import { FakeSource, Journal } from '../support/fakes.js';

const places: readonly NonNullable<IngestConfig['state']>[] = [
  { store: 'keeper', connect: '127.0.0.1:1' },
  { store: 'keeper-map' },
  { store: 'kafka' },
  { store: 'memory', allowVolatile: true },
];

const configOf = (state: IngestConfig['state'], delivery: IngestConfig['delivery'] = 'exactly-once'): CheckedConfig =>
  checkConfig({
    kafka: { brokers: ['127.0.0.1:1'], groupId: 'g' },
    clickhouse: { url: 'http://127.0.0.1:1' },
    ...(state === undefined ? {} : { state }),
    delivery,
    routes: [{ topic: 't', table: 't' }],
  });

/** As the source of a group is: it commits with metadata, under an assignment. */
function groupSource() {
  return Object.assign(new FakeSource(new Journal()), {
    assignmentOf: () => undefined,
    committed: () => Promise.resolve({ next: undefined, metadata: '' }),
    commitOnce: () => Promise.resolve(),
  });
}

const open = (config: CheckedConfig, source = groupSource()) => openStore(config, source, () => undefined);

describe('a store', () => {
  test.each(places)('$store is opened under a pipeline, and nothing is connected to', async (place) => {
    const source = groupSource();
    const opened = open(configOf(place), source);
    expect(opened.store?.name).toBe(place.store);
    // Commits of one's own would wipe the states that lie beside the offsets.
    expect(opened.source === source).toBe(place.store !== 'kafka');
    await opened.store?.close();
  });

  test.each(places)('$store is opened for people too, if it outlives its process', async (place) => {
    const config = configOf(place);
    expect(keepsState(config)).toBe(place.store !== 'memory');
    if (!keepsState(config)) {
      expect(() => openStateAccess(config)).toThrow(/no state to look at: state\.store is "memory".*use "keeper"/);
      return;
    }
    const access = openStateAccess(config);
    expect(access.name).toBe(place.store);
    await access.close();
  });

  test('keeper-map is where the rows go', () => {
    const config = configOf({ store: 'keeper-map', table: 'states' });
    const broken = { ...config, clickhouse: { ...config.clickhouse, url: 'nowhere' } };
    expect(() => open(broken)).toThrow(/url/);
  });

  test('kafka needs a source that is in a group: one’s own is refused', () => {
    const own = new FakeSource(new Journal()) as unknown as ReturnType<typeof groupSource>;
    expect(() => open(configOf({ store: 'kafka' }), own)).toThrow(/the source is in none of ours/);
  });
});

describe('without a state', () => {
  test.each(places)('another delivery opens, checks and shows none, though $store is named', async (place) => {
    const config = configOf(place, 'at-least-once');
    expect(open(config).store).toBeUndefined();
    expect(await storeFindings(config, Promise.resolve())).toEqual([]);
    expect(keepsState(config)).toBe(false);
    expect(() => openStateAccess(config)).toThrow(/delivery is "at-least-once"/);
  });
});

describe('the check before a start', () => {
  test('warns of a store that dies with the process', async () => {
    expect(await storeFindings(configOf({ store: 'memory', allowVolatile: true }), Promise.resolve())).toMatchObject([
      { level: 'warning', what: 'state store', todo: 'use "keeper"' },
    ]);
  });

  test('of the store in the group waits for the check of its commits, and is refused with it', async () => {
    const refused = Promise.reject(new Error('no right to commit'));
    expect(await storeFindings(configOf({ store: 'kafka' }), refused)).toMatchObject([
      { level: 'refusal', code: 'KCR_PREFLIGHT', detail: 'the check failed: no right to commit' },
    ]);
  });

  test('is a refusal where nothing answers', async () => {
    const config = configOf({ store: 'keeper-map', requestTimeoutMs: 100 });
    expect(await storeFindings(config, Promise.resolve())).toMatchObject([
      { level: 'refusal', code: 'KCR_STORE_UNREACHABLE' },
    ]);
  });
});
