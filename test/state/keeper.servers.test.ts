// The Keeper store on a real ZooKeeper.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { emptyState } from '../../src/model/state.js';
import type { StateKey, StateStore } from '../../src/ports.js';
import { KeeperConnection } from '../../src/state/keeper-connection.js';
import { checkKeeper, keeperStore, type KeeperStoreConfig } from '../../src/state/keeper.js';
import { startStack, type Stack } from '../stack/stack.js';
import { freePort } from '../stack/process.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import {
  containing,
  failureOf,
  freshKey,
  insist,
  pause,
  settledAt,
  stateIn,
  stateStoreContract,
  stateStoreOutages,
  until,
  valueOf,
  type NetworkStoreUnderTest,
} from './contract.js';

const path = '/test/states';
const operationTimeoutMs = 1500;

let stack: Stack;
beforeAll(async () => {
  stack = await startStack({ kafka: false, clickhouse: false, useEnvironment: false });
});
afterAll(() => stack?.stop());

async function makeWorld(): Promise<NetworkStoreUnderTest> {
  const proxy = await TcpProxy.start({ to: stack.keeperConnect });
  const raw = await connectTo(stack.keeperConnect);
  const nodeOf = ({ cluster, group, topic, partition }: StateKey) =>
    `${path}/${cluster}/${group}/${topic}/${partition}`;
  return {
    proxy,
    patienceMs: operationTimeoutMs * 2,
    open: () => keeperStore({ connect: stack.keeperConnect, path }),
    openThroughProxy: () => keeperStore({ connect: proxy.address, path, operationTimeoutMs }),
    peek: async (key) => (await raw.get(nodeOf(key)))?.text,
    poke: async (key, value) => void (await raw.set(nodeOf(key), value, (await raw.get(nodeOf(key)))!.version)),
    stop: async () => {
      await raw.close();
      await proxy.stop();
    },
  };
}

function connectTo(address: string): Promise<KeeperConnection> {
  const [host = '', port] = address.split(':');
  const config = { sessionTimeoutMs: 60_000, requestTimeoutMs: 10_000, auth: undefined };
  return KeeperConnection.open({ host, port: Number(port) }, config, new AbortController().signal);
}

function open(config: Partial<KeeperStoreConfig> = {}): StateStore {
  const store = keeperStore({ connect: stack.keeperConnect, path, ...config });
  onTestFinished(() => valueOf(store.close()));
  return store;
}

async function openProxy(): Promise<TcpProxy> {
  const proxy = await TcpProxy.start({ to: stack.keeperConnect });
  onTestFinished(() => proxy.stop());
  return proxy;
}

stateStoreContract('the Keeper store', makeWorld);
stateStoreOutages('the Keeper store', makeWorld);

describe('the Keeper store', () => {
  test('the reply to a claim is lost: the partition is claimed all the same', async () => {
    const proxy = await openProxy();
    const [store, direct] = [open({ connect: proxy.address, operationTimeoutMs }), open()];
    const key = freshKey();
    const former = await valueOf(direct.write(await valueOf(direct.claim(key, 'former')), settledAt(41)));
    await stateIn(store, key);
    // The first reply tells the value and its version, the second one that the claim has taken effect.
    proxy.dropReplies({ after: 1 });
    const claiming = valueOf(store.claim(key, 'after'));
    await until('the reply is dropped', () => proxy.droppedBytes > 0);
    expect(await failureOf(direct.write(former, settledAt(42)))).toMatchObject({ code: 'KCR_FENCED' });
    proxy.heal();
    proxy.cut();
    const claim = await claiming;
    expect(claim).toMatchObject({ owner: 'after', state: settledAt(41) });
    await valueOf(store.write(claim, settledAt(42)));
    expect(await stateIn(direct, key)).toStrictEqual(settledAt(42));
  });

  test('the reply to the creation of a node is lost: the partition is claimed all the same', async () => {
    const proxy = await openProxy();
    const [store, direct] = [open({ connect: proxy.address, operationTimeoutMs }), open()];
    const key = freshKey();
    const sibling = { ...key, partition: 99 };
    await valueOf(store.claim(sibling, 'makes the parents'));
    proxy.dropReplies({ after: 1 });
    const claiming = valueOf(store.claim(key, 'first'));
    await until('the reply is dropped', () => proxy.droppedBytes > 0);
    proxy.heal();
    proxy.cut();
    const claim = await claiming;
    await valueOf(store.write(claim, settledAt(42)));
    expect(await stateIn(direct, key)).toStrictEqual(settledAt(42));
  });

  test('a session that has expired is replaced, and the claim still holds', async () => {
    const proxy = await openProxy();
    const store = open({ connect: proxy.address, sessionTimeoutMs: 1000, operationTimeoutMs: 3000 });
    const key = freshKey();
    const claim = await valueOf(store.claim(key, 'owner'));
    proxy.pause();
    await pause(2500);
    proxy.heal();
    await until('the server has ended the session', () => proxy.connections === 0);
    const next = await valueOf(store.write(claim, settledAt(1)));
    await valueOf(store.write(next, settledAt(2)));
  });

  test('an idle connection is kept alive beyond its session timeout', async () => {
    const proxy = await openProxy();
    const store = open({ connect: proxy.address, sessionTimeoutMs: 3000 });
    const key = freshKey();
    const claim = await valueOf(store.claim(key, 'owner'));
    await pause(5000);
    expect(proxy.connections).toBe(1);
    await valueOf(store.write(claim, settledAt(1)));
  });

  test('the server is killed and started again: retryable errors, then the same write succeeds', async () => {
    const store = open({ operationTimeoutMs });
    const key = freshKey();
    const claim = await valueOf(store.write(await valueOf(store.claim(key, 'owner')), settledAt(1)));
    await stack.zookeeper!.kill();
    expect(await failureOf(store.write(claim, settledAt(2)))).toMatchObject({
      code: 'KCR_STORE_UNREACHABLE',
      retryable: true,
    });
    await stack.zookeeper!.start();
    // Time may be up before a server that has just started gives a session.
    expect((await insist(() => store.read(key))).state).toStrictEqual(settledAt(1));
    const next = await insist(() => store.write(claim, settledAt(2)));
    await insist(() => store.write(next, settledAt(3)));
    expect(await stateIn(open(), key)).toStrictEqual(settledAt(3));
  });

  test('the server is frozen and thawed: retryable errors, then the same write succeeds', async () => {
    const store = open({ operationTimeoutMs });
    const key = freshKey();
    const claim = await valueOf(store.claim(key, 'owner'));
    stack.zookeeper!.prepare();
    try {
      expect(await failureOf(store.write(claim, settledAt(2)))).toMatchObject({ code: 'KCR_STORE_UNREACHABLE' });
    } finally {
      stack.zookeeper!.thaw();
    }
    const next = await insist(() => store.write(claim, settledAt(2)));
    expect((await insist(() => store.write(next, settledAt(3)))).state).toStrictEqual(settledAt(3));
  });

  test('calls share one connection', async () => {
    const proxy = await openProxy();
    const store = open({ connect: proxy.address });
    await Promise.all(
      Array.from({ length: 50 }, (_, partition) => valueOf(store.claim({ ...freshKey(), partition }, 'owner'))),
    );
    expect(proxy.connections).toBe(1);
  });

  test('of several servers those that do not answer are passed over', async () => {
    const silent = createServer();
    silent.listen(0, '127.0.0.1');
    await once(silent, 'listening');
    onTestFinished(() => void silent.close());
    const nobody = `127.0.0.1:${await freePort()}`;
    const connect = `${nobody},127.0.0.1:${(silent.address() as AddressInfo).port},${stack.keeperConnect}`;
    for (let round = 0; round < 4; round++) {
      const store = open({ connect, operationTimeoutMs: 1500 });
      expect(await stateIn(store, freshKey())).toStrictEqual(emptyState);
    }
  });

  test('a path after the servers goes before everything', async () => {
    const chroot = `/tenants/number${Date.now()}`;
    const store = open({ connect: `${stack.keeperConnect}${chroot}`, path: '/states' });
    await valueOf(store.claim({ cluster: 'c', group: 'g/h', topic: 't', partition: 5 }, 'somebody'));
    const raw = await connectTo(stack.keeperConnect);
    expect((await raw.get(`${chroot}/states/c/g%2Fh/t/5`))?.text).toContain('"owner":"somebody"');
    await raw.close();
  });

  test('with a user and password others are kept out, and told so', async () => {
    const key = freshKey();
    const own = { path: `/private-${Date.now()}`, auth: 'me:secret' };
    const store = open(own);
    const claim = await valueOf(store.claim(key, 'owner'));
    const error = await failureOf(open({ path: own.path }).claim(key, 'stranger'));
    expect(error).toMatchObject({ code: 'KCR_STORE', retryable: false });
    expect(error.message).toContain('auth');
    expect(await failureOf(open({ path: own.path, auth: 'me:guessed' }).claim(key, 'stranger'))).toMatchObject({
      code: 'KCR_STORE',
    });
    await valueOf(store.write(claim, settledAt(1)));
    expect(await stateIn(open(own), key)).toStrictEqual(settledAt(1));
  });

  test('a node without a value counts as never claimed', async () => {
    const key = freshKey();
    const store = open();
    const raw = await connectTo(stack.keeperConnect);
    onTestFinished(() => raw.close());
    await valueOf(store.claim({ ...key, partition: 99 }, 'makes the parents'));
    await raw.create(`${path}/${key.cluster}/${key.group}/${key.topic}/${key.partition}`, '');
    expect(await stateIn(store, key)).toStrictEqual(emptyState);
    await valueOf(store.write(await valueOf(store.claim(key, 'owner')), settledAt(1)));
  });

  test('a node that was deleted under its owner is not written again', async () => {
    const key = freshKey();
    const store = open();
    const claim = await valueOf(store.claim(key, 'owner'));
    const raw = await connectTo(stack.keeperConnect);
    onTestFinished(() => raw.close());
    await raw.remove(`${path}/${key.cluster}/${key.group}/${key.topic}/${key.partition}`);
    expect(await failureOf(store.write(claim, settledAt(1)))).toMatchObject({ code: 'KCR_STORE' });
    expect(await stateIn(store, key)).toStrictEqual(emptyState);
  });

  test('after close every call is refused, and close may be called again', async () => {
    const store = open();
    const claim = await valueOf(store.claim(freshKey(), 'owner'));
    await valueOf(store.close());
    await valueOf(store.close());
    const error = await failureOf(store.write(claim, settledAt(1)));
    expect(error).toMatchObject({ code: 'KCR_STORE' });
    expect(error.message).toContain('closed');
  });

  test('close gives the session back at once', async () => {
    const proxy = await openProxy();
    const store = open({ connect: proxy.address });
    // By their ids: sessions that other tests cut off run out meanwhile.
    const before = await sessions();
    await stateIn(store, freshKey());
    const own = (await sessions()).filter((id) => !before.includes(id));
    expect(own).toHaveLength(1);
    const beginMs = performance.now();
    await valueOf(store.close());
    expect(performance.now() - beginMs).toBeLessThan(500);
    expect(proxy.connections).toBe(0);
    expect(await sessions()).not.toContain(own[0]);
  });

  describe('the process ends after close', () => {
    test.each(['idle', 'busy', 'opening'])('%s, with the server there', async (moment) => {
      expect(await runAndExit(stack.keeperConnect, moment)).toContain('closed');
    });

    test('opening, with nobody there', async () => {
      expect(await runAndExit(`127.0.0.1:${await freePort()}`, 'opening')).toContain('The state store is closed');
    });

    test('opening, with a server that is silent', async () => {
      const proxy = await openProxy();
      proxy.pause();
      expect(await runAndExit(proxy.address, 'opening')).toContain('The state store is closed');
    });
  });
});

/** The ids of the sessions that the server keeps. */
async function sessions(): Promise<string[]> {
  const [host, port] = stack.keeperConnect.split(':');
  const socket = connect(Number(port), host);
  socket.write('dump');
  // `Session Sets (…)/(how many):`, then the ids by when they run out.
  const dump = await text(socket);
  const [, count, listed = ''] = /^Session Sets \(\d+\)\/\((\d+)\):\n([^]*?)^ephemeral nodes dump:/m.exec(dump) ?? [];
  const ids = listed.match(/0x[0-9a-f]+/g) ?? [];
  expect(ids, dump).toHaveLength(Number(count));
  return ids;
}

async function runAndExit(address: string, moment: string): Promise<string> {
  const program = fileURLToPath(new URL('close-and-exit.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', program, address, moment], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = Promise.all([text(child.stdout), text(child.stderr)]);
  // A time-out would end it, too, but those that it was given are longer than a test may take.
  onTestFinished(() => void child.kill('SIGKILL'));
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  const [out, err] = await output;
  expect({ code, signal, err }).toStrictEqual({ code: 0, signal: null, err: '' });
  return out;
}

describe('checkKeeper', () => {
  test('says which server answered and where states are kept, and leaves nothing behind', async () => {
    const root = `/checked/number${Date.now()}`;
    const check = await checkKeeper({ connect: stack.keeperConnect, path: root });
    expect(check).toStrictEqual({ server: stack.keeperConnect, path: root });
    expect(await checkKeeper({ connect: stack.keeperConnect, path: root })).toStrictEqual(check);
    expect(await checkKeeper({ connect: `${stack.keeperConnect}${root}`, path: '/' })).toMatchObject({ path: root });
    const raw = await connectTo(stack.keeperConnect);
    onTestFinished(() => raw.close());
    // Refused while there is anything beneath it.
    await raw.remove(root);
  });

  test('names the address when nobody answers', async () => {
    const connect = `127.0.0.1:${await freePort()}`;
    await expect(checkKeeper({ connect, operationTimeoutMs: 300 })).rejects.toMatchObject({
      code: 'KCR_STORE_UNREACHABLE',
      message: expect.stringMatching(new RegExp(`${connect} does not answer: .*ECONNREFUSED.*What to do`)) as unknown,
    });
  });

  test('says that a path belongs to somebody else', async () => {
    const root = `/foreign-${Date.now()}`;
    await checkKeeper({ connect: stack.keeperConnect, path: root, auth: 'me:secret' });
    await expect(checkKeeper({ connect: stack.keeperConnect, path: root })).rejects.toMatchObject({
      code: 'KCR_STORE',
      message: containing('set `auth`'),
    });
  });
});
