// The demo's data: the US flights that the npm package vega-datasets ships, made JSON by ClickHouse, produced to Kafka.
import { readFile } from 'node:fs/promises';
import { request, type IncomingMessage } from 'node:http';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Partitioners, type Message } from 'kafkajs';
import { command, kafkaClient, query } from '../../test/stack/clients.js';
import type { Addresses } from '../../test/stack/stack.js';

export const partitions = 4;
/** What the package's file holds. */
export const allFlights = 3_000_000;

const columns = 'date DateTime64(3), delay Int16, distance Int16, origin String, destination String';
const linesPerSend = 20_000;

/** Loads the Parquet file into a table that is made for it; resolves to its rows. Refused when there is such a table. */
export async function loadSource(url: string, rows: number, table: string): Promise<number> {
  const main = createRequire(import.meta.url).resolve('vega-datasets');
  const parquet = await readFile(join(dirname(main), '..', 'data', 'flights-3m.parquet'));
  await command(url, `CREATE TABLE ${table} (n UInt64, ${columns}) ENGINE = MergeTree ORDER BY n`);
  const insert = `INSERT INTO ${table} SELECT rowNumberInAllBlocks(), * FROM input('${columns}') LIMIT ${rows} FORMAT Parquet`;
  await post(url, insert, parquet);
  const [counted] = await query<{ rows: number }>(url, `SELECT count() AS rows FROM ${table}`);
  return counted?.rows ?? 0;
}

/**
 * The table the ingester fills: the flights, their provenance, and a window that remembers tokens. Refused when there is
 * such a table.
 */
export async function createFlightsTable(url: string, table: string): Promise<void> {
  await command(
    url,
    `CREATE TABLE ${table} (${columns}, _topic LowCardinality(String), _partition UInt32, _offset UInt64)
     ENGINE = MergeTree ORDER BY (_partition, _offset) SETTINGS non_replicated_deduplication_window = 10000`,
  );
}

/** Produces the rows of the table `source` as JSON to `topic`, in their order, spread over its partitions. Resolves to how many. */
export async function produceFlights(
  { clickhouseUrl: url, brokers }: Pick<Addresses, 'clickhouseUrl' | 'brokers'>,
  source: string,
  topic: string,
  onProduced: (rows: number) => void,
): Promise<number> {
  // Idempotent: a send that is made again under load must not put its records into the topic twice.
  const producer = kafkaClient(brokers).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  try {
    let batch: Message[] = [];
    let sent = 0;
    let line = 0;
    const send = async () => {
      await producer.send({ topic, messages: batch, acks: -1 });
      sent += batch.length;
      batch = [];
      onProduced(sent);
    };
    for await (const value of selectLines(url, `SELECT * EXCEPT n FROM ${source} ORDER BY n FORMAT JSONEachRow`)) {
      batch.push({ value, partition: Math.floor(line++ / 500) % partitions });
      if (batch.length === linesPerSend) await send();
    }
    if (batch.length > 0) await send();
    return sent;
  } finally {
    await producer.disconnect();
  }
}

/** What the contents of a table come to, whatever the order of its rows. */
export async function contents(url: string, table: string): Promise<{ readonly rows: number; readonly sum: string }> {
  const names = columns.split(', ').map((column) => column.split(' ')[0]);
  const sql = `SELECT count() AS rows, toString(sum(cityHash64(${names.join(', ')}))) AS sum FROM ${table}`;
  const [row] = await query<{ rows: number; sum: string }>(url, sql);
  return row ?? { rows: 0, sum: '' };
}

function post(url: string, sql: string, body: Buffer): Promise<void> {
  const target = new URL('/', url);
  target.searchParams.set('query', sql);
  return new Promise((resolve, reject) => {
    const outgoing = request(target, { method: 'POST', agent: false }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8').on('data', (part: string) => (text += part));
      incoming.on('end', () => (incoming.statusCode === 200 ? resolve() : reject(new Error(text))));
    });
    outgoing.on('error', reject).end(body);
  });
}

/** The lines of an answer, as bytes. */
async function* selectLines(url: string, sql: string): AsyncGenerator<Buffer> {
  const target = new URL('/', url);
  target.searchParams.set('query', sql);
  const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
    request(target, { method: 'GET', agent: false }, resolve).on('error', reject).end();
  });
  if (incoming.statusCode !== 200) throw new Error(`ClickHouse answered ${incoming.statusCode} to ${sql}`);
  let rest: Buffer = Buffer.alloc(0);
  for await (const part of incoming as AsyncIterable<Buffer>) {
    const bytes = rest.length === 0 ? part : Buffer.concat([rest, part]);
    let from = 0;
    for (let end = bytes.indexOf(0x0a); end !== -1; end = bytes.indexOf(0x0a, from)) {
      yield bytes.subarray(from, end);
      from = end + 1;
    }
    rest = bytes.subarray(from);
  }
  if (rest.length > 0) throw new Error(`The answer to ${sql} was cut short`);
}
