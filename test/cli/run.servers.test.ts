// The program on real servers, as a user starts and stops it.
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test, vi } from 'vitest';
import { commitToEmptyGroup } from '../../src/kafka/group-admin.js';
import { command, committedOffsets, createTopic, deleteRecordsBefore, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { configFile, program, Program, runConfig } from './program.js';

const stack = () => sharedStack();

interface Place {
  readonly topic: string;
  readonly table: string;
  readonly group: string;
}

/** A topic and a table of one's own, and the configuration of the README for them. */
async function place(
  options: { readonly partitions?: number; readonly table?: string | false; readonly topic?: false } = {},
): Promise<Place & { readonly config: Config }> {
  const name = `cli_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl } = stack();
  if (options.topic !== false) await createTopic(brokers, name, { partitions: options.partitions ?? 2 });
  if (options.table !== false) await command(clickhouseUrl, options.table?.replace('{table}', name) ?? goodTable(name));
  return { topic: name, table: name, group: name, config: readmeConfig(name) };
}

const goodTable = (name: string) =>
  `CREATE TABLE ${name} (id UInt64, text String, _topic String, _partition UInt32, _offset UInt64)
   ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`;

type Config = ReturnType<typeof readmeConfig>;

function readmeConfig(name: string) {
  const { brokers, clickhouseUrl, keeperConnect } = stack();
  return {
    kafka: { brokers, groupId: name, fromBeginning: true },
    clickhouse: { url: clickhouseUrl, database: 'default', username: 'default', password: '' },
    state: { store: 'keeper', connect: keeperConnect, path: '/kafka-clickhouse-rx' },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { count: 100000, bytes: 33554432, maxWaitMs: 100 },
  };
}

const events = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => ({
    key: `k${from + i}`,
    value: JSON.stringify({ id: from + i, text: `event ${from + i}` }),
  }));

async function rowsOf({ table }: Place): Promise<number> {
  const [row] = await query<{ n: number }>(stack().clickhouseUrl, `SELECT count() AS n FROM ${table}`);
  return row?.n ?? 0;
}

/** Rows by record: how many records have a row, and how many rows there are. */
async function exactness({ table }: Place): Promise<{ rows: number; distinct: number }> {
  const [row] = await query<{ rows: number; distinct: number }>(
    stack().clickhouseUrl,
    `SELECT count() AS rows, uniqExact(_topic, _partition, _offset) AS distinct FROM ${table}`,
  );
  return row!;
}

const committed = async ({ topic, group }: Place): Promise<number[]> =>
  (await committedOffsets(stack().brokers, group, topic)).map(Number);

describe('the program ingests', () => {
  test('the configuration of the README works as it stands, and SIGTERM loses nothing', async () => {
    const at = await place();
    await produce(stack().brokers, at.topic, events(0, 500));
    const running = runConfig(at.config);
    await running.until(async () => (await rowsOf(at)) === 500, '500 rows were there');
    await produce(stack().brokers, at.topic, events(500, 100));
    running.signal('SIGTERM');
    const { code, stdout } = await running.ended;
    expect(code).toBe(0);
    expect(stdout).toBe('');
    const again = runConfig(at.config);
    await again.until(async () => again.stderr.includes('claimed') && (await rowsOf(at)) === 600, 'the rest was there');
    again.signal('SIGTERM');
    expect((await again.ended).code).toBe(0);
    expect(await exactness(at)).toEqual({ rows: 600, distinct: 600 });
    expect((await committed(at)).reduce((a, b) => a + b)).toBe(600);
  });

  test('a SIGKILL in the middle loses nothing and doubles nothing', async () => {
    const at = await place();
    const config = {
      ...at.config,
      kafka: { ...at.config.kafka, sessionTimeoutMs: 2_000, heartbeatIntervalMs: 300 },
      batch: { count: 50, maxWaitMs: 20 },
    };
    await produce(stack().brokers, at.topic, events(0, 5_000));
    for (const goal of [500, 2_000]) {
      const running = runConfig(config);
      await running.until(async () => (await rowsOf(at)) >= goal, `${goal} rows were there`);
      running.signal('SIGKILL');
      expect((await running.ended).signal).toBe('SIGKILL');
    }
    const last = runConfig(config);
    await last.until(async () => (await exactness(at)).distinct === 5_000, 'every record was there');
    last.signal('SIGTERM');
    expect((await last.ended).code).toBe(0);
    expect(await exactness(at)).toEqual({ rows: 5_000, distinct: 5_000 });
  });

  test('with its state in a KeeperMap table it is killed and goes on as with Keeper', async () => {
    const at = await place();
    const config = {
      ...at.config,
      state: { store: 'keeper-map', table: `state_${at.table}`, path: `/${at.table}` },
      kafka: { ...at.config.kafka, sessionTimeoutMs: 2_000, heartbeatIntervalMs: 300 },
      batch: { count: 100, maxWaitMs: 20 },
    };
    await produce(stack().brokers, at.topic, events(0, 3_000));
    const first = runConfig(config);
    await first.until(async () => (await rowsOf(at)) >= 500, '500 rows were there');
    first.signal('SIGKILL');
    await first.ended;
    const second = runConfig(config);
    await second.until(
      async () => second.stderr.includes('claimed') && (await exactness(at)).distinct === 3_000,
      'every record was there',
    );
    second.signal('SIGTERM');
    expect((await second.ended).code).toBe(0);
    expect(await exactness(at)).toEqual({ rows: 3_000, distinct: 3_000 });
    expect(await query(stack().clickhouseUrl, `SELECT count() AS n FROM state_${at.table}`)).toEqual([{ n: 2 }]);
  });

  test.each(['at-most-once', 'at-least-once'])(
    '%s needs no state, and inserts equal batches twice when they are produced twice',
    async (delivery) => {
      const at = await place({ partitions: 1 });
      const { state: _state, ...rest } = at.config;
      const running = runConfig({ ...rest, delivery });
      await produce(stack().brokers, at.topic, events(0, 10));
      await running.until(async () => (await rowsOf(at)) === 10, 'the first ten were there');
      await produce(stack().brokers, at.topic, events(0, 10));
      await running.until(async () => (await rowsOf(at)) === 20, 'the second ten were there');
      running.signal('SIGTERM');
      expect((await running.ended).code).toBe(0);
    },
  );

  test('an ESM configuration may hold a transform, and "${NAME}" takes the environment', async () => {
    const at = await place();
    const text = `export default ${JSON.stringify({ ...at.config, clickhouse: { url: '${MY_CLICKHOUSE}' } })};`.replace(
      `"table":"${at.table}"}`,
      `"table":"${at.table}", transform: (record) => { const row = JSON.parse(String(record.value)); return row.id % 2 ? null : { ...row, text: row.text + '!' }; } }`,
    );
    await produce(stack().brokers, at.topic, events(0, 100));
    const running = program(['run', configFile(text, 'config.mjs')], { MY_CLICKHOUSE: stack().clickhouseUrl });
    await running.until(async () => (await rowsOf(at)) === 50, 'the even half was there');
    running.signal('SIGINT');
    expect((await running.ended).code).toBe(0);
    expect(await query(stack().clickhouseUrl, `SELECT text FROM ${at.table} WHERE id = 4`)).toEqual([
      { text: 'event 4!' },
    ]);
  });
});

describe('a record that cannot be inserted', () => {
  test.each([
    ['the table refuses its value', '{"id":"not a number"}', /at row|id/],
    ['it is not JSON', 'hello', /JSON object/],
    ['it is empty', '', /JSON object/],
    ['it is two objects', '{"id":1}{"id":2}', /JSON object/],
    ['it is a tombstone', null, /tombstone/],
  ])(
    'because %s: its partition halts, named by topic, partition and offset, the others go on, and the exit code says so',
    async (_why, value, reason) => {
      const at = await place({ partitions: 2 });
      await produce(stack().brokers, at.topic, [
        ...events(0, 3).map((event) => ({ ...event, partition: 1 })),
        { value, partition: 1 },
        ...events(10, 3).map((event) => ({ ...event, partition: 0 })),
      ]);
      const running = runConfig(at.config);
      await running.until(() => running.stderr.includes('halted'), 'the partition halted');
      await produce(
        stack().brokers,
        at.topic,
        events(20, 5).map((event) => ({ ...event, partition: 0 })),
      );
      await running.until(async () => (await rowsOf(at)) >= 8, 'the other partition went on');
      running.signal('SIGTERM');
      const { code, stderr } = await running.ended;
      expect(code).toBe(4);
      const line = stderr.split('\n').find((each) => each.includes('KCR_POISON'))!;
      expect(JSON.parse(line)).toMatchObject({ code: 'KCR_POISON', topic: at.topic, partition: 1, offset: 3 });
      expect(line).toMatch(reason);
      expect((await committed(at))[1]).toBeLessThanOrEqual(3);
    },
  );

  test('when every partition has halted the program ends by itself', async () => {
    const at = await place({ partitions: 1 });
    await produce(stack().brokers, at.topic, ['nonsense']);
    expect((await runConfig(at.config).ended).code).toBe(4);
    expect(await rowsOf(at)).toBe(0);
  });
});

describe('before a single record is taken, the program refuses', () => {
  const refusal = async (config: unknown, code: number, ...says: readonly RegExp[]) => {
    const ended = await runConfig(config).ended;
    expect({ code: ended.code, stderr: ended.stderr }).toEqual({
      code,
      stderr: expect.stringMatching(says[0]!) as string,
    });
    for (const text of says) expect(ended.stderr).toMatch(text);
    expect(ended.stderr).not.toMatch(/^\s+at .*\.js:\d+/m);
  };

  test('an unknown key, naming it and what is known there', async () => {
    const { config } = await place({ table: false, topic: false });
    await refusal(
      { ...config, batch: { size: 5 } },
      2,
      /batch: unknown key "size"; known here: count, bytes, maxWaitMs/,
    );
  });

  test('a value of the wrong type, naming its place', async () => {
    const { config } = await place({ table: false, topic: false });
    await refusal({ ...config, kafka: { ...config.kafka, brokers: '127.0.0.1:9092' } }, 2, /kafka\.brokers/);
  });

  test('a file that is not there', async () => {
    const ended = await program(['run', '/nowhere/config.json']).ended;
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(/nowhere\/config\.json/);
  });

  test('a Kafka that does not answer', async () => {
    const { config } = await place();
    await refusal(
      { ...config, kafka: { ...config.kafka, brokers: ['127.0.0.1:1'] } },
      3,
      /KCR_KAFKA_UNREACHABLE/,
      /127\.0\.0\.1:1/,
    );
  });

  test('a ClickHouse that does not answer', async () => {
    const { config } = await place();
    await refusal(
      { ...config, clickhouse: { url: 'http://127.0.0.1:1' } },
      3,
      /KCR_CLICKHOUSE_UNREACHABLE/,
      /127\.0\.0\.1:1/,
    );
  });

  test('a Keeper that does not answer', async () => {
    const { config } = await place();
    await refusal(
      { ...config, state: { ...config.state, connect: '127.0.0.1:1' } },
      3,
      /KCR_STORE_UNREACHABLE/,
      /127\.0\.0\.1:1/,
    );
  });

  test('a topic that is not there', async () => {
    const at = await place({ topic: false });
    await refusal(at.config, 3, /KCR_TOPIC_MISSING/, new RegExp(at.topic), /kafka-topics/);
  });

  test('a topic that is misspelt: the one that is there is named', async () => {
    const { config, topic } = await place();
    const routes = config.routes.map((route) => ({ ...route, topic: `${topic}x` }));
    await refusal({ ...config, routes }, 3, /KCR_TOPIC_MISSING/, new RegExp(`did you mean ${topic}\\b`));
  });

  test('a table that is not there', async () => {
    const at = await place({ table: false });
    await refusal(at.config, 3, /KCR_TABLE_MISSING/, new RegExp(at.table));
  });

  test('a table whose dedup window is 0, with the statement that mends it, which does', async () => {
    const at = await place({ table: 'CREATE TABLE {table} (id UInt64, text String) ENGINE = MergeTree ORDER BY id' });
    await produce(stack().brokers, at.topic, events(0, 5));
    const ended = await runConfig(at.config).ended;
    expect(ended.code).toBe(3);
    expect(await rowsOf(at)).toBe(0);
    const statement = /ALTER TABLE .* MODIFY SETTING non_replicated_deduplication_window = \d+/.exec(ended.stderr);
    expect(statement).not.toBeNull();
    await command(stack().clickhouseUrl, statement![0]);
    const running = runConfig(at.config);
    await running.until(async () => (await rowsOf(at)) === 5, 'the five rows were there');
    running.signal('SIGTERM');
    expect((await running.ended).code).toBe(0);
  });
});

describe('records that retention took before they were read', () => {
  test('stop the program, which names them; only onGap "continue" passes over them, and counts them', async () => {
    const at = await place({ partitions: 1 });
    await produce(stack().brokers, at.topic, events(0, 10));
    const first = runConfig(at.config);
    await first.until(async () => (await rowsOf(at)) === 10, 'the first ten were there');
    first.signal('SIGTERM');
    expect((await first.ended).code).toBe(0);
    await produce(stack().brokers, at.topic, events(10, 20));
    await deleteRecordsBefore(stack().brokers, at.topic, 0, 25n);

    const halted = await runConfig(at.config).ended;
    expect({ code: halted.code, stderr: halted.stderr }).toEqual({
      code: 5,
      stderr: expect.stringMatching(/KCR_OFFSET_RANGE.*Offset 10 is gone.*15 offsets.*onGap/) as string,
    });
    expect(await rowsOf(at)).toBe(10);

    const going = runConfig({ ...at.config, onGap: 'continue' });
    await going.until(async () => (await rowsOf(at)) === 15, 'what is left was there');
    going.signal('SIGTERM');
    const { code, stderr } = await going.ended;
    expect(code).toBe(0);
    expect(JSON.parse(stderr.trim().split('\n').at(-1)!)).toMatchObject({ msg: 'stopped', gone: 15, rows: 5 });
    expect(await committed(at)).toEqual([30]);
  });
});

describe('check', () => {
  const check = async (config: unknown, ...args: readonly string[]) =>
    program(['check', configFile(config), ...args]).ended;

  test('tells of everything at once, and takes no record', async () => {
    const at = await place();
    await produce(stack().brokers, at.topic, events(0, 5));
    const { code, stdout } = await check(at.config);
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.not.stringContaining('REFUSED') as string });
    for (const what of [
      `topic ${at.topic}: 2 partitions`,
      `group ${at.group}: 0 members, 0 of 2 partitions have an offset`,
      `dedup window of default.${at.table}`,
      'state store: Keeper at',
    ])
      expect(stdout).toContain(what);
    expect(await rowsOf(at)).toBe(0);
  });

  test('names all that is refused, not only the first, with what to do about each', async () => {
    const at = await place({
      topic: false,
      table: 'CREATE TABLE {table} (id UInt64, text String) ENGINE = MergeTree ORDER BY id',
    });
    const { code, stdout } = await check(
      { ...at.config, state: { ...at.config.state, connect: '127.0.0.1:1' } },
      '--json',
    );
    expect(code).toBe(3);
    const { findings } = JSON.parse(stdout) as { findings: { level: string; code?: string; todo?: string }[] };
    const refusals = findings.filter(({ level }) => level === 'refusal');
    expect(refusals.map((refusal) => refusal.code).sort()).toEqual([
      'KCR_DEDUP_WINDOW',
      'KCR_STORE_UNREACHABLE',
      'KCR_TOPIC_MISSING',
    ]);
    for (const { todo } of refusals) expect(todo).toBeTruthy();
  });

  test('warns of a committed offset outside of the log, which a start without a state would stumble over, and not of one at its edge', async () => {
    const at = await place({ partitions: 2 });
    const { brokers } = stack();
    await produce(
      brokers,
      at.topic,
      [0, 1].flatMap((partition) => events(0, 5).map((event) => ({ ...event, partition }))),
    );
    for (const partition of [0, 1]) await deleteRecordsBefore(brokers, at.topic, partition, 2n);
    const what = `group ${at.group}`;
    const commit = async (...offsets: readonly number[]) => {
      for (const [partition, next] of offsets.entries())
        await commitToEmptyGroup(
          { brokers, groupId: at.group, topics: [at.topic] },
          { topic: at.topic, partition, next, metadata: '' },
        );
    };

    await commit(5, 6);
    const past = await check(at.config);
    expect(past.stdout).toContain(
      `warning  ${what}: its offset 6 of ${at.topic}/1 is outside of the log, which holds 2 to 4\n           → the partition waits for a state, then it halts: see "state show", and look at onReset\n`,
    );
    expect(past.code).toBe(0);
    await commit(2, 1);
    const before = await check(at.config, '--json');
    expect(
      (JSON.parse(before.stdout) as { findings: { what: string }[] }).findings.filter(
        (finding) => finding.what === what,
      ),
    ).toEqual([
      {
        level: 'warning',
        what,
        detail: `${at.topic}/1 goes on at 1, and the log begins at 2: 1 offsets are gone, and the partition halts`,
        todo: 'look at onGap, and at the retention of the topic',
      },
    ]);
    expect(before.code).toBe(0);
  });
});

describe('signals', () => {
  test('a terminal that is closed (SIGHUP) drains: nothing that was taken stays in doubt', async () => {
    // The constraint makes the insert take two seconds, in which the second one comes.
    const slow = goodTable('{table}').replace('_offset UInt64)', '_offset UInt64, CONSTRAINT slow CHECK sleep(2) = 0)');
    const at = await place({ partitions: 1, table: slow });
    await produce(stack().brokers, at.topic, events(0, 10));
    const file = configFile(at.config);
    const log = `${file}.log`;
    const told = () => (existsSync(log) ? readFileSync(log, 'utf8') : '');
    const main = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
    // A terminal of its own, which is closed when `script` ends.
    const shell = `exec ${process.execPath} ${main} run ${file} --log-level debug 2> ${log}`;
    const terminal = new Program(['-qec', shell, '/dev/null'], {}, 'script');
    await terminal.until(() => told().includes('stateWritten'), 'the insert was under way');
    terminal.signal('SIGKILL');
    await terminal.ended;
    await vi.waitFor(() => expect(told()).toContain('"msg":"stopped"'), { timeout: 60_000, interval: 100 });
    expect(told()).toContain('"signal":"SIGHUP"');
    expect(await exactness(at)).toEqual({ rows: 10, distinct: 10 });
    expect(await committed(at)).toEqual([10]);
  });

  test('a second SIGTERM ends at once, in the middle of an insert, and nothing is lost or doubled by it', async () => {
    // The constraint makes each insert take two seconds.
    const slow = goodTable('{table}').replace('_offset UInt64)', '_offset UInt64, CONSTRAINT slow CHECK sleep(2) = 0)');
    const at = await place({ partitions: 1, table: slow });
    await produce(stack().brokers, at.topic, events(0, 10));
    const config = { ...at.config, kafka: { ...at.config.kafka, sessionTimeoutMs: 2_000, heartbeatIntervalMs: 300 } };
    const running = runConfig(config, {}, ['--log-level', 'debug']);
    await running.until(() => running.stderr.includes('stateWritten'), 'the insert was under way');
    running.signal('SIGTERM');
    await running.until(() => running.stderr.includes('draining'), 'the drain had begun');
    running.signal('SIGTERM');
    expect((await running.ended).code).toBe(143);
    const again = runConfig(config);
    await again.until(
      () => again.stderr.includes('range that was in doubt is settled'),
      'the range in doubt was settled',
    );
    again.signal('SIGTERM');
    expect((await again.ended).code).toBe(0);
    expect(await exactness(at)).toEqual({ rows: 10, distinct: 10 });
  });

  test('a drain that does not end in time says so with its exit code, and the next start resolves what is in doubt', async () => {
    const slow = goodTable('{table}').replace('_offset UInt64)', '_offset UInt64, CONSTRAINT slow CHECK sleep(3) = 0)');
    const at = await place({ partitions: 1, table: slow });
    await produce(stack().brokers, at.topic, events(0, 10));
    const config = { ...at.config, kafka: { ...at.config.kafka, drainTimeoutMs: 300 } };
    const running = runConfig(config, {}, ['--log-level', 'debug']);
    await running.until(() => running.stderr.includes('stateWritten'), 'the insert was under way');
    running.signal('SIGTERM');
    const { code, stderr } = await running.ended;
    expect({ code, stderr }).toEqual({ code: 7, stderr: expect.stringContaining('KCR_DRAIN_TIMEOUT') as string });
    const again = runConfig(at.config);
    await again.until(
      () => again.stderr.includes('range that was in doubt is settled'),
      'the range in doubt was settled',
    );
    again.signal('SIGTERM');
    expect((await again.ended).code).toBe(0);
    expect(await exactness(at)).toEqual({ rows: 10, distinct: 10 });
  });
});
