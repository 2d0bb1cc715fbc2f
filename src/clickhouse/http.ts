/**
 * Room: ClickHouse's HTTP interface. Queries go through @clickhouse/client. Inserts go through node:http: their
 * bodies are made in memory that is used again, so it must be known when nobody looks at a piece any more, and
 * where a request broke (before or after it was sent) decides whether it is in doubt. Each has connections of its own:
 * the client cuts those that it thinks idle, also while an insert waits on them. Knows nothing of batches.
 */
import http from 'node:http';
import https from 'node:https';
import { text as readText } from 'node:stream/consumers';
import { type ClickHouseClient, ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { IngestError } from '../errors.js';
import type { BodyPieces } from './body.js';
import { classify, type Phase, serverReason } from './classify.js';
import { type ClickHouseAddress, Endpoint, isConnected } from './client/connection.js';
import { type ConnectionFault, connectionFault, portOfTls } from './client/connection-fault.js';
import { type Encoding, Sending } from './client/sending.js';
import { speaksTls } from './client/speaks-tls.js';
import { readRowsOf } from './row-count.js';
import { webPage } from './web-page.js';

/** How ClickHouse is reached, and how long it is waited for. */
export interface ClickHouseConnection extends ClickHouseAddress {
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
  /** Of queries' answers; `zstd` needs Node 22.15. @default 'none' */
  readonly answerCompression?: 'none' | Encoding;
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
    readonly hint?: string,
  ) {
    super(reason, cause === undefined ? undefined : { cause });
  }
}

export interface HttpRequest {
  /** What goes into the url: query, settings, `param_…`. */
  readonly params: Readonly<Record<string, string>>;
  readonly body: BodyPieces;
  /** Compressed on the way. @default as it is */
  readonly encoding?: Encoding | undefined;
  readonly signal?: AbortSignal | undefined;
}

export const REQUEST_TIMEOUT_MS = 120_000;
const CODE_HEADER = 'x-clickhouse-exception-code';
const SUMMARY_HEADER = 'x-clickhouse-summary';

export class ClickHouseHttp {
  /** For messages: without credentials. */
  readonly address: string;
  readonly #endpoint: Endpoint;
  readonly #client: ClickHouseClient;
  readonly #agent: http.Agent;
  readonly #queryAgent: http.Agent;
  readonly #requestTimeoutMs: number;
  readonly #starting: AbortSignal | undefined;

  /** @throws `KCR_CONFIG` for options that cannot be used. */
  constructor(connection: ClickHouseConnection) {
    const endpoint = new Endpoint(connection);
    this.address = endpoint.address;
    this.#endpoint = endpoint;
    this.#agent = endpoint.agent();
    this.#queryAgent = endpoint.agent();
    this.#requestTimeoutMs = connection.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
    this.#starting = connection.starting;
    const { answerCompression = 'none' } = connection;
    this.#client = createClient({
      ...endpoint.clientOptions,
      request_timeout: connection.queryTimeoutMs ?? this.#requestTimeoutMs,
      http_agent: this.#queryAgent,
      ...(answerCompression === 'none' ? {} : { compression: { response: { codec: answerCompression } } }),
      log: { level: ClickHouseLogLevel.OFF },
    });
  }

  /**
   * Sends at once. Aborting the signal destroys the connection; the server may go on all the same. A body of one piece
   * has a Content-Length, a longer one goes in chunks: cut off, either of them is refused as a whole.
   * @throws What making the body's first piece throws.
   */
  send({ params, body, encoding, signal }: HttpRequest): Exchange {
    const first = body.next();
    const length = encoding !== undefined ? { 'content-encoding': encoding } : body.isOver ? { 'content-length': first.byteLength } : {};
    const { isSecure, host, port, pathname, headers } = this.#endpoint;
    const request = (isSecure ? https : http).request({
      method: 'POST',
      host,
      port,
      agent: this.#agent,
      path: `${pathname || '/'}?${new URLSearchParams(params).toString()}`,
      headers: { 'user-agent': 'kafka-clickhouse-rx', ...headers, ...length },
    });
    const sending = new Sending(request, body, encoding);
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
      const fail = (reason: string, cause?: unknown, hint?: string): void => failWith(new ConnectionFailure(phase, `${this.address}: ${reason}`, cause, hint));
      const broken = (error: Error): void => {
        const fault = connectionFault(error);
        fail(fault?.what ?? connectionReason(error, request.reusedSocket), error, fault?.hint);
      };
      const aborted = (): void => fail('the request was aborted');
      const whole = setTimeout(() => fail(`no answer within ${this.#requestTimeoutMs} ms`), this.#requestTimeoutMs);
      const connected = (): void => void (phase = 'sent');
      request.once('socket', (socket) => {
        if (isConnected(socket)) connected();
        else socket.once(isSecure ? 'secureConnect' : 'connect', connected);
      });
      request.on('error', broken);
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
        response.once('error', broken);
        response.once('end', () => {
          ended = true;
          const text = Buffer.concat(chunks).toString('utf8');
          resolve({
            status: response.statusCode ?? 0,
            code: exceptionCode(response.headers[CODE_HEADER]),
            text: webPage(text) ?? text,
            readRows: readRowsOf(response.headers[SUMMARY_HEADER]),
            kept: request.reusedSocket,
          });
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
    const said = serverError(thrown);
    if (said !== undefined) return refused(this.address, said);
    const fault = connectionFault(thrown);
    if (fault !== undefined) return this.#unreachable(fault, thrown);
    const reason = thrown instanceof Error ? thrown.message || (thrown as NodeJS.ErrnoException).code || thrown.name : String(thrown);
    const page = webPage(reason);
    if (page !== undefined) {
      return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `At ${this.address} another server answers: ${page}`, {
        hint: 'a proxy or another server stands there: check the url, that the proxy passes requests on, and that ClickHouse is up behind it',
      });
    }
    return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse does not answer: ${this.address}: ${reason}`, {
      hint: 'check that the url is that of the HTTP interface (port 8123, or 8443 with TLS) and that the server is up',
      cause: thrown,
    });
  }

  #unreachable({ what, hint }: ConnectionFault, cause: unknown): IngestError {
    return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse cannot be reached: ${this.address}: ${what}`, { hint, cause });
  }

  /**
   * What a query's failure may have meant: who is asked without TLS on a port for TLS hangs up without a word, so the
   * port is tried. Gives the error itself where nothing better is known.
   */
  async explained(error: IngestError): Promise<IngestError> {
    const { isSecure, isThroughProxy, host, port } = this.#endpoint;
    const { cause } = error.fields;
    const isHangUp = (cause as NodeJS.ErrnoException | undefined)?.code === 'ECONNRESET';
    if (isSecure || isThroughProxy || !isHangUp || !(await speaksTls(host, port))) return error;
    return this.#unreachable(portOfTls, cause);
  }

  close(): void {
    void this.#client.close();
    this.#agent.destroy();
    this.#queryAgent.destroy();
  }
}

/** An identifier as ClickHouse reads it, whatever it holds. */
export function quoteIdentifier(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
}

export function quotedTable(database: string, table: string): string {
  return `${quoteIdentifier(database)}.${quoteIdentifier(table)}`;
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
