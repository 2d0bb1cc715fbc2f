// A configuration that cannot be used is refused with what, where and what to do.
import zlib from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { checkConfig } from '../../src/config/config.js';
import { IngestError } from '../../src/errors.js';
import { sourceSettings } from '../../src/kafka/options.js';

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
  expect(checkConfig(good, {})).toEqual({
    ...good,
    maxPending: 2,
    onGap: 'halt',
    onReset: 'halt',
    onPoison: 'halt',
    onUnknownField: 'ignore',
    heal: { minDelayMs: 10_000, maxDelayMs: 300_000 },
    retry: {},
  });
});

describe('a mistake is named by its place', () => {
  test.each([
    [
      'an unknown key at the top',
      { ...good, deliver: 1 },
      /\(the whole\): unknown key "deliver"; known here: .*delivery/,
    ],
    [
      'an unknown key below',
      { ...good, batch: { counts: 1 } },
      /batch: unknown key "counts"; known here: count, bytes, maxWaitMs/,
    ],
    [
      'an unknown key in a route',
      { ...good, routes: [{ topic: 'a', table: 'b', tabel: 'c' }] },
      /routes\[0\]: unknown key "tabel"/,
    ],
    [
      'an unknown key of a store',
      { ...good, state: { ...good.state, url: 'x' } },
      /state: unknown key "url"; known here: .*connect/,
    ],
    [
      'a key of the store that has none',
      { ...good, state: { store: 'kafka', path: '/x' } },
      /state: unknown key "path"/,
    ],
    ['a wrong type', { ...good, kafka: { ...good.kafka, groupId: 5 } }, /kafka\.groupId: .*expected string/],
    ['a delivery nobody knows', { ...good, delivery: 'maybe' }, /delivery: .*at-most-once/],
    ['no routes', { ...good, routes: [] }, /routes: /],
    ['a batch beyond a block', { ...good, batch: { count: 1e9 } }, /batch\.count: /],
    [
      'an address without a scheme',
      { ...good, clickhouse: { url: 'localhost:8123' } },
      /clickhouse\.url: expected an http/,
    ],
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
    expect(checkConfig({ ...good, state: { store: 'memory', allowVolatile: true } }, {}).state).toMatchObject({
      store: 'memory',
    });
  });

  test("the state in Kafka's own offsets needs nothing further", () => {
    expect(checkConfig({ ...good, state: { store: 'kafka' } }, {}).state).toEqual({ store: 'kafka' });
  });

  test('one topic in two routes', () => {
    expect(refusal({ ...good, routes: [...good.routes, { topic: 'flights', table: 'other' }] })).toMatch(
      /topic flights stands in two routes/,
    );
  });

  test('inserts that wait for others without a token, and how long they wait where they do not', () => {
    const coalesced = { ...good, clickhouse: { ...good.clickhouse, insertMode: 'coalesced', coalesceMs: 100 } };
    expect(checkConfig(coalesced, {}).clickhouse).toMatchObject({ insertMode: 'coalesced', coalesceMs: 100 });
    expect(refusal({ ...coalesced, delivery: 'at-least-once' })).toMatch(
      /insertMode: "coalesced" with delivery "at-least-once"/,
    );
    expect(refusal({ ...good, clickhouse: { ...good.clickhouse, coalesceMs: 100 } })).toMatch(
      /coalesceMs: without effect/,
    );
    expect(refusal({ ...good, clickhouse: { ...good.clickhouse, insertMode: 'async' } })).toMatch(
      /clickhouse\.insertMode/,
    );
  });

  test('what an adapter alone refused, told by its place before anything is opened', () => {
    const clickhouse = { ...good.clickhouse, insertMode: 'coalesced', coalesceMs: 600, requestTimeoutMs: 1_000 };
    expect(refusal({ ...good, clickhouse })).toMatch(
      /clickhouse\.coalesceMs: expected at most half of `requestTimeoutMs`$/m,
    );
    const kafka = { ...good.kafka, drainTimeoutMs: 9_500, rebalanceTimeoutMs: 10_000 };
    expect(refusal({ ...good, kafka })).toMatch(
      /kafka\.drainTimeoutMs: expected less than rebalanceTimeoutMs \(10000\) by more than heartbeatIntervalMs \(1000\)/,
    );
    expect(refusal({ ...good, state: { ...good.state, path: '/a/../b' } })).toMatch(
      /state\.path: expected an absolute/,
    );
  });

  test('what the configuration takes the adapter takes: a budget of more than 2 GiB', () => {
    const { kafka } = checkConfig({ ...good, kafka: { ...good.kafka, budgetBytes: 4 * 1024 ** 3 } }, {});
    expect(sourceSettings({ ...kafka, topics: ['flights'] }).budgetBytes).toBe(4 * 1024 ** 3);
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
    const config = checkConfig(
      { ...good, clickhouse: { url: 'http://${HOST}:${PORT}' } },
      { HOST: 'ch', PORT: '8123' },
    );
    expect(config.clickhouse.url).toBe('http://ch:8123');
  });

  test('one that is not set is named, with the place that asks for it', () => {
    expect(refusal({ ...good, clickhouse: { url: 'http://ch', password: '${SECRET}' } })).toMatch(
      /clickhouse\.password: .*no variable SECRET/,
    );
  });
});

describe('G9: a configuration as people write it', () => {
  const world = {
    BATCH: '500',
    WAIT: ' 20 ',
    YES: 'true',
    HOSTS: 'a:9092, b:9092,',
    EMPTY: '',
    ROUTES: '[{"topic":"a","table":"b"}]',
    SECRET: 'p${HOSTS}$${,:"',
  };
  const files: Record<string, string> = {
    '/run/secrets/ch': 'from file\n',
    '/run/secrets/true': '\uFEFFtrue\r\n',
    '/run/secrets/odd': 'a${HOSTS}b',
  };
  const read = (path: string) => {
    if (path in files) return files[path]!;
    throw Object.assign(new Error(`ENOENT: hunter2`), { code: 'ENOENT' });
  };
  const checked = (change: object) => checkConfig({ ...good, ...change }, world, read);

  test('numbers, booleans, lists and whole objects come from the environment', () => {
    expect(checked({ batch: { count: '${BATCH}', maxWaitMs: '${WAIT}' } }).batch).toEqual({
      count: 500,
      maxWaitMs: 20,
    });
    expect(checked({ kafka: { ...good.kafka, fromBeginning: '${YES}', ssl: '${YES}' } }).kafka).toMatchObject({
      fromBeginning: true,
      ssl: true,
    });
    expect(checked({ kafka: { ...good.kafka, brokers: '${HOSTS}' } }).kafka.brokers).toEqual(['a:9092', 'b:9092']);
    expect(checked({ kafka: { ...good.kafka, brokers: ['c:1', '${HOSTS}'] } }).kafka.brokers).toEqual([
      'c:1',
      'a:9092',
      'b:9092',
    ]);
    expect(checked({ routes: '${ROUTES}' }).routes).toEqual([{ topic: 'a', table: 'b' }]);
    expect(checked({ state: { store: 'memory', allowVolatile: '${YES}' } }).state).toMatchObject({
      allowVolatile: true,
    });
    expect(checked({ maxPending: '${EMPTY:-3}' }).maxPending).toBe(3);
  });

  test('text stays text, also where it looks like a number or like a reference', () => {
    expect(checked({ kafka: { ...good.kafka, groupId: '${BATCH}' } }).kafka.groupId).toBe('500');
    expect(checked({ clickhouse: { ...good.clickhouse, password: '${SECRET}' } }).clickhouse.password).toBe(
      'p${HOSTS}$${,:"',
    );
    expect(checked({ clickhouse: { ...good.clickhouse, password: 'a$${b}' } }).clickhouse.password).toBe('a${b}');
    expect(checked({ clickhouse: { ...good.clickhouse, settings: { a: '${BATCH}' } } }).clickhouse.settings).toEqual({
      a: '500',
    });
  });

  test('a default stands in where the variable is not there or empty', () => {
    expect(checked({ clickhouse: { url: 'http://${HOST:-ch}:${PORT:-8123}' } }).clickhouse.url).toBe('http://ch:8123');
    expect(checked({ clickhouse: { ...good.clickhouse, password: '${EMPTY}' } }).clickhouse.password).toBe('');
  });

  test('a secret comes from its file, without the line feed at its end', () => {
    expect(
      checked({ clickhouse: { ...good.clickhouse, password: '${file:/run/secrets/ch}' } }).clickhouse.password,
    ).toBe('from file');
    expect(
      checked({ clickhouse: { ...good.clickhouse, password: '${file:${DIR:-/run/secrets}/ch}' } }).clickhouse.password,
    ).toBe('from file');
    expect(
      checked({ clickhouse: { ...good.clickhouse, password: '${file:/run/secrets/odd}' } }).clickhouse.password,
    ).toBe('a${HOSTS}b');
    expect(checked({ kafka: { ...good.kafka, fromBeginning: '${file:/run/secrets/true}' } }).kafka.fromBeginning).toBe(
      true,
    );
    expect(() => checked({ clickhouse: { ...good.clickhouse, password: '${file:/nowhere}' } })).toThrow(
      /clickhouse\.password: the file \/nowhere cannot be read \(ENOENT\)/,
    );
  });

  test('what does not fit stays refused at its place, without its value', () => {
    const refused = (change: object, says: RegExp) => {
      expect(() => checked(change)).toThrow(says);
      expect(() => checked(change)).not.toThrow(/hunter2/);
    };
    refused({ batch: { count: '${X:-hunter2}' } }, /batch\.count: /);
    refused({ kafka: { ...good.kafka, fromBeginning: '${X:-hunter2}' } }, /kafka\.fromBeginning: /);
    refused({ routes: '${X:-[hunter2}' }, /routes: /);
    refused(
      { clickhouse: { ...good.clickhouse, password: '${hunter2 }' } },
      /clickhouse\.password: a \$\{ that begins nothing that is known/,
    );
    refused({ batch: { count: '5' } }, /batch\.count: .*number/);
    refused(
      { clickhouse: { ...good.clickhouse, 'pass hunter2': 1, hunter2: null } },
      /clickhouse: unknown key \(not shown.*known here: url/,
    );
    refused({ delivery: 'hunter2' }, /delivery: /);
  });

  test('an IPv6 broker, and the key by which editors find the schema', () => {
    expect(
      checked({
        $schema: './node_modules/kafka-clickhouse-rx/config.schema.json',
        kafka: { ...good.kafka, brokers: ['[::1]:9092'] },
      }).kafka.brokers,
    ).toEqual(['[::1]:9092']);
  });
});

describe('the way to ClickHouse', () => {
  const { clickhouse } = good;
  const secure = { ...clickhouse, url: 'https://ch:8443' };

  test.each([
    [
      'a path for a certificate',
      { ...secure, tls: { ca: '/etc/ssl/hunter2.pem' } },
      /clickhouse\.tls\.ca: expected certificates in PEM.*\$\{file:\/path\}/s,
    ],
    [
      'a word for an option of Node',
      { ...secure, tls: { rejectUnauthorized: false } },
      /clickhouse\.tls: unknown key "rejectUnauthorized"; known here: .*insecureSkipVerify/,
    ],
    ['TLS without https://', { ...clickhouse, tls: {} }, /clickhouse\.tls: without effect: the url is http:\/\//],
    [
      'a proxy of another kind',
      { ...clickhouse, proxy: { url: 'socks5://me:hunter2@h:1080' } },
      /clickhouse\.proxy\.url: expected an http/,
    ],
    [
      'two passwords for a proxy',
      { ...clickhouse, proxy: { url: 'http://me:hunter2@h', password: 'hunter3' } },
      /clickhouse\.proxy\.password: another one stands in clickhouse\.proxy\.url/,
    ],
    [
      'a header of ours',
      { ...clickhouse, headers: { Host: 'hunter2' } },
      /clickhouse\.headers\.Host: it is set for each request/,
    ],
    ['a compression nobody knows', { ...clickhouse, compression: 'lz4' }, /clickhouse\.compression: /],
  ])('%s is refused by its place, without the value', (_what, changed, says) => {
    const message = refusal({ ...good, clickhouse: changed });
    expect(message).toMatch(says);
    expect(message).not.toMatch(/hunter[23]/);
  });

  test("a proxy's user and password in its url are used, and stand in no url that is told", () => {
    expect(
      checkConfig({ ...good, clickhouse: { ...clickhouse, proxy: { url: 'http://me:p%40ss@proxy:3128' } } }, {})
        .clickhouse.proxy,
    ).toEqual({ url: 'http://proxy:3128', username: 'me', password: 'p@ss' });
  });

  test('a header may hold a variable, and a route a database', () => {
    const config = checkConfig(
      {
        ...good,
        clickhouse: { ...clickhouse, headers: { authorization: 'Bearer ${TOKEN}' } },
        routes: [{ topic: 'a', table: 'b', database: '${DB}' }],
      },
      { TOKEN: 'x', DB: '7' },
    );
    expect([config.clickhouse.headers, config.routes[0]?.database]).toEqual([{ authorization: 'Bearer x' }, '7']);
  });

  test('zstd on a Node that has none is refused before the start', () => {
    const zstd = () => checkConfig({ ...good, clickhouse: { ...clickhouse, compression: 'zstd' } }, {});
    if ('createZstdCompress' in zlib) expect(zstd).not.toThrow();
    else expect(zstd).toThrow(/clickhouse\.compression: zstd needs Node 22\.15 or later/);
  });
});

describe('F8: credentials in clickhouse.url', () => {
  const { database } = good.clickhouse;
  const withUrl = (url: string, more: object = {}) =>
    checkConfig({ ...good, clickhouse: { url, database, ...more } }, {}).clickhouse;

  test('are used, and stand in no url that is told', () => {
    expect(withUrl('http://me:p%40ss@ch:8123')).toEqual({
      url: 'http://ch:8123',
      database,
      username: 'me',
      password: 'p@ss',
    });
    expect(withUrl('https://me:secret@ch/proxy/')).toMatchObject({
      url: 'https://ch/proxy/',
      username: 'me',
      password: 'secret',
    });
    expect(withUrl('http://me@ch:8123', { password: 'x' })).toMatchObject({ username: 'me', password: 'x' });
    expect(withUrl('http://ch:8123')).toMatchObject({ username: 'default', password: '' });
  });

  test('given twice they must be the same', () => {
    expect(withUrl('http://me:secret@ch', { username: 'me', password: 'secret' })).toMatchObject({ username: 'me' });
    for (const more of [{ username: 'zoe' }, { password: 'hunter2' }, { password: '' }]) {
      expect(() => withUrl('http://me:secret@ch', more)).toThrow(
        /clickhouse\.(username|password): another one stands in clickhouse\.url/,
      );
      expect(() => withUrl('http://me:secret@ch', more)).not.toThrow(/secret|hunter2|zoe/);
    }
  });

  test('that cannot be read are refused without being shown', () => {
    expect(() => withUrl('http://me:100%secret@ch')).toThrow(/% that begins no code/);
    expect(() => withUrl('http://me:sec/ret@ch:x')).not.toThrow(/sec/);
  });
});
