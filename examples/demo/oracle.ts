// The demo's judge: compares the table with the topic, read by a plain consumer. It asks none of our own counters.
import { randomUUID } from 'node:crypto';
import { request } from 'node:http';
import { kafkaClient, topicEnd } from '../../test/stack/clients.js';

export interface Verdict {
  /** Records in the topic. */
  readonly produced: number;
  readonly rows: number;
  /** Records of the topic without a row in the table. */
  readonly missing: number;
  /** Rows beyond the first of a record. */
  readonly duplicated: number;
  /** Rows that stand for no record of the topic. */
  readonly foreign: number;
}

/** Compares `table`'s `(_partition, _offset)` with the records of `topic`. */
export async function judge(brokers: readonly string[], topic: string, url: string, table: string): Promise<Verdict> {
  const inTopic = await offsetsOfTopic(brokers, topic);
  const inTable = new Map([...inTopic].map(([partition, marks]) => [partition, new Uint16Array(marks.length)]));
  let rows = 0;
  let foreign = 0;
  await eachPosition(url, table, (partition, offset) => {
    rows += 1;
    if (inTopic.get(partition)?.[offset] === 1) inTable.get(partition)![offset]! += 1;
    else foreign += 1;
  });
  let produced = 0;
  let missing = 0;
  let duplicated = 0;
  for (const [partition, marks] of inTopic) {
    const counts = inTable.get(partition)!;
    for (let offset = 0; offset < marks.length; offset++) {
      if (marks[offset] === 0) continue;
      produced += 1;
      if (counts[offset] === 0) missing += 1;
      else duplicated += counts[offset]! - 1;
    }
  }
  return { produced, rows, missing, duplicated, foreign };
}

/** For each partition, 1 at each offset that has a record. */
async function offsetsOfTopic(brokers: readonly string[], topic: string): Promise<Map<number, Uint8Array>> {
  const ends = await topicEnd(brokers, topic);
  const marks = new Map([...ends].map(([partition, end]) => [partition, new Uint8Array(Number(end))]));
  const unread = new Set([...ends].filter(([, end]) => end > 0n).map(([partition]) => partition));
  const consumer = kafkaClient(brokers).consumer({
    groupId: `oracle-${randomUUID()}`,
    maxWaitTimeInMs: 250,
    maxBytesPerPartition: 4 << 20,
  });
  await consumer.connect();
  try {
    await consumer.subscribe({ topic, fromBeginning: true });
    await new Promise<void>((resolve, reject) => {
      if (unread.size === 0) resolve();
      consumer.on('consumer.crash', ({ payload }) => reject(payload.error));
      void consumer.run({
        autoCommit: false,
        eachBatch: async (payload) => {
          const { batch } = payload;
          const seen = marks.get(batch.partition);
          for (const { offset } of batch.messages) if (Number(offset) < (seen?.length ?? 0)) seen![Number(offset)] = 1;
          if (Number(batch.lastOffset()) + 1 >= (seen?.length ?? 0)) unread.delete(batch.partition);
          payload.resolveOffset(batch.lastOffset());
          await payload.heartbeat();
          if (unread.size === 0) resolve();
        },
      });
    });
  } finally {
    await consumer.disconnect();
  }
  return marks;
}

/** Calls for each row of the table, without keeping them. */
function eachPosition(url: string, table: string, take: (partition: number, offset: number) => void): Promise<void> {
  const target = new URL('/', url);
  target.searchParams.set('query', `SELECT toUInt32(_partition), toUInt32(_offset) FROM ${table} FORMAT RowBinary`);
  return new Promise((resolve, reject) => {
    const outgoing = request(target, { method: 'GET', agent: false }, (incoming) => {
      if (incoming.statusCode !== 200) reject(new Error(`ClickHouse answered ${incoming.statusCode} for ${table}`));
      let rest: Buffer = Buffer.alloc(0);
      incoming.on('data', (part: Buffer) => {
        const bytes = rest.length === 0 ? part : Buffer.concat([rest, part]);
        let at = 0;
        for (; at + 8 <= bytes.length; at += 8) take(bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4));
        rest = bytes.subarray(at);
      });
      incoming.on('end', () => (rest.length === 0 ? resolve() : reject(new Error(`${table}: a row was cut short`))));
      incoming.on('error', reject);
    });
    outgoing.on('error', reject).end();
  });
}
