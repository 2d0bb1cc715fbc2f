/**
 * Would the records that are there become the rows that are meant? Reads some
 * of them, and asks ClickHouse what it would make of them; inserts nothing.
 * Imports: clickhouse, clickhouse/client, clickhouse/insert, clickhouse/schema, errors, model, operators/between,
 * preflight.
 */
import { rowsOfRecord, type Transform } from '../../operators/between/transform-rows.js';
import { reservedBy } from '../clickhouse/insert/check-batch.js';
import { ClickHouseHttp } from '../clickhouse/client/http.js';
import { type ClickHouseSinkOptions, databaseOf, type Route } from '../clickhouse/options.js';
import { RowTrial, rowsOf } from '../clickhouse/insert/row-trial.js';
import { insertSettings, type Settings } from '../clickhouse/insert/settings.js';
import type { Table } from '../clickhouse/schema/table.js';
import { readServer, requireTable } from '../clickhouse/schema/tables.js';
import { asIngestError, type IngestError } from '../errors.js';
import { type Finding, ok, warning } from '../preflight/finding.js';
import type { KafkaRecord } from '../model/record.js';
import { judge, type Judged, type UnparsedRow } from './judge.js';
import { type Unusable, unusableValue } from './payload.js';
import { SAMPLE, type SampledRecord } from './take.js';

export interface DataOptions {
  readonly clickHouse: ClickHouseSinkOptions;
  readonly transforms: ReadonlyMap<string, Transform | undefined>;
  readonly onPoison: 'halt' | 'exclude';
  readonly onTombstone: 'halt' | 'skip';
  /** Those with records in their log. */
  readonly topicsWithRecords: ReadonlySet<string>;
}

/** Records that do not parse are looked for one after the other, a question each. */
const MOST_UNPARSED = 5;

/** @throws the signal's reason at once. */
export async function dataFindings(
  options: DataOptions,
  samples: ReadonlyMap<string, readonly SampledRecord[]>,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const http = new ClickHouseHttp({ ...options.clickHouse, starting: signal });
  try {
    const { knownSettings } = await readServer(http);
    const settings = insertSettings(options.clickHouse.clickhouseSettings ?? {}, knownSettings).plain;
    const look = {
      http,
      trial: await RowTrial.open(http, settings, signal),
      settings,
      ignoresCase: await ignoresCase(http, settings),
      options,
      signal,
    };
    const findings: Finding[] = [];
    for (const route of options.clickHouse.routes)
      findings.push(...(await topicFindings(look, route, samples.get(route.topic) ?? [])));
    return findings;
  } finally {
    http.close();
  }
}

interface Look {
  readonly http: ClickHouseHttp;
  readonly trial: RowTrial;
  readonly settings: Settings;
  readonly ignoresCase: boolean;
  readonly options: DataOptions;
  readonly signal: AbortSignal;
}

/** How fields are matched with columns: a setting since 26.5, before that by case. */
async function ignoresCase(http: ClickHouseHttp, settings: Settings): Promise<boolean> {
  const name = 'input_format_column_name_matching_mode';
  const [row] = await http.select<{ value: string }>(`SELECT value FROM system.settings WHERE name = '${name}'`);
  return ['auto', 'ignore_case'].includes(settings[name] ?? row?.value ?? 'match_case');
}

async function topicFindings(look: Look, route: Route, sample: readonly SampledRecord[]): Promise<readonly Finding[]> {
  const { topic } = route;
  const what = `records of ${topic}`;
  if (sample.length === 0 && look.options.topicsWithRecords.has(topic)) {
    return [
      warning(
        what,
        `none could be looked at: they did not come within ${SAMPLE.timeMs / 1000} s, or are all of more than ` +
          `${SAMPLE.recordBytes} bytes`,
        'try again; a topic by itself has all of the time',
      ),
    ];
  }
  if (sample.length === 0) return [ok(what, 'there is none yet, so nothing is known of what they will be')];
  try {
    const table = await requireTable(look.http, {
      database: databaseOf(look.options.clickHouse, route),
      table: route.table,
    });
    return await judge(await judgedOf(look, table, topic, sample), look.trial);
  } catch (thrown) {
    look.signal.throwIfAborted();
    // That the table is missing, or the server, is told by the checks of these.
    const { code, detail } = asIngestError(thrown, 'KCR_PREFLIGHT', 'the records could not be looked at');
    return code === 'KCR_TABLE_MISSING' || code === 'KCR_CLICKHOUSE_UNREACHABLE'
      ? []
      : [warning(what, `they could not be compared with the table: ${detail}`)];
  }
}

async function judgedOf(
  { trial, settings, ignoresCase: ignoring, options }: Look,
  table: Table,
  topic: string,
  sample: readonly SampledRecord[],
): Promise<Judged> {
  const transform = options.transforms.get(topic);
  const reserved = reservedBy(table.provenance);
  const unusable: { readonly at: SampledRecord; readonly why: Unusable }[] = [];
  const usable: SampledRecord[] = [];
  let leftOut = 0;
  for (const at of sample) {
    const made = transformed(transform, at, topic);
    const rows =
      'rows' in made ? made.rows.filter(({ value }) => value !== null || options.onTombstone === 'halt') : [];
    // A record is inserted with all of its rows, or not at all.
    const why =
      'why' in made
        ? made.why
        : rows.map(({ value }) => unusableValue(value, reserved)).find((fault) => fault !== undefined);
    if (why !== undefined) unusable.push({ at, why });
    else if (rows.length === 0) leftOut += 1;
    else usable.push(...rows.map((record) => ({ partition: at.partition, record })));
  }
  const unparsed = await unparsedOf(trial, table, topic, usable);
  const areAllUnparsed = unparsed.length > 0 && (await trial.readable(table, rowsOfAll(usable, table, topic))) === 0;
  const rejectsUnknown = settings.input_format_skip_unknown_fields === '0';
  return {
    topic,
    table,
    sampled: sample.length,
    leftOut,
    unusable,
    usable,
    unparsed,
    areAllUnparsed,
    ignoresCase: ignoring,
    rejectsUnknown,
    onPoison: options.onPoison,
    hasTransform: transform !== undefined,
  };
}

function transformed(
  transform: Transform | undefined,
  { partition, record }: SampledRecord,
  topic: string,
): { readonly rows: readonly KafkaRecord[] } | { readonly why: Unusable } {
  if (transform === undefined) return { rows: [record] };
  try {
    return {
      rows: rowsOfRecord(transform, record, {
        topic,
        partition,
        assignmentId: 0,
        generation: 0,
        startOffset: record.offset,
      }),
    };
  } catch (thrown) {
    const { reason, fields } = thrown as IngestError;
    return { why: { kind: `not taken by the transform: ${reason}`, todo: fields.hint ?? 'mend the transform' } };
  }
}

/** Those that ClickHouse refuses, the first few; unknown fields are no matter here. */
async function unparsedOf(
  trial: RowTrial,
  table: Table,
  topic: string,
  usable: readonly SampledRecord[],
): Promise<readonly UnparsedRow[]> {
  const unparsed: UnparsedRow[] = [];
  let rest = usable;
  while (rest.length > 0 && unparsed.length < MOST_UNPARSED) {
    const refused = await trial.refusal(table, rowsOfAll(rest, table, topic), {
      input_format_skip_unknown_fields: '1',
    });
    if (refused === undefined) break;
    const at = rest[refused.index];
    if (at === undefined) break;
    unparsed.push({ at, reason: refused.reason });
    rest = rest.filter((_, index) => index !== refused.index);
  }
  return unparsed;
}

function rowsOfAll(sampled: readonly SampledRecord[], table: Table, topic: string): Buffer {
  return Buffer.concat(sampled.map(({ partition, record }) => rowsOf([record], table.provenance, topic, partition)));
}
