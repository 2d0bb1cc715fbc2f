// A loopback proxy before ClickHouse's HTTP interface that sees whole requests: it can lose the reply of one that was
// done, do something before it does, answer in the server's place, and hold a request after its sender has given up.
import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Proxied {
  /** The statement: of an insert the query parameter, of everything else the body. */
  readonly sql: string;
  readonly isInsert: boolean;
  /** Of the url, with its parameters. */
  readonly path: string;
  readonly body: Buffer;
}

/** Once the server has answered: `lose` the reply, or let it `pass`; a text is given in its place. */
export type OnAnswer = (of: Proxied) => Promise<'lose' | 'pass' | { readonly text: string }>;

/** In the server's place, which then knows of nothing; `pass`: the server is asked. */
export type OnRequest = (
  of: Proxied,
) => 'pass' | { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly text: string };

export interface HttpProxy {
  readonly url: string;
  onRequest: OnRequest;
  onAnswer: OnAnswer;
  /** True: the request is kept, and its connection cut. */
  holds: (of: Proxied) => boolean;
  /** Lets go on what was held, and gives the statuses of the answers that nobody waits for. */
  release(): Promise<readonly number[]>;
  stop(): Promise<void>;
}

/** `drops`: headers that its answers do not have. */
export async function httpProxy(
  to: string,
  { drops = [] }: { readonly drops?: readonly string[] } = {},
): Promise<HttpProxy> {
  const target = new URL(to);
  const held: (() => Promise<{ readonly answer: IncomingMessage }>)[] = [];
  const server = createServer((incoming, outgoing) => void forward(incoming, outgoing).catch(() => outgoing.destroy()));
  const forward = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const body = await read(incoming);
    const { searchParams } = new URL(incoming.url ?? '/', 'http://proxy');
    const insert = searchParams.get('query');
    const of = {
      sql: insert ?? body.toString(),
      isInsert: insert?.startsWith('INSERT') === true,
      path: incoming.url ?? '/',
      body,
    };
    const answered = proxy.onRequest(of);
    if (answered !== 'pass') return void outgoing.writeHead(answered.status, answered.headers).end(answered.text);
    const { 'transfer-encoding': _, ...headers } = incoming.headers;
    const pass = async (): Promise<{ readonly answer: IncomingMessage; readonly text: Buffer }> => {
      const passed = request({
        host: target.hostname,
        port: target.port,
        method: incoming.method,
        path: incoming.url,
        headers: { ...headers, host: target.host, 'content-length': body.length },
      });
      passed.end(body);
      const [answer] = (await once(passed, 'response')) as [IncomingMessage];
      return { answer, text: await read(answer) };
    };
    if (proxy.holds(of)) {
      held.push(pass);
      return void outgoing.destroy();
    }
    const { answer, text } = await pass();
    const then = await proxy.onAnswer(of);
    if (then === 'lose') return void outgoing.destroy();
    const given = then === 'pass' ? text : Buffer.from(then.text);
    const { 'transfer-encoding': __, 'content-length': ___, ...kept } = answer.headers;
    for (const name of drops) delete kept[name];
    outgoing.writeHead(answer.statusCode ?? 500, { ...kept, 'content-length': given.length }).end(given);
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy: HttpProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    onRequest: () => 'pass',
    onAnswer: () => Promise.resolve('pass'),
    holds: () => false,
    release: async () => Promise.all(held.splice(0).map(async (pass) => (await pass()).answer.statusCode ?? 0)),
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return proxy;
}

async function read(stream: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}
