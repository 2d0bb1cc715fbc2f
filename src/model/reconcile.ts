/**
 * The decision at the heart of exactly-once: what becomes of records that arrive, given what is settled and what
 * is in doubt. Imports: nothing.
 */
import { bytesOf, joinBatches, splitBatch } from './batch.js';
import type { Batch, KafkaRecord } from './record.js';
import { resumeOffset, type Intent, type PartitionState } from './state.js';

/** How far one assignment of a partition has got. Made from the stored state at the claim, never stored itself. */
export interface Progress {
  /** The next offset to come; undefined: whatever comes first. */
  readonly next: number | undefined;
  /** Ranges in doubt at the claim that were not emitted again yet, ascending. */
  readonly replays: readonly Intent[];
  /** Parts of `replays[0]` that arrived before its end. Contiguous. */
  readonly held: readonly Batch[];
  /** The source was asked to seek to `next`: what lies beyond it was read before and will come again. */
  readonly sought: boolean;
}

export type Decision =
  /** Settled long ago: to be committed, not inserted. */
  | { readonly kind: 'skip'; readonly batch: Batch }
  /**
   * In doubt: to be inserted as exactly `intent`, under its recorded token; `excluded` are the records it is without.
   */
  | {
      readonly kind: 'replay';
      readonly intent: Intent;
      readonly batch: Batch;
      readonly excluded: readonly KafkaRecord[];
    }
  /** Never seen: to be recorded, then inserted. */
  | { readonly kind: 'insert'; readonly batch: Batch }
  /** Offsets `[expected, found)` did not come and will not come: retention or truncation took them. */
  | { readonly kind: 'gap'; readonly expected: number; readonly found: number };

export interface Reconciled {
  readonly decisions: readonly Decision[];
  readonly progress: Progress;
}

/** `sought` says whether the source was told to go to where the state resumes. */
export function beginProgress(state: PartitionState, sought: boolean): Progress {
  return { next: resumeOffset(state), replays: state.pending, held: [], sought };
}

/**
 * Decides on one batch. Batches of an assignment arrive in the order of their offsets; each covers `(afterOffset,
 * lastOffset]`.
 *
 * | the batch | decision |
 * | --- | --- |
 * | lies before `next` | skip, but for what is held: that is dropped |
 * | begins before `next` | its head is skipped, its tail goes on |
 * | ends inside a range in doubt | held: no decision until the range's end was seen |
 * | reaches or passes the end of a range in doubt | replay of exactly that range; the rest goes on |
 * | is beyond everything | insert |
 * | begins beyond `next` | gap, unless a seek is under way; then the range is taken to begin at `next`, so that ranges stay contiguous |
 */
export function reconcile(progress: Progress, batch: Batch): Reconciled {
  const next = progress.next ?? batch.afterOffset + 1;
  const isAhead = batch.afterOffset + 1 > next;
  if (isAhead && progress.sought) return { decisions: [], progress };

  const decisions: Decision[] = [];
  let rest: Batch | undefined = batch;
  if (isAhead) {
    decisions.push({ kind: 'gap', expected: next, found: batch.afterOffset + 1 });
    rest = { ...batch, afterOffset: next - 1 };
  } else {
    // What is held was not decided on: when it comes again (a seek) it is dropped, since it is neither settled nor new.
    const decided = progress.held[0]?.afterOffset ?? next - 1;
    const [old] = splitBatch(batch, decided);
    if (old !== undefined) decisions.push({ kind: 'skip', batch: old });
    [, rest] = splitBatch(batch, next - 1);
  }
  const sought = progress.sought && rest === undefined;

  const replays = [...progress.replays];
  let held = progress.held;
  while (rest !== undefined && replays.length > 0) {
    const intent = replays[0]!;
    if (rest.lastOffset < intent.last) {
      held = [...held, rest];
      return { decisions, progress: { next: rest.lastOffset + 1, replays, held, sought } };
    }
    const [end, beyond]: [Batch | undefined, Batch | undefined] = splitBatch(rest, intent.last);
    decisions.push({ kind: 'replay', intent, ...without(joinBatches([...held, end!]), intent.excluded) });
    replays.shift();
    held = [];
    rest = beyond;
  }
  if (rest !== undefined) decisions.push({ kind: 'insert', batch: rest });
  return { decisions, progress: { next: Math.max(next, batch.lastOffset + 1), replays, held, sought } };
}

function without(
  batch: Batch,
  offsets: readonly number[],
): { readonly batch: Batch; readonly excluded: readonly KafkaRecord[] } {
  if (offsets.length === 0) return { batch, excluded: [] };
  const gone = new Set(offsets);
  const records = batch.records.filter(({ offset }) => !gone.has(offset));
  return {
    batch: { ...batch, records, bytes: bytesOf(records) },
    excluded: [...batch.records.filter(({ offset }) => gone.has(offset))],
  };
}
