/**
 * Room: ClickHouse's HTTP interface: one request, one answer read to its end, and queries on top.
 * Knows nothing of batches. node:http directly, since a body that is one Buffer of known length is sent without a copy
 * and with a Content-Length, so that a body which is cut off never counts as a whole one.
 */
import http from 'node:http';
import https from 'node:https';
import { IngestError } from '../errors.js';
import { classify, type Phase, serverReason } from './classify.js';

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
  /** It came over a connection that had been used before: the server is still the same run of itself. */
  readonly kept: boolean;
}

export interface Exchange {
  /** Rejects with a `ConnectionFailure`, and with nothing else. */
  readonly answer: Promise<Answer>;
  /** Resolves when the body's bytes are not looked at any more, by nobody. */
  readonly bodyFree: Promise<void>;
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
  readonly body: Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

const REQUEST_TIMEOUT_MS = 120_000;
const CONNECT_TIMEOUT_MS = 10_000;
/** Servers hang up on idle connections, ClickHouse after 10 s or less; whoever is earlier avoids a request in doubt. */
const IDLE_MS = 2_500;
const CODE_HEADER = 'x-clickhouse-exception-code';

export class ClickHouseHttp {
  /** For messages: without credentials. */
  readonly address: string;
  readonly #client: typeof http | typeof https;
  readonly #agent: http.Agent;
  readonly #base: http.RequestOptions;
  readonly #path: string;
  readonly #requestTimeoutMs: number;
  readonly #connectTimeoutMs: number;

  constructor(connection: ClickHouseConnection) {
    const url = parseUrl(connection.url);
    const secure = url.protocol === 'https:';
    this.address = url.origin + (url.pathname === '/' ? '' : url.pathname);
    this.#client = secure ? https : http;
    this.#agent = secure
      ? new https.Agent({ keepAlive: true, timeout: IDLE_MS, scheduling: 'lifo', ...connection.tls })
      : new http.Agent({ keepAlive: true, timeout: IDLE_MS, scheduling: 'lifo' });
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
    this.#connectTimeoutMs = connection.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
  }

  /** Sends at once. Aborting the signal destroys the connection; the server may go on all the same. */
  send({ params, body, headers, signal }: HttpRequest): Exchange {
    const request = this.#client.request({
      ...this.#base,
      path: `${this.#path}?${new URLSearchParams(params).toString()}`,
      headers: { ...(this.#base.headers as http.OutgoingHttpHeaders), ...headers, 'content-length': body.byteLength },
    });
    const bodyFree = new Promise<void>((resolve) => request.once('close', resolve));
    const answer = new Promise<Answer>((resolve, reject) => {
      let phase: Phase = 'connecting';
      let ended = false;
      const fail = (reason: string, cause?: unknown): void => {
        if (ended) return;
        ended = true;
        reject(new ConnectionFailure(phase, `${this.address}: ${reason}`, cause));
        request.destroy();
      };
      const aborted = (): void => fail('the request was aborted');
      const whole = setTimeout(() => fail(`no answer within ${this.#requestTimeoutMs} ms`), this.#requestTimeoutMs);
      const connect = setTimeout(() => fail(`no connection within ${this.#connectTimeoutMs} ms`), this.#connectTimeoutMs);
      const connected = (): void => {
        phase = 'sent';
        clearTimeout(connect);
      };
      request.once('socket', (socket) => {
        if (!socket.connecting) connected();
        else socket.once(this.#client === https ? 'secureConnect' : 'connect', connected);
      });
      request.on('error', (error) => fail(connectionReason(error, request.reusedSocket), error));
      request.once('close', () => {
        clearTimeout(whole);
        clearTimeout(connect);
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
          resolve({
            status: response.statusCode ?? 0,
            code: exceptionCode(response.headers[CODE_HEADER]),
            text: Buffer.concat(chunks).toString('utf8'),
            kept: request.reusedSocket,
          });
          // An answer that came before the body had gone out: whatever is still being sent must not go on from a
          // buffer that is about to be used again.
          if (!request.writableFinished) request.destroy();
        });
      });
      if (signal?.aborted === true) return aborted();
      signal?.addEventListener('abort', aborted, { once: true });
      request.end(body);
    });
    return { answer, bodyFree };
  }

  /**
   * Rows of a SELECT. Values go in as parameters: `{name:Type}` in the text, `name` in `values`.
   * Errors: `KCR_CLICKHOUSE_UNREACHABLE`, `KCR_TABLE_MISSING`, `KCR_PREFLIGHT` with the server's code.
   */
  async select<Row>(sql: string, values: Readonly<Record<string, string | number>> = {}, signal?: AbortSignal): Promise<Row[]> {
    const params = Object.fromEntries(Object.entries(values).map(([name, value]) => [`param_${name}`, escapeParameter(value)]));
    const answer = await this.ask(`${sql}\nFORMAT JSON`, params, signal);
    if (answer.status !== 200 || answer.code !== undefined) throw queryError(this.address, answer);
    return parseRows<Row>(this.address, answer);
  }

  /** Whatever the server answers. Errors: `KCR_CLICKHOUSE_UNREACHABLE`. */
  async ask(sql: string, params: Readonly<Record<string, string>> = {}, signal?: AbortSignal): Promise<Answer> {
    try {
      return await this.send({ params, body: Buffer.from(sql), signal }).answer;
    } catch (failure) {
      const reason = failure instanceof Error ? failure.message : String(failure);
      throw new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse does not answer: ${reason}`, {
        hint: 'check that the url is that of the HTTP interface (port 8123, or 8443 with TLS) and that the server is up',
        cause: failure,
      });
    }
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** An identifier as ClickHouse reads it, whatever it holds. */
export function quoteIdentifier(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
}

export function quotedTable(database: string, table: string): string {
  return `${quoteIdentifier(database)}.${quoteIdentifier(table)}`;
}

/** ClickHouse reads parameters as TSV-escaped text. */
function escapeParameter(value: string | number): string {
  return String(value).replaceAll('\\', '\\\\').replaceAll('\t', '\\t').replaceAll('\n', '\\n');
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

function queryError(address: string, { status, code, text }: Answer): IngestError {
  const reason = serverReason(text) || `HTTP status ${status}`;
  const fields = { serverCode: code ?? `HTTP ${status}` };
  if (code === 60 || code === 81) return new IngestError('KCR_TABLE_MISSING', reason, fields);
  const verdict = classify({ kind: 'answer', status, code, text });
  if (verdict === 'retriable' || verdict === 'in-doubt') {
    return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse at ${address} cannot answer now: ${reason}`, fields);
  }
  return new IngestError('KCR_PREFLIGHT', `ClickHouse at ${address} refused a query: ${reason}`, fields);
}

function parseRows<Row>(address: string, { text }: Answer): Row[] {
  try {
    return (JSON.parse(text) as { data: Row[] }).data;
  } catch (cause) {
    throw new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `${address} gave an answer that is cut off or not ClickHouse's`, {
      hint: 'check that the url is that of ClickHouse’s HTTP interface',
      cause,
    });
  }
}
