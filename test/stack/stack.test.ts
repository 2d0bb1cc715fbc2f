// Proves the development servers: they answer, survive a SIGKILL with their data, and never outlive their starter.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import zookeeper from 'node-zookeeper-client';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { replicated } from '../support/engines.js';
import { replicationFaultHere } from './clickhouse.js';
import { command, createTopic, kafkaClient, produce, query, topicEnd, withAdmin } from './clients.js';
import { freePort, ServerProcess } from './process.js';
import { type Stack, startStack } from './stack.js';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

describe('a stack', () => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack({ useEnvironment: false });
  });
  afterAll(() => stack?.stop());

  test('answers: Kafka, ZooKeeper, ClickHouse, and a KeeperMap table in between', async () => {
    const cluster = await withAdmin(stack.brokers, (admin) => admin.describeCluster());
    expect(cluster.brokers).toHaveLength(1);
    expect(await inZookeeper(stack.keeperConnect, (client) => children(client, '/'))).toContain('zookeeper');
    await command(
      stack.clickhouseUrl,
      "CREATE TABLE state (k String, v String) ENGINE = KeeperMap('/answers') PRIMARY KEY k",
    );
    await command(stack.clickhouseUrl, 'INSERT INTO state FORMAT JSONEachRow', { data: '{"k":"a","v":"1"}' });
    expect(await query(stack.clickhouseUrl, 'SELECT * FROM state')).toEqual([{ k: 'a', v: '1' }]);
  });

  test('refuses a topic that nobody created, instead of making one', async () => {
    const impatient = kafkaClient(stack.brokers, { retry: { retries: 0 } }).admin();
    await impatient.connect();
    onTestFinished(() => impatient.disconnect());
    await expect(impatient.fetchTopicOffsets('nobody-made-me')).rejects.toThrow('does not host');
    expect(await impatient.listTopics()).not.toContain('nobody-made-me');
  });

  test('keeps query_log and part_log', async () => {
    await command(stack.clickhouseUrl, 'CREATE TABLE logged (n UInt64) ENGINE = MergeTree ORDER BY n');
    await command(stack.clickhouseUrl, 'INSERT INTO logged VALUES (1)');
    await command(stack.clickhouseUrl, 'SYSTEM FLUSH LOGS query_log, part_log');
    const parts = await query(stack.clickhouseUrl, "SELECT event_type FROM system.part_log WHERE table = 'logged'");
    expect(parts).toEqual([{ event_type: 'NewPart' }]);
    const queries = await query(
      stack.clickhouseUrl,
      "SELECT 1 FROM system.query_log WHERE query LIKE 'INSERT INTO logged%'",
    );
    expect(queries).not.toHaveLength(0);
  });

  test('keeps a topic through a SIGKILL of Kafka', async () => {
    const { kafka, brokers } = stack;
    await createTopic(brokers, 'kept', { partitions: 2, config: { 'retention.ms': '-1' } });
    await produce(brokers, 'kept', [
      { value: 'a', partition: 0 },
      { value: 'b', partition: 1 },
      { value: 'c', partition: 1 },
    ]);
    const pid = kafka?.pid;
    await kafka?.kill();
    await kafka?.start();
    expect(kafka?.pid).not.toBe(pid);
    expect(await topicEnd(brokers, 'kept')).toEqual(
      new Map([
        [0, 1n],
        [1, 2n],
      ]),
    );
    await produce(brokers, 'kept', [{ value: 'd', partition: 0 }]);
    expect((await topicEnd(brokers, 'kept')).get(0)).toBe(2n);
  });

  test('keeps a znode through a SIGKILL of ZooKeeper', async () => {
    const { zookeeper: server, keeperConnect } = stack;
    await inZookeeper(keeperConnect, (client) => create(client, '/kept', 'still here'));
    await server?.kill();
    await server?.start();
    expect(await inZookeeper(keeperConnect, (client) => data(client, '/kept'))).toBe('still here');
  });

  test("keeps a table's rows through a SIGKILL of ClickHouse", async () => {
    const { clickhouse, clickhouseUrl } = stack;
    await command(clickhouseUrl, 'CREATE TABLE kept (n UInt64) ENGINE = MergeTree ORDER BY n');
    await command(clickhouseUrl, 'INSERT INTO kept SELECT number FROM numbers(1000)');
    await clickhouse?.kill();
    await clickhouse?.start();
    expect(await query(clickhouseUrl, 'SELECT count() AS n FROM kept')).toEqual([{ n: 1000 }]);
  });

  test('a frozen server answers nothing until it is thawed', async () => {
    const { clickhouse, clickhouseUrl } = stack;
    clickhouse?.prepare();
    await expect(query(clickhouseUrl, 'SELECT 1', { timeoutMs: 500 })).rejects.toThrow('did not answer within 500 ms');
    clickhouse?.thaw();
    expect(await query(clickhouseUrl, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test('restart() ends a running server and starts it on the same address', async () => {
    const pid = stack.clickhouse?.pid;
    await stack.clickhouse?.restart();
    expect(stack.clickhouse?.pid).not.toBe(pid);
    expect(await query(stack.clickhouseUrl, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test.skipIf(replicationFaultHere() !== undefined)(
    'has replicated tables: a token is known in Keeper, also after a SIGKILL of ClickHouse, and ZooKeeper away is told',
    async () => {
      const { clickhouseUrl: url, clickhouse, zookeeper: keeper } = stack;
      const insert = (token: string) =>
        command(
          url,
          `INSERT INTO replicated SETTINGS insert_deduplication_token = '${token}', insert_keeper_max_retries = 1 VALUES (1)`,
        );
      const rows = () => query(url, 'SELECT count() AS n FROM replicated');
      await command(url, `CREATE TABLE replicated (n UInt64) ENGINE = ${replicated.engine('ORDER BY n')}`);
      for (const token of ['a', 'a', 'b']) await insert(token);
      expect(await rows()).toEqual([{ n: 2 }]);
      await clickhouse?.kill();
      await clickhouse?.start();
      await vi.waitFor(() => insert('a'), { timeout: 60_000, interval: 100 });
      expect(await rows()).toEqual([{ n: 2 }]);
      await keeper?.kill();
      await expect(insert('c')).rejects.toThrow('code 242');
      await keeper?.start();
      await vi.waitFor(() => insert('c'), { timeout: 60_000, interval: 100 });
      expect(await rows()).toEqual([{ n: 3 }]);
    },
  );

  test("an error of ClickHouse carries the server's own words", async () => {
    await expect(query(stack.clickhouseUrl, 'SELECT * FROM nowhere')).rejects.toThrow(/code 60.*nowhere/s);
  });
});

test('a SIGKILLed starter leaves no server behind, not even a frozen one', async () => {
  const root = temporaryRoot();
  const script = fileURLToPath(new URL('orphan.ts', import.meta.url));
  const starter = spawn(process.execPath, ['--import', 'tsx', script, root], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface(starter.stdout), 'line')) as [string];
  const pids = JSON.parse(line) as number[];
  expect(pids).toHaveLength(3);
  expect(pids.filter(isAlive)).toEqual(pids);
  starter.kill('SIGKILL');
  await vi.waitFor(() => expect(pids.filter(isAlive)).toEqual([]), { timeout: 60_000, interval: 50 });
});

test('stop() leaves neither processes nor files', async () => {
  const root = temporaryRoot();
  const stack = await startStack({ root, kafka: false, useEnvironment: false });
  const pids = [stack.zookeeper?.pid, stack.clickhouse?.pid].filter((pid) => pid !== undefined);
  expect(pids).toHaveLength(2);
  expect(stack.brokers).toEqual([]);
  await stack.stop();
  expect(pids.filter(isAlive)).toEqual([]);
  expect(existsSync(root)).toBe(false);
});

test('a server that cannot start says who it is and what its log says', async () => {
  const dir = temporaryRoot();
  const broken = new ServerProcess({
    name: 'Broken',
    address: `127.0.0.1:${await freePort()}`,
    dataDir: join(dir, 'data'),
    logFile: join(dir, 'broken.log'),
    command: ['sh', '-c', 'echo the disk is on fire; exit 3'],
    ready: () => Promise.reject(new Error('nobody there')),
  });
  await expect(broken.start()).rejects.toThrow(/^Broken ended with status 3.*the disk is on fire/s);
  expect(broken.pid).toBeUndefined();
  expect(readFileSync(broken.logFile, 'utf8')).toContain('fire');
});

test('a server that never answers is ended, and says so', async () => {
  const dir = temporaryRoot();
  let pid: number | undefined;
  const mute: ServerProcess = new ServerProcess({
    name: 'Mute',
    address: `127.0.0.1:${await freePort()}`,
    dataDir: join(dir, 'data'),
    logFile: join(dir, 'mute.log'),
    command: ['sleep', '600'],
    startLimitMs: 300,
    ready: () => {
      pid = mute.pid;
      return Promise.reject(new Error('nobody there'));
    },
  });
  await expect(mute.start()).rejects.toThrow(/^Mute did not answer within 300 ms: nobody there/);
  expect(pid).toBeTypeOf('number');
  expect(isAlive(pid ?? 0)).toBe(false);
});

test('servers named in the environment are used, and none is started', async () => {
  vi.stubEnv('KAFKA_BROKERS', 'one:9092,two:9092');
  vi.stubEnv('KEEPER_CONNECT', 'three:2181');
  vi.stubEnv('CLICKHOUSE_URL', 'http://four:8123');
  onTestFinished(() => void vi.unstubAllEnvs());
  const stack = await startStack();
  expect(stack).toMatchObject({
    brokers: ['one:9092', 'two:9092'],
    keeperConnect: 'three:2181',
    clickhouseUrl: 'http://four:8123',
  });
  expect([stack.kafka, stack.zookeeper, stack.clickhouse]).toEqual([undefined, undefined, undefined]);
  await stack.stop();
});

function temporaryRoot(): string {
  const root = mkdtempSync(join(tmpdir(), 'kafka-clickhouse-stack-test-'));
  onTestFinished(() => rmSync(root, { recursive: true, force: true, maxRetries: 5 }));
  return root;
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

type Client = ReturnType<typeof zookeeper.createClient>;

async function inZookeeper<T>(connect: string, use: (client: Client) => Promise<T>): Promise<T> {
  const client = zookeeper.createClient(connect, { sessionTimeout: 4000 });
  const connected = once(client, 'connected');
  client.connect();
  await connected;
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

function create(client: Client, path: string, value: string): Promise<string> {
  return new Promise((resolve, reject) => {
    client.create(path, Buffer.from(value), zookeeper.CreateMode.PERSISTENT, (error, made) =>
      error ? reject(new Error(String(error))) : resolve(made),
    );
  });
}

function data(client: Client, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    client.getData(path, (error, value) => (error ? reject(new Error(String(error))) : resolve(value.toString())));
  });
}

function children(client: Client, path: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    client.getChildren(path, (error, names) => (error ? reject(new Error(String(error))) : resolve(names)));
  });
}
