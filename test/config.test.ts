// A configuration that cannot be used is refused with what, where and what to do.
import { describe, expect, test } from 'vitest';
import { checkConfig } from '../src/config.js';
import { IngestError } from '../src/errors.js';

const good = {
  kafka: { brokers: ['127.0.0.1:9092'], groupId: 'flights', fromBeginning: true },
  clickhouse: { url: 'http://127.0.0.1:8123', database: 'default', username: 'default', password: '' },
  state: { store: 'keeper', connect: '127.0.0.1:2181', path: '/kafka-clickhouse-rx' },
  delivery: 'exactly-once',
  routes: [{ topic: 'flights', table: 'flights' }],
  batch: { count: 100000, bytes: 33554432, maxWaitMs: 1000 },
};

function refusal(config: unknown): string {
  try {
    checkConfig(config, {});
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(IngestError);
    expect((thrown as IngestError).code).toBe('KCR_CONFIG');
    return (thrown as IngestError).message;
  }
  throw new Error('it was not refused');
}

test('the configuration of the README is taken as it stands, with its defaults filled in', () => {
  expect(checkConfig(good, {})).toEqual({ ...good, maxPending: 2, onGap: 'halt', onReset: 'halt', onPoison: 'halt', retry: {} });
});

describe('a mistake is named by its place', () => {
  test.each([
    ['an unknown key at the top', { ...good, deliver: 1 }, /\(the whole\): unknown key "deliver"; known here: .*delivery/],
    ['an unknown key below', { ...good, batch: { counts: 1 } }, /batch: unknown key "counts"; known here: count, bytes, maxWaitMs/],
    ['an unknown key in a route', { ...good, routes: [{ topic: 'a', table: 'b', tabel: 'c' }] }, /routes\[0\]: unknown key "tabel"/],
    ['an unknown key of a store', { ...good, state: { ...good.state, url: 'x' } }, /state: unknown key "url"; known here: .*connect/],
    ['a key of the store that has none', { ...good, state: { store: 'kafka', path: '/x' } }, /state: unknown key "path"/],
    ['a wrong type', { ...good, kafka: { ...good.kafka, groupId: 5 } }, /kafka\.groupId: .*expected string/],
    ['a delivery nobody knows', { ...good, delivery: 'maybe' }, /delivery: .*at-most-once/],
    ['no routes', { ...good, routes: [] }, /routes: /],
    ['a batch beyond a block', { ...good, batch: { count: 1e9 } }, /batch\.count: /],
    ['an address without a scheme', { ...good, clickhouse: { url: 'localhost:8123' } }, /clickhouse\.url: expected an http/],
    ['not an object at all', 'flights', /\(the whole\)/],
  ])('%s', (_what, config, says) => {
    expect(refusal(config)).toMatch(says);
  });
});

describe('what does not fit together is refused, since it would lose or double rows', () => {
  test('exactly-once without a state', () => {
    const { state: _state, ...rest } = good;
    expect(refusal(rest)).toMatch(/state: missing.*What to do: add "state"/s);
    expect(checkConfig({ ...rest, delivery: 'at-least-once' }, {}).state).toBeUndefined();
  });

  test('exactly-once with a state that dies with the process, unless one says that one knows', () => {
    expect(refusal({ ...good, state: { store: 'memory' } })).toMatch(/forgets what is in doubt/);
    expect(checkConfig({ ...good, state: { store: 'memory', allowVolatile: true } }, {}).state).toMatchObject({ store: 'memory' });
  });

  test("the state in Kafka's own offsets needs nothing further", () => {
    expect(checkConfig({ ...good, state: { store: 'kafka' } }, {}).state).toEqual({ store: 'kafka' });
  });

  test('one topic in two routes', () => {
    expect(refusal({ ...good, routes: [...good.routes, { topic: 'flights', table: 'other' }] })).toMatch(/topic flights stands in two routes/);
  });

  test('inserts that wait for others without a token, and how long they wait where they do not', () => {
    const coalesced = { ...good, clickhouse: { ...good.clickhouse, insertMode: 'coalesced', coalesceMs: 100 } };
    expect(checkConfig(coalesced, {}).clickhouse).toMatchObject({ insertMode: 'coalesced', coalesceMs: 100 });
    expect(refusal({ ...coalesced, delivery: 'at-least-once' })).toMatch(/insertMode: "coalesced" with delivery "at-least-once"/);
    expect(refusal({ ...good, clickhouse: { ...good.clickhouse, coalesceMs: 100 } })).toMatch(/coalesceMs: without effect/);
    expect(refusal({ ...good, clickhouse: { ...good.clickhouse, insertMode: 'async' } })).toMatch(/clickhouse\.insertMode/);
  });

  test('a drain that outlasts the rebalance', () => {
    expect(refusal({ ...good, kafka: { ...good.kafka, drainTimeoutMs: 60_000 } })).toMatch(/drainTimeoutMs/);
  });

  test('heartbeats rarer than half of the session time-out', () => {
    expect(refusal({ ...good, kafka: { ...good.kafka, sessionTimeoutMs: 1_500 } })).toMatch(/heartbeatIntervalMs/);
  });
});

describe('${NAME} takes an environment variable', () => {
  test('anywhere in a string, several times', () => {
    const config = checkConfig({ ...good, clickhouse: { url: 'http://${HOST}:${PORT}' } }, { HOST: 'ch', PORT: '8123' });
    expect(config.clickhouse.url).toBe('http://ch:8123');
  });

  test('one that is not set is named, with the place that asks for it', () => {
    expect(refusal({ ...good, clickhouse: { url: 'http://ch', password: '${SECRET}' } })).toMatch(/clickhouse\.password: .*no variable SECRET/);
  });
});
