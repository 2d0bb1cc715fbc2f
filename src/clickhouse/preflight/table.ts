/**
 * Can a table keep what was promised: its engine, its dedup window, its defaults, its provenance columns?
 * Imports: clickhouse/client, clickhouse/insert, clickhouse/schema, clickhouse/verify, preflight.
 */
import { type Finding, ok, refusal, warning } from '../../preflight/finding.js';
import type { ClickHouseHttp } from '../client/http.js';
import { filledColumns, provenanceStatement, readBackFault } from '../schema/provenance-columns.js';
import { HIDDEN, hidesRows, namePolicies, SEES_ALL } from '../verify/row-policies.js';
import { plainName, plainTable, type Table, type TableName } from '../schema/table.js';
import { tableSetting } from '../schema/tables.js';
import { budgetWithin, DEDUP_BUDGET_MS } from '../insert/token-doubt.js';
import { volatileColumns, volatileIn } from '../schema/volatile.js';
import type { CheckContext } from './context.js';

/** Entries the window is recommended to have: it is one for the whole table, all Kafka partitions together. */
const WINDOW = 10_000;
const SMALL_WINDOW = 1_000;
/** How often what may be in doubt at once has to fit into the window: others insert while a range is retried. */
const WINDOW_ROOM = 10;
const SHORT_WINDOW_S = 3_600;

export async function checkGrants(http: ClickHouseHttp, table: Table): Promise<Finding[]> {
  const granted = async (right: string): Promise<boolean> => {
    // A server that does not know the statement: the first insert will tell.
    const answer = await http.text(`CHECK GRANT ${right} ON ${quoted(table)}`).catch(() => '');
    return answer.trim() !== '0';
  };
  const findings: Finding[] = [];
  if (!(await granted('INSERT'))) {
    findings.push(
      refusal(
        'KCR_PREFLIGHT',
        `grants on ${nameOf(table)}`,
        'the user may not INSERT',
        `GRANT INSERT ON ${quoted(table)} TO …`,
      ),
    );
  }
  if (!(await granted('SELECT'))) {
    const detail = 'the user may not SELECT, so a range in doubt cannot be read back';
    findings.push(warning(`grants on ${nameOf(table)}`, detail, `GRANT SELECT ON ${quoted(table)} TO …`));
  }
  return findings;
}

export function checkEngine(table: Table): Finding {
  const what = `table ${nameOf(table)}`;
  if (table.family !== 'none') return ok(what, table.engine);
  const detail = `engine ${table.engine} keeps no dedup tokens, so a repeated insert would double its rows`;
  return refusal(
    'KCR_TABLE_UNSUITABLE',
    what,
    detail,
    'insert into a table of the MergeTree family, or choose at-least-once',
  );
}

/**
 * The window forgets by count, so it has to hold what comes while a token is relied on: at most a batch of each Kafka
 * partition in each `maxWaitMs`. A part that several inserts made together takes an entry for each of them.
 */
function checkTokens(
  { needs, options }: CheckContext,
  table: Table,
  { window, seconds }: { readonly window: number; readonly seconds: number | undefined },
  what: string,
): Finding | undefined {
  const { kafkaPartitions = 1, partitionsPerBatch = 1, batchMaxWaitMs = 1000 } = needs;
  const perSecond = (kafkaPartitions * partitionsPerBatch * 1000) / batchMaxWaitMs;
  const budgetS = budgetWithin(options.dedupBudgetMs ?? DEDUP_BUDGET_MS, seconds) / 1000;
  const needed = Math.ceil(perSecond * budgetS);
  if (window >= needed) return undefined;
  const heldS = Math.floor(window / perSecond);
  const detail =
    `it is ${window} entries, and each of up to ${Math.ceil(perSecond)} inserts a second takes its ` +
    `own, also of those that make a part together: it may hold the tokens of ${heldS} s, and ` +
    `they are relied on for ${budgetS} s`;
  const then =
    readBackFault(table) === undefined
      ? '; beyond that the table is asked before a range is sent again'
      : '; beyond that a range in doubt halts its partition, since the table cannot be asked';
  return warning(
    what,
    detail + then,
    `ALTER TABLE ${quoted(table)} MODIFY SETTING ${windowSetting(table)} = ${needed}, or set dedupBudgetMs to ` +
      `${Math.max(1, heldS) * 1000} or less`,
  );
}

function windowSetting({ family }: Table): string {
  return family === 'plain' ? 'non_replicated_deduplication_window' : 'replicated_deduplication_window';
}

export function checkWindow(context: CheckContext, table: Table, role: 'table' | 'view target'): Finding {
  const { needs, defaults } = context;
  const setting = windowSetting(table);
  const window =
    tableSetting(table, setting) ?? (table.family === 'plain' ? defaults.window : defaults.replicatedWindow);
  const what = `dedup window of ${nameOf(table)}`;
  const { maxPending, kafkaPartitions = 1, partitionsPerBatch = 1 } = needs;
  const least = maxPending * kafkaPartitions * partitionsPerBatch;
  const roomy = Math.max(SMALL_WINDOW, least * WINDOW_ROOM);
  const todo = `ALTER TABLE ${quoted(table)} MODIFY SETTING ${setting} = ${Math.max(WINDOW, roomy)}`;
  if (window === undefined)
    return warning(what, 'cannot be seen; if it is 0, repeated inserts double their rows', todo);
  if (window === 0) {
    const whose = role === 'table' ? 'the table forgets every token' : 'a materialized view writes into it';
    return refusal('KCR_DEDUP_WINDOW', what, `it is 0: ${whose}, and a repeated insert doubles its rows`, todo);
  }
  const sum =
    `${maxPending} batches in doubt of each of ${kafkaPartitions} Kafka partitions, over ` +
    `${partitionsPerBatch} ClickHouse partitions each`;
  if (window < least)
    return refusal(
      'KCR_DEDUP_WINDOW',
      what,
      `it is ${window} entries, less than the ${least} that may be needed at once (${sum})`,
      todo,
    );
  if (window < roomy) {
    const detail =
      `it is ${window} entries, all Kafka partitions together: what is replayed after more than that ` +
      `is doubled; ${least} may be needed at once (${sum})`;
    return warning(what, detail, todo);
  }
  const seconds =
    table.family === 'plain'
      ? undefined
      : (tableSetting(table, 'replicated_deduplication_window_seconds') ?? defaults.replicatedSeconds);
  const tokens = checkTokens(context, table, { window, seconds }, what);
  if (tokens !== undefined) return tokens;
  if (seconds !== undefined && seconds < SHORT_WINDOW_S) {
    const detail = `tokens are kept for ${seconds} s: a replay after a longer outage doubles its rows`;
    return warning(
      what,
      detail,
      `ALTER TABLE ${quoted(table)} MODIFY SETTING replicated_deduplication_window_seconds = 604800`,
    );
  }
  return ok(what, `${window} entries${seconds === undefined ? '' : `, ${seconds} s`}`);
}

/**
 * A repeated insert gets other values from a volatile default; in another ClickHouse partition its token is not known.
 */
export function checkVolatile(table: Table): Finding[] {
  const what = `defaults of ${nameOf(table)}`;
  const inKey = volatileIn(table.partitionKey);
  if (inKey !== undefined) {
    const detail =
      `PARTITION BY calls ${inKey}(): a repeated insert may go into another ClickHouse partition, ` +
      'where its token is not known, and double its rows';
    return [refusal('KCR_TABLE_UNSUITABLE', what, detail, 'partition the table by what the records bring')];
  }
  const columns = volatileColumns(table.columns, filledColumns(table));
  const keys = columns.filter(({ column }) => column.inPartitionKey);
  const findings = keys.map(({ column, because, always }) => {
    const { name, defaultKind } = column;
    const detail =
      `PARTITION BY depends on ${name}, which is ${defaultKind} by ${because}: a repeated insert may ` +
      'go into another ClickHouse partition, where its token is not known, and double its rows';
    const todo =
      `ALTER TABLE ${quoted(table)} MODIFY COLUMN ${plainName(name)} REMOVE ${defaultKind}, and let ` +
      `every record bring it (_timestamp, of type DateTime, is filled with the record's own time)`;
    return always ? refusal('KCR_TABLE_UNSUITABLE', what, detail, todo) : warning(what, detail, todo);
  });
  const others = columns
    .filter(({ column }) => !column.inPartitionKey)
    .map(({ column, because }) => `${column.name} by ${because}`);
  if (others.length === 0) return findings;
  return [
    ...findings,
    ok(
      what,
      `${others.join(', ')}: rows that are inserted again by a fill get new values; harmless for which rows there are`,
    ),
  ];
}

/** A column that is made up cannot become one that is stored by being modified. */
function recreation(table: Table, fault: string): string | undefined {
  const [name = ''] = fault.split(' ');
  const column = table.columns.find((each) => each.name === name);
  if (column?.defaultKind !== 'EPHEMERAL') return undefined;
  return (
    `ALTER TABLE ${quoted(table)} DROP COLUMN ${name}; ALTER TABLE ${quoted(table)} ADD COLUMN ${name} ` +
    `${column.type}`
  );
}

export function checkProvenance(table: Table): Finding[] {
  const what = `provenance columns of ${nameOf(table)}`;
  const findings = table.unusable.map((fault) => warning(what, `${fault}; it is left alone`, recreation(table, fault)));
  const fault = readBackFault(table);
  if (fault === undefined) return [...findings, ok(what, 'a range in doubt can be read back')];
  // A replicated table commits rows and token in one step, so nothing needs to be read back.
  if (table.family !== 'plain') return [...findings, ok(what, `none needed on ${table.engine}`)];
  const detail =
    `${fault}: after ClickHouse was killed during an insert its range cannot be verified, and the ` +
    'Kafka partition halts';
  return [...findings, warning(what, detail, provenanceStatement(table))];
}

/** What a policy hides a look does not find. Seen of a table without rows only where the user may see the policies. */
export async function checkRowPolicies(http: ClickHouseHttp, table: Table): Promise<Finding[]> {
  const names = await namePolicies(http, table);
  // A user who may not SELECT is told so elsewhere.
  if (names.length === 0 && !(await hidesRows(http, table))) return [];
  const named = names.length === 0 ? '' : ` (${names.join(', ')})`;
  const then =
    'a range in doubt cannot be looked for: where its token cannot be relied on the Kafka partition halts, and ' +
    '"verify" refuses';
  return [warning(`row policies of ${nameOf(table)}`, `${HIDDEN}${named}: ${then}`, SEES_ALL)];
}

export function nameOf({ database, table }: TableName): string {
  return `${database}.${table}`;
}

export function quoted({ database, table }: TableName): string {
  return plainTable(database, table);
}
