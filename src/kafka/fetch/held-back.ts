/**
 * Open transactions that hold a reader back: told when the readable end of a partition has stood still
 * behind the log's end for a while, and again now and then. It only watches: nothing is decided by it.
 * Imports: events, kafka, kafka/connection, kafka/group.
 */
import type { OnEvent } from '../../events.js';
import type { FetchedPartition } from './fetch-answer.js';
import { MOST_TRANSACTIONS, type OpenTransaction } from '../open-transactions.js';
import { nameOf } from '../group/assignor.js';
import type { GroupPosition } from '../group/group-offsets.js';
import { Gathered } from '../connection/gathered.js';
import type { AssignedPartition } from '../group/assigned-partition.js';

/** A producer at work may keep a transaction open for less. */
export const HELD_NOTICE_MS = 10_000;
export const HELD_AGAIN_MS = 60_000;

interface Held {
  readonly stableEnd: number;
  readonly highWatermark: number;
  readonly sinceMs: number;
  toldMs: number | undefined;
}

export interface HeldBackPorts {
  /** The oldest open transaction of each of these partitions, as far as the brokers tell. */
  readonly ask: (positions: readonly GroupPosition[]) => Promise<readonly OpenTransaction[]>;
  readonly onEvent: OnEvent;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

export class HeldBack {
  readonly #ports: HeldBackPorts;
  readonly #now: () => number;
  /** Partitions that are held back at the same time are asked for together: one producer may hold thousands. */
  readonly #transactions: Gathered<GroupPosition, OpenTransaction | undefined>;
  readonly #held = new WeakMap<AssignedPartition, Held>();

  constructor(ports: HeldBackPorts) {
    this.#ports = ports;
    this.#now = ports.now ?? Date.now;
    this.#transactions = new Gathered({
      take: () => MOST_TRANSACTIONS,
      call: async (positions) => {
        const open = new Map((await ports.ask(positions)).map((each) => [nameOf(each), each]));
        return positions.map((each) => ({ value: open.get(nameOf(each)) }));
      },
    });
  }

  /** What a fetch told of a partition. */
  see(
    assigned: AssignedPartition,
    { stableEnd, highWatermark }: Pick<FetchedPartition, 'stableEnd' | 'highWatermark'>,
  ): void {
    if (stableEnd < 0 || stableEnd >= highWatermark) {
      this.#held.delete(assigned);
      return;
    }
    const nowMs = this.#now();
    const before = this.#held.get(assigned);
    const held: Held =
      before?.stableEnd === stableEnd
        ? { ...before, highWatermark }
        : { stableEnd, highWatermark, sinceMs: nowMs, toldMs: undefined };
    this.#held.set(assigned, held);
    const dueMs = held.toldMs === undefined ? held.sinceMs + HELD_NOTICE_MS : held.toldMs + HELD_AGAIN_MS;
    if (nowMs < dueMs) return;
    held.toldMs = nowMs;
    void this.#tell(assigned, held, highWatermark);
  }

  /** A fetch told nothing new of it. */
  seeAgain(assigned: AssignedPartition): void {
    const held = this.#held.get(assigned);
    if (held !== undefined) this.see(assigned, held);
  }

  async #tell(assigned: AssignedPartition, { stableEnd, sinceMs }: Held, logEnd: number): Promise<void> {
    const { assignment } = assigned;
    const { topic, partition } = assignment;
    const position = { topic, partition, logStart: 0, stableEnd, logEnd, committed: undefined, metadata: '' };
    const open = await this.#transactions.ask(position).catch(() => undefined);
    if (assigned.state === 'ended') return;
    const { producerId, transactionalId } = open ?? {};
    this.#ports.onEvent({
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
