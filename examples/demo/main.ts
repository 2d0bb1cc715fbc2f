// npm run demo: the main job on real servers. Kafka into ClickHouse, the ingester killed and resumed, and a judge that
// compares the table with the topic. Exit code 0 only when nothing is missing, nothing is doubled, and every kill hit.
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { command, createTopic, query, withAdmin } from '../../test/stack/clients.js';
import { startStack, type Stack } from '../../test/stack/stack.js';
import { allFlights, contents, createFlightsTable, loadSource, partitions, produceFlights } from './flights.js';
import { Ingester } from './ingester.js';
import { judge, type Verdict } from './oracle.js';
import { Screen } from './screen.js';

interface Options {
  readonly rows: number;
  readonly kills: number;
  readonly killServer?: 'clickhouse' | 'kafka' | 'zookeeper';
  readonly json?: boolean;
  readonly keep?: boolean;
  readonly http?: string;
}

interface Ingested {
  /** Kills that hit an ingester that had delivered rows and had more to deliver. */
  readonly kills: number;
  readonly serverKills: number;
  readonly replayed: number;
  readonly peakRssMb: number;
  readonly rowsPerSecond: number;
  readonly seconds: number;
}

/** Topic, table, group and node of this demo alone: servers that are somebody's hold nothing of that name. */
const name = `kcr_demo_${randomUUID().slice(0, 8)}`;
const source = `${name}_source`;
const screen = new Screen();
let lastSeen = 0;

function whole(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer');
  return value;
}

const options = new Command('demo')
  .description('the flights into ClickHouse exactly once, with the ingester killed on the way')
  .option('--rows <n>', `rows to take, ${allFlights} at most`, whole, allFlights)
  .option('--kills <n>', 'how often the ingester is killed', whole, 3)
  .addOption(
    new Option('--kill-server <name>', 'kill this server too, once, in the middle').choices([
      'clickhouse',
      'kafka',
      'zookeeper',
    ]),
  )
  .option('--json', 'print one JSON object as the last line')
  .option(
    '--http <host:port>',
    'let the ingesters serve their status there: a page, /metrics, /livez, /readyz, /api/status',
  )
  .option('--keep', 'leave the servers up, and print how to look at them')
  .parse()
  .opts<Options>();

// The servers end with this process.
const interrupt = () => process.exit(130);
process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
process.exitCode = await demo();

async function demo(): Promise<number> {
  screen.say('starting Kafka, ZooKeeper and ClickHouse (the first time, Maven brings their jars) …');
  const stack = await startStack({ ...(options.killServer ? { useEnvironment: false } : {}) });
  const borrowed = [
    ['Kafka', stack.kafka],
    ['ZooKeeper', stack.zookeeper],
    ['ClickHouse', stack.clickhouse],
  ].flatMap(([what, own]) => (typeof what === 'string' && own === undefined ? [what] : []));
  if (borrowed.length > 0)
    screen.say(
      `${borrowed.join(', ')}: those that the environment names; all of the demo is called ${name} there, and nothing else is touched`,
    );
  try {
    const target = await prepare(stack);
    const ingested = await ingestWithKills(stack, target);
    screen.say('comparing the table with the topic …');
    const verdict = await judge(stack.brokers, name, stack.clickhouseUrl, name);
    const isSame =
      (await contents(stack.clickhouseUrl, name)).sum === (await contents(stack.clickhouseUrl, source)).sum;
    show(verdict, ingested, isSame);
    const isGood =
      verdict.produced === target &&
      verdict.missing === 0 &&
      verdict.duplicated === 0 &&
      verdict.foreign === 0 &&
      isSame;
    if (options.keep) await stayUp(stack);
    return isGood && ingested.kills === options.kills && ingested.serverKills === (options.killServer ? 1 : 0) ? 0 : 1;
  } finally {
    if (!options.keep) await tidy(stack);
    await stack.stop();
  }
}

/** What the demo has made on servers that are not its own. Its states, a few nodes in ZooKeeper, stay. */
async function tidy({ kafka, clickhouse, brokers, clickhouseUrl }: Stack): Promise<void> {
  const undone = [
    ...(clickhouse === undefined
      ? [name, source].map((table) => command(clickhouseUrl, `DROP TABLE IF EXISTS ${table}`))
      : []),
    ...(kafka === undefined ? [withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [name] }))] : []),
  ];
  for (const outcome of await Promise.allSettled(undone))
    if (outcome.status === 'rejected') screen.say(`something named ${name} is left: ${String(outcome.reason)}`);
}

/** Topic, table and records. Resolves to how many records were produced. */
async function prepare({ clickhouseUrl, brokers }: Stack): Promise<number> {
  const rows = await loadSource(clickhouseUrl, Math.min(options.rows, allFlights), source);
  await createFlightsTable(clickhouseUrl, name);
  await createTopic(brokers, name, { partitions });
  screen.begin('producing', rows);
  const sent = await produceFlights({ clickhouseUrl, brokers }, source, name, (rowsSoFar) => screen.update(rowsSoFar));
  screen.end();
  if (sent !== rows) throw new Error(`${sent} records were produced of ${rows} rows`);
  return rows;
}

function configFile(root: string): string {
  return join(root, 'demo.json');
}

function writeConfig({ brokers, clickhouseUrl, keeperConnect, root }: Stack, rows: number): string {
  const config = {
    // A short session, so that the group gives a killed ingester's partitions to the next one soon.
    kafka: { brokers, groupId: name, fromBeginning: true, sessionTimeoutMs: 3_000, heartbeatIntervalMs: 500 },
    clickhouse: { url: clickhouseUrl, database: 'default', username: 'default', password: '' },
    state: { store: 'keeper', connect: keeperConnect, path: `/${name}` },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    ...(options.http === undefined ? {} : { http: { listen: options.http } }),
    batch: { count: Math.max(10, Math.min(50_000, Math.floor(rows / 60))), bytes: 32 * 1024 * 1024, maxWaitMs: 1_000 },
  };
  const file = configFile(root);
  writeFileSync(file, JSON.stringify(config, null, 2));
  return file;
}

/** Lives of the ingester, one after another, until every row was told to be delivered; then the last one drains. */
async function ingestWithKills(stack: Stack, target: number): Promise<Ingested> {
  const config = writeConfig(stack, target);
  // Evenly over the run, each shifted by up to a tenth of the run.
  const killAt = Array.from(
    { length: options.kills },
    (_, i) => ((i + 0.6 + 0.5 * (Math.random() - 0.5)) / (options.kills + 0.4)) * target,
  );
  const serverKillAt = options.killServer ? target * 0.5 : Infinity;
  const lives: Ingester[] = [];
  let serverKill: Promise<void> | undefined;
  let kills = 0;
  let before = 0;
  const startedAtMs = performance.now();
  if (options.http !== undefined) screen.say(`status: http://${options.http} (gone while an ingester is killed)`);
  screen.begin('ingesting', target);

  const onDelivered = (life: Ingester) => {
    const total = before + life.delivered;
    screen.update(total, `kills ${kills}`);
    if (total >= serverKillAt) serverKill ??= killServer(stack, options.killServer!, total);
    const next = killAt[kills];
    if (next === undefined || total < next || total >= target || !life.isRunning) return;
    life.signal('SIGKILL');
    kills += 1;
    screen.update(total, `kills ${kills}`);
    screen.say(
      `  SIGKILL ${kills} at ${total.toLocaleString('en')} rows, after ${life.delivered.toLocaleString('en')} of this life`,
    );
  };
  for (let isDone = false; !isDone;) {
    before = await rowsInTable(stack);
    const life = new Ingester(config, join(stack.root, 'ingester.log'), onDelivered);
    lives.push(life);
    isDone = await Promise.race([life.ended.then(() => false), untilFull(stack, target, life)]);
    if (isDone) life.signal('SIGTERM');
    const { code, signal } = await life.ended;
    const isExpected = isDone ? code === 0 : signal === 'SIGKILL';
    if (!isExpected) throw new Error(`The ingester ended by itself (${code ?? signal}):\n${life.lastWords.join('\n')}`);
  }
  await serverKill;
  const seconds = (performance.now() - startedAtMs) / 1000;
  screen.update(target, `kills ${kills}`);
  screen.end();
  return {
    kills,
    serverKills: serverKill === undefined ? 0 : 1,
    replayed: lives.reduce((sum, life) => sum + life.replayed, 0),
    peakRssMb: Math.max(...lives.map((life) => life.peakRssMb)),
    rowsPerSecond: Math.round(target / (lives.reduce((sum, life) => sum + life.activeMs, 0) / 1000)),
    seconds,
  };
}

async function killServer(stack: Stack, name: 'clickhouse' | 'kafka' | 'zookeeper', at: number): Promise<void> {
  const server = stack[name];
  if (server === undefined) throw new Error(`${name} is not one of ours, it cannot be killed`);
  await server.kill();
  screen.say(`  SIGKILL of ${name} at ${at.toLocaleString('en')} rows`);
  await server.start();
  screen.say(`  ${name} is up again`);
}

/** The rows that can be seen; while the server is down, as many as were seen before. */
async function rowsInTable({ clickhouseUrl }: Stack): Promise<number> {
  const [counted] = await query<{ rows: number }>(clickhouseUrl, `SELECT count() AS rows FROM ${name}`).catch(() => []);
  lastSeen = counted?.rows ?? lastSeen;
  return lastSeen;
}

/** True once the table has all rows; false when the life ended before. */
async function untilFull(stack: Stack, target: number, life: Ingester): Promise<boolean> {
  while (life.isRunning) {
    if ((await rowsInTable(stack)) >= target) return true;
    await sleep(200);
  }
  return false;
}

function show(verdict: Verdict, ingested: Ingested, isSame: boolean): void {
  const number = (value: number) => value.toLocaleString('en');
  screen.table([
    ['produced', number(verdict.produced)],
    ['in the table', number(verdict.rows)],
    ['missing', number(verdict.missing)],
    ['doubled', number(verdict.duplicated)],
    ['contents', isSame ? 'the same' : 'DIFFERENT'],
    ['kills', number(ingested.kills)],
    ...(options.killServer ? [[`kills of ${options.killServer}`, number(ingested.serverKills)] as const] : []),
    ['ranges in doubt, settled', number(ingested.replayed)],
    ['rows/s while it ran', number(ingested.rowsPerSecond)],
    ['seconds with all kills', ingested.seconds.toFixed(1)],
    ['peak RSS, MB', number(ingested.peakRssMb)],
  ]);
  if (!options.json) return;
  const { produced, rows, missing, duplicated } = verdict;
  const { kills, rowsPerSecond, peakRssMb, replayed } = ingested;
  console.log(
    JSON.stringify({
      produced,
      rows,
      missing,
      duplicated,
      kills,
      rowsPerSecond,
      peakRssMb,
      replayed,
      seconds: Math.round(ingested.seconds * 10) / 10,
    }),
  );
}

async function stayUp({ brokers, clickhouseUrl, keeperConnect, root }: Stack): Promise<void> {
  screen.say(`
The servers stay up until Ctrl-C. To look at them:
  curl '${clickhouseUrl}/?query=SELECT+_partition,count(),max(_offset)+FROM+${name}+GROUP+BY+1+ORDER+BY+1'
  Kafka      ${brokers.join(',')}  (topic and group ${name})
  ZooKeeper  ${keeperConnect}  (state under /${name})
  data, logs (ingester.log) and the configuration: ${root}${
    options.http === undefined
      ? ''
      : `
  status     http://${options.http}`
  }`);
  const life =
    options.http === undefined
      ? undefined
      : new Ingester(configFile(root), join(root, 'ingester.log'), () => undefined);
  process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  await new Promise<void>((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve));
  life?.signal('SIGTERM');
  await life?.ended;
}
