/**
 * Imports: the types of queries. Queries over @clickhouse/client.
 */
import { text as readText } from 'node:stream/consumers';
import type { ClickHouseClient } from '@clickhouse/client';
import type { Ask } from './queries.js';

export function askOver(client: ClickHouseClient): Ask {
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
