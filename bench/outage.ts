/**
 * `npm run bench:outage`: ClickHouse is killed for a minute in the middle of a backlog of millions. Memory, heartbeats,
 * rebalances, catching up, and the oracle's word. The last line of the output is one JSON object; the exit code is 1 when
 * something is not as it should be.
 */
import { Command } from 'commander';
import { startStack } from '../test/stack/stack.js';
import { complaints, runOutage } from '../test/support/outage.js';
import { machine, whole } from './machine.js';

interface Options {
  readonly json?: boolean;
  readonly rows: number;
  readonly outage: number;
  readonly session: number;
  readonly limit: number;
}

const options = new Command('bench:outage')
  .option('--json', 'nothing but the JSON object')
  .option('--rows <n>', 'records of the backlog', whole, 5_000_000)
  .option('--outage <s>', 'how long ClickHouse is away, seconds', whole, 60)
  .option('--session <s>', "the ingester's session time-out, seconds", whole, 10)
  .option('--limit <MB>', "most memory the ingester's process may use", whole, 400)
  .parse()
  .opts<Options>();

const say = (line: string): void => {
  if (options.json !== true) console.log(line);
};

// The servers end with this process.
const interrupt = () => process.exit(130);
process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
const stack = await startStack({ useEnvironment: false });
try {
  const outage = await runOutage(stack, {
    rows: options.rows,
    outageMs: options.outage * 1000,
    sessionTimeoutMs: options.session * 1000,
    say,
  });
  const wrong = complaints(outage, options.limit);
  console.log(JSON.stringify({ machine: await machine(stack), limitMb: options.limit, ...outage, wrong }));
  if (wrong.length > 0) process.exitCode = 1;
} finally {
  await stack.stop();
}
