// The KeeperMap store on a real ClickHouse with a real ZooKeeper.
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text as readText } from 'node:stream/consumers';
import { from } from 'rxjs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { emptyState } from '../../src/model/state.js';
import type { Claim, StateKey, StateStore } from '../../src/ports.js';
import { checkKeeperMap, keeperMapStore, type KeeperMapStoreConfig } from '../../src/state/keeper-map.js';
import { clickhouseServer, type ClickhouseOptions } from '../stack/clickhouse.js';
import { command, query } from '../stack/clients.js';
import { freePort } from '../stack/process.js';
import { startStack, type Stack } from '../stack/stack.js';
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

const table = 'states';
const path = '/states';
const operationTimeoutMs = 1500;
const user = (name: string, more: string) => `
  <${name}><password>secret</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>${more}</${name}>`;
const grant = 'GRANT CREATE TABLE, SELECT, INSERT, ALTER UPDATE, ALTER DELETE ON default.granted_state';
const users = [
  user('reader', '<grants><query>GRANT SELECT ON default.*</query></grants>'),
  user('half', `<grants><query>${grant}</query></grants>`),
  user('granted', `<grants><query>${grant}</query><query>GRANT TABLE ENGINE ON KeeperMap</query></grants>`),
].join('');

let stack: Stack;
let url: string;
beforeAll(async () => {
  stack = await startStack({ kafka: false, useEnvironment: false, clickhouse: { users } });
  url = stack.clickhouseUrl;
});
afterAll(() => stack?.stop());

const rowKeyOf = ({ cluster, group, topic, partition }: StateKey) => JSON.stringify([cluster, group, topic, partition]);
const literal = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

async function rowOf(key: StateKey): Promise<{ value: string; version: number } | undefined> {
  const [row] = await query<{ value: string; version: number }>(
    url,
    `SELECT value, _version AS version FROM ${table} WHERE key = ${literal(rowKeyOf(key))}`,
  );
  return row;
}

async function removeRow(key: StateKey): Promise<void> {
  await command(url, `ALTER TABLE ${table} DELETE WHERE key = ${literal(rowKeyOf(key))}`);
}

async function makeWorld(): Promise<NetworkStoreUnderTest> {
  const proxy = await openProxy({ stopsWithTest: false });
  return {
    proxy,
    patienceMs: operationTimeoutMs * 2,
    open: () => keeperMapStore({ url, table, path }),
    openThroughProxy: () => keeperMapStore({ url: `http://${proxy.address}`, table, path, operationTimeoutMs }),
    peek: async (key) => (await rowOf(key))?.value,
    poke: async (key, value) => {
      await command(url, `INSERT INTO ${table} VALUES (${literal(rowKeyOf(key))}, ${literal(value)})`, {
        settings: { async_insert: 0 },
      });
    },
    stop: () => proxy.stop(),
  };
}

function open(config: Partial<KeeperMapStoreConfig> = {}): StateStore {
  const store = keeperMapStore({ url, table, path, ...config });
  onTestFinished(() => valueOf(store.close()));
  return store;
}

async function openProxy({ stopsWithTest = true } = {}): Promise<TcpProxy> {
  const proxy = await TcpProxy.start({ to: new URL(url).host });
  if (stopsWithTest) onTestFinished(() => proxy.stop());
  return proxy;
}

async function startClickhouse(name: string, options: ClickhouseOptions): Promise<string> {
  const server = await clickhouseServer(`${stack.root}/${name}`, options);
  onTestFinished(() => server.kill());
  await server.start();
  return server.address;
}

interface Exchange {
  readonly statement: string;
  /** Sends the request on to ClickHouse, as it came or with another url. */
  readonly forward: (to?: string) => Promise<Answer>;
}

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly text: string;
  /** Something else than ClickHouse gives it, and does not name the query. */
  readonly isForeign?: boolean;
}

/** An HTTP proxy before ClickHouse whose answers `meddle` decides; gives its url. */
async function openMeddler(meddle: (exchange: Exchange) => Promise<Answer>): Promise<string> {
  const serve = async (request: IncomingMessage): Promise<Answer> => {
    const statement = await readText(request);
    const forward = async (to = request.url!): Promise<Answer> => {
      const answer = await fetch(new URL(to, url), { method: 'POST', body: statement });
      const code = answer.headers.get('x-clickhouse-exception-code');
      return {
        status: answer.status,
        headers: code === null ? {} : { 'x-clickhouse-exception-code': code },
        text: await answer.text(),
      };
    };
    return meddle({ statement, forward });
  };
  const server = createServer((request, response) => {
    const id = new URL(request.url!, url).searchParams.get('query_id') ?? '';
    void serve(request).then(
      ({ status, headers, text, isForeign }) =>
        response.writeHead(status, { ...(isForeign ? {} : { 'x-clickhouse-query-id': id }), ...headers }).end(text),
      () => response.destroy(),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const keeperError = (what: string): Answer => ({
  status: 500,
  headers: { 'x-clickhouse-exception-code': '999' },
  text: `Code: 999. Coordination::Exception: Transaction failed (${what}): Op #0, path: /keeper_map/states/data/AWE=. (KEEPER_EXCEPTION) (version 26.7.2.1)`,
});

stateStoreContract('the KeeperMap store', makeWorld, {
  oddNames: [
    'a',
    'a/b',
    'a%2Fb',
    '.',
    '..',
    '',
    '%',
    'a b',
    'ä',
    'A',
    '\u0000',
    "it's",
    '"',
    '\\',
    "\\'",
    '","',
    '???>>>',
    '\ud800',
    '{x:String}',
  ],
});
stateStoreOutages('the KeeperMap store', makeWorld);

describe('the KeeperMap store', () => {
  test('of eight that claim at once, again and again, exactly one is live', async () => {
    const key = freshKey();
    const rivals = Array.from({ length: 8 }, () => open());
    for (let round = 0; round < 8; round++) {
      const claims = await Promise.all(rivals.map((store, index) => valueOf(store.claim(key, `rival ${index}`))));
      const writes = await Promise.all(
        claims.map((claim, index) =>
          valueOf(rivals[index]!.write(claim, settledAt(round * 8 + index))).catch((error: unknown) => error),
        ),
      );
      const live = writes.flatMap((outcome, index) => (outcome instanceof Error ? [] : [index]));
      expect(live).toHaveLength(1);
      for (const outcome of writes) if (outcome instanceof Error) expect(outcome).toMatchObject({ code: 'KCR_FENCED' });
      expect((await stateIn(rivals[0]!, key)).settled).toBe(round * 8 + live[0]!);
    }
  });

  test('I7: believes no answer that a balancer or a cache gives in the place of ClickHouse', async () => {
    const key = freshKey();
    const store = open();
    const held = await valueOf(store.write(await valueOf(store.claim(key, 'owner')), settledAt(3)));
    const then = await command(
      url,
      `SELECT value, _version AS version FROM ${table} WHERE key = ${literal(rowKeyOf(key))} FORMAT JSON`,
    );
    await valueOf(store.write(held, settledAt(4)));
    const meddled = await openMeddler(({ statement }) =>
      Promise.resolve({ status: 200, text: statement.includes('SELECT value') ? then : '', isForeign: true }),
    );
    const through = open({ url: meddled, operationTimeoutMs: 4 * operationTimeoutMs });
    // Both the read and the write are answered 200 by something else now: the read with what was there before.
    const why = { code: 'KCR_STORE_UNREACHABLE', message: containing('X-ClickHouse-Query-Id') };
    expect(await failureOf(through.read(key))).toMatchObject(why);
    expect(await failureOf(through.claim(key, 'heir'))).toMatchObject(why);
    expect((await stateIn(store, key)).settled).toBe(4);
  });

  test('two servers share the states; a claim through one that is slow never undoes a write through the other', async () => {
    const link = await TcpProxy.start({ to: stack.keeperConnect });
    onTestFinished(() => link.stop());
    const slowServer = await startClickhouse('slow', { keeper: link.address });
    await checkKeeperMap({ url: slowServer, table, path });
    const [store, slow] = [open(), open({ url: slowServer })];
    for (let round = 0; round < 3; round++) {
      const key = freshKey();
      let claim = await valueOf(store.claim(key, 'owner'));
      // Between what it reads from Keeper and what it sets there are 120 ms now, in which the owner writes twice.
      link.delay(60);
      const claiming = valueOf(slow.claim(key, 'heir'));
      let acknowledged = -1;
      let refused: number | undefined;
      for (let settled = 0; settled < 15; settled++) {
        const outcome = await valueOf(store.write(claim, settledAt(settled))).catch((error: unknown) => error);
        if (outcome instanceof Error) {
          expect(outcome).toMatchObject({ code: 'KCR_FENCED' });
          refused = settled;
          break;
        }
        claim = outcome as Claim;
        acknowledged = settled;
        await pause(40);
      }
      const heir = await claiming;
      // One that landed before the claim, whose owner looked only after it, is refused and stands all the same.
      expect([acknowledged, refused]).toContain(heir.state.settled ?? -1);
      expect(await stateIn(store, key)).toStrictEqual(heir.state);
      link.heal();
      await valueOf(slow.write(heir, settledAt(99)));
    }
  });

  test('a row is written once for each claim and write, and both are done when they are answered', async () => {
    const store = open();
    const key = freshKey();
    let claim = await valueOf(store.claim(key, 'owner'));
    expect((await rowOf(key))?.version).toBe(0);
    for (let settled = 0; settled < 100; settled++) {
      claim = await valueOf(store.write(claim, settledAt(settled)));
      const row = await rowOf(key);
      expect(row).toMatchObject({ version: settled + 1, value: containing(`"settled":${settled},`) });
    }
  });

  test('an update is done when it is answered: no mutation stays behind', async () => {
    const key = freshKey();
    await valueOf(open().claim(key, 'owner'));
    for (let round = 0; round < 100; round++) {
      await command(url, `ALTER TABLE ${table} UPDATE value = '${round}' WHERE key = ${literal(rowKeyOf(key))}`, {
        settings: { mutations_sync: 0 },
      });
      expect(await rowOf(key)).toMatchObject({ value: String(round) });
    }
    expect(await query(url, 'SELECT * FROM system.mutations')).toStrictEqual([]);
  });

  test.each(['claim', 'first claim'])(
    'the reply to a %s is lost: the partition is claimed all the same',
    async (which) => {
      let lost = 0;
      const meddler = await openMeddler(async ({ statement, forward }) => {
        const answer = await forward();
        if (/^(INSERT|ALTER)/.test(statement) && lost++ === 0) throw new Error('the connection breaks');
        return answer;
      });
      const [store, direct] = [open({ url: meddler }), open()];
      const key = freshKey();
      const former =
        which === 'claim'
          ? await valueOf(direct.write(await valueOf(direct.claim(key, 'former')), settledAt(41)))
          : undefined;
      const claim = await valueOf(store.claim(key, 'after'));
      expect(lost).toBe(1);
      expect(claim).toMatchObject({ owner: 'after', state: former?.state ?? emptyState });
      if (former !== undefined)
        expect(await failureOf(direct.write(former, settledAt(42)))).toMatchObject({ code: 'KCR_FENCED' });
      await valueOf(store.write(claim, settledAt(43)));
      expect(await stateIn(direct, key)).toStrictEqual(settledAt(43));
    },
  );

  test('ClickHouse stumbles over its own first request to Keeper: "Bad version" and "Node exists" are not believed', async () => {
    const meddler = await openMeddler(async ({ statement, forward }) => {
      const answer = await forward();
      if (statement.startsWith('INSERT')) return keeperError('Node exists');
      return statement.startsWith('ALTER') ? keeperError('Bad version') : answer;
    });
    const store = open({ url: meddler });
    const key = freshKey();
    let claim = await valueOf(store.claim(key, 'owner'));
    claim = await valueOf(store.write(claim, settledAt(1)));
    await valueOf(store.write(claim, settledAt(2)));
    expect((await rowOf(key))?.version).toBe(2);
  });

  test('200 is not believed: what had no effect is sent again', async () => {
    let swallow = 0;
    const meddler = await openMeddler(async ({ statement, forward }) => {
      if (/^(INSERT|ALTER)/.test(statement) && swallow-- > 0) return { status: 200, text: '' };
      return forward();
    });
    const store = open({ url: meddler });
    const key = freshKey();
    swallow = 2;
    let claim = await valueOf(store.claim(key, 'owner'));
    swallow = 2;
    claim = await valueOf(store.write(claim, settledAt(1)));
    expect(await stateIn(open(), key)).toStrictEqual(settledAt(1));
    await valueOf(store.write(claim, settledAt(2)));
  });

  test.each(['an older row', 'no row'])(
    'a server that is behind shows %s: not taken for fencing or deletion',
    async (shown) => {
      const older: Answer[] = [];
      let times = 0;
      const meddler = await openMeddler(async ({ statement, forward }) => {
        if (statement.startsWith('SELECT value') && times-- > 0) return older[0]!;
        return forward();
      });
      const store = open({ url: meddler });
      const [key, absent] = [freshKey(), freshKey()];
      const select = (of: StateKey) =>
        `SELECT value, _version AS version FROM ${table} WHERE key = ${literal(rowKeyOf(of))} FORMAT JSON`;
      const former = await valueOf(store.claim(key, 'former'));
      older.push({ status: 200, text: await command(url, select(shown === 'no row' ? absent : key)) });
      await valueOf(store.write(former, settledAt(1)));
      const claim = await valueOf(store.claim(key, 'owner'));
      times = 2;
      const next = await valueOf(store.write(claim, settledAt(2)));
      expect(times).toBeLessThan(1);
      await valueOf(store.write(next, settledAt(3)));
      expect(await stateIn(open(), key)).toStrictEqual(settledAt(3));
    },
  );

  test('a row that was deleted under its owner is not written again', async () => {
    const key = freshKey();
    const store = open({ operationTimeoutMs });
    const claim = await valueOf(store.claim(key, 'owner'));
    await removeRow(key);
    // It is looked for until time is up; a last look that is not answered in time says nothing about the row.
    const told = async () => {
      for (;;) {
        const error = await failureOf(store.write(claim, settledAt(1)));
        if (!error.retryable) return error;
      }
    };
    expect(await told()).toMatchObject({ code: 'KCR_STORE', message: containing('deleted while it was claimed') });
    expect(await stateIn(store, key)).toStrictEqual(emptyState);
  });

  test('a row that was deleted and made again is not written under the old claim, though its version is the same', async () => {
    const key = freshKey();
    const [zombie, heir] = [open(), open()];
    const old = await valueOf(zombie.claim(key, 'zombie'));
    await removeRow(key);
    const current = await valueOf(heir.claim(key, 'heir'));
    expect((await rowOf(key))?.version).toBe(0);
    expect(await failureOf(zombie.write(old, settledAt(1)))).toMatchObject({
      code: 'KCR_FENCED',
      message: containing('heir'),
    });
    await valueOf(heir.write(current, settledAt(2)));
  });

  test('unsubscribing ends the request under way and sends nothing more', async () => {
    const seen: string[] = [];
    const meddler = await openMeddler(async ({ statement, forward }) => {
      seen.push(statement);
      await pause(100);
      return forward();
    });
    const store = open({ url: meddler });
    const key = freshKey();
    const claiming = from(store.claim(key, 'lost its assignment')).subscribe();
    await until('the first request is there', () => seen.length === 1);
    claiming.unsubscribe();
    await pause(400);
    expect(seen).toHaveLength(1);
    expect(await rowOf(key)).toBeUndefined();
  });

  test('Keeper is frozen: retryable errors that say so; what lands late counts once', async () => {
    const [hasty, store] = [open({ operationTimeoutMs }), open({ operationTimeoutMs: 14_000 })];
    const key = freshKey();
    const claim = await valueOf(store.claim(key, 'owner'));
    stack.zookeeper!.prepare();
    try {
      const failures = await Promise.all([hasty, store].map((each) => failureOf(each.write(claim, settledAt(2)))));
      for (const error of failures) expect(error).toMatchObject({ code: 'KCR_STORE_UNREACHABLE', retryable: true });
      // ClickHouse gives up after 10 s, the time-out of its requests to Keeper.
      expect(failures[1]!.fields.serverCode).toBe(999);
    } finally {
      stack.zookeeper!.thaw();
    }
    const next = await insist(() => store.write(claim, settledAt(2)));
    expect((await insist(() => store.write(next, settledAt(3)))).state).toStrictEqual(settledAt(3));
    expect((await rowOf(key))?.version).toBe(2);
  });

  test('Keeper is killed and started again: retryable errors, then the same write succeeds', async () => {
    const store = open({ operationTimeoutMs });
    const key = freshKey();
    const claim = await valueOf(store.write(await valueOf(store.claim(key, 'owner')), settledAt(1)));
    await stack.zookeeper!.kill();
    const error = await failureOf(store.write(claim, settledAt(2)));
    await stack.zookeeper!.start();
    expect(error).toMatchObject({ code: 'KCR_STORE_UNREACHABLE', retryable: true });
    const next = await insist(() => store.write(claim, settledAt(2)));
    await insist(() => store.write(next, settledAt(3)));
    expect(await stateIn(store, key)).toStrictEqual(settledAt(3));
  });

  test('after close every call is refused, those under way too, and close may be called again', async () => {
    const proxy = await openProxy();
    const store = open({ url: `http://${proxy.address}` });
    const claim = await valueOf(store.claim(freshKey(), 'owner'));
    proxy.pause();
    const writing = failureOf(store.write(claim, settledAt(1)));
    await pause(50);
    await valueOf(store.close());
    await valueOf(store.close());
    for (const error of [
      await writing,
      await failureOf(store.write(claim, settledAt(1))),
      await failureOf(store.read(freshKey())),
    ]) {
      expect(error).toMatchObject({ code: 'KCR_STORE', message: containing('closed') });
    }
    await until('its connections are closed', () => proxy.connections === 0);
  });

  test('reading neither needs nor makes the table', async () => {
    const fresh = { table: `fresh_${Date.now()}`, path: `/fresh_${Date.now()}` };
    const store = open(fresh);
    const key = freshKey();
    expect(await stateIn(store, key)).toStrictEqual(emptyState);
    expect(await query(url, `SELECT name FROM system.tables WHERE name = '${fresh.table}'`)).toStrictEqual([]);
    const claims = await Promise.all(
      [1, 2, 3, 4].map((partition) => valueOf(open(fresh).claim({ ...key, partition }, 'owner'))),
    );
    await Promise.all(claims.map((claim) => valueOf(store.write(claim, settledAt(claim.key.partition)))));
  });

  test.each([
    [{ url: 'localhost:8123' }, '`url`'],
    [{ url: 'http://localhost:8123/?a=b' }, '`url`'],
    [{ table: '' }, '`table`'],
    [{ path: 'states' }, '`path`'],
    [{ path: '/' }, '`path`'],
    [{ requestTimeoutMs: 0 }, '`requestTimeoutMs`'],
    [{ operationTimeoutMs: Number.NaN }, '`operationTimeoutMs`'],
  ])('refuses %o', (config, option) => {
    const thrown = (() => {
      try {
        return keeperMapStore({ url, ...config });
      } catch (error) {
        return error as Error;
      }
    })();
    expect(thrown).toMatchObject({ code: 'KCR_CONFIG', message: containing(option) });
    expect((thrown as Error).message).not.toContain('secret');
  });
});

describe('checkKeeperMap', () => {
  test('says which server answered and where states are kept, and leaves no row behind', async () => {
    const own = { url, table: 'it`s a "table"', path: "/it's" };
    const check = await checkKeeperMap(own);
    expect(check).toMatchObject({
      server: url,
      version: expect.stringMatching(/^\d+\.\d+/) as unknown,
      table: `default.${own.table}`,
    });
    expect(await checkKeeperMap(own)).toStrictEqual(check);
    expect(await query(url, 'SELECT key FROM "it`s a \\"table\\""')).toStrictEqual([]);
    await valueOf(open(own).claim(freshKey(), 'owner'));
  });

  test('says what to add where KeeperMap is not enabled, as does a claim', async () => {
    const bare = await startClickhouse('bare', {});
    for (const call of [
      () => checkKeeperMap({ url: bare }),
      () => valueOf(open({ url: bare }).claim(freshKey(), 'owner')),
    ]) {
      const error = (await call().catch((thrown: unknown) => thrown)) as Error;
      expect(error).toMatchObject({ code: 'KCR_STORE', retryable: false });
      expect(error.message).toContain(
        '<clickhouse><keeper_map_path_prefix>/kafka_clickhouse_rx</keeper_map_path_prefix></clickhouse>',
      );
      expect(error.message).toContain('<zookeeper>');
    }
  });

  test('says that Keeper is missing where only the prefix was configured', async () => {
    const half = await startClickhouse('half', { config: '<keeper_map_path_prefix>/x</keeper_map_path_prefix>' });
    await expect(checkKeeperMap({ url: half })).rejects.toMatchObject({
      code: 'KCR_STORE',
      message: containing('<zookeeper>'),
    });
  });

  test('names the address when nobody answers', async () => {
    const nobody = `http://127.0.0.1:${await freePort()}`;
    await expect(checkKeeperMap({ url: nobody, operationTimeoutMs: 300 })).rejects.toMatchObject({
      code: 'KCR_STORE_UNREACHABLE',
      message: expect.stringMatching(new RegExp(`${nobody}: .*ECONNREFUSED.*What to do`)) as unknown,
    });
  });

  test('says which grants are missing; with them it is content', async () => {
    await valueOf(open().claim(freshKey(), 'makes the table'));
    const error = await checkKeeperMap({ url, table, path, username: 'reader', password: 'secret' }).catch(
      (thrown: unknown) => thrown as Error,
    );
    expect(error).toMatchObject({ code: 'KCR_STORE', fields: { serverCode: 497 } });
    expect((error as Error).message).toContain('INSERT(key, value) ON default.states');
    expect((error as Error).message).toContain(
      'GRANT CREATE TABLE, SELECT, INSERT, ALTER UPDATE, ALTER DELETE ON `default`.`states` TO `reader`',
    );
    const half = { url, table: 'granted_state', path: '/granted', username: 'half', password: 'secret' };
    await expect(checkKeeperMap(half)).rejects.toMatchObject({
      message: containing('What to do: GRANT TABLE ENGINE ON KeeperMap TO `half`'),
    });
    const granted = { url, table: 'granted_state', path: '/granted', username: 'granted', password: 'secret' };
    expect(await checkKeeperMap(granted)).toMatchObject({ table: 'default.granted_state' });
    const store = open(granted);
    await valueOf(store.write(await valueOf(store.claim(freshKey(), 'owner')), settledAt(1)));
  });

  test('says that the password is wrong, without showing it', async () => {
    const error = await checkKeeperMap({ url, username: 'reader', password: 'guessed' }).catch(
      (thrown: unknown) => thrown as Error,
    );
    expect(error).toMatchObject({ code: 'KCR_STORE', message: containing('`password`') });
    expect((error as Error).message).not.toContain('guessed');
  });

  test('a proxy that takes the settings out is found: without strict mode nothing is compared', async () => {
    const meddler = await openMeddler(({ forward }) => forward('/?wait_end_of_query=1'));
    const error = await checkKeeperMap({ url: meddler, table, path }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'KCR_STORE', message: containing('keeper_map_strict_mode') });
    expect(await query(url, `SELECT key FROM ${table} WHERE key LIKE '%probe%'`)).toStrictEqual([]);
  });

  test('a table of that name with other rows is refused', async () => {
    await expect(checkKeeperMap({ url, table, path: '/elsewhere' })).rejects.toMatchObject({
      code: 'KCR_STORE',
      message: expect.stringMatching(/keeps its rows at \/states in Keeper, not at \/elsewhere.*set `path`/) as unknown,
    });
    await command(url, 'CREATE TABLE other_engine (key String, value String) ENGINE = MergeTree ORDER BY key');
    await command(
      url,
      "CREATE TABLE other_columns (key String, state UInt8) ENGINE = KeeperMap('/other_columns') PRIMARY KEY key",
    );
    for (const given of [
      { table: 'other_engine' },
      { table: 'other_columns' },
      { table: 'unused', path: '/other_columns' },
    ]) {
      await expect(checkKeeperMap({ url, ...given })).rejects.toMatchObject({
        code: 'KCR_STORE',
        message: containing('another `table` or `path`'),
      });
    }
    expect(await query(url, 'SELECT * FROM other_engine')).toStrictEqual([]);
  });

  test('a database that is not there', async () => {
    await expect(checkKeeperMap({ url, database: 'nowhere' })).rejects.toMatchObject({
      code: 'KCR_STORE',
      message: containing('CREATE DATABASE `nowhere`'),
    });
  });
});
