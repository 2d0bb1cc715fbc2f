import { parseExact } from 'kafka-clickhouse-rx/operators';

// A configuration with a function in it: node_modules/.bin/kafka-clickhouse-rx run examples/transform.config.mjs
export default {
  kafka: { brokers: ['${KAFKA_BROKERS}'], groupId: 'transform', fromBeginning: true },
  clickhouse: { url: '${CLICKHOUSE_URL}' },
  state: { store: 'keeper', connect: '${KEEPER_CONNECT}' },
  delivery: 'exactly-once',
  routes: [
    {
      topic: 'flights',
      table: 'flights',
      // One record becomes none, one or several rows. Here: early flights are left out.
      transform: (record) => {
        // Not JSON.parse, which rounds a UInt64 beyond 2^53, or a Decimal.
        const flight = parseExact(record.value);
        return flight === null || flight.delay < 0 ? null : flight;
      },
    },
  ],
};
