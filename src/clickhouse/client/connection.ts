/**
 * How ClickHouse is reached: the one owner of address, login, TLS, proxy and headers, for everything that
 * talks to it, the state store `keeper-map` included. Imports: Node, errors.
 */
import http from 'node:http';
import https from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { IngestError } from '../../errors.js';
import { headersFault } from './headers.js';
import { loginWanted, openTunnel, type Proxy, proxyFault, proxyOf, type ProxyOptions } from './proxy.js';
import { connectTls, type OptionFault, proxyTls, tlsFault, type TlsOptions } from './tls.js';

/** Where ClickHouse is, and how a connection to it comes about. */
export interface ClickHouseAddress {
  /** Where ClickHouse listens for HTTP, for example `http://localhost:8123`; a path is kept, for gateways. */
  readonly url: string;
  /** The database in which names without one are looked up. @default 'default' */
  readonly database?: string;
  /** The user to log in as. @default 'default' */
  readonly username?: string;
  /** Of `username`. @default '' */
  readonly password?: string;
  /** How long a connection may take to come about, milliseconds; proxy and TLS handshake included. @default 10000 */
  readonly connectTimeoutMs?: number;
  /** For `https:` urls. */
  readonly tls?: TlsOptions;
  /** Sent with every request, for gateways. An `authorization` takes the place of user and password. */
  readonly headers?: Readonly<Record<string, string>>;
  /** An HTTP proxy to go through. @default none; the environment is not asked */
  readonly proxy?: ProxyOptions;
}

/** What of larger options says how ClickHouse is reached. */
export function addressOf({
  url,
  database,
  username,
  password,
  connectTimeoutMs,
  tls,
  headers,
  proxy,
}: ClickHouseAddress): ClickHouseAddress {
  const optional = Object.entries({ database, username, password, connectTimeoutMs, tls, headers, proxy }).filter(
    ([, value]) => value !== undefined,
  );
  return { url, ...(Object.fromEntries(optional) as Omit<ClickHouseAddress, 'url'>) };
}

export const CONNECT_TIMEOUT_MS = 10_000;
/** Servers hang up on idle connections, ClickHouse after 10 s or less; whoever is earlier avoids a request in doubt. */
const IDLE_MS = 2_500;

/** The options of a connection that cannot be used; undefined: they can. Nothing is connected to. */
export function addressFault({
  url,
  tls,
  headers = {},
  proxy,
  password = '',
}: ClickHouseAddress): OptionFault | undefined {
  const isSecure = url.startsWith('https:');
  if (tls !== undefined && !isSecure && proxy?.url.startsWith('https:') !== true)
    return {
      option: 'tls',
      what: 'without effect: the url is http://',
      hint: 'write https:// and the port for TLS (8443), or take it out',
    };
  const isTokenGiven = Object.keys(headers).some((name) => name.toLowerCase() === 'authorization');
  if (isTokenGiven && (password !== '' || tls?.certificateLogin === true))
    return { option: 'headers.authorization', what: 'there is another login beside it', hint: 'give one of the two' };
  return (tls && tlsFault(tls)) ?? headersFault(headers) ?? (proxy && proxyFault(proxy, isSecure));
}

/** What a client needs to send requests. */
export class Endpoint {
  readonly origin: string;
  /** Without a `/` at the end; '' for none. */
  readonly pathname: string;
  readonly isSecure: boolean;
  readonly host: string;
  readonly port: number;
  /** Login and the user's own, all in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** The proxy that is handed whole requests, with `tunnel: false`. */
  readonly forwarding: Proxy | undefined;
  readonly #options: ClickHouseAddress;
  readonly #proxy: Proxy | undefined;

  /** @throws `KCR_CONFIG`, see `addressFault`. */
  constructor(options: ClickHouseAddress) {
    const url = parseUrl(options.url);
    const fault = addressFault(options);
    if (fault !== undefined)
      throw new IngestError('KCR_CONFIG', `\`${fault.option}\`: ${fault.what}`, { hint: fault.hint });
    this.origin = url.origin;
    this.pathname = url.pathname === '/' ? '' : url.pathname;
    this.isSecure = url.protocol === 'https:';
    this.host = url.hostname.replace(/^\[(.*)\]$/, '$1');
    this.port = url.port === '' ? (this.isSecure ? 443 : 80) : Number(url.port);
    this.headers = { ...loginHeaders(url, options), ...lowerCased(options.headers ?? {}) };
    this.#options = options;
    this.#proxy = options.proxy === undefined ? undefined : proxyOf(options.proxy);
    this.forwarding = options.proxy?.tunnel === false ? this.#proxy : undefined;
  }

  /** For messages: without credentials. */
  get address(): string {
    return this.origin + this.pathname;
  }

  /** For @clickhouse/client, beside an agent of ours. The login stands in the headers. */
  get clientOptions() {
    return {
      url: this.origin,
      ...(this.pathname === '' ? {} : { pathname: this.pathname }),
      application: 'kafka-clickhouse-rx',
      set_basic_auth_header: false,
      http_headers: this.headers,
    } as const;
  }

  get isThroughProxy(): boolean {
    return this.#proxy !== undefined;
  }

  /** Keeps connections alive, and gives up one that does not come about in time. */
  agent({ maxSockets = Infinity }: { readonly maxSockets?: number } = {}): http.Agent {
    const { tls = {}, connectTimeoutMs = CONNECT_TIMEOUT_MS } = this.#options;
    const options = { keepAlive: true, timeout: IDLE_MS, scheduling: 'lifo', maxSockets } as const;
    if (this.forwarding !== undefined)
      return limited(
        new ForwardingAgent(options, this.forwarding, proxyTls(tls)),
        this.forwarding.isSecure,
        connectTimeoutMs,
      );
    const agent = this.isSecure ? new https.Agent({ ...options, ...connectTls(tls) }) : new http.Agent(options);
    const proxy = this.#proxy;
    if (proxy === undefined) return limited(agent, this.isSecure, connectTimeoutMs);
    const to = `${this.host.includes(':') ? `[${this.host}]` : this.host}:${this.port}`;
    return tunnelled(
      agent,
      (signal) => openTunnel(proxy, { to, tls: proxyTls(tls), signal }),
      this.isSecure,
      connectTimeoutMs,
    );
  }
}

type OnConnected = (error: Error | null, stream: Duplex) => void;
/** Node looks at the stream only where there is no error. */
const failed = (onConnected: OnConnected | undefined, error: Error): void => onConnected?.(error, undefined as never);

const tooLate = (limitMs: number): Error => new Error(`no connection within ${limitMs} ms`);

function limited(agent: http.Agent, isSecure: boolean, limitMs: number): http.Agent {
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options: http.ClientRequestArgs, onConnected?: OnConnected) => {
    const socket = connect(options, onConnected);
    if (socket == null) return socket;
    const late = setTimeout(() => socket.destroy(tooLate(limitMs)), limitMs);
    const settled = (): void => clearTimeout(late);
    socket.once(isSecure ? 'secureConnect' : 'connect', settled).once('close', settled);
    return socket;
  };
  return agent;
}

/** Connections of the agent go through a tunnel, which counts as part of connecting. */
function tunnelled(
  agent: http.Agent,
  open: (signal: AbortSignal) => Promise<Socket>,
  isSecure: boolean,
  limitMs: number,
): http.Agent {
  const connect = agent.createConnection.bind(agent);
  const opening = new Set<AbortController>();
  agent.createConnection = (options: http.ClientRequestArgs, onConnected?: OnConnected) => {
    const limit = new AbortController();
    opening.add(limit);
    const late = setTimeout(() => limit.abort(tooLate(limitMs)), limitMs);
    const settled = (): void => {
      clearTimeout(late);
      opening.delete(limit);
    };
    open(limit.signal).then(
      (tunnel) => {
        // The handshake is with the server behind: the proxy sees none of it.
        const socket = isSecure ? connect({ ...options, socket: tunnel } as http.ClientRequestArgs) : tunnel;
        if (socket == null) return failed(onConnected, new Error('no connection'));
        limit.signal.addEventListener('abort', () => socket.destroy(limit.signal.reason as Error), { once: true });
        if (isSecure) socket.once('secureConnect', settled).once('close', settled);
        else settled();
        onConnected?.(null, socket);
      },
      (error: Error) => {
        settled();
        failed(onConnected, error);
      },
    );
    return undefined;
  };
  const destroy = agent.destroy.bind(agent);
  agent.destroy = () => {
    for (const limit of opening) limit.abort(new Error('closed'));
    destroy();
  };
  return agent;
}

/** Hands whole requests to a proxy: the address stands in the request's first line. */
class ForwardingAgent extends http.Agent {
  readonly #proxy: Proxy;
  readonly #tls: https.RequestOptions;

  constructor(options: http.AgentOptions, proxy: Proxy, tls: https.RequestOptions) {
    super(options);
    this.#proxy = proxy;
    this.#tls = tls;
  }

  /** Called by Node for each request, before its first line is written. */
  addRequest(request: http.ClientRequest, options: http.RequestOptions): void {
    request.path = `http://${String(request.getHeader('host'))}${request.path}`;
    for (const [name, value] of Object.entries(this.#proxy.headers)) request.setHeader(name, value);
    request.prependOnceListener('response', ({ statusCode = 0 }) => {
      const refused = loginWanted(statusCode, this.#proxy);
      if (refused !== undefined) request.destroy(refused);
    });
    const { host, port } = this.#proxy;
    const base = http.Agent.prototype as unknown as {
      addRequest(request: http.ClientRequest, options: http.RequestOptions): void;
    };
    base.addRequest.call(this, request, { ...options, host, port });
  }

  override createConnection(options: http.ClientRequestArgs, onConnected?: OnConnected): Duplex | null | undefined {
    if (!this.#proxy.isSecure) return super.createConnection(options, onConnected);
    return https.globalAgent.createConnection({ ...options, ...this.#tls, servername: this.#proxy.host });
  }
}

/** A user of ClickHouse's own certificates is told by name alone: a password beside it is refused by the server. */
function loginHeaders(url: URL, { username, password, tls }: ClickHouseAddress): Record<string, string> {
  const user = username ?? (decodeURIComponent(url.username) || 'default');
  if (tls?.certificateLogin === true) return { 'x-clickhouse-user': user, 'x-clickhouse-ssl-certificate-auth': 'on' };
  const secret = password ?? decodeURIComponent(url.password);
  return { authorization: `Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}` };
}

/** Has the connection of this request come about, TLS handshake included? */
export function isConnected(socket: Socket): boolean {
  return !socket.connecting && (socket as { readonly secureConnecting?: boolean }).secureConnecting !== true;
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new IngestError('KCR_CONFIG', `Expected \`url\` to be an http: or https: url, got ${withoutPassword(text)}`);
  }
  if (url.search !== '' || url.hash !== '') {
    throw new IngestError('KCR_CONFIG', `Expected \`url\` to have no query string, got ${withoutPassword(text)}`, {
      hint: 'give settings in `clickhouseSettings`',
    });
  }
  return url;
}

function withoutPassword(text: string): string {
  return JSON.stringify(text.replace(/^.*@/s, '…@'));
}

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
