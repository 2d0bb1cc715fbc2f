/**
 * Room: ClickHouse's HTTP interface. Queries go through @clickhouse/client. Inserts go through node:http: their
 * bodies are made in memory that is used again, so it must be known when nobody looks at a piece any more, and
 * where a request broke (before or after it was sent) decides whether it is in doubt. Each has connections of its own:
 * the client cuts those that it thinks idle, also while an insert waits on them. Knows nothing of batches.
 */
import http from 'node:http';
import https from 'node:https';
import type { Duplex, Writable } from 'node:stream';
import { text as readText } from 'node:stream/consumers';
import { createGzip } from 'node:zlib';
import { type ClickHouseClient, ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { IngestError } from '../errors.js';
import type { BodyPieces } from './body.js';
import { classify, type Phase, serverReason } from './classify.js';
import { readRowsOf } from './row-count.js';
import { webPage } from './web-page.js';

/** How ClickHouse is reached. */
export interface ClickHouseConnection {
  /** Where ClickHouse listens for HTTP, for example `http://localhost:8123`; a path is kept, for proxies. */
  readonly url: string;
  /** @default 'default' */
  readonly database?: string;
  /** @default 'default' */
  readonly username?: string;
  /** @default '' */
  readonly password?: string;
  /**
   * How long one request may take, from its first byte to the end of its answer. An insert that takes longer is not
   * cancelled by it: the server goes on, which is why it then counts as in doubt.
   * @default 120000
   */
  readonly requestTimeoutMs?: number;
  /** How long a query, which inserts nothing, may take. @default as `requestTimeoutMs` */
  readonly queryTimeoutMs?: number;
  /** Aborted while the first questions are asked: those under way fail at once, with its reason. */
  readonly starting?: AbortSignal | undefined;
  /** How long a connection may take to come about. @default 10000 */
  readonly connectTimeoutMs?: number;
  /** For `https:` urls. */
  readonly tls?: Pick<https.AgentOptions, 'ca' | 'cert' | 'key' | 'passphrase' | 'pfx' | 'rejectUnauthorized' | 'servername'>;
  /** Sent with every request, for proxies and gateways. */
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Answer {
  readonly status: number;
  /** ClickHouse's own error code; also looked at when the status says 200. */
  readonly code: number | undefined;
  readonly text: string;
  /** Rows that the server says it has read, those of materialized views included; undefined: it, or a proxy, does not say. */
  readonly readRows: number | undefined;
  /** It came over a connection that had been used before: the server is still the same run of itself. */
  readonly kept: boolean;
}

/** What the server itself said against a statement. */
export interface ServerError {
  readonly code: number;
  readonly text: string;
}

export interface Exchange {
  /** Rejects with a `ConnectionFailure`, or with what making the body threw: then the server has not got all of it, and takes none. */
  readonly answer: Promise<Answer>;
  /** Resolves when the body's pieces are not looked at any more, by nobody. */
  readonly bodyFree: Promise<void>;
  /** Bytes of the body so far, as they were sent. */
  sentBytes(): number;
}

/** The request did not come to the end of an answer. */
export class ConnectionFailure extends Error {
  override readonly name = 'ConnectionFailure';
  constructor(
    readonly phase: Phase,
    reason: string,
    cause?: unknown,
  ) {
    super(reason, cause === undefined ? undefined : { cause });
  }
}

export interface HttpRequest {
  /** What goes into the url: query, settings, `param_…`. */
  readonly params: Readonly<Record<string, string>>;
  readonly body: BodyPieces;
  /** Compressed on the way. @default false */
  readonly gzip?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export const REQUEST_TIMEOUT_MS = 120_000;
const CONNECT_TIMEOUT_MS = 10_000;
/** Servers hang up on idle connections, ClickHouse after 10 s or less; whoever is earlier avoids a request in doubt. */
const IDLE_MS = 2_500;
const CODE_HEADER = 'x-clickhouse-exception-code';
const SUMMARY_HEADER = 'x-clickhouse-summary';

export class ClickHouseHttp {
  /** For messages: without credentials. */
  readonly address: string;
  readonly #http: typeof http | typeof https;
  readonly #client: ClickHouseClient;
  readonly #agent: http.Agent;
  readonly #queryAgent: http.Agent;
  readonly #base: http.RequestOptions;
  readonly #path: string;
  readonly #requestTimeoutMs: number;
  readonly #starting: AbortSignal | undefined;

  constructor(connection: ClickHouseConnection) {
    const url = parseUrl(connection.url);
    const secure = url.protocol === 'https:';
    this.address = url.origin + (url.pathname === '/' ? '' : url.pathname);
    this.#http = secure ? https : http;
    this.#agent = agentFor(secure, connection);
    this.#queryAgent = agentFor(secure, connection);
    const user = connection.username ?? (decodeURIComponent(url.username) || 'default');
    const password = connection.password ?? decodeURIComponent(url.password);
    this.#base = {
      method: 'POST',
      host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
      port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
      agent: this.#agent,
      headers: {
        authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
        'user-agent': 'kafka-clickhouse-rx',
        ...lowerCased(connection.headers ?? {}),
      },
    };
    this.#path = url.pathname;
    this.#requestTimeoutMs = connection.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
    this.#starting = connection.starting;
    this.#client = createClient({
      url: url.origin,
      ...(url.pathname === '/' ? {} : { pathname: url.pathname }),
      username: user,
      password,
      application: 'kafka-clickhouse-rx',
      request_timeout: connection.queryTimeoutMs ?? this.#requestTimeoutMs,
      http_agent: this.#queryAgent,
      http_headers: lowerCased(connection.headers ?? {}),
      log: { level: ClickHouseLogLevel.OFF },
    });
  }

  /**
   * Sends at once. Aborting the signal destroys the connection; the server may go on all the same. A body of one piece
   * has a Content-Length, a longer one goes in chunks: cut off, either of them is refused as a whole.
   * @throws What making the body's first piece throws.
   */
  send({ params, body, gzip = false, signal }: HttpRequest): Exchange {
    const first = body.next();
    const length = gzip ? { 'content-encoding': 'gzip' } : body.isOver ? { 'content-length': first.byteLength } : {};
    const request = this.#http.request({
      ...this.#base,
      path: `${this.#path}?${new URLSearchParams(params).toString()}`,
      headers: { ...(this.#base.headers as http.OutgoingHttpHeaders), ...length },
    });
    const sending = new Sending(request, body, gzip);
    const bodyFree = new Promise<void>((resolve) => request.once('close', resolve));
    const answer = new Promise<Answer>((resolve, reject) => {
      let phase: Phase = 'connecting';
      let ended = false;
      const failWith = (error: Error): void => {
        if (ended) return;
        ended = true;
        reject(error);
        request.destroy();
      };
      const fail = (reason: string, cause?: unknown): void => failWith(new ConnectionFailure(phase, `${this.address}: ${reason}`, cause));
      const aborted = (): void => fail('the request was aborted');
      const whole = setTimeout(() => fail(`no answer within ${this.#requestTimeoutMs} ms`), this.#requestTimeoutMs);
      const connected = (): void => void (phase = 'sent');
      request.once('socket', (socket) => {
        if (!socket.connecting) connected();
        else socket.once(this.#http === https ? 'secureConnect' : 'connect', connected);
      });
      request.on('error', (error) => fail(connectionReason(error, request.reusedSocket), error));
      request.once('close', () => {
        clearTimeout(whole);
        signal?.removeEventListener('abort', aborted);
        fail('the connection was closed before the answer had ended');
      });
      request.once('response', (response) => {
        phase = 'answering';
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        // Of an answer that is cut off Node tells here; `end` comes for a whole one only.
        response.once('error', (error) => fail(connectionReason(error, request.reusedSocket), error));
        response.once('end', () => {
          ended = true;
          const text = Buffer.concat(chunks).toString('utf8');
          resolve(answerOf({ status: response.statusCode ?? 0, headers: response.headers, text }, request.reusedSocket));
          // An answer that came before the body had gone out: whatever is still being sent must not go on from a
          // buffer that is about to be used again.
          if (!request.writableFinished) request.destroy();
        });
      });
      if (signal?.aborted === true) return aborted();
      signal?.addEventListener('abort', aborted, { once: true });
      sending.begin(first, failWith);
    });
    return { answer, bodyFree, sentBytes: () => sending.bytes };
  }

  /**
   * Rows of a SELECT. Values go in as parameters: `{name:Type}` in the text, `name` in `values`.
   * Errors: `KCR_CLICKHOUSE_UNREACHABLE`, `KCR_TABLE_MISSING`, `KCR_PREFLIGHT` with the server's code.
   */
  async select<Row>(sql: string, values: Readonly<Record<string, string | number>> = {}, signal = this.#starting): Promise<Row[]> {
    try {
      const answer = await this.#client.query({ query: sql, query_params: values, format: 'JSON', ...(signal === undefined ? {} : { abort_signal: signal }) });
      return (await answer.json<Row>()).data;
    } catch (thrown) {
      throw this.#queryError(thrown);
    }
  }

  /** Undefined when the statement ran, else what the server said. Errors: `KCR_CLICKHOUSE_UNREACHABLE`. */
  async attempt(sql: string, settings: Readonly<Record<string, string>> = {}): Promise<ServerError | undefined> {
    try {
      await this.#client.command({ query: sql, clickhouse_settings: settings, ...this.#abortedByStart() });
      return undefined;
    } catch (thrown) {
      const said = serverError(thrown);
      if (said !== undefined) return said;
      throw this.#queryError(thrown);
    }
  }

  /** The answer of a statement that takes no FORMAT. Errors: as `select`. */
  async text(sql: string): Promise<string> {
    try {
      const { stream } = await this.#client.exec({ query: sql, ...this.#abortedByStart() });
      return await readText(stream);
    } catch (thrown) {
      throw this.#queryError(thrown);
    }
  }

  #abortedByStart(): { readonly abort_signal?: AbortSignal } {
    return this.#starting === undefined ? {} : { abort_signal: this.#starting };
  }

  #queryError(thrown: unknown): IngestError {
    if (this.#starting?.reason instanceof IngestError) return this.#starting.reason;
    return queryError(this.address, thrown);
  }

  close(): void {
    void this.#client.close();
    this.#agent.destroy();
    this.#queryAgent.destroy();
  }
}

/** What the sink needs of a server: a simulated one stands in for it in tests. */
export type ClickHouseWire = Pick<ClickHouseHttp, 'address' | 'send' | 'select' | 'close'>;

/** What came over the wire, to its end. */
export interface RawAnswer {
  readonly status: number;
  /** By names in lower case. */
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

/** What an answer to an insert says. `kept`: it came over a connection that had been used before. */
export function answerOf({ status, headers, text }: RawAnswer, kept: boolean): Answer {
  return { status, code: exceptionCode(headers[CODE_HEADER]), text: webPage(text) ?? text, readRows: readRowsOf(headers[SUMMARY_HEADER]), kept };
}

/** What a query that failed means: what the client threw, or what broke on the way. */
export function queryError(address: string, thrown: unknown): IngestError {
  const said = serverError(thrown);
  if (said !== undefined) return refused(address, said);
  const reason = thrown instanceof Error ? thrown.message || (thrown as NodeJS.ErrnoException).code || thrown.name : String(thrown);
  const page = webPage(reason);
  if (page !== undefined) {
    return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `At ${address} another server answers: ${page}`, {
      hint: 'a proxy or another server stands there: check the url, that the proxy passes requests on, and that ClickHouse is up behind it',
    });
  }
  return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse does not answer: ${address}: ${reason}`, {
    hint: 'check that the url is that of the HTTP interface (port 8123, or 8443 with TLS) and that the server is up',
    cause: thrown,
  });
}

/** Writes of a body that may be under way at once: as many as there are pieces. */
const MAX_WRITES = 2;

/** A body on its way into its request. */
class Sending {
  bytes = 0;
  readonly #request: http.ClientRequest;
  readonly #body: BodyPieces;
  readonly #into: Writable;
  #writes = 0;

  constructor(request: http.ClientRequest, body: BodyPieces, gzip: boolean) {
    this.#request = request;
    this.#body = body;
    this.#into = gzip ? this.#gzip() : request;
  }

  begin(first: Uint8Array, failed: (error: Error) => void): void {
    if (this.#request.destroyed) return;
    this.#go(first, failed);
  }

  #go(made: Uint8Array | undefined, failed: (error: Error) => void): void {
    let piece = made;
    while (this.#writes < MAX_WRITES && !this.#into.destroyed && !this.#into.writableEnded) {
      try {
        piece ??= this.#body.next();
      } catch (thrown) {
        return failed(thrown as Error);
      }
      if (this.#into === this.#request) this.bytes += piece.byteLength;
      this.#writes += 1;
      if (this.#body.isOver) return void this.#into.end(piece);
      this.#into.write(piece, (error) => {
        this.#writes -= 1;
        if (error == null) this.#go(undefined, failed);
      });
      piece = undefined;
    }
  }

  #gzip(): Writable {
    const gzip = createGzip({ level: 1 });
    gzip.on('data', (packed: Buffer) => (this.bytes += packed.length));
    gzip.on('error', (error) => this.#request.destroy(error));
    this.#request.once('close', () => gzip.destroy());
    gzip.pipe(this.#request);
    return gzip;
  }
}

type OnConnected = (error: Error | null, stream: Duplex) => void;

/** Keeps connections alive, and gives up one that does not come about in time, TLS handshake included. */
function agentFor(secure: boolean, { tls, connectTimeoutMs = CONNECT_TIMEOUT_MS }: ClickHouseConnection): http.Agent {
  const agent = secure
    ? new https.Agent({ keepAlive: true, timeout: IDLE_MS, scheduling: 'lifo', ...tls })
    : new http.Agent({ keepAlive: true, timeout: IDLE_MS, scheduling: 'lifo' });
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options: http.ClientRequestArgs, onConnected?: OnConnected) => {
    const socket = connect(options, onConnected);
    if (socket == null) return socket;
    const late = setTimeout(() => socket.destroy(new Error(`no connection within ${connectTimeoutMs} ms`)), connectTimeoutMs);
    const settled = (): void => clearTimeout(late);
    socket.once(secure ? 'secureConnect' : 'connect', settled).once('close', settled);
    return socket;
  };
  return agent;
}

/** An identifier as ClickHouse reads it, whatever it holds. */
export function quoteIdentifier(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
}

export function quotedTable(database: string, table: string): string {
  return `${quoteIdentifier(database)}.${quoteIdentifier(table)}`;
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new IngestError('KCR_CONFIG', `Expected \`url\` to be an http: or https: url, got ${withoutPassword(text)}`);
  }
  if (url.search !== '' || url.hash !== '') {
    throw new IngestError('KCR_CONFIG', 'Expected `url` to have no query string', { hint: 'give settings in `clickhouseSettings`' });
  }
  return url;
}

function withoutPassword(text: string): string {
  return JSON.stringify(text.replace(/^.*@/s, '…@'));
}

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function exceptionCode(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined;
  const code = Number(header);
  return Number.isInteger(code) ? code : 0;
}

function connectionReason(error: Error, reusedSocket: boolean): string {
  const code = (error as NodeJS.ErrnoException).code;
  const what = error.message === '' ? (code ?? error.name) : error.message;
  return reusedSocket && code === 'ECONNRESET' ? `${what} (on a kept-alive connection)` : what;
}

function serverError(thrown: unknown): ServerError | undefined {
  if (thrown instanceof ClickHouseError) return { code: Number(thrown.code), text: thrown.message };
  // The client knows an error by its whole shape, which proxies and versions may change.
  const code = thrown instanceof Error ? /^Code: (\d+)\. DB::Exception/.exec(thrown.message)?.[1] : undefined;
  return code === undefined ? undefined : { code: Number(code), text: (thrown as Error).message };
}

function refused(address: string, { code, text }: ServerError): IngestError {
  const reason = serverReason(text) || `code ${code}`;
  const fields = { serverCode: code };
  if (code === 60 || code === 81) return new IngestError('KCR_TABLE_MISSING', reason, fields);
  const verdict = classify({ kind: 'answer', status: 500, code, text });
  if (verdict === 'retriable' || verdict === 'in-doubt') {
    return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse at ${address} cannot answer now: ${reason}`, fields);
  }
  return new IngestError('KCR_PREFLIGHT', `ClickHouse at ${address} refused a query: ${reason}`, fields);
}
