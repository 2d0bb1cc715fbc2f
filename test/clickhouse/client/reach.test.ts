// How ClickHouse is reached in people's networks, against a fake one: certificates, proxies, gateways, and each mistake.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, onTestFinished, test } from 'vitest';
import { wholeBody } from '../../../src/clickhouse/insert/body.js';
import { type ClickHouseConnection, ClickHouseHttp } from '../../../src/clickhouse/client/http.js';
import { ConnectionFailure } from '../../../src/clickhouse/client/answer.js';
import { checkClickHouse } from '../../../src/clickhouse/preflight.js';
import { IngestError } from '../../../src/errors.js';
import { authority, type Issued } from '../../support/certificates.js';
import { tlsFront, webProxy } from '../../support/networks.js';
import { fakeClickHouse, type FakeServer } from '../fake-server.js';

const ours = authority('our authority');
const others = authority('their authority');
const server = ours.issue();
const client = ours.issue({ names: 'DNS:ingester' });

async function fake(): Promise<FakeServer & { readonly host: string }> {
  const made = await fakeClickHouse();
  onTestFinished(() => made.close());
  return Object.assign(made, { host: new URL(made.url).host });
}

function http(connection: ClickHouseConnection): ClickHouseHttp {
  const made = new ClickHouseHttp(connection);
  onTestFinished(() => made.close());
  return made;
}

const body = () => wholeBody(Buffer.from('{"id":1}'));

/** A query and an insert each go through. */
async function works(connection: ClickHouseConnection): Promise<void> {
  const through = http(connection);
  await expect(through.select('SELECT version() AS v')).resolves.toHaveLength(1);
  await expect(
    through.send({ params: { query: 'INSERT INTO t FORMAT JSONEachRow' }, body: body() }).answer,
  ).resolves.toMatchObject({ status: 200 });
}

/** What a person reads who starts the program. */
async function said(connection: ClickHouseConnection): Promise<string> {
  const findings = await checkClickHouse(
    { ...connection, routes: [{ topic: 't', table: 't' }] },
    { delivery: 'at-least-once', maxPending: 1 },
  );
  const [first] = findings.filter(({ level }) => level === 'refusal');
  expect(first).toMatchObject({ code: 'KCR_CLICKHOUSE_UNREACHABLE' });
  return `${first?.detail} → ${first?.todo}`;
}

/** Refuses client certificates in TLS's own words, which Node's server does not. */
async function opensslServer({ cert, key }: Issued, ca: string, version: 'TLSv1.2' | 'TLSv1.3'): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'openssl-server-'));
  for (const [name, text] of Object.entries({ cert, key, ca })) writeFileSync(join(dir, name), text);
  const flag = version === 'TLSv1.2' ? '-tls1_2' : '-tls1_3';
  const child = spawn(
    'openssl',
    [
      's_server',
      '-accept',
      '127.0.0.1:0',
      '-cert',
      'cert',
      '-key',
      'key',
      '-CAfile',
      'ca',
      '-Verify',
      '1',
      '-verify_return_error',
      flag,
    ],
    { cwd: dir },
  );
  onTestFinished(() => {
    child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  });
  for await (const line of createInterface(child.stdout)) {
    const port = /^ACCEPT .*:(\d+)$/.exec(line)?.[1];
    if (port !== undefined) return Number(port);
  }
  throw new Error('openssl s_server did not begin');
}

/** That nothing was sent is known: such an insert is never in doubt. */
async function neverSent(connection: ClickHouseConnection): Promise<ConnectionFailure> {
  const failure: unknown = await http(connection)
    .send({ params: { query: 'INSERT' }, body: body() })
    .answer.catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(ConnectionFailure);
  expect(failure).toMatchObject({ phase: 'connecting' });
  return failure as ConnectionFailure;
}

describe('TLS', () => {
  test("rows reach a server whose certificate is from an authority of one's own", async () => {
    const { host } = await fake();
    const { port } = await tlsFront(host, server);
    await works({ url: `https://localhost:${port}`, tls: { ca: ours.ca } });
    await works({ url: `https://127.0.0.1:${port}`, tls: { ca: `${others.ca}\n${ours.ca}` } });
  });

  test('rows reach a server that is called otherwise than its url, where the name is given', async () => {
    const { host } = await fake();
    const { port, clients } = await tlsFront(host, ours.issue({ names: 'DNS:clickhouse.internal' }));
    await works({ url: `https://127.0.0.1:${port}`, tls: { ca: ours.ca, serverName: 'clickhouse.internal' } });
    expect(new Set(clients.map(({ servername }) => servername))).toEqual(new Set(['clickhouse.internal']));
  });

  test('rows reach a server that wants to see a certificate of ours, its key open or behind a passphrase', async () => {
    const { host } = await fake();
    const { port, clients } = await tlsFront(host, { ...server, requestCert: true, ca: ours.ca });
    const url = `https://localhost:${port}`;
    await works({ url, tls: { ca: ours.ca, ...client } });
    await works({ url, tls: { ca: ours.ca, ...ours.issue({ passphrase: 'hunter2' }), passphrase: 'hunter2' } });
    expect(new Set(clients.map(({ subject }) => subject))).toEqual(new Set(['issued']));
  });

  test('a user that the certificate tells is named, and no password is sent beside it', async () => {
    const behind = await fake();
    const { port } = await tlsFront(behind.host, { ...server, requestCert: true, ca: ours.ca });
    await works({
      url: `https://localhost:${port}`,
      username: 'ingester',
      tls: { ca: ours.ca, ...client, certificateLogin: true },
    });
    const [insert] = behind.inserts;
    expect(insert?.headers).toMatchObject({
      'x-clickhouse-user': 'ingester',
      'x-clickhouse-ssl-certificate-auth': 'on',
    });
    expect(behind.headers.concat(insert!.headers).filter(({ authorization }) => authorization !== undefined)).toEqual(
      [],
    );
  });

  test('no verification only by its name, and then it is told', async () => {
    const { host } = await fake();
    const { port } = await tlsFront(host, others.issue());
    const connection = { url: `https://localhost:${port}`, tls: { insecureSkipVerify: true } };
    await works(connection);
    const findings = await checkClickHouse(
      { ...connection, routes: [{ topic: 't', table: 't' }] },
      { delivery: 'at-least-once', maxPending: 1 },
    );
    expect(findings).toContainEqual(
      expect.objectContaining({
        level: 'warning',
        what: 'TLS',
        detail: expect.stringContaining('not verified') as string,
      }),
    );
    const { port: verified } = await tlsFront(host, server);
    const fine = await checkClickHouse(
      { url: `https://localhost:${verified}`, tls: { ca: ours.ca }, routes: [{ topic: 't', table: 't' }] },
      { delivery: 'at-least-once', maxPending: 1 },
    );
    expect(fine.filter(({ what }) => what === 'TLS')).toEqual([]);
  });

  test.each([
    [
      'from an authority nobody named',
      () => others.issue(),
      { ca: ours.ca },
      'localhost',
      /its certificate is not from an authority that is trusted here.*clickhouse\.tls\.ca/,
    ],
    [
      "from an authority of one's own, and none was named",
      () => server,
      undefined,
      'localhost',
      /its certificate is not from an authority that is trusted here.*clickhouse\.tls\.ca/,
    ],
    ['that has expired', () => ours.issue({ days: -1 }), { ca: ours.ca }, 'localhost', /has expired.*renew/],
    [
      'for another name',
      () => ours.issue({ names: 'DNS:other.example' }),
      { ca: ours.ca },
      'localhost',
      /is not for localhost, but for DNS:other\.example.*clickhouse\.tls\.serverName/,
    ],
    [
      'for another address',
      () => ours.issue({ names: 'DNS:localhost' }),
      { ca: ours.ca },
      '127.0.0.1',
      /is not for 127\.0\.0\.1, but for DNS:localhost/,
    ],
  ])('a certificate %s is called that, and nothing was sent to it', async (_what, certificate, tls, name, words) => {
    const behind = await fake();
    const { port } = await tlsFront(behind.host, certificate());
    const connection = { url: `https://${name}:${port}`, ...(tls === undefined ? {} : { tls }) };
    expect(await said(connection)).toMatch(words);
    const failure = await neverSent(connection);
    expect(`${failure.message} → ${failure.hint}`).toMatch(words);
    expect(behind.inserts.length + behind.queries.length).toBe(0);
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'a client certificate that is missing, or not from an authority of theirs, is called that (%s)',
    async (maxVersion) => {
      const { host } = await fake();
      const { port } = await tlsFront(host, { ...server, requestCert: true, ca: ours.ca, maxVersion });
      const url = `https://localhost:${port}`;
      expect(await said({ url, tls: { ca: ours.ca } })).toMatch(/client certificate.*clickhouse\.tls\.cert/);
      const strict = await opensslServer(server, ours.ca, maxVersion);
      expect(await said({ url: `https://localhost:${strict}`, tls: { ca: ours.ca, ...others.issue() } })).toMatch(
        /does not take our client certificate/,
      );
    },
  );

  test('https:// to a port without TLS, and http:// to one with, are told apart from a server that is away', async () => {
    const { host } = await fake();
    expect(await said({ url: `https://${host}` })).toMatch(/this port does not speak TLS.*http:\/\//);
    const { port } = await tlsFront(host, server);
    expect(await said({ url: `http://localhost:${port}` })).toMatch(
      /this port speaks TLS, and was asked without.*https:\/\//,
    );
    const { port: wantsCertificate } = await tlsFront(host, {
      ...server,
      requestCert: true,
      ca: ours.ca,
      maxVersion: 'TLSv1.2',
    });
    expect(await said({ url: `http://localhost:${wantsCertificate}` })).toMatch(/this port speaks TLS/);
  });

  test('a server that hangs up on everybody is not taken for one that speaks TLS', async () => {
    const rude = createServer((socket: Socket) => socket.destroy()).listen(0, '127.0.0.1');
    await once(rude, 'listening');
    onTestFinished(() => void rude.close());
    expect(await said({ url: `http://127.0.0.1:${(rude.address() as AddressInfo).port}` })).not.toMatch(/TLS,/);
  });
});

describe('a proxy', () => {
  test('lets rows through to a server with TLS and to one without, with a login and by TLS to itself', async () => {
    const { host } = await fake();
    const { port } = await tlsFront(host, server);
    const plain = await webProxy();
    await works({ url: `http://${host}`, proxy: { url: plain.url } });
    await works({ url: `https://localhost:${port}`, tls: { ca: ours.ca }, proxy: { url: plain.url } });
    expect(new Set(plain.tunnels)).toEqual(new Set([host, `localhost:${port}`]));
    const locked = await webProxy({ login: 'me:secret' });
    await works({
      url: `https://localhost:${port}`,
      tls: { ca: ours.ca },
      proxy: { url: locked.url, username: 'me', password: 'secret' },
    });
    await works({ url: `http://${host}`, proxy: { url: locked.url.replace('http://', 'http://me:secret@') } });
    const secured = await webProxy({ certificate: server });
    await works({ url: `https://localhost:${port}`, tls: { ca: ours.ca }, proxy: { url: secured.url } });
    expect(secured.tunnels.length).toBeGreaterThan(0);
  });

  test('that opens no tunnels is handed the requests where that is asked for', async () => {
    const { host } = await fake();
    const proxy = await webProxy({ refusesTunnels: 403, login: 'me:secret' });
    await works({
      url: `http://${host}`,
      proxy: { url: proxy.url, tunnel: false, username: 'me', password: 'secret' },
    });
    expect([proxy.tunnels, proxy.handed.every((url) => url.startsWith(`http://${host}/`))]).toEqual([[], true]);
    const secured = await webProxy({ certificate: ours.issue({ names: 'DNS:localhost' }) });
    // By its name: to an address no server name can be sent.
    await works({
      url: `http://${host}`,
      tls: { ca: ours.ca },
      proxy: { url: secured.url.replace('127.0.0.1', 'localhost'), tunnel: false },
    });
  });

  test.each([
    [
      'wants a login',
      { login: 'me:secret' },
      {},
      /proxy http:\/\/127.* refuses a tunnel to .*: 407.*clickhouse\.proxy\.username/,
    ],
    ['refuses', { refusesTunnels: 403 }, {}, /refuses a tunnel to .*: 403.*allow CONNECT.*tunnel false/],
    [
      'is handed requests and wants a login',
      { login: 'me:secret' },
      { tunnel: false },
      /refuses the request: 407.*clickhouse\.proxy\.username/,
    ],
  ])('that %s is named, and not ClickHouse', async (_what, options, how, words) => {
    const { host } = await fake();
    const proxy = await webProxy(options);
    expect(await said({ url: `http://${host}`, proxy: { url: proxy.url, ...how } })).toMatch(words);
  });

  test('that cannot reach ClickHouse, or is not there, is named', async () => {
    const proxy = await webProxy();
    expect(await said({ url: 'http://127.0.0.1:1', proxy: { url: proxy.url } })).toMatch(
      /refuses a tunnel to 127\.0\.0\.1:1: 502.*cannot reach ClickHouse/,
    );
    expect(await said({ url: 'http://127.0.0.1:8123', proxy: { url: 'http://127.0.0.1:1' } })).toMatch(
      /the proxy http:\/\/127\.0\.0\.1:1 cannot be reached.*ECONNREFUSED/,
    );
  });

  test('that refuses leaves no insert in doubt', async () => {
    const { host } = await fake();
    const proxy = await webProxy({ refusesTunnels: 403 });
    await neverSent({ url: `http://${host}`, proxy: { url: proxy.url } });
    const open = await webProxy();
    const { port } = await tlsFront(host, others.issue());
    // The tunnel stands, the handshake in it fails: still nothing was sent.
    await neverSent({ url: `https://localhost:${port}`, tls: { ca: ours.ca }, proxy: { url: open.url } });
  });

  test('that accepts and is silent is given up in time, and its connection is gone', async () => {
    const { host } = await fake();
    const gone: Socket[] = [];
    const silent = createServer(
      (socket) =>
        void socket
          .on('error', () => undefined)
          .on('close', () => gone.push(socket))
          .resume(),
    ).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    onTestFinished(() => void silent.close());
    const failure = await neverSent({
      url: `http://${host}`,
      connectTimeoutMs: 100,
      proxy: { url: `http://127.0.0.1:${(silent.address() as AddressInfo).port}` },
    });
    expect(failure.message).toMatch(/no connection within 100 ms/);
    await expect.poll(() => gone.length).toBe(1);
  });

  test('whose tunnel is silent is given up in time, and nothing was sent', async () => {
    let greetings = 0;
    const deaf = createServer(
      (socket) => void socket.on('error', () => undefined).on('data', () => (greetings += 1)),
    ).listen(0, '127.0.0.1');
    await once(deaf, 'listening');
    onTestFinished(() => void deaf.close());
    const proxy = await webProxy();
    // Staged again with more time where the tunnel itself took all of it.
    for (let connectTimeoutMs = 200; greetings === 0; connectTimeoutMs *= 2) {
      const failure = await neverSent({
        url: `https://127.0.0.1:${(deaf.address() as AddressInfo).port}`,
        connectTimeoutMs,
        proxy: { url: proxy.url },
      });
      expect(failure.message).toMatch(/no connection within \d+ ms/);
    }
  });

  test('a client that is closed leaves no attempt behind', async () => {
    const { host } = await fake();
    const proxy = await webProxy({ refusesTunnels: 0 });
    const through = new ClickHouseHttp({ url: `http://${host}`, proxy: { url: proxy.url } });
    const failed = through.send({ params: { query: 'INSERT' }, body: body() }).answer.catch((error: unknown) => error);
    await expect.poll(() => proxy.tunnels.length).toBe(1);
    through.close();
    expect(await failed).toBeInstanceOf(ConnectionFailure);
  });
});

describe('headers', () => {
  test('go with every query and every insert, and a token takes the place of the password', async () => {
    const behind = await fake();
    await works({ url: behind.url, headers: { 'X-Tenant': 'blue', Authorization: 'Bearer abc' } });
    const all = behind.headers.concat(behind.inserts.map(({ headers }) => headers));
    expect(all.length).toBeGreaterThan(1);
    for (const headers of all) expect(headers).toMatchObject({ 'x-tenant': 'blue', authorization: 'Bearer abc' });
  });

  test('without any, user and password go with both', async () => {
    const behind = await fake();
    await works({ url: behind.url, username: 'u', password: 'p' });
    const login = `Basic ${Buffer.from('u:p').toString('base64')}`;
    for (const headers of behind.headers.concat(behind.inserts.map((insert) => insert.headers)))
      expect(headers).toMatchObject({ authorization: login });
  });
});

test.each([
  [
    'a path for a certificate',
    { tls: { ca: '/etc/ssl/ca.pem' } },
    /`tls\.ca`: expected certificates in PEM.*\$\{file:\/path\}/,
  ],
  ['a certificate that is cut', { tls: { ca: ours.ca.slice(0, 200) } }, /`tls\.ca`: expected certificates in PEM/],
  ['a certificate without its key', { tls: { cert: client.cert } }, /`tls\.key`: missing/],
  ['a key without its certificate', { tls: { key: client.key } }, /`tls\.cert`: missing/],
  [
    'the key of another certificate',
    { tls: { cert: client.cert, key: server.key } },
    /`tls\.key`: it is not the key of tls\.cert/,
  ],
  [
    'a key behind a passphrase nobody gave',
    { tls: ours.issue({ passphrase: 'hunter2' }) },
    /`tls\.key`: the private key cannot be read.*passphrase/,
  ],
  [
    'a certificate and its key the wrong way round',
    { tls: { cert: client.key, key: client.cert } },
    /`tls\.cert`: expected a certificate in PEM/,
  ],
  ['a login by certificate without one', { tls: { certificateLogin: true } }, /`tls\.certificateLogin`/],
  [
    'an authority that would not be looked at',
    { tls: { ca: ours.ca, insecureSkipVerify: true } },
    /`tls\.insecureSkipVerify`/,
  ],
  ['TLS for http://', { url: 'http://h:8123', tls: { ca: ours.ca } }, /`tls`: without effect/],
  [
    'a header that would make another request of it',
    { headers: { 'Content-Length': '0' } },
    /`headers\.Content-Length`: it is set for each request/,
  ],
  ['a setting as a header', { headers: { 'X-ClickHouse-Database': 'x' } }, /`headers\.X-ClickHouse-Database`/],
  ['a header of two lines', { headers: { 'x-a': 'b\nx-c: d' } }, /`headers\.x-a`: its value/],
  ['a name that is no header', { headers: { 'a b': 'c' } }, /`headers`: a name/],
  ['two logins', { password: 'p', headers: { authorization: 'Bearer x' } }, /`headers\.authorization`/],
  ['a proxy of another kind', { proxy: { url: 'socks5://h:1' } }, /`proxy\.url`/],
  ['a proxy with a path', { proxy: { url: 'http://h:1/x' } }, /`proxy\.url`: expected no path/],
  ['an https:// server without a tunnel', { proxy: { url: 'http://h:1', tunnel: false } }, /`proxy\.tunnel`/],
])('%s is refused before anything is connected to, and no secret is shown', (_what, change, words) => {
  let thrown: unknown;
  try {
    new ClickHouseHttp({ url: 'https://h:8443', ...change });
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(IngestError);
  expect((thrown as IngestError).code).toBe('KCR_CONFIG');
  expect((thrown as IngestError).message).toMatch(words);
  expect((thrown as IngestError).message).not.toMatch(/BEGIN CERT|BEGIN PRIV|hunter2|Bearer x/);
});

test('a tunnel is to the host and port, an address of IPv6 in brackets', async () => {
  const proxy = await webProxy({ refusesTunnels: 403 });
  await neverSent({ url: 'http://[::1]:8123', proxy: { url: proxy.url } });
  await neverSent({ url: 'https://ch.example', proxy: { url: proxy.url } });
  expect(proxy.tunnels).toEqual(['[::1]:8123', 'ch.example:443']);
});
