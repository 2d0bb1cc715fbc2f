/**
 * A small server about one ingestion: `/` (the page), `/metrics`, `/livez`, `/readyz`, `/api/status`, `/events`. It
 * only reads (GET and HEAD), unless there is a token for `POST /api/pause` and the like. It shows no values of records.
 * Imports: Node, errors, prom-client.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP, type AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import { IngestError } from '../errors.js';
import { control, controlPaths, isAuthorized, type Controls } from './control.js';
import { EventStream } from './event-stream.js';
import { DEFAULT_LISTEN, listenAddress } from './listen.js';
import { liveness, readiness, type Health } from './health.js';
import type { Observed } from './status.js';

/** Where the status is served, and to whom. */
export interface StatusServerConfig {
  /** `host:port`; port 0 takes a free one. Loopback unless another host is named. @default '127.0.0.1:9464' */
  readonly listen?: string;
  /**
   * Names by which it may be asked beside `localhost` and addresses. Others are refused (421): a web page somewhere
   * must not read this by a name of its own that leads here. @default []
   */
  readonly allowedHosts?: readonly string[];
  /** What `/metrics` gives; without one it answers 404. */
  readonly registry?: Registry | undefined;
  /**
   * What may be told by `POST /api/pause`, `resume`, `drain`, each with the header `authorization: Bearer` and this
   * token. Without it nothing can be told. @default none
   */
  readonly control?: { readonly token: string; readonly controls: Controls } | undefined;
}

/** A status server that listens. */
export interface StatusServer {
  /** `http://127.0.0.1:9464` */
  readonly url: string;
  /** Ends open connections. Resolves when the port is free. */
  close(): Promise<void>;
}

export const REQUEST_LIMIT_MS = 10_000;
export const MAX_CONNECTIONS = 100;

/** Rejects with `KCR_CONFIG` when it cannot listen there. */
export async function serveStatus(observed: Observed, config: StatusServerConfig = {}): Promise<StatusServer> {
  const { host, port } = listenAddress(config.listen ?? DEFAULT_LISTEN);
  const events = new EventStream(observed);
  const { control, allowedHosts = [] } = config;
  const serving: Serving = {
    routes: routesOf(observed, config, events),
    controls: control?.controls,
    refusal: ({ headers, method }) => {
      if (!isAllowedHost(headers.host, allowedHosts)) return plain(421, 'this name is not served here\n');
      const isRead = method === 'GET' || method === 'HEAD';
      // A web page cannot send this header here: the browser would ask first, and OPTIONS is not answered.
      if (isRead || control === undefined || isAuthorized(headers.authorization, control.token)) return undefined;
      return { ...plain(401, 'the token is missing or wrong\n'), headers: { 'www-authenticate': 'Bearer' } };
    },
  };
  const server = createServer(
    { requestTimeout: REQUEST_LIMIT_MS, headersTimeout: REQUEST_LIMIT_MS },
    (request, response) => answer(request, response, serving),
  );
  server.maxConnections = MAX_CONNECTIONS;
  await listening(server, host, port);
  const { port: taken } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${taken}`,
    close: () => {
      events.close();
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function listening(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new IngestError('KCR_CONFIG', `http.listen: cannot listen at ${host}:${port} (${cause.code})`, {
          hint:
            cause.code === 'EADDRINUSE' ? 'another process listens there: take another port' : 'take another address',
          cause,
        }),
      ),
    );
    server.listen(port, host, () => resolve());
  });
}

interface Page {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export type Route = (response: ServerResponse, request: IncomingMessage) => Page | Promise<Page> | undefined;

function routesOf(
  observed: Observed,
  { registry }: StatusServerConfig,
  events: EventStream,
): ReadonlyMap<string, Route> {
  return new Map<string, Route>([
    ['/', () => statusPage()],
    ['/livez', () => healthPage(liveness(observed.status()))],
    ['/readyz', () => healthPage(readiness(observed.status()))],
    ['/api/status', () => jsonPage({ ...observed.status(), notices: observed.noted() })],
    [
      '/metrics',
      async () =>
        registry === undefined
          ? plain(404, 'no metrics here\n')
          : { status: 200, type: registry.contentType, body: await registry.metrics() },
    ],
    ['/events', (response, request) => events.take(response, request)],
  ]);
}

export interface Serving {
  readonly routes: ReadonlyMap<string, Route>;
  /** Undefined: nothing can be told. */
  readonly controls: Controls | undefined;
  /** What is answered to whom may not ask this. */
  readonly refusal: (request: IncomingMessage) => Page | undefined;
}

export function answer(request: IncomingMessage, response: ServerResponse, serving: Serving): void {
  const { routes, controls } = serving;
  const send = (page: Page): void => {
    if (response.headersSent || response.destroyed) return;
    response.writeHead(page.status, { ...always, 'content-type': page.type, ...page.headers });
    response.end(request.method === 'HEAD' ? undefined : page.body);
  };
  const refused = serving.refusal(request);
  if (refused !== undefined) return send(refused);
  const [path = '/', query] = (request.url ?? '/').split('?', 2);
  const action = controls === undefined ? undefined : controlPaths.get(path);
  const allowed = action === undefined ? ['GET', 'HEAD'] : ['POST'];
  if (!allowed.includes(request.method ?? ''))
    return send({ ...plain(405, `only ${allowed.join(', ')}\n`), headers: { allow: allowed.join(', ') } });
  if (action !== undefined && controls !== undefined) {
    const { status, body } = control(controls, action, new URLSearchParams(query));
    return send(jsonPage(body, status));
  }
  const route = routes.get(path);
  if (route === undefined) return send(plain(404, `nothing at this path; there is ${[...routes.keys()].join(', ')}\n`));
  Promise.resolve()
    .then(() => route(response, request))
    .then((page) => page !== undefined && send(page))
    .catch((thrown: unknown) => send(plain(500, `${String(thrown)}\n`)));
}

/** A name can be led anywhere by whoever owns it; an address cannot. */
export function isAllowedHost(header: string | undefined, allowedHosts: readonly string[]): boolean {
  if (header === undefined) return false;
  const name = header
    .replace(/:\d+$/, '')
    .replace(/^\[|\]$/g, '')
    .toLowerCase();
  return name === 'localhost' || isIP(name) !== 0 || allowedHosts.includes(name);
}

const always = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
};

function plain(status: number, body: string): Page {
  return { status, type: 'text/plain; charset=utf-8', body };
}

export function jsonPage(value: unknown, status = 200): Page {
  return { status, type: 'application/json', body: JSON.stringify(value) };
}

function healthPage({ isGood, why }: Health): Page {
  return plain(isGood ? 200 : 503, `${isGood ? 'ok' : 'no'}: ${why}\n`);
}

let page: Page | undefined;

/** One file, read once. Its style and its script run because their hashes are named. */
function statusPage(): Page {
  page ??= withPolicy(readFileSync(new URL('./page.html', import.meta.url), 'utf8'));
  return page;
}

function withPolicy(body: string): Page {
  const hashOf = (tag: string): string => {
    const [, text = ''] = new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(body) ?? [];
    return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
  };
  const policy = [
    "default-src 'none'",
    `script-src ${hashOf('script')}`,
    `style-src ${hashOf('style')}`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
  return { status: 200, type: 'text/html; charset=utf-8', body, headers: { 'content-security-policy': policy } };
}
