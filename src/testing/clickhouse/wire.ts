/**
 * The wire of one simulated process to a simulated ClickHouse, in the place of the one that ships. What is said of
 * an answer, and of what broke, is said by the code that ships. Imports: clickhouse/client, errors, rxjs, testing.
 */
import { Subscription } from 'rxjs';
import { type ClickHouseWire, type Exchange, type HttpRequest } from '../../clickhouse/client/http.js';
import { answerOf, ConnectionFailure, type Answer } from '../../clickhouse/client/answer.js';
import { Queries } from '../../clickhouse/client/queries.js';
import type { Query, QueryAnswer } from '../../clickhouse/client/asked.js';
import { IngestError } from '../../errors.js';
import type { PortName } from '../faults.js';
import type { SimulatedProcess } from '../process.js';
import { Broken, exception, type Insert, type Request, type Response } from './requests.js';
import type { SimulatedClickHouse } from './server.js';
import type { Settings } from './settings.js';

/** What a broken sink would send, or would make of an answer: the line that ships is not there. */
export interface Tampering {
  readonly request?: <R extends Request>(request: R) => R;
  readonly response?: (request: Request, response: Response) => Response;
}

export interface WireConfig {
  /** After so long nobody waits for an answer any more, milliseconds. */
  readonly timeoutMs: number;
  readonly tampering?: Tampering | undefined;
  /** What the process is about, for the story. */
  readonly partitionOf: (token: string) => number | undefined;
}

/** Names of parameters that are no settings. */
const notSettings = new Set(['query', 'query_id']);
const TOO_MANY_QUERIES = 202;

export class SimulatedWire implements ClickHouseWire {
  readonly address = 'http://simulated:8123';
  readonly #queries = new Queries((query) => this.#ask(query), this.address, undefined);

  constructor(
    private readonly process: SimulatedProcess,
    private readonly server: SimulatedClickHouse,
    private readonly config: WireConfig,
  ) {}

  send({ params, body, signal }: HttpRequest): Exchange {
    const pieces: Buffer[] = [];
    for (let isOver = false; !isOver; isOver = body.isOver) pieces.push(Buffer.from(body.next()));
    const whole = Buffer.concat(pieces);
    const settings: Settings = Object.fromEntries(Object.entries(params).filter(([name]) => !notSettings.has(name)));
    const insert: Insert = {
      kind: 'insert',
      text: params['query'] ?? '',
      queryId: params['query_id'] ?? '',
      settings,
      body: whole.toString('utf8'),
    };
    const port = insert.queryId.endsWith('-fill1') ? 'fill' : 'insert';
    const answer = this.#exchange(insert, port, signal).then((response): Answer =>
      answerOf(insert.queryId, response, true),
    );
    return { answer, bodyFree: Promise.resolve(), sentBytes: () => whole.byteLength };
  }

  select<Row>(
    sql: string,
    values: Readonly<Record<string, string | number>> = {},
    signal?: AbortSignal,
    settings?: Settings,
  ): Promise<Row[]> {
    return this.#queries.select<Row>(sql, values, signal, settings);
  }

  async #ask({ sql: text, queryId, values, settings, signal }: Query): Promise<QueryAnswer> {
    const isLook = text.includes('_offset');
    const {
      status,
      headers,
      text: said,
    } = await this.#exchange({ kind: 'select', text, queryId, values, settings }, isLook ? 'readBack' : 'ask', signal);
    if (headers['x-clickhouse-exception-code'] !== undefined || status !== 200) throw new Error(said);
    return { headers, text: said };
  }

  close(): void {
    // A simulated process that dies takes its connections with it.
  }

  #exchange(original: Request, port: PortName, signal: AbortSignal | undefined): Promise<Response> {
    const { tampering, timeoutMs, partitionOf } = this.config;
    const request = tampering?.request?.(original) ?? original;
    const token = request.kind === 'insert' ? request.settings['insert_deduplication_token'] : undefined;
    const partition = token === undefined ? undefined : partitionOf(token);
    return new Promise((resolve, reject) => {
      const waiting = new Subscription();
      // What is asked belongs to what is sent next: nobody alters the table in between.
      this.server.table.busy += 1;
      waiting.add(() => void (this.server.table.busy -= 1));
      waiting.add(this.process.died.subscribe({ next: () => waiting.unsubscribe(), error: () => undefined }));
      const failed = (phase: ConnectionFailure['phase'], reason: string): void => {
        waiting.unsubscribe();
        reject(new ConnectionFailure(phase, `${this.address}: ${reason}`));
      };
      const aborted = (): void => failed('sent', 'the request was aborted');
      if (signal?.aborted === true) return aborted();
      signal?.addEventListener('abort', aborted, { once: true });
      waiting.add(() => signal?.removeEventListener('abort', aborted));
      waiting.add(this.process.later(() => failed('sent', `no answer within ${timeoutMs} ms`), timeoutMs));
      const call = this.process.call<Response>({
        port,
        token,
        ...(partition === undefined ? {} : { partition }),
        what: () => whatOf(request),
        effect: () => exception(TOO_MANY_QUERIES, undefined),
        queue: (killed, done, fault) => this.server.receive(request, done, { killed, fault }),
      });
      waiting.add(
        call.subscribe({
          next: (response) => {
            waiting.unsubscribe();
            resolve(tampering?.response?.(request, response) ?? response);
          },
          error: (thrown: unknown) => {
            if (thrown instanceof Broken) return failed(thrown.phase, thrown.message);
            // What the plan of faults says: refused before it was looked at, or a reply that got lost.
            const isRefused = thrown instanceof IngestError && thrown.code === 'KCR_INSERT_RETRIABLE';
            if (!isRefused) return failed('sent', 'socket hang up');
            waiting.unsubscribe();
            resolve(exception(TOO_MANY_QUERIES, request.queryId));
          },
        }),
      );
    });
  }
}

function whatOf(request: Request): string {
  if (request.kind === 'insert')
    return (
      `${request.settings['insert_deduplication_token'] ?? 'without a token'}, ` +
      `${request.body.split('\n').filter((line) => line !== '').length} rows`
    );
  const { text, values } = request;
  const short = text.replaceAll(/\s+/g, ' ').slice(0, 60);
  return Object.keys(values).length === 0 ? short : `${short} ${JSON.stringify(values)}`;
}
