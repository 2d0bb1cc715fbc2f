#!/usr/bin/env node
/**
 * The program `kafka-clickhouse-rx`: its commands and arguments. An ordinary user of the public entries.
 * Imports: Node, commander, errors, observe.
 */
import { readFileSync } from 'node:fs';
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { errorCodes, hasCode } from '../errors.js';
import { check } from './check.js';
import { controlCommand, type ControlCommandOptions } from './control.js';
import { drainCommand, type DrainCommandOptions } from './drain.js';
import { importConnect, type ImportConnectOptions } from './import-connect.js';
import { peekCommand, type PeekCommandOptions } from './peek.js';
import { readConfig } from './read-config.js';
import { run } from './run.js';
import { stateReset, type StateResetOptions } from './state-reset.js';
import { stateShow } from './state-show.js';
import { controlActions } from '../observe/control.js';
import { DEFAULT_LISTEN } from '../observe/listen.js';
import { sortings, top, type TopOptions } from './top.js';
import { verifyCommand } from './verify.js';

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const exitCodes = `
Exit codes:
  0    done; run: drained after SIGTERM, SIGINT or control drain: everything taken was inserted, settled and committed
  1    a defect of this program
  2    the command line or the configuration cannot be used
  3    a check before the start refused (server unreachable, topic or table missing, dedup window); no record was taken
  4    a partition halted at a record that cannot be inserted or transformed
  5    Kafka, ClickHouse or the state refused something that a retry does not mend, or was gone for too long;
       verify: the table differs from the topic; drain: something is still in doubt; import-connect: refused
  7    the drain did not end in time
  8    verify: nothing was compared, or nothing of a partition that has records: nothing is known of it
  9    run: drained, and a partition had halted for what can be mended from outside: it is started again at the next start
  130  a second SIGINT, 143 a second SIGTERM: ended at once; what was in flight is in doubt and will be replayed`;

const verifyHelp = `
Missing: settled, in the log, and fewer rows in the table than it should have. A record that was left out as poison
(onPoison "exclude") is missing too: after its range was settled nobody knows of it any more; the log of run named it.
Doubled: more rows than it should have. Not in topic: rows of an offset that has no record.
Rows of offsets that are neither settled nor in doubt are told, and are a difference; those before where the log begins
are told. A partition with records of which nothing is settled gives exit code 8.
--contents: columns that the server makes up (MATERIALIZED, ALIAS, EPHEMERAL, a default of now()) are named, not compared.
Aborted and compacted records are no records. A transform is applied again to know how many rows a record should have.`;

const program = new Command('kafka-clickhouse-rx')
  .description('Kafka into ClickHouse exactly once')
  .version(version)
  .exitOverride()
  .addHelpText('after', exitCodes);

program
  .command('run')
  .description(
    'ingest until SIGTERM or SIGINT, which drain; a second one ends at once. SIGHUP reads the configuration again',
  )
  .argument(
    '<config>',
    'a JSON file, or an ESM file that default-exports the same object; "${NAME}" takes an environment variable',
  )
  .addOption(
    new Option('--log-level <level>', 'what is told on standard error')
      .choices(['trace', 'debug', 'info', 'warn', 'error', 'silent'])
      .default('info'),
  )
  .action(async (path: string, options: { logLevel: string }) => {
    process.exitCode = await run(await readConfig(path), { ...options, reread: () => readConfig(path) });
  });

program
  .command('top')
  .description('a running process at a glance: what it does, how far behind it is, what limits, what to do')
  .argument('[url]', `where it serves its status; without it http://${DEFAULT_LISTEN}`)
  .addOption(new Option('--sort <by>', 'which partitions come first').choices(sortings).default('urgency'))
  .option('--once', 'print one look, and end')
  .option('--json', 'print the status as one JSON object a look')
  .action(async (url: string | undefined, options: TopOptions) => {
    process.exitCode = await top(url, options);
  });

program
  .command('control')
  .description(
    'tell a running process: pause (nothing more is fetched), resume, drain (as SIGTERM does), reload (as SIGHUP does)',
  )
  .addArgument(new Argument('<action>', 'what to tell it').choices(controlActions))
  .argument('[config]', 'the configuration that it runs with: its control.socket, or http.listen and http.token')
  .option('--socket <path>', 'its control.socket, in place of a configuration')
  .option('--topic <topic>', 'pause, resume: only this topic')
  .option('--partition <number>', 'pause, resume: only this partition of the topic', wholeNumber(0))
  .option('--json', 'print one JSON object: { "asked", "phase", "partitions", "paused" }')
  .action(async (action: (typeof controlActions)[number], path: string | undefined, options: ControlCommandOptions) => {
    const config = path === undefined ? undefined : await readConfig(path);
    process.exitCode = await controlCommand(action, config, options);
  });

program
  .command('check')
  .description(
    'look at everything the configuration names, without taking a record; the exit code is that of the worst finding',
  )
  .argument('<config>', 'as for run')
  .option('--json', 'print one JSON object: { "findings": [{ "level", "what", "detail", "todo", "code" }] }')
  .action(async (path: string, options: { json?: boolean }) => {
    process.exitCode = await check(await readConfig(path), options);
  });

program
  .command('peek')
  .description('show some records and what they look like; nothing is taken or committed')
  .argument('<config>', 'as for run')
  .option('--topic <topic>', 'only this topic')
  .option('--partition <number>', 'only this partition', wholeNumber(0))
  .option('--from <place>', 'beginning, end, an offset, or a time such as 2026-11-30T12:00:00Z', 'end')
  .option('--count <number>', 'records in all, spread over the partitions', wholeNumber(1), 10)
  .option('--full', 'whole values, however long')
  .option('--json', 'print a line of JSON for each; bytes that are no text as { "base64" }')
  .action(async (path: string, options: PeekCommandOptions) => {
    process.exitCode = await peekCommand(await readConfig(path), options);
  });

program
  .command('drain')
  .description('resolve everything that is in doubt, take nothing new, and end: before an upgrade or a change of route')
  .argument('<config>', 'as for run')
  .option('--timeout <seconds>', 'give up after so long; what is in doubt stays so', wholeNumber(1), 300)
  .option('--json', 'print one JSON object: { "resolved", "given", "halted", "inDoubt", "timedOut" }')
  .action(async (path: string, options: DrainCommandOptions) => {
    process.exitCode = await drainCommand(await readConfig(path), options);
  });

program
  .command('verify')
  .description('compare the topic with the table, offset by offset, up to what is settled')
  .argument('<config>', 'as for run')
  .option('--topic <topic>', 'only this topic')
  .option('--partition <number>', 'only this partition', wholeNumber(0))
  .option(
    '--from-offset <offset>',
    'begin here; without it where the log begins, or where the group began',
    wholeNumber(0),
  )
  .option('--show <count>', 'offsets to name of each kind and partition', wholeNumber(0), 5)
  .option(
    '--contents',
    'compare also what the rows hold, by hashes of their columns: ClickHouse reads each record once more',
  )
  .option('--json', 'print one JSON object: { "clean", "outcome", "partitions", "notCompared", "notes" }')
  .addHelpText('after', verifyHelp)
  .action(async (path: string, options: Parameters<typeof verifyCommand>[1]) => {
    process.exitCode = await verifyCommand(await readConfig(path), options);
  });

const state = program.command('state').description('look at the stored state of partitions, or set it');

state
  .command('show')
  .description('what is settled, in doubt and left to do, for each partition')
  .argument('<config>', 'as for run')
  .option('--topic <topic>', 'only this topic')
  .option('--partition <number>', 'only this partition', wholeNumber(0))
  .option('--json', 'print one JSON object: { "cluster", "group", "store", "partitions", "totals" }')
  .action(async (path: string, options: Parameters<typeof stateShow>[1]) => {
    process.exitCode = await stateShow(await readConfig(path), options);
  });

state
  .command('reset')
  .description('let partitions go on at another offset; says what it means, and does it with --apply')
  .argument('<config>', 'as for run')
  .option('--topic <topic>', 'only this topic')
  .option('--partition <number>', 'only this partition', wholeNumber(0))
  .option('--to-offset <offset>', 'the offset that comes next, of one partition', wholeNumber(0))
  .option('--to-beginning', 'where the log begins')
  .option('--to-end', 'where the log ends')
  .option('--to-committed', 'where the group has committed')
  .option('--apply', 'do it; without it nothing is changed')
  .option('--json', 'print one JSON object: { "applied", "partitions" }')
  .action(async (path: string, options: StateResetOptions) => {
    process.exitCode = await stateReset(await readConfig(path), options);
  });

state
  .command('import-connect')
  .description('take over from clickhouse-kafka-connect, exactly once; says what it means, and does it with --apply')
  .argument('<config>', 'as for run')
  .requiredOption(
    '--connect-table <name>',
    'its state table: the option zkDatabase of the connector, connect_state unless it was set',
  )
  .option('--connect-database <name>', 'where that table is; without it the database of the configuration')
  .option(
    '--connect-group <group>',
    'its consumer group, "connect-" and its name unless it was set; must have no members',
  )
  .option('--overwrite', 'replace states that partitions have already')
  .option('--apply', 'do it; without it nothing is changed')
  .option('--json', 'print one JSON object: { "applied", "group", "partitions", "ignored" }')
  .action(async (path: string, options: ImportConnectOptions) => {
    process.exitCode = await importConnect(await readConfig(path), options);
  });

/** For options that are numbers. */
function wholeNumber(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`Expected a whole number from ${least}.`);
  };
}

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

const LINGER_MS = 500;

/** What is left open, such as a connection to a server that is silent, holds the process up for a moment only. */
function endSoon(): void {
  setTimeout(() => (process.stdout.writableLength > 0 ? endSoon() : process.exit()), LINGER_MS).unref();
}

endSoon();
