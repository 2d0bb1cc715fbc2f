/**
 * What a simulated ClickHouse answers to what it is asked. It knows the statements of the sink that ships, and no
 * others: any other one is an error of the test's. Imports: testing.
 */
import type { Part, Row, SimulatedTable } from '../table.js';
import { exception, rowsAnswer, UnknownStatement, type Response, type Select } from './requests.js';
import { Effective, type Settings } from './settings.js';

/** What the answers are made of. */
export interface Asked {
  readonly table: SimulatedTable;
  readonly profile: Settings;
  readonly nowMs: number;
  readonly startedMs: number;
  readonly version: string;
  /** Parts of which the server does not know yet whether it keeps them. */
  readonly unknownParts: number;
  /** Ids of the inserts it is at. */
  readonly running: readonly string[];
  /** Ids of those that wait for others. */
  readonly queued: readonly string[];
}

/** Rows, or the code of what is wrong. */
type Answer = (asked: Asked, select: Select) => readonly object[] | number;

const database = 'default';
export const TABLE = 't';
/** The clock of the server: virtual time counts from here. */
export const EPOCH_MS = 1_763_800_200_000;

/** In the order of their texts in `src/clickhouse`, each by the words that make it what it is. */
const statements: readonly (readonly [pattern: RegExp, answer: Answer])[] = [
  [/^SELECT version\(\) AS version, timezone\(\) AS timezone, .* uptime\(\) AS uptime$/, identity],
  [/^SELECT name FROM system\.settings WHERE name IN \((.*)\) AND NOT \(readonly AND name IN \(.*\)\)$/, settings],
  [
    /^SELECT toString\(uuid\) AS uuid, .* FROM system\.tables WHERE database = \{database:String\} AND name = \{table:String\}$/,
    tables,
  ],
  [
    /^SELECT name, type, .* FROM system\.columns WHERE database = \{database:String\} AND table = \{table:String\} ORDER BY position$/,
    columns,
  ],
  [
    /^SELECT max\(toUInt64OrZero\(extract\(mutation_id, '\[0-9\]\+'\)\)\) AS last FROM system\.mutations WHERE .*$/,
    mutations,
  ],
  [/^SELECT value FROM system\.(replicated_)?merge_tree_settings WHERE name = \{name:String\}$/, defaultSetting],
  [
    /^SELECT sum\(parts_to_check\) AS parts FROM system\.replicas WHERE database = \{database:String\} AND table = \{table:String\}$/,
    unknownParts,
  ],
  [/^SELECT 1 AS n FROM system\.processes WHERE startsWith\(query_id, \{id:String\}\) LIMIT 1$/, processes],
  [/^SELECT 1 AS n FROM system\.asynchronous_inserts WHERE .*entries\.query_id\) LIMIT 1$/, queue],
  [
    /^SELECT groupArray\(o\) AS offsets, groupArray\(n\) AS counts FROM \(SELECT _offset AS o, count\(\) AS n FROM .* GROUP BY o\)$/,
    counts,
  ],
  [
    /^SELECT name AS table FROM system\.tables WHERE database = \{database:String\} AND engine LIKE '%MergeTree' ORDER BY editDistance\(name, \{table:String\}\) LIMIT 3$/,
    () => [],
  ],
  [/^SELECT name FROM system\.databases WHERE name = \{database:String\}$/, () => [{ name: database }]],
  [
    /^SELECT toUnixTimestamp64Milli\(now64\(3\)\) AS now, maxIf\(t, upto > .* max\(level = 0 AND max_block_number <= last - \{half:Int64\}\) AS isPassed FROM \(SELECT .* FROM system\.parts WHERE database = \{database:String\} AND table = \{table:String\}\) GROUP BY t\) WINDOW newer .*$/,
    plainParts,
  ],
  [
    /^SELECT toUnixTimestamp64Milli\(now64\(3\)\) AS now, maxIf\(t, upto > .* countIf\(level = 0\) AS inserted FROM system\.parts WHERE database = \{database:String\} AND table = \{table:String\} GROUP BY t\) WINDOW newer .*$/,
    replicatedParts,
  ],
  [/^SELECT name FROM system\.settings WHERE match\(name, '.*type'\) AND type = 'Bool'$/, () => []],
  [/^SELECT count\(ignore\(\*\)\) AS n FROM format\('JSONEachRow', '.*', \$kcr_\w+\$.*\$kcr_\w+\$\)$/, readable],
  [/^EXPLAIN PLAN actions = 1 SELECT _offset FROM .* WHERE _offset >= 0$/, plan],
  [/^SELECT uniqExact\(_offset\) AS offsets FROM .* \{last:Int64\}$/, witnesses],
];

export function answerTo(asked: Asked, select: Select): Response {
  const text = select.text.replaceAll(/\s+/g, ' ').trim();
  const known = statements.find(([pattern]) => pattern.test(text));
  if (known === undefined) throw new UnknownStatement(`the simulated server does not know: ${text}`);
  const found = known[1](asked, select);
  return typeof found === 'number' ? exception(found, select.queryId) : rowsAnswer(select.queryId, found);
}

function identity({ version, nowMs, startedMs }: Asked): readonly object[] {
  return [{ version, timezone: 'UTC', now: String(EPOCH_MS + nowMs), uptime: Math.floor((nowMs - startedMs) / 1000) }];
}

function settings(_: Asked, { text }: Select): ReturnType<Answer> {
  return [...text.slice(0, text.indexOf(')')).matchAll(/'([^']+)'/g)].map(([, name]) => ({ name }));
}

function isThere({ table }: Asked, { values }: Select): boolean {
  return values['database'] === database && values['table'] === TABLE && !table.definition.isGone;
}

/** What a range records of the table that it goes into. */
export function identityOf({ definition: { id }, config: { family } }: SimulatedTable): string {
  const number = id.slice('table '.length).padStart(12, '0');
  return family === 'replicated' ? `/clickhouse/tables/${number}` : `00000000-0000-4000-8000-${number}`;
}

function tables(asked: Asked, select: Select): ReturnType<Answer> {
  if (!isThere(asked, select)) return [];
  const { table } = asked;
  const {
    definition,
    config: { family = 'plain', dedupWindow = 10_000, dedupWindowMs, tellsTime = true, partitionBy },
    views,
  } = table;
  const size = definition.keepsTokens ? dedupWindow : 0;
  const own =
    family === 'plain'
      ? `non_replicated_deduplication_window = ${size}`
      : `replicated_deduplication_window = ${size}, replicated_deduplication_window_seconds = ` +
        `${Math.floor((dedupWindowMs ?? 604_800_000) / 1000)}`;
  const engine = family === 'plain' ? 'MergeTree' : 'ReplicatedMergeTree';
  const full = family === 'plain' ? engine : `${engine}('${identityOf(table)}', '{replica}')`;
  return [
    {
      uuid: family === 'plain' ? identityOf(table) : '00000000-0000-4000-8000-00000000ffff',
      paths: [],
      altered: tellsTime ? Math.floor(EPOCH_MS / 1000) - 3_600 + definition.alteredS : 0,
      engine,
      engine_full: `${full}${partitionBy === undefined ? '' : ' PARTITION BY k'} ORDER BY id SETTINGS ${own}`,
      sorting_key: 'id',
      partition_key: partitionBy === undefined ? '' : 'k',
      create_table_query: '',
      dependencies_database: [...views.keys()].map(() => database),
      dependencies_table: [...views.keys()],
    },
  ];
}

function columns(asked: Asked, select: Select): ReturnType<Answer> {
  if (!isThere(asked, select)) return [];
  const { hasProvenance, more } = asked.table.definition;
  const has = (name: string, type: string) => ({
    name,
    type,
    defaultKind: '',
    defaultExpression: '',
    inPartitionKey: 0,
  });
  const topic = asked.table.config.hasTopic === false ? [] : [has('_topic', 'LowCardinality(String)')];
  const provenance = hasProvenance ? [...topic, has('_partition', 'Int32'), has('_offset', 'Int64')] : [];
  return [has('id', 'UInt64'), ...provenance, ...(more === 0 ? [] : [has(`more_${more}`, 'String')])];
}

function mutations({ table }: Asked): ReturnType<Answer> {
  return [{ last: String(table.definition.mutation) }];
}

/** Of rows that are given, those that an insert would take. */
function readable({ table }: Asked, { text }: Select): ReturnType<Answer> {
  const given = /\$kcr_\w+\$([^]*)\$kcr_\w+\$\)$/.exec(text)?.[1] ?? '';
  const rows = given
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const { id, p, o } = JSON.parse(line) as { readonly id: number; readonly p: number; readonly o: number };
      return { topic: 'simulated', partition: p, offset: o, timestampMs: id, value: null };
    });
  return [{ n: rows.filter((row) => !table.isPoison(row)).length }];
}

/** What hides rows is named to whom it hides them from. */
function plan({ table }: Asked): ReturnType<Answer> {
  return [{ explain: 'Expression' }, ...(table.definition.isHidden ? [{ explain: 'Row level filter column: 0' }] : [])];
}

/** Of the server, for tables that do not say. Ours say. */
function defaultSetting(_: Asked, { values }: Select): ReturnType<Answer> {
  const defaults: Readonly<Record<string, string>> = {
    replicated_deduplication_window: '10000',
    replicated_deduplication_window_seconds: '3600',
  };
  return [{ value: defaults[String(values['name'])] ?? '0' }];
}

/** Nothing is merged here: each block is a part. Numbers of blocks count over the whole table. */
function plainParts(asked: Asked, select: Select): ReturnType<Answer> {
  const { parts } = asked.table;
  const passed = parts.slice(0, Math.max(0, parts.length - Number(select.values['half'])));
  return [{ ...reach(asked, select), moved: mostOf(passed.map(secondOf)) }];
}

/** By the second in which they came: the server counts back from the youngest. */
function replicatedParts(asked: Asked, select: Select): ReturnType<Answer> {
  const seconds = asked.table.parts.map(secondOf);
  const since = (second: number): number => seconds.filter((other) => other >= second).length;
  return [
    {
      ...reach(asked, select),
      moved: mostOf(seconds.filter((second) => since(second) > Number(select.values['half']))),
    },
  ];
}

function reach(
  { table: { parts, aheadMs }, nowMs }: Asked,
  { text, values }: Select,
): { readonly now: string; readonly full: number } {
  const entriesOf = (part: Part): number => (text.includes('toInt64(rows)') ? Math.max(1, part.rows) : 1);
  const isFull = (part: Part): boolean =>
    parts.filter((other) => secondOf(other) >= secondOf(part)).reduce((sum, other) => sum + entriesOf(other), 0) >
    Number(values['half']);
  return { now: String(EPOCH_MS + nowMs + aheadMs), full: mostOf(parts.filter(isFull).map(secondOf)) };
}

function secondOf({ atMs }: Part): number {
  return Math.floor((EPOCH_MS + atMs) / 1000);
}

/** As ClickHouse's maxIf has it: 0 of none. */
function mostOf(seconds: readonly number[]): number {
  return Math.max(0, ...seconds);
}

function unknownParts({ unknownParts: parts }: Asked): ReturnType<Answer> {
  return [{ parts: String(parts) }];
}

function processes({ running, queued }: Asked, { values }: Select): ReturnType<Answer> {
  return [...running, ...queued].some((id) => id.startsWith(String(values['id']))) ? [{ n: 1 }] : [];
}

function queue({ queued }: Asked, { values }: Select): ReturnType<Answer> {
  return queued.some((id) => id.startsWith(String(values['id']))) ? [{ n: 1 }] : [];
}

function counts(asked: Asked, select: Select): ReturnType<Answer> {
  const rows = seen(asked, select);
  if (typeof rows === 'number') return rows;
  const { mostKeys } = new Effective(asked.profile, select.settings);
  const found = new Map<number, number>();
  for (const { offset } of rows) {
    if (!found.has(offset) && found.size >= mostKeys) continue;
    found.set(offset, (found.get(offset) ?? 0) + 1);
  }
  return [{ offsets: [...found.keys()].map(String), counts: [...found.values()].map(String) }];
}

function witnesses(asked: Asked, select: Select): ReturnType<Answer> {
  const rows = seen(asked, select);
  return typeof rows === 'number' ? rows : [{ offsets: String(new Set(rows.map(({ offset }) => offset)).size) }];
}

/** The rows of a range, as far as its columns are there and the settings let them be read. */
function seen({ table, profile }: Asked, { values, settings: own }: Select): Row[] | number {
  const { definition } = table;
  if (definition.isGone) return 60;
  if (!definition.hasProvenance || table.config.hasTopic === false) return 47;
  if (definition.isHidden) return [];
  const effective = new Effective(profile, own);
  const { topic, partition, first, last } = values;
  const isIn = (row: Row) =>
    row.isBlank !== true &&
    row.topic === topic &&
    row.partition === Number(partition) &&
    row.offset >= Number(first) &&
    row.offset <= Number(last);
  const rows = (effective.mostRead === Infinity ? table.rows : table.rows.slice(0, effective.mostRead)).filter(isIn);
  return effective.breaksOff ? rows.slice(0, rows.length >> 1) : rows;
}
