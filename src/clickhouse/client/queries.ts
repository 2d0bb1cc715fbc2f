/**
 * What is asked of ClickHouse and answered with rows or a word. An answer counts only if it names the query that was
 * sent, and is given under settings that let it be true. What carries queries and answers is given: see
 * `client/ask.ts`.
 * Imports: errors.
 */
import { IngestError } from '../../errors.js';
import { PinnedLooks } from './look-settings.js';
import {
  type Ask,
  answerTo,
  ForeignAnswer,
  pinned,
  rowsOf,
  type ServerError,
  serverError,
  type Settings,
  type Values,
} from './asked.js';
import { foreignAnswer } from './query-answer.js';
import { classifyError, serverReason } from './classify-error.js';
import { type ConnectionFault, connectionFault } from './connection-fault.js';
import { webPage } from './web-page.js';

export class Queries {
  readonly #ask: Ask;
  readonly #address: string;
  readonly #starting: AbortSignal | undefined;
  readonly #looks = new PinnedLooks();

  /** `starting`: see `ClickHouseConnection`. */
  constructor(ask: Ask, address: string, starting: AbortSignal | undefined) {
    this.#ask = ask;
    this.#address = address;
    this.#starting = starting;
  }

  /** See `ClickHouseHttp.select`. */
  async select<Row>(sql: string, values: Values, signal = this.#starting, settings: Settings = {}): Promise<Row[]> {
    return this.#pinned(signal, (pins) =>
      rowsOf<Row>(this.#ask, 'look', { sql, values, signal, settings: { ...pins, ...settings } }),
    );
  }

  /** See `ClickHouseHttp.attempt`. */
  async attempt(sql: string, settings: Settings): Promise<ServerError | undefined> {
    try {
      await answerTo(this.#ask, 'look', { sql, values: {}, settings, format: undefined, signal: this.#starting });
      return undefined;
    } catch (thrown) {
      const said = serverError(thrown);
      if (said !== undefined) return said;
      throw this.#queryError(thrown);
    }
  }

  /** See `ClickHouseHttp.text`. */
  async text(sql: string): Promise<string> {
    return this.#pinned(this.#starting, (pins) =>
      answerTo(this.#ask, 'look', { sql, values: {}, settings: pins, format: undefined, signal: this.#starting }),
    );
  }

  async #pinned<T>(signal: AbortSignal | undefined, query: (pins: Settings) => Promise<T>): Promise<T> {
    const ask = <Row>(sql: string) => rowsOf<Row>(this.#ask, 'look', { sql, values: {}, settings: {}, signal });
    try {
      return await pinned(this.#looks, ask, query);
    } catch (thrown) {
      throw this.#queryError(thrown);
    }
  }

  #queryError(thrown: unknown): IngestError {
    if (this.#starting?.reason instanceof IngestError) return this.#starting.reason;
    const said = serverError(thrown);
    if (said !== undefined) return refused(this.#address, said);
    const fault = connectionFault(thrown);
    if (fault !== undefined) return unreachable(this.#address, fault, thrown);
    const reason =
      thrown instanceof Error
        ? thrown.message || (thrown as NodeJS.ErrnoException).code || thrown.name
        : String(thrown);
    const page = webPage(thrown instanceof ForeignAnswer ? thrown.text : reason);
    if (page !== undefined) {
      return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `At ${this.#address} another server answers: ${page}`, {
        hint:
          'a proxy or another server stands there: check the url, that the proxy passes requests on, and that ' +
          'ClickHouse is up behind it',
      });
    }
    if (thrown instanceof ForeignAnswer) {
      const { why, hint } = foreignAnswer(thrown.headers);
      return new IngestError(
        'KCR_CLICKHOUSE_UNREACHABLE',
        `At ${this.#address} another server or a proxy answers: ${why}`,
        { hint },
      );
    }
    return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse does not answer: ${this.#address}: ${reason}`, {
      hint: 'check that the url is that of the HTTP interface (port 8123, or 8443 with TLS) and that the server is up',
      cause: thrown,
    });
  }
}

/** Of a connection that did not come about. */
export function unreachable(address: string, { what, hint }: ConnectionFault, cause: unknown): IngestError {
  return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', `ClickHouse cannot be reached: ${address}: ${what}`, {
    hint,
    cause,
  });
}

const SETTINGS_HINT =
  'looks are pinned to settings that let their answers be true: allow the user to change them (readonly = 0 or 2 ' +
  'in its profile, no constraint on the setting), or give the setting that value in the profile';

function refused(address: string, { code, text }: ServerError): IngestError {
  const reason = serverReason(text) || `code ${code}`;
  const fields = { serverCode: code };
  if (code === 60 || code === 81) return new IngestError('KCR_TABLE_MISSING', reason, fields);
  const verdict = classifyError({ kind: 'answer', status: 500, code, text });
  if (verdict === 'retriable' || verdict === 'in-doubt') {
    return new IngestError(
      'KCR_CLICKHOUSE_UNREACHABLE',
      `ClickHouse at ${address} cannot answer now: ${reason}`,
      fields,
    );
  }
  const hint = code === 164 || code === 452 ? SETTINGS_HINT : undefined;
  return new IngestError('KCR_PREFLIGHT', `ClickHouse at ${address} refused a query: ${reason}`, { ...fields, hint });
}
