/** Which room may enter which. See CONTRIBUTING.md for the map. */
const client = 'node_modules/(kafkajs|@clickhouse|node-zookeeper-client|snappy|lz4-napi|@bokuweb|@node-rs)';

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'model-imports-nothing',
      comment: 'src/model holds values and pure functions; errors are values too',
      severity: 'error',
      from: { path: '^src/model/' },
      to: { pathNot: '^(src/model/|src/errors\\.ts)' },
    },
    {
      name: 'kernel-imports-nothing',
      comment: 'src/kernel is the hot loop over bytes: nothing of Kafka, of ClickHouse or of records',
      severity: 'error',
      from: { path: '^src/kernel/' },
      to: { pathNot: '^src/kernel/' },
    },
    {
      name: 'operators-know-ports-only',
      comment: 'an operator imports rxjs, ports, the model and what is pure; never a client library or an adapter',
      severity: 'error',
      from: { path: '^operators/' },
      to: {
        pathNot: '^(operators/|src/(model/|ports|errors|events|ledger|retry|stages)|node_modules/rxjs|node:stream)',
        dependencyTypesNot: ['core'],
      },
    },
    {
      name: 'stages-do-not-know-each-other',
      severity: 'error',
      from: { path: '^operators/([^/]+)\\.ts$', pathNot: '^operators/index\\.ts$' },
      to: { path: '^operators/[^/]+\\.ts$', pathNot: '^operators/$1\\.ts$' },
    },
    {
      name: 'adapters-do-not-know-each-other',
      comment: 'src/clickhouse/client is how a ClickHouse is reached: the store keeper-map reaches one too',
      severity: 'error',
      from: { path: '^src/(kafka|clickhouse|state)/' },
      to: {
        path: '^(src/(kafka|clickhouse|state|cli|testing|tools)/|operators/)',
        pathNot: '^src/($1|clickhouse/client)/',
      },
    },
    {
      name: 'kafka-knows-no-clickhouse',
      severity: 'error',
      from: { path: '^src/kafka/' },
      to: { path: '^src/clickhouse/' },
    },
    {
      name: 'client-libraries-in-adapters-only',
      severity: 'error',
      from: { path: '^(src|operators)/', pathNot: '^src/(kafka|clickhouse|state)/' },
      to: { path: client },
    },
    {
      name: 'the-program-is-an-ordinary-user',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/cli/' },
      to: { path: '^src/cli/' },
    },
    {
      name: 'the-pipeline-does-not-know-the-tools',
      comment: 'src/tools is what people do about a pipeline from outside: look, repair, verify, take over',
      severity: 'error',
      from: { path: '^(src|operators)/', pathNot: '^src/(cli|tools|index)' },
      to: { path: '^src/tools/' },
    },
    {
      name: 'nothing-shipped-knows-tests',
      severity: 'error',
      from: { path: '^(src|operators)/' },
      to: { path: '^(test|examples)/' },
    },
    {
      name: 'no-undeclared',
      severity: 'error',
      from: { path: '^(src|operators)/' },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-dev', 'unknown'], pathNot: 'node_modules/(rxjs|@opentelemetry/api)' },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    exclude: '^(dist|src/kernel/(assembly|build))',
  },
};
