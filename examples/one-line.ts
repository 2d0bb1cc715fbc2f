// The whole thing as one line: topic `flights` into table `flights`, exactly once. Ctrl-C drains.
import { ingest } from 'kafka-clickhouse-rx';

const stop = new AbortController();
process.once('SIGTERM', () => stop.abort()).once('SIGINT', () => stop.abort());

ingest(
  {
    kafka: { brokers: ['${KAFKA_BROKERS}'], groupId: 'one-line', fromBeginning: true },
    clickhouse: { url: '${CLICKHOUSE_URL}' },
    state: { store: 'keeper', connect: '${KEEPER_CONNECT}' },
    delivery: 'exactly-once',
    routes: [{ topic: 'flights', table: 'flights' }],
  },
  { signal: stop.signal },
).subscribe({
  next: (outcome) => console.log(outcome.kind === 'delivered' ? `${outcome.rows} rows` : outcome.error.message),
  error: (error: Error) => {
    console.error(error.message);
    process.exitCode = 1;
  },
});
