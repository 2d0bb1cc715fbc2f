/**
 * The way through an HTTP proxy: by CONNECT, a tunnel in which nothing is read, or, for
 * `http:` only, by handing the proxy the whole request.
 * Imports: Node.
 */
import http from 'node:http';
import https from 'node:https';
import type { Socket } from 'node:net';
import type { OptionFault } from './tls.js';

export interface ProxyOptions {
  /** `http:` or `https:`; how the proxy itself is reached. A user and password in it are used. */
  readonly url: string;
  /** The user to log in to the proxy as. @default none: no login */
  readonly username?: string;
  /** Of `username`. @default '' */
  readonly password?: string;
  /**
   * Ask for a tunnel (CONNECT) also where ClickHouse's url is `http:`. `false`: the proxy is given the requests, as
   * some want it that allow tunnels to port 443 only. @default true
   */
  readonly tunnel?: boolean;
}

export interface Proxy {
  /** For messages: without credentials. */
  readonly address: string;
  readonly isSecure: boolean;
  readonly host: string;
  readonly port: number;
  readonly headers: Readonly<Record<string, string>>;
}

/** The proxy itself cannot be reached, or does not let us through. */
export class ProxyFailure extends Error {
  override readonly name = 'ProxyFailure';
  constructor(
    what: string,
    readonly hint: string,
    cause?: unknown,
  ) {
    super(what, cause === undefined ? undefined : { cause });
  }
}

export function proxyFault(
  { url: text, tunnel = true }: ProxyOptions,
  isTargetSecure: boolean,
): OptionFault | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    return {
      option: 'proxy.url',
      what: 'expected an http:// or https:// address',
      hint: 'it says how the proxy is reached, mostly http://host:3128',
    };
  }
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '')
    return { option: 'proxy.url', what: 'expected no path', hint: 'give host and port alone' };
  if (isTargetSecure && !tunnel)
    return { option: 'proxy.tunnel', what: 'an https:// server is reached through a tunnel only', hint: 'take it out' };
  return undefined;
}

export function proxyOf({ url: text, username, password }: ProxyOptions): Proxy {
  const url = new URL(text);
  const isSecure = url.protocol === 'https:';
  const user = username ?? decodeURIComponent(url.username);
  const secret = password ?? decodeURIComponent(url.password);
  return {
    address: url.origin,
    isSecure,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? (isSecure ? 443 : 80) : Number(url.port),
    headers:
      user === '' && secret === ''
        ? {}
        : { 'proxy-authorization': `Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}` },
  };
}

export interface TunnelConfig {
  /** `host:port`, a host of IPv6 in brackets. */
  readonly to: string;
  /** For the handshake with an `https:` proxy. */
  readonly tls: https.RequestOptions;
  /** Aborted, the attempt fails with its reason, and its connection is gone. */
  readonly signal: AbortSignal;
}

/** @throws `ProxyFailure`, or the signal's reason. */
export function openTunnel(proxy: Proxy, { to, tls, signal }: TunnelConfig): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { request } = proxy.isSecure ? https : http;
    const asked = request({
      ...tls,
      host: proxy.host,
      port: proxy.port,
      method: 'CONNECT',
      path: to,
      headers: { host: to, ...proxy.headers },
      agent: false,
    });
    const aborted = (): void => void asked.destroy(signal.reason as Error);
    signal.addEventListener('abort', aborted, { once: true });
    asked.once('close', () => signal.removeEventListener('abort', aborted));
    asked.once('connect', ({ statusCode = 0, statusMessage = '' }, socket: Socket, head: Buffer) => {
      signal.removeEventListener('abort', aborted);
      if (statusCode < 200 || statusCode > 299) {
        socket.destroy();
        return reject(refusal(proxy.address, to, `${statusCode} ${statusMessage}`.trim()));
      }
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    asked.once('error', (error) => {
      if (signal.aborted) return reject(signal.reason as Error);
      const reason = error.message === '' ? ((error as NodeJS.ErrnoException).code ?? error.name) : error.message;
      reject(
        new ProxyFailure(
          `the proxy ${proxy.address} cannot be reached: ${reason}`,
          'check clickhouse.proxy.url, http:// or https:// included',
          error,
        ),
      );
    });
    asked.end();
    if (signal.aborted) aborted();
  });
}

function refusal(address: string, to: string, said: string): ProxyFailure {
  return new ProxyFailure(
    `the proxy ${address} refuses a tunnel to ${to}: ${said}`,
    refusalHint(Number.parseInt(said, 10)),
  );
}

function refusalHint(status: number): string {
  if (status === 407) return 'it wants a login: give clickhouse.proxy.username and .password, or check them';
  if (status >= 500)
    return 'the proxy itself cannot reach ClickHouse: check the host and port of clickhouse.url from there';
  return (
    'allow CONNECT to that host and port in the proxy; an http:// ClickHouse can do without: ' +
    'clickhouse.proxy.tunnel false'
  );
}

/** What a proxy that was handed the request (no tunnel) answered itself; undefined: it says nothing about that. */
export function loginWanted(status: number, proxy: Proxy): ProxyFailure | undefined {
  if (status !== 407) return undefined;
  return new ProxyFailure(`the proxy ${proxy.address} refuses the request: 407`, refusalHint(status));
}
