/**
 * May a recorded range be sent again under its token, or could the server have forgotten it? Pure.
 * Imports: clickhouse/verify, model.
 */
import type { Intent } from '../../model/state.js';
import { type TableDoubt, tableDoubt, type TableNow } from '../verify/evidence.js';
import { parseFingerprint, type ServerIdentity } from './settings.js';

/** How long a token is relied on, where nothing says less. */
export const DEDUP_BUDGET_MS = 600_000;

/** What a token is judged by. */
export interface Known {
  readonly budgetMs: number;
  readonly server: ServerIdentity;
  /** Fingerprint of the pinned settings. */
  readonly settings: string;
}

/**
 * At most half of the time for which the server keeps tokens: clocks differ, and an insert takes its time.
 * `windowSeconds` of undefined: the tokens of the table do not grow old, or the user may not see how soon they do.
 */
export function budgetWithin(wantedMs: number, windowSeconds: number | undefined): number {
  return windowSeconds === undefined ? wantedMs : Math.min(wantedMs, (windowSeconds * 1000) / 2);
}

/** Why the table must be asked before the range is sent; undefined: the token tells. */
export function tokenDoubt(
  { atMs, settings, token }: Pick<Intent, 'atMs' | 'settings' | 'token'>,
  known: Known,
  nowMs: number,
): string | undefined {
  const ageMs = nowMs - atMs;
  if (Math.abs(ageMs) > known.budgetMs) {
    const when = ageMs > 0 ? `${duration(ageMs)} ago` : `${duration(-ageMs)} ahead of this machine's clock`;
    return `the range was recorded ${when}, and its token is relied on for ${duration(known.budgetMs)}`;
  }
  const recorded = parseFingerprint(settings);
  if (recorded === undefined) {
    // Of a range that another program recorded only its age is known.
    return token === undefined
      ? 'what was recorded with the range does not name the server it was recorded for'
      : undefined;
  }
  const { version } = known.server;
  if (recorded.version !== version)
    return (
      `the range was recorded for ClickHouse ${recorded.version}, and the server is ${version} now, which ` +
      'may not know its token'
    );
  if (recorded.settings !== known.settings)
    return 'the range was recorded for other insert settings, with which it may have been cut into other blocks';
  return undefined;
}

/** As `tokenDoubt`, and of a range of which an attempt may have landed also what its table says: `attempted`. */
export function sendingDoubt(
  intent: Intent,
  known: Known,
  nowMs: number,
  attempted: TableNow | undefined,
): TableDoubt | undefined {
  const why = tokenDoubt(intent, known, nowMs);
  if (why !== undefined) return { why, mayTrust: false };
  return attempted === undefined ? undefined : tableDoubt(intent, attempted);
}

function duration(ms: number): string {
  return ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} minutes`;
}
