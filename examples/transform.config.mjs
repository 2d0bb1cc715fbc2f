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
        const flight = JSON.parse(String(record.value));
        return flight.delay < 0 ? null : flight;
      },
    },
  ],
};
