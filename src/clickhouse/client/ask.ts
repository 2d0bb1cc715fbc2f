/**
 * The one place that opens a way for queries to a ClickHouse, for sink, preflight and the store keeper-map alike:
 * address, login, TLS, headers, proxy, limits of time and compression. What is asked through it is checked in
 * `asked.ts`. Over
 * @clickhouse/client. Imports: @clickhouse/client, Node.
 */
import { text as readText } from 'node:stream/consumers';
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import type { Ask } from './asked.js';
import type { Endpoint } from './connection.js';
import type { Encoding } from './sending.js';

export interface AskingOptions {
  /** How long one query may take, milliseconds. */
  readonly timeoutMs: number;
  /** Of answers. @default 'none' */
  readonly compression?: 'none' | Encoding | undefined;
  /** Connections; queries beyond them wait. @default Infinity */
  readonly maxSockets?: number;
}

export interface Asking {
  readonly ask: Ask;
  /** Gives connections back. */
  close(): Promise<void>;
}

/** Connects when first asked. */
export function openAsking(
  endpoint: Endpoint,
  { timeoutMs, compression = 'none', maxSockets = Infinity }: AskingOptions,
): Asking {
  const agent = endpoint.agent({ maxSockets });
  const client = createClient({
    ...endpoint.clientOptions,
    request_timeout: timeoutMs,
    http_agent: agent,
    ...(compression === 'none' ? {} : { compression: { response: { codec: compression } } }),
    log: { level: ClickHouseLogLevel.OFF },
  });
  return {
    ask: askOver(client),
    close: async () => {
      await client.close();
      agent.destroy();
    },
  };
}

function askOver(client: ClickHouseClient): Ask {
  return async ({ sql, queryId, values, settings, format, signal }) => {
    const params = {
      query: sql,
      query_id: queryId,
      query_params: values,
      clickhouse_settings: settings,
      ...(signal === undefined ? {} : { abort_signal: signal }),
    };
    if (format === undefined) {
      const { stream, response_headers: headers } = await client.exec(params);
      return { headers, text: await readText(stream) };
    }
    const answer = await client.query({ ...params, format });
    return { headers: answer.response_headers, text: await answer.text() };
  };
}
