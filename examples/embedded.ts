// The ingestion inside of an application, with a transform, as the README shows it.
import { ingest } from 'kafka-clickhouse-rx';
import { parseExact } from 'kafka-clickhouse-rx/operators';

ingest({
  kafka: { brokers: ['127.0.0.1:9092'], groupId: 'flights', fromBeginning: true },
  clickhouse: { url: 'http://127.0.0.1:8123' },
  state: { store: 'keeper', connect: '127.0.0.1:2181' },
  delivery: 'exactly-once',
  routes: [{ topic: 'flights', table: 'flights', transform: (record) => parseExact(record.value) }],
}).subscribe((outcome) => console.log(outcome.kind));
