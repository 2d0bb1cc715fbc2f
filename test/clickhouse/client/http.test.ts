import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingHttpHeaders } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { type BodyPieces, wholeBody } from '../../../src/clickhouse/insert/body.js';
import { ClickHouseHttp, quotedTable } from '../../../src/clickhouse/client/http.js';
import { IngestError } from '../../../src/errors.js';
import { fakeClickHouse } from '../fake-server.js';

const closing: (() => void)[] = [];
afterEach(() => closing.splice(0).forEach((close) => close()));

async function rawServer(onData: (socket: Socket) => void): Promise<{ http: ClickHouseHttp; server: Server }> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => onData(socket));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const http = new ClickHouseHttp({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  closing.push(() => (http.close(), server.close()));
  return { http, server };
}

describe('the bytes of a body', () => {
  const tooMuch = Buffer.alloc(64 * 1024 * 1024);
  const reply = 'HTTP/1.1 404 Not Found\r\nX-ClickHouse-Exception-Code: 60\r\nContent-Length: 4\r\n\r\ngone';

  it('are not free while they are being sent, and are as soon as an early answer makes them pointless', async () => {
    const { http } = await rawServer((socket) => {
      socket.pause();
      socket.write(reply);
    });
    const exchange = http.send({ params: {}, body: wholeBody(tooMuch) });
    await expect(exchange.answer).resolves.toMatchObject({ status: 404, code: 60, text: 'gone' });
    // Would it not give the connection up, it would go on sending from a buffer that is used for another batch.
    await exchange.bodyFree;
  });

  it('are free only when an aborted connection is gone', async () => {
    const { http } = await rawServer((socket) => socket.pause());
    const abort = new AbortController();
    const exchange = http.send({ params: {}, body: wholeBody(tooMuch), signal: abort.signal });
    let free = false;
    void exchange.bodyFree.then(() => (free = true));
    const answer = exchange.answer.catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(free).toBe(false);
    abort.abort();
    expect(free).toBe(false);
    await expect(answer).resolves.toMatchObject({ phase: 'sent' });
    await exchange.bodyFree;
  });

  it('of a request that was aborted before it began are free', async () => {
    const { http } = await rawServer(() => undefined);
    const exchange = http.send({ params: {}, body: wholeBody(tooMuch), signal: AbortSignal.abort() });
    await expect(exchange.answer).rejects.toMatchObject({ phase: 'connecting' });
    await exchange.bodyFree;
  });
});

/** Numbered pieces made in two buffers by turns, as the sink makes them. */
function inTurns(
  count: number,
  bytes: number,
  failAt = Infinity,
): { readonly body: BodyPieces; readonly made: () => number } {
  const buffers = [Buffer.alloc(bytes), Buffer.alloc(bytes)] as const;
  let made = 0;
  const body = {
    get isOver() {
      return made >= count;
    },
    next: () => {
      if (made === failAt) throw new Error('cannot be made');
      return buffers[made % 2]!.fill(++made % 251);
    },
  };
  return { body, made: () => made };
}

async function receiving(): Promise<{
  http: ClickHouseHttp;
  bodies: Buffer[];
  headers: IncomingHttpHeaders[];
  go: () => void;
}> {
  const bodies: Buffer[] = [];
  const headers: IncomingHttpHeaders[] = [];
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  const server = createHttpServer((request, response) => {
    headers.push(request.headers);
    const chunks: Buffer[] = [];
    void gate.then(() =>
      request
        .on('data', (chunk: Buffer) => chunks.push(chunk))
        .on('end', () => (bodies.push(Buffer.concat(chunks)), response.end())),
    );
    request.on('error', () => undefined);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const http = new ClickHouseHttp({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  closing.push(() => (http.close(), server.closeAllConnections(), server.close()));
  return { http, bodies, headers, go };
}

describe('a body in pieces', () => {
  const [count, bytes] = [80, 256 * 1024];
  const whole = Buffer.concat(Array.from({ length: count }, (_, i) => Buffer.alloc(bytes, (i + 1) % 251)));

  it('arrives as it was made, though its memory is written again while it is sent, and waits for a server that is slow to read', async () => {
    const { http, bodies, headers, go } = await receiving();
    const { body, made } = inTurns(count, bytes);
    const exchange = http.send({ params: {}, body });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(made()).toBeLessThan(count);
    go();
    await expect(exchange.answer).resolves.toMatchObject({ status: 200 });
    expect(bodies[0]!.equals(whole)).toBe(true);
    expect(exchange.sentBytes()).toBe(whole.length);
    expect(headers[0]).toMatchObject({ 'transfer-encoding': 'chunked' });
  });

  it('arrives compressed as it was made', async () => {
    const { http, bodies, headers, go } = await receiving();
    go();
    const exchange = http.send({ params: {}, body: inTurns(count, bytes).body, encoding: 'gzip' });
    await exchange.answer;
    expect(gunzipSync(bodies[0]!).equals(whole)).toBe(true);
    expect(exchange.sentBytes()).toBe(bodies[0]!.length);
    expect(headers[0]).toMatchObject({ 'content-encoding': 'gzip' });
  });

  it('has its length said beforehand when it is one piece', async () => {
    const { http, headers, go } = await receiving();
    go();
    await http.send({ params: {}, body: inTurns(1, 100).body }).answer;
    expect(headers[0]).toMatchObject({ 'content-length': '100' });
  });

  it.each([undefined, 'gzip'] as const)(
    'that cannot be made to its end is never taken for a whole one (compressed: %s)',
    async (encoding) => {
      const { http, bodies, go } = await receiving();
      go();
      const exchange = http.send({ params: {}, body: inTurns(count, bytes, 3).body, encoding });
      await expect(exchange.answer).rejects.toThrow('cannot be made');
      await exchange.bodyFree;
      expect(bodies).toEqual([]);
    },
  );
});

it('an insert that follows upon a query and takes three seconds is not cut off as an idle connection', async () => {
  const server = await fakeClickHouse();
  server.onInsert = ({ response }) => void setTimeout(() => response.end(), 3_000);
  const http = new ClickHouseHttp({ url: server.url });
  closing.push(() => (http.close(), void server.close()));
  await http.select('SELECT version() AS v');
  await expect(
    http.send({ params: { query: 'INSERT INTO t FORMAT JSONEachRow' }, body: wholeBody(Buffer.from('{}')) }).answer,
  ).resolves.toMatchObject({ status: 200 });
});

describe('a query', () => {
  it('sends values as parameters, never inside of the text', async () => {
    const server = await fakeClickHouse();
    closing.push(() => void server.close());
    const http = new ClickHouseHttp({ url: server.url });
    server.onSelect = () => [{ one: 1 }];
    await expect(http.select('SELECT {x:String} AS one', { x: "it's" })).resolves.toEqual([{ one: 1 }]);
    expect(server.queries).toEqual(['SELECT {x:String} AS one \nFORMAT JSON']);
    http.close();
  });

  it.each([
    [404, 60, 'KCR_TABLE_MISSING'],
    [404, 81, 'KCR_TABLE_MISSING'],
    [403, 497, 'KCR_PREFLIGHT'],
    [500, 159, 'KCR_CLICKHOUSE_UNREACHABLE'],
    [200, 241, 'KCR_CLICKHOUSE_UNREACHABLE'],
  ])(
    'that fails with status %i and code %i is %s, with the first line of the reason',
    async (status, code, expected) => {
      const { http } = await rawServer((socket) => {
        const text = `Code: ${code}. DB::Exception: because (version 26)\nstack`;
        socket.end(
          `HTTP/1.1 ${status} X\r\nX-ClickHouse-Exception-Code: ${code}\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
        );
      });
      await expect(http.select('SELECT 1')).rejects.toMatchObject({
        code: expected,
        fields: { serverCode: code },
        message: expect.stringMatching(/because \(server code \d+\)$/) as string,
      });
    },
  );

  it('whose answer breaks off in the middle is no answer', async () => {
    const { http } = await rawServer((socket) =>
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"data":[{"n":1},'),
    );
    await expect(http.select('SELECT 1')).rejects.toMatchObject({
      code: 'KCR_CLICKHOUSE_UNREACHABLE',
      retryable: true,
    });
  });
});

it('identifiers are quoted, whatever is in them', () => {
  expect(quotedTable('my db', 'a`b\\c')).toBe('`my db`.`a\\`b\\\\c`');
});

describe('what stands where ClickHouse should', () => {
  const page = '<!DOCTYPE html>\n<html><head><title>502 Bad\n Gateway</title></head><body>nginx hunter2</body></html>';
  async function gateway(status: number): Promise<ClickHouseHttp> {
    const server = createHttpServer((incoming, outgoing) =>
      incoming.resume().on('end', () => outgoing.writeHead(status).end(page)),
    ).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const http = new ClickHouseHttp({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    closing.push(() => (http.close(), server.close()));
    return http;
  }

  it("F7: a proxy's page is named as one, and not shown", async () => {
    const http = await gateway(502);
    const failure = await http.select('SELECT 1').catch((thrown: unknown) => String(thrown));
    expect(failure).toMatch(/another server answers: a web page, not ClickHouse: "502 Bad Gateway"/);
    expect(failure).not.toContain('nginx');
    await expect(http.send({ params: {}, body: wholeBody(Buffer.from('x')) }).answer).resolves.toMatchObject({
      status: 502,
      text: 'a web page, not ClickHouse: "502 Bad Gateway"',
    });
  });
});

it('G5: questions of the start are called off at once, with the reason, though the server says nothing', async () => {
  const { server } = await rawServer(() => undefined);
  const starting = new AbortController();
  const http = new ClickHouseHttp({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    starting: starting.signal,
  });
  closing.push(() => http.close());
  const reason = new IngestError('KCR_PREFLIGHT', 'called off');
  const asked = Promise.allSettled([http.select('SELECT 1'), http.attempt('SELECT 1'), http.text('SELECT 1')]);
  setImmediate(() => starting.abort(reason));
  expect(await asked).toEqual(Array.from({ length: 3 }, () => ({ status: 'rejected', reason })));
});
