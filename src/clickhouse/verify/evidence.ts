/**
 * What a look into the table may conclude about a range, and whether its token can still be relied on, given what
 * the range recorded of its table and what the table is now. Pure; the simulated sink decides by it, too.
 *
 * A row that is not seen is missing only if it would be seen: the attempt wrote the columns by which it is looked for,
 * into this table, and they were not emptied since (I15). Imports: model.
 */
import type { Intent, TableRecord } from '../../model/state.js';

/** A table as it is now: what a range that is recorded now would say of it, and whether it remembers tokens. */
export interface TableNow extends TableRecord {
  /** Where tokens are kept: on the server's own disk, in Keeper, or nowhere. */
  readonly family: 'plain' | 'replicated' | 'none';
  /** False: its dedup window is 0. */
  readonly keepsTokens: boolean;
  /** When it was last seen without a dedup window, milliseconds since the epoch on this machine; undefined: never. */
  readonly forgotMs?: number | undefined;
  /** As `WindowReach` has them. */
  readonly heldSinceMs?: number;
  readonly movedOnMs?: number;
}

export type Evidence =
  /** What is seen is there, and what is not seen is not. */
  | { readonly kind: 'full' }
  /**
   * What is seen is there. What is not seen is missing if older rows of the partition are still seen by the columns.
   */
  | { readonly kind: 'witness'; readonly why: string }
  /** Nothing can be concluded from this table. */
  | { readonly kind: 'none'; readonly why: string }
  /** The attempts went into another table: nothing can be concluded, and nothing may be sent again. */
  | { readonly kind: 'elsewhere'; readonly why: string };

/** A doubt about a token. `mayTrust`: where looking shows nothing, the token is relied on all the same. */
export interface TableDoubt {
  readonly why: string;
  readonly mayTrust: boolean;
}

const letters = { t: '_topic', p: '_partition', o: '_offset' } as const;

/** `intent` of undefined: nothing was recorded, as of batches that promise nothing. */
export function evidenceOf(intent: Pick<Intent, 'written'> | undefined, now: TableNow): Evidence {
  const written = intent?.written;
  if (intent === undefined) return { kind: 'full' };
  if (written?.id !== undefined && now.id !== undefined && written.id !== now.id) {
    return {
      kind: 'elsewhere',
      why: `the range was recorded for the table ${written.id}, and under its name stands another one now, ${now.id}`,
    };
  }
  const gone = unwritten(now.columns);
  if (gone.length > 0)
    return { kind: 'none', why: `the table has no column ${gone.join(' and no column ')} that could be filled` };
  if (written === undefined)
    return { kind: 'witness', why: 'the range was recorded by a version that did not say which columns its rows have' };
  const never = unwritten(written.columns);
  if (never.length > 0)
    return {
      kind: 'none',
      why:
        `the rows of the range were sent without ${never.join(' and ')}: the table had no such column when the ` +
        'range was recorded',
    };
  if (typesOf(written.columns) !== typesOf(now.columns))
    return {
      kind: 'none',
      why: 'the columns _topic, _partition and _offset are of other types since the range was recorded',
    };
  return isAltered(written, now)
    ? { kind: 'witness', why: 'the table was altered since the range was recorded' }
    : { kind: 'full' };
}

/** The definition, or the values of the columns, may have been changed since. */
function isAltered(written: TableRecord, now: TableNow): boolean {
  return written.id !== now.id || written.alteredS !== now.alteredS || written.mutation !== now.mutation;
}

/** Did nothing that matters here change between two looks? */
export function isSameTable(one: TableNow, other: TableNow): boolean {
  if (
    isAltered(one, other) ||
    one.columns !== other.columns ||
    one.shape !== other.shape ||
    one.keepsTokens !== other.keepsTokens
  )
    return false;
  // While it has no window it forgets all the time.
  return !one.keepsTokens || one.forgotMs === other.forgotMs;
}

/**
 * Why the table may have forgotten what was sent under the token; undefined: nothing speaks for it. Of attempts that
 * may have landed.
 */
export function tableDoubt(intent: Pick<Intent, 'written' | 'atMs'>, now: TableNow): TableDoubt | undefined {
  const { written } = intent;
  const evidence = evidenceOf(intent, now);
  if (evidence.kind === 'elsewhere') return { why: evidence.why, mayTrust: false };
  if (!now.keepsTokens) return { why: 'the table keeps no dedup tokens: its dedup window is 0', mayTrust: false };
  if (now.forgotMs !== undefined && now.forgotMs >= intent.atMs) {
    return {
      why: 'the dedup window of the table was 0 since the range was recorded: its tokens are forgotten',
      mayTrust: false,
    };
  }
  const altered = alterationDoubt(written, now, evidence);
  const pushed = reachDoubt(intent, now);
  // One of them alone may forbid to rely on the token.
  return altered?.mayTrust === false ? altered : (pushed ?? altered);
}

function reachDoubt(
  { atMs }: Pick<Intent, 'atMs'>,
  { heldSinceMs = -Infinity, movedOnMs = -Infinity }: TableNow,
): TableDoubt | undefined {
  if (atMs >= heldSinceMs) return undefined;
  const why =
    'since the range was recorded so many blocks came into the table, of whatever writer, that its dedup window ' +
    'may have forgotten the token';
  // Merges hide how many it were: where that proves nothing, and neither does a look, the token is as good as before.
  return { why, mayTrust: atMs >= movedOnMs };
}

function alterationDoubt(written: Intent['written'], now: TableNow, { kind }: Evidence): TableDoubt | undefined {
  // An older version recorded nothing of the table: there is no telling, and its replays went by the token.
  if (written === undefined) return undefined;
  if (written.alteredS === undefined || now.alteredS === undefined) {
    // Some databases (Memory, Overlay) do not tell: the window may have been 0 for a moment, and nobody saw it.
    return kind === 'none'
      ? undefined
      : {
          why: 'the database does not tell when the table was altered last: its dedup window may have been 0 meanwhile',
          mayTrust: true,
        };
  }
  if (written.alteredS === now.alteredS) return undefined;
  // Each replica has a time of its own: of a replicated table another one proves nothing.
  if (now.family === 'plain' && written.shape === now.shape) {
    return {
      why:
        'the table was altered since the range was recorded, and has the same columns: its dedup window may ' +
        'have been 0 meanwhile',
      mayTrust: false,
    };
  }
  // Other columns, or another replica, explain it. Looking is better than trusting, where it can show something.
  return kind === 'none' ? undefined : { why: 'the table was altered since the range was recorded', mayTrust: true };
}

/** What is done where a look shows nothing. */
export type Unproven = 'settle' | 'send' | 'halt';

/**
 * | asked | the token | the server | then |
 * | --- | --- | --- | --- |
 * | after an attempt that was answered | is relied on | is the same run of itself since the range was recorded | settle: the server lost nothing |
 * | after an attempt that was answered | | was restarted, or may have been | halt: on a plain table it may have lost the rows and kept the token |
 * | before an attempt | may be relied on | | send: the token drops what is there |
 * | before an attempt | may be forgotten | | halt: it could be doubled |
 */
export function withoutEvidence(
  asked: 'before' | 'after',
  { mayTrust, isSameRun }: { readonly mayTrust: boolean; readonly isSameRun: boolean },
): Unproven {
  if (asked === 'before') return mayTrust ? 'send' : 'halt';
  return isSameRun ? 'settle' : 'halt';
}

/** Rows of so many offsets below the range are asked for. */
const WITNESS_OFFSETS = 100_000;
const LEAST_OFFSETS = 100;
/** One alone could be the default of a column that was emptied. */
export const WITNESSES = 2;

/**
 * Where to look for older rows: offsets that were settled when the range was recorded, so that their rows are older
 * than any alteration since. What was in doubt beside the range may have been inserted after it. Undefined: there are
 * none.
 *
 * Of a range that says nothing of its table the process that recorded it may have missed an alteration before, and sent
 * its last batches without the columns: the witness must be among the nearest.
 */
export function witnessRange({
  first,
  last,
  floor = first,
  written,
}: Pick<Intent, 'first' | 'last' | 'floor' | 'written'>):
  { readonly first: number; readonly last: number } | undefined {
  const offsets =
    written === undefined ? Math.min(WITNESS_OFFSETS, Math.max(LEAST_OFFSETS, last - first + 1)) : WITNESS_OFFSETS;
  // Offset 0 is what a row has that was there before the column.
  const from = Math.max(1, floor - offsets);
  return floor - from < WITNESSES ? undefined : { first: from, last: floor - 1 };
}

/** The columns without which rows cannot be looked for that a code of `TableRecord.columns` does not name. */
function unwritten(columns: string): string[] {
  const [written = ''] = columns.split('-');
  return Object.entries(letters).flatMap(([letter, name]) => (written.includes(letter) ? [] : [name]));
}

function typesOf(columns: string): string | undefined {
  return columns.split('-')[1];
}
