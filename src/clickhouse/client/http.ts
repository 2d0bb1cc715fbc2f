/**
 * ClickHouse's HTTP interface. Queries go through @clickhouse/client. Inserts go through node:http: their
 * bodies are made in memory that is used again, so it must be known when nobody looks at a piece any more, and
 * where a request broke (before or after it was sent) decides whether it is in doubt. Each has connections of its own:
 * the client cuts those that it thinks idle, also while an insert waits on them. Knows nothing of batches.
 * Imports: Node, clickhouse/insert, errors.
 */
import http from 'node:http';
import https from 'node:https';
import type { IngestError } from '../../errors.js';
import type { BodyPieces } from '../insert/body.js';
import { type Answer, awaitAnswer } from './answer.js';
import { type Asking, openAsking } from './ask.js';
import type { ServerError } from './asked.js';
import { type ClickHouseAddress, Endpoint } from './connection.js';
import { portOfTls } from './connection-fault.js';
import { type Encoding, Sending } from './sending.js';
import { speaksTls } from './speaks-tls.js';
import { Queries, unreachable } from './queries.js';

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

export interface Exchange {
  /**
   * Rejects with a `ConnectionFailure`, or with what making the body threw: then the server has not got all of it, and
   * takes none.
   */
  readonly answer: Promise<Answer>;
  /** Resolves when the body's pieces are not looked at any more, by nobody. */
  readonly bodyFree: Promise<void>;
  /** Bytes of the body so far, as they were sent. */
  sentBytes(): number;
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
export class ClickHouseHttp {
  /** For messages: without credentials. */
  readonly address: string;
  readonly #endpoint: Endpoint;
  readonly #asking: Asking;
  readonly #agent: http.Agent;
  readonly #requestTimeoutMs: number;
  readonly #queries: Queries;

  /** @throws `KCR_CONFIG` for options that cannot be used. */
  constructor(connection: ClickHouseConnection) {
    const endpoint = new Endpoint(connection);
    this.address = endpoint.address;
    this.#endpoint = endpoint;
    this.#agent = endpoint.agent();
    this.#requestTimeoutMs = connection.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
    this.#asking = openAsking(endpoint, {
      timeoutMs: connection.queryTimeoutMs ?? this.#requestTimeoutMs,
      compression: connection.answerCompression,
    });
    this.#queries = new Queries(this.#asking.ask, this.address, connection.starting);
  }

  /**
   * Sends at once. Aborting the signal destroys the connection; the server may go on all the same. A body of one piece
   * has a Content-Length, a longer one goes in chunks: cut off, either of them is refused as a whole.
   * @throws What making the body's first piece throws.
   */
  send({ params, body, encoding, signal }: HttpRequest): Exchange {
    const first = body.next();
    const length =
      encoding !== undefined
        ? { 'content-encoding': encoding }
        : body.isOver
          ? { 'content-length': first.byteLength }
          : {};
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
      const asked = { address: this.address, queryId: params['query_id'] ?? '', timeoutMs: this.#requestTimeoutMs };
      awaitAnswer(
        request,
        { ...asked, isSecure, signal },
        { resolve, reject, begin: (fail) => sending.begin(first, fail) },
      );
    });
    return { answer, bodyFree, sentBytes: () => sending.bytes };
  }

  /**
   * Rows of a SELECT, pinned to settings under which they are true. Values go in as parameters: `{name:Type}` in the
   * text,
   * `name` in `values`. `settings`: besides those, or in their place.
   * Errors: `KCR_CLICKHOUSE_UNREACHABLE`, also for an answer that is not of this query; `KCR_TABLE_MISSING`;
   * `KCR_PREFLIGHT` with the server's code.
   */
  select<Row>(
    sql: string,
    values: Readonly<Record<string, string | number>> = {},
    signal?: AbortSignal,
    settings?: Readonly<Record<string, string>>,
  ): Promise<Row[]> {
    return this.#queries.select<Row>(sql, values, signal, settings);
  }

  /** Undefined when the statement ran, else what the server said. Errors: `KCR_CLICKHOUSE_UNREACHABLE`. */
  attempt(sql: string, settings: Readonly<Record<string, string>> = {}): Promise<ServerError | undefined> {
    return this.#queries.attempt(sql, settings);
  }

  /** The answer of a statement that takes no FORMAT. Errors: as `select`. */
  text(sql: string): Promise<string> {
    return this.#queries.text(sql);
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
    return unreachable(this.address, portOfTls, cause);
  }

  close(): void {
    void this.#asking.close();
    this.#agent.destroy();
  }
}

/** What the sink needs of a server: a simulated one stands in for it in tests. */
export type ClickHouseWire = Pick<ClickHouseHttp, 'address' | 'send' | 'select' | 'close'>;

/** An identifier as ClickHouse reads it, whatever it holds. */
export function quoteIdentifier(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
}

export function quotedTable(database: string, table: string): string {
  return `${quoteIdentifier(database)}.${quoteIdentifier(table)}`;
}
