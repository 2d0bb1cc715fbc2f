/**
 * Imports: this room. Open transactions that hold a reader back: told when the readable end of a partition has stood still
 * behind the log's end for a while, and again now and then. It only watches: nothing is decided by it.
 */
import type { OnEvent } from '../../events.js';
import type { FetchedPartition } from './fetch-request.js';
import { openTransactions, type OpenTransaction } from '../open-transactions.js';
import type { AssignedPartition } from '../group/assigned-partition.js';
import type { KafkaConnection } from '../connection/kafka-connection.js';

/** A producer at work may keep a transaction open for less. */
export const HELD_NOTICE_MS = 10_000;
export const HELD_AGAIN_MS = 60_000;

interface Held {
  readonly stableEnd: number;
  readonly sinceMs: number;
  toldMs: number | undefined;
}

export interface HeldBackPorts {
  readonly kafka: Pick<KafkaConnection, 'cluster'>;
  readonly onEvent: OnEvent;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

export class HeldBack {
  readonly #ports: HeldBackPorts;
  readonly #now: () => number;
  readonly #held = new WeakMap<AssignedPartition, Held>();

  constructor(ports: HeldBackPorts) {
    this.#ports = ports;
    this.#now = ports.now ?? Date.now;
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
    const held = before?.stableEnd === stableEnd ? before : { stableEnd, sinceMs: nowMs, toldMs: undefined };
    this.#held.set(assigned, held);
    const dueMs = held.toldMs === undefined ? held.sinceMs + HELD_NOTICE_MS : held.toldMs + HELD_AGAIN_MS;
    if (nowMs < dueMs) return;
    held.toldMs = nowMs;
    void this.#tell(assigned, held, highWatermark);
  }

  async #tell(assigned: AssignedPartition, { stableEnd, sinceMs }: Held, logEnd: number): Promise<void> {
    const { assignment } = assigned;
    const { topic, partition } = assignment;
    const position = { topic, partition, logStart: 0, stableEnd, logEnd, committed: undefined, metadata: '' };
    const [open] = await openTransactions(this.#ports.kafka.cluster, [position]).catch((): OpenTransaction[] => []);
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
