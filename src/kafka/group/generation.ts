/**
 * One generation of the group, as this member lives through it: what the join gave, when the
 * generation ends and why. No calls. Imports: kafka/connection.
 */
import type { TopicPartition } from './assignor.js';
import { newAbort } from '../connection/wait.js';

/** What a join gave: commits are pinned to it. */
export interface JoinedGroup {
  readonly memberId: string;
  readonly generationId: number;
  /** This member deals out the partitions, so it watches for new ones. */
  readonly isLeader: boolean;
  readonly partitions: readonly TopicPartition[];
  /**
   * Topics of which the group had committed some partitions and not others when this generation was dealt: those others
   * were added since. Undefined: who dealt did not look.
   */
  readonly grown?: ReadonlySet<string> | undefined;
  /** Of the leader: how many partitions of each topic it dealt out, topics of other members included. */
  readonly dealt?: ReadonlyMap<string, number> | undefined;
}

/** `fenced` may still follow upon the others. */
export type GenerationEnd = 'rebalance' | 'fenced' | 'drain';

export class Generation {
  readonly joined: JoinedGroup;
  /** It will be over: nothing new is begun. */
  readonly ended = newAbort();
  /** The group has given our partitions to others. */
  readonly fenced = newAbort();
  /** It is over: no more heartbeats, no more waiting for releases. */
  readonly closed = newAbort();
  /** Resolves with why it ended first. */
  readonly reasonForEnd: Promise<GenerationEnd>;
  #resolve!: (end: GenerationEnd) => void;

  constructor(joined: JoinedGroup) {
    this.joined = joined;
    this.reasonForEnd = new Promise((resolve) => (this.#resolve = resolve));
  }

  end(end: GenerationEnd): void {
    if (end === 'fenced') this.fenced.abort();
    this.#resolve(end);
    this.ended.abort();
  }

  close(): void {
    this.closed.abort();
  }
}
