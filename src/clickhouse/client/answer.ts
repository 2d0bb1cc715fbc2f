/**
 * The answer to an insert, or how it failed to come. Knows nothing of batches. Imports: Node, clickhouse/insert.
 */
import type http from 'node:http';
import { readRowsOf } from '../insert/row-count.js';
import type { Phase } from './classify-error.js';
import { isConnected } from './connection.js';
import { connectionFault } from './connection-fault.js';
import { foreignAnswer, isAnswerOf } from './query-answer.js';
import { webPage } from './web-page.js';

const CODE_HEADER = 'x-clickhouse-exception-code';
const SUMMARY_HEADER = 'x-clickhouse-summary';

export interface Answer {
  readonly status: number;
  /** ClickHouse's own error code; also looked at when the status says 200. */
  readonly code: number | undefined;
  readonly text: string;
  /**
   * Rows that the server says it has read, those of materialized views included; undefined: it, or a proxy, does not
   * say.
   */
  readonly readRows: number | undefined;
  /** It came over a connection that had been used before: the server is still the same run of itself. */
  readonly kept: boolean;
  /**
   * Undefined: it names the query that was sent. Else what answered is not known, nor whether the server has got
   * anything.
   */
  readonly foreign: { readonly why: string; readonly hint: string } | undefined;
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

interface Awaited {
  readonly address: string;
  readonly queryId: string;
  readonly timeoutMs: number;
  readonly isSecure: boolean;
  readonly signal: AbortSignal | undefined;
}

interface Then {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
  /** Sends the body; `fail` is called when it cannot be made. */
  readonly begin: (fail: (error: Error) => void) => void;
}

/** Follows the request to its end, and knows of each failure whether the server may have got it. */
export function awaitAnswer(
  request: http.ClientRequest,
  { address, queryId, timeoutMs, isSecure, signal }: Awaited,
  { resolve, reject, begin }: Then,
): void {
  let phase: Phase = 'connecting';
  let ended = false;
  const failWith = (error: Error): void => {
    if (ended) return;
    ended = true;
    reject(error);
    request.destroy();
  };
  const fail = (reason: string, cause?: unknown, hint?: string): void =>
    failWith(new ConnectionFailure(phase, `${address}: ${reason}`, cause, hint));
  const broken = (error: Error): void => {
    const fault = connectionFault(error);
    fail(fault?.what ?? connectionReason(error, request.reusedSocket), error, fault?.hint);
  };
  const aborted = (): void => fail('the request was aborted');
  const whole = setTimeout(() => fail(`no answer within ${timeoutMs} ms`), timeoutMs);
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
      const { statusCode: status = 0, headers } = response;
      resolve(answerOf(queryId, { status, headers, text }, request.reusedSocket));
      // An answer that came before the body had gone out: whatever is still being sent must not go on from a
      // buffer that is about to be used again.
      if (!request.writableFinished) request.destroy();
    });
  });
  if (signal?.aborted === true) return aborted();
  signal?.addEventListener('abort', aborted, { once: true });
  begin(failWith);
}

/** What came over the wire, to its end. */
export interface RawAnswer {
  readonly status: number;
  /** By names in lower case. */
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

/** What an answer to the insert `queryId` says. `kept`: it came over a connection that had been used before. */
export function answerOf(queryId: string, { status, headers, text }: RawAnswer, kept: boolean): Answer {
  return {
    status,
    code: exceptionCode(headers[CODE_HEADER]),
    text: webPage(text) ?? text,
    readRows: readRowsOf(headers[SUMMARY_HEADER]),
    kept,
    foreign: isAnswerOf(queryId, headers) ? undefined : foreignAnswer(headers),
  };
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
