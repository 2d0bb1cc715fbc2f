/**
 * Room: can these tables keep what was promised? Asked before a record is taken; changes nothing.
 * Every check is a function that gives findings; `checkClickHouse` lists them in the order people would ask.
 */
import { type ErrorCode, hasCode, IngestError } from '../errors.js';
import { classify, serverReason } from './classify.js';
import { coalescingFault, isBefore } from './coalescing.js';
import { tlsWarnings } from './client/tls-findings.js';
import { ClickHouseHttp, REQUEST_TIMEOUT_MS } from './http.js';
import { checkOptions, type ClickHouseSinkOptions, COALESCE_BYTES, coalesceMsOf, databaseOf, type Route } from './options.js';
import { insertSettings } from './settings.js';
import { provenanceStatement, readBackFault } from './provenance-columns.js';
import { plainName, plainTable, type Table, type TableName } from './table.js';
import { findTable, findTarget, readServer, requireTable, type Server, tableSetting } from './tables.js';
import { DEDUP_BUDGET_MS } from './token-doubt.js';
import { volatileColumns, volatileIn } from './volatile.js';

export interface Finding {
  readonly level: 'ok' | 'warning' | 'refusal';
  /** What was looked at, for example `dedup window of default.orders`. */
  readonly what: string;
  /** What was found, one sentence. */
  readonly detail: string;
  /** What to do about it: a statement to run, or a sentence. */
  readonly todo?: string;
  /** Of a refusal: the code of the error it becomes. */
  readonly code?: ErrorCode;
}

export interface Needs {
  readonly delivery: 'at-most-once' | 'at-least-once' | 'exactly-once';
  /** Ranges of one Kafka partition that may be in doubt at once. */
  readonly maxPending: number;
  /**
   * Kafka partitions whose batches may go into one table: those of all topics, where several share it.
   * @default 1, of which nothing can be concluded for more
   */
  readonly kafkaPartitions?: number;
  /** ClickHouse partitions one batch spreads over at most: each takes an entry of the dedup window. @default 1 */
  readonly partitionsPerBatch?: number;
  /** After which a batch is cut, milliseconds: how often each Kafka partition inserts at least. @default 1000 */
  readonly batchMaxWaitMs?: number;
}

/** Entries the window is recommended to have: it is one for the whole table, all Kafka partitions together. */
const WINDOW = 10_000;
const SMALL_WINDOW = 1_000;
/** How often what may be in doubt at once has to fit into the window: others insert while a range is retried. */
const WINDOW_ROOM = 10;
const SHORT_WINDOW_S = 3_600;

/** What the tests of this program run against. */
const TESTED = '26.7';
/** Below it the tokens of materialized views, among others, were made in ways that differ from release to release. */
const OLDEST_EXPECTED = [24, 8] as const;
/** The first release in which a materialized view's token is made from its source's token by the server alone. */
const OLDEST_WITH_VIEWS = [24, 7] as const;
/** The first release that has `insert_deduplication_token`. */
const OLDEST = [22, 1] as const;
/** ClickHouse's own default of `max_partitions_per_insert_block`. */
const USUAL_PARTITIONS = 100;

/**
 * Looks at the server, its settings, every route's table and the materialized views behind it.
 *
 * @returns All findings; any `refusal` among them means that the start must not go on (see `refusalOf`).
 * @throws `KCR_CONFIG` for options that cannot be used.
 */
export async function checkClickHouse(options: ClickHouseSinkOptions, needs: Needs): Promise<readonly Finding[]> {
  checkOptions(options);
  const http = new ClickHouseHttp(options);
  try {
    const findings: Finding[] = [...tlsWarnings(options.tls)];
    const server = await checkServer(http, needs, findings);
    if (server === undefined) return findings;
    const mode = await checkMode(http, options, needs, server);
    findings.push(...mode);
    if (refusalOf(mode) !== undefined) return findings;
    findings.push(await checkSettings(http, options, needs, server), ...(await checkLimits(http, options, needs)));
    const defaults = await readDefaults(http, findings);
    for (const route of options.routes) findings.push(...(await checkRoute({ http, options, needs, defaults, server }, route)));
    return unique(findings);
  } finally {
    http.close();
  }
}

/** The refusals among the findings as one error, with the first one's code; undefined when there are none. */
export function refusalOf(findings: readonly Finding[]): IngestError | undefined {
  const refusals = findings.filter(({ level }) => level === 'refusal');
  const [first] = refusals;
  if (first === undefined) return undefined;
  const todos = refusals.flatMap(({ todo }) => (todo === undefined ? [] : [todo]));
  return new IngestError(first.code ?? 'KCR_PREFLIGHT', refusals.map(({ what, detail }) => `${what}: ${detail}`).join('; '), {
    hint: todos.length === 0 ? undefined : todos.join('; '),
  });
}

/** Routes may share a table, and views a target. */
function unique(findings: readonly Finding[]): readonly Finding[] {
  return [...new Map(findings.map((finding) => [JSON.stringify(finding), finding])).values()];
}

interface Context {
  readonly http: ClickHouseHttp;
  readonly options: ClickHouseSinkOptions;
  readonly needs: Needs;
  readonly defaults: Defaults;
  readonly server: Server;
}

function refusal(code: ErrorCode, what: string, detail: string, todo?: string): Finding {
  return { level: 'refusal', what, detail, code, ...(todo === undefined ? {} : { todo }) };
}

function warning(what: string, detail: string, todo?: string): Finding {
  return { level: 'warning', what, detail, ...(todo === undefined ? {} : { todo }) };
}

function ok(what: string, detail: string): Finding {
  return { level: 'ok', what, detail };
}

async function checkServer(http: ClickHouseHttp, needs: Needs, findings: Finding[]): Promise<Server | undefined> {
  try {
    const server = await readServer(http);
    findings.push(checkVersion(http.address, server, needs));
    return server;
  } catch (thrown) {
    if (!(thrown instanceof IngestError)) throw thrown;
    const error = await http.explained(thrown);
    const denied = error.fields.serverCode === 516 || error.fields.serverCode === 194 || error.fields.serverCode === 'HTTP 401';
    const todo = denied ? 'check username and password' : error.fields.hint;
    findings.push(refusal(error.code, denied ? 'user' : 'server', error.detail, todo));
    return undefined;
  }
}

function checkVersion(address: string, { version }: Server, { delivery }: Needs): Finding {
  const name = `ClickHouse ${version} at ${address}`;
  if (delivery !== 'exactly-once' || !isBefore(version, OLDEST_EXPECTED)) return ok('server', name);
  if (isBefore(version, OLDEST)) return refusal('KCR_PREFLIGHT', 'server', `${name} does not know dedup tokens`, 'upgrade the server, or choose at-least-once');
  return warning('server', `${name} is older than what exactly-once was thought through for; it was tested with ${TESTED} only`, `upgrade the server to ${OLDEST_EXPECTED.join('.')} or later`);
}

/** Below so many Kafka partitions a longer wait on our side makes parts as few, and answers sooner. */
const MANY_KAFKA_PARTITIONS = 20;

async function checkMode(http: ClickHouseHttp, options: ClickHouseSinkOptions, { kafkaPartitions }: Needs, { version }: Server): Promise<Finding[]> {
  const coalesceMs = coalesceMsOf(options);
  if (coalesceMs === undefined) return [];
  const what = 'insert mode';
  const fault = coalescingFault(version);
  if (fault !== undefined) return [refusal('KCR_PREFLIGHT', what, fault.detail, fault.todo)];
  const bytes = options.coalesceBytes ?? COALESCE_BYTES;
  const detail = `coalesced: inserts of up to ${bytes} bytes wait ${coalesceMs} ms at the server for others, for many Kafka partitions with little traffic`;
  const threads = await http.select<{ value: string }>("SELECT value FROM system.server_settings WHERE name = 'async_insert_threads'").catch(() => []);
  if (Number(threads[0]?.value ?? 1) === 0) {
    return [warning(what, `${detail}; but the server lets none wait (async_insert_threads is 0), and each makes parts of its own`, 'set async_insert_threads in the server’s configuration')];
  }
  if (kafkaPartitions === undefined || kafkaPartitions >= MANY_KAFKA_PARTITIONS) return [ok(what, detail)];
  return [warning(what, `${detail}; here there are ${kafkaPartitions}`, 'take out `insertMode`, and raise batch.maxWaitMs where parts are too many')];
}

/** What the server allows an insert of this user; a setting of one's own comes before the profile's. */
async function checkLimits(http: ClickHouseHttp, { clickhouseSettings = {}, requestTimeoutMs = REQUEST_TIMEOUT_MS }: ClickHouseSinkOptions, { partitionsPerBatch = 1 }: Needs): Promise<Finding[]> {
  const names = ['max_execution_time', 'max_partitions_per_insert_block', 'throw_on_max_partitions_per_insert_block'];
  const rows = await http.select<{ name: string; value: string }>(`SELECT name, value FROM system.settings WHERE name IN ('${names.join("', '")}')`);
  const limits = new Map(rows.map(({ name, value }) => [name, Number(clickhouseSettings[name] ?? value)]));
  const seconds = limits.get('max_execution_time') ?? 0;
  const throws = limits.get('throw_on_max_partitions_per_insert_block') !== 0;
  const partitions = throws ? (limits.get('max_partitions_per_insert_block') ?? 0) : 0;
  const findings: Finding[] = [];
  if (seconds > 0 && seconds * 1000 < requestTimeoutMs) {
    const detail = `max_execution_time is ${seconds} s: an insert that takes longer is ended and made again, for ever`;
    findings.push(warning('limits of the user', detail, 'set max_execution_time to 0 in the settings of the inserts'));
  }
  const raise = (to: number): string => `set max_partitions_per_insert_block to ${to} in the settings of the inserts`;
  if (partitions > 0 && partitions < partitionsPerBatch) {
    const detail = `max_partitions_per_insert_block is ${partitions}, but a batch may spread over ${partitionsPerBatch} ClickHouse partitions: it is refused as a whole`;
    findings.push(refusal('KCR_PREFLIGHT', 'limits of the user', detail, raise(partitionsPerBatch)));
  } else if (partitions > 0 && partitions < USUAL_PARTITIONS) {
    const detail = `max_partitions_per_insert_block is ${partitions}: a batch that spreads over more ClickHouse partitions is refused as a whole, and its Kafka partition halts`;
    findings.push(warning('limits of the user', detail, raise(USUAL_PARTITIONS)));
  }
  if (findings.length > 0) return findings;
  const parts = partitions === 0 ? 'any number of' : `up to ${partitions}`;
  return [ok('limits of the user', `inserts of ${seconds === 0 ? 'any length' : `up to ${seconds} s`}, over ${parts} ClickHouse partitions each`)];
}

/** The server itself is asked: only it knows what the user's profile allows. */
async function checkSettings(http: ClickHouseHttp, options: ClickHouseSinkOptions, { delivery }: Needs, server: Server): Promise<Finding> {
  const { deduplicated, plain, coalesced } = insertSettings(options.clickhouseSettings ?? {}, server.knownSettings, coalesceMsOf(options));
  const params = delivery === 'exactly-once' ? (coalesced ?? deduplicated) : plain;
  const answer = await http.attempt('SELECT 1 FORMAT Null', params);
  if (answer === undefined) return ok('insert settings', 'the server accepts those every insert is pinned to');
  const reason = serverReason(answer.text);
  if (answer.code === 115) {
    return refusal('KCR_CONFIG', 'insert settings', reason, 'take it out of `clickhouseSettings`, or upgrade the server');
  }
  const passing = ['retriable', 'in-doubt'].includes(classify({ kind: 'answer', status: 500, ...answer }));
  return refusal(
    passing ? 'KCR_CLICKHOUSE_UNREACHABLE' : 'KCR_PREFLIGHT',
    'insert settings',
    `the server refuses a setting every insert is pinned to: ${reason}`,
    'allow the user to change it (profile, readonly, constraints)',
  );
}

interface Defaults {
  /** Undefined: not to be seen with the user's grants. */
  readonly window: number | undefined;
  readonly replicatedWindow: number | undefined;
  readonly replicatedSeconds: number | undefined;
}

async function readDefaults(http: ClickHouseHttp, findings: Finding[]): Promise<Defaults> {
  const read = async (system: string): Promise<ReadonlyMap<string, number>> => {
    const rows = await http.select<{ name: string; value: string }>(`SELECT name, value FROM system.${system} WHERE name LIKE '%dedup%window%'`);
    return new Map(rows.map(({ name, value }) => [name, Number(value)]));
  };
  try {
    const plain = await read('merge_tree_settings');
    const replicated = await read('replicated_merge_tree_settings');
    return {
      window: plain.get('non_replicated_deduplication_window'),
      replicatedWindow: replicated.get('replicated_deduplication_window'),
      replicatedSeconds: replicated.get('replicated_deduplication_window_seconds'),
    };
  } catch (error) {
    if (!hasCode(error, 'KCR_PREFLIGHT')) throw error;
    const todo = 'GRANT SELECT ON system.merge_tree_settings, SELECT ON system.replicated_merge_tree_settings, or state the window in the table’s own SETTINGS';
    findings.push(warning('server defaults', `the server’s own dedup window cannot be seen: ${error.detail}`, todo));
    return { window: undefined, replicatedWindow: undefined, replicatedSeconds: undefined };
  }
}

async function checkRoute(context: Context, route: Route): Promise<Finding[]> {
  const { http, options, needs } = context;
  const name = { database: databaseOf(options, route), table: route.table };
  let table: Table;
  try {
    table = await requireTable(http, name);
  } catch (error) {
    if (!hasCode(error, 'KCR_TABLE_MISSING')) throw error;
    return [refusal('KCR_TABLE_MISSING', `table ${plainTable(name.database, name.table)}`, error.detail, error.fields.hint)];
  }
  const grants = await checkGrants(http, table);
  if (needs.delivery !== 'exactly-once') return [ok(`table ${nameOf(table)}`, table.engine), ...grants];
  const suitable = checkEngine(table);
  if (suitable.level === 'refusal') return [suitable, ...grants];
  return [
    suitable,
    ...grants,
    checkWindow(context, table, 'table'),
    ...checkVolatile(table),
    ...checkProvenance(table),
    ...(await checkViews(context, table)),
  ];
}

async function checkGrants(http: ClickHouseHttp, table: Table): Promise<Finding[]> {
  const granted = async (right: string): Promise<boolean> => {
    // A server that does not know the statement: the first insert will tell.
    const answer = await http.text(`CHECK GRANT ${right} ON ${quoted(table)}`).catch(() => '');
    return answer.trim() !== '0';
  };
  const findings: Finding[] = [];
  if (!(await granted('INSERT'))) {
    findings.push(refusal('KCR_PREFLIGHT', `grants on ${nameOf(table)}`, 'the user may not INSERT', `GRANT INSERT ON ${quoted(table)} TO …`));
  }
  if (!(await granted('SELECT'))) {
    const detail = 'the user may not SELECT, so a range in doubt cannot be read back';
    findings.push(warning(`grants on ${nameOf(table)}`, detail, `GRANT SELECT ON ${quoted(table)} TO …`));
  }
  return findings;
}

function checkEngine(table: Table): Finding {
  const what = `table ${nameOf(table)}`;
  if (table.family !== 'none') return ok(what, table.engine);
  const detail = `engine ${table.engine} keeps no dedup tokens, so a repeated insert would double its rows`;
  return refusal('KCR_TABLE_UNSUITABLE', what, detail, 'insert into a table of the MergeTree family, or choose at-least-once');
}

/**
 * A part that several inserts made together takes an entry for each of them: parts become fewer, tokens do not. The
 * window of a plain table forgets by count, so it has to hold what comes while a token is relied on.
 */
function checkTokens({ needs, options }: Context, table: Table, window: number, what: string): Finding | undefined {
  const { kafkaPartitions = 1, partitionsPerBatch = 1, batchMaxWaitMs = 1000 } = needs;
  if (coalesceMsOf(options) === undefined || table.family !== 'plain') return undefined;
  const perSecond = (kafkaPartitions * partitionsPerBatch * 1000) / batchMaxWaitMs;
  const budgetS = (options.dedupBudgetMs ?? DEDUP_BUDGET_MS) / 1000;
  const needed = Math.ceil(perSecond * budgetS);
  if (window >= needed) return undefined;
  const heldS = Math.floor(window / perSecond);
  const detail = `it is ${window} entries, and each of up to ${Math.ceil(perSecond)} inserts a second takes its own, also of those that make a part together: it may hold the tokens of ${heldS} s, and they are relied on for ${budgetS} s`;
  return warning(what, detail, `ALTER TABLE ${quoted(table)} MODIFY SETTING non_replicated_deduplication_window = ${needed}, or set dedupBudgetMs to ${Math.max(1, heldS) * 1000} or less`);
}

function checkWindow(context: Context, table: Table, role: 'table' | 'view target'): Finding {
  const { needs, defaults } = context;
  const setting = table.family === 'plain' ? 'non_replicated_deduplication_window' : 'replicated_deduplication_window';
  const window = tableSetting(table, setting) ?? (table.family === 'plain' ? defaults.window : defaults.replicatedWindow);
  const what = `dedup window of ${nameOf(table)}`;
  const { maxPending, kafkaPartitions = 1, partitionsPerBatch = 1 } = needs;
  const least = maxPending * kafkaPartitions * partitionsPerBatch;
  const roomy = Math.max(SMALL_WINDOW, least * WINDOW_ROOM);
  const todo = `ALTER TABLE ${quoted(table)} MODIFY SETTING ${setting} = ${Math.max(WINDOW, roomy)}`;
  if (window === undefined) return warning(what, 'cannot be seen; if it is 0, repeated inserts double their rows', todo);
  if (window === 0) {
    const whose = role === 'table' ? 'the table forgets every token' : 'a materialized view writes into it';
    return refusal('KCR_DEDUP_WINDOW', what, `it is 0: ${whose}, and a repeated insert doubles its rows`, todo);
  }
  const sum = `${maxPending} batches in doubt of each of ${kafkaPartitions} Kafka partitions, over ${partitionsPerBatch} ClickHouse partitions each`;
  if (window < least) return refusal('KCR_DEDUP_WINDOW', what, `it is ${window} entries, less than the ${least} that may be needed at once (${sum})`, todo);
  if (window < roomy) {
    const detail = `it is ${window} entries, all Kafka partitions together: what is replayed after more than that is doubled; ${least} may be needed at once (${sum})`;
    return warning(what, detail, todo);
  }
  const tokens = checkTokens(context, table, window, what);
  if (tokens !== undefined) return tokens;
  const seconds = table.family === 'plain' ? undefined : (tableSetting(table, 'replicated_deduplication_window_seconds') ?? defaults.replicatedSeconds);
  if (seconds !== undefined && seconds < SHORT_WINDOW_S) {
    const detail = `tokens are kept for ${seconds} s: a replay after a longer outage doubles its rows`;
    return warning(what, detail, `ALTER TABLE ${quoted(table)} MODIFY SETTING replicated_deduplication_window_seconds = 604800`);
  }
  return ok(what, `${window} entries${seconds === undefined ? '' : `, ${seconds} s`}`);
}

/** A repeated insert gets other values from a volatile default; in another ClickHouse partition its token is not known. */
function checkVolatile(table: Table): Finding[] {
  const what = `defaults of ${nameOf(table)}`;
  const inKey = volatileIn(table.partitionKey);
  if (inKey !== undefined) {
    const detail = `PARTITION BY calls ${inKey}(): a repeated insert may go into another ClickHouse partition, where its token is not known, and double its rows`;
    return [refusal('KCR_TABLE_UNSUITABLE', what, detail, 'partition the table by what the records bring')];
  }
  const columns = volatileColumns(table.columns, filledColumns(table));
  const keys = columns.filter(({ column }) => column.inPartitionKey);
  const findings = keys.map(({ column, because, always }) => {
    const { name, defaultKind } = column;
    const detail = `PARTITION BY depends on ${name}, which is ${defaultKind} by ${because}: a repeated insert may go into another ClickHouse partition, where its token is not known, and double its rows`;
    const todo = `ALTER TABLE ${quoted(table)} MODIFY COLUMN ${plainName(name)} REMOVE ${defaultKind}, and let every record bring it (_timestamp, of type DateTime, is filled with the record's own time)`;
    return always ? refusal('KCR_TABLE_UNSUITABLE', what, detail, todo) : warning(what, detail, todo);
  });
  const others = columns.filter(({ column }) => !column.inPartitionKey).map(({ column, because }) => `${column.name} by ${because}`);
  if (others.length === 0) return findings;
  return [...findings, ok(what, `${others.join(', ')}: rows that are inserted again by a fill get new values; harmless for which rows there are`)];
}

/** The provenance columns: every row brings them. */
function filledColumns({ provenance }: Table): ReadonlySet<string> {
  const { topic, partition, offset, timestamp, key, headers } = provenance;
  return new Set(Object.entries({ topic, partition, offset, timestamp, key, headers }).flatMap(([name, filled]) => (filled === undefined || filled === false ? [] : [`_${name}`])));
}

function checkProvenance(table: Table): Finding[] {
  const what = `provenance columns of ${nameOf(table)}`;
  const findings = table.unusable.map((fault) => warning(what, `${fault}; it is left alone`));
  const fault = readBackFault(table);
  if (fault === undefined) return [...findings, ok(what, 'a range in doubt can be read back')];
  // A replicated table commits rows and token in one step, so nothing needs to be read back.
  if (table.family !== 'plain') return [...findings, ok(what, `none needed on ${table.engine}`)];
  const detail = `${fault}: after ClickHouse was killed during an insert its range cannot be verified, and the Kafka partition halts`;
  return [...findings, warning(what, detail, provenanceStatement(table))];
}

/** Down the chain: a view's target may have views of its own. */
async function checkViews(context: Context, table: Table): Promise<Finding[]> {
  const findings: Finding[] = [];
  const { version } = context.server;
  if (table.views.length > 0 && isBefore(version, OLDEST_WITH_VIEWS)) {
    const detail = `ClickHouse ${version} makes the tokens of materialized views in another way than ${OLDEST_WITH_VIEWS.join('.')} and later: their rows may be lost or doubled when an insert is repeated`;
    findings.push(refusal('KCR_PREFLIGHT', `views of ${nameOf(table)}`, detail, 'upgrade the server, or choose at-least-once'));
  }
  const seen = new Set<string>([nameOf(table)]);
  const queue: { readonly view: TableName; readonly source: Table }[] = table.views.map((view) => ({ view, source: table }));
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { view } = next;
    const name = await findTarget(context.http, view);
    const target = name === undefined ? undefined : await findTable(context.http, name);
    if (target === undefined) {
      findings.push(warning(`view ${nameOf(view)}`, 'its target cannot be seen, so neither can its dedup window', 'GRANT SHOW TABLES on its database'));
      continue;
    }
    if (seen.has(nameOf(target))) continue;
    seen.add(nameOf(target));
    findings.push(...checkTarget(context, view, target), ...(await checkViewQuery(context, view, target)));
    queue.push(...target.views.map((further) => ({ view: further, source: target })));
  }
  if (table.family === 'plain' && table.views.length > 0) {
    const detail = 'after ClickHouse was killed during an insert the table itself is read back, the targets of its views are not';
    findings.push(warning(`views of ${nameOf(table)}`, detail, 'use replicated tables where a view must survive that too'));
  }
  return findings;
}

/** What a view makes of a block must be the same when the block comes again. */
async function checkViewQuery({ http }: Context, view: TableName, target: Table): Promise<Finding[]> {
  if (!target.columns.some(({ inPartitionKey }) => inPartitionKey)) return [];
  const query = (await findTable(http, view))?.createQuery ?? '';
  const called = volatileIn(query.slice(query.indexOf(' AS SELECT ') + 1));
  if (called === undefined) return [];
  const detail = `its query calls ${called}(): if the PARTITION BY of ${nameOf(target)} depends on that, a repeated insert may go into another ClickHouse partition there and double its rows`;
  return [warning(`view ${nameOf(view)}`, detail, 'partition the target by what the records bring')];
}

function checkTarget(context: Context, view: TableName, target: Table): Finding[] {
  if (target.family !== 'none') return [checkWindow(context, target, 'view target'), ...checkVolatile(target)];
  // Nothing is kept in a Null table; what counts is behind it.
  if (target.engine === 'Null') return [ok(`view ${nameOf(view)}`, `writes into ${nameOf(target)}, engine Null`)];
  const detail = `writes into ${nameOf(target)}, whose engine ${target.engine} keeps no dedup tokens: a repeated insert doubles its rows there`;
  return [refusal('KCR_TABLE_UNSUITABLE', `view ${nameOf(view)}`, detail, 'give the view a target of the MergeTree family')];
}

/** The hint becomes the finding's todo. */
function nameOf({ database, table }: TableName): string {
  return `${database}.${table}`;
}

function quoted({ database, table }: TableName): string {
  return plainTable(database, table);
}
