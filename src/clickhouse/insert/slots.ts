/**
 * How many inserts are in flight, and the memory they are sent from. One slot is one permit and the two pieces that
 * a body is made in: fresh memory for every body costs more processor time, in page faults, than making the body
 * itself. Imports: errors.
 */
import { IngestError } from '../../errors.js';

/** The right to have one insert in flight. */
export interface Slot {
  /** What they held before is gone. */
  readonly pieces: readonly [Buffer, Buffer];
  /** To be called once, when nobody looks at the pieces any more. */
  free(): void;
}

interface Waiting {
  readonly grant: (slot: Slot) => void;
}

/** Large enough that a piece is worth its system call, small enough that it is still in the cache when it is sent. */
export const PIECE_BYTES = 256 * 1024;

export class InsertSlots {
  readonly #pieceBytes: number;
  readonly #free: Slot['pieces'][] = [];
  readonly #waiting = new Set<Waiting>();
  #left: number;

  constructor(count: number, pieceBytes = PIECE_BYTES) {
    this.#left = count;
    this.#pieceBytes = pieceBytes;
  }

  /** In the order of asking. Rejects with the signal's reason when that comes first. */
  async take(signal: AbortSignal): Promise<Slot> {
    signal.throwIfAborted();
    if (this.#left > 0) {
      this.#left--;
      return this.#slot();
    }
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        this.#waiting.delete(waiting);
        reject(signal.reason as Error);
      };
      const waiting: Waiting = {
        grant: (slot) => {
          signal.removeEventListener('abort', aborted);
          resolve(slot);
        },
      };
      this.#waiting.add(waiting);
      signal.addEventListener('abort', aborted, { once: true });
    });
  }

  #slot(): Slot {
    const pieces =
      this.#free.pop() ??
      ([Buffer.allocUnsafeSlow(this.#pieceBytes), Buffer.allocUnsafeSlow(this.#pieceBytes)] as const);
    let freed = false;
    return {
      pieces,
      free: () => {
        if (freed) throw new IngestError('KCR_INTERNAL', 'an insert slot was freed twice');
        freed = true;
        this.#free.push(pieces);
        this.#next();
      },
    };
  }

  #next(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#left++;
      return;
    }
    this.#waiting.delete(next);
    next.grant(this.#slot());
  }
}
