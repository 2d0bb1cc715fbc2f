/**
 * Room: one generation of the group, as this member lives through it: when it ends and why. No calls.
 */
import type { Session } from './session.js';
import { newAbort } from '../connection/wait.js';

/** Why a session ends. `fenced` may still follow upon the others. */
export type End = 'rebalance' | 'fenced' | 'drain';

export class Turn {
  readonly session: Session;
  /** It will be over: nothing new is begun. */
  readonly ended = newAbort();
  /** The group has given our partitions to others. */
  readonly fenced = newAbort();
  /** It is over: no more heartbeats. */
  readonly closed = newAbort();
  readonly end_: Promise<End>;
  #resolve!: (end: End) => void;

  constructor(session: Session) {
    this.session = session;
    this.end_ = new Promise((resolve) => (this.#resolve = resolve));
  }

  end(end: End): void {
    if (end === 'fenced') this.fenced.abort();
    this.#resolve(end);
    this.ended.abort();
  }

  close(): void {
    this.closed.abort();
  }
}
