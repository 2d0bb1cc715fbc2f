/**
 * What a user of few rights is not shown: system tables, or columns of them. Pure. Imports: errors.
 */
import { hasCode } from '../../errors.js';

/** None where the user may not see them, or where the server has no such table. Whatever else goes wrong is thrown. */
export function ifAllowed<Row>(rows: Promise<readonly Row[]>): Promise<readonly Row[]> {
  return rows.catch((error: unknown) => {
    if (hasCode(error, 'KCR_PREFLIGHT', 'KCR_TABLE_MISSING')) return [];
    throw error;
  });
}
