/**
 * What the mode `coalesced` asks of a server, and why. Pure.
 *
 * Asynchronous inserts have had tokens since 23.7, but until 26.7 a token could be lost or noted where it does not
 * belong when several inserts were written together. From ClickHouse's pull requests and issues:
 *
 * - 26.2 (#95409, #97562): sync and async inserts share the key of a token from then on, and alone do so since 26.7
 *   (#107886);
 * - 26.1 (#89140, #93957): tokens count in materialized views also when inserts are written together;
 * - #110604, 26.2 to 26.6.1: an insert into several ClickHouse partitions fails when one of those it is written with is
 *   known;
 * - #111031, up to 26.7.1: each token is noted for every ClickHouse partition that any of them has rows in, and rows
 *   that
 *   come there under it later are lost.
 *
 * The last was mended in later builds of 26.3 to 26.6, too (26.3.17.65, 26.4.5.151, 26.5.6.63, 26.6.2.98), which were
 * not tried; what was tried is 26.7.2. Imports: errors.
 */
import { IngestError } from '../../errors.js';

/** The first release that was tried and found to keep tokens of inserts that are written together. */
export const OLDEST_ASYNC_INSERT = [26, 7, 2] as const;

/** Why a server of this version cannot be used with the mode `coalesced`; undefined: it can. */
export function asyncInsertFault(version: string): { readonly detail: string; readonly todo: string } | undefined {
  if (!isBefore(version, OLDEST_ASYNC_INSERT)) return undefined;
  const oldest = OLDEST_ASYNC_INSERT.join('.');
  return {
    detail:
      `ClickHouse ${version} may lose or double rows of inserts that it writes together (ClickHouse issues ` +
      `110604, 111031): the insert mode "coalesced" needs ${oldest} or later`,
    todo:
      `upgrade the server to ${oldest}, or take out \`insertMode\` and make parts fewer by a larger ` +
      'batch.maxWaitMs',
  };
}

/** Compares as many places as `release` has; a version that cannot be read is older than any. */
export function isBefore(version: string, release: readonly number[]): boolean {
  const parts = version.split('.').map(Number);
  for (const [place, least] of release.entries()) {
    const part = parts[place] ?? 0;
    if (part !== least) return !(part > least);
  }
  return false;
}

/**
 * What became of an insert that was refused together with others: the server tells each of them of the one that failed,
 * with a row counted over all, and a record of ours must not be blamed for that.
 *
 * - `ask alone`: nothing is known of this insert; made again by itself, at once, it gets an answer of its own.
 * - `next alone`: it may have landed, as one of the answers in doubt; the next attempt goes by itself.
 * - `stay`: what was refused is not the insert but the moment.
 */
export function afterRefusal(error: unknown): 'ask alone' | 'next alone' | 'stay' {
  if (!(error instanceof IngestError) || error.fields.serverCode === undefined) return 'stay';
  switch (error.code) {
    case 'KCR_POISON':
    case 'KCR_SCHEMA':
    case 'KCR_INSERT_FATAL':
      return 'ask alone';
    case 'KCR_INSERT_IN_DOUBT':
      return error.fields.serverCode === QUERY_IS_RUNNING ? 'stay' : 'next alone';
    default:
      return 'stay';
  }
}

/** An earlier attempt of the same insert still waits. */
const QUERY_IS_RUNNING = 216;

/**
 * What the first of two attempts has left in the table is there whatever became of the second, which may not even have
 * been sent.
 */
export function asAfter(first: unknown, second: unknown): unknown {
  const hasLanded = first instanceof IngestError && first.fields.mayHaveLanded === true;
  return hasLanded && second instanceof IngestError ? second.with({ mayHaveLanded: true }) : second;
}
