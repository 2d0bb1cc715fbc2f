// What real servers do seldom: a scripted server on a socket, and what becomes of the connection and of the process.
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { emptyState } from '../../src/model/state.js';
import { KeeperConnection } from '../../src/state/keeper-connection.js';
import { keeperStore, type KeeperStoreConfig } from '../../src/state/keeper.js';
import { containing, freshKey, pause, stateIn, until, valueOf } from './contract.js';

const requestTimeoutMs = 300;
const noNode = -101;

interface Script {
  /** What a new connection is sent when it asks for a session. @default a session */
  readonly session?: Buffer | 'silence' | 'close';
  /** The answer to the request with this count, from 0, of the connection with that count. @default no such node */
  readonly answer?: (xid: number, connection: number, socket: Socket) => Buffer | undefined;
}

async function scriptedServer({ session = sessionOf(30_000), answer = (xid) => reply(xid, noNode) }: Script = {}) {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    const count = sockets.push(socket) - 1;
    let isFirst = true;
    let rest: Buffer = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => {
      rest = Buffer.concat([rest, bytes]);
      while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
        const request = rest.subarray(4, 4 + rest.readInt32BE(0));
        rest = rest.subarray(4 + request.length);
        const isSession = isFirst;
        isFirst = false;
        if (!isSession) {
          const bytesBack = answer(request.readInt32BE(0), count, socket);
          if (bytesBack !== undefined) socket.write(bytesBack);
        } else if (session === 'close') socket.destroy();
        else if (session !== 'silence') socket.write(session);
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { port, address: `127.0.0.1:${port}`, sockets };
}

function frame(...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([int(body.length), body]);
}

function int(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function sessionOf(timeoutMs: number): Buffer {
  return frame(int(0), int(timeoutMs), Buffer.alloc(8, 1), int(16), Buffer.alloc(16));
}

function reply(xid: number, error: number, payload = Buffer.alloc(0)): Buffer {
  return frame(int(xid), Buffer.alloc(8), int(error), payload);
}

async function open(port: number, config: { readonly auth?: string } = {}): Promise<KeeperConnection> {
  const connection = await KeeperConnection.open(
    { host: '127.0.0.1', port },
    { sessionTimeoutMs: 30_000, requestTimeoutMs, auth: undefined, ...config },
    new AbortController().signal,
  );
  onTestFinished(() => connection.close());
  return connection;
}

function unreachable(why: string) {
  return { code: 'KCR_STORE_UNREACHABLE', retryable: true, message: containing(why) };
}

describe('opening', () => {
  test('a server that is silent is given up, and its socket closed', async () => {
    const server = await scriptedServer({ session: 'silence' });
    await expect(open(server.port)).rejects.toMatchObject(unreachable('gave no session within 300 ms'));
    await until('the socket is closed', () => server.sockets[0]!.destroyed);
    await pause(150);
    expect(server.sockets).toHaveLength(1);
  });

  test('a server that hangs up is given up at once', async () => {
    const server = await scriptedServer({ session: 'close' });
    await expect(open(server.port)).rejects.toMatchObject(unreachable('closed the connection'));
    await pause(150);
    expect(server.sockets).toHaveLength(1);
  });

  test('a server that refuses the session is given up at once', async () => {
    const server = await scriptedServer({ session: sessionOf(0) });
    await expect(open(server.port)).rejects.toMatchObject(unreachable('refused the session'));
  });

  test('a server that is no Keeper is given up', async () => {
    const server = await scriptedServer({
      session: Buffer.from('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n'),
    });
    await expect(open(server.port)).rejects.toMatchObject(unreachable('gave no session'));
  });

  test('a port on which nobody listens', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await expect(open(port)).rejects.toMatchObject(unreachable('ECONNREFUSED'));
  });
});

describe('a request', () => {
  test('that is not answered errors in time, with all others, and the socket is closed', async () => {
    const server = await scriptedServer({ answer: () => undefined });
    const connection = await open(server.port);
    const first = connection.get('/a');
    await pause(200);
    const second = connection.get('/b');
    const over: string[] = [];
    void second.catch(() => over.push('the second'));
    // Its own time is up 300 ms from now; a timer of ours that is due before is so on a busy machine too.
    void pause(250).then(() => over.push('250 ms'));
    await expect(first).rejects.toMatchObject(unreachable('gave no answer within 300 ms'));
    await expect(second).rejects.toMatchObject(unreachable('gave no answer'));
    await until('250 ms are over', () => over.length === 2);
    expect(over).toEqual(['the second', '250 ms']);
    await until('the socket is closed', () => server.sockets[0]!.destroyed);
    await expect(connection.get('/c')).rejects.toMatchObject(unreachable('gave no answer'));
    expect(server.sockets).toHaveLength(1);
  });

  test('that waits when the server hangs up errors, and nothing connects again', async () => {
    const server = await scriptedServer({ answer: (_, __, socket) => void socket.destroy() });
    const connection = await open(server.port);
    await expect(connection.get('/a')).rejects.toMatchObject(unreachable('closed the connection'));
    await connection.whenEnded;
    await pause(150);
    expect(server.sockets).toHaveLength(1);
  });

  test('answered with an error code that the client does not know does not end the process', async () => {
    const quotaExceeded = -125;
    const server = await scriptedServer({ answer: (xid) => reply(xid, quotaExceeded) });
    const connection = await open(server.port);
    await expect(connection.get('/a')).rejects.toMatchObject(unreachable('-125'));
  });

  test('answered out of turn errors', async () => {
    const server = await scriptedServer({ answer: (xid) => reply(xid + 1, noNode) });
    const connection = await open(server.port);
    await expect(connection.get('/a')).rejects.toMatchObject(unreachable('closed the connection'));
  });

  test("in doubt by the server's own word is in doubt", async () => {
    for (const code of [-4, -7, -112]) {
      const server = await scriptedServer({ answer: (xid) => reply(xid, code) });
      const connection = await open(server.port);
      await expect(connection.get('/a')).rejects.toMatchObject(unreachable('lost the request'));
    }
  });

  test('never compares with -1, which is any version', async () => {
    const server = await scriptedServer();
    const connection = await open(server.port);
    await expect(connection.set('/a', 'text', -1)).rejects.toMatchObject({ code: 'KCR_STORE' });
  });
});

test('a user and password that are refused are not tried again', async () => {
  const authFailed = -115;
  const server = await scriptedServer({ answer: (xid) => (xid === -4 ? reply(xid, authFailed) : undefined) });
  const connection = await open(server.port, { auth: 'user:password' });
  await expect(connection.get('/a')).rejects.toMatchObject({
    code: 'KCR_STORE',
    message: containing('refused the user'),
  });
});

test('half a reply does not spoil the next connection', async () => {
  const server = await scriptedServer({
    answer: (xid, connection, socket) => {
      if (connection > 0) return reply(xid, noNode);
      socket.end(reply(xid, noNode).subarray(0, 11));
      return undefined;
    },
  });
  const store = keeperStore({ connect: server.address, operationTimeoutMs: 2000 });
  onTestFinished(() => valueOf(store.close()));
  expect(await stateIn(store, freshKey())).toStrictEqual(emptyState);
  expect(server.sockets).toHaveLength(2);
});

test('a server that is silent after the session was given: the call goes on with a new connection', async () => {
  const server = await scriptedServer({
    answer: (xid, connection) => (connection > 0 ? reply(xid, noNode) : undefined),
  });
  const store = keeperStore({ connect: server.address, operationTimeoutMs: 900 });
  onTestFinished(() => valueOf(store.close()));
  expect(await stateIn(store, freshKey())).toStrictEqual(emptyState);
  await until('the socket is closed', () => server.sockets[0]!.destroyed);
});

test('many calls while nobody answers share the attempts to connect, and no warning is printed', async () => {
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on('warning', note);
  onTestFinished(() => void process.off('warning', note));
  const server = await scriptedServer({ session: 'close' });
  const store = keeperStore({ connect: server.address, operationTimeoutMs: 600 });
  const calls = Array.from({ length: 100 }, () => valueOf(store.read(freshKey())).catch((error: unknown) => error));
  for (const error of await Promise.all(calls)) expect(error).toMatchObject({ code: 'KCR_STORE_UNREACHABLE' });
  expect(server.sockets.length).toBeLessThan(20);
  await valueOf(store.close());
  expect(warnings).toStrictEqual([]);
});

test('close does not wait for a server that is silent', async () => {
  const server = await scriptedServer({ answer: (xid, _, socket) => (socket.pause(), reply(xid, noNode)) });
  const store = keeperStore({ connect: server.address });
  await stateIn(store, freshKey());
  const beginMs = performance.now();
  await valueOf(store.close());
  expect(performance.now() - beginMs).toBeLessThan(1500);
});

test('close does not wait for a connection that is being opened', async () => {
  const server = await scriptedServer({ session: 'silence' });
  const store = keeperStore({ connect: server.address });
  const reading = valueOf(store.read(freshKey())).catch((error: unknown) => error);
  await until('somebody connects', () => server.sockets.length > 0);
  const beginMs = performance.now();
  await valueOf(store.close());
  expect(performance.now() - beginMs).toBeLessThan(1000);
  expect(await reading).toMatchObject({ code: 'KCR_STORE' });
  await until('the socket is closed', () => server.sockets[0]!.destroyed);
});

test('close ends calls that wait', async () => {
  const server = await scriptedServer({ answer: () => undefined });
  const store = keeperStore({ connect: server.address, operationTimeoutMs: 60_000 });
  const reading = valueOf(store.read(freshKey())).catch((error: unknown) => error);
  await pause(100);
  await valueOf(store.close());
  expect(await reading).toMatchObject({ code: 'KCR_STORE', message: containing('closed') });
});

describe('the configuration', () => {
  test.each<[string, Partial<Parameters<typeof keeperStore>[0]>, string]>([
    ['no server', { connect: '' }, 'connect'],
    ['a server twice separated', { connect: 'a:1,,b:2' }, 'connect'],
    ['a port out of range', { connect: 'a:65536' }, 'connect'],
    ['the port 0', { connect: 'a:0' }, 'connect'],
    ['a port that is no number', { connect: 'a:b' }, 'connect'],
    ['a URL', { connect: 'http://a:1' }, 'connect'],
    ['an address with colons', { connect: '[::1]:2181' }, 'connect'],
    ['a path without its slash', { path: 'states' }, 'path'],
    ['a path that ends with a slash', { path: '/states/' }, 'path'],
    ['a path with an empty name', { path: '/a//b' }, 'path'],
    ['a path that goes up', { path: '/a/../b' }, 'path'],
    ['a path with a control character', { path: '/a\u0007' }, 'path'],
    ['a path after the servers that goes up', { connect: 'a:1/..' }, 'path'],
    ['a session that is too short', { sessionTimeoutMs: 0 }, 'sessionTimeoutMs'],
    ['a time that is no number', { operationTimeoutMs: NaN }, 'operationTimeoutMs'],
    ['a time without end', { operationTimeoutMs: Infinity }, 'operationTimeoutMs'],
    ['a user without a password', { auth: 'somebody' }, 'auth'],
  ])('%s is refused before anything is connected', (_, config, option) => {
    const call = () => keeperStore({ connect: 'a:1', ...config });
    expect(call).toThrow(expect.objectContaining({ code: 'KCR_CONFIG', message: containing(option) }));
  });

  test.each(['a', 'a:2181', ' a:1 , b:2', 'a:1/', 'a:1,b:2/c/d.e'])('servers as in "%s" are fine', (connect) => {
    expect(keeperStore({ connect }).name).toBe('keeper');
  });

  test('an option given as undefined has its default', () => {
    const given = { connect: 'a', path: undefined, sessionTimeoutMs: undefined, operationTimeoutMs: undefined };
    expect(keeperStore(given as unknown as KeeperStoreConfig).name).toBe('keeper');
  });

  test('the password is not shown', () => {
    expect(() => keeperStore({ connect: 'a:1', auth: 'secret' })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('secret') as unknown }),
    );
  });
});
