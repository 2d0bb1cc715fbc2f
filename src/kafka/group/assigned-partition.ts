/**
 * One assignment of one partition, as the source keeps it while it lasts. State, no behaviour beyond its own end.
 * Imports: kafka/fetch, model.
 */
import type { Assignment } from '../../model/record.js';
import type { Generation } from './generation.js';
import type { LogReader } from '../fetch/records.js';

export interface AssignedPartition {
  readonly assignment: Assignment;
  readonly generation: Generation;
  /** `draining`: revoked and not yet released. `ended`: released, lost, or nobody listens any more. */
  state: 'active' | 'draining' | 'ended';
  /** The offset the next chunk begins at. */
  next: number;
  /** What was fetched at `next` and is not decoded yet, for want of room. */
  unread: Unread | undefined;
  /** As the leader told them last; undefined: it has not yet. */
  log: { readonly end: number; readonly stableEnd: number } | undefined;
  /** No more chunks are wanted. */
  halted: boolean;
  /** A fetch for it is under way, or being decoded. */
  busy: boolean;
  /** Settles with the last commit that was asked for; never rejects. */
  committing: Promise<void>;
  /** Not to be fetched before this, on the clock of `performance.now()`. */
  notBeforeMs: number;
  /** Since when its leader is being looked for, on the same clock. */
  leaderlessSinceMs: number | undefined;
  /** Neither was anything delivered nor has anybody sought: the place to begin is the group's word only. */
  isUnproven: boolean;
  /** Its state was claimed: if the group's word was wrong, the assignment would have been sent elsewhere. */
  isClaimed: boolean;
  /** Since when it waits, on the same clock, to be sent to an offset that the log holds. */
  heldSinceMs: number | undefined;
  /** What was seen of the topic, and how often in a row: a broker may lag behind. */
  observedChange: { readonly what: string; readonly looks: number } | undefined;
  /** The outcome of a commit is not known: none may follow in this generation. */
  isCommitUnknown: boolean;
  /** Aborted when it ends: nothing is committed for it any more. */
  readonly ended: AbortController;
}

export interface Unread {
  readonly reader: LogReader;
  readonly highWatermark: number;
}

export function newAssignedPartition(assignment: Assignment, generation: Generation, next: number): AssignedPartition {
  return {
    assignment,
    generation,
    next,
    state: 'active',
    unread: undefined,
    log: undefined,
    halted: false,
    busy: false,
    committing: Promise.resolve(),
    notBeforeMs: 0,
    leaderlessSinceMs: undefined,
    isUnproven: true,
    isClaimed: false,
    heldSinceMs: undefined,
    observedChange: undefined,
    isCommitUnknown: false,
    ended: new AbortController(),
  };
}

export function endAssignedPartition(assigned: AssignedPartition): void {
  assigned.state = 'ended';
  assigned.ended.abort();
}
