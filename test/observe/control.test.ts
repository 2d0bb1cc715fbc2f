import { mkdtempSync, lstatSync, writeFileSync, existsSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { isAuthorized, type Controls } from '../../src/observe/control.js';
import { serveControl } from '../../src/observe/control-socket.js';
import { serveStatus } from '../../src/observe/http.js';
import { ByHand } from './observed.js';

const token = 'a-token-of-some-length';
const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

const controlsOf = (hand: ByHand, told: string[] = []): Controls => ({
  status: () => hand.observed.status(),
  pause: (selection) => (hand.pauses.pause(selection), void told.push('pause')),
  resume: (selection) => (hand.pauses.resume(selection), void told.push('resume')),
  drain: () => void told.push('drain'),
});

async function served(isTold = true) {
  const hand = new ByHand().assign(0, 1);
  const told: string[] = [];
  const control = isTold ? { token, controls: controlsOf(hand, told) } : undefined;
  const server = await serveStatus(hand.observed, { listen: '127.0.0.1:0', control });
  open.push(server);
  const post = (path: string, headers: Record<string, string> = { authorization: `Bearer ${token}` }) =>
    fetch(server.url + path, { method: 'POST', headers });
  return { hand, told, url: server.url, post };
}

const atSocket = (socketPath: string, method: string, path: string): Promise<readonly [number | undefined, string]> =>
  new Promise((resolve, reject) => {
    const asking = request({ socketPath, method, path }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('end', () => resolve([response.statusCode, text]));
    });
    asking.on('error', reject);
    asking.end();
  });

const freePath = (name = 'control.sock') => join(mkdtempSync(join(tmpdir(), 'kcr-')), name);

describe('over HTTP', () => {
  test('a token pauses and resumes all, a topic or a partition, and the status shows it', async () => {
    const { hand, post } = await served();
    const asked = async (path: string) => (await post(path)).json();
    expect(await asked('/api/pause?topic=flights&partition=1')).toEqual({
      asked: 'pause',
      phase: 'running',
      partitions: 2,
      paused: 1,
    });
    expect(hand.observed.status()).toMatchObject({
      isPaused: false,
      partitions: [{ isPaused: false }, { isPaused: true }],
    });
    expect(await asked('/api/pause?topic=flights')).toMatchObject({ paused: 2 });
    expect(await asked('/api/resume')).toMatchObject({ paused: 0 });
    expect(await asked('/api/pause')).toMatchObject({ paused: 2 });
    expect(hand.observed.status()).toMatchObject({ isPaused: true, limit: 'paused' });
  });

  test.each([
    [{}, 401],
    [{ authorization: `Bearer ${token}x` }, 401],
    [{ authorization: 'Bearer ' }, 401],
    [{ authorization: `Basic ${token}` }, 401],
    [{ cookie: `token=${token}` }, 401],
    [{ authorization: `Bearer ${token}` }, 200],
  ])('a stranger cannot pause it: %j gets %i', async (headers, status) => {
    const { told, post } = await served();
    const answer = await post('/api/pause', headers);
    expect([answer.status, told]).toEqual([status, status === 200 ? ['pause'] : []]);
    expect(await answer.text()).not.toContain(token);
  });

  test('a web page by another name is refused, whatever it sends', async () => {
    const { told, url } = await served();
    const status = await new Promise((resolve) => {
      const headers = { host: 'evil.example', authorization: `Bearer ${token}` };
      request(`${url}/api/pause`, { method: 'POST', headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      }).end();
    });
    expect([status, told]).toEqual([421, []]);
  });

  test('a link cannot pause it: GET is refused, and so is what a browser asks before a POST from elsewhere', async () => {
    const { told, url } = await served();
    expect((await fetch(`${url}/api/pause`)).status).toBe(405);
    expect((await fetch(`${url}/api/pause`, { method: 'OPTIONS' })).status).toBe(401);
    expect(told).toEqual([]);
  });

  test('without a token nothing can be told', async () => {
    const { post } = await served(false);
    expect((await post('/api/pause')).status).toBe(405);
    expect((await post('/api/drain')).status).toBe(405);
  });

  test.each([
    ['/api/pause?partition=1', /needs its "topic"/],
    ['/api/pause?topic=flights&partition=x', /whole number/],
    ['/api/pause?topic=', /`topic`/],
    ['/api/pause?tpoic=flights', /takes no "tpoic"/],
    ['/api/drain?topic=flights', /drain takes no "topic"/],
    ['/api/reload', /cannot read its configuration again/],
  ])('%s does nothing and says why', async (path, why) => {
    const { hand, told, post } = await served();
    const answer = await post(path);
    expect([answer.status, told, hand.pauses.isAll]).toEqual([400, [], false]);
    expect(((await answer.json()) as { error: string }).error).toMatch(why);
  });

  test('what is over cannot be told anything any more', async () => {
    const { hand, told, post } = await served();
    hand.meter.end();
    expect([(await post('/api/drain')).status, told]).toEqual([409, []]);
  });

  test('the scheme of the header is told apart from its token', () => {
    expect(isAuthorized(`bearer  ${token}`, token)).toBe(true);
    expect(isAuthorized(token, token)).toBe(false);
    expect(isAuthorized(undefined, token)).toBe(false);
  });
});

describe('at a socket', () => {
  test('its owner alone may open it, and needs no token', async () => {
    const hand = new ByHand().assign(0);
    const told: string[] = [];
    const path = freePath();
    open.push(await serveControl(hand.observed, controlsOf(hand, told), path));
    expect((lstatSync(path).mode & 0o777).toString(8)).toBe('600');
    expect(await atSocket(path, 'POST', '/api/drain')).toEqual([200, expect.stringContaining('"drain"')]);
    expect(await atSocket(path, 'GET', '/api/status')).toEqual([200, expect.stringContaining('"phase":"running"')]);
    expect((await atSocket(path, 'GET', '/api/pause'))[0]).toBe(405);
    expect(told).toEqual(['drain']);
  });

  test('it is gone when the process ends in order', async () => {
    const hand = new ByHand();
    const path = freePath();
    const server = await serveControl(hand.observed, controlsOf(hand), path);
    await server.close();
    expect(existsSync(path)).toBe(false);
  });

  test('what a process left that was killed does not stop the next one', async () => {
    const path = freePath();
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(lstatSync(path).isSocket()).toBe(true);
    const hand = new ByHand();
    open.push(await serveControl(hand.observed, controlsOf(hand), path));
    expect((await atSocket(path, 'GET', '/api/status'))[0]).toBe(200);
  });

  test('the socket of a process that lives is left to it', async () => {
    const path = freePath();
    const other = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => other.listen(path, resolve));
    open.push(other);
    const hand = new ByHand();
    await expect(serveControl(hand.observed, controlsOf(hand), path)).rejects.toThrow(
      /control\.socket.*another process listens there/,
    );
    expect(lstatSync(path).isSocket()).toBe(true);
  });

  test('a file by its name is not taken away', async () => {
    const path = freePath();
    writeFileSync(path, 'mine');
    const hand = new ByHand();
    await expect(serveControl(hand.observed, controlsOf(hand), path)).rejects.toThrow(/something else.*no socket/);
    expect(existsSync(path)).toBe(true);
  });

  test('a directory that is not there is named', async () => {
    const hand = new ByHand();
    const path = join(freePath(), 'no', 'control.sock');
    await expect(serveControl(hand.observed, controlsOf(hand), path)).rejects.toThrow(/directory must be there/);
  });
});
