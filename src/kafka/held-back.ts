/**
 * Imports: this room. Open transactions that hold a reader back: told when the readable end of a partition has stood still
 * behind the log's end for a while, and again now and then. It only watches: nothing is decided by it.
 */
import type { Report } from '../events.js';
import type { FetchedPartition } from './fetch.js';
import { openTransactions, type OpenTransaction } from './open-transactions.js';
import type { Tenure } from './tenure.js';
import type { Wire } from './wire.js';

/** A producer at work may keep a transaction open for less. */
export const HELD_NOTICE_MS = 10_000;
export const HELD_AGAIN_MS = 60_000;

interface Held {
  readonly stableEnd: number;
  readonly sinceMs: number;
  toldMs: number | undefined;
}

export interface HeldBackPorts {
  readonly wire: Pick<Wire, 'cluster'>;
  readonly report: Report;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

export class HeldBack {
  readonly #ports: HeldBackPorts;
  readonly #now: () => number;
  readonly #held = new WeakMap<Tenure, Held>();

  constructor(ports: HeldBackPorts) {
    this.#ports = ports;
    this.#now = ports.now ?? Date.now;
  }

  /** What a fetch told of a partition. */
  see(tenure: Tenure, { stableEnd, highWatermark }: Pick<FetchedPartition, 'stableEnd' | 'highWatermark'>): void {
    if (stableEnd < 0 || stableEnd >= highWatermark) {
      this.#held.delete(tenure);
      return;
    }
    const nowMs = this.#now();
    const before = this.#held.get(tenure);
    const held = before?.stableEnd === stableEnd ? before : { stableEnd, sinceMs: nowMs, toldMs: undefined };
    this.#held.set(tenure, held);
    const dueMs = held.toldMs === undefined ? held.sinceMs + HELD_NOTICE_MS : held.toldMs + HELD_AGAIN_MS;
    if (nowMs < dueMs) return;
    held.toldMs = nowMs;
    void this.#tell(tenure, held, highWatermark);
  }

  async #tell(tenure: Tenure, { stableEnd, sinceMs }: Held, logEnd: number): Promise<void> {
    const { assignment } = tenure;
    const { topic, partition } = assignment;
    const position = { topic, partition, logStart: 0, stableEnd, logEnd, committed: undefined, metadata: '' };
    const [open] = await openTransactions(this.#ports.wire.cluster, [position]).catch((): OpenTransaction[] => []);
    if (tenure.state === 'ended') return;
    const { producerId, transactionalId } = open ?? {};
    this.#ports.report({
      kind: 'heldBack',
      assignment,
      stableEnd,
      logEnd,
      sinceMs: open?.sinceMs ?? sinceMs,
      producerId,
      transactionalId,
    });
  }
}
