/**
 * The second line behind the check of values: does the server's own count of rows agree with what was sent?
 *
 * ClickHouse's answer to an insert counts the rows it has parsed, those of a duplicate too (`read_rows` of
 * `X-ClickHouse-Summary`). Materialized views add what they read. Were the counts ever different, a value would have
 * been read as no row, or as several, and every conclusion about the range would be wrong. Imports: errors.
 */
import { IngestError } from '../../errors.js';

/** `read_rows` of the header; undefined when it is missing or cannot be read, as behind some proxies. */
export function readRowsOf(summary: string | readonly string[] | undefined): number | undefined {
  if (typeof summary !== 'string') return undefined;
  try {
    const { read_rows: rows } = JSON.parse(summary) as { readonly read_rows?: unknown };
    const count = typeof rows === 'string' && /^\d{1,15}$/.test(rows) ? Number(rows) : rows;
    return typeof count === 'number' && Number.isSafeInteger(count) && count >= 0 ? count : undefined;
  } catch {
    return undefined;
  }
}

/** Where the rows were sent. */
export interface SentRows {
  readonly topic: string;
  readonly partition: number;
  readonly first: number;
  readonly last: number;
  readonly table: string;
}

/** What the table is asked when there are more rows than were sent. */
export interface ReadingViews {
  readonly table: object;
  /** Materialized views that read from it, as they were when the sink was opened. */
  readonly known: readonly unknown[];
  /** As they are now. */
  readonly look: () => Promise<readonly unknown[]>;
}

/** Tables that got a view since their sink was opened: they are not asked again for each insert. */
const gotViews = new WeakSet<object>();

/**
 * Throws `KCR_ROW_COUNT` when the server has read fewer rows than were sent, or more though no view reads along.
 * Without a count nothing is concluded, nor from a count of none: a server that counted nothing would have read no row
 * of objects that are known to be whole. Throws `KCR_INSERT_IN_DOUBT` when there are more and the server cannot be
 * asked why.
 */
export async function refuseOtherCount(
  read: number | undefined,
  sent: number,
  where: SentRows,
  views: ReadingViews,
): Promise<void> {
  if (read === undefined || read === 0 || read === sent) return;
  if (read > sent && (await hasViews(views, where))) return;
  throw new IngestError('KCR_ROW_COUNT', `ClickHouse read ${read} rows where ${sent} were sent`, {
    ...where,
    hint:
      'compare the rows of this range in the table with its records, and mend them by hand; then set what is ' +
      'settled with "kafka-clickhouse-rx state reset". ' +
      'A value was read as more or fewer rows than one, which is a defect: please report it with the records of the range',
  });
}

async function hasViews({ table, known, look }: ReadingViews, where: SentRows): Promise<boolean> {
  if (known.length > 0 || gotViews.has(table)) return true;
  const found = await look().catch((cause: unknown) => {
    throw new IngestError(
      'KCR_INSERT_IN_DOUBT',
      'ClickHouse read more rows than were sent, and whether a materialized view read along could not be asked',
      { ...where, cause },
    );
  });
  if (found.length > 0) gotViews.add(table);
  return found.length > 0;
}
