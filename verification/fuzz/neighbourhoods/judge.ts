// Which records must be rows, and which must be left out: by JSON.parse, by what the server says of each value alone,
// and by nothing of the product.
import { escaped } from '../shrink.js';
import { expected } from '../values/oracle.js';
import { linesOf, restOf, type Row, type Verdict } from './probes.js';
import type { FuzzRecord } from './records.js';
import type { Ingested } from './subject.js';
import { provenanceNames, type FuzzTable } from './tables.js';

/** A row as it stands in the table. */
export interface StoredRow extends Row {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** Milliseconds and key, where the table has columns for them. */
  readonly timestampMs: number | undefined;
  readonly key: string | null | undefined;
}

export interface Neighbourhood {
  readonly table: FuzzTable;
  readonly topic: string;
  readonly partition: number;
  readonly batches: readonly (readonly FuzzRecord[])[];
}

/** What stands in a SELECT, and how its lines are read. */
export function storedColumns({ more, read }: FuzzTable): string {
  return `_topic, _partition, _offset, n, ${more === '' ? '0, NULL' : 'toUnixTimestamp64Milli(_timestamp), hex(_key)'}, ${read}`;
}

export function storedRows(table: FuzzTable, body: Buffer): StoredRow[] {
  return linesOf(body).map((line) => {
    const [topic, partition, offset, n, timestampMs, key] = JSON.parse(line) as [
      string,
      number,
      number | string,
      number,
      number | string,
      string | null,
    ];
    const isFull = table.more !== '';
    return {
      topic,
      partition,
      offset: Number(offset),
      n,
      timestampMs: isFull ? Number(timestampMs) : undefined,
      key: isFull ? key : undefined,
      v: restOf(line, 6),
    };
  });
}

/** What is wrong; undefined: nothing. */
export function faultOf(
  one: Neighbourhood,
  { excluded, error }: Ingested,
  rows: readonly StoredRow[],
  verdictOf: (record: FuzzRecord) => Verdict,
): string | undefined {
  const records = one.batches.flat();
  const judged = records.map((record) => ({ record, ...judge(record, one.table, verdictOf) }));
  const strange = judged.find(({ row, verdict }) => row === undefined && verdict.rows.length > 1);
  if (error !== undefined) {
    const only = judged.find(({ isServerOnly }) => isServerOnly);
    const why =
      only === undefined ? '' : ` although a record alone is refused by the server with code ${only.verdict.code}`;
    return `the partition stops with ${error.code}${why}`;
  }
  for (const { record, row, why } of judged) {
    const isExcluded = excluded.includes(record.offset);
    if (row !== undefined && isExcluded) return 'a good record is left out';
    if (row === undefined && !isExcluded) return `a record is not left out although ${why}`;
    const found = rows.filter(({ offset }) => offset === record.offset);
    if (row === undefined && found.length > 0) return 'a record is left out and in the table';
    if (row === undefined) continue;
    if (found.length === 0)
      return `a good record is not in the table${strange === undefined ? '' : ' (beside one that is several rows)'}`;
    if (found.length > 1) return 'a record is in the table more than once';
    const wrong = difference(found[0]!, row, record, one);
    if (wrong !== undefined) return wrong;
    if (!one.table.isReadable(found[0]!.v)) return 'a value is stored that the server itself cannot read';
  }
  if (excluded.length !== new Set(excluded).size) return 'a record is left out twice';
  return rows.length > judged.filter(({ row }) => row !== undefined).length
    ? 'there are rows under offsets that no record has'
    : undefined;
}

interface Judged {
  /** Undefined: it must be left out. */
  readonly row: Row | undefined;
  readonly why: string;
  readonly verdict: Verdict;
  /** Nothing but the server refuses it. */
  readonly isServerOnly: boolean;
}

const unasked: Verdict = { rows: [], code: undefined };

function judge(record: FuzzRecord, table: FuzzTable, verdictOf: (record: FuzzRecord) => Verdict): Judged {
  const should = expected(record.value, provenanceNames(table));
  if (should.kind === 'refused') return { row: undefined, why: should.why, verdict: unasked, isServerOnly: false };
  const verdict = verdictOf(record);
  const [alone] = verdict.rows;
  // A null for an Enum without a 0: it is taken, and from then on no SELECT of the column succeeds.
  if (alone !== undefined && verdict.rows.length === 1 && !table.isReadable(alone.v))
    return {
      row: undefined,
      why: `alone it is stored as ${alone.v}, which the server cannot read`,
      verdict,
      isServerOnly: false,
    };
  if (verdict.rows.length === 1) return { row: alone, why: '', verdict, isServerOnly: false };
  if (verdict.rows.length === 0)
    return {
      row: undefined,
      why: `the server refuses it alone with code ${verdict.code}`,
      verdict,
      isServerOnly: true,
    };
  return { row: undefined, why: `by itself it is ${verdict.rows.length} rows`, verdict, isServerOnly: false };
}

/** Must a value be asked about? */
export function needsVerdict(record: FuzzRecord, table: FuzzTable): boolean {
  return expected(record.value, provenanceNames(table)).kind === 'taken';
}

function difference(
  found: StoredRow,
  row: Row,
  record: FuzzRecord,
  { topic, partition, table }: Neighbourhood,
): string | undefined {
  if (found.topic !== topic || found.partition !== partition) return 'a row has the provenance of another record';
  if (found.n !== row.n || (found.v !== row.v && table.isReadAlone))
    return `a row differs from what its record is alone: ${JSON.stringify(`${found.n},${found.v}`)} ${JSON.stringify(`${row.n},${row.v}`)}`;
  if (table.more === '') return undefined;
  if (found.timestampMs !== record.timestampMs) return 'a row has another time than its record';
  return found.key === (record.key === null ? null : record.key.toString('hex').toUpperCase())
    ? undefined
    : 'a row has another key than its record';
}

export function inputOf({ table, batches }: Neighbourhood, error: Ingested['error']): string {
  const lines = batches.map((records) =>
    records.map(({ offset, value }) => `${offset}: ${escaped(value)}`).join('\n    '),
  );
  return `${table.type}${error === undefined ? '' : `\n    ${error.detail}`}\n    ${lines.join('\n    (next batch)\n    ')}`;
}
