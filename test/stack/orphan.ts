// What stack.test.ts SIGKILLs: a process that starts a stack, prints its servers' process ids and never stops it.
import { startStack } from './stack.js';

const [root] = process.argv.slice(2);
if (root === undefined) throw new Error('usage: orphan.ts <root>');
const { kafka, zookeeper, clickhouse } = await startStack({ root, useEnvironment: false });
// A server that no longer runs its own code must go as well.
clickhouse?.prepare();
console.log(JSON.stringify([kafka?.pid, zookeeper?.pid, clickhouse?.pid]));
setInterval(() => undefined, 60_000);
