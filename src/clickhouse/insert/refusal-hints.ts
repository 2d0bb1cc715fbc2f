/**
 * What to do about an insert that was refused, by the server's code. Pure. Imports: nothing.
 */

export function retriableHint(code: number | undefined): string | undefined {
  return code === 60 || code === 81 || code === 218
    ? 'bring the table back (ATTACH, UNDROP, RENAME); it is tried again until then'
    : undefined;
}

/** A field without a column is an error only where a person said so. */
export function poisonHint(reason: string): string | undefined {
  return reason.startsWith('Unknown field found while parsing')
    ? 'ALTER TABLE … ADD COLUMN for the field, or set onUnknownField to "ignore"'
    : undefined;
}

/** Without a code of ClickHouse's something on the way has answered. */
export function foreignHint(code: number | undefined): string | undefined {
  return code === undefined
    ? 'the answer is not ClickHouse’s own: check the url, and the proxies on the way'
    : undefined;
}

export function fatalHint(code: number | undefined): string | undefined {
  if (code === 252)
    return (
      'the batch spreads over too many ClickHouse partitions: coarsen PARTITION BY, make batches smaller, or ' +
      'raise max_partitions_per_insert_block'
    );
  if (code === 497) return 'GRANT INSERT on the table to the user';
  if (code === 516 || code === 194) return 'check username and password';
  if (code === 164 || code === 452) return 'the user’s profile forbids a setting that exactly-once needs';
  return undefined;
}
