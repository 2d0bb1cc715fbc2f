// npm run chaos: exactly-once under faults, on real servers. Exit code 0 only when nothing is missing, doubled or wrong,
// and every tombstone was counted; with --control only when something is missing, doubled or wrong.
import { existsSync } from 'node:fs';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { InsertMode } from '../../src/clickhouse/insert/settings.js';
import { isAsExpected, isRight, runChaos, windowsHit, type ChaosResult } from './chaos.js';
import { storeNames, type StoreName } from './fleet.js';
import { controls, type Control } from './told.js';

interface Options {
  readonly minutes?: number;
  readonly seed: number;
  readonly store: StoreName;
  readonly insertMode: InsertMode;
  readonly replicated?: boolean;
  readonly workers: number;
  readonly brokers: '1' | '3';
  readonly rate: number;
  readonly faults?: readonly string[];
  readonly except?: readonly string[];
  readonly control?: Control | true;
  readonly keep?: boolean;
  readonly json?: boolean;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('expected a positive number');
  return value;
}

const options = new Command('chaos')
  .description('Kafka into ClickHouse exactly once, while workers, servers and connections fail')
  .option('--minutes <n>', 'how long faults are made (default: 5, with --control 0.5)', positive)
  .option(
    '--seed <n>',
    'draws the faults, their targets and their times',
    positive,
    Math.floor(Math.random() * 1_000_000) + 1,
  )
  .addOption(new Option('--store <name>', 'where the state is kept').choices(storeNames).default('keeper'))
  .addOption(
    new Option('--insert-mode <mode>', 'how inserts are sent').choices(['direct', 'coalesced']).default('direct'),
  )
  .option('--replicated', 'a replicated table, whose tokens are kept in ZooKeeper')
  .option('--workers <n>', 'workers at the start', positive, 3)
  .addOption(
    new Option('--brokers <n>', 'of 3 one fails at a time, and others lead what it led')
      .choices(['1', '3'])
      .default('1'),
  )
  .option('--rate <n>', 'records a second', positive, 300)
  .option('--faults <kinds>', 'just these, separated by commas, in this order', (text) => text.split(','))
  .option('--except <kinds>', 'leave these out, separated by commas', (text) => text.split(','))
  .addOption(
    new Option('--control [guard]', 'take one guard out, which the oracle must notice')
      .choices(controls)
      .preset('tokens'),
  )
  .option('--keep', 'leave the logs, even when nothing was wrong')
  .option('--json', 'print one JSON object as the last line')
  .parse()
  .opts<Options>();

// Servers and workers end with this process.
const interrupt = () => process.exit(130);
process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
process.exitCode = await main();
// A connection that nobody closed must not keep it up.
process.exit();

async function main(): Promise<number> {
  const {
    seed,
    store,
    insertMode,
    replicated: isReplicated = false,
    workers,
    rate,
    faults: kinds,
    except,
    keep = false,
  } = options;
  const brokers = options.brokers === '3' ? 3 : 1;
  const control = options.control === true ? 'tokens' : options.control;
  const minutes = options.minutes ?? (control === undefined ? 5 : 0.5);
  console.log(
    `seed ${seed}, store ${store}, inserts ${insertMode}, ${isReplicated ? 'a replicated table' : 'a plain table'}, brokers ${brokers}${control === undefined ? '' : `, without the guard "${control}"`}`,
  );
  const result = await runChaos({
    minutes,
    seed,
    store,
    insertMode,
    isReplicated,
    workers,
    brokers,
    rate,
    control,
    keep,
    say: (line) => console.log(line),
    ...(kinds ? { kinds } : {}),
    ...(except ? { except } : {}),
  });
  show(result);
  if (options.json === true) {
    const {
      faults,
      unverified,
      produced,
      tombstones,
      dropped,
      skipped,
      uncounted,
      rows,
      compactedAway,
      missing,
      doubled,
      wrong,
      transactions,
      replays,
      inserts,
      parts,
      filled,
      partsUnknown,
      fenced,
      refusedStarts,
      trouble,
    } = result;
    console.log(
      JSON.stringify({
        minutes,
        seed,
        store,
        insertMode,
        replicated: isReplicated,
        brokers,
        ...(control === undefined ? {} : { control, caught: !isRight(result) }),
        faults,
        unverified,
        windows: windowsHit(result),
        produced,
        tombstones,
        dropped,
        skipped,
        uncounted: uncounted.length,
        rows,
        compactedAway,
        transactions,
        replays,
        inserts,
        parts,
        filled,
        partsUnknown,
        fenced,
        refusedStarts,
        trouble: trouble.length,
        missing: missing.length,
        doubled: doubled.length,
        wrong: wrong.length,
      }),
    );
  }
  return isAsExpected(result, control) ? 0 : 1;
}

function show({ missing, doubled, wrong, uncounted, trouble, dir, unverified, ...result }: ChaosResult): void {
  console.log(
    `${result.produced} records in the topics, ${result.rows} rows in the table, ${result.compactedAway} of them of records that compaction took`,
  );
  console.log(
    `${result.tombstones} tombstones besides; the workers counted ${result.dropped} that the transform dropped and ${result.skipped} that the insert went on without`,
  );
  if (result.compactedAway === 0) console.log('compaction took nothing: unverified');
  for (const [kind, count] of Object.entries(unverified)) console.log(`unverified: ${kind}, ${count} times`);
  for (const what of trouble.slice(0, 10)) console.log(`trouble: ${what}`);
  for (const [name, places] of Object.entries({ missing, doubled, wrong, uncounted })) {
    if (places.length > 0)
      console.log(`${places.length} ${name}: ${places.slice(0, 20).join(', ')}${places.length > 20 ? ', …' : ''}`);
  }
  if (existsSync(dir)) console.log(`logs are in ${dir}`);
}
