// The program where ClickHouse is behind TLS that wants a certificate of ours, and behind a proxy: every command, and the
// state store that lives in ClickHouse too.
import { randomUUID } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { authority } from '../support/certificates.js';
import { tlsFront, webProxy } from '../support/networks.js';
import { configFile, program, runConfig } from './program.js';

const ours = authority();

async function place() {
  const name = `reach_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl } = sharedStack();
  await createTopic(brokers, name, { partitions: 2 });
  await command(clickhouseUrl, `CREATE DATABASE ${name}`);
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name}.rows (id UInt64, _topic String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`,
  );
  await produce(
    brokers,
    name,
    Array.from({ length: 100 }, (_, id) => JSON.stringify({ id })),
  );
  const count = async (): Promise<number | undefined> =>
    (
      await query<{ n: number }>(
        clickhouseUrl,
        `SELECT uniqExact(_partition, _offset) * (count() = 100) AS n FROM ${name}.rows`,
      )
    )[0]?.n;
  return { name, brokers, count, behind: new URL(clickhouseUrl).host };
}

test('every command goes through proxy and TLS with our certificate, the states of keeper-map too, into the database of the route', async () => {
  const { name, brokers, count, behind } = await place();
  const front = await tlsFront(behind, { ...ours.issue(), requestCert: true, ca: ours.ca });
  const proxy = await webProxy({ login: 'me:secret' });
  const dir = mkdtempSync(join(tmpdir(), 'reach-'));
  const client = ours.issue();
  for (const [file, text] of Object.entries({ 'ca.pem': ours.ca, 'client.pem': client.cert, 'client.key': client.key }))
    writeFileSync(join(dir, file), text);
  const config = {
    kafka: { brokers, groupId: name, fromBeginning: true, sessionTimeoutMs: 2_000, heartbeatIntervalMs: 300 },
    clickhouse: {
      url: `https://localhost:${front.port}`,
      tls: { ca: `\${file:${dir}/ca.pem}`, cert: `\${file:${dir}/client.pem}`, key: `\${file:${dir}/client.key}` },
      proxy: { url: proxy.url.replace('http://', 'http://me:${PROXY_PASSWORD}@') },
      headers: { 'x-tenant': 'blue' },
      compression: 'gzip',
      answerCompression: 'gzip',
    },
    state: { store: 'keeper-map', table: `${name}_state`, path: `/${name}` },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: 'rows', database: name }],
    batch: { maxWaitMs: 50 },
  };
  const [file, env] = [configFile(config), { PROXY_PASSWORD: 'secret' }];
  const checked = await program(['check', file], env).ended;
  expect({ code: checked.code, stdout: checked.stdout, stderr: checked.stderr }).toEqual({
    code: 0,
    stdout: expect.stringContaining(`${name}.rows`) as string,
    stderr: '',
  });
  const running = runConfig(config, env);
  await running.until(async () => (await count()) === 100, 'all rows were there');
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(0);
  const shown = await program(['state', 'show', file, '--json'], env).ended;
  expect(JSON.parse(shown.stdout)).toMatchObject({
    store: expect.stringContaining('keeper-map') as string,
    partitions: [{ topic: name }, { topic: name }],
  });
  expect((await program(['verify', file], env).ended).code).toBe(0);
  expect((await program(['drain', file, '--timeout', '60'], env).ended).code).toBe(0);
  expect(await count()).toBe(100);
  expect([new Set(proxy.tunnels), new Set(front.clients.map(({ subject }) => subject))]).toEqual([
    new Set([`localhost:${front.port}`]),
    new Set(['issued']),
  ]);
});

test.each(['keeper', 'keeper-map'] as const)(
  'a certificate of another authority is refused by its name before a record is taken (%s)',
  async (store) => {
    const { name, brokers, behind } = await place();
    const { port } = await tlsFront(behind, authority('another').issue());
    const { code, stderr } = await runConfig({
      kafka: { brokers, groupId: name, fromBeginning: true },
      clickhouse: { url: `https://localhost:${port}`, tls: { ca: ours.ca } },
      state: store === 'keeper' ? { store, connect: sharedStack().keeperConnect } : { store, requestTimeoutMs: 2_000 },
      delivery: 'exactly-once',
      routes: [{ topic: name, table: 'rows', database: name }],
    }).ended;
    expect({ code, stderr }).toEqual({
      code: 3,
      stderr: expect.stringMatching(
        /server: ClickHouse cannot be reached.*not from an authority that is trusted here/,
      ) as string,
    });
    if (store === 'keeper-map') expect(stderr).toMatch(/state store: .*not from an authority that is trusted here/);
  },
);
