/**
 * A partition's state set to another offset by a person: what it means, and doing it. The first half is pure.
 * Imports: errors, model, stores.
 */
import { IngestError } from '../errors.js';
import { restartedAt } from '../model/compare-with-log.js';
import { emptyState, lastKnownOffset, resumeOffset, type Intent, type PartitionState } from '../model/state.js';
import type { StateAccess } from '../stores/stores.js';
import type { PartitionStatus } from './status.js';

export type ResetTarget =
  { readonly kind: 'beginning' | 'end' | 'committed' } | { readonly kind: 'offset'; readonly offset: number };

/** Both ends are included. */
export interface OffsetRange {
  readonly first: number;
  readonly last: number;
}

/** What a reset does to rows. Offsets, not records: transactions and compaction leave holes. */
export interface ResetMeaning {
  /** Ranges in doubt that nobody will resolve any more. */
  readonly forgotten: readonly Intent[];
  /** Settled, and ingested once more: their rows are in the table twice. */
  readonly twice: OffsetRange | undefined;
  /** In doubt, and ingested once more: twice in the table if their insert landed. */
  readonly perhapsTwice: OffsetRange | undefined;
  /** Never ingested. */
  readonly skipped: OffsetRange | undefined;
  /** In doubt, and not ingested any more: in the table only if their insert landed. */
  readonly perhapsLost: OffsetRange | undefined;
}

export interface ResetPlan extends ResetMeaning {
  readonly at: PartitionStatus;
  /** The offset that comes next. */
  readonly to: number;
  readonly before: PartitionState;
  readonly after: PartitionState;
  /** Who wrote the state last, and loses the partition if it still runs. */
  readonly owner: string | undefined;
}

/** @throws `KCR_OFFSET_RANGE` for an offset that the log does not hold, `KCR_CONFIG` where nothing is committed. */
export function planReset(
  at: PartitionStatus,
  target: ResetTarget,
  before: PartitionState = at.stored?.state ?? emptyState,
): ResetPlan {
  const to = offsetOf(at, target);
  // No topic id: the next claim learns it, also where the topic was recreated since.
  const after = restartedAt(to, before, undefined);
  return { at, to, before, after, owner: at.stored?.owner, ...meaningOf(before, at.committed, to) };
}

function offsetOf(at: PartitionStatus, target: ResetTarget): number {
  const { topic, partition, logStart, logEnd, committed } = at;
  const to = {
    beginning: logStart,
    end: logEnd,
    committed,
    offset: target.kind === 'offset' ? target.offset : undefined,
  }[target.kind];
  if (to === undefined) {
    throw new IngestError('KCR_CONFIG', `The group ${at.key.group} has committed nothing for the partition`, {
      topic,
      partition,
      hint: 'take --to-beginning, --to-end or --to-offset',
    });
  }
  if (to >= logStart && to <= logEnd) return to;
  throw new IngestError(
    'KCR_OFFSET_RANGE',
    `Offset ${to} is outside of the log, which begins at ${logStart} and whose next record will be ${logEnd}`,
    {
      topic,
      partition,
      offset: to,
      hint: `take an offset from ${logStart} to ${logEnd}`,
    },
  );
}

/** `committed` speaks where the state does not: a partition without a state goes on there. */
export function meaningOf(before: PartitionState, committed: number | undefined, to: number): ResetMeaning {
  const settledEnd = resumeOffset(before) ?? committed;
  const known = lastKnownOffset(before);
  const doubtEnd = before.pending.length === 0 || known === undefined ? settledEnd : known + 1;
  return {
    forgotten: before.pending,
    twice: range(to, settledEnd),
    perhapsTwice: range(Math.max(to, settledEnd ?? Infinity), doubtEnd),
    perhapsLost: range(settledEnd, Math.min(to, doubtEnd ?? -Infinity)),
    skipped: range(doubtEnd, to),
  };
}

/** From `first` up to `end`, which is not included; undefined when it is empty or an end is not known. */
function range(first: number | undefined, end: number | undefined): OffsetRange | undefined {
  return first === undefined || end === undefined || first >= end || end === Infinity
    ? undefined
    : { first, last: end - 1 };
}

/**
 * Plans on what the claim found and writes that: nothing changes underneath. Gives the plan that was carried out.
 *
 * Dying in between: after the claim a process that runs is fenced and claims again, and the state is as before; after
 * the write the partition goes on at the new offset.
 */
export async function applyReset(
  access: StateAccess,
  at: PartitionStatus,
  target: ResetTarget,
  owner: string,
): Promise<ResetPlan> {
  let plan: ResetPlan | undefined;
  await access.replace(at, owner, (found) => (plan = planReset(at, target, found)).after);
  return plan ?? planReset(at, target);
}
