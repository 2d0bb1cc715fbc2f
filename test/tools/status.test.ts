import { describe, expect, test } from 'vitest';
import { checkConfig, type IngestConfig } from '../../src/config/config.js';
import { openStateAccess } from '../../src/stores/stores.js';
import { lagOf, selectPartitions, selectTopics, type PartitionStatus } from '../../src/tools/status.js';

const config = (more: Partial<IngestConfig> = {}) =>
  checkConfig({
    kafka: { brokers: ['127.0.0.1:1'], groupId: 'g' },
    clickhouse: { url: 'http://127.0.0.1:1' },
    delivery: 'exactly-once',
    state: { store: 'keeper', connect: '127.0.0.1:1' },
    routes: [
      { topic: 'a', table: 'a' },
      { topic: 'b', table: 'b' },
    ],
    ...more,
  });

describe('what cannot be looked at is refused in words', () => {
  test.each<[Partial<IngestConfig>, RegExp]>([
    [{ state: { store: 'memory', allowVolatile: true } }, /"memory", which only the process that runs can see/],
    [{ delivery: 'at-least-once' }, /delivery is "at-least-once".*kafka-consumer-groups/],
  ])('%j', (more, why) => {
    expect(() => openStateAccess(config(more))).toThrow(why);
  });

  test('a topic without a route, and a partition that is not there', () => {
    expect(() => selectTopics(config(), { topic: 'c' })).toThrow(/no route for the topic c.*a, b/);
    expect(() => selectPartitions([{ topic: 'a', partition: 0 }], { partition: 1 })).toThrow(/no partition 1/);
  });
});

test.each(['keeper', 'keeper-map', 'kafka'] as const)('%s is a store that can be looked at', async (store) => {
  const state = { keeper: { store, connect: '127.0.0.1:1' }, 'keeper-map': { store }, kafka: { store } }[
    store
  ] as NonNullable<IngestConfig['state']>;
  const access = openStateAccess(config({ state }));
  expect(access.name).toBe(store);
  await access.close();
});

test('topics and partitions that are meant', () => {
  const all = [0, 1].flatMap((partition) => ['a', 'b'].map((topic) => ({ topic, partition })));
  expect(selectTopics(config(), {})).toEqual(['a', 'b']);
  expect(selectTopics(config(), { topic: 'b' })).toEqual(['b']);
  expect(selectPartitions(all, {})).toEqual(all);
  expect(selectPartitions(all, { partition: 1 })).toEqual([
    { topic: 'a', partition: 1 },
    { topic: 'b', partition: 1 },
  ]);
});

const intent = { first: 30, last: 39, rows: 10, atMs: 0, settings: '', tables: [], excluded: [] };
const at = (settled: number | undefined, more: Partial<PartitionStatus> = {}): PartitionStatus => ({
  key: { cluster: 'c', group: 'g', topic: 'a', partition: 0 },
  topic: 'a',
  partition: 0,
  logStart: 10,
  logEnd: 50,
  stableEnd: 50,
  committed: 20,
  stored: {
    state: {
      settled,
      pending: settled === undefined ? [] : [{ ...intent, first: settled + 1 }],
      incarnation: 0,
      topicId: undefined,
    },
    owner: 'o',
  },
  ...more,
});

test.each([
  ['what is in doubt is not done', at(29), 20],
  ['without a state the group tells', at(29, { stored: undefined }), 30],
  ['with a state that knows nothing too', at(undefined), 30],
  ['without either all that the log holds', at(29, { stored: undefined, committed: undefined }), 40],
  ['what retention took is not left to do', at(5), 40],
  ['all done', at(49), 0],
])('lag: %s', (_name, look, lag) => expect(lagOf(look)).toBe(lag));
