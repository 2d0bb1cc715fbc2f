/**
 * Whether a refusal is the record's, or that of whoever altered the table: asked of the server, which
 * reads the refused rows as the table is, and as it was when it took rows last. Inserts nothing, uses no token.
 *
 * A record that the table would not have taken before is at fault itself, whatever was altered. So is one among others
 * that the table takes now. What is left is an alteration after which it takes none of the rows that it took before.
 * Imports: clickhouse/client, clickhouse/insert, clickhouse/verify, errors, model.
 */
import { IngestError } from '../../errors.js';
import type { Records } from '../../model/record.js';
import type { ClickHouseWire } from '../client/http.js';
import type { Where } from '../verify/look-errors.js';
import { querySizeOf, rowsAsTable, rowsOf, structureOf, typesAllowed } from '../insert/row-trial.js';
import type { Settings } from '../insert/settings.js';
import type { Table } from './table.js';
import type { WatchedTable } from './watched-table.js';

/** Of a batch these are asked about; a record is at most as large as Kafka lets it be. */
const SAMPLED_ROWS = 50;
const SAMPLED_BYTES = 1024 * 1024;

export interface Asking {
  readonly http: ClickHouseWire;
  readonly target: WatchedTable;
  /** Of an insert without a token. */
  readonly settings: Settings;
  readonly signal: AbortSignal;
}

export interface Refused {
  readonly records: Records;
  /** As the table was known when the rows were sent. */
  readonly sentInto: Table;
  readonly where: Where;
}

/**
 * What is to be said instead of `poison`: it itself, `KCR_SCHEMA`, or that it is not known yet and has to be tried
 * again. Whatever it is, it keeps what may have landed.
 */
export async function orAltered(poison: IngestError, asking: Asking, refused: Refused): Promise<IngestError> {
  const { serverCode, mayHaveLanded, offset } = poison.fields;
  const fields = { ...refused.where, serverCode, mayHaveLanded };
  try {
    if (!(await isAlterationAtFault(asking, refused, offset))) return poison;
    return new IngestError(
      'KCR_SCHEMA',
      `the table was altered, and takes none of the rows that it took before: ${poison.reason}`,
      {
        ...fields,
        cause: poison,
        hint:
          'alter the column back, or to a type that takes the values: it is tried again until then. If the ' +
          'records are at fault and not the table, start again: records are then judged by the ' +
          'table as it is',
      },
    );
  } catch (thrown) {
    if (!(thrown instanceof IngestError)) throw thrown;
    const what =
      `${poison.reason}; and whether the record or an alteration of the table is at fault is not ` +
      `known: ${thrown.reason}`;
    return new IngestError('KCR_INSERT_RETRIABLE', what, { ...fields, hint: thrown.fields.hint, cause: thrown });
  }
}

/**
 * `offset`: of the record that the server names; undefined: it names none. @throws an `IngestError`: it could not be
 * asked now.
 */
async function isAlterationAtFault(
  asking: Asking,
  { records, sentInto, where: { topic, partition } }: Refused,
  offset: number | undefined,
): Promise<boolean> {
  const { target } = asking;
  await target.refresh();
  // Which of the two has refused the rows is not known: it may be as before again.
  if (!target.isStill(sentInto))
    throw new IngestError(
      'KCR_INSERT_RETRIABLE',
      'it was altered since it was looked at last, and is asked again as it is now',
    );
  if (!target.isOtherThanTaken) return false;
  const { table, taken } = target;
  const named = offset === undefined ? [] : records.filter((record) => record.offset === offset);
  const sample = [...named, ...sampleOf(records)];
  const types = await typesAllowed(asking.http, asking.signal);
  const readable = (as: Table, some: Records): Promise<number> =>
    readableRows(asking, as, rowsOf(some, as.provenance, topic, partition), types);
  if ((await readable(table, sample)) > 0) return false;
  return (await readable(taken, named.length > 0 ? named : sample)) > 0;
}

/** From all of the batch, evenly. */
function sampleOf(records: Records): Records {
  const every = Math.max(1, Math.ceil(records.length / SAMPLED_ROWS));
  let bytes = 0;
  return records.filter(({ value }, index) => {
    const size = value?.length ?? 0;
    if (index % every !== 0 || bytes + size > SAMPLED_BYTES) return false;
    bytes += size;
    return true;
  });
}

/** None where the server refuses the question itself, as for a right that the user has not: then nothing was proved. */
async function readableRows(
  { http, settings, signal }: Asking,
  as: Table,
  rows: Buffer,
  types: Settings,
): Promise<number> {
  const sql = `SELECT count(ignore(*)) AS n FROM ${rowsAsTable(structureOf(as), rows).toString()}`;
  try {
    const [row] = await http.select<{ n: string | number }>(sql, {}, signal, {
      ...settings,
      ...types,
      input_format_allow_errors_ratio: '1',
      max_query_size: querySizeOf(rows),
    });
    return Number(row?.n ?? 0);
  } catch (thrown) {
    if (thrown instanceof IngestError && thrown.code === 'KCR_PREFLIGHT') return 0;
    throw thrown;
  }
}
