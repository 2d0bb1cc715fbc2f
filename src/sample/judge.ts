/**
 * What some records show of a topic and its table, as findings with what to do. The server
 * is asked for the types of fields only. Imports: clickhouse/insert, clickhouse/schema, preflight.
 */
import type { RowTrial } from '../clickhouse/insert/row-trial.js';
import { plainName, plainTable, type Table } from '../clickhouse/schema/table.js';
import { type Finding, ok, refusal, warning } from '../preflight/finding.js';
import { envelopeOf, innerWith } from './envelope.js';
import { columnFor, type FieldReport, isRenamable, likelyMeant, reportFields, type Row } from './fields.js';
import type { Unusable } from './payload.js';
import type { SampledRecord } from './take.js';

export interface UnparsedRow {
  readonly at: SampledRecord;
  readonly reason: string;
}

export interface Judged {
  readonly topic: string;
  readonly table: Table;
  /** Records that were looked at. */
  readonly sampled: number;
  /** Records that a transform makes no row of, and tombstones that are skipped. */
  readonly leftOut: number;
  readonly unusable: readonly { readonly at: SampledRecord; readonly why: Unusable }[];
  /** Rows that are one JSON object each. */
  readonly usable: readonly SampledRecord[];
  /** Those of them that ClickHouse refuses, the first few. */
  readonly unparsed: readonly UnparsedRow[];
  readonly areAllUnparsed: boolean;
  readonly ignoresCase: boolean;
  /** A field without a column is an error. */
  readonly rejectsUnknown: boolean;
  readonly onPoison: 'halt' | 'exclude';
  readonly hasTransform: boolean;
}

/** Names in one message. */
const SHOWN = 12;

export async function judge(judged: Judged, trial: RowTrial): Promise<readonly Finding[]> {
  const { topic, table, sampled, leftOut, usable } = judged;
  const rows = usable.map(({ record }) => JSON.parse(String(record.value)) as Row);
  const report = reportFields(rows, table, judged.ignoresCase);
  const unfit = unfitFinding(judged, rows, report);
  const findings = [
    ...unusableFindings(judged),
    ...(unfit !== undefined
      ? [unfit]
      : [
          ...envelopeFindings(judged, rows),
          ...(await unknownFindings(judged, rows, report, trial)),
          ...unfilledFindings(judged, report),
          ...generatedFindings(judged, report),
        ]),
    ...unparsedFindings(judged),
  ];
  if (findings.length > 0) return findings;
  const left = leftOut === 0 ? '' : `; ${leftOut} of them make no row`;
  return [ok(what(topic), `${sampled} looked at: their fields and the columns of ${nameOf(table)} fit${left}`)];
}

const what = (topic: string): string => `records of ${topic}`;
const nameOf = ({ database, table }: Table): string => `${database}.${table}`;
const quoted = ({ database, table }: Table): string => plainTable(database, table);

function listed(names: readonly string[]): string {
  return `${names.slice(0, SHOWN).join(', ')}${names.length > SHOWN ? ` and ${names.length - SHOWN} more` : ''}`;
}

function placeOf(topic: string, { partition, record }: SampledRecord): string {
  return `${topic}/${partition}, offset ${record.offset}`;
}

/** What becomes of a record that cannot be inserted. */
function consequence({ onPoison }: Judged): string {
  return onPoison === 'halt'
    ? 'a partition halts at such a record'
    : 'such records are left out (onPoison "exclude"), at most half of a batch';
}

function unusableFindings(judged: Judged): Finding[] {
  const { topic, unusable, sampled } = judged;
  const kinds = new Map<string, { readonly first: SampledRecord; readonly todo: string; count: number }>();
  for (const { at, why } of unusable) {
    const kind = kinds.get(why.kind) ?? { first: at, todo: why.todo, count: 0 };
    kind.count += 1;
    kinds.set(why.kind, kind);
  }
  return [...kinds].slice(0, SHOWN).map(([kind, { first, todo, count }]) => {
    const detail = `${count} of ${sampled} that were looked at are ${kind} (${placeOf(topic, first)}): ${consequence(judged)}`;
    return unusable.length === sampled
      ? refusal('KCR_POISON', what(topic), detail, todo)
      : warning(what(topic), detail, todo);
  });
}

/** None of the table's own columns would get a value from any record. */
function unfitFinding(
  { topic, table }: Judged,
  rows: readonly Row[],
  { own, filled, unknown }: FieldReport,
): Finding | undefined {
  const [row] = rows;
  if (row === undefined || own.length === 0 || filled.length > 0) return undefined;
  const envelope = envelopeOf(row);
  const columns = `the columns of ${nameOf(table)} (${listed(own.map(({ name }) => name))})`;
  if (envelope !== undefined) {
    const detail =
      `they come in ${envelope.name}, and none of ${columns} is a field of that: every row would ` +
      'hold defaults only';
    return refusal('KCR_TABLE_UNSUITABLE', what(topic), detail, envelope.todo);
  }
  const inner = innerWith(row, (name) => columnFor(name, own, true) !== undefined);
  const fields = listed([...unknown.keys()]);
  const detail =
    `none of their fields (${fields === '' ? 'they have none' : fields}) is one of ${columns}: every ` +
    'row would hold defaults only';
  const todo =
    inner === undefined
      ? 'is it the table that is meant? Else add the columns, rename the fields, or give the route a transform'
      : `what is meant stands in ${inner.join('.')}: give the route a transform: (record) => ` +
        `JSON.parse(record.value).${inner.join('.')}`;
  return refusal('KCR_TABLE_UNSUITABLE', what(topic), detail, todo);
}

/** Some column is named like a field of the envelope, others are not. */
function envelopeFindings({ topic, table, ignoresCase }: Judged, rows: readonly Row[]): Finding[] {
  const row = rows.find((each) => envelopeOf(each) !== undefined);
  const envelope = row === undefined ? undefined : envelopeOf(row);
  if (row === undefined || envelope === undefined) return [];
  const [field = ''] = envelope.inner;
  if (columnFor(field, table.columns, ignoresCase) !== undefined) return [];
  return [
    warning(
      what(topic),
      `they come in ${envelope.name}, and ${nameOf(table)} has no column for its field ${field}: what the record ` +
        'says is lost',
      envelope.todo,
    ),
  ];
}

async function unknownFindings(
  judged: Judged,
  rows: readonly Row[],
  { unknown, unfilled }: FieldReport,
  trial: RowTrial,
): Promise<Finding[]> {
  const { topic, table, rejectsUnknown } = judged;
  if (unknown.size === 0) return [];
  const names = [...unknown.keys()];
  const counts = listed(
    [...unknown].map(([name, count]) => (count === rows.length ? name : `${name} (in ${count} of ${rows.length})`)),
  );
  const then = rejectsUnknown ? consequence(judged) : 'ClickHouse passes over what they say';
  const detail = `${nameOf(table)} has no column for their fields ${counts}: ${then}`;
  const meant = names.map((name) => ({ name, column: likelyMeant(name, unfilled) }));
  const renames = meant.flatMap(({ name, column }) =>
    column !== undefined && isRenamable(column, table)
      ? [`RENAME COLUMN ${plainName(column.name)} TO ${plainName(name)}`]
      : [],
  );
  const others = meant
    .filter(({ column }) => column === undefined || !isRenamable(column, table))
    .map(({ name }) => name)
    .slice(0, SHOWN);
  const types = await typesOf(trial, rows, others);
  const adds = others.map((name) => `ADD COLUMN ${plainName(name)} ${types.get(name) ?? 'Nullable(String)'}`);
  const statements = [adds, renames]
    .filter(({ length }) => length > 0)
    .map((list) => `ALTER TABLE ${quoted(table)} ${list.join(', ')}`);
  const policy = rejectsUnknown
    ? ', or set onUnknownField to "ignore"'
    : ', or set onUnknownField to "poison" where no such record may pass';
  return [warning(what(topic), detail, `${statements.join('; ')}${policy}`)];
}

/** As the server would infer them; a field that it finds no type for goes into a String. */
async function typesOf(
  trial: RowTrial,
  rows: readonly Row[],
  names: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const types = new Map<string, string>();
  for (const name of names) {
    const lines = rows.filter((row) => Object.hasOwn(row, name)).map((row) => JSON.stringify({ [name]: row[name] }));
    const type = (await trial.types(Buffer.from(lines.join('\n'))))?.get(name);
    if (type !== undefined) types.set(name, type);
  }
  return types;
}

function unfilledFindings({ topic, table, sampled }: Judged, { unfilled, unknown }: FieldReport): Finding[] {
  if (unfilled.length === 0) return [];
  const detail =
    `none of ${sampled} has a field for the columns ${listed(unfilled.map(({ name }) => name))} of ` +
    `${nameOf(table)}: each row gets the default of their types there, such as 0 or ''`;
  const fixed = [...unknown.keys()].flatMap((name) => {
    const column = likelyMeant(name, unfilled);
    return column === undefined || isRenamable(column, table)
      ? []
      : [`${column.name}, which cannot be renamed here, may be meant by ${name}: a transform can rename the field`];
  });
  return [
    warning(
      what(topic),
      detail,
      ['name the columns as the fields are named, or let a transform make the fields', ...fixed].join('; '),
    ),
  ];
}

function generatedFindings({ topic, table, rejectsUnknown, ...judged }: Judged, { generated }: FieldReport): Finding[] {
  return generated.map(({ name, defaultKind }) => {
    const then = rejectsUnknown
      ? consequence({ topic, table, rejectsUnknown, ...judged })
      : 'ClickHouse passes over the field and makes the value itself';
    const todo =
      `ALTER TABLE ${quoted(table)} MODIFY COLUMN ${plainName(name)} REMOVE ${defaultKind}, if the ` +
      'field is to be stored; else leave it as it is';
    return warning(
      what(topic),
      `their field ${name} is a column of ${nameOf(table)} that is ${defaultKind}: ${then}`,
      todo,
    );
  });
}

function unparsedFindings(judged: Judged): Finding[] {
  const { topic, table, unparsed, areAllUnparsed } = judged;
  const todo = 'mend the producer or the type of the column, or let a transform make a value that fits';
  return unparsed.map(({ at, reason }) => {
    const detail =
      `ClickHouse cannot read the one at ${placeOf(topic, at)} into ${nameOf(table)}: ${reason}; ` +
      `${consequence(judged)}`;
    return areAllUnparsed ? refusal('KCR_POISON', what(topic), detail, todo) : warning(what(topic), detail, todo);
  });
}
