/**
 * One query and its answer, for everything that asks a ClickHouse: an answer counts only if it names the query that was
 * sent, and has as many rows as it says. What carries both is given: see `ask.ts`. Imports: @clickhouse/client, Node.
 */
import { randomUUID } from 'node:crypto';
import { ClickHouseError } from '@clickhouse/client';
import type { PinnedLooks } from './look-settings.js';
import { foreignAnswer, isAnswerOf } from './query-answer.js';

/** What the server itself said against a statement. */
export interface ServerError {
  readonly code: number;
  readonly text: string;
}

export type Values = Readonly<Record<string, string | number>>;
export type Settings = Readonly<Record<string, string>>;
type Headers = Parameters<typeof isAnswerOf>[1];

/** A statement as it goes out. */
export interface Query {
  readonly sql: string;
  readonly queryId: string;
  readonly values: Values;
  readonly settings: Settings;
  /** Of the answer; undefined: the statement takes none, or names its own. */
  readonly format: 'JSON' | undefined;
  readonly signal: AbortSignal | undefined;
}

/** What came back, to its end. Names of headers are in lower case. */
export interface QueryAnswer {
  readonly headers: Headers;
  readonly text: string;
}

/** Rejects with what the server said against the query (its text), or with what broke on the way. */
export type Ask = (query: Query) => Promise<QueryAnswer>;

/** The answer is none of ClickHouse's to the query that was sent. */
export class ForeignAnswer extends Error {
  constructor(
    readonly headers: Headers,
    readonly text: string,
  ) {
    const { why, hint } = foreignAnswer(headers);
    super(`${why}; ${hint}`);
  }
}

interface JsonAnswer<Row> {
  readonly data: Row[];
  readonly rows?: number;
  /** With `http_write_exception_in_output_format` what went wrong midway. */
  readonly exception?: string;
}

/** Who asks, in the id of the query. */
export type Asker = 'look' | 'state';

/** The answer, to its end. @throws `ForeignAnswer`, and what `ask` rejects with. */
export async function answerTo(ask: Ask, asker: Asker, query: Omit<Query, 'queryId'>): Promise<string> {
  const queryId = `kcr-${asker}-${randomUUID()}`;
  const { headers, text } = await ask({ ...query, queryId });
  if (!isAnswerOf(queryId, headers)) throw new ForeignAnswer(headers, text);
  return text;
}

/** All rows of an answer. @throws As `answerTo`; an error for an answer that is not whole. */
export async function rowsOf<Row>(ask: Ask, asker: Asker, query: Omit<Query, 'queryId' | 'format'>): Promise<Row[]> {
  const text = await answerTo(ask, asker, { ...query, format: 'JSON' });
  const { data, rows = data.length, exception } = JSON.parse(text) as JsonAnswer<Row>;
  if (exception !== undefined) throw new Error(exception);
  if (rows !== data.length) throw new Error(`the answer has ${data.length} rows where it says ${rows}`);
  return data;
}

/**
 * Runs `query` under the pinned settings. `ask` asks for rows under none; `codeOf`: the server's code of what was
 * thrown.
 */
export function pinned<T>(
  looks: PinnedLooks,
  ask: <Row>(sql: string) => Promise<Row[]>,
  query: (pins: Settings) => Promise<T>,
  codeOf: (thrown: unknown) => unknown = (thrown) => serverError(thrown)?.code,
): Promise<T> {
  return looks.run({ ask: (sql) => ask<{ name: string; readonly: number }>(sql), codeOf }, query);
}

export function serverError(thrown: unknown): ServerError | undefined {
  if (thrown instanceof ClickHouseError) return { code: Number(thrown.code), text: thrown.message };
  // The client knows an error by its whole shape, which proxies and versions may change. Keeper's are no DB::Exception.
  const code = thrown instanceof Error ? /^Code: (\d+)\. /.exec(thrown.message)?.[1] : undefined;
  return code === undefined ? undefined : { code: Number(code), text: (thrown as Error).message };
}
