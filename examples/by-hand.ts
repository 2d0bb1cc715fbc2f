// The six stages composed by hand, with one's own operators between them: embed the ingestion in a reactive application.
import { Ledger, kafkaSource, keeperStore, openClickHouseSink } from 'kafka-clickhouse-rx';
import {
  bufferCountOrTime,
  commit,
  consume,
  groupByPartition,
  insertDeduped,
  reconcileWithState,
  transformRows,
} from 'kafka-clickhouse-rx/operators';
import { filter, scan, tap } from 'rxjs';

const env = (name: string) => process.env[name] ?? '';
const topic = 'flights';
const group = 'by-hand';

const source = kafkaSource({ brokers: [env('KAFKA_BROKERS')], groupId: group, topics: [topic], fromBeginning: true });
const sink = await openClickHouseSink({
  url: env('CLICKHOUSE_URL'),
  database: 'default',
  username: 'default',
  password: '',
  routes: [{ topic, table: 'flights' }],
});
const store = keeperStore({ connect: env('KEEPER_CONNECT'), path: '/kafka-clickhouse-rx' });
const ledger = new Ledger(store, source, { group, owner: `by-hand-${process.pid}` });

process.once('SIGTERM', () => source.drain()).once('SIGINT', () => source.drain());

consume(source)
  .pipe(
    groupByPartition(source, (partition) =>
      partition.chunks.pipe(
        bufferCountOrTime({ count: 50_000, bytes: 16 * 1024 * 1024, maxWaitMs: 500 }),
        // One's own operator: watch the batches go by.
        tap((batch) =>
          console.log(`${topic}/${partition.partition}: ${batch.records.length} records up to ${batch.lastOffset}`),
        ),
        reconcileWithState(partition, ledger, sink),
        // One's own transform: what does not depart does not go in. Offsets and ranges stay as they are.
        transformRows((record) => (record.value?.includes('"origin":""') ? null : record.value)),
        insertDeduped(sink),
        commit(partition, ledger),
      ),
    ),
    // What comes out are plain values: go on with them as with any observable.
    filter((outcome) => outcome.kind === 'delivered'),
    scan((rows, outcome) => rows + outcome.rows, 0),
  )
  .subscribe({
    next: (rows) => console.log(`${rows} rows so far`),
    complete: () => void Promise.all([sink.close(), store.close()]),
    error: (error: Error) => {
      console.error(error.message);
      process.exit(1);
    },
  });
