// What stands between people and their ClickHouse: something that ends TLS, and an HTTP proxy.
import { once } from 'node:events';
import { createServer as createHttpServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { connect, type AddressInfo, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createServer as createTlsServer, type TlsOptions, type TLSSocket } from 'node:tls';
import { onTestFinished } from 'vitest';
import type { Issued } from './certificates.js';

async function listening(server: Server, sockets: Set<Duplex>): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return (server.address() as AddressInfo).port;
}

export interface TlsFront {
  readonly port: number;
  /** Handshakes that came to their end. */
  readonly clients: { readonly servername: string | undefined; readonly subject: string | undefined }[];
}

/** Ends TLS in front of `to`, a `host:port`, as a load balancer does. */
export async function tlsFront(
  to: string,
  options: Issued & Pick<TlsOptions, 'requestCert' | 'ca' | 'maxVersion'>,
): Promise<TlsFront> {
  const sockets = new Set<Duplex>();
  const clients: TlsFront['clients'] = [];
  const [host, port] = to.split(':');
  const server = createTlsServer(
    { rejectUnauthorized: options.requestCert ?? false, ...options },
    (socket: TLSSocket) => {
      clients.push({
        servername: socket.servername || undefined,
        subject: socket.getPeerCertificate()?.subject?.CN as string | undefined,
      });
      const behind = connect({ host: host ?? '', port: Number(port), noDelay: true });
      joined(socket, behind, sockets);
    },
  );
  server.on('tlsClientError', () => undefined);
  server.on('connection', (socket: Socket) => void sockets.add(socket.on('error', () => undefined)));
  return { port: await listening(server, sockets), clients };
}

function joined(one: Duplex, other: Duplex, sockets: Set<Duplex>): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    sockets.add(from);
    from
      .on('error', () => undefined)
      .on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
  }
  one.pipe(other).pipe(one);
}

export interface WebProxy {
  readonly url: string;
  /** `host:port` of each tunnel that was asked for, opened or not. */
  readonly tunnels: string[];
  /** Addresses of requests that were handed over. */
  readonly handed: string[];
}

export interface WebProxyOptions {
  /** "user:password" that it asks for. @default none */
  readonly login?: string;
  /** What it answers to CONNECT in place of opening a tunnel; 0: nothing at all. @default it opens one */
  readonly refusesTunnels?: number;
  /** Reached by TLS itself. */
  readonly certificate?: Issued;
}

/** A forward proxy: CONNECT, and requests with a whole address. */
export async function webProxy({ login, refusesTunnels, certificate }: WebProxyOptions = {}): Promise<WebProxy> {
  const sockets = new Set<Duplex>();
  const [tunnels, handed]: [string[], string[]] = [[], []];
  const isKnown = ({ headers }: IncomingMessage): boolean =>
    login === undefined || headers['proxy-authorization'] === `Basic ${Buffer.from(login).toString('base64')}`;
  const hand = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    handed.push(incoming.url ?? '');
    if (!isKnown(incoming)) return void outgoing.writeHead(407).end('<html><head><title>Login</title></head></html>');
    const { 'proxy-authorization': _, ...headers } = incoming.headers;
    const passed = request(
      new URL(incoming.url ?? ''),
      { method: incoming.method, headers, agent: false },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(outgoing);
      },
    );
    passed.on('error', () => outgoing.destroy());
    incoming.pipe(passed);
  };
  const server = certificate === undefined ? createHttpServer(hand) : createHttpsServer(certificate, hand);
  server.on('connection', (socket: Socket) => void sockets.add(socket));
  server.on('connect', (incoming: IncomingMessage, socket: Duplex) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    tunnels.push(incoming.url ?? '');
    const status = isKnown(incoming) ? (refusesTunnels ?? 200) : 407;
    if (status === 0) return;
    if (status !== 200) return void socket.end(`HTTP/1.1 ${status} Refused\r\nContent-Length: 0\r\n\r\n`);
    const { hostname, port } = new URL(`http://${incoming.url}`);
    const behind = connect({ host: hostname, port: Number(port), noDelay: true });
    behind.once('error', () => socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n'));
    behind.once('connect', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      joined(socket, behind, sockets);
    });
  });
  const port = await listening(server, sockets);
  return { url: `${certificate === undefined ? 'http' : 'https'}://127.0.0.1:${port}`, tunnels, handed };
}
