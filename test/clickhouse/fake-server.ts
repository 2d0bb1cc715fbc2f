// A ClickHouse that misbehaves on purpose: answers the sink's questions, and leaves its inserts to the test.
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

export interface FakeInsert {
  readonly params: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
  readonly socket: Socket;
  readonly response: ServerResponse;
}

export interface FakeOptions {
  readonly engine?: string;
  readonly columns?: Readonly<Record<string, string>>;
  readonly version?: string;
  readonly views?: readonly string[];
  readonly settings?: readonly string[];
  /** The server's default of `replicated_deduplication_window_seconds`; undefined: the user may not see it. */
  readonly windowSeconds?: number;
  /** The table's own SETTINGS. */
  readonly tableSettings?: string;
  readonly partitionKey?: string;
}

/** What may be altered while a test runs; undefined: the server does not say. */
export interface FakeTable {
  uuid?: string | undefined;
  alteredS?: number | undefined;
  mutation?: number | undefined;
  columns: Readonly<Record<string, string>>;
  settings: string;
  isGone: boolean;
}

export interface FakeServer {
  readonly url: string;
  readonly table: FakeTable;
  /** Every insert that came, with its body. */
  readonly inserts: FakeInsert[];
  /** Every other statement. */
  readonly queries: string[];
  /** Of each of them. */
  readonly headers: IncomingMessage['headers'][];
  /** What to do with an insert whose body has come. @default an empty 200 */
  onInsert: (insert: FakeInsert) => void;
  /** Rows for a statement, or the server code of its failure, or no answer at all; undefined: what a healthy server says. */
  onSelect: (sql: string) => readonly object[] | number | 'silence' | undefined;
  /** Answers say which query they are of, as ClickHouse's own do. */
  namesQueries: boolean;
  /** Connections that were accepted. */
  connections: number;
  /** Hangs up on connections that nothing is under way on. */
  dropIdle(): void;
  close(): Promise<void>;
}

export async function fakeClickHouse(options: FakeOptions = {}): Promise<FakeServer> {
  const {
    engine = 'MergeTree',
    version = '26.7.2.1',
    views = [],
    settings = ['deduplicate_insert'],
    windowSeconds,
    tableSettings = 'non_replicated_deduplication_window = 1000',
    partitionKey = '',
  } = options;
  const table: FakeTable = {
    columns: options.columns ?? { id: 'UInt64', _topic: 'String', _partition: 'Int32', _offset: 'Int64' },
    settings: tableSettings,
    isGone: false,
    alteredS: 100,
  };
  const healthy = (sql: string): readonly object[] | number => {
    if (sql.includes('version()')) return [{ version, timezone: 'UTC', now: '1763800200000', uptime: 1000 }];
    if (sql.includes('system.settings')) return settings.map((name) => ({ name }));
    if (sql.includes('system.columns'))
      return Object.entries(table.columns).map(([name, type]) => ({
        name,
        type,
        defaultKind: '',
        defaultExpression: '',
        inPartitionKey: 0,
      }));
    if (sql.includes('system.processes')) return [];
    if (sql.includes('system.replicated_merge_tree_settings'))
      return windowSeconds === undefined ? 497 : [{ value: String(windowSeconds) }];
    if (sql.includes('system.mutations'))
      return table.mutation === undefined ? 497 : [{ last: String(table.mutation) }];
    if (!sql.includes('system.tables') || table.isGone) return [];
    return [
      {
        uuid: table.uuid,
        altered: table.alteredS,
        engine,
        engine_full: `${engine} ORDER BY id SETTINGS ${table.settings}`,
        sorting_key: 'id',
        partition_key: partitionKey,
        create_table_query: '',
        dependencies_database: views.map(() => 'default'),
        dependencies_table: views,
      },
    ];
  };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('error', () => undefined);
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const params = new URL(request.url ?? '/', 'http://fake').searchParams;
      const body = Buffer.concat(chunks);
      if (fake.namesQueries) response.setHeader('x-clickhouse-query-id', params.get('query_id') ?? '');
      if (params.has('query')) {
        const insert = { params, headers: request.headers, body, socket: request.socket, response };
        fake.inserts.push(insert);
        return fake.onInsert(insert);
      }
      const sql = body.toString();
      fake.queries.push(sql);
      fake.headers.push(request.headers);
      const given = fake.onSelect(sql) ?? healthy(sql);
      if (given === 'silence') return undefined;
      if (typeof given !== 'number') return response.end(JSON.stringify({ data: given }));
      response
        .writeHead(500, { 'x-clickhouse-exception-code': String(given) })
        .end(`Code: ${given}. DB::Exception: because (version 26)`);
    });
  });
  server.on('connection', () => fake.connections++);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const fake: FakeServer = {
    table,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    inserts: [],
    queries: [],
    headers: [],
    onInsert: ({ response }) => response.end(),
    onSelect: () => undefined,
    namesQueries: true,
    connections: 0,
    dropIdle: () => server.closeIdleConnections(),
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return fake;
}
