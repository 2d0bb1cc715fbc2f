#!/usr/bin/env node
/**
 * Room: the program `kafka-clickhouse-rx`: its commands and arguments. An ordinary user of the public entries.
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { errorCodes, hasCode } from '../errors.js';
import { check } from './check.js';
import { readConfig } from './read-config.js';
import { run } from './run.js';

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string };

const exitCodes = `
Exit codes:
  0    drained after SIGTERM or SIGINT: everything taken was inserted, settled and committed
  1    a defect of this program
  2    the command line or the configuration cannot be used
  3    a check before the start refused (server unreachable, topic or table missing, dedup window); no record was taken
  4    a partition halted at a record that cannot be inserted or transformed
  5    Kafka, ClickHouse or the state refused something that a retry does not mend
  7    the drain did not end in time
  130  a second SIGINT, 143 a second SIGTERM: ended at once; what was in flight is in doubt and will be replayed`;

const program = new Command('kafka-clickhouse-rx')
  .description('Kafka into ClickHouse exactly once')
  .version(version)
  .exitOverride()
  .addHelpText('after', exitCodes);

program
  .command('run')
  .description('ingest until SIGTERM or SIGINT, which drain; a second one ends at once')
  .argument('<config>', 'a JSON file, or an ESM file that default-exports the same object; "${NAME}" takes an environment variable')
  .option('--log-level <level>', 'trace, debug, info, warn, error or silent', 'info')
  .action(async (path: string, options: { logLevel: string }) => {
    process.exitCode = await run(await readConfig(path), options);
  });

program
  .command('check')
  .description('look at everything the configuration names, without taking a record; the exit code is that of the worst finding')
  .argument('<config>', 'as for run')
  .option('--json', 'print one JSON object: { "findings": [{ "level", "what", "detail", "todo", "code" }] }')
  .action(async (path: string, options: { json?: boolean }) => {
    process.exitCode = await check(await readConfig(path), options);
  });

try {
  await program.parseAsync();
} catch (thrown) {
  if (thrown instanceof CommanderError) {
    process.exitCode = thrown.exitCode === 0 ? 0 : 2;
  } else if (hasCode(thrown, ...(Object.keys(errorCodes) as (keyof typeof errorCodes)[]))) {
    console.error(`${thrown.code}: ${thrown.message}`);
    process.exitCode = errorCodes[thrown.code].exitCode;
  } else {
    console.error(thrown);
    process.exitCode = 1;
  }
}
