import { request, type IncomingMessage, type ServerResponse } from 'node:http';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, test } from 'vitest';
import { EventStream } from '../../src/observe/event-stream.js';
import { isAllowedHost, serveStatus, type StatusServer } from '../../src/observe/http.js';
import { listenAddress } from '../../src/observe/listen.js';
import { registerMetrics } from '../../src/observe/metrics.js';
import { assignmentOf, ByHand } from './observed.js';

let server: StatusServer | undefined;
afterEach(() => server?.close());

const serving = async (hand: ByHand, registry?: Registry): Promise<string> => {
  server = await serveStatus(hand.observed, { listen: '127.0.0.1:0', registry });
  return server.url;
};

/** `fetch` does not let one say another `Host`. */
const asked = (url: string, method: string, host: string): Promise<number | undefined> =>
  new Promise((resolve, reject) => {
    request(url, { method, headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('error', reject)
      .end();
  });

describe('who is let in', () => {
  test('a name that a web page led here is refused, before anything is read', async () => {
    const url = await serving(new ByHand());
    expect(await asked(`${url}/api/status`, 'GET', 'evil.example')).toBe(421);
    expect(await asked(`${url}/api/status`, 'GET', 'localhost:9464')).toBe(200);
  });

  test.each([
    ['127.0.0.1:9464', true],
    ['[::1]:9464', true],
    ['10.1.2.3', true],
    ['LOCALHOST', true],
    ['localhost.evil.example', false],
    ['127.0.0.1.evil.example', false],
    [undefined, false],
  ])('the host %s: %s', (host, isAllowed) => expect(isAllowedHost(host, [])).toBe(isAllowed));

  test('a name that was allowed is served', () => expect(isAllowedHost('ingest:9464', ['ingest'])).toBe(true));

  test('nothing but GET and HEAD', async () => {
    const url = await serving(new ByHand());
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS'])
      expect(await asked(`${url}/api/status`, method, 'localhost')).toBe(405);
    expect(await asked(`${url}/livez`, 'HEAD', 'localhost')).toBe(200);
  });

  test.each(['', 'localhost', '127.0.0.1:99999', 'a:b:9464', 'http://127.0.0.1:1'])(
    'http.listen %j is refused with an example',
    (listen) => expect(() => listenAddress(listen)).toThrow(/expected host:port.*127\.0\.0\.1:9464/),
  );

  test('a port alone is loopback', () => expect(listenAddress(':9464')).toEqual({ host: '127.0.0.1', port: 9464 }));

  test('a port that is taken says so', async () => {
    const url = await serving(new ByHand());
    const listen = new URL(url).host;
    await expect(serveStatus(new ByHand().observed, { listen })).rejects.toThrow(/another process listens there/);
  });
});

describe('health', () => {
  const statusOf = async (url: string, path: string) => {
    const answer = await fetch(url + path);
    return [answer.status, (await answer.text()).trim()];
  };

  test('it is not ready while it starts, when all halted and while it drains; it lives all the same', async () => {
    const hand = new ByHand();
    const url = await serving(hand);
    expect(await statusOf(url, '/readyz')).toEqual([503, 'no: it is starting']);
    hand.assign(0, 1);
    expect((await statusOf(url, '/readyz'))[0]).toBe(200);
    hand.halt(0);
    expect(await statusOf(url, '/readyz')).toEqual([200, 'ok: 1 of 2 partitions have halted']);
    hand.halt(1);
    expect(await statusOf(url, '/readyz')).toEqual([503, 'no: all 2 partitions have halted']);
    expect((await statusOf(url, '/livez'))[0]).toBe(200);
    hand.meter.drain();
    expect((await statusOf(url, '/readyz'))[0]).toBe(503);
    hand.meter.end();
    expect((await statusOf(url, '/livez'))[0]).toBe(503);
  });
});

describe('what is served', () => {
  test('the status with its notices, and no value of a record', async () => {
    const hand = new ByHand().assign(0).logEnds(10).deliver(0, 4, 5);
    const record = { offset: 5, timestampMs: 0, key: null, value: Buffer.from('secret'), headers: [] };
    hand.meter.event({
      kind: 'excluded',
      assignment: assignmentOf(0),
      record,
      error: new (await import('../../src/errors.js')).IngestError('KCR_POISON', 'secret'),
      replay: false,
    });
    const answer = await fetch(`${await serving(hand)}/api/status`);
    const text = await answer.text();
    expect(JSON.parse(text)).toMatchObject({ phase: 'running', lagRecords: 5, totals: { rows: 5, excluded: 1 } });
    expect(text).toContain('KCR_POISON');
    expect(text).not.toContain('secret');
  });

  test('the page runs only its own script and style', async () => {
    const answer = await fetch(`${await serving(new ByHand())}/`);
    const policy = answer.headers.get('content-security-policy')!;
    expect(policy).toMatch(/default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'/);
    expect(await answer.text()).not.toMatch(/https?:\/\/(?!www\.w3\.org\/2000\/svg)/);
  });

  test('events begin with the history and the status, and tell what happens', async () => {
    const hand = new ByHand().assign(0);
    const answer = await fetch(`${await serving(hand)}/events`);
    const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    while (!text.includes('event: notice')) text += (await reader.read()).value ?? '';
    expect(text).toMatch(/^event: history\ndata: \[\]\n\nevent: status\ndata: \{/);
    hand.halt(0);
    while (!text.includes('KCR_SCHEMA')) text += (await reader.read()).value ?? '';
    await reader.cancel();
  });
});

describe('whoever listens and does not read', () => {
  test('is let go before what waits for it fills the memory', () => {
    const events = new EventStream(new ByHand().observed);
    const calls: string[] = [];
    const listener = (writableLength: number) =>
      ({
        writableLength,
        writeHead: () => undefined,
        on: () => undefined,
        end: () => undefined,
        write: () => calls.push('write'),
        destroy: () => calls.push('destroy'),
      }) as unknown as ServerResponse;
    const asked = { method: 'GET' } as IncomingMessage;
    events.take(listener(1_000_000), asked);
    events.take(listener(1_100_000), asked);
    expect(calls).toEqual(['write', 'destroy']);
    events.close();
  });

  test('nobody is let in beyond a few listeners', async () => {
    const url = await serving(new ByHand());
    const all = await Promise.all(Array.from({ length: 21 }, () => fetch(`${url}/events`)));
    expect(all.map(({ status }) => status).sort()).toEqual([...Array<number>(20).fill(200), 503]);
    for (const { body } of all) await body?.cancel();
  });
});

describe('metrics', () => {
  test('rows, lag, halts, doubts and calls are there, with partitions as labels', async () => {
    const hand = new ByHand();
    const registry = new Registry();
    const stop = registerMetrics(hand.observed, { registry, info: { group: 'g' } });
    hand.assign(0, 1).logEnds(10, 20).deliver(0, 4, 5).halt(1);
    hand.meter.call('insert', 'flights', 0)();
    const text = await (await fetch(`${await serving(hand, registry)}/metrics`)).text();
    expect(text).toContain('kcr_info{group="g"} 1');
    expect(text).toContain('kcr_rows_total{topic="flights"} 5');
    expect(text).toContain('kcr_lag_records{topic="flights",partition="0"} 5');
    expect(text).toContain('kcr_halted_total{topic="flights",code="KCR_SCHEMA"} 1');
    expect(text).toContain('kcr_partitions_halted 1');
    expect(text).toContain('kcr_call_seconds_count{call="insert",topic="flights",outcome="done"} 1');
    expect(text).toContain('kcr_budget_used_bytes 250');
    stop();
    expect(await registry.metrics()).toBe('\n');
  });

  test('beyond the limit partitions are summed up, so that a scrape does not grow without end', async () => {
    const hand = new ByHand().assign(0, 1, 2).logEnds(10, 20, 30);
    const registry = new Registry();
    registerMetrics(hand.observed, { registry, maxPartitionLabels: 2 });
    expect(await registry.metrics()).toContain('kcr_lag_records{topic="flights",partition="all"} 60');
  });

  test('a server without a registry says that it has no metrics', async () => {
    expect((await fetch(`${await serving(new ByHand())}/metrics`)).status).toBe(404);
  });
});
