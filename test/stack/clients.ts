// Small conveniences for tests: SQL over plain HTTP, and topics, records and offsets over kafkajs.
import { randomUUID } from 'node:crypto';
import { request } from 'node:http';
import {
  CompressionTypes,
  Kafka,
  type KafkaConfig,
  type Message,
  Partitioners,
  type ProducerRecord,
  logLevel,
} from 'kafkajs';

export interface SqlOptions {
  /** ClickHouse settings, sent as URL parameters. */
  readonly settings?: Readonly<Record<string, string | number>>;
  readonly user?: string;
  readonly password?: string;
  readonly database?: string;
  /** @default 60000 */
  readonly timeoutMs?: number;
}

/** Rejects unless the server answers `/ping`. */
export async function ping(url: string): Promise<void> {
  await call('GET', new URL('/ping', url), '', 10_000);
}

/** The rows of a SELECT as objects. 64-bit integers come as numbers, and so lose precision above 2^53. */
export async function query<Row = Record<string, unknown>>(
  url: string,
  sql: string,
  options: SqlOptions = {},
): Promise<Row[]> {
  const settings = { default_format: 'JSONEachRow', output_format_json_quote_64bit_integers: 0, ...options.settings };
  const text = await command(url, sql, { ...options, settings });
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Row);
}

/** Runs any statement; resolves to the body of the answer. `data` follows the statement, as in `INSERT … FORMAT`. */
export async function command(
  url: string,
  sql: string,
  options: SqlOptions & { readonly data?: string } = {},
): Promise<string> {
  const target = new URL('/', url);
  const given = { user: options.user, password: options.password, database: options.database };
  for (const [name, value] of Object.entries({ ...given, ...options.settings })) {
    if (value !== undefined) target.searchParams.set(name, String(value));
  }
  const body = options.data === undefined ? sql : `${sql}\n${options.data}`;
  return call('POST', target, body, options.timeoutMs ?? 60_000);
}

/** A connection for each call: none is left half-dead in a pool when a test kills the server. */
function call(method: string, target: URL, body: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = request(target, { method, agent: false, timeout: timeoutMs }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8');
      incoming.on('data', (part: string) => (text += part));
      incoming.on('error', reject);
      incoming.on('end', () => {
        const code = incoming.headers['x-clickhouse-exception-code'];
        if (incoming.statusCode === 200 && code === undefined) return resolve(text);
        reject(
          new Error(
            `ClickHouse answered ${incoming.statusCode}, code ${String(code)}: ${text.trim()}\n${body.slice(0, 500)}`,
          ),
        );
      });
    });
    outgoing.on('timeout', () =>
      outgoing.destroy(new Error(`ClickHouse did not answer within ${timeoutMs} ms: ${body.slice(0, 200)}`)),
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

/** A kafkajs client that logs nothing. It is patient enough to get over a restart of the broker. */
export function kafkaClient(brokers: readonly string[], config: Partial<KafkaConfig> = {}): Kafka {
  return new Kafka({
    clientId: 'stack',
    logLevel: logLevel.NOTHING,
    retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 20 },
    ...config,
    brokers: [...brokers],
  });
}

/** Resolves when the topic exists and each of its partitions has a leader. */
export async function createTopic(
  brokers: readonly string[],
  topic: string,
  options: {
    readonly partitions?: number;
    readonly config?: Readonly<Record<string, string>>;
    /** The brokers that keep each partition, the leader first. */
    readonly replicas?: readonly (readonly number[])[];
  } = {},
): Promise<void> {
  const configEntries = Object.entries(options.config ?? {}).map(([name, value]) => ({ name, value }));
  await withAdmin(brokers, async (admin) => {
    // As many replicas as the brokers give by default.
    const spread =
      options.replicas === undefined
        ? { numPartitions: options.partitions ?? 1, replicationFactor: -1 }
        : { replicaAssignment: options.replicas.map((list, partition) => ({ partition, replicas: [...list] })) };
    const topics = [{ topic, ...spread, configEntries }];
    try {
      await admin.createTopics({ topics, waitForLeaders: true });
    } catch (thrown) {
      // On a loaded broker the topic may not have come to be known yet when kafkajs looks for its leaders.
      if ((thrown as { type?: unknown }).type !== 'UNKNOWN_TOPIC_OR_PARTITION') throw thrown;
      await admin.createTopics({ topics, waitForLeaders: true });
    }
  });
}

export interface ProduceOptions {
  /** @default -1, all replicas */
  readonly acks?: -1 | 0 | 1;
  readonly compression?: CompressionTypes;
  /** Sends them in one transaction, which is then committed or aborted. */
  readonly transactional?: 'commit' | 'abort';
  /** @default a new one */
  readonly transactionalId?: string;
}

/** Sends records, through a producer of its own. Plain strings become values. */
export async function produce(
  brokers: readonly string[],
  topic: string,
  messages: readonly (Message | string)[],
  options: ProduceOptions = {},
): Promise<void> {
  const { transactional } = options;
  const producer = kafkaClient(brokers).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    // Idempotent, where the acknowledgements allow it: a send that is made again must not produce its records twice.
    ...((options.acks ?? -1) === -1 ? { idempotent: true, maxInFlightRequests: 1 } : {}),
    ...(transactional ? { transactionalId: options.transactionalId ?? randomUUID() } : {}),
  });
  const batch: ProducerRecord = {
    topic,
    messages: messages.map((message) => (typeof message === 'string' ? { value: message } : message)),
    acks: options.acks ?? -1,
    compression: options.compression ?? CompressionTypes.None,
  };
  await producer.connect();
  try {
    if (transactional === undefined) {
      await producer.send(batch);
      return;
    }
    const transaction = await producer.transaction();
    await transaction.send(batch);
    await (transactional === 'commit' ? transaction.commit() : transaction.abort());
  } finally {
    await producer.disconnect();
  }
}

/** For each partition the offset that its next record will get. */
export async function topicEnd(brokers: readonly string[], topic: string): Promise<Map<number, bigint>> {
  const offsets = await withAdmin(brokers, (admin) => admin.fetchTopicOffsets(topic));
  return new Map(offsets.map(({ partition, high }) => [partition, BigInt(high)]));
}

/** What a group has committed of a topic, by partition; "-1" where it has nothing. */
export async function committedOffsets(brokers: readonly string[], groupId: string, topic: string): Promise<string[]> {
  const [offsets] = await withAdmin(brokers, (admin) => admin.fetchOffsets({ groupId, topics: [topic] }));
  return (offsets?.partitions ?? []).sort((a, b) => a.partition - b.partition).map(({ offset }) => offset);
}

/** Deletes a partition's records below an offset, as retention would. */
export async function deleteRecordsBefore(
  brokers: readonly string[],
  topic: string,
  partition: number,
  offset: bigint,
): Promise<void> {
  await withAdmin(brokers, async (admin) => {
    // deleteTopicRecords fails on a client that has not asked for the topic's metadata before.
    await admin.fetchTopicOffsets(topic);
    await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(offset) }] });
  });
}

/** Runs `use` with a connected admin client. */
export async function withAdmin<T>(
  brokers: readonly string[],
  use: (admin: ReturnType<Kafka['admin']>) => Promise<T>,
): Promise<T> {
  const admin = kafkaClient(brokers).admin();
  await admin.connect();
  try {
    return await use(admin);
  } finally {
    await admin.disconnect();
  }
}
