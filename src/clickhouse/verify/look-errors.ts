/**
 * What a look into the table may end with, in words. Pure. Imports: clickhouse/schema, errors, model, ports.
 */
import { IngestError } from '../../errors.js';
import { placeOf } from '../../model/batch.js';
import type { InsertBatch } from '../../ports.js';
import type { PartialRecord } from './compare-rows.js';
import { plainTable, type TableName } from '../schema/table.js';

export const BY_HAND = 'look the range up by hand, then set what is settled with "kafka-clickhouse-rx state reset"';

export interface Where {
  readonly topic: string;
  readonly partition: number;
  readonly first: number;
  readonly last: number;
  readonly table: string;
}

export function whereOf(batch: InsertBatch, { database, table }: TableName): Where {
  return { ...placeOf(batch), table: `${database}.${table}` };
}

export function unreadable(error: unknown, where: Where): unknown {
  if (!(error instanceof IngestError) || error.retryable) return error;
  const { serverCode } = error.fields;
  return new IngestError('KCR_READ_BACK', `the range could not be read back: ${error.reason}`, {
    ...where,
    serverCode,
    hint: serverCode === 497 ? 'GRANT SELECT on the table to the user, then start again' : undefined,
    cause: error,
  });
}

export function partialRecord({ offset, rows, expected }: PartialRecord, where: Where): IngestError {
  return new IngestError(
    'KCR_READ_BACK',
    `of one record ${rows} of ${expected} rows are in the table, and which ones cannot be told`,
    {
      ...where,
      offset,
      hint: 'delete the rows of this offset by hand, then start again: the rest is done by itself',
    },
  );
}

export function elsewhere(why: string, where: Where, { database, table }: TableName): IngestError {
  const name = plainTable(database, table);
  return new IngestError(
    'KCR_READ_BACK',
    `the range in doubt is not sent again: ${why} (exchanged, or dropped and created again)`,
    {
      ...where,
      hint:
        `bring the table it was recorded for back under the name ${name} (EXCHANGE TABLES, RENAME TABLE, ` +
        'UNDROP TABLE), let "kafka-clickhouse-rx drain" resolve what is in doubt, then exchange ' +
        `it; or ${BY_HAND}`,
    },
  );
}

/** `present` of so many `offsets` are in the table, and its views are fed after it. */
export function viewsUnverifiable(
  asked: string,
  { present, offsets }: { readonly present: number; readonly offsets: number },
  views: readonly TableName[],
  where: Where,
): IngestError {
  return new IngestError(
    'KCR_READ_BACK',
    `the range is not sent again, since it could double: ${asked}; of its ${offsets} offsets ${present} are in ` +
      `the table, and whether the materialized views ${nameAll(views)} have them cannot be verified`,
    {
      ...where,
      hint:
        'compare what the views wrote with the range, mend it by hand, then set what is settled with ' +
        '"kafka-clickhouse-rx state reset"',
    },
  );
}

export function doublingInViews(missing: readonly number[], views: readonly TableName[], where: Where): IngestError {
  return new IngestError(
    'KCR_READ_BACK',
    `${missing.length} offsets are missing, but inserting them would double them in the materialized views ` +
      `${nameAll(views)}`,
    {
      ...where,
      offset: missing[0],
      hint:
        'insert them into a copy of the table and ATTACH PARTITION … FROM it, which does not feed views; then ' +
        'start again',
    },
  );
}

function nameAll(tables: readonly TableName[]): string {
  return tables.map(({ database, table }) => `${database}.${table}`).join(', ');
}
