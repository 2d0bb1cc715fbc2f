// `npm run stack`: all three servers for development, up until Ctrl-C.
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { type Stack, startStack } from './stack.js';

const { values } = parseArgs({ options: { root: { type: 'string' }, keep: { type: 'boolean' } } });
const ended = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM'), once(process, 'SIGHUP')]);

console.log('Starting Kafka, ZooKeeper and ClickHouse …');
const startedAt = Date.now();
const stack = await startStack({
  keep: values.keep ?? values.root !== undefined,
  ...(values.root ? { root: values.root } : {}),
});
console.log(describe(stack, Date.now() - startedAt));
await ended;
console.log('\nStopping …');
await stack.stop();
process.exit(0);

function describe({ brokers, clickhouseUrl, keeperConnect, ...stack }: Stack, tookMs: number): string {
  const where = (server: Stack['kafka']): string =>
    server ? `pid ${server.pid}, log ${server.logFile}` : 'yours, from the environment';
  return `
Up in ${(tookMs / 1000).toFixed(1)} s. Ctrl-C stops it.

  Kafka       ${brokers.join(',').padEnd(24)} ${where(stack.kafka)}
  ZooKeeper   ${keeperConnect.padEnd(24)} ${where(stack.zookeeper)}
  ClickHouse  ${clickhouseUrl.padEnd(24)} ${where(stack.clickhouse)}

For another terminal:

  export KAFKA_BROKERS=${brokers.join(',')}
  export KEEPER_CONNECT=${keeperConnect}
  export CLICKHOUSE_URL=${clickhouseUrl}

  curl "$CLICKHOUSE_URL" --data-binary 'SELECT version()'
`;
}
