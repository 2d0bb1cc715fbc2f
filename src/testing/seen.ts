/**
 * What the invariant checker has seen at the ports so far. Imports: model.
 */
import type { Intent, PartitionState } from '../model/state.js';

interface Recorded {
  readonly intent: Intent;
  readonly topicId: string | undefined;
  readonly incarnation: number;
}

interface ClaimSeen {
  readonly state: PartitionState;
  /** Tokens of ranges in doubt at the claim that this assignment has sent or asked for. */
  readonly resolved: Set<number>;
}

/** What a watch has seen. */
export interface SavedWatch {
  readonly recorded: ReadonlyMap<string, Recorded>;
  readonly states: ReadonlyMap<number, PartitionState>;
  readonly claims: ReadonlyMap<number, ClaimSeen>;
  readonly claimedBy: ReadonlyMap<number, number>;
  readonly lost: ReadonlySet<number>;
  readonly topicOfToken: ReadonlyMap<string, string | undefined>;
  readonly blockRows: ReadonlyMap<string, number>;
  readonly torn: ReadonlySet<string>;
  readonly taken: ReadonlySet<string>;
}

/** All that was seen since the world began, or since it was restored. */
export class Seen {
  readonly recorded = new Map<string, Recorded>();
  readonly states = new Map<number, PartitionState>();
  readonly claims = new Map<number, ClaimSeen>();
  /** By which assignment each partition was claimed last. */
  readonly claimedBy = new Map<number, number>();
  readonly lost = new Set<number>();
  readonly topicOfToken = new Map<string, string | undefined>();
  readonly blockRows = new Map<string, number>();
  readonly torn = new Set<string>();
  /** Tokens of which an attempt took effect as a whole. */
  readonly taken = new Set<string>();
  /** Tokens that reached a table, and of which assignments they came. */
  readonly landed = new Map<string, Set<number>>();
  /** Tokens of ranges that were recorded in other parts since: nothing may land under them any more. */
  readonly replaced = new Set<string>();

  save(): SavedWatch {
    const claims = new Map(
      [...this.claims].map(([assignmentId, { state, resolved }]) => [
        assignmentId,
        { state, resolved: new Set(resolved) },
      ]),
    );
    return {
      recorded: new Map(this.recorded),
      states: new Map(this.states),
      claims,
      claimedBy: new Map(this.claimedBy),
      lost: new Set(this.lost),
      topicOfToken: new Map(this.topicOfToken),
      blockRows: new Map(this.blockRows),
      torn: new Set(this.torn),
      taken: new Set(this.taken),
    };
  }

  restore({ recorded, states, claims, claimedBy, lost, topicOfToken, blockRows, torn, taken }: SavedWatch): void {
    refill(this.recorded, recorded);
    refill(this.states, states);
    refill(
      this.claims,
      new Map(
        [...claims].map(([assignmentId, { state, resolved }]) => [
          assignmentId,
          { state, resolved: new Set(resolved) },
        ]),
      ),
    );
    refill(this.claimedBy, claimedBy);
    refill(this.topicOfToken, topicOfToken);
    refill(this.blockRows, blockRows);
    this.lost.clear();
    for (const assignmentId of lost) this.lost.add(assignmentId);
    this.torn.clear();
    for (const offset of torn) this.torn.add(offset);
    this.taken.clear();
    for (const token of taken) this.taken.add(token);
  }

  /**
   * Of assignments of which nothing will be heard any more: what they claimed, and that they were lost, does not
   * matter.
   */
  forget(isGone: (assignmentId: number) => boolean): void {
    this.forgetClaims(isGone);
    for (const assignmentId of [...this.lost]) if (isGone(assignmentId)) this.lost.delete(assignmentId);
  }

  /** Of assignments that wait for no claim. */
  forgetClaims(isGone: (assignmentId: number) => boolean): void {
    for (const assignmentId of [...this.claims.keys()]) if (isGone(assignmentId)) this.claims.delete(assignmentId);
  }
}

function refill<K, V>(map: Map<K, V>, from: ReadonlyMap<K, V>): void {
  map.clear();
  for (const [key, value] of from) map.set(key, value);
}
