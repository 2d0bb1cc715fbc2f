/**
 * Does an answer over HTTP come of the query that was sent? Pure.
 *
 * ClickHouse names the query in the header `X-ClickHouse-Query-Id` of every answer of one that it took, of inserts that
 * wait for others too. A load balancer, a cache or another server that answers 200 in its place does not know the id; a
 * proxy that runs another query in place of ours (chproxy gives each a `query_id` of its own, and drops the settings
 * that it does not know) gives another one. Imports: nothing.
 */
const QUERY_ID_HEADER = 'x-clickhouse-query-id';

type Headers = Readonly<Record<string, string | readonly string[] | undefined>>;

/** Names of headers are expected in lower case, as Node gives them. */
export function isAnswerOf(queryId: string, headers: Headers): boolean {
  return headers[QUERY_ID_HEADER] === queryId;
}

/** What is wrong with an answer that is not of our query, and what to do about it. */
export function foreignAnswer(headers: Headers): { readonly why: string; readonly hint: string } {
  const given = headers[QUERY_ID_HEADER];
  if (given === undefined) {
    return {
      why: 'the answer does not name our query (it has no header X-ClickHouse-Query-Id), so it proves nothing',
      hint:
        'something between here and ClickHouse answers in its place, or takes the header out: let the proxies ' +
        'on the way pass it on, and answer with an error while ClickHouse is not there',
    };
  }
  return {
    why: 'the answer names another query than ours in X-ClickHouse-Query-Id, so it proves nothing',
    hint:
      'a proxy on the way gives queries an id of its own, or answers from a cache (as chproxy does, which ' +
      'drops the settings of the request too): connect past it',
  };
}
