/**
 * A helper of insertDeduped: whatever is changed about a range in doubt is recorded before anything goes out under it.
 * Imports: model, ports, rxjs.
 */
import { defer, last, map, of, type Observable } from 'rxjs';
import { bytesOf, indexAfter } from '../../src/model/batch.js';
import type { Intent } from '../../src/model/state.js';
import type { InsertBatch } from '../../src/ports.js';
import type { Stage } from './batch-attempt.js';

/** Records the range again, without `offsets` and from now on; emits the batch under what is stored then. */
export function record(
  batch: InsertBatch,
  offsets: readonly number[],
  { sink, ledger, scheduler }: Stage,
): Observable<InsertBatch> {
  const { intent, assignment } = batch;
  if (intent === undefined || ledger === undefined) return of(batch);
  return defer(() => {
    const renewed: Intent = { ...intent, ...sink.describe?.(assignment.topic), atMs: scheduler.now() };
    return ledger.exclude(renewed, offsets).pipe(
      last(),
      map((stored) => ({ ...batch, intent: stored, token: ledger.token(stored) })),
    );
  });
}

/** The batch cut behind each of `cuts`, still under its own intent. */
export function partsOf(batch: InsertBatch, cuts: readonly number[]): readonly InsertBatch[] {
  return [...cuts, batch.lastOffset].map((lastOffset, at): InsertBatch => {
    const afterOffset = at === 0 ? batch.afterOffset : cuts[at - 1]!;
    const records = batch.records.slice(indexAfter(batch.records, afterOffset), indexAfter(batch.records, lastOffset));
    return { ...batch, afterOffset, lastOffset, records, bytes: bytesOf(records) };
  });
}

/** Cuts the batch behind each of `cuts`, and has the parts recorded before any of them is inserted. */
export function recut(
  batch: InsertBatch,
  cuts: readonly number[],
  { sink, ledger, scheduler }: Stage,
): Observable<readonly InsertBatch[]> {
  const { assignment, intent } = batch;
  const parts = partsOf(batch, cuts).map((part): InsertBatch => ({ ...part, replay: false }));
  if (intent === undefined || ledger === undefined) return of(parts);
  return defer(() => {
    const target = sink.describe?.(assignment.topic);
    const intents = parts.map((part): Intent => partOf(part, { ...intent, ...target, atMs: scheduler.now() }));
    return ledger.recut(intents).pipe(
      last(),
      map((stored) => parts.map((part, at) => ({ ...part, intent: stored[at], token: ledger.token(stored[at]!) }))),
    );
  });
}

/** Whatever was known of attempts under the whole's token is not known of the part's. */
function partOf(
  { afterOffset, lastOffset }: InsertBatch,
  {
    first,
    rows,
    atMs,
    settings,
    tables,
    written,
    floor = first,
    excluded,
    transformVersion,
    isUnseen,
    unknownUntilMs,
  }: Intent,
): Intent {
  const ownFirst = afterOffset + 1;
  return {
    first: ownFirst,
    last: lastOffset,
    atMs,
    settings,
    tables,
    tokenForm: 2,
    rows: Math.min(rows, lastOffset - afterOffset),
    excluded: excluded.filter((offset) => offset >= ownFirst && offset <= lastOffset),
    ...(written === undefined ? {} : { written }),
    ...(transformVersion === undefined ? {} : { transformVersion }),
    ...(isUnseen === true ? { isUnseen } : {}),
    ...(unknownUntilMs === undefined ? {} : { unknownUntilMs }),
    ...(floor === ownFirst ? {} : { floor }),
  };
}

export function without(batch: InsertBatch, offset: number): InsertBatch {
  const records = batch.records.filter((one) => one.offset !== offset);
  return { ...batch, records, bytes: bytesOf(records) };
}
