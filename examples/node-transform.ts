// Node streams on both sides: a Node Transform as the transform step, and the outcomes as a Readable with back-pressure.
import { Transform, type TransformCallback } from 'node:stream';
import {
  exactlyOnce,
  kafkaSource,
  keeperStore,
  openClickHouseSink,
  toReadable,
  type KafkaRecord,
} from 'kafka-clickhouse-rx';
import { parseExact, stringifyExact, transformThrough } from 'kafka-clickhouse-rx/operators';

const env = (name: string) => process.env[name] ?? '';
const topic = 'flights';

/** Miles become kilometres. Made again for each batch: a replay must give the same rows. */
const kilometres = () =>
  new Transform({
    objectMode: true,
    transform(record: KafkaRecord, _encoding: BufferEncoding, done: TransformCallback) {
      // Not JSON.parse and JSON.stringify, which round a UInt64 beyond 2^53, or a Decimal.
      const row = parseExact<{ distance: number }>(record.value);
      const value =
        row === null ? null : Buffer.from(stringifyExact({ ...row, distance: Math.round(row.distance * 1.609) }) ?? '');
      done(null, { ...record, value });
    },
  });

const source = kafkaSource({
  brokers: [env('KAFKA_BROKERS')],
  groupId: 'node-transform',
  topics: [topic],
  fromBeginning: true,
});
const sink = await openClickHouseSink({
  url: env('CLICKHOUSE_URL'),
  database: 'default',
  username: 'default',
  password: '',
  routes: [{ topic, table: 'flights' }],
});
const store = keeperStore({ connect: env('KEEPER_CONNECT'), path: '/kafka-clickhouse-rx' });
process.once('SIGTERM', () => source.drain()).once('SIGINT', () => source.drain());

const outcomes = exactlyOnce(source, sink, store, {
  group: 'node-transform',
  owner: `node-transform-${process.pid}`,
  transform: () => transformThrough(kilometres),
});

// A reader that takes its time: the source waits for it, memory stays flat.
for await (const outcome of toReadable(outcomes, source)) {
  console.log(JSON.stringify(outcome));
}
await Promise.all([sink.close(), store.close()]);
